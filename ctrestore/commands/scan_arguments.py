"""Arguments that all commands on CT scans share, and how they run a bundle."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def add_scan_arguments(parser: argparse.ArgumentParser, *, bundle: str, variant: str) -> None:
    """The arguments of every command that runs a bundle's inference.json on CT scans."""
    parser.add_argument("input", type=Path, metavar="IN")
    parser.add_argument("output", type=Path, metavar="OUT")
    parser.add_argument("--bundle", type=Path, metavar="DIR", help=f"the bundle (default: bundles/{bundle})")
    parser.add_argument(
        "--config",
        action="append",
        default=[],
        metavar="NAME",
        help=f"a variant of the bundle, such as {variant} (configs/{variant}.json), or another JSON file; may be "
        "repeated",
    )
    parser.add_argument("--weights", metavar="FILE", help="other weights than the bundle's own")
    parser.add_argument("--device", help="cpu, cuda, cuda:1 (default: the first GPU, else the CPU)")
    parser.add_argument(
        "--window",
        type=float,
        nargs=2,
        metavar=("LEVEL", "WIDTH"),
        help="of pictures: HU of the middle grey, and between black and white",
    )
    parser.add_argument("--series", metavar="UID", help="only this SeriesInstanceUID")
    parser.add_argument(
        "--batch-slices",
        "--batch_slices",
        type=whole_number,
        metavar="N",
        help="slices at a time (default: 1 on a CPU, 4 on a GPU)",
    )
    parser.add_argument("--tile", type=whole_number, metavar="N", help="tiles of N pixels, where memory is short")
    add_amp(parser)


def add_amp(parser: argparse.ArgumentParser) -> None:
    """``--amp`` and ``--no-amp``; without either the bundle's config decides, which is ``auto`` for most networks."""
    parser.add_argument(
        "--amp",
        action=argparse.BooleanOptionalAction,
        help="compute in bfloat16, or in float32 (default: bfloat16 where the processor or the GPU has it in hardware)",
    )


def whole_number(text: str) -> int:
    """A whole number above 0."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number above 0, got {text!r}")
    return int(text)


def run_on_scans(args: argparse.Namespace, name: str, **said: Any) -> None:
    """Run the inference.json of a bundle with the shared arguments and others; what was not said, None, is its own.

    Raises:
        InputError: there is no such bundle or variant, or a scan could not be restored.
    """
    from ctrestore.tasks.runtime import find_bundle, run_bundle

    bundle = find_bundle(args.bundle, name)
    said |= {
        "dataset_dir": str(args.input),
        "output_dir": str(args.output),
        "weights": args.weights,
        "device": args.device,
        "window": args.window,
        "series_uid": args.series,
        "batch_slices": args.batch_slices,
        "tile": args.tile,
        "amp": args.amp,
    }
    overrides = {name: value for name, value in said.items() if value is not None}
    run_bundle(bundle, ["inference", *args.config], **overrides)
