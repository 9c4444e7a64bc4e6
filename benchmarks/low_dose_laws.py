"""Bias and noise of simulated low dose in water, at many photons and at few.

    python benchmarks/low_dose_laws.py
    python benchmarks/low_dose_laws.py --diameter-mm 200 --photons 1e6

The default is a hard case: 340 mm of water at 2e5 photons, where a central ray brings 290 photons at full dose and 29
at a tenth. Two ways to a low dose: "ideal" measures the noise-free disc (Poisson, electronics, logarithm); "inserted"
adds to an ideal full-dose scan what it lacks. Means and standard deviations are of the central 80 % of the disc, over
several slices; the last column is what 1 / sqrt(dose), the law without electronics, makes of the full dose.
"""

from __future__ import annotations

import argparse

import numpy as np

from ctrestore.ct import FILTERS, simulate_low_dose, simulate_scan

SIDE = 512


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--diameter-mm", type=float, default=340.0)
    parser.add_argument("--photons", type=float, default=2e5)
    parser.add_argument("--slices", type=int, default=4)
    parser.add_argument("--filter", choices=list(FILTERS), default="hann")
    args = parser.parse_args()
    spacing_mm = 1.2 * args.diameter_mm / SIDE
    along = (np.arange(SIDE) - (SIDE - 1) / 2) * spacing_mm
    radius_mm = np.hypot(along[:, None], along)
    disc = np.clip((args.diameter_mm / 2 - radius_mm) / spacing_mm + 0.5, 0, 1) * 1000 - 1000
    water = np.stack([disc] * args.slices).astype(np.float32)
    inside = radius_mm < 0.4 * args.diameter_mm
    common = {"spacing_mm": spacing_mm, "photons_per_ray": args.photons, "filter": args.filter}

    full = simulate_scan(water, seed=0, **common)
    full_sd = float(full[:, inside].std())
    print(f"{args.diameter_mm:g} mm of water, {args.photons:g} photons a ray, {args.filter}, {args.slices} slices\n")
    print("| dose | ideal: bias | ideal: noise | inserted: bias | inserted: noise | theory: noise |")
    print("| ---: | ---: | ---: | ---: | ---: | ---: |")
    for seed, dose in enumerate((1.0, 0.5, 0.25, 0.1), start=1):
        ideal = simulate_scan(water, dose_fraction=dose, seed=seed, **common)[:, inside]
        inserted = simulate_low_dose(full, dose_fraction=dose, seed=seed, **common)[:, inside]
        cells = [ideal.mean(), ideal.std(), inserted.mean(), inserted.std(), full_sd * dose**-0.5]
        print(f"| {dose:g} | " + " | ".join(f"{value:.1f} HU" for value in cells) + " |", flush=True)


if __name__ == "__main__":
    main()
