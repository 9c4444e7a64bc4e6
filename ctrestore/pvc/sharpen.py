"""Sharpening by unsharp masking: the control that shows whether a correction does more than sharpen."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ctrestore.pvc.validation import checked_image

#: Fitted on one phantom to lose as much as the sharpened row of the table in
#: https://github.com/wjh1065/Partial-Volume-Effect-Correction-Algorithm-from-PET-scan, which does not say its values.
FITTED_SHARPENING: Mapping[str, float] = {"pre_sigma_voxels": 0.7, "sharpen_sigma_voxels": 0.5, "alpha": 1.0}

#: The values printed in the SciPy lectures, chosen there for a photograph; far too strong for PET.
LECTURES_SHARPENING: Mapping[str, float] = {"pre_sigma_voxels": 3.0, "sharpen_sigma_voxels": 1.0, "alpha": 30.0}


def sharpen(
    image: np.ndarray,
    *,
    pre_sigma_voxels: float = FITTED_SHARPENING["pre_sigma_voxels"],
    sharpen_sigma_voxels: float = FITTED_SHARPENING["sharpen_sigma_voxels"],
    alpha: float = FITTED_SHARPENING["alpha"],
) -> np.ndarray:
    """The image smoothed, plus ``alpha`` times what a second smoothing takes away from it. ``(x, y, z)``, float32.

    With b = gauss(image) the result is b + alpha (b - gauss(b)). The widths are in voxels, as in the recipe, which
    knows no PSF. Values below zero are kept.

    Reference:
        Scientific Python Lectures, "Image manipulation and processing using NumPy and SciPy", section Sharpening.

    >>> flat = np.full((8, 8, 8), 5.0, dtype=np.float32)
    >>> np.allclose(sharpen(flat, **LECTURES_SHARPENING), 5.0)
    True
    """
    if not (pre_sigma_voxels >= 0 and sharpen_sigma_voxels >= 0):
        raise ValueError(
            f"Expected widths in voxels, none of them negative; got pre_sigma_voxels={pre_sigma_voxels!r}, "
            f"sharpen_sigma_voxels={sharpen_sigma_voxels!r}."
        )
    from scipy.ndimage import gaussian_filter  # half a second that the other corrections need not wait for

    smooth = gaussian_filter(checked_image(image), pre_sigma_voxels)
    return smooth + np.float32(alpha) * (smooth - gaussian_filter(smooth, sharpen_sigma_voxels))
