"""``ctrestore upscale``: CT in, CT on a finer grid out, by the inference.json of the super-resolution bundle."""

from __future__ import annotations

import argparse
from typing import Any

from ctrestore.commands.scan_arguments import add_scan_arguments, run_on_scans, whole_number


def add_upscale(commands: Any) -> None:
    """``ctrestore upscale IN OUT``."""
    parser = commands.add_parser(
        "upscale",
        help="give CT scans on a finer grid, with less noise",
        description="Run the super-resolution bundle on CT scans, slice by slice. IN is a folder with DICOM series "
        "(in any sub-folders), a NIfTI file in HU, a folder of them, or a picture with its --window. One series goes "
        "to OUT as a new derived series, several to folders in OUT named after theirs; NIfTI files keep their names "
        "and types; pictures become PNG. Slices keep their outline and their distance: positions, spacing and affine "
        "are those of the finer grid. Values outside -1024 to 3071 HU and padding stay as they are. A scan that cannot "
        "be upscaled is named and the others go on; the exit status is then 1.",
    )
    add_scan_arguments(parser, bundle="ct_super_resolution", variant="espcn")
    parser.add_argument(
        "--scale",
        type=whole_number,
        metavar="N",
        help="how many times finer along both axes of a slice; there are weights for 2 (default) and 4",
    )
    parser.add_argument(
        "--through-plane",
        "--through_plane",
        type=whole_number,
        metavar="N",
        help="of thick slices: N slices in the place of one, those between interpolated, which adds no detail",
    )
    parser.set_defaults(run=run_upscale)


def run_upscale(args: argparse.Namespace) -> None:
    """Run inference.json with what was said.

    Raises:
        InputError: there is no such bundle, variant or weights for the scale, or a scan could not be upscaled.
    """
    run_on_scans(args, "ct_super_resolution", scale=args.scale, through_plane=args.through_plane)
