"""What every correction asks of its arguments, said once."""

from __future__ import annotations

import numpy as np

from ctrestore.psf import Scalars, per_axis


def checked_image(image: np.ndarray) -> np.ndarray:
    """The image as float32 ``(x, y, z)``.

    Raises:
        ValueError: it is not three-dimensional, or holds a voxel that is not a finite float32.
    """
    image = np.asarray(image)
    if image.ndim != 3:
        raise ValueError(
            f"Expected one volume (x, y, z); got an array of shape {image.shape}. "
            "Usual cause: a dynamic scan or a channel axis. Correct each frame by itself."
        )
    with np.errstate(over="ignore"):  # a value beyond float32 becomes inf, which is reported below
        image = image.astype(np.float32)
    n_bad = image.size - int(np.count_nonzero(np.isfinite(image)))
    if n_bad:
        raise ValueError(
            f"Expected finite voxels; {n_bad} of {image.size} are NaN or infinite in float32. "
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
