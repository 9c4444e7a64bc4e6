"""Real slices at full, 50, 25 and 10 % of their dose, as a picture; the noise of each is printed.

    python benchmarks/low_dose_panel.py CHEST.dcm ABDOMEN.dcm panel.png
    python benchmarks/low_dose_panel.py SCAN.nii.gz panel.png --slice 60 --window lung

A slice is a DICOM file (needs pydicom) or a slice across a NIfTI volume, by default its middle one. "added" is the
standard deviation of the simulated noise in soft tissue (-10 to 80 HU in the slice, smoothed), "of the image" the
median of the local standard deviations there, 7 x 7 pixels each: it holds the scan's own noise and a little anatomy.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import nibabel as nib
import numpy as np
from scipy.ndimage import uniform_filter

from ctrestore.ct import WINDOWS, simulate_low_dose, stored_to_hu, window

DOSES = (1.0, 0.5, 0.25, 0.1)


def read_slice(path: Path, index: int | None) -> tuple[np.ndarray, tuple[float, float]]:
    """A slice ``(y, x)`` in HU and its pixel size along y and x in mm."""
    if path.name.endswith((".nii", ".nii.gz")):
        volume = nib.as_closest_canonical(nib.load(path))
        z = volume.shape[2] // 2 if index is None else index
        hu = np.asarray(volume.dataobj[:, :, z], dtype=np.float32).T[::-1, ::-1]  # seen from the feet, nose up
        size_x, size_y = (float(size) for size in volume.header.get_zooms()[:2])
        return np.ascontiguousarray(hu), (size_y, size_x)
    import pydicom

    header = pydicom.dcmread(path)
    hu = stored_to_hu(header.pixel_array, slope=float(header.RescaleSlope), intercept=float(header.RescaleIntercept))
    size_y, size_x = (float(size) for size in header.PixelSpacing)
    return hu, (size_y, size_x)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("slices", nargs="+", type=Path, metavar="IN")
    parser.add_argument("out", type=Path, metavar="OUT.png")
    parser.add_argument("--slice", type=int, help="index along z of a NIfTI volume")
    parser.add_argument("--window", choices=list(WINDOWS), default="abdomen")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    n_rows = len(args.slices)
    figure, axes = plt.subplots(n_rows, len(DOSES), figsize=(4 * len(DOSES), 4.2 * n_rows), squeeze=False)
    print("| slice | dose | added | of the image |\n| --- | ---: | ---: | ---: |")
    for row, path in zip(axes, args.slices):
        hu, spacing_mm = read_slice(path, args.slice)
        smooth = uniform_filter(hu, 9)
        soft = (smooth > -10) & (smooth < 80)
        for axis, dose in zip(row, DOSES):
            low = simulate_low_dose(hu, dose_fraction=dose, spacing_mm=spacing_mm, seed=args.seed)
            added = float((low - hu)[soft].std())
            variance = uniform_filter(low.astype(float) ** 2, 7) - uniform_filter(low.astype(float), 7) ** 2
            local = float(np.median(np.sqrt(variance.clip(min=0))[soft]))
            print(f"| {path.name} | {dose:g} | {added:.1f} HU | {local:.1f} HU |")
            axis.imshow(window(low, args.window), cmap="gray", vmin=0, vmax=1)
            axis.set_title(f"{dose:.0%} of the dose: {added:.0f} HU added")
            axis.axis("off")
    figure.tight_layout()
    figure.savefig(args.out, dpi=110)


if __name__ == "__main__":
    main()
