"""Claim: with an MRI, GTM and mMG come within a few percent of the truth, and what its errors cost is known.

Prints, as a Markdown table, the regional bias of grey matter on the test phantoms: mean and largest absolute bias over
the parcels, medians over the scans. Rows: masks and FWHM exact, one thing wrong at a time, and all of it at once.

    python benchmarks/classical_pvc_truth.py
    python benchmarks/classical_pvc_truth.py --phantoms DIR --scans 2

About 15 s a scan on two cores. The phantoms obey the model that these methods solve (uniform tissue but for a texture
of 6 %, a Gaussian PSF, noise), so the exact row is the best that can be.
"""

from __future__ import annotations

import argparse
import math
from collections import defaultdict
from pathlib import Path

import numpy as np
from tqdm import tqdm

from ctrestore.metrics import regional_bias
from ctrestore.phantoms import phantom_entries
from ctrestore.tasks.pet_pvc.evaluated_scans import Scan, find_scans
from ctrestore.tasks.pet_pvc.with_mri import (
    FWHM_ERROR_MM,
    SHIFT_MM,
    SMOOTHING_FWHM_MM,
    TissueMaps,
    correct_with,
    gtm_scores,
    mmg_scores,
)
from ctrestore.tasks.runtime import embedded_data_dir

BUNDLE = Path(__file__).resolve().parent.parent / "bundles" / "pet_pvc"
UNCORRECTED = "uncorrected"
METHODS = (UNCORRECTED, "GTM", "RBV", "mMG")

# What the user has: (shift in mm, smoothing of the masks in mm, error of the FWHM in mm)
CONDITIONS = {
    "exact": (0.0, 0.0, 0.0),
    f"masks {SHIFT_MM:g} mm off": (SHIFT_MM, 0.0, 0.0),
    f"masks smoothed by {SMOOTHING_FWHM_MM:g} mm": (0.0, SMOOTHING_FWHM_MM, 0.0),
    f"FWHM {FWHM_ERROR_MM:g} mm too large": (0.0, 0.0, FWHM_ERROR_MM),
    f"FWHM {FWHM_ERROR_MM:g} mm too small": (0.0, 0.0, -FWHM_ERROR_MM),
    "masks off and smoothed": (SHIFT_MM, SMOOTHING_FWHM_MM, 0.0),
    "masks off and smoothed, FWHM too large": (SHIFT_MM, SMOOTHING_FWHM_MM, FWHM_ERROR_MM),
    "masks off and smoothed, FWHM too small": (SHIFT_MM, SMOOTHING_FWHM_MM, -FWHM_ERROR_MM),
}


def biases(scan: Scan) -> dict[tuple[str, str], tuple[float, float]]:
    """Mean and largest absolute regional bias, by condition and method."""
    image, truth = scan.read("image"), scan.read("truth")
    concentration, maps = scan.read("grey_matter_concentration"), TissueMaps.of(scan)
    assert maps is not None
    assert maps.parcels is not None

    def of_activity(pred: np.ndarray) -> tuple[float, float]:
        bias = regional_bias(pred, truth, maps.parcels, maps.grey)
        return bias.mean_absolute, bias.max_absolute

    found = {}
    for condition, (shift_mm, smoothing_mm, error_mm) in CONDITIONS.items():
        of_user = maps.moved(shift_mm, scan.grid.affine) if shift_mm else maps
        of_user = of_user.smoothed(smoothing_mm, scan.spacing_mm) if smoothing_mm else of_user
        fwhm_mm = tuple(width + error_mm for width in scan.fwhm_mm)
        made = correct_with(image, of_user, fwhm_mm=fwhm_mm, spacing_mm=scan.spacing_mm, iterate=False)
        of_gtm = gtm_scores(made.gtm, concentration, maps)
        of_mmg = mmg_scores(made.mmg, of_user, concentration, maps, None)
        found[condition, UNCORRECTED] = of_activity(image)
        found[condition, "RBV"] = of_activity(made.images["RBV"])
        found[condition, "GTM"] = of_gtm["gm_bias_mean"], of_gtm["gm_bias_max"]
        found[condition, "mMG"] = of_mmg["gm_bias_mean"], of_mmg["gm_bias_max"]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = embedded_data_dir(str(BUNDLE), "pet_pvc_phantom")
    parser.add_argument("--phantoms", type=Path, default=default, metavar="DIR", help="made there when missing")
    parser.add_argument("--scans", type=int, default=8, metavar="N", help="test phantoms (default: 8)")
    arguments = parser.parse_args()

    entries = phantom_entries(arguments.phantoms, "test", n=arguments.scans)
    scans = find_scans(entries, [entry["image"] for entry in entries], fwhm_mm=None)
    collected = defaultdict(list)
    for scan in tqdm(scans, desc="scans", unit="scan"):
        for key, values in biases(scan).items():
            collected[key].append(values)

    print(f"\nRegional bias of grey matter, mean / largest over the parcels, median of {len(scans)} test phantoms:\n")
    print("| masks and FWHM | " + " | ".join(METHODS) + " |")
    print("| --- |" + " --- |" * len(METHODS))
    for condition in CONDITIONS:
        cells = []
        for method in METHODS:
            mean, largest = np.median(collected[condition, method], axis=0)
            assert math.isfinite(mean)
            cells.append(f"{mean:.1%} / {largest:.1%}")
        print(f"| {condition} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
