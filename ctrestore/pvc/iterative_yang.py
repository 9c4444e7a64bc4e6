"""Iterative Yang (IY): region means and correction in turns, without a transfer matrix."""

from __future__ import annotations

from typing import Any

import numpy as np

from ctrestore.psf import Kernel, Scalars, reach_voxels
from ctrestore.pvc.rbv import spill_factors
from ctrestore.pvc.regions import Regions
from ctrestore.pvc.validation import checked_image, checked_iterations, checked_psf


def iterative_yang(
    image: Any,
    regions: Regions,
    *,
    fwhm_mm: Scalars | None,
    spacing_mm: Scalars,
    kernel: Kernel = "exact",
    n_iterations: int = 10,
) -> Any:
    """The whole image corrected: ``(x, y, z)``, float32.

    Each round takes the regions' means in the image corrected so far, paints s with them and sets the estimate to
    f s / h(s). Means of soft regions are freed from what they share with each other (:meth:`Regions.unmix`).

    Args:
        image: PET ``(x, y, z)``, any unit.
        regions: on the image's grid.
        fwhm_mm: the PSF's full width at half maximum, one number or one along each axis.
        spacing_mm: voxel size, one number or one along each axis.
        kernel: ``exact``, or ``itk`` for PETPVC's truncated Gaussian.
        n_iterations: rounds; 10 come within 1 % of the end for regions of some size.

    Raises:
        ValueError: a voxel is NaN or infinite, the FWHM is missing or zero, or the grids differ.

    Reference:
        Erlandsson et al., Phys Med Biol 57:R119, 2012.
    """
    image, psf = checked_image(image), checked_psf(fwhm_mm=fwhm_mm, spacing_mm=spacing_mm, kernel=kernel)
    image = regions.on_grid(image)
    box = regions.active_box(reach_voxels(**psf))
    inner, seen = regions.crop(box), image[box]
    outside, estimate = regions.sums(image) - inner.sums(seen), seen  # outside the box nothing changes
    means = regions.means(image)
    for _ in range(checked_iterations(n_iterations)):
        sums = inner.sums(estimate) + outside * (means[regions.outermost] > 0)
        means = regions.unmix(np.maximum(sums / regions.totals(), 0))
        estimate = spill_factors(means, inner, **psf)
        estimate *= seen
    corrected = image * float(means[regions.outermost] > 0)
    corrected[box] = estimate
    return corrected
