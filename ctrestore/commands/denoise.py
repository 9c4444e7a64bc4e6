"""``ctrestore denoise``: low-dose CT in, restored CT out, by a bundle's inference.json."""

from __future__ import annotations

import argparse
from typing import Any

from ctrestore.commands.scan_arguments import add_scan_arguments, run_on_scans


def add_denoise(commands: Any) -> None:
    """``ctrestore denoise IN OUT``."""
    parser = commands.add_parser(
        "denoise",
        help="take the noise out of low-dose CT scans",
        description="Run the inference of a bundle on CT scans. IN is a folder with DICOM series (in any sub-folders), "
        "a NIfTI file in HU, a folder of them, or a picture with its --window. One series goes to OUT as a new derived "
        "series, several to folders in OUT named after theirs; NIfTI files keep their names, headers and types; "
        "pictures become PNG. Values outside -1200 to 2000 HU and padding stay as they are. A scan that cannot be "
        "restored is named and the others go on; the exit status is then 1.",
    )
    add_scan_arguments(parser, bundle="ldct_denoising", variant="redcnn")
    parser.add_argument(
        "--dose",
        type=float,
        metavar="FRACTION",
        help="of the usual dose that the scan was made with, 0.1 to 0.5; the network takes away accordingly "
        "(default: it is not told)",
    )
    parser.add_argument(
        "--strength",
        type=_share,
        metavar="S",
        help="0: as it was, 1: as the network says; default: what the bundle says (0.9)",
    )
    parser.set_defaults(run=run_denoise)


def _share(text: str) -> float:
    """A number from 0 to 1."""
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise argparse.ArgumentTypeError(f"expected a number from 0 to 1, got {text!r}")
    return share


def run_denoise(args: argparse.Namespace) -> None:
    """Run inference.json with what was said.

    Raises:
        InputError: there is no such bundle or variant, or a scan could not be restored.
    """
    run_on_scans(args, "ldct_denoising", dose_fraction=args.dose, strength=args.strength)
