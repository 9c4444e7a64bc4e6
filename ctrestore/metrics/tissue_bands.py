"""Bias and spread of CT numbers, tissue by tissue, which an average over the slice hides."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

#: Limits in HU, including the lower one. Edges and partial volumes are in the gaps between the bands.
TISSUE_BANDS_HU = {
    "air": (-np.inf, -900.0),
    "lung": (-900.0, -500.0),
    "fat": (-150.0, -30.0),
    "soft tissue": (-10.0, 80.0),
    "bone": (200.0, np.inf),
}

#: Side of a median that defines the tissue of a pixel: less noise than in the slice, and edges in the same place.
TISSUE_MEDIAN_PIXELS = 5


class BandError(NamedTuple):
    """Error in HU of the pixels of one tissue: its mean and its standard deviation; both NaN without pixels."""

    bias_hu: float
    spread_hu: float
    n_pixels: int


def tissue_band_errors(
    pred: np.ndarray,
    reference: np.ndarray,
    *,
    tissue: np.ndarray | None = None,
    mask: np.ndarray | None = None,
    bands_hu: Mapping[str, tuple[float, float]] = TISSUE_BANDS_HU,
) -> dict[str, BandError]:
    """Mean and standard deviation of ``pred - reference`` within each tissue, in HU.

    A band of a noisy image includes pixels because of their noise: a perfect, noise-free ``pred`` then has an error of
    tens of HU in a narrow band. So give ``tissue`` if there is a truth or an image with less noise.

    Args:
        pred: the image under test, HU, any shape.
        reference: the reference image, HU, same shape.
        tissue: image whose values define the tissue, HU; the reference by default.
        mask: boolean; the pixels to use, for example the field of view without padding.
        bands_hu: limits by name, including the lower one, excluding the upper one.

    Raises:
        ValueError: the images differ in shape, or the mask is not boolean.

    >>> reference = np.array([-1000.0, -100.0, -90.0, 40.0])
    >>> tissue_band_errors(reference + [0, 1, 5, -2], reference)["fat"]
    BandError(bias_hu=3.0, spread_hu=2.0, n_pixels=2)
    """
    reference = np.asarray(reference)
    tissue = reference if tissue is None else np.asarray(tissue)
    inside = np.ones(reference.shape, dtype=bool) if mask is None else np.asarray(mask)
    for name, array in (("pred", np.asarray(pred)), ("tissue", tissue), ("mask", inside)):
        if array.shape != reference.shape:
            raise ValueError(f"{name} must have the reference's shape {reference.shape}; got {array.shape}.")
    if inside.dtype != bool:
        raise ValueError(f"mask must be boolean; got {inside.dtype}. Threshold it first.")
    error = np.subtract(pred, reference, dtype=np.float64)
    found = {}
    for name, (low, high) in bands_hu.items():
        of_band = error[inside & (tissue >= low) & (tissue < high)]
        bias, spread = (float(of_band.mean()), float(of_band.std())) if of_band.size else (np.nan, np.nan)
        found[name] = BandError(bias, spread, int(of_band.size))
    return found
