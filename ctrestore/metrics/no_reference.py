"""Measures of a restored slice without its full-dose scan: its noise, its mean HU, its edges.

They choose the checkpoint of a training without pairs. Each of the three catches what the others miss: a network
that does nothing keeps the noise, one that removes too much leaves too little noise and flattens edges, and one that
invents or shifts changes the mean, which low dose does not change. No number of the adversarial training is used: a
critic's estimate falls with a failing critic just as with a good generator.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import ndimage
from scipy.stats import wasserstein_distance

from ctrestore.metrics.local_noise import local_noise_hu

#: Tissue by the mean of 7 x 7 pixels of the low-dose slice, in HU.
DRIFT_BANDS_HU = {"lung": (-950.0, -600.0), "fat": (-130.0, -50.0), "soft tissue": (0.0, 120.0)}
SMALLEST_NOISE_HU = 0.5  # below this, logarithms are meaningless
EDGE_HU_PER_PIXEL = 40.0  # of the smoothed low-dose slice: borders of body, lung and bone, far above its noise
EDGE_SIGMA_PIXELS = 2.0
WINDOW_PIXELS = 7
#: Each is one point of :func:`penalty`: a fifth too much or too little noise, 2 HU, 5 % of an edge's height.
NOISE_TOLERANCE_OCTAVES, DRIFT_TOLERANCE_HU, EDGE_TOLERANCE = 0.25, 2.0, 0.05


def log_noise(image: np.ndarray, *, tissue: np.ndarray | None = None) -> tuple[float, float]:
    """Noise in soft tissue, log2 of HU, of single pixels and of means of 2 x 2: both give its strength and its grain.

    Args:
        image: slice ``(y, x)`` in HU.
        tissue: slice that shows where soft tissue is; the image by default.

    Returns:
        Two numbers; NaN if there is too little soft tissue.
    """
    found = []
    for _ in range(2):
        (noise,) = local_noise_hu(image, tissue=tissue)
        found.append(float(np.log2(max(noise, SMALLEST_NOISE_HU))) if np.isfinite(noise) else float("nan"))
        image, tissue = _halved(image), None if tissue is None else _halved(tissue)
    return found[0], found[1]


def _halved(image: np.ndarray) -> np.ndarray:
    rows, columns = (side // 2 * 2 for side in image.shape)
    return image[:rows, :columns].reshape(rows // 2, 2, columns // 2, 2).mean(axis=(1, 3))


class Traces(NamedTuple):
    """Of one slice: noise after restoration (log2 HU, two scales), sums of drift and counts, slopes of the edges."""

    noise: tuple[float, float]
    drift_hu: tuple[float, ...]  # sum over the pixels of each of DRIFT_BANDS_HU
    n_pixels: tuple[float, ...]
    edges_after: float
    edges_before: float


def traces(pred: np.ndarray, image: np.ndarray) -> Traces:
    """The effect of restoration on a slice, only from the restored and the low-dose slice ``(y, x)`` in HU.

    Raises:
        ValueError: their shapes differ.
    """
    pred, image = np.asarray(pred, dtype=np.float64), np.asarray(image, dtype=np.float64)
    if pred.shape != image.shape or image.ndim != 2:
        raise ValueError(f"expected two slices (y, x) of one shape; got {pred.shape} and {image.shape}.")
    local, change = ndimage.uniform_filter(image, WINDOW_PIXELS), pred - image
    inside = [(local >= low) & (local < high) for low, high in DRIFT_BANDS_HU.values()]
    after, before = _edge_slopes(pred, image)
    return Traces(
        noise=log_noise(pred, tissue=image),
        drift_hu=tuple(float(change[mask].sum()) for mask in inside),
        n_pixels=tuple(float(mask.sum()) for mask in inside),
        edges_after=after,
        edges_before=before,
    )


def _edge_slopes(pred: np.ndarray, image: np.ndarray) -> tuple[float, float]:
    """Gradients of both slices along those of the smoothed low-dose slice, summed over its strong edges.

    Along a third gradient, not along each other: noise in both factors would look like lost height.
    """
    smooth = np.stack(np.gradient(ndimage.gaussian_filter(image, EDGE_SIGMA_PIXELS)))
    strong = np.hypot(*smooth) > EDGE_HU_PER_PIXEL
    after, before = (float((smooth * np.stack(np.gradient(one)))[:, strong].sum()) for one in (pred, image))
    return after, before


class Verdict(NamedTuple):
    """Errors of a set of restored slices, each zero if there is none."""

    noise_octaves: float  # distance of the noise from that of full-dose slices
    drift_hu: dict[str, float]  # mean change by tissue
    edges: float  # gained (or lost, below zero) share of the height of strong edges

    @property
    def penalty(self) -> float:
        """The sum of the three in units of their tolerances; of the drifts, the largest."""
        drift = max((abs(value) for value in self.drift_hu.values() if np.isfinite(value)), default=0.0)
        return (
            self.noise_octaves / NOISE_TOLERANCE_OCTAVES + drift / DRIFT_TOLERANCE_HU + abs(self.edges) / EDGE_TOLERANCE
        )


def verdict(found: Sequence[Traces], reference_noise: Sequence[Sequence[float]]) -> Verdict:
    """The differences of restored slices from full-dose slices of other people, and from their own low-dose slices.

    The distributions of the noise of single slices are compared (Wasserstein's distance of the logarithms, mean of the
    two scales), because scans at full dose differ in noise, and comparing only means would reward one noise for all.

    Args:
        found: :func:`traces` of each slice.
        reference_noise: :func:`log_noise` of full-dose slices.

    Raises:
        ValueError: no restored or no full-dose slice has enough soft tissue.
    """
    noise = np.array([one.noise for one in found], dtype=np.float64).reshape(-1, 2)
    reference = np.array(reference_noise, dtype=np.float64).reshape(-1, 2)
    noise, reference = (values[np.isfinite(values).all(axis=1)] for values in (noise, reference))
    if not len(noise) or not len(reference):
        raise ValueError(
            f"{len(noise)} of {len(found)} restored and {len(reference)} full-dose slices have enough soft tissue to "
            "measure noise in. Usual cause: slices that are not in HU, or only show the tips of the lungs."
        )
    octaves = np.mean([wasserstein_distance(noise[:, scale], reference[:, scale]) for scale in range(2)])
    sums, counts = (np.sum([getattr(one, name) for one in found], axis=0) for name in ("drift_hu", "n_pixels"))
    drift = np.divide(sums, counts, out=np.full(len(sums), np.nan), where=counts > 0)
    after, before = (sum(getattr(one, name) for one in found) for name in ("edges_after", "edges_before"))
    edges = after / before - 1 if before > 0 else 0.0
    return Verdict(float(octaves), dict(zip(DRIFT_BANDS_HU, drift.tolist())), float(edges))
