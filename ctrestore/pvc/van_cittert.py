"""Reblurred Van Cittert deconvolution with the scanner's Gaussian PSF."""

from __future__ import annotations

import numpy as np

from ctrestore.psf import Scalars, blur
from ctrestore.pvc.validation import checked_fwhm, checked_image, checked_iterations


def reblurred_van_cittert(
    image: np.ndarray,
    *,
    fwhm_mm: Scalars | None,
    spacing_mm: Scalars,
    alpha: float = 1.5,
    n_iterations: int = 30,
    stop: float = 0.01,
) -> np.ndarray:
    """The image deconvolved (reblurred Van Cittert, RVC): ``(x, y, z)``, float32, never negative.

    With f the image, e starts as f and each iteration sets e <- max(0, e + alpha h(f - h(e))), where h is the blur by
    the PSF: projected gradient descent on ||f - h(e)||^2 / 2. A detail that the PSF passes with gain g approaches its
    true size by a factor (1 - alpha g^2) an iteration, so fine detail comes last and stopping early holds noise down.

    Args:
        image: PET, any unit.
        fwhm_mm: the PSF's full width at half maximum, one number or one along each axis.
        spacing_mm: voxel size, one number or one along each axis.
        alpha: step size, above 0 and below 2, where the iteration begins to diverge.
        n_iterations: the most iterations to run.
        stop: end once ||e_new - e|| / ||f|| falls below it; 0 runs all iterations. The defaults are PETPVC's.

    Raises:
        ValueError: a voxel is NaN or infinite, the FWHM is missing, zero or NaN, or alpha does not converge.

    Reference:
        Tohka and Reilhac, NeuroImage 39:1570, 2008; Thomas et al. (PETPVC), Phys Med Biol 61:7975, 2016.
    """
    if not 0 < alpha < 2:
        raise ValueError(f"alpha must lie between 0 and 2, else the iteration stands still or diverges; got {alpha!r}.")
    measured = checked_image(image)
    fwhm = checked_fwhm(fwhm_mm)
    smallest_step = stop * _norm(measured)
    estimate = measured
    for _ in range(checked_iterations(n_iterations)):
        residual = measured - blur(estimate, fwhm_mm=fwhm, spacing_mm=spacing_mm)
        step = blur(residual, fwhm_mm=fwhm, spacing_mm=spacing_mm)
        previous, estimate = estimate, np.maximum(estimate + np.float32(alpha) * step, 0)
        if _norm(estimate - previous) < smallest_step:
            break
    return estimate


def _norm(volume: np.ndarray) -> float:
    return float(np.sqrt(np.sum(np.square(volume), dtype=np.float64)))
