"""The median of 5 x 5 pixels around each pixel, exact and several times faster than scipy's.

Merging networks (Batcher, "Sorting networks and their applications", AFIPS 1968) of minima and maxima work on whole
images at once, and neighbours share them: each column of five pixels is sorted once, not in five windows, and each pair
of columns is merged once.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

ROWS_AT_ONCE = 32  # of 512 pixels in float32: the twenty such strips in use stay in the cache of a core


def median_5x5(image: np.ndarray) -> np.ndarray:
    """Like ``scipy.ndimage.median_filter(image, size=5)``, to the last bit: beyond its edges the image is mirrored.

    Args:
        image: ``(y, x)`` of any type with an order, without NaN.

    >>> median_5x5(np.array([[0, 0, 9, 0, 0]]))
    array([[0, 0, 0, 0, 0]])
    """
    image = np.asarray(image)
    if image.ndim != 2:
        raise ValueError(f"expected an image (y, x), got shape {image.shape}.")
    mirrored = np.pad(np.ascontiguousarray(image), 2, mode="symmetric")
    strips = range(0, image.shape[0], ROWS_AT_ONCE)
    return np.concatenate([_medians(mirrored[start : start + ROWS_AT_ONCE + 4]) for start in strips])


def _medians(mirrored: np.ndarray) -> np.ndarray:
    """The medians of an image that has two extra pixels on each side."""
    height, width = mirrored.shape[0] - 4, mirrored.shape[1] - 4
    columns = _sorted([mirrored[k : k + height] for k in range(5)])
    pairs = _merged([c[:, :-1] for c in columns], [c[:, 1:] for c in columns])
    four = _merged([p[:, :width] for p in pairs], [p[:, 2 : 2 + width] for p in pairs])
    # Of 20 values only these can be the 13th of 25: 7 are below them, and the fifth column has 5.
    candidates, fifth = four[7:13], [c[:, 4:] for c in columns]
    # The k-th of two sorted lists is the least of the maxima of the i-th of one and the (k - i)-th of the other.
    median = candidates[5]
    for low, high in zip(candidates[:5], fifth[::-1]):
        median = np.minimum(median, np.maximum(low, high))
    return median


def _sorted(images: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Images of one shape sorted pixel by pixel, the smallest values first."""
    half = len(images) // 2
    return _merged(_sorted(images[:half]), _sorted(images[half:])) if half else list(images)


def _merged(one: list[np.ndarray], other: list[np.ndarray]) -> list[np.ndarray]:
    """Two sorted lists merged into one: the values at even and at odd places are merged, then neighbours compared."""
    if not one or not other:
        return one + other
    if len(one) == len(other) == 1:
        return [np.minimum(one[0], other[0]), np.maximum(one[0], other[0])]
    even, odd = _merged(one[::2], other[::2]), _merged(one[1::2], other[1::2])
    merged = even[:1]
    for low, high in zip(odd, even[1:]):
        merged += [np.minimum(low, high), np.maximum(low, high)]
    return merged + even[1 + len(odd) :] + odd[len(even) - 1 :]
