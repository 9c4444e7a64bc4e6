"""Labbé's region means: the GTM's question, answered by least squares over every voxel."""

from __future__ import annotations

from typing import Any

import numpy as np

from ctrestore.psf import Kernel, Scalars, blur
from ctrestore.pvc.gtm import seen_totals, solve, transfer_matrix
from ctrestore.pvc.regions import Regions
from ctrestore.pvc.validation import checked_image, checked_psf


def labbe(
    image: Any, regions: Regions, *, fwhm_mm: Scalars | None, spacing_mm: Scalars, kernel: Kernel = "exact"
) -> np.ndarray:
    """Mean activity of every region by least squares: ``(region,)``, float64.

    The T that minimise || f - sum_i T_i h(m_i) ||^2, from the normal equations <h(m_i), h(m_j)> T = <h(m_i), f>. The
    blur being its own adjoint, these are the GTM's equations for the image blurred once more and a PSF applied twice.
    Voxels at the edge of a region weigh less than in :func:`ctrestore.pvc.gtm`, noise and small errors of the masks
    too.

    Args:
        image: PET ``(x, y, z)``, any unit.
        regions: on the image's grid.
        fwhm_mm: the PSF's full width at half maximum, one number or one along each axis.
        spacing_mm: voxel size, one number or one along each axis.
        kernel: ``exact``, or ``itk`` for PETPVC's truncated Gaussian.

    Raises:
        ValueError: as :func:`ctrestore.pvc.gtm` does.

    Reference:
        Labbé et al., in Quantitative Functional Brain Imaging with PET, 1998; Sattarivand et al., Phys Med Biol
        57:7101, 2012 (symmetric GTM).
    """
    psf = checked_psf(fwhm_mm=fwhm_mm, spacing_mm=spacing_mm, kernel=kernel)
    image = regions.on_grid(checked_image(image))
    seen = regions.sums(blur(image, **psf, adjoint=True)) / seen_totals(regions, **psf)
    return solve(transfer_matrix(regions, **psf, reblurred=True), seen, regions, fwhm_mm=fwhm_mm)
