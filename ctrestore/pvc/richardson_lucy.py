"""Richardson-Lucy deconvolution with the scanner's Gaussian PSF."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ctrestore.psf import Kernel, Scalars, blur
from ctrestore.pvc.ratio import ratio
from ctrestore.pvc.validation import checked_fwhm, checked_image, checked_iterations

# Where the blurred estimate is below this share of the image's maximum there is nothing to correct, and the ratio of
# two nearly empty voxels would only amplify rounding.
EMPTY_FRACTION = 1e-6


def richardson_lucy(
    image: Any,
    *,
    fwhm_mm: Scalars | None,
    spacing_mm: Scalars,
    kernel: Kernel = "exact",
    n_iterations: int = 10,
) -> Any:
    """The image deconvolved (Richardson-Lucy, RL): ``(x, y, z)``, float32, never negative, same total.

    With f+ the image without its negative voxels, e starts as f+ and each iteration sets e <- e h(f+ / h(e)), where h
    is the blur by the PSF. This is the expectation-maximisation algorithm for Poisson data: each iteration raises the
    likelihood and keeps the total of f+. Noise grows with the iterations; 10 is PETPVC's default.

    Args:
        image: PET, any unit.
        fwhm_mm: the PSF's full width at half maximum, one number or one along each axis.
        spacing_mm: voxel size, one number or one along each axis.
        kernel: ``exact``, or ``itk`` for PETPVC's truncated Gaussian.
        n_iterations: how many iterations to run.

    Raises:
        ValueError: a voxel is NaN or infinite, or the FWHM is missing, zero or NaN.

    Reference:
        Richardson, J Opt Soc Am 62:55, 1972; Lucy, Astron J 79:745, 1974; for PET in Erlandsson et al.,
        Phys Med Biol 57:R119, 2012.
    """
    image, fwhm = checked_image(image), checked_fwhm(fwhm_mm)

    def seen(volume: Any) -> Any:
        return blur(volume, fwhm_mm=fwhm, spacing_mm=spacing_mm, kernel=kernel)

    return iterate_richardson_lucy(image.clip(min=0), seen, n_iterations=n_iterations)


def iterate_richardson_lucy(measured: Any, seen: Callable[[Any], Any], *, n_iterations: int) -> Any:
    """Richardson-Lucy for any blur ``seen`` that is its own adjoint; the measured image has no negative voxel."""
    empty = EMPTY_FRACTION * float(measured.max())
    estimate = measured
    for _ in range(checked_iterations(n_iterations)):
        factors = seen(ratio(measured, seen(estimate), floor=empty, otherwise=0.0))
        factors *= estimate
        estimate = factors
    return estimate
