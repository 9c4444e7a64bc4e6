"""The task transfer function: how sharp an inserted disc still is after restoration, and how much contrast is left.

A network is not linear: it may keep the edge of a bone and blur that of a faint lesion. So sharpness is measured with a
disc of the contrast and size of the task. Insert the disc, simulate the low dose, restore, measure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.signal.windows import tukey

from ctrestore.psf import Scalars, per_axis

REACH = 0.75  # the edge is measured from 0.25 to 1.75 radii
BINS_PER_PIXEL = 10  # a disc's rim crosses pixels at every phase, so the edge is sampled ten times as finely
SMALLEST_RADIUS_PIXELS = 4
ERASED = 0.05  # with a smaller share of its contrast left, a disc has no edge to measure
OVERSAMPLING = 8


@dataclass(frozen=True)
class Disc:
    """A disc of a known contrast; ``centre_mm`` is (y, x) from the centre of the first pixel."""

    centre_mm: tuple[float, float]
    radius_mm: float
    contrast_hu: float


@dataclass(frozen=True)
class TaskTransfer:
    """Transfer at each frequency in 1/mm, both ``(n,)``, and the contrast in HU that is left inside the disc.

    The transfer is 1 at frequency zero by definition: a loss there is a loss of contrast. It is NaN if the disc
    was erased.
    """

    frequency_per_mm: np.ndarray
    transfer: np.ndarray
    contrast_hu: float
    disc: Disc

    @property
    def contrast_recovery(self) -> float:
        """Measured contrast divided by inserted contrast: 1 is perfect."""
        return self.contrast_hu / self.disc.contrast_hu

    def frequency_at(self, transfer: float) -> float:
        """Frequency in 1/mm at which the transfer first falls to this value (``f50``: 0.5); NaN if it never does."""
        below = np.flatnonzero(self.transfer <= transfer)
        if not below.size or below[0] == 0:
            return float("nan")
        i = int(below[0])
        return float(np.interp(transfer, self.transfer[[i, i - 1]], self.frequency_per_mm[[i, i - 1]]))


def disc_coverage(disc: Disc, shape: Sequence[int], *, spacing_mm: Scalars) -> np.ndarray:
    """The share of each pixel ``(y, x)`` that the disc covers, 0 to 1."""
    spacing = per_axis(spacing_mm, name="spacing_mm", n_axes=2)
    outermost = disc.radius_mm + max(spacing)
    boxes = []
    for n, step, centre in zip(shape, spacing, disc.centre_mm):
        start, stop = int(np.ceil((centre - outermost) / step)), int(np.floor((centre + outermost) / step)) + 1
        boxes.append(slice(min(max(start, 0), n), min(max(stop, 0), n)))
    inside_pixel = (np.arange(OVERSAMPLING) + 0.5) / OVERSAMPLING - 0.5
    offsets = [
        (np.arange(box.start, box.stop)[:, None] + inside_pixel) * step - centre
        for box, step, centre in zip(boxes, spacing, disc.centre_mm)
    ]
    squares = np.square(offsets[0])[:, :, None, None] + np.square(offsets[1])
    coverage = np.zeros(tuple(shape))
    coverage[tuple(boxes)] = np.mean(squares <= disc.radius_mm**2, axis=(1, 3))
    return coverage


def insert_disc(hu: np.ndarray, disc: Disc, *, spacing_mm: Scalars) -> np.ndarray:
    """The slices ``(..., y, x)`` with the disc's contrast added, float64.

    >>> hu = insert_disc(np.zeros((32, 32)), Disc((16, 16), radius_mm=6, contrast_hu=-50), spacing_mm=1)
    >>> float(hu[16, 16]), float(hu[0, 0])
    (-50.0, 0.0)
    """
    hu = np.asarray(hu, dtype=np.float64)
    return hu + disc.contrast_hu * disc_coverage(disc, hu.shape[-2:], spacing_mm=spacing_mm)


def task_transfer(
    image: np.ndarray, disc: Disc, *, spacing_mm: Scalars, relative: bool = True, n_frequencies: int = 64
) -> TaskTransfer:
    """The task transfer function of a slice with the disc, from the edge at its rim.

    Pixels are sorted by their distance from the centre into an edge profile. Its derivative is the line spread, and the
    modulus of the line spread's Fourier transform is the transfer. The derivative is weighted by ``sqrt(r / radius)``:
    for a blurred disc it falls along r with ``sqrt(radius / r)``, because outer rings are longer.

    For a Gaussian blur the result is within 0.001 of its transfer if the radius is 10 sigma or more, within 0.02 at 5
    sigma and only within 0.1 at 3 sigma, where the spread is larger than the disc. Noise raises a modulus: average
    until the transfer falls to nearly 0.

    Args:
        image: ``(y, x)`` in HU or ``(n, y, x)`` with n noise realisations, which are averaged. If there is
            anatomy, give the restored slices with the disc minus those without it.
        disc: the inserted disc, or the rod of a scanned phantom.
        spacing_mm: pixel size, one number or (y, x).
        relative: divide by the transfer of the inserted disc itself, so that an unchanged image has transfer 1.
            False for a phantom's rod, whose transfer includes the pixels'.
        n_frequencies: number of frequencies from 0 to the Nyquist frequency of the wider pixel spacing.

    Raises:
        ValueError: the disc is too small or not far enough inside the slice, or the image is not a slice.

    Reference:
        Richard et al., Med Phys 39(7):4115, 2012; Samei et al., Med Phys 46(11):e735, 2019 (AAPM TG-233).
    """
    image = np.asarray(image, dtype=np.float64)
    image = image.mean(axis=0) if image.ndim == 3 else image
    spacing = per_axis(spacing_mm, name="spacing_mm", n_axes=2)
    _check(image, disc, spacing)
    frequencies = np.linspace(0, 0.5 / max(spacing), n_frequencies)
    contrast = _contrast(image, disc, spacing)
    if contrast / disc.contrast_hu < ERASED:
        return TaskTransfer(frequencies, np.full(n_frequencies, np.nan), contrast, disc)
    transfer = _edge_transfer(image, disc, spacing, frequencies)
    if relative:
        inserted = disc.contrast_hu * disc_coverage(disc, image.shape, spacing_mm=spacing)
        transfer = transfer / _edge_transfer(inserted, disc, spacing, frequencies)
    return TaskTransfer(frequencies, transfer, contrast, disc)


def _check(image: np.ndarray, disc: Disc, spacing: tuple[float, ...]) -> None:
    if image.ndim != 2 or not np.isfinite(image).all():
        raise ValueError(f"image must be (y, x) or (n, y, x) without NaN; got {image.shape} after averaging.")
    if not disc.radius_mm >= SMALLEST_RADIUS_PIXELS * max(spacing) > 0 or disc.contrast_hu == 0:
        raise ValueError(
            f"the disc needs a radius of {SMALLEST_RADIUS_PIXELS} pixels or more and a contrast; got "
            f"{disc.radius_mm:g} mm on pixels of {spacing[0]:g} x {spacing[1]:g} mm, {disc.contrast_hu:g} HU."
        )
    reach = (1 + REACH) * disc.radius_mm
    for n, step, centre in zip(image.shape, spacing, disc.centre_mm):
        if centre - reach < 0 or centre + reach > (n - 1) * step:
            raise ValueError(
                f"{1 + REACH:g} radii around the disc must lie inside the slice; got a centre at {disc.centre_mm} mm, "
                f"a radius of {disc.radius_mm:g} mm and a slice of {image.shape} pixels. "
                "Usual cause: a centre in pixels."
            )


def _distance_mm(shape: tuple[int, ...], disc: Disc, spacing: tuple[float, ...]) -> np.ndarray:
    y, x = (np.arange(n) * step - centre for n, step, centre in zip(shape, spacing, disc.centre_mm))
    return np.hypot(y[:, None], x)


def _contrast(image: np.ndarray, disc: Disc, spacing: tuple[float, ...]) -> float:
    """Mean inside half the radius minus the mean from 1.5 to 1.75 radii."""
    radii = _distance_mm(image.shape, disc, spacing) / disc.radius_mm
    return float(image[radii <= 0.5].mean() - image[(radii >= 1.5) & (radii <= 1 + REACH)].mean())


def _edge_transfer(image: np.ndarray, disc: Disc, spacing: tuple[float, ...], frequencies: np.ndarray) -> np.ndarray:
    """Modulus of the transfer at the disc's rim, 1 at frequency zero."""
    width = max(spacing) / BINS_PER_PIXEL
    reach = REACH * disc.radius_mm
    n_bins = int(2 * reach / width)
    distance = _distance_mm(image.shape, disc, spacing)
    bins = np.floor((distance - (disc.radius_mm - reach)) / width).astype(int)
    used = (bins >= 0) & (bins < n_bins)
    labels = np.arange(n_bins)
    n_pixels = np.bincount(bins[used], minlength=n_bins)
    filled = n_pixels > 0
    # the mean of a bin's values belongs at the mean of the pixels' distances, not at the bin's centre
    at = ndimage.mean(distance[used], bins[used], labels[filled])
    edge = ndimage.mean(image[used], bins[used], labels[filled])
    centres = disc.radius_mm - reach + (labels + 0.5) * width
    profile = np.interp(centres, at, edge)
    between = (centres[1:] + centres[:-1]) / 2
    # a flat-topped taper: beyond half the reach there is only noise, but a Hann window would narrow the spread itself
    spread = -np.diff(profile) * np.sqrt(between / disc.radius_mm) * tukey(n_bins - 1, 0.5)
    waves = np.exp(-2j * np.pi * frequencies[:, None] * (between - disc.radius_mm))
    # the difference over a bin and the mean within one are each a box of the bin's width
    return np.abs(waves @ spread) / np.abs(spread.sum()) / np.sinc(frequencies * width) ** 2
