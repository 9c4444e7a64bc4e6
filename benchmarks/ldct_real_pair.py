"""Denoising on a real pair: 1 mm slices of a scanned head phantom against 5 mm of the same raw data.

    CTRESTORE_DATA=DATA python benchmarks/ldct_real_pair.py --out real_pair

DATA/ct_phantom holds ``phantom_brain_UB_1mm_iDose_z60-89_hu.nii.gz`` and ``phantom_brain_UB_5mm_hu.nii.gz``: one raw
scan, not simulated and never trained on. A single 1 mm slice is restored. Its reference is the mean of the other four
that make up the same 5 mm, whose noise it does not share; where these differ from each other along z, nothing is
measured. The noise of the 5 mm series stands beside: what a radiologist would have looked at.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from monai.bundle import ConfigParser
from scipy import ndimage

from ctrestore.metrics import noise_power_spectrum, uniform_regions
from ctrestore.tasks.ct_report.panel import draw_panel
from ctrestore.tasks.ct_report.scores import INPUT, SlicePair
from ctrestore.tasks.ct_restoration.restored_slice import restored_slice
from ctrestore.tasks.ldct_denoising.classical import NLM, classical_restorers
from ctrestore.training.inferers import MixedPrecisionInferer
from ctrestore.training.weights import load_weights

BUNDLE = Path(__file__).resolve().parent.parent / "bundles" / "ldct_denoising"
THIN, THICK = "phantom_brain_UB_1mm_iDose_z60-89_hu.nii.gz", "phantom_brain_UB_5mm_hu.nii.gz"
SLAB = 5
DOSE = 0.2  # a slice of 1 mm has a fifth of the photons of one of 5 mm: the setting of the classical methods
ALIKE_HU = 25.0  # spread of the smoothed slices of a slab where the phantom does not change along z
PLASTIC_HU = (-10.0, 120.0)
BANDS_HU = {"air": (-1100.0, -900.0), "plastic": PLASTIC_HU, "above 200": (200.0, 2000.0)}
FORMATS = {"noise HU": ".1f", "frequency 1/mm": ".2f", "RMSE HU": ".1f", "edge slope": ".2f"}
EDGE_HU_PER_MM = 40.0
SQUARE_PIXELS = 32


def read(path: Path) -> tuple[np.ndarray, np.ndarray, float]:
    """Volume ``(z, y, x)`` in HU, the z of its slices in mm, and the pixel size in mm."""
    image: Any = nib.load(path)
    volume = np.asarray(image.dataobj, dtype=np.float32).transpose(2, 1, 0)
    z = image.affine[2, 3] + image.affine[2, 2] * np.arange(len(volume))
    return volume, z, float(image.header.get_zooms()[0])


def networks(weights: dict[str, Path]) -> dict[str, Callable[[np.ndarray], np.ndarray]]:
    """The networks of the bundle's evaluation whose weights are there, by name."""
    parser = ConfigParser()
    parser.read_config([BUNDLE / "configs" / name for name in ("train.json", "evaluate.json")])
    parser["bundle_root"], parser["device"] = str(BUNDLE), "cpu"
    found = {}
    for name, path in weights.items():
        if not path.is_file():
            print(f"{name}: not run, there are no weights at {path}")
            continue
        network = parser.get_parsed_content("network" if name == "network" else "redcnn").eval()
        load_weights(path, network)
        told = name == "network"  # that the dose is not known
        found[name] = partial(restored_slice, network=network, inferer=MixedPrecisionInferer(), told_dose=told)
    return found


def slabs(
    thin: np.ndarray, thin_z: np.ndarray, thick: np.ndarray, thick_z: np.ndarray
) -> list[tuple[np.ndarray, np.ndarray]]:
    """The five 1 mm slices ``(5, y, x)`` of every 5 mm slice that has all of them, and that slice."""
    found = []
    for slice_5mm, z in zip(thick, thick_z):
        inside = np.abs(thin_z - z) < SLAB / 2
        if inside.sum() == SLAB:
            found.append((thin[inside], slice_5mm))
    return found


