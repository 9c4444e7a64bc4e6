"""Richardson-Lucy deconvolution with the scanner's Gaussian PSF."""

from __future__ import annotations

import numpy as np

from ctrestore.psf import Scalars, blur
from ctrestore.pvc.validation import checked_fwhm, checked_image, checked_iterations

# Where the blurred estimate is below this share of the image's maximum there is nothing to correct, and the ratio of
# two nearly empty voxels would only amplify rounding.
EMPTY_FRACTION = 1e-6


def richardson_lucy(
    image: np.ndarray, *, fwhm_mm: Scalars | None, spacing_mm: Scalars, n_iterations: int = 10
) -> np.ndarray:
    """The image deconvolved (Richardson-Lucy, RL): ``(x, y, z)``, float32, never negative, same total.

    With f+ the image without its negative voxels, e starts as f+ and each iteration sets e <- e h(f+ / h(e)), where h
    is the blur by the PSF. This is the expectation-maximisation algorithm for Poisson data: each iteration raises the
    likelihood and keeps the total of f+. Noise grows with the iterations; 10 is PETPVC's default.

    Args:
        image: PET, any unit.
        fwhm_mm: the PSF's full width at half maximum, one number or one along each axis.
        spacing_mm: voxel size, one number or one along each axis.
        n_iterations: how many iterations to run.

    Raises:
        ValueError: a voxel is NaN or infinite, or the FWHM is missing, zero or NaN.

    Reference:
        Richardson, J Opt Soc Am 62:55, 1972; Lucy, Astron J 79:745, 1974; for PET in Erlandsson et al.,
        Phys Med Biol 57:R119, 2012.
    """
    measured = np.maximum(checked_image(image), 0)
    fwhm = checked_fwhm(fwhm_mm)
    empty = EMPTY_FRACTION * measured.max(initial=0)
    estimate = measured.copy()
    for _ in range(checked_iterations(n_iterations)):
        expected = blur(estimate, fwhm_mm=fwhm, spacing_mm=spacing_mm)
        ratio = np.divide(measured, expected, out=np.zeros_like(measured), where=expected > empty)
        estimate *= blur(ratio, fwhm_mm=fwhm, spacing_mm=spacing_mm)
    return estimate
