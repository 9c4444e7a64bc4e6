"""Uniform parts of a slice: squares without edges, for measuring noise."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

SMOOTHING_SIGMA_PIXELS = 2.0  # so the squares are chosen for little anatomy and not for little noise


def uniform_regions(
    reference: np.ndarray,
    *,
    size_pixels: int = 32,
    n_regions: int = 8,
    band_hu: tuple[float, float] = (-10.0, 80.0),
) -> list[tuple[slice, slice]]:
    """Up to ``n_regions`` squares without overlap, the most uniform first, each inside one tissue.

    Choose them once, on the reference, and use the same for every method in a comparison.

    Args:
        reference: slice ``(y, x)`` in HU, the one with the least noise.
        size_pixels: side of a square.
        n_regions: the largest number; small organs have fewer.
        band_hu: limits of the tissue, by default soft tissue; the smoothed slice is within them all over a square.

    Raises:
        ValueError: there is no such square.

    >>> slice_hu = np.full((64, 64), -1000.0)
    >>> slice_hu[16:60, 16:60] = 40
    >>> uniform_regions(slice_hu, size_pixels=24, n_regions=1)[0][0].start >= 16
    True
    """
    reference = np.asarray(reference, dtype=np.float64)
    if reference.ndim != 2 or not 0 < size_pixels <= min(reference.shape):
        raise ValueError(f"reference must be a slice (y, x) of {size_pixels} pixels or more; got {reference.shape}.")
    smooth = ndimage.gaussian_filter(reference, SMOOTHING_SIGMA_PIXELS)
    window = (size_pixels, size_pixels)
    # every filter below is centred; `inner` keeps the windows inside the slice
    inner = tuple(slice(size_pixels // 2, n - (size_pixels - 1) // 2) for n in reference.shape)
    low, high = (f(smooth, size=window)[inner] for f in (ndimage.minimum_filter, ndimage.maximum_filter))
    mean = ndimage.uniform_filter(smooth, size=window)[inner]
    variance = ndimage.uniform_filter(np.square(smooth), size=window)[inner] - mean**2
    variance[(low < band_hu[0]) | (high > band_hu[1])] = np.inf
    found: list[tuple[slice, slice]] = []
    while len(found) < n_regions and np.isfinite(variance).any():
        y, x = np.unravel_index(np.argmin(variance), variance.shape)
        found.append((slice(int(y), int(y) + size_pixels), slice(int(x), int(x) + size_pixels)))
        # exclude all squares that would overlap this one
        variance[max(y - size_pixels + 1, 0) : y + size_pixels, max(x - size_pixels + 1, 0) : x + size_pixels] = np.inf
    if not found:
        raise ValueError(
            f"no square of {size_pixels} pixels lies within {band_hu[0]:g}..{band_hu[1]:g} HU. "
            "Usual cause: a slice through the lungs. Remedy: a smaller size_pixels or another band_hu."
        )
    return found
