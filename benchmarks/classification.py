"""How fast lung CT is classified and learned, and what many images take in memory.

    python benchmarks/classification.py                          # all three tables
    python benchmarks/classification.py --only inference         # one of them
    python benchmarks/classification.py --images 10000 --only memory

Network, loading and training are those of the bundle `lung_ct_classification`. "plain" is the network as it is written,
in float32; "tuned" is what the bundle makes of it (bfloat16 where it is faster, channels last),
with the same weights: the released ones
where they are there, else random ones. The two are timed in turns and the best of each counts, because machines are
noisy. Memory is the peak of a process that reads a list of so many images once as the training does, beside the same
with a tenth of them.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from commands import apart
from monai.bundle import ConfigParser
from torch import Tensor, nn

from ctrestore.io.nifti import write_nifti
from ctrestore.phantoms.ct import LUNG_CLASSES, lung_slice
from ctrestore.tasks.runtime import on_device
from ctrestore.training.inferers import MixedPrecisionInferer
from ctrestore.training.weights import load_weights

BUNDLE = Path(__file__).resolve().parent.parent / "bundles" / "lung_ct_classification"
N_DISTINCT = 8  # images of the synthetic list are links to so many files


def config(**options: Any) -> ConfigParser:
    """The bundle's train.json with other knobs."""
    parser = ConfigParser()
    parser.read_config(str(BUNDLE / "configs" / "train.json"))
    parser.update({"bundle_root": str(BUNDLE), **options})
    return parser


def synthetic_list(folder: Path, n: int) -> Path:
    """A data list of n images of 512 x 512, links to a few lung phantoms."""
    for i in range(N_DISTINCT):
        path = folder / f"phantom_{i}.nii.gz"
        if not path.is_file():
            phantom = lung_slice(i, LUNG_CLASSES[i % len(LUNG_CLASSES)])
            write_nifti(nib.Nifti1Image(np.rint(phantom.hu).astype(np.int16), phantom.affine), path)
    content: dict[str, Any] = {"classes": list(LUNG_CLASSES), "training": [], "validation": []}
    for section, count in (("training", n), ("validation", len(LUNG_CLASSES))):
        for i in range(count):
            image = folder / f"{section}_{i:05d}.nii.gz"
            if not image.exists():
                os.link(folder / f"phantom_{i % N_DISTINCT}.nii.gz", image)
            label = i % len(LUNG_CLASSES)
            content[section].append(
                {"subject": f"{section}-{i}", "image": image.name, "label": label, "class": LUNG_CLASSES[label]}
            )
    path = folder / f"list_{n}.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def options_of(args: argparse.Namespace, path: Path) -> dict[str, Any]:
    """Knobs of the bundle for a synthetic list."""
    return {
        "data_list": str(path), "dataset_dir": str(path.parent), "ckpt_dir": str(path.parent / "runs"),
        "image_size": args.image_size, "device": torch.device("cpu"), "batch_size": args.batch,
    }  # fmt: skip


def best_of(repeats: int, *functions: Any) -> list[float]:
    """Fewest seconds of each function, called in turns."""
    seconds = [float("inf")] * len(functions)
    for _ in range(repeats):
        for i, function in enumerate(functions):
            start = time.perf_counter()
            function()
            seconds[i] = min(seconds[i], time.perf_counter() - start)
    return seconds


