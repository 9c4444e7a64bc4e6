"""Are low and full dose alike to ResNet50? The published check, and the control that it lacked.

    python benchmarks/feature_similarity.py --weights resnet50-0676ba61.pth --data_list LIST --dataset_dir DATA
    python benchmarks/feature_similarity.py --random_features        # to try: weights drawn at random, no meaning

The study of RED-CNN with attention first compared the 2048 features that ResNet50 (ImageNet) gives of low- and
full-dose slices, found a cosine similarity of 0.996 or more, and took the pairs for matched. Here the same number
stands beside that of a low-dose slice with the full dose of *another* slice of the patient, and of *another patient*.
The check tells a pair from no pair only as far as these are lower: "found again" is the share of low-dose slices that
are more similar to their own full dose than to any other.

HU of -1000..2000 become black to white in three equal channels, normalised as for ImageNet. The low dose is simulated
where the list has full dose alone; without a list, the embedded phantoms.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from ldct_ablation import DOSE, Scan, add_data_arguments, data_of, scans_to_score
from torch import nn
from tqdm import tqdm

from ctrestore.losses import as_imagenet
from ctrestore.metrics import bootstrap_by_patient
from ctrestore.training.imagenet import FILES, resnet50_features, resnet50_without_head, weights_file

HEADS = ("full dose of", "pairs", "lowest", "median", "mean over patients (95 % interval)", "highest")
ROWS = ("the same slice", "another slice of the patient", "another patient")
PUBLISHED = "published: the same slice, lowest 0.996; no control"


def directions(network: nn.Module, scans: list[Scan], key: str, device: torch.device) -> np.ndarray:
    """Features of every scan, of length 1: ``(n, 2048)``."""
    with torch.inference_mode():
        found = [
            network(as_imagenet(scan[key][None].to(device), value_range=(-1.0, 2.0))).double().cpu().numpy()[0]
            for scan in tqdm(scans, desc=key, unit="slice", delay=2, disable=None)
        ]
    features = np.stack(found)
    return features / np.linalg.norm(features, axis=1, keepdims=True)


def similarities(low: np.ndarray, full: np.ndarray, subjects: list[str]) -> dict[str, tuple[np.ndarray, list[str]]]:
    """Cosine similarities of the three kinds of pairs of low and full dose, and the patients of the low dose."""
    cosine, names = low @ full.T, np.array(subjects)
    one, own = names[:, None] == names[None], np.eye(len(names), dtype=bool)
    kinds = dict(zip(ROWS, (own, one & ~own, ~one)))
    return {kind: (cosine[pairs], names[np.nonzero(pairs)[0]].tolist()) for kind, pairs in kinds.items()}


def found_again(low: np.ndarray, full: np.ndarray) -> float:
    """Share of low-dose slices that are more similar to their own full dose than to any other."""
    return float(np.mean((low @ full.T).argmax(axis=1) == np.arange(len(low))))


def table(low: np.ndarray, full: np.ndarray, subjects: list[str]) -> str:
    """The similarities of the pairs and of the controls, in Markdown."""
    lines = ["| " + " | ".join(HEADS) + " |", "|" + " --- |" * len(HEADS)]
    for kind, (values, patients) in similarities(low, full, subjects).items():
        if not len(values):
            lines.append(f"| {kind} | 0 | | | | |")
            continue
        mean = f"{values.mean():.4f}"
        if len(set(patients)) > 1:
            interval = bootstrap_by_patient(values, patients)
            mean = f"{interval.mean:.4f} ({interval.low:.4f}-{interval.high:.4f})"
        numbers = (f"{len(values)}", f"{values.min():.4f}", f"{np.median(values):.4f}", mean, f"{values.max():.4f}")
        lines.append(f"| {kind} | " + " | ".join(numbers) + " |")
    lines += ["", f"Found again: {found_again(low, full):.0%} of {len(low)} low-dose slices ({PUBLISHED})."]
    return "\n".join(lines)


def not_run() -> str:
    """The table without weights."""
    lines = ["| " + " | ".join(HEADS) + " |", "|" + " --- |" * len(HEADS)]
    return "\n".join([*lines, *(f"| {kind} | not run: weights missing | | | | |" for kind in ROWS), "", PUBLISHED])


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, help=f"torchvision's {FILES['resnet50']}; default: its download")
    parser.add_argument(
        "--random_features", action="store_true", help="to try without weights; the numbers mean nothing"
    )
    add_data_arguments(parser)
    parser.add_argument("--sections", nargs="+", default=["validation", "test"])
    parser.add_argument("--slices_per_patient", type=int, default=4, help="evenly spread")
    args = parser.parse_args()
    if args.random_features:
        torch.manual_seed(0)
        network = resnet50_without_head().eval().requires_grad_(False)
    else:
        try:
            weights_file("resnet50", args.weights)
        except ValueError as error:
            print(f"{not_run()}\n\n{error}")
            return
        try:
            network = resnet50_features(args.weights)
        except ValueError as error:
            sys.exit(f"feature_similarity: {error}")
    network.to(args.device)
    data, n = data_of(args, Path(".data/feature_similarity")), args.slices_per_patient
    scans = [scan for section in args.sections for scan in scans_to_score(data, section, per_patient=n)]
    low, full = (directions(network, scans, key, torch.device(args.device)) for key in ("image", "label"))
    of = "weights drawn at random: NO MEANING" if args.random_features else "ImageNet weights"
    print(f"Cosine similarity of ResNet50's 2048 features ({of}), low dose ({DOSE}) against\n")
    print(table(low, full, [scan["subject"] for scan in scans]))


if __name__ == "__main__":
    main()
