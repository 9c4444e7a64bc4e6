"""A CT slice as it would look at a fraction of its dose, by noise in the projections.

Slices are ``(..., y, x)`` in HU, numpy arrays or torch tensors; every slice of a stack gets different noise, and the
same seed gives the same noise on every device.

At full dose, a ray with line integral ``p`` has ``N = photons_per_ray exp(-p)`` photons at its detector channel; at a
dose fraction ``a`` it has ``a N``. The electronics add noise of standard deviation ``s`` photons to both. To first
order the variance of ``-log(counts)`` is ``1 / (a N) + s^2 / (a N)^2``. A real scan at full dose already holds the
noise of ``a = 1``. The missing variance is

    (1 / a - 1) / N  +  (1 / a^2 - 1) s^2 / N^2                                                                  (1)

:func:`simulate_low_dose` draws noise of this variance, reconstructs only the noise and adds it to the slice. The slice
keeps the scanner's kernel and resolution, and its mean does not change. :func:`simulate_scan` instead measures and
reconstructs a noise-free slice.

References:
    Yu et al., J Comput Assist Tomogr 36:477, 2012 (noise insertion of this kind, on raw data).
    Zeng et al., IEEE Trans Nucl Sci 62:2226, 2015 (Poisson and electronic noise, of 10 to 11 photons^2).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ctrestore.ct.degrade import Seed, check_dose_fraction
from ctrestore.ct.fan_beam import Filter, project, reconstruct
from ctrestore.ct.fan_beam_geometry import FLASH, FanBeam
from ctrestore.ct.hounsfield import WATER_PER_MM, attenuation_to_hu, check_hu, hu_to_attenuation
from ctrestore.psf import Scalars, as_float

# With these two, a quarter of the dose adds 25 HU to soft tissue: the median of 27 public axial slices of chest and
# abdomen, 15 patients on scanners of three makers. Their own noise has a median of 15.6 HU, for which (1) gives 27.
# Hann's window gives noise like theirs (correlation of neighbours 0.6, in the scans 0.5); a ramp does not (0.2).
# A patient of 360 mm gets 75 HU: scanners raise the tube current for large patients, so give more photons.
PHOTONS_PER_RAY = 2e5
NOISE_FILTER: Filter = "hann"
ELECTRONIC_NOISE = math.sqrt(10.0)  # standard deviation in photons
PADDING_BELOW_HU = -1200.0  # noise in air stays above; scanners write -2000, -2048 or -3024 outside the field of view
# A scanner smooths rays with hardly any photons. Equation (1) does not, and would go to infinity, but the standard
# deviation of -log(max(counts, 1)) is never above about 0.8. Four photons at the low dose give 0.9.
FEWEST_PHOTONS = 4.0

Photons = float | np.ndarray


class NoiseComponents(NamedTuple):
    """Noise components in HU, ``(..., y, x)`` each, that give the noise of every dose: see :func:`noise_at_dose`."""

    quantum: Any  # of variance 1 / N in the projections
    electronic: Any  # of variance s^2 / N^2


def noise_at_dose(components: NoiseComponents, *, dose_fraction: float) -> Any:
    """The noise to add to a scan at full dose for a dose fraction, by equation (1)."""
    a = check_dose_fraction(dose_fraction)
    return components.quantum * math.sqrt(1 / a - 1) + components.electronic * math.sqrt(1 / a**2 - 1)


def fewer_views(
    *,
    photons_per_ray: float = PHOTONS_PER_RAY,
    electronic_noise: float = ELECTRONIC_NOISE,
    geometry: FanBeam = FLASH,
    every: int = 3,
) -> dict[str, Any]:
    """Arguments of :func:`noise_components` for every third view, in a third of the time.

    The remaining views have three times the photons, so the variance of the reconstruction's noise is the same. Only
    noise is reconstructed: there are no edges from which too few views would make streaks.

    Args:
        photons_per_ray: at full dose and without an object, of all views.
        electronic_noise: standard deviation in photons.
        geometry: of the scanner.
        every: 3 for every third view.
    """
    return {
        "photons_per_ray": every * photons_per_ray,
        "electronic_noise": math.sqrt(every) * electronic_noise,
        "geometry": replace(geometry, n_views=geometry.n_views // every),
    }


def simulate_low_dose(
    hu: Any,
    *,
    dose_fraction: float,
    spacing_mm: Scalars,
    seed: Seed,
    photons_per_ray: Photons = PHOTONS_PER_RAY,
    electronic_noise: float = ELECTRONIC_NOISE,
    geometry: FanBeam = FLASH,
    filter: Filter = NOISE_FILTER,
    padding: Any = None,
) -> Any:
    """A real scan at a fraction of its dose: the slices plus the missing noise, ``(..., y, x)`` in HU.

    The mean does not change: unlike a scan with too few photons, the result has no bias. At dose 1 it is the scan
    itself. No gradient flows through the noise.

    Args:
        hu: slices of a scan, with their noise.
        dose_fraction: of the scan's dose, above 0 and at most 1.
        spacing_mm: pixel size, one number or (y, x).
        seed: number or generator.
        photons_per_ray: at full dose and without an object; one number, or an array that broadcasts to
            ``(view, detector)`` for tube current modulation and bowtie filters.
        electronic_noise: standard deviation in photons.
        geometry: of the scanner.
        filter: of the reconstruction of the noise, one of ``fan_beam.FILTERS``.
        padding: mask of the pixels outside the scan, which do not change; None for those below -1200 HU.

    Raises:
        ValueError: not an image in HU, or an impossible dose, number of photons, spacing or geometry.
    """
    a = check_dose_fraction(dose_fraction)
    views = _noise_views(photons_per_ray, electronic_noise, geometry, seed, lowest_dose_fraction=a)

    def noise(sinogram: Tensor) -> Tensor:
        return noise_at_dose(NoiseComponents(*views(sinogram)), dose_fraction=a)

    (added,) = _reconstructed_noise(hu, lambda sinogram: (noise(sinogram),), spacing_mm, geometry, filter, padding)
    return as_float(hu) + added


def noise_components(
    hu: Any,
    *,
    spacing_mm: Scalars,
    seed: Seed,
    lowest_dose_fraction: float = 0.1,
    photons_per_ray: Photons = PHOTONS_PER_RAY,
    electronic_noise: float = ELECTRONIC_NOISE,
    geometry: FanBeam = FLASH,
    filter: Filter = NOISE_FILTER,
    padding: Any = None,
) -> NoiseComponents:
    """One realisation of the noise of a scan for all of its doses, as in :func:`simulate_low_dose`.

    For training: it is computed once, and every epoch draws another dose.

    Args:
        hu: slices of a scan, with their noise.
        spacing_mm: pixel size, one number or (y, x).
        seed: number or generator.
        lowest_dose_fraction: at this dose every ray is assumed to have :data:`FEWEST_PHOTONS` photons or more.
        photons_per_ray: as for :func:`simulate_low_dose`.
        electronic_noise: standard deviation in photons.
        geometry: of the scanner.
        filter: of the reconstruction.
        padding: mask of the pixels that get no noise.

    Raises:
        ValueError: not an image in HU, or an impossible dose, number of photons, spacing or geometry.
    """
    lowest = check_dose_fraction(lowest_dose_fraction)
    views = _noise_views(photons_per_ray, electronic_noise, geometry, seed, lowest_dose_fraction=lowest)
    return NoiseComponents(*_reconstructed_noise(hu, views, spacing_mm, geometry, filter, padding))


def simulate_scan(
    hu: Any,
    *,
    dose_fraction: float = 1.0,
    spacing_mm: Scalars,
    seed: Seed,
    photons_per_ray: Photons = PHOTONS_PER_RAY,
    electronic_noise: float = ELECTRONIC_NOISE,
    geometry: FanBeam = FLASH,
    filter: Filter = NOISE_FILTER,
) -> Any:
    """A scanner's reconstruction of noise-free slices: ``(..., y, x)`` in HU to the same.

    Photons are counted (Poisson), the electronics add their noise, counts below one become one, and the
    logarithm is reconstructed. With few photons the logarithm causes a bias, as in a scanner: at a tenth of the
    dose, 340 mm of water at 2e5 photons is 3 HU too high, with noise of 92 HU; 1 / sqrt(dose) alone would give 80
    (``benchmarks/low_dose_laws.py``).

    Args:
        hu: slices without noise, such as phantoms.
        dose_fraction: of ``photons_per_ray``, above 0 and at most 1.
        spacing_mm: pixel size, one number or (y, x).
        seed: number or generator.
        photons_per_ray: as for :func:`simulate_low_dose`.
        electronic_noise: standard deviation in photons.
        geometry: of the scanner.
        filter: of the reconstruction.

    Raises:
        ValueError: not an image in HU, or an impossible dose, number of photons, spacing or geometry.
    """
    a = check_dose_fraction(dose_fraction)
    photons = a * _check_photons(photons_per_ray, electronic_noise, geometry)
    generator = np.random.default_rng(seed)

    def scan(slice_hu: Tensor) -> Tensor:
        expected = photons * np.exp(-_sinogram(slice_hu, spacing_mm, geometry).cpu().numpy().astype(np.float64))
        counts = generator.poisson(expected) + generator.normal(0.0, electronic_noise, expected.shape)
        measured = torch.from_numpy(-np.log(np.maximum(counts, 1.0) / photons)).to(slice_hu)
        shape = (slice_hu.shape[0], slice_hu.shape[1])
        image = reconstruct(measured, shape=shape, spacing_mm=spacing_mm, geometry=geometry, filter=filter)
        return attenuation_to_hu(image)

    return _of_slices(hu, lambda slice_hu: (scan(slice_hu),))[0]


def _check_photons(photons_per_ray: Photons, electronic_noise: float, geometry: FanBeam) -> np.ndarray:
    """The photons of each ray in float64, in a shape that broadcasts to ``(view, detector)``."""
    photons, rays = np.asarray(photons_per_ray, dtype=np.float64), (geometry.n_views, geometry.n_detectors)
    if not (np.isfinite(photons).all() and (photons >= 1).all()):
        raise ValueError(
            f"photons_per_ray is a number of photons, 1e4 to 1e7 in scanners; got {photons_per_ray!r}. "
            "Usual cause: the logarithm, or a dose fraction."
        )
    try:
        np.broadcast_to(photons, rays)
    except ValueError:
        raise ValueError(
            f"photons_per_ray is one number or broadcasts to (view, detector) = {rays}; got shape {photons.shape}."
        ) from None
    if not 0 <= electronic_noise < math.inf:
        raise ValueError(f"electronic_noise is a standard deviation in photons, about 3; got {electronic_noise!r}.")
    return photons


def _noise_views(
    photons_per_ray: Photons, electronic_noise: float, geometry: FanBeam, seed: Seed, *, lowest_dose_fraction: float
) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """A function that draws quantum and electronic noise for a sinogram, one realisation per call."""
    photons = _check_photons(photons_per_ray, electronic_noise, geometry)
    fewest, generator = FEWEST_PHOTONS / lowest_dose_fraction, np.random.default_rng(seed)

    def draw(sinogram: Tensor) -> tuple[Tensor, Tensor]:
        counts = (torch.from_numpy(photons).to(sinogram) * torch.exp(-sinogram)).clamp(min=fewest)
        # Drawn by numpy, so that every device gets the same noise.
        quantum, electronic = (
            torch.from_numpy(generator.standard_normal(tuple(sinogram.shape), dtype=np.float32)).to(sinogram)
            for _ in range(2)
        )
        return quantum / counts.sqrt(), electronic * (electronic_noise / counts)

    return draw


def _reconstructed_noise(
    hu: Any,
    noise_views: Callable[[Tensor], tuple[Tensor, ...]],
    spacing_mm: Scalars,
    geometry: FanBeam,
    filter: Filter,
    padding: Any,
) -> tuple[Any, ...]:
    """Noise in HU from noise in the projections of slices: zero in the padding."""
    if padding is None:
        padding = hu < PADDING_BELOW_HU
    elif tuple(padding.shape) != tuple(hu.shape):
        raise ValueError(f"padding has shape {tuple(padding.shape)}, the slices {tuple(hu.shape)}. Expected: the same.")
    inside = ~padding

    def reconstructed(slice_hu: Tensor) -> tuple[Tensor, ...]:
        shape = (slice_hu.shape[0], slice_hu.shape[1])
        return tuple(
            reconstruct(views, shape=shape, spacing_mm=spacing_mm, geometry=geometry, filter=filter)
            * (1000.0 / WATER_PER_MM)  # attenuation_to_hu of a difference has no offset
            for views in noise_views(_sinogram(slice_hu, spacing_mm, geometry))
        )

    return tuple(noise * inside for noise in _of_slices(hu, reconstructed))


def _sinogram(slice_hu: Tensor, spacing_mm: Scalars, geometry: FanBeam) -> Tensor:
    """Line integrals of a slice; values below air (padding, noise) become air."""
    return project(hu_to_attenuation(slice_hu).clamp(min=0.0), spacing_mm=spacing_mm, geometry=geometry)


def _of_slices(hu: Any, function: Callable[[Tensor], tuple[Tensor, ...]]) -> tuple[Any, ...]:
    """The results of a function for each slice, one at a time, stacked and of the same kind as the slices."""
    if hu.ndim < 2:
        raise ValueError(f"expected slices (..., y, x); got shape {tuple(hu.shape)}.")
    is_tensor = isinstance(hu, Tensor)
    tensor = hu.detach().as_subclass(Tensor) if is_tensor else torch.from_numpy(np.ascontiguousarray(hu))
    check_hu(tensor)
    slices = tensor.reshape(-1, *tensor.shape[-2:]).float()
    with torch.no_grad():
        results = [torch.stack(parts) for parts in zip(*(function(one) for one in slices))]
    shaped = (result.reshape(tensor.shape).to(as_float(tensor).dtype) for result in results)
    return tuple(result if is_tensor else result.numpy() for result in shaped)
