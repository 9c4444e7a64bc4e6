"""Deconvolution inside regions: what MTC, RBV, IY and MG leave blurred, sharpened without crossing a border."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ctrestore.psf import Kernel, Scalars, blur, namespace, reach_voxels
from ctrestore.pvc.ratio import ratio
from ctrestore.pvc.regions import Regions, grown
from ctrestore.pvc.richardson_lucy import iterate_richardson_lucy
from ctrestore.pvc.validation import checked_image, checked_psf
from ctrestore.pvc.van_cittert import iterate_van_cittert

EMPTY_MASK = 1e-6  # a blurred mask below this: the region is not there


def van_cittert_within(
    image: Any,
    regions: Regions,
    *,
    fwhm_mm: Scalars | None,
    spacing_mm: Scalars,
    kernel: Kernel = "exact",
    alpha: float = 1.5,
    n_iterations: int = 10,
    stop: float = 0.01,
) -> Any:
    """The image deconvolved (reblurred Van Cittert) within each region: ``(x, y, z)``, float32, not negative.

    The blur of a region is m h(m e) / h(m): activity mixes inside the region and none crosses its border, as in an
    image whose spill-over was corrected already (RBV+VC and the like).

    Args:
        image: an image corrected for spill-over between regions, ``(x, y, z)``.
        regions: on the image's grid; voxels of none keep their value.
        fwhm_mm: the PSF's full width at half maximum, one number or one along each axis.
        spacing_mm: voxel size, one number or one along each axis.
        kernel: ``exact``, or ``itk`` for PETPVC's truncated Gaussian.
        alpha: step size, above 0 and below 2.
        n_iterations: the most iterations.
        stop: relative change to end at.

    Raises:
        ValueError: as :func:`ctrestore.pvc.reblurred_van_cittert` does.

    Reference:
        Thomas et al. (PETPVC), Phys Med Biol 61:7975, 2016.
    """

    def deconvolve(part: Any, blur_within: Callable[[Any], Any]) -> Any:
        return iterate_van_cittert(part, blur_within, alpha=alpha, n_iterations=n_iterations, stop=stop)

    return _within(image, regions, deconvolve, fwhm_mm=fwhm_mm, spacing_mm=spacing_mm, kernel=kernel)


def richardson_lucy_within(
    image: Any,
    regions: Regions,
    *,
    fwhm_mm: Scalars | None,
    spacing_mm: Scalars,
    kernel: Kernel = "exact",
    n_iterations: int = 10,
) -> Any:
    """The image deconvolved (Richardson-Lucy) within each region: ``(x, y, z)``, float32, not negative.

    Arguments, errors and reference are those of :func:`van_cittert_within`.
    """

    def deconvolve(part: Any, blur_within: Callable[[Any], Any]) -> Any:
        return iterate_richardson_lucy(part, blur_within, n_iterations=n_iterations)

    return _within(image, regions, deconvolve, fwhm_mm=fwhm_mm, spacing_mm=spacing_mm, kernel=kernel)


def _within(
    image: Any,
    regions: Regions,
    deconvolve: Callable[[Any, Callable[[Any], Any]], Any],
    *,
    fwhm_mm: Scalars | None,
    spacing_mm: Scalars,
    kernel: Kernel,
) -> Any:
    psf = checked_psf(fwhm_mm=fwhm_mm, spacing_mm=spacing_mm, kernel=kernel)
    image = regions.on_grid(checked_image(image)).clip(min=0)
    reach = list(reach_voxels(**psf))
    out = namespace(image).zeros_like(image)
    for region, tight in enumerate(regions.boxes()):
        box = grown(tight, reach, regions.shape)
        mask = regions.mask(region, box)
        seen = blur(mask, **psf)

        def blur_within(volume: Any, mask: Any = mask, seen: Any = seen) -> Any:
            return ratio(blur(mask * volume, **psf), seen, floor=EMPTY_MASK, otherwise=0.0) * (mask > 0)

        out[box] += mask * deconvolve(image[box] * (mask > 0), blur_within)
    return out
