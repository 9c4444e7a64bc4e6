"""Parcels fitted to the grey matter of a head, so that the transfer matrix can tell them apart."""

from __future__ import annotations

import numpy as np

from ctrestore.psf import Scalars, per_axis
from ctrestore.pvc.regions import bounds

# Grey matter so near to a parcel is its blurred rim; farther away it is another structure (a cerebellum, say).
RIM_MM = 4.0


def fit_parcels(parcels: np.ndarray, grey: np.ndarray, *, fwhm_mm: Scalars, spacing_mm: Scalars) -> np.ndarray:
    """Parcels ``(x, y, z)`` that share out the grey matter, each large enough for the PSF; 0: grey matter far from any.

    Grey matter is a soft map and reaches beyond the hard edges of an atlas. Left to itself, this rim would be a region
    of thin shells that no GTM can resolve, so it joins the parcel next to it. An atlas also labels white matter and
    ventricles: parcels with less grey matter than one resolution element (the volume of FWHM x FWHM x FWHM) become 0;
    and so little grey matter outside all parcels goes to the largest of them.

    Args:
        parcels: whole numbers, 0 being no parcel.
        grey: fraction of grey matter, same shape.
        fwhm_mm: of the PSF, one number or one along each axis.
        spacing_mm: voxel size, one number or one along each axis.

    >>> parcels, grey = np.zeros((1, 1, 9), dtype=int), np.ones((1, 1, 9))
    >>> parcels[..., 1:4], parcels[..., 8] = 3, 5
    >>> fit_parcels(parcels, grey, fwhm_mm=4.0, spacing_mm=3.0)  # the one voxel of 5 is too little, the rim joins 3
    array([[[3, 3, 3, 3, 3, 0, 0, 0, 0]]])
    """
    from scipy.ndimage import maximum_filter  # the import takes a tenth of a second, and most methods do without

    spacing = per_axis(spacing_mm, name="spacing_mm")
    if not grey.any():
        return np.zeros_like(parcels)
    smallest_voxels = float(np.prod(per_axis(fwhm_mm, name="fwhm_mm")) / np.prod(spacing))
    box = bounds(grey > 0)
    # Files are read in Fortran's order: the transposed views are contiguous, and twice as fast.
    inside, weights = np.ascontiguousarray(parcels[box].T), np.ascontiguousarray(grey[box].T)
    totals = np.bincount(inside.ravel(), weights=weights.ravel())
    numbers: np.ndarray = np.where(totals < smallest_voxels, 0, np.arange(totals.size))
    numbers = numbers.astype(_smallest_type(totals.size))
    inside = numbers[inside]
    for _ in range(max(1, round(RIM_MM / float(np.prod(spacing)) ** (1 / 3)))):
        free = (inside == 0) & (weights > 0)
        if not free.any():
            break
        inside = np.where(free, maximum_filter(inside, size=3, mode="nearest"), inside)
    totals = np.bincount(inside.ravel(), weights=weights.ravel())
    if 0 < totals[0] < smallest_voxels:
        inside[(inside == 0) & (weights > 0)] = 1 + int(np.argmax(totals[1:])) if totals.size > 1 else 0
    fitted = np.zeros_like(parcels)
    fitted[box] = inside.T
    return fitted


def _smallest_type(n: int) -> type:
    """The narrowest integer for numbers below n: filters take their time by the byte."""
    return np.uint8 if n <= 256 else np.uint16 if n <= 65536 else np.int32
