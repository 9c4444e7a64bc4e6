"""Noise of a slice without a reference and without a hand-drawn region."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

WINDOW_PIXELS = 7
SOFT_TISSUE_HU = (0.0, 120.0)  # limits for the mean of a window
SHARE = 20.0  # per cent of the windows that count as flat; vessels and edges raise the others
FEWEST_WINDOWS = 50


def local_noise_hu(
    *images: np.ndarray, tissue: np.ndarray | None = None, band_hu: tuple[float, float] = SOFT_TISSUE_HU
) -> tuple[float, ...]:
    """Noise in soft tissue of each image, in HU: the upper limit of the flattest fifth of all windows of 7 x 7 pixels.

    All images are measured in the same windows, so before and after can be compared.

    Args:
        images: slices ``(y, x)`` in HU of one size.
        tissue: image that selects the windows, those with a mean in the band; by default the first image.
        band_hu: limits of the tissue.

    Returns:
        One number per image; NaN if fewer than 50 windows are soft tissue.

    >>> noise = np.random.default_rng(0).normal(40.0, 10.0, (64, 64))
    >>> [round(found, 1) for found in local_noise_hu(noise, 40.0 + (noise - 40.0) / 2)]
    [8.9, 4.5]
    """
    tissue = images[0] if tissue is None else tissue
    tissue_mean = ndimage.uniform_filter(np.asarray(tissue, dtype=np.float64), WINDOW_PIXELS)
    inside = (tissue_mean > band_hu[0]) & (tissue_mean < band_hu[1])
    if inside.sum() < FEWEST_WINDOWS:
        return (float("nan"),) * len(images)
    found = []
    for image in images:
        values = np.asarray(image, dtype=np.float64)
        mean = tissue_mean if image is tissue else ndimage.uniform_filter(values, WINDOW_PIXELS)
        mean_of_squares = ndimage.uniform_filter(np.square(values), WINDOW_PIXELS)
        variance = mean_of_squares[inside] - np.square(mean[inside])
        found.append(float(np.sqrt(max(np.percentile(variance, SHARE), 0.0))))
    return tuple(found)
