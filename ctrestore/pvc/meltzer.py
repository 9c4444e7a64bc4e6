"""Meltzer's correction: brain against everything else, for the dilution by CSF."""

from __future__ import annotations

from typing import Any

from ctrestore.psf import Kernel, Scalars, blur
from ctrestore.pvc.muller_gartner import brain_map
from ctrestore.pvc.ratio import ratio
from ctrestore.pvc.regions import Regions, as_mask
from ctrestore.pvc.validation import checked_fwhm, checked_image

# A voxel of which less than this is brain is left out: there the division would show noise.
LEAST_BRAIN = 0.5


def meltzer(image: Any, brain: Any, *, fwhm_mm: Scalars | None, spacing_mm: Scalars, kernel: Kernel = "exact") -> Any:
    """Brain activity per volume of brain tissue: f / h(brain) where the voxel is brain, else 0. ``(x, y, z)``, float32.

    Two compartments: brain (grey and white matter alike) and what has no activity. It undoes what atrophy and CSF
    dilute, and nothing of the exchange between grey and white matter.

    Args:
        image: PET ``(x, y, z)``, any unit.
        brain: fraction of brain tissue, 0..1, same shape.
        fwhm_mm: the PSF's full width at half maximum, one number or one along each axis.
        spacing_mm: voxel size, one number or one along each axis.
        kernel: ``exact``, or ``itk`` for PETPVC's truncated Gaussian.

    Raises:
        ValueError: a voxel is NaN or infinite, the FWHM is missing or zero, or the grids differ.

    Reference:
        Meltzer et al., J Comput Assist Tomogr 14:561, 1990.
    """
    image, brain = checked_image(image), as_mask(brain, "brain", like=image)
    seen = blur(brain, fwhm_mm=checked_fwhm(fwhm_mm), spacing_mm=spacing_mm, kernel=kernel)
    return ratio(image, seen, floor=0.0, otherwise=0.0) * (brain > LEAST_BRAIN)


def in_brain(
    image: Any, regions: Regions, *, fwhm_mm: Scalars | None, spacing_mm: Scalars, kernel: Kernel = "exact"
) -> Any:
    """Meltzer's correction from regions: the brain is grey and white matter, or the only mask there is."""
    return meltzer(image, brain_map(regions), fwhm_mm=fwhm_mm, spacing_mm=spacing_mm, kernel=kernel)
