"""The channelized Hotelling observer: how well it tells a lesion of known place and shape from its absence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.optimize import brentq
from scipy.special import eval_laguerre, ncfdtr
from scipy.stats import norm

from ctrestore.psf import Scalars, per_axis


class Detectability(NamedTuple):
    """Detectability index d', its confidence interval, and both as areas under the ROC curve, Phi(d' / sqrt(2))."""

    d_prime: float
    d_prime_interval: tuple[float, float]
    auc: float
    auc_interval: tuple[float, float]
    confidence: float


def laguerre_gauss_channels(
    shape: Sequence[int], *, width_mm: float, spacing_mm: Scalars, n_channels: int = 5
) -> np.ndarray:
    """Laguerre-Gauss channels ``(n_channels, y, x)`` about the middle of a region, for round lesions.

    They are nearly efficient: a few of them replace an ideal linear observer. Their integrals over the plane are
    orthonormal. ``width_mm`` is about the lesion's diameter; the first channel is a Gaussian with a sigma of
    ``width_mm / sqrt(2 pi)``.

    Reference:
        Gallas and Barrett, J Opt Soc Am A 20(9):1725, 2003.
    """
    spacing = per_axis(spacing_mm, name="spacing_mm", n_axes=2)
    if not (width_mm > 0 and min(spacing) > 0 and n_channels > 0):
        raise ValueError(
            f"width_mm, spacing_mm and n_channels must be positive; got {width_mm}, {spacing}, {n_channels}."
        )
    y, x = ((np.arange(n) - (n - 1) / 2) * step for n, step in zip(shape, spacing))
    g = 2 * np.pi * (y[:, None] ** 2 + x**2) / width_mm**2
    return np.stack([np.sqrt(2) / width_mm * np.exp(-g / 2) * eval_laguerre(p, g) for p in range(n_channels)])


def difference_of_gaussians_channels(shape: Sequence[int], *, n_channels: int = 10) -> np.ndarray:
    """Dense difference-of-Gaussians channels ``(n_channels, y, x)`` about the middle of a region.

    Closer to human readers than Laguerre-Gauss: rings of spatial frequency that ignore a region's mean,
    ``exp(-(f / Q s)^2 / 2) - exp(-(f / s)^2 / 2)`` with s = 0.005 * 1.4^j cycles a pixel and Q = 1.67.

    Reference:
        Abbey and Barrett, J Opt Soc Am A 18(3):473, 2001.
    """
    n_y, n_x = shape
    f_y, f_x = np.fft.fftfreq(n_y), np.fft.fftfreq(n_x)
    squared = f_y[:, None] ** 2 + f_x**2
    # a shift to the middle of the region, which for an even number of pixels is between two of them
    shift = np.exp(-2j * np.pi * (f_y[:, None] * (n_y - 1) / 2 + f_x * (n_x - 1) / 2))
    widths = 0.005 * 1.4 ** np.arange(n_channels)
    rings = [np.exp(-squared / (2 * (1.67 * s) ** 2)) - np.exp(-squared / (2 * s**2)) for s in widths]
    return np.stack([np.fft.ifft2(ring * shift).real for ring in rings])


def channelized_hotelling(
    present: np.ndarray, absent: np.ndarray, channels: np.ndarray, *, confidence: float = 0.95
) -> Detectability:
    """Detectability of a lesion by the channelized Hotelling observer, corrected for small-sample bias, with interval.

    The observer sees each region as its products with the channels, ``v = U^T g``, and
    ``d'^2 = (mean v1 - mean v0)^T S^-1 (mean v1 - mean v0)`` with the pooled covariance S. With few regions this is too
    high. For normal v it is Hotelling's T^2 and follows a non-central F distribution, which gives the bias and the
    interval exactly. Judge by the interval: it contains 0 if no lesion was detected.

    Args:
        present: ``(n, y, x)``: regions centred on the lesion.
        absent: ``(m, y, x)``: regions without it, from *other* noise realisations than those in ``present``.
        channels: ``(p, y, x)``.
        confidence: of the interval.

    Raises:
        ValueError: shapes do not match, there are too few regions, or a channel gets no noise.

    Reference:
        Barrett and Myers, Foundations of Image Science, 2004; Wunderlich et al., IEEE Trans Med Imaging
        34(2):453, 2015 (exact confidence intervals).
    """
    groups = [np.asarray(regions, dtype=np.float64) for regions in (present, absent)]
    _check(groups, channels, confidence)
    n_channels = len(channels)
    seen = [np.tensordot(regions, channels, axes=((1, 2), (1, 2))) for regions in groups]
    n_present, n_absent = len(seen[0]), len(seen[1])
    freedom = n_present + n_absent - 2
    difference = seen[0].mean(axis=0) - seen[1].mean(axis=0)
    deviations = np.concatenate([v - v.mean(axis=0) for v in seen])
    spread = deviations.std(axis=0)
    if not spread.min() > 0:
        raise ValueError("a channel's output does not vary. Usual cause: noise-free regions, or an empty channel.")
    # channels differ in size by orders of magnitude; this affects the solver's accuracy, but not d'
    covariance = (deviations / spread).T @ (deviations / spread) / freedom
    d_squared = float(difference / spread @ np.linalg.solve(covariance, difference / spread))

    weight = n_present * n_absent / (n_present + n_absent)
    inner = freedom - n_channels + 1
    f = weight * d_squared * inner / (freedom * n_channels)
    centrality = f * n_channels * (inner - 2) / inner - n_channels  # unbiased, from the mean of F
    tail = (1 - confidence) / 2
    low, high = (_centrality(f, n_channels, inner, probability) for probability in (1 - tail, tail))
    d_prime = float(np.sqrt(max(centrality, 0.0) / weight))
    interval = (float(np.sqrt(low / weight)), float(np.sqrt(high / weight)))
    return Detectability(d_prime, interval, _auc(d_prime), (_auc(interval[0]), _auc(interval[1])), confidence)


def _auc(d_prime: float) -> float:
    return float(norm.cdf(d_prime / np.sqrt(2)))


def _centrality(f: float, n_channels: int, inner: int, probability: float) -> float:
    """The non-centrality for which F stays below ``f`` with this probability; 0 if there is none."""
    if ncfdtr(n_channels, inner, 0.0, f) <= probability:
        return 0.0
    high = 1.0
    while ncfdtr(n_channels, inner, high, f) > probability:
        high *= 2
    return float(brentq(lambda c: ncfdtr(n_channels, inner, c, f) - probability, 0.0, high))


def _check(groups: Sequence[np.ndarray], channels: np.ndarray, confidence: float) -> None:
    shapes = [array.shape for array in (*groups, channels)]
    if any(len(shape) != 3 for shape in shapes) or len({shape[1:] for shape in shapes}) != 1:
        raise ValueError(f"present, absent and channels must be (n, y, x) of one y and x; got {shapes}.")
    n_regions, n_channels = len(groups[0]) + len(groups[1]), len(channels)
    if min(len(groups[0]), len(groups[1])) < 2 or n_regions - n_channels - 1 <= 2:
        raise ValueError(
            f"{n_channels} channels need more than {n_channels + 3} regions, two or more of each kind; got "
            f"{len(groups[0])} with and {len(groups[1])} without a lesion. "
            "Remedy: more noise realisations (50 of each or more), or fewer channels."
        )
    if not all(np.isfinite(regions).all() for regions in groups):
        raise ValueError("regions hold NaN or infinity.")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be between 0 and 1; got {confidence!r}.")
