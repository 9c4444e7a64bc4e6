"""Parcels fitted to the grey matter of a head, so that the transfer matrix can tell them apart."""

from __future__ import annotations

import numpy as np

from ctrestore.psf import Scalars, per_axis

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
    spacing = per_axis(spacing_mm, name="spacing_mm")
    smallest_voxels = float(np.prod(per_axis(fwhm_mm, name="fwhm_mm")) / np.prod(spacing))
    values = _kept(np.bincount(parcels.ravel(), weights=grey.ravel()), smallest_voxels)
    fitted = values.astype(parcels.dtype)[parcels]
    for _ in range(max(1, round(RIM_MM / float(np.prod(spacing)) ** (1 / 3)))):
        fitted = _grown(fitted, grey)
    rest = float(grey[fitted == 0].sum(dtype=np.float64))
    if 0 < rest < smallest_voxels:
        totals = np.bincount(fitted.ravel(), weights=grey.ravel())
        totals[0] = 0
        fitted[(fitted == 0) & (grey > 0)] = int(np.argmax(totals))
    return fitted


def _kept(totals: np.ndarray, smallest: float) -> np.ndarray:
    """What each parcel becomes, by its number: itself or 0."""
    values = np.arange(totals.size)
    values[totals < smallest] = 0
    return values


def _grown(parcels: np.ndarray, grey: np.ndarray) -> np.ndarray:
    """The parcels, with the grey matter of neighbouring voxels that is in none."""
    from scipy.ndimage import maximum_filter  # the import takes a tenth of a second

    free = (parcels == 0) & (grey > 0)
    if not free.any():
        return parcels
    box = tuple(slice(max(int(line.min()) - 1, 0), int(line.max()) + 2) for line in np.nonzero(free))
    out = parcels.copy()
    out[box] = np.where(free[box], maximum_filter(parcels[box], size=3, mode="nearest"), parcels[box])
    return out
