"""Contrast to noise of a lesion against its surroundings."""

from __future__ import annotations

import numpy as np


def contrast_to_noise(image: np.ndarray, lesion: np.ndarray, background: np.ndarray) -> float:
    """Absolute difference of the means divided by the background's standard deviation.

    It looks at single pixels: smoothing raises it even if the lesion does not become easier to find, and a large
    lesion is visible at a lower value than a small one. For an observer's gain see :func:`channelized_hotelling`.

    Args:
        image: HU, any shape.
        lesion: boolean mask.
        background: boolean mask of uniform tissue next to the lesion.

    Raises:
        ValueError: a mask is not boolean, is empty or not on the image's grid, or the background does not vary.

    >>> image = np.array([60.0, 60.0, 38.0, 42.0])
    >>> contrast_to_noise(image, image > 50, image < 50)
    10.0
    """
    image = np.asarray(image, dtype=np.float64)
    for name, mask in (("lesion", lesion), ("background", background)):
        if mask.dtype != bool or mask.shape != image.shape or not mask.any():
            raise ValueError(
                f"{name} must be a boolean mask {image.shape} with a pixel in it; got {mask.dtype} {mask.shape}, "
                f"{np.count_nonzero(mask)} set."
            )
    noise = image[background].std()
    if not noise > 0:
        raise ValueError(
            "the background does not vary, so contrast to noise is infinite. Usual cause: a noise-free image."
        )
    return float(abs(image[lesion].mean() - image[background].mean()) / noise)
