"""Multi-target correction (MTC): in every region take away what the others spill in, then undo the spill-out."""

from __future__ import annotations

from typing import Any

import numpy as np

from ctrestore.psf import Kernel, Scalars, blur, namespace, reach_voxels
from ctrestore.pvc.gtm import gtm
from ctrestore.pvc.ratio import ratio
from ctrestore.pvc.regions import Regions, grown
from ctrestore.pvc.validation import checked_image, checked_psf

# Where a blurred mask is below this, the mask is too: nothing of the region is there to correct.
EMPTY_MASK = 1e-6


def mtc(
    image: Any,
    regions: Regions,
    *,
    fwhm_mm: Scalars | None,
    spacing_mm: Scalars,
    kernel: Kernel = "exact",
    means: np.ndarray | None = None,
) -> Any:
    """The whole image corrected: sum_j m_j [f - h(sum_{i != j} T_i m_i)] / h(m_j). ``(x, y, z)``, float32.

    With s the regions painted with their means T, the bracket is f - h(s) + T_j h(m_j), so that the sum becomes
    s + [f - h(s)] sum_j m_j / h(m_j): one blur for each mask, in its own box, and one for s.

    Args:
        image: PET ``(x, y, z)``, any unit.
        regions: on the image's grid.
        fwhm_mm: the PSF's full width at half maximum, one number or one along each axis.
        spacing_mm: voxel size, one number or one along each axis.
        kernel: ``exact``, or ``itk`` for PETPVC's truncated Gaussian.
        means: of the regions; by default those of the GTM.

    Raises:
        ValueError: as :func:`ctrestore.pvc.gtm` does.

    Reference:
        Erlandsson et al., IEEE Nucl Sci Symp Conf Rec, 2006; Phys Med Biol 57:R119, 2012.
    """
    image, psf = checked_image(image), checked_psf(fwhm_mm=fwhm_mm, spacing_mm=spacing_mm, kernel=kernel)
    image = regions.on_grid(image)
    means = gtm(image, regions, **psf) if means is None else means
    reach = reach_voxels(**psf)
    active = regions.active_box(reach)
    inner = regions.crop(active)
    synthetic = inner.paint(means)
    unexplained = image[active] - blur(synthetic, **psf)
    gains = namespace(image).zeros_like(unexplained)
    for region, tight in enumerate(inner.boxes()):
        # The mask is needed where the region is; its blur there depends on no voxel beyond the reach of the PSF.
        box = grown(tight, reach, inner.shape)
        within = tuple(slice(t.start - b.start, t.stop - b.start) for t, b in zip(tight, box))
        mask = inner.mask(region, box)
        gains[tight] += ratio(mask[within], blur(mask, **psf)[within], floor=EMPTY_MASK, otherwise=0.0)
    gains *= unexplained
    gains += synthetic
    corrected = image * 1.0  # outside the active box one region is alone, and keeps what is seen
    corrected[active] = gains
    return corrected
