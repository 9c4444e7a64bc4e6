"""Region-based voxel-wise correction (RBV): the means of the GTM, with the image's own detail inside the regions."""

from __future__ import annotations

from typing import Any

import numpy as np

from ctrestore.psf import Kernel, Scalars, blur, reach_voxels
from ctrestore.pvc.gtm import gtm
from ctrestore.pvc.ratio import ratio
from ctrestore.pvc.regions import Regions
from ctrestore.pvc.validation import checked_image, checked_psf

# The synthetic image holds no activity where its blurred version is below this share of its largest mean.
EMPTY_FRACTION = 1e-6


def rbv(
    image: Any,
    regions: Regions,
    *,
    fwhm_mm: Scalars | None,
    spacing_mm: Scalars,
    kernel: Kernel = "exact",
    means: np.ndarray | None = None,
) -> Any:
    """The whole image corrected: f s / h(s), with s the regions painted with their true means. ``(x, y, z)``, float32.

    Args:
        image: PET ``(x, y, z)``, any unit.
        regions: on the image's grid.
        fwhm_mm: the PSF's full width at half maximum, one number or one along each axis.
        spacing_mm: voxel size, one number or one along each axis.
        kernel: ``exact``, or ``itk`` for PETPVC's truncated Gaussian.
        means: of the regions; by default those of the GTM. A negative one counts as zero, and so does the image where
            nothing but such regions is seen.

    Raises:
        ValueError: as :func:`ctrestore.pvc.gtm` does.

    Reference:
        Thomas et al., Eur J Nucl Med Mol Imaging 38:1104, 2011.
    """
    image, psf = checked_image(image), checked_psf(fwhm_mm=fwhm_mm, spacing_mm=spacing_mm, kernel=kernel)
    image = regions.on_grid(image)
    means = gtm(image, regions, **psf) if means is None else means
    box = regions.active_box(reach_voxels(**psf))
    corrected = image * float(means[regions.outermost] > 0)
    corrected[box] = image[box] * spill_factors(means, regions.crop(box), **psf)
    return corrected


def spill_factors(
    means: np.ndarray, regions: Regions, *, fwhm_mm: Scalars, spacing_mm: Scalars, kernel: Kernel = "exact"
) -> Any:
    """The true value over the one seen, s / h(s), by voxel, for regions of these means; ``(x, y, z)``."""
    synthetic = regions.paint(np.maximum(means, 0))
    expected = blur(synthetic, fwhm_mm=fwhm_mm, spacing_mm=spacing_mm, kernel=kernel)
    return ratio(synthetic, expected, floor=EMPTY_FRACTION * max(float(np.max(means)), 0.0), otherwise=0.0)
