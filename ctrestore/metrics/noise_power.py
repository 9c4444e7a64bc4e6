"""The noise power spectrum: the amount of noise, and how coarse or fine it is.

Two images with the same standard deviation look alike to PSNR, even if the noise of one consists of blotches as large
as lesions. Smoothing networks cause this; the spectrum shows it as power that moves to low frequencies.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ctrestore.psf import Scalars, per_axis


@dataclass(frozen=True)
class NoisePower:
    """Noise power ``(y, x)`` in HU^2 mm^2, zero frequency in the middle, and the frequencies of its axes in 1/mm."""

    power: np.ndarray
    frequency_y_per_mm: np.ndarray
    frequency_x_per_mm: np.ndarray

    @property
    def variance_hu2(self) -> float:
        """The integral over all frequencies: the variance of the noise, in HU^2 (Parseval's theorem)."""
        step_y, step_x = (f[1] - f[0] for f in (self.frequency_y_per_mm, self.frequency_x_per_mm))
        return float(self.power.sum() * step_y * step_x)

    @property
    def mean_frequency_per_mm(self) -> float:
        """Mean radial frequency, weighted by power: it falls when noise turns into blotches."""
        return float((self.power * self._radius()).sum() / self.power.sum())

    def radial(self) -> tuple[np.ndarray, np.ndarray]:
        """Frequencies in 1/mm ``(n,)`` and the mean power in rings around zero, up to the lower Nyquist frequency.

        The ring at zero frequency is omitted: the trend was subtracted there.
        """
        step = max(f[1] - f[0] for f in (self.frequency_y_per_mm, self.frequency_x_per_mm))
        nyquist = min(-f[0] for f in (self.frequency_y_per_mm, self.frequency_x_per_mm))
        rings = np.rint(self._radius() / step).astype(int).ravel()
        n_pixels = np.bincount(rings)
        power = np.bincount(rings, self.power.ravel()) / np.maximum(n_pixels, 1)
        last = int(nyquist / step + 1e-9)
        return step * np.arange(1, last + 1), power[1 : last + 1]

    def _radius(self) -> np.ndarray:
        return np.hypot(self.frequency_y_per_mm[:, None], self.frequency_x_per_mm)


def noise_power_spectrum(regions: np.ndarray, *, spacing_mm: Scalars, trend_order: int = 2) -> NoisePower:
    """Noise power spectrum of uniform regions: ``pixel area / number of pixels * mean |DFT(region - trend)|^2``.

    Args:
        regions: ``(n, y, x)`` or ``(y, x)`` in HU: uniform tissue, for example at :func:`uniform_regions`, or
            differences of two noise realisations divided by sqrt(2), which contain no anatomy.
        spacing_mm: pixel size, one number or (y, x).
        trend_order: order of the polynomial in y and x that is fitted to each region and subtracted: 0 the mean, 1 a
            plane, 2 also cupping. A polynomial also removes the lowest frequencies of the noise: of the variance of N
            pixels 1, 3 or 6 parts in N.

    Raises:
        ValueError: the regions have another shape, are not finite or too small, or there is no such trend.

    Reference:
        ICRU Report 87, 2012; Samei et al., Med Phys 46(11):e735, 2019 (AAPM TG-233).
    """
    regions = np.asarray(regions, dtype=np.float64)
    regions = regions[None] if regions.ndim == 2 else regions
    if regions.ndim != 3 or min(regions.shape[1:]) < 8 or not len(regions):
        raise ValueError(f"regions must be (n, y, x) of 8 pixels or more along y and x; got {regions.shape}.")
    if not np.isfinite(regions).all():
        raise ValueError("regions hold NaN or infinity. Usual cause: padding outside the field of view.")
    if trend_order not in (0, 1, 2):
        raise ValueError(f"trend_order must be 0 (mean), 1 (plane) or 2 (cupping); got {trend_order!r}.")
    spacing_y, spacing_x = per_axis(spacing_mm, name="spacing_mm", n_axes=2)
    if min(spacing_y, spacing_x) == 0:
        raise ValueError(f"spacing_mm must be positive; got {spacing_mm!r}.")
    n_y, n_x = regions.shape[1:]
    noise = _without_trend(regions, trend_order)
    power = spacing_y * spacing_x / (n_y * n_x) * np.mean(np.abs(np.fft.fft2(noise)) ** 2, axis=0)
    return NoisePower(
        np.fft.fftshift(power),
        np.fft.fftshift(np.fft.fftfreq(n_y, spacing_y)),
        np.fft.fftshift(np.fft.fftfreq(n_x, spacing_x)),
    )


def _without_trend(regions: np.ndarray, order: int) -> np.ndarray:
    """Each region minus its least-squares polynomial in y and x."""
    n_y, n_x = regions.shape[1:]
    y, x = np.meshgrid(np.linspace(-1, 1, n_y), np.linspace(-1, 1, n_x), indexing="ij")
    terms = [y**i * x**j for i in range(order + 1) for j in range(order + 1 - i)]
    basis, _ = np.linalg.qr(np.stack([term.ravel() for term in terms], axis=1))
    flat = regions.reshape(len(regions), -1)
    return (flat - flat @ basis @ basis.T).reshape(regions.shape)
