"""``ctrestore release-weights``: trained weights as a bundle ships them."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def add_release_weights(commands: Any) -> None:
    """``ctrestore release-weights``: trained weights as a bundle ships them."""
    parser = commands.add_parser(
        "release-weights",
        help="write trained weights as a bundle ships them: half precision, plain tensors",
        description="Read the weights of a training (runs/model.pt or runs/last.pt) and write them in half precision, "
        "as plain tensors that load without running code.",
    )
    parser.add_argument("trained", type=Path, metavar="TRAINED", help="model.pt or last.pt of a training")
    parser.add_argument("released", type=Path, metavar="RELEASED", help="the file to write, such as models/model.pt")
    parser.set_defaults(run=run_release_weights)


def run_release_weights(args: argparse.Namespace) -> None:
    """Convert, check, write whole or not at all."""
    from ctrestore.training.weights import release_weights

    n_values = release_weights(args.trained, args.released)
    print(f"{n_values:,} values, {args.released.stat().st_size / 1e6:.1f} MB: {args.released}")
