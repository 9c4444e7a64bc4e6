"""How fast CT slices are denoised and patches are trained on, and what a long series takes in memory.

    python benchmarks/ldct_inference.py                       # networks, 600 slices from DICOM to DICOM, training
    python benchmarks/ldct_inference.py --only networks       # the first table alone
    python benchmarks/ldct_inference.py --redcnn-weights FILE # RED-CNN with other weights than the bundle's

Ratios come first: machines are noisy, so what is compared is timed in turns. "plain" is the network as it is written,
in float32, one slice at a time; "ours" is what inference.json makes of it (bfloat16, channels last, slices in batches),
with the same weights. Everything on the CPU, and on the first GPU where there is one.
"""

from __future__ import annotations

import argparse
import copy
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from commands import apart, cost_of
from ignite.engine import Engine, Events
from monai.bundle import ConfigParser
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ctrestore.io.dicom import write_phantom_series
from ctrestore.networks import REDCNN
from ctrestore.phantoms.ct import chest
from ctrestore.training.inferers import TiledInferer
from ctrestore.training.weights import load_weights
from ctrestore.transforms.low_dose import dose_map

BUNDLE = Path(__file__).resolve().parent.parent / "bundles" / "ldct_denoising"
# Dense bfloat16 or float16 with tensor cores, from the vendors' data sheets.
PEAK_TFLOPS = {"H200": 989.0, "H100": 989.0, "A100": 312.0, "L40": 181.0, "T4": 65.0}
SIDE = 512


def noisy_slice() -> Tensor:
    """A chest phantom with 40 HU of correlated noise, ``(1, 1, 512, 512)`` in HU / 1000."""
    hu = chest(0, n_slices=1, matrix=SIDE).hu[..., 0]
    rng = np.random.default_rng(0)
    noise = torch.nn.functional.avg_pool2d(torch.from_numpy(rng.normal(0, 80, (1, SIDE, SIDE))), 3, 1, 1)
    return ((torch.from_numpy(hu)[None, None] + noise).clip(-1024, 2000) / 1000).float()


def networks(redcnn_weights: Path | None) -> dict[str, tuple[nn.Module, str]]:
    """RED-CNN and the bundle's own network, each with the name of its weights."""
    parser = ConfigParser()
    parser.read_config(str(BUNDLE / "configs" / "inference.json"))
    made: dict[str, tuple[nn.Module, str]] = {}
    files = {"RED-CNN": redcnn_weights or BUNDLE / "models" / "redcnn.pt", "own": BUNDLE / "models" / "model.pt"}
    for name, network in (("RED-CNN", REDCNN()), ("own", parser.get_parsed_content("network_def"))):
        if files[name].is_file():
            load_weights(files[name], network)
        made[name] = network.eval(), str(files[name]) if files[name].is_file() else "not there: untrained"
    return made


