"""Single-target correction (STC): every region is the target once, its neighbours taken from the image itself."""

from __future__ import annotations

from typing import Any

from ctrestore.psf import Kernel, Scalars, blur, namespace, reach_voxels
from ctrestore.pvc.ratio import ratio
from ctrestore.pvc.regions import Regions, grown
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
    image = regions.on_grid(image)
    reach = reach_voxels(**psf)
    active = regions.active_box(reach)
    inner, seen = regions.crop(active), image[active]
    boxes = [grown(box, reach, inner.shape) for box in inner.boxes()]
    masks = [(box, inner.mask(region, box)) for region, box in enumerate(boxes)]
    recovery = namespace(image).zeros_like(seen)
    for box, mask in masks:
        recovery[box] += mask * blur(mask, **psf)
    estimate = seen
    for _ in range(checked_iterations(n_iterations)):
        estimate = estimate.clip(min=0)
        rest = seen * 1.0
        for box, mask in masks:
            rest[box] -= (1 - mask) * blur(mask * estimate[box], **psf)
        estimate = ratio(rest, recovery, floor=SMALLEST_RECOVERY, otherwise=0.0)
    corrected = image * 1.0  # outside the active box one region is alone, and keeps what is seen
    corrected[active] = estimate
    return corrected
