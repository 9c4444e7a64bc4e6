"""Slices a second of super-resolution: each network as the bundle runs it, next to a plain run and to bicubic.

    python benchmarks/sr_inference.py                # 512 to 1024 and 256 to 512, on the CPU
    python benchmarks/sr_inference.py --threads 2 --repeats 5 --device cuda

Plain: the network called on a float32 slice. Ours: in the memory order that convolutions are fastest in, bfloat16 where
the config says `amp`. The two are timed in turns and the best of each counts, because machines are noisy. Weights are
random, which changes no time.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import torch
from monai.bundle import ConfigParser
from sr_table import BUNDLE, CONFIGS, INTERPOLATIONS, NETWORKS
from torch import nn

from ctrestore.networks import Interpolation
from ctrestore.tasks.runtime import on_device
from ctrestore.training.inferers import MixedPrecisionInferer
from ctrestore.training.precision import Amp

SERIES = 300


def networks(scale: int, names: list[str]) -> dict[str, tuple[nn.Module, Amp]]:
    """Every network, and what its config says of bfloat16."""
    found: dict[str, tuple[nn.Module, Amp]] = {}
    for name, kernel in INTERPOLATIONS.items():
        found[name] = (Interpolation(scale, kernel), False)  # type: ignore[arg-type]
    for overlay, name in NETWORKS.items():
        if overlay in names and (CONFIGS / f"{overlay}.json").is_file():
            parser = ConfigParser()
            parser.read_config([str(CONFIGS / f"{file}.json") for file in dict.fromkeys(("train", overlay))])
            parser.update({"bundle_root": str(BUNDLE), "scale": scale})
            found[name] = (parser.get_parsed_content("network_def"), parser["amp"])
    return found


def seconds_a_slice(network: nn.Module, amp: Amp, side: int, args: argparse.Namespace) -> tuple[float, float]:
    """Plain and ours."""
    ours = on_device(network, args.device).eval()
    run, plain = MixedPrecisionInferer(amp), [10.0**9]
    tuned = [10.0**9]
    batch = torch.rand(args.batch, 1, side, side, device=args.device) * 3 - 1

    def clocked(function: Any) -> float:
        start = time.perf_counter()
        function()
        if args.device != "cpu":
            torch.cuda.synchronize()
        return time.perf_counter() - start

    with torch.inference_mode():
        for _ in range(args.repeats):
            tuned.append(clocked(lambda: run(batch, ours)) / args.batch)
            ours.to(memory_format=torch.contiguous_format)
            plain.append(clocked(lambda: ours(batch[:1])))
            ours.to(memory_format=torch.channels_last)
    return min(plain), min(tuned)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--scale", type=int, default=2)
    parser.add_argument("--sides", type=int, nargs="+", default=[512, 256])
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=list(NETWORKS))
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    where = f"{args.threads} threads" if args.device == "cpu" else torch.cuda.get_device_name()
    print(f"{where}, torch {torch.__version__}, best of {args.repeats}; s a slice")
    for side in args.sides:
        print(f"\n{side} to {args.scale * side}")
        print(f"{'':<14}{'parameters':>12}{'plain':>9}{'ours':>9}{'ratio':>7}{'slices/s':>10}{f'{SERIES} slices':>13}")
        for name, (network, amp) in networks(args.scale, args.networks).items():
            n = sum(parameter.numel() for parameter in network.parameters())
            plain, ours = seconds_a_slice(network, amp, side, args)
            print(f"{name:<14}{n:>12,}{plain:>9.3f}{ours:>9.3f}{plain / ours:>7.1f}{1 / ours:>10.1f}"
                  f"{SERIES * ours:>11.0f} s", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