def in_turns(runs: dict[str, Callable[[], Any]], repeats: int, device: str) -> dict[str, float]:
    """The least seconds of each, timed one after the other, over and over."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    with torch.no_grad():
        for run in runs.values():
            run()
        for _ in range(repeats):
            for name, run in runs.items():
                start = time.perf_counter()
                run()
                if device != "cpu":
                    torch.cuda.synchronize()
                times[name].append(time.perf_counter() - start)
    return {name: min(values) for name, values in times.items()}


def network_table(device: str, repeats: int, batch: int, redcnn_weights: Path | None) -> None:
    """Ratios, differences and seconds a slice of both networks."""
    image = noisy_slice().to(device)
    ours, runs, outputs, weights, flops = TiledInferer(), {}, {}, {}, {}
    for name, (network, file) in networks(redcnn_weights).items():
        weights[name] = file
        plain = network.to(device)
        shown = image if name == "RED-CNN" else torch.cat([image, dose_map(image[0], None)[None]], dim=1)
        tuned = copy.deepcopy(plain).to(memory_format=torch.channels_last)
        slices = shown.expand(batch, -1, -1, -1).contiguous()
        runs[f"{name} plain"] = lambda network=plain, shown=shown: network(shown)
        runs[f"{name} ours"] = lambda network=tuned, slices=slices: ours(slices, network)
        with torch.no_grad():
            outputs[name] = ours(shown, tuned), plain(shown)
            with FlopCounterMode(display=False) as counter:
                plain(shown)
            flops[name] = counter.get_total_flops()
    seconds = in_turns(runs, repeats, device)
    per_slice = {name: s / (batch if name.endswith("ours") else 1) for name, s in seconds.items()}
    gpu = torch.cuda.get_device_name() if device != "cpu" else ""
    peak = next((tflops for name, tflops in PEAK_TFLOPS.items() if name in gpu), float("nan"))
    plain_s = per_slice["RED-CNN plain"]
    print(f"\n{gpu or f'{torch.get_num_threads()} threads'}, slices of {SIDE} x {SIDE}, {batch} at a time")
    titles = [
        "Network", "Faster than RED-CNN plain", "Faster than itself plain", "Mean difference from itself plain, HU",
        "99.9 % of pixels within, HU", "s a slice plain", "s a slice ours", "TFLOP/s", "Share of peak",
    ]  # fmt: skip
    print("| " + " | ".join(titles) + " |\n" + "| --- " * len(titles) + "|")
    for name in flops:
        difference = 1000 * (outputs[name][0] - outputs[name][1]).abs().flatten()
        far = difference.float().cpu().quantile(0.999)
        own_s, rate = per_slice[f"{name} ours"], flops[name] / per_slice[f"{name} ours"] / 1e12
        share = f"{rate / peak:.1%}" if np.isfinite(peak) else "-"
        own_plain_s = per_slice[f"{name} plain"]
        print(
            f"| {name} | {plain_s / own_s:.1f} | {own_plain_s / own_s:.2f} | {difference.mean():.2f} | {far:.2f} | "
            f"{own_plain_s:.4f} | {own_s:.4f} | {rate:.2f} | {share} |"
        )
    for name, file in weights.items():
        print(f"weights of {name}: {file}")


def write_series(folder: Path, n: int) -> None:
    """A phantom of a few slices, again and again, as a series of ``n``."""
    few = chest(0, n_slices=4, matrix=SIDE).hu
    noise = np.random.default_rng(0).normal(0, 30, few.shape)
    hu = np.clip(few + noise, -1024, 3000).astype(np.float32)
    whole = np.tile(hu, (1, 1, -(-n // 4)))[..., :n]
    write_phantom_series(whole, np.diag([-0.7, -0.7, 1.0, 1.0]), folder)


def write_volume(folder: Path, n: int) -> None:
    """The like as one NIfTI."""
    import nibabel as nib

    few = np.rint(np.clip(chest(0, n_slices=4, matrix=SIDE).hu, -1024, 3000)).astype(np.int16)
    nib.save(nib.Nifti1Image(np.tile(few, (1, 1, -(-n // 4)))[..., :n], np.diag([-0.7, -0.7, 1.0, 1.0])), folder)


def command(source: Path, target: Path, device: str, weights: str) -> tuple[float, float]:
    """Seconds and peak memory (GB) of ``ctrestore denoise``, start of the interpreter and files included."""
    said = [sys.executable, "-m", "ctrestore.commands.main", "denoise", str(source), str(target), "--device", device]
    said += ["--bundle", str(BUNDLE), "--weights", weights]
    cost = cost_of(said)
    return cost.wall_s, cost.peak_memory_gb


def series_table(devices: list[str], n: int) -> None:
    """Whole command on a long series and a long volume."""
    released = BUNDLE / "models" / "model.pt"
    print(f"\n`ctrestore denoise`, {n} slices of {SIDE} x {SIDE}\n| Device | Scan | Peak memory, GB | s | s a slice |")
    print("| --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # In a process of their own, which takes its memory with it: Linux counts a command's memory from its parent's.
        apart(write_series, folder / "series", n)
        apart(write_volume, folder / "scan.nii.gz", n)
        weights = "none"
        if released.is_file():
            weights = str(released)
        for device in devices:
            for kind, source in (("DICOM", folder / "series"), ("NIfTI", folder / "scan.nii.gz")):
                target = folder / f"{device}_{source.name}"
                seconds, memory = command(source, target, device, weights)
                print(f"| {device} | {kind} | {memory:.2f} | {seconds:.0f} | {seconds / n:.3f} |", flush=True)


class Waiting:
    """How long an engine waits for its data, and how long it takes for all."""

    def __init__(self, warm_up: int, iterations: int) -> None:
        self.warm_up, self.iterations = warm_up, iterations
        self.waited, self.asked, self.started = [0.0], 0.0, 0.0

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.GET_BATCH_STARTED, self._ask)
        engine.add_event_handler(Events.GET_BATCH_COMPLETED, self._got)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._done)

    def _ask(self, engine: Engine) -> None:
        self.asked = time.perf_counter()

    def _got(self, engine: Engine) -> None:
        self.waited.append(time.perf_counter() - self.asked)

    def _done(self, engine: Engine) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        if engine.state.iteration == self.warm_up:
            self.started, self.waited = time.perf_counter(), []
        if engine.state.iteration == self.warm_up + self.iterations:
            self.seconds = time.perf_counter() - self.started
            engine.terminate()


def training_row(device: str, overlays: list[str], num_workers: int, iterations: int) -> str:
    """Patches a second of train.json with overlays, and the share of the time that waits for patches."""
    parser = ConfigParser()
    parser.read_config([str(BUNDLE / "configs" / f"{name}.json") for name in ("train", *overlays)])
    waiting = Waiting(warm_up=5, iterations=iterations)
    changes = {"bundle_root": str(BUNDLE), "device": device, "num_workers": num_workers, "training_subjects": 2}
    changes |= {"slices_per_scan": 2, "patches_per_slice": 100_000, "n_noise": 1}
    for name, value in changes.items():
        parser[name] = value
    steps = ("ClipGradientNorm", "LrScheduleHandler")
    parser["train#handlers"] = [h for h in parser["train#handlers"] if h["_target_"].split(".")[-1] in steps]
    trainer = parser.get_parsed_content("train#trainer")
    waiting.attach(trainer)
    trainer.run()
    batch, patch = parser.get_parsed_content("batch_size"), parser.get_parsed_content("patch_size")
    rate, share = batch * iterations / waiting.seconds, sum(waiting.waited) / waiting.seconds
    return f"| {device} | {', '.join(overlays) or 'own'} | {num_workers} | {patch} | {rate:.0f} | {share:.1%} |"


def training_table(devices: list[str]) -> None:
    """Patches a second, and whether the device waits for them."""
    print("\n| Device | Config | Workers | Patch | Patches a second | Share of the time waiting for data |")
    print("| --- " * 6 + "|")
    for device in devices:
        for overlays in ([], ["redcnn"]):
            for workers in (0,) if device == "cpu" else (0, 4, 8):
                iterations = 20 if device == "cpu" else 300
                print(apart(training_row, device, overlays, workers, iterations), flush=True)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=["networks", "series", "training"], help="one table")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--slices", type=int, default=600, help="of the long series (600)")
    parser.add_argument("--batch", type=int, default=4, help="slices at a time (4)")
    parser.add_argument("--redcnn-weights", type=Path, metavar="FILE")
    args = parser.parse_args()
    devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    print(f"{os.cpu_count()} cores, torch {torch.__version__}; best of {args.repeats}")
    if args.only in (None, "networks"):
        for device in devices:
            apart(network_table, device, args.repeats, args.batch, args.redcnn_weights)
    if args.only in (None, "series"):
        series_table(devices, args.slices)
    if args.only in (None, "training"):
        training_table(devices)


if __name__ == "__main__":
    main()
