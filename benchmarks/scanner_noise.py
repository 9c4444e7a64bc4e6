"""How the noise of real CT slices is coloured, beside the noise that super-resolution learns from.

    python benchmarks/scanner_noise.py DATA          # DATA: folder with DICOM slices, at any depth

Of every axial slice: noise in its most uniform squares of soft tissue, less a surface of second degree, and how the
noise of pixels one and two apart correlates, along rows and along columns. Below, the same of
`ctrestore.ct.add_reconstruction_noise` at several cutoffs. Slices with edges in all of their squares, or none, are left
out.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pydicom
from pydicom.errors import InvalidDicomError

from ctrestore.ct import add_reconstruction_noise
from ctrestore.ct.hounsfield import stored_to_hu
from ctrestore.metrics.uniform_regions import uniform_regions

SIDE, N_SQUARES = 24, 6


def without_surface(square: np.ndarray) -> np.ndarray:
    """The square less the surface of second degree that fits it best."""
    y, x = np.mgrid[: square.shape[0], : square.shape[1]] / square.shape[0]
    terms = np.stack([np.ones_like(x), x, y, x * x, y * y, x * y], axis=-1).reshape(-1, 6)
    return square - (terms @ np.linalg.lstsq(terms, square.ravel(), rcond=None)[0]).reshape(square.shape)


def colour(hu: np.ndarray, squares: list[tuple[slice, ...]]) -> np.ndarray:
    """Standard deviation, and correlation of neighbours one and two apart along rows and columns: medians."""
    found = []
    for square in squares:
        noise = without_surface(hu[square].astype(float))
        along = [np.mean(n[:, lag:] * n[:, :-lag]) / noise.var() for n in (noise, noise.T) for lag in (1, 2)]
        found.append([noise.std(), *along])
    return np.median(found, axis=0)


def spread(values: np.ndarray) -> str:
    """Median and range."""
    return f"{np.median(values):.2f} ({values.min():.2f} to {values.max():.2f})"


def main() -> None:
    """Print a line a slice, and what they have in common."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    args = parser.parse_args()
    found = []
    print(f"{'':<34}{'kernel':<12}{'HU':>6}{'row 1':>7}{'row 2':>7}{'col. 1':>7}{'col. 2':>7}")
    for path in sorted(path for path in args.data.rglob("*") if path.is_file()):
        try:
            ds = pydicom.dcmread(path)
            normal = np.cross(*np.reshape(np.asarray(ds.ImageOrientationPatient, dtype=float), (2, 3)))
        except (InvalidDicomError, AttributeError):
            continue
        if abs(normal[2]) < 0.9 or "PixelData" not in ds:
            continue
        hu = stored_to_hu(ds.pixel_array, slope=float(ds.RescaleSlope), intercept=float(ds.RescaleIntercept))
        try:
            squares = uniform_regions(hu, size_pixels=SIDE, n_regions=N_SQUARES, band_hu=(0.0, 150.0))
        except ValueError:
            continue
        row = colour(hu, squares)
        found.append(row)
        name = "/".join(path.relative_to(args.data).parts)[-32:]
        print(
            f"{name:<34}{str(ds.get('ConvolutionKernel', ''))[:10]:<12}{row[0]:>6.1f}"
            + "".join(f"{v:>7.2f}" for v in row[1:])
        )
    if not found:
        raise SystemExit(f"{args.data} holds no axial DICOM slice with uniform soft tissue.")
    rows = np.array(found)
    ones, twos = rows[:, [1, 3]].mean(axis=1), rows[:, [2, 4]].mean(axis=1)
    print(
        f"\n{len(rows)} slices, medians and ranges; correlation of neighbours {spread(ones)}, of pixels two apart ",
        end="",
    )
    print(f"{spread(twos)}; rows and columns differ by {spread(np.abs(rows[:, 1] - rows[:, 3]))}.")
    print("\ncutoff, correlation of neighbours, of pixels two apart:")
    for cutoff in (0.6, 0.8, 1.0, 1.2, 1.4, 1.6):
        noise = add_reconstruction_noise(np.zeros((512, 512)), sigma_hu=1.0, cutoff=cutoff, seed=0)
        whole = [(slice(i, i + SIDE), slice(j, j + SIDE)) for i in range(0, 480, SIDE) for j in range(0, 480, SIDE)]
        row = colour(noise, whole)
        print(f"{cutoff:>6.1f}{(row[1] + row[3]) / 2:>8.2f}{(row[2] + row[4]) / 2:>8.2f}")


if __name__ == "__main__":
    main()
