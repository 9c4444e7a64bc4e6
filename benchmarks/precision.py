"""Seconds of every released network in float32 and in bfloat16, and whether `amp: auto` takes the faster.

    python benchmarks/precision.py                # on the CPU; ends with status 1 where auto takes the slower one
    python benchmarks/precision.py --device cuda --repeats 9

Inference: a forward pass as the bundle makes it (channels last). Training: a forward and a backward pass of a small
batch. The two precisions are timed in turns and the best of each counts, because machines are noisy. Networks whose
config says `amp: false` lose accuracy in bfloat16 and run in float32 whatever is faster.
"""

from __future__ import annotations

import argparse
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from monai.bundle import ConfigParser
from torch import nn

from ctrestore.tasks.runtime import on_device
from ctrestore.training.inferers import MixedPrecisionInferer
from ctrestore.training.precision import detect, has_bfloat16
from ctrestore.training.weights import load_weights

ROOT = Path(__file__).parent.parent
TOLERANCE = 1.1  # auto may take what is slower by so much


class Released(NamedTuple):
    """Weights that a bundle ships: the overlay that names them, and the sides of an image and of a training patch."""

    bundle: str
    overlay: str | None
    weights: str
    side: int
    patch: int
    changes: dict[str, object] = {}


RELEASED = {
    "PET network": Released("pet_pvc", None, "model.pt", 48, 24),
    "tissue network": Released("pet_pvc", None, "tissue.pt", 48, 24, {"method": "hybrid"}),
    "UnshuffledUNet": Released("ldct_denoising", None, "model.pt", 512, 128),
    "RED-CNN": Released("ldct_denoising", "redcnn", "redcnn.pt", 128, 55),
    "GAN-CIRCLE": Released("ldct_denoising", "gan_circle", "gan_circle.pt", 256, 64),
    "SubPixelUNet x2": Released("ct_super_resolution", None, "model.pt", 256, 48),
    "SubPixelUNet x4": Released("ct_super_resolution", None, "x4.pt", 128, 24, {"scale": 4}),
    "SRCNN": Released("ct_super_resolution", "srcnn", "srcnn.pt", 256, 48),
    "FSRCNN": Released("ct_super_resolution", "fsrcnn", "fsrcnn.pt", 256, 48),
    "ESPCN": Released("ct_super_resolution", "espcn", "espcn.pt", 256, 48),
    "VDSR": Released("ct_super_resolution", "vdsr", "vdsr.pt", 128, 48),
    "DenseNet121": Released("lung_ct_classification", None, "model.pt", 256, 64),
}


def parsed(released: Released) -> ConfigParser:
    """The bundle's inference config with the overlay of these weights."""
    folder = ROOT / "bundles" / released.bundle
    parser = ConfigParser()
    names = ["train" if released.overlay == "gan_circle" else "inference", *filter(None, [released.overlay])]
    parser.read_config([str(folder / "configs" / f"{name}.json") for name in names])
    parser.update({"bundle_root": str(folder), **released.changes})
    return parser


def seconds(function: Callable[[], object], device: str) -> float:
    """Of one call."""
    start = time.perf_counter()
    function()
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def best(step: Callable[[bool], object], args: argparse.Namespace) -> dict[bool, float]:
    """Best seconds of a step in float32 (False) and in bfloat16 (True), in turns."""
    found = {False: float("inf"), True: float("inf")}
    for _ in range(args.repeats):
        for amp in found:
            found[amp] = min(found[amp], seconds(lambda amp=amp: step(amp), args.device))
    return found


def steps_of(released: Released, args: argparse.Namespace) -> tuple[Callable[[bool], object], Callable[[bool], object]]:
    """A step of inference and one of training."""
    parser = parsed(released)
    definition = "tissue_network_def" if released.weights == "tissue.pt" else "network_def"
    network: nn.Module = on_device(parser.get_parsed_content(definition), args.device)
    load_weights(ROOT / "bundles" / released.bundle / "models" / released.weights, network)
    spatial_dims = next(3 if isinstance(m, nn.Conv3d) else 2 for m in network.modules() if hasattr(m, "kernel_size"))
    n_channels = int(parser.get(definition).get("in_channels", 1))
    image = torch.rand(1, n_channels, *[released.side] * spatial_dims, device=args.device)
    patches = torch.rand(4, n_channels, *[released.patch] * spatial_dims, device=args.device)

    def infer(amp: bool) -> torch.Tensor:
        network.eval()
        with torch.inference_mode():
            return MixedPrecisionInferer(amp)(image, network)

    def train(amp: bool) -> None:
        network.train()
        network.zero_grad()
        MixedPrecisionInferer(amp)(patches, network).square().mean().backward()

    return infer, train


def main() -> None:
    """Print the table; status 1 where auto takes the slower precision."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, help="default: torch's own")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--networks", nargs="+", default=list(RELEASED), choices=list(RELEASED), metavar="NAME")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    hardware = detect(torch.device(args.device))
    auto, why = has_bfloat16(hardware)
    print(
        f"{hardware.name or platform.processor()}, {torch.get_num_threads()} threads, torch {torch.__version__}; "
        f"best of {args.repeats}\nauto: {'bfloat16' if auto else 'float32'}, because {why}\n"
    )
    columns = "".join(f"{name:>12}" for name in ("float32 s", "bfloat16 s", "bf16 / fp32", "auto is"))
    print(f"{'network':<18}{'':<11}{columns}")
    wrong = []
    for name in args.networks:
        allowed = parsed(RELEASED[name])["amp"] == "auto"
        for what, step in zip(("inference", "training"), steps_of(RELEASED[name], args)):
            took = best(step, args)
            chosen = auto and allowed
            slower = took[chosen] / took[not chosen]
            verdict = "float32 *" if not allowed else "right" if slower <= 1 else f"{slower:.2f} x"
            if allowed and slower > TOLERANCE:
                wrong.append(f"{name} ({what}): {slower:.2f} times as slow as the other precision")
            print(
                f"{name:<18}{what:<11}{took[False]:>12.3f}{took[True]:>12.3f}{took[True] / took[False]:>12.1f}"
                f"{verdict:>12}",
                flush=True,
            )
    print("\n* amp is false in its config: bfloat16 would cost it accuracy")
    if wrong:
        sys.exit("auto took the slower precision:\n  " + "\n  ".join(wrong))


if __name__ == "__main__":
    main()