def inference(args: argparse.Namespace, folder: Path) -> None:
    """Images a second, plain and tuned, and whether they agree."""
    parser = config(**options_of(args, synthetic_list(folder, N_DISTINCT)))
    plain: nn.Module = parser.get_parsed_content("network_def")
    weights = BUNDLE / "models" / "model.pt"
    if weights.is_file():
        load_weights(weights, plain)
    plain.eval()
    tuned, run = on_device(copy.deepcopy(plain), "cpu"), MixedPrecisionInferer(True)
    entries, steps = (parser.get_parsed_content(name) for name in ("train#dataset#data", "validate#preprocessing"))
    images = torch.stack([steps(entry)["image"] for entry in entries])
    batch = images.repeat(-(-args.batch // len(images)), 1, 1, 1)[: args.batch]
    with torch.inference_mode():
        first, second = plain(images).softmax(dim=1), run(images, tuned).softmax(dim=1)
        seconds = best_of(args.repeats, lambda: plain(batch), lambda: run(batch, tuned))
    print(f"\nInference, {args.image_size} x {args.image_size}, batches of {args.batch}, {args.threads} threads\n")
    print("| | images a second |\n|---|---|")
    for name, value in zip(("plain: float32", "tuned: mixed precision, channels last"), seconds):
        print(f"| {name} | {args.batch / value:.1f} |")
    same = float((first.argmax(dim=1) == second.argmax(dim=1)).float().mean())
    print(
        f"\n{seconds[0] / seconds[1]:.1f} times as fast; the same class for {same:.0%} of {len(images)} images, "
        f"probabilities differ by at most {float((first - second).abs().max()):.4f} "
        f"({'released' if weights.is_file() else 'random'} weights)."
    )


def training(args: argparse.Namespace, folder: Path) -> None:
    """Images a second of the training, how busy the cores are, and what the loading alone takes."""
    n = args.steps * args.batch
    parser = config(**options_of(args, synthetic_list(folder, n)), amp=args.amp)
    loader = parser.get_parsed_content("train#dataloader")
    network, optimizer = parser.get_parsed_content("network"), parser.get_parsed_content("optimizer")
    loss_function, inferer = parser.get_parsed_content("loss"), parser.get_parsed_content("train#inferer")
    network.train()

    def step(batch: dict[str, Tensor]) -> None:
        loss = loss_function(inferer(batch["image"], network), batch["label"])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    first = next(iter(loader))
    step(first)
    start, cpu = time.perf_counter(), time.process_time()
    for batch in loader:
        step(batch)
    whole, busy = time.perf_counter() - start, time.process_time() - cpu

    def only_load() -> None:
        for _ in loader:
            pass

    def only_step() -> None:
        for _ in range(args.steps):
            step(first)

    loading, stepping = best_of(1, only_load, only_step)
    print(f"\nTraining, {args.image_size} x {args.image_size}, {args.steps} batches of {args.batch}, cached\n")
    print("| | |\n|---|---|")
    print(f"| images a second | {n / whole:.1f} |")
    print(f"| cores busy | {busy / whole:.2f} of {args.threads} |")
    print(f"| loading and augmentation alone | {loading / whole:.0%} of the time |")
    print(f"| steps alone | {stepping / whole:.0%} of the time |")


def peak_gb(options: dict[str, Any], threads: int) -> tuple[float, float]:
    """Peak memory in GB of a process that reads a training list once, and seconds."""
    import resource

    torch.set_num_threads(threads)
    start = time.perf_counter()
    for _ in config(**options).get_parsed_content("train#dataloader"):
        pass
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2, time.perf_counter() - start


def memory(args: argparse.Namespace, folder: Path) -> None:
    """Peak memory of a list and of a tenth of it."""
    print(f"\nMemory, {args.image_size} x {args.image_size}, one pass over the training images\n")
    print("| images | peak, GB | s |\n|---|---|---|")
    for n in (args.images // 10, args.images):
        gb, seconds = apart(peak_gb, options_of(args, synthetic_list(folder, n)), args.threads)
        print(f"| {n} | {gb:.2f} | {seconds:.0f} |", flush=True)


# Memory first: Linux lets a process begin with the peak of the one that started it.
PARTS = {"memory": memory, "inference": inference, "training": training}


def arguments(given: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", choices=list(PARTS))
    parser.add_argument("--image_size", type=int, default=256)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=8, help="batches of the training")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--images", type=int, default=10_000, help="of the list that is read for its memory")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--amp", action=argparse.BooleanOptionalAction, default="auto", help="bfloat16 in training")
    return parser.parse_args(given)


def main(given: list[str] | None = None) -> None:
    """Print the tables."""
    args = arguments(given)
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        for name, part in PARTS.items():
            if args.only in (None, name):
                part(args, Path(folder))


if __name__ == "__main__":
    main()
