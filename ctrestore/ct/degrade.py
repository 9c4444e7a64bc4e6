"""Noise in the image domain, as in courses and early papers; ``low_dose`` simulates it in the projections.

The same seed gives the same noise, for arrays and for tensors on any device. Images have any shape.

scikit-image's ``random_noise`` is not used: its number of photons depends on how many different
values the image holds, and it clips to 0..1. Here means do not change: nothing is clipped.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import fft

from ctrestore.psf import as_float, namespace

AIR_STORED = 1024  # in the 12-bit values of a scanner with intercept -1024
LARGEST_STORED = 4095

Seed = int | np.random.Generator


def check_dose_fraction(dose_fraction: float) -> float:
    """The fraction, if it is one.

    Raises:
        ValueError: it is not above 0 and at most 1.
    """
    if not 0 < dose_fraction <= 1:  # also refuses NaN
        raise ValueError(
            f"dose_fraction is above 0 and at most 1; got {dose_fraction!r}. "
            "Usual cause: a percentage, or the reduction instead of the remaining dose. Remedy: 0.25 for a quarter."
        )
    return float(dose_fraction)


def as_kind(values: np.ndarray, like: Any) -> Any:
    """The values as an array with the kind, type and device of ``like``."""
    xp = namespace(like)
    return values.astype(like.dtype, copy=False) if xp is np else xp.from_numpy(values).to(like)


def _as_numpy(image: Any) -> np.ndarray:
    return image if namespace(image) is np else image.detach().cpu().numpy()


def add_gaussian(hu: Any, *, sigma_hu: float, seed: Seed) -> Any:
    """The image plus white Gaussian noise of ``sigma_hu``."""
    if not sigma_hu >= 0:
        raise ValueError(f"sigma_hu is a standard deviation in HU and not negative; got {sigma_hu!r}.")
    hu = as_float(hu)
    noise = np.random.default_rng(seed).standard_normal(tuple(hu.shape), dtype=np.float32) * np.float32(sigma_hu)
    return hu + as_kind(noise, hu)


def add_reconstruction_noise(
    hu: Any, *, sigma_hu: float, cutoff: float, seed: Seed, anisotropy: float = 0.0, direction_rad: float = 0.0
) -> Any:
    """The slices ``(..., y, x)`` plus noise of ``sigma_hu`` with the spectrum of filtered backprojection.

    White noise in the projections, filtered by a ramp and Hann's window, has the power spectrum ``f w(f)^2`` (Riederer
    et al., Phys Med Biol 23:446, 1978; Kijewski and Judy, Phys Med Biol 32:565, 1987). Each view gives the frequencies
    along its detector, so noise has a direction if some views are noisier, as behind the shoulders. Here it is the same
    everywhere in the slice; ``low_dose`` has the noise of a patient.

    Args:
        hu: slices.
        sigma_hu: standard deviation.
        cutoff: end of the window, 1 at the pixels' Nyquist frequency. Neighbouring pixels have a correlation of 0.83,
            0.57 and 0.20 at 0.6, 1.0 and 1.6; in 27 public axial slices of 0.37 (median; benchmarks/scanner_noise.py).
        seed: number or generator.
        anisotropy: the variance of the views is ``1 + anisotropy cos(2 angle)``; 0 is the same for all.
        direction_rad: of the detector of the noisiest view, from x to y.

    Raises:
        ValueError: fewer than two axes, a negative sigma, a cutoff that removes everything, or variances below 0.
    """
    if not sigma_hu >= 0:
        raise ValueError(f"sigma_hu is a standard deviation in HU and not negative; got {sigma_hu!r}.")
    if not 0 <= anisotropy <= 1:
        raise ValueError(f"anisotropy is 0 (all views alike) to 1; got {anisotropy!r}.")
    if not 0.1 <= cutoff <= 4:
        raise ValueError(f"cutoff is 1 for a window that ends at the Nyquist frequency, 0.1 to 4; got {cutoff!r}.")
    hu = as_float(hu)
    if hu.ndim < 2:
        raise ValueError(f"expected slices (..., y, x); got shape {tuple(hu.shape)}.")
    height, width = hu.shape[-2:]
    # Fourier filtering is periodic: without a margin, opposite edges would have the same noise.
    grid = [fft.next_fast_len(side + 16, real=True) for side in (height, width)]
    fy, fx = 2 * np.fft.fftfreq(grid[0])[:, None], 2 * np.fft.rfftfreq(grid[1])[None]
    f = np.hypot(fy, fx)
    of_view = 1 + anisotropy * np.cos(2 * (np.arctan2(fy, fx) - direction_rad))
    gain = np.sqrt(f * of_view) * np.where(f < cutoff, 0.5 + 0.5 * np.cos(np.pi * f / cutoff), 0.0)
    both_halves = np.r_[1.0, np.full(gain.shape[1] - 1, 2.0)]  # rfft omits the mirrored frequencies
    if grid[1] % 2 == 0:
        both_halves[-1] = 1.0
    gain *= np.sqrt(np.prod(grid) / np.sum(gain**2 * both_halves))
    white = np.random.default_rng(seed).standard_normal((*hu.shape[:-2], *grid), dtype=np.float32)
    noise = fft.irfft2(fft.rfft2(white) * gain.astype(np.float32), s=grid)[..., :height, :width]
    return hu + as_kind(np.float32(sigma_hu) * noise, hu)


def add_salt_and_pepper(image: Any, *, fraction: float, seed: Seed, low: float = -1000.0, high: float = 2000.0) -> Any:
    """The image with a fraction of its pixels replaced, about half of them by ``low``, the others by ``high``.

    Each pixel is drawn separately, so the fraction is right on average.
    """
    if not 0 <= fraction <= 1:
        raise ValueError(f"fraction of the pixels is 0 to 1; got {fraction!r}. Usual cause: a percentage.")
    if not low < high:
        raise ValueError(f"pepper (low) is darker than salt (high); got low {low!r}, high {high!r}.")
    image = as_float(image)
    xp = namespace(image)
    drawn = np.random.default_rng(seed).random(tuple(image.shape), dtype=np.float32)
    pepper, salt = drawn < fraction / 2, (drawn >= fraction / 2) & (drawn < fraction)
    if xp is np:
        return np.where(pepper, low, np.where(salt, high, image)).astype(image.dtype, copy=False)
    pepper, salt = (xp.from_numpy(mask).to(image.device) for mask in (pepper, salt))
    return image.masked_fill(pepper, low).masked_fill(salt, high)


def add_poisson(image: Any, *, photons_at_high: float, seed: Seed, low: float = -1000.0, high: float = 2000.0) -> Any:
    """The image as photon counts, 0 at ``low`` and ``photons_at_high`` at ``high``, scaled back to the same mean.

    The standard deviation is ``sqrt((image - low) * (high - low) / photons_at_high)``. Below ``low`` there is no noise.
    """
    if not photons_at_high > 0:
        raise ValueError(f"photons_at_high is a positive number of photons; got {photons_at_high!r}.")
    if not low < high:
        raise ValueError(f"low lies below high; got low {low!r}, high {high!r}.")
    image = as_float(image)
    expected = (_as_numpy(image).astype(np.float64) - low).clip(min=0.0) * (photons_at_high / (high - low))
    if not np.isfinite(expected).all():
        raise ValueError("the image holds NaN or infinite values. Remedy: replace them, for instance by -1000 (air).")
    noise = np.random.default_rng(seed).poisson(expected) - expected
    return image + as_kind(noise * ((high - low) / photons_at_high), image)


def add_poisson_12bit(hu: Any, *, dose_fraction: float, seed: Seed) -> Any:
    """The image as if its 12-bit values were counts at a dose fraction, divided by it so the mean does not change.

    ``Poisson(a x) / a`` with ``x = hu + 1024`` in 0..4095: a standard deviation of ``sqrt(x / a)`` HU. A teaching
    model: its noise grows with the grey value and is missing in air; a scan's noise is largest behind dense paths.
    """
    fraction = check_dose_fraction(dose_fraction)
    hu = as_float(hu)
    counts = (_as_numpy(hu).astype(np.float64) + AIR_STORED).clip(0, LARGEST_STORED) * fraction
    if not np.isfinite(counts).all():
        raise ValueError("the image holds NaN or infinite values. Remedy: replace them, for instance by -1000 (air).")
    noise = (np.random.default_rng(seed).poisson(counts) - counts) / fraction
    return hu + as_kind(noise, hu)
