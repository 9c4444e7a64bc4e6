"""Low resolution: larger pixels with the mean of the area that they cover, and their positions.

A pixel of the coarse image is a block of fine ones. Its centre is that of the block, so the first pixel's centre is
``(factor - 1) / 2`` fine pixels further in than the first fine pixel's: both grids cover the same area. Noise is
added afterwards (:mod:`ctrestore.ct.image_noise`), because a scanner with larger pixels would also have some.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F

from ctrestore.psf import as_float, namespace

STORED_RANGE_HU = (-1024.0, 3071.0)  # 12 bits with the usual intercept

Method = Literal["mean", "bicubic"]


def lower_resolution(hu: Any, *, factors: Sequence[int], method: Method = "mean") -> Any:
    """The image on larger pixels: HU clipped to -1024..3071, then the mean of each block.

    Args:
        hu: array or tensor ``(..., *spatial)`` in HU.
        factors: number of fine pixels in a coarse one along each of the last axes: ``(2, 2)`` for slices ``(..., x,
            y)``, ``(2, 2, 1)`` for volumes, ``(1, 1, 4)`` for thicker slices. Incomplete blocks at the end are omitted.
        method: ``mean``, or ``bicubic`` for the antialiasing kernel of Pillow and torch (two equal factors), which is
            usual in papers on photographs.

    Raises:
        ValueError: a factor is not a whole number of 1 or more, the image is smaller than a block, or the method is
            unknown.
    """
    whole, counts = _whole_blocks(as_float(hu), factors)
    clipped = whole.clip(*STORED_RANGE_HU)
    if method == "bicubic":
        return _bicubic(clipped, counts, factors)
    if method != "mean":
        raise ValueError(f"method is 'mean' or 'bicubic'; got {method!r}.")
    split = list(clipped.shape[: clipped.ndim - len(counts)])
    first = len(split)
    for n, factor in zip(counts, factors):
        split += [n, int(factor)]
    within = tuple(first + 1 + 2 * axis for axis in range(len(counts)))
    return clipped.reshape(split).mean(within)


def whole_blocks(image: Any, *, factors: Sequence[int]) -> Any:
    """The image without incomplete blocks at the end of its last axes: the part that low resolution uses."""
    return _whole_blocks(image, factors)[0]


def pixels_as_blocks(image: Any, *, factors: Sequence[int]) -> Any:
    """The image on a finer grid, each pixel as a block of its own value: low resolution gives the image again.

    >>> pixels_as_blocks(np.array([[1, 2]]), factors=(2, 2)).tolist()
    [[1, 1, 2, 2], [1, 1, 2, 2]]
    """
    xp = namespace(image)
    for axis, factor in enumerate(factors, start=image.ndim - len(factors)):
        if factor != 1:
            image = xp.repeat(image, factor, axis=axis) if xp is np else image.repeat_interleave(factor, dim=axis)
    return image


def _whole_blocks(image: Any, factors: Sequence[int]) -> tuple[Any, list[int]]:
    if any(isinstance(f, bool) or int(f) != f or f < 1 for f in factors) or not 0 < len(factors) <= image.ndim:
        raise ValueError(f"factors are whole numbers, one for each of the last axes, such as (2, 2); got {factors!r}.")
    counts = [n // int(factor) for n, factor in zip(image.shape[-len(factors) :], factors)]
    if min(counts) < 1:
        raise ValueError(f"an image of {tuple(image.shape)} is smaller than a block of {tuple(factors)} pixels.")
    kept = [slice(n * int(factor)) for n, factor in zip(counts, factors)]
    return image[tuple([..., *kept])], counts


def _bicubic(image: Any, counts: Sequence[int], factors: Sequence[int]) -> Any:
    if len(factors) != 2 or len(set(factors)) != 1:
        raise ValueError(f"method 'bicubic' needs two equal factors, for instance (2, 2); got {tuple(factors)!r}.")
    xp = namespace(image)
    tensor = torch.from_numpy(image) if xp is np else image
    planes = tensor.reshape(-1, 1, *tensor.shape[-2:])
    small = F.interpolate(planes, size=list(counts), mode="bicubic", align_corners=False, antialias=True)
    small = small.reshape(*tensor.shape[:-2], *counts)
    return small.numpy() if xp is np else small


def coarser_affine(affine: np.ndarray, *, factors: Sequence[int]) -> np.ndarray:
    """Voxel-to-mm matrix of the coarse grid, from the fine one's: longer steps, origin at the first block's centre.

    Args:
        affine: ``(4, 4)`` in mm.
        factors: along the first voxel axes; the others do not change.

    >>> coarser_affine(np.diag([0.5, 0.5, 1, 1]), factors=(2, 2))[:3, 3]
    array([0.25, 0.25, 0.  ])
    """
    return _scaled_affine(affine, factors, finer=False)


def finer_affine(affine: np.ndarray, *, factors: Sequence[int]) -> np.ndarray:
    """Voxel-to-mm matrix of the fine grid, from the coarse one's: the inverse of :func:`coarser_affine`.

    >>> finer_affine(np.diag([1, 1, 1, 1.0]), factors=(2, 2))[:3, 3]
    array([-0.25, -0.25,  0.  ])
    """
    return _scaled_affine(affine, factors, finer=True)


def _scaled_affine(affine: np.ndarray, factors: Sequence[int], *, finer: bool) -> np.ndarray:
    affine = np.asarray(affine, dtype=np.float64)
    n_axes = affine.shape[0] - 1
    if affine.shape != (n_axes + 1, n_axes + 1) or len(factors) > n_axes:
        raise ValueError(f"expected a square matrix and a factor per axis; got {affine.shape} and {tuple(factors)!r}.")
    step = np.ones(n_axes)
    step[: len(factors)] = factors
    step = 1 / step if finer else step
    voxels = np.eye(n_axes + 1)
    voxels[:n_axes, :n_axes] = np.diag(step)
    voxels[:n_axes, n_axes] = (step - 1) / 2  # of the old voxels
    return affine @ voxels
