"""What every correction asks of its arguments, said once."""

from __future__ import annotations

from typing import Any

import numpy as np

from ctrestore.psf import Kernel, Scalars, namespace, per_axis


def checked_image(image: Any) -> Any:
    """The image as float32 ``(x, y, z)``: a numpy array, or a tensor if it is one.

    Raises:
        ValueError: it is not three-dimensional, or holds a voxel that is not a finite float32.
    """
    xp = namespace(image)
    image = np.asarray(image) if xp is np else image
    if image.ndim != 3:
        raise ValueError(
            f"Expected one volume (x, y, z); got an array of shape {tuple(image.shape)}. "
            "Usual cause: a dynamic scan or a channel axis. Correct each frame by itself."
        )
    with np.errstate(over="ignore"):  # a value beyond float32 becomes inf, which is reported below
        image = image.astype(np.float32, copy=False) if xp is np else image.float()
    n_bad = int((~xp.isfinite(image)).sum())
    if n_bad:
        raise ValueError(
            f"Expected finite voxels; {n_bad} of {np.prod(image.shape)} are NaN or infinite in float32. "
            "Usual cause: a division by zero or a mask stored as NaN in an earlier step. Replace them, say by 0."
        )
    return image


def checked_fwhm(fwhm_mm: Scalars | None) -> tuple[float, ...]:
    """FWHM along x, y and z in mm, all of them positive.

    Raises:
        ValueError: one is missing, zero, negative or NaN: a deconvolution has to know the PSF.
    """
    fwhm = per_axis(np.nan if fwhm_mm is None else fwhm_mm, name="fwhm_mm")
    if min(fwhm) == 0:
        raise ValueError(
            f"fwhm_mm must be greater than 0 along every axis to undo a blur; got {fwhm_mm!r}. "
            "Usual cause: a sidecar without FWHM_x, FWHM_y, FWHM_z. Pass the scanner's resolution in mm."
        )
    return fwhm


def checked_iterations(n_iterations: int) -> int:
    """The number of iterations, at least one."""
    if n_iterations < 1:
        raise ValueError(f"n_iterations must be 1 or more; got {n_iterations!r}.")
    return int(n_iterations)


def checked_psf(*, fwhm_mm: Scalars | None, spacing_mm: Scalars, kernel: Kernel) -> dict[str, Any]:
    """The keyword arguments of :func:`ctrestore.psf.blur` for a PSF that is to be undone.

    Raises:
        ValueError: as :func:`checked_fwhm`.
    """
    return {"fwhm_mm": checked_fwhm(fwhm_mm), "spacing_mm": spacing_mm, "kernel": kernel}
