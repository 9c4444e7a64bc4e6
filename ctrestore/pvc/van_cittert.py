"""Reblurred Van Cittert deconvolution with the scanner's Gaussian PSF."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from ctrestore.psf import Kernel, Scalars, blur
from ctrestore.pvc.regions import dot
from ctrestore.pvc.validation import checked_fwhm, checked_image, checked_iterations


def reblurred_van_cittert(
    image: Any,
    *,
    fwhm_mm: Scalars | None,
    spacing_mm: Scalars,
    kernel: Kernel = "exact",
    alpha: float = 1.5,
    n_iterations: int = 30,
    stop: float = 0.01,
) -> Any:
    """The image deconvolved (reblurred Van Cittert, RVC): ``(x, y, z)``, float32, never negative.

    With f the image, e starts as f and each iteration sets e <- max(0, e + alpha h(f - h(e))), where h is the blur by
    the PSF: projected gradient descent on ||f - h(e)||^2 / 2. A detail that the PSF passes with gain g approaches its
    true size by a factor (1 - alpha g^2) an iteration, so fine detail comes last and stopping early holds noise down.

    Args:
        image: PET, any unit.
        fwhm_mm: the PSF's full width at half maximum, one number or one along each axis.
        spacing_mm: voxel size, one number or one along each axis.
        kernel: ``exact``, or ``itk`` for PETPVC's truncated Gaussian.
        alpha: step size, above 0 and below 2, where the iteration begins to diverge.
        n_iterations: the most iterations to run.
        stop: end once ||e_new - e|| / ||f|| falls below it; 0 runs all iterations. The defaults are PETPVC's.

    Raises:
        ValueError: a voxel is NaN or infinite, the FWHM is missing, zero or NaN, or alpha does not converge.

    Reference:
        Tohka and Reilhac, NeuroImage 39:1570, 2008; Thomas et al. (PETPVC), Phys Med Biol 61:7975, 2016.
    """
    image, fwhm = checked_image(image), checked_fwhm(fwhm_mm)

    def seen(volume: Any, times: int = 1) -> Any:
        return blur(volume, fwhm_mm=fwhm, spacing_mm=spacing_mm, kernel=kernel, times=times)

    return iterate_van_cittert(
        image, seen, seen_twice=partial(seen, times=2), alpha=alpha, n_iterations=n_iterations, stop=stop
    )


def iterate_van_cittert(
    measured: Any,
    seen: Callable[[Any], Any],
    *,
    alpha: float,
    n_iterations: int,
    stop: float,
    seen_twice: Callable[[Any], Any] | None = None,
) -> Any:
    """Reblurred Van Cittert for any blur ``seen`` that is its own adjoint.

    As h is linear, h(f - h(e)) = h(f) - h(h(e)): the first term is the same in all iterations, and where h is a
    Gaussian the second takes one blur.

    Args:
        measured: f, the image.
        seen: h.
        alpha: step size.
        n_iterations: the most iterations.
        stop: relative change to end at.
        seen_twice: h(h(.)), if there is a faster way to it.

    Raises:
        ValueError: alpha does not converge.
    """
    if not 0 < alpha < 2:
        raise ValueError(f"alpha must lie between 0 and 2, else the iteration stands still or diverges; got {alpha!r}.")
    smallest_step = stop**2 * dot(measured, measured)
    estimate, once_blurred = measured * 1.0, seen(measured)
    for _ in range(checked_iterations(n_iterations)):
        # In place: at this size fresh memory costs as much as the arithmetic.
        updated = seen_twice(estimate) if seen_twice is not None else seen(seen(estimate))
        updated -= once_blurred
        updated *= -alpha
        updated += estimate
        updated *= updated > 0
        estimate -= updated
        change, estimate = dot(estimate, estimate), updated
        if change < smallest_step:
            break
    return estimate
