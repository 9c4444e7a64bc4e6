"""Yang's voxel-wise correction: from a synthetic image of the truth back to the measured one."""

from __future__ import annotations

from typing import Any

from ctrestore.psf import Kernel, Scalars, blur, namespace
from ctrestore.pvc.ratio import ratio
from ctrestore.pvc.validation import checked_fwhm, checked_image, checked_iterations

# Voxels whose blurred synthetic activity is below this share of the maximum are air; their ratio is noise over nothing.
EMPTY_FRACTION = 1e-3
# A factor beyond these says that the synthetic image is wrong there, not that the measured one is.
LARGEST_FACTOR = 2.0


def yang(
    image: Any,
    synthetic: Any,
    *,
    fwhm_mm: Scalars | None,
    spacing_mm: Scalars,
    kernel: Kernel = "exact",
    n_steps: int = 1,
) -> Any:
    """The synthetic image times what the measured one says it lacks: ``(x, y, z)``, float32.

    s <- s f / h(s), f being the image, s the synthetic one and h the blur by the PSF: where the synthetic image,
    blurred, explains the measured one, nothing changes. With a synthetic image of region means this is the last step
    of RBV; here any estimate of the truth will do. Factors are limited to 1/2..2, so it has to be in the unit of the
    image.

    Args:
        image: PET, any unit.
        synthetic: estimate of the true activity, not negative, same shape.
        fwhm_mm: the PSF's full width at half maximum, one number or one along each axis.
        spacing_mm: voxel size, one number or one along each axis.
        kernel: ``exact``, or ``itk`` for PETPVC's truncated Gaussian.
        n_steps: how often; noise grows with it.

    Raises:
        ValueError: shapes differ, a voxel is NaN or infinite, or the FWHM is missing, zero or NaN.

    Reference:
        Yang et al., IEEE Trans Nucl Sci 43(6), 1996; Thomas et al., Eur J Nucl Med Mol Imaging 38:1104, 2011.
    """
    measured = checked_image(image).clip(min=0)
    estimate = checked_image(synthetic).clip(min=0)
    if estimate.shape != measured.shape:
        raise ValueError(
            f"the synthetic image has {tuple(estimate.shape)} voxels, the PET {tuple(measured.shape)}. Remedy: "
            "resample one of them."
        )
    fwhm, xp = checked_fwhm(fwhm_mm), namespace(measured)
    for _ in range(checked_iterations(n_steps)):
        expected = blur(estimate, fwhm_mm=fwhm, spacing_mm=spacing_mm, kernel=kernel)
        factors = ratio(measured, expected, floor=EMPTY_FRACTION * float(expected.max()), otherwise=1.0)
        xp.clip(factors, 1 / LARGEST_FACTOR, LARGEST_FACTOR, out=factors)
        factors *= estimate
        estimate = factors
    return estimate
