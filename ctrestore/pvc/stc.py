"""Single-target correction (STC): every region is the target once, its neighbours taken from the image itself."""

from __future__ import annotations

from typing import Any

from ctrestore.psf import Kernel, Scalars, blur, namespace, reach_voxels
from ctrestore.pvc.gtm import grown
from ctrestore.pvc.ratio import ratio
from ctrestore.pvc.regions import Regions
from ctrestore.pvc.validation import checked_image, checked_iterations, checked_psf

# Below this share of its own activity a voxel's region is too thin for the PSF to be corrected voxel by voxel.
SMALLEST_RECOVERY = 1e-3


def stc(
    image: Any,
    regions: Regions,
    *,
    fwhm_mm: Scalars | None,
    spacing_mm: Scalars,
    kernel: Kernel = "exact",
    n_iterations: int = 10,
) -> Any:
    """The whole image corrected: ``(x, y, z)``, float32.

    Each round takes from the image what the present estimate e spills from other regions, and divides by the region's
    own recovery: e <- [f - sum_j (1 - m_j) h(m_j e+)] / sum_j m_j h(m_j). No region is assumed uniform but in the
    recovery. The formula is PETPVC's, which takes label maps alone; here soft masks will do.

    Args:
        image: PET ``(x, y, z)``, any unit.
        regions: on the image's grid.
        fwhm_mm: the PSF's full width at half maximum, one number or one along each axis.
        spacing_mm: voxel size, one number or one along each axis.
        kernel: ``exact``, or ``itk`` for PETPVC's truncated Gaussian.
        n_iterations: rounds.

    Raises:
        ValueError: a voxel is NaN or infinite, the FWHM is missing or zero, or the grids differ.

    Reference:
        Erlandsson and Hutton, J Nucl Med 55 (suppl 1):2123, 2014; Sari et al., J Cereb Blood Flow Metab 37:1398, 2017.
    """
    image, psf = checked_image(image), checked_psf(fwhm_mm=fwhm_mm, spacing_mm=spacing_mm, kernel=kernel)
    zeros = namespace(image).zeros_like
    reach = list(reach_voxels(**psf))
    boxes = [grown(box, reach, regions.shape) for box in regions.boxes()]
    recovery = zeros(image)
    for region, box in enumerate(boxes):
        mask = regions.mask(region, box)
        recovery[box] += mask * blur(mask, **psf)
    estimate = regions.on_grid(image)
    for _ in range(checked_iterations(n_iterations)):
        estimate = estimate.clip(min=0)
        spilled = zeros(image)
        for region, box in enumerate(boxes):
            mask = regions.mask(region, box)
            spilled[box] += (1 - mask) * blur(mask * estimate[box], **psf)
        estimate = ratio(image - spilled, recovery, floor=SMALLEST_RECOVERY, otherwise=0.0)
    return estimate
