"""``ctrestore demo``: correct embedded scans with the released weights, evaluate, and draw a picture."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ctrestore.commands.phantoms import _count
from ctrestore.commands.scan_arguments import add_amp


def add_demo(commands: Any) -> None:
    """``ctrestore demo``: correct embedded scans with the released weights, evaluate, and draw a picture."""
    parser = commands.add_parser(
        "demo",
        help="correct embedded brain PET scans with the released weights; a table and a picture",
        description="Run bundles/pet_pvc on embedded test phantoms, compare the network with sharpening, "
        "Richardson-Lucy and Van Cittert against the truth, and draw one scan. Run it from a checkout.",
    )
    parser.add_argument("--bundle", type=Path, metavar="DIR", help="the bundle (default: bundles/pet_pvc)")
    parser.add_argument("--scans", type=_count, default=3, metavar="N", help="test phantoms to correct (default: 3)")
    parser.add_argument("-o", "--output", type=Path, default=Path("demo"), metavar="DIR", help="default: demo")
    add_amp(parser)
    parser.set_defaults(run=run_demo)


def run_demo(args: argparse.Namespace) -> None:
    """Inference, evaluation, picture; prints where they lie."""
    from ctrestore.tasks.pet_pvc.figure import figure_pet_pvc
    from ctrestore.tasks.pet_pvc.output_names import outputs_of
    from ctrestore.tasks.pet_pvc.scans import entries
    from ctrestore.tasks.runtime import embedded_data_dir, find_bundle, run_bundle

    bundle = find_bundle(args.bundle, "pet_pvc")
    run_bundle(
        bundle,
        ["train", "evaluate"],
        weights=str(bundle / "models" / "model.pt"),
        output_dir=str(args.output),
        test_subjects=args.scans,
        published_protocol=False,
        classical_rows=False,
        **({} if args.amp is None else {"amp": args.amp}),
    )
    folder = embedded_data_dir(str(bundle), "pet_pvc_phantom")
    scan = entries("test", None, folder, n=args.scans)[0]
    (corrected,) = outputs_of([scan], str(args.output), folder)
    picture = figure_pet_pvc(
        scan["image"], corrected, args.output / "pet_pvc.png", truth=scan["truth"], subject=scan["subject"]
    )
    print(f"corrected scans: {args.output.resolve()}\ntable:           {(args.output / 'metrics.csv').resolve()}")
    print(f"picture:         {picture.resolve()}")