def measure(
    pred: np.ndarray, reference: np.ndarray, alike: np.ndarray, squares: list[tuple[slice, slice]], spacing_mm: float
) -> dict[str, float]:
    """Noise in plastic, error, bias by density and steepness of edges of one slice."""
    noise = noise_power_spectrum(np.stack([pred[square] for square in squares]), spacing_mm=spacing_mm)
    error = np.where(alike, pred - reference, 0.0)
    numbers = {
        "noise HU": noise.variance_hu2**0.5,
        "frequency 1/mm": noise.mean_frequency_per_mm,
        "RMSE HU": float(np.sqrt(np.mean(error[alike] ** 2))),
    }
    tissue = ndimage.median_filter(reference, size=5)
    for name, (low, high) in BANDS_HU.items():
        inside = alike & (tissue >= low) & (tissue < high)
        numbers[f"bias {name}"] = float(error[inside].mean()) if inside.sum() > 200 else float("nan")
    smooth, truth = (ndimage.gaussian_filter(image, 1.0) for image in (pred, reference))
    slopes, true_slopes = (np.stack(np.gradient(image, spacing_mm)) for image in (smooth, truth))
    edge = alike & (np.hypot(*true_slopes) > EDGE_HU_PER_MM)
    numbers["edge slope"] = float((slopes * true_slopes)[:, edge].sum() / np.square(true_slopes[:, edge]).sum())
    return numbers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("CTRESTORE_DATA"))
    parser.add_argument("--weights", type=Path, default=BUNDLE / "models" / "model.pt")
    parser.add_argument("--redcnn_weights", type=Path, default=BUNDLE / "models" / "redcnn.pt")
    parser.add_argument("--out", type=Path, default=Path("real_pair"), help="folder of the picture")
    args = parser.parse_args()
    folder = None if args.data is None else Path(args.data) / "ct_phantom"
    if folder is None or not all((folder / name).is_file() for name in (THIN, THICK)):
        print("skipped: no ct_phantom. Remedy: --data FOLDER, or the variable CTRESTORE_DATA")
        return
    torch.set_num_threads(os.cpu_count() or 1)
    (thin, thin_z, spacing), (thick, thick_z, _) = read(folder / THIN), read(folder / THICK)
    methods: dict[str, Callable[[np.ndarray], np.ndarray]] = {INPUT: np.copy, **classical_restorers(DOSE)}
    methods |= networks({"RED-CNN": args.redcnn_weights, "network": args.weights})
    rows: dict[str, list[dict[str, float]]] = {}
    found = slabs(thin, thin_z, thick, thick_z)
    for number, (slab, slice_5mm) in enumerate(found):
        middle = SLAB // 2
        reference = np.delete(slab, middle, axis=0).mean(axis=0)
        smooth = np.stack([ndimage.gaussian_filter(one, 2.0) for one in slab])
        alike = (np.ptp(smooth, axis=0) < ALIKE_HU) & (reference > -1024)
        squares = uniform_regions(reference, size_pixels=SQUARE_PIXELS, n_regions=8, band_hu=PLASTIC_HU)
        restored = {name: np.asarray(restore(slab[middle])) for name, restore in methods.items()}
        for name, image in {**restored, "mean of the other four": reference, "5 mm series": slice_5mm}.items():
            rows.setdefault(name, []).append(measure(image, reference, alike, squares, spacing))
        if number == len(found) // 2:
            known = np.where(alike, reference, np.float32(np.nan))  # a cone's rim is elsewhere in the next slice
            name = "1 mm slice; full dose: the mean of the other four"
            pair = SlicePair(slab[middle], known, (spacing, spacing), "phantom", name)
            shown = [name for name in restored if name in (NLM, "RED-CNN", "network")]
            args.out.mkdir(parents=True, exist_ok=True)
            print(draw_panel(pair, {name: restored[name] for name in shown}, args.out / "real_pair.png"))
    columns = list(rows[INPUT][0])
    print(f"\nMean of {len(found)} slices of 1 mm; edge slope: 1 is as steep as the mean of the other four.\n")
    print("| | " + " | ".join(columns) + " |\n| --- |" + " ---: |" * len(columns))
    for name, lines in rows.items():
        means = {column: np.nanmean([line[column] for line in lines]) for column in columns}
        cells = [format(value, FORMATS.get(column, "+.1f")) for column, value in means.items()]
        print(f"| {name} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
