"""Classical denoising of CT slices: what a network has to beat. Slices ``(y, x)`` in HU, float32 out.

scikit-image does the work. What is here are the parameters, as multiples of the slice's own noise so that one setting
serves every patient, and tuned for each dose: what is compared with is a full-dose scan that holds noise itself, and
the less a low dose adds to it, the less of the noise there is to remove. ``benchmarks/ldct_classical_tuning.py`` chose
them on training slices.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from skimage.restoration import denoise_bilateral, denoise_nl_means, denoise_tv_chambolle

from ctrestore.errors import InputError
from ctrestore.metrics import local_noise_hu

SMALLEST_NOISE_HU = 1.0  # a slice without noise is left as good as alone


class NonLocalMeans(NamedTuple):
    """Parameters of :func:`non_local_means`.

    Attributes:
        strength: how unlike two patches may be, in units of the noise.
        patch_pixels: side of a patch.
        distance_pixels: how far to look for others.
        expected_noise: in units of the noise, what is subtracted from the distance of two patches.
        share: of the change that is made; below 1 some of the noise is left on purpose.
    """

    strength: float
    patch_pixels: int = 5
    distance_pixels: int = 6
    expected_noise: float = 0.0
    share: float = 1.0


class Bilateral(NamedTuple):
    """Parameters of :func:`bilateral`: the tonal width in units of the noise, and the spatial one."""

    tonal_width: float
    sigma_pixels: float


class Tuned(NamedTuple):
    """The parameters of all methods for one dose."""

    non_local_means: NonLocalMeans
    partial_non_local_means: NonLocalMeans
    total_variation: float
    bilateral: Bilateral


#: By dose fraction.
TUNED = {
    0.5: Tuned(NonLocalMeans(1.0), NonLocalMeans(1.75, 7, share=0.6), 0.75, Bilateral(1.0, 2.0)),
    0.25: Tuned(NonLocalMeans(1.45, 7), NonLocalMeans(1.75, 7, share=0.8), 1.6, Bilateral(1.75, 2.0)),
    0.1: Tuned(NonLocalMeans(2.1), NonLocalMeans(2.1), 1.6, Bilateral(2.5, 2.0)),
}
BM3D_NOISE = 1.5  # units of the slice's noise, because it is correlated
SVD_NOISE = 2.0  # likewise; the best for discs under noise whose neighbours correlate by 0.7
NLM, PARTIAL_NLM, TV, BILATERAL, BM3D = "NLM", "NLM in part", "TV", "bilateral", "BM3D"

Restorer = Callable[[np.ndarray], np.ndarray]


def tuned_for(dose_fraction: float) -> Tuned:
    """The parameters of the nearest dose that was tuned for, by ratio; of a quarter where the dose is not known (NaN).

    >>> tuned_for(0.2) is TUNED[0.25]
    True
    """
    dose_fraction = 0.25 if math.isnan(dose_fraction) else dose_fraction
    return TUNED[min(TUNED, key=lambda dose: abs(math.log(dose / dose_fraction)))]


def classical_restorers(dose_fraction: float) -> dict[str, Restorer]:
    """The methods by their row in a table, each from slice to slice, tuned for a dose."""
    tuned = tuned_for(dose_fraction)
    return {
        NLM: partial(non_local_means, parameters=tuned.non_local_means),
        PARTIAL_NLM: partial(non_local_means, parameters=tuned.partial_non_local_means),
        TV: partial(total_variation, weight=tuned.total_variation),
        BILATERAL: partial(bilateral, parameters=tuned.bilateral),
    }


def noise_level_hu(hu: np.ndarray) -> float:
    """Noise of a slice in HU, as :func:`ctrestore.metrics.local_noise_hu` finds it in soft tissue; 1 HU at least.

    Noise in CT is correlated from pixel to pixel, which estimators by wavelets or differences of neighbours take for
    anatomy. In a slice without soft tissue it is looked for everywhere.
    """
    [noise] = local_noise_hu(hu)
    if math.isnan(noise):
        [noise] = local_noise_hu(hu, band_hu=(-math.inf, math.inf))
    return SMALLEST_NOISE_HU if math.isnan(noise) else max(noise, SMALLEST_NOISE_HU)


def non_local_means(hu: np.ndarray, *, parameters: NonLocalMeans, noise_hu: float | None = None) -> np.ndarray:
    """The mean of pixels whose neighbourhoods look alike (Buades et al., CVPR 2005).

    Args:
        hu: slice.
        parameters: those of :data:`TUNED`, or others.
        noise_hu: the slice's noise; measured by default.
    """
    noise = noise_level_hu(hu) if noise_hu is None else noise_hu
    hu = np.asarray(hu, dtype=np.float32)
    restored = denoise_nl_means(
        hu,
        patch_size=parameters.patch_pixels,
        patch_distance=parameters.distance_pixels,
        h=parameters.strength * noise,
        sigma=parameters.expected_noise * noise,
        fast_mode=True,
        preserve_range=True,
    )
    return hu + np.float32(parameters.share) * (restored - hu)


def total_variation(hu: np.ndarray, *, weight: float, noise_hu: float | None = None) -> np.ndarray:
    """The slice nearest to this one among those of little total variation (Chambolle, J Math Imaging Vis 20:89, 2004).

    Args:
        hu: slice.
        weight: in units of the noise.
        noise_hu: the slice's noise; measured by default.
    """
    noise = noise_level_hu(hu) if noise_hu is None else noise_hu
    return denoise_tv_chambolle(np.asarray(hu, dtype=np.float32), weight=weight * noise)


def bilateral(hu: np.ndarray, *, parameters: Bilateral, noise_hu: float | None = None) -> np.ndarray:
    """The mean of neighbours, weighted by distance and by likeness (Tomasi and Manduchi, ICCV 1998).

    Args:
        hu: slice.
        parameters: those of :data:`TUNED`, or others.
        noise_hu: the slice's noise; measured by default.
    """
    noise = noise_level_hu(hu) if noise_hu is None else noise_hu
    hu = np.asarray(hu, dtype=np.float32)
    lowest = hu.min()  # scikit-image takes no negative values here
    smooth = denoise_bilateral(
        hu - lowest, sigma_color=parameters.tonal_width * noise, sigma_spatial=parameters.sigma_pixels, mode="edge"
    )
    return np.asarray(smooth + lowest, dtype=np.float32)


def svd_shrinkage(
    hu: np.ndarray,
    *,
    strength: float = SVD_NOISE,
    patch_pixels: int = 6,
    window_pixels: int = 24,
    noise_hu: float | None = None,
) -> np.ndarray:
    """The mean of what is left of overlapping patches when the weak singular values of their neighbourhood shrink.

    All patches of a window are the rows of a matrix, less their mean; what noise alone would give of singular values
    goes, the others shrink as is best for the squared error (Gavish and Donoho, IEEE Trans Inf Theory 63(4):2137,
    2017). In the place of the "DSVD" that papers on unpaired denoising compare with, of which there is no code.

    Args:
        hu: slice; sides of at least a window.
        strength: of the noise that is taken away, in units of the slice's: above one, because it is correlated.
        patch_pixels: side of a patch.
        window_pixels: side of the windows, which overlap by half.
        noise_hu: the slice's noise; measured by default.

    Raises:
        InputError: the slice is smaller than a window.
    """
    hu = np.asarray(hu, dtype=np.float32)
    if min(hu.shape) < window_pixels:
        raise InputError(f"expected sides of at least window_pixels, {window_pixels}; got {hu.shape}.")
    noise = strength * (noise_level_hu(hu) if noise_hu is None else noise_hu)
    total, weight = np.zeros(hu.shape, np.float64), np.zeros(hu.shape, np.float64)
    for row in _starts(hu.shape[0], window_pixels):
        for column in _starts(hu.shape[1], window_pixels):
            here = np.s_[row : row + window_pixels, column : column + window_pixels]
            total[here] += _shrunk_window(hu[here], noise, patch_pixels)
            weight[here] += 1
    return (total / weight).astype(np.float32)


def _starts(side: int, window: int) -> list[int]:
    return [*range(0, side - window, window // 2), side - window]


def _shrunk_window(hu: np.ndarray, noise_hu: float, patch: int) -> np.ndarray:
    patches = np.lib.stride_tricks.sliding_window_view(hu, (patch, patch))
    rows, columns = patches.shape[:2]
    matrix = patches.reshape(rows * columns, patch * patch).astype(np.float64)
    mean = matrix.mean(axis=0)
    left, values, right = np.linalg.svd(matrix - mean, full_matrices=False)
    n, beta = matrix.shape[0], matrix.shape[1] / matrix.shape[0]
    scaled = np.maximum(values / (np.sqrt(n) * noise_hu), 1e-9)
    kept = np.where(scaled > 1 + np.sqrt(beta), np.sqrt(np.maximum((scaled**2 - beta - 1) ** 2 - 4 * beta, 0)), 0)
    restored = ((left * (values * kept / scaled**2)) @ right + mean).reshape(rows, columns, patch, patch)
    total, weight = np.zeros(hu.shape), np.zeros(hu.shape)
    for y in range(patch):
        for x in range(patch):
            total[y : y + rows, x : x + columns] += restored[:, :, y, x]
            weight[y : y + rows, x : x + columns] += 1
    return total / weight


def has_bm3d() -> bool:
    """Whether what :func:`bm3d` needs is installed."""
    return all(importlib.util.find_spec(name) is not None for name in ("deepinv", "ptwt"))


def bm3d(hu: np.ndarray, *, strength: float = BM3D_NOISE, noise_hu: float | None = None, **kwargs: Any) -> np.ndarray:
    """Block matching and collaborative filtering (Dabov et al., IEEE Trans Image Process 16(8):2080, 2007).

    deepinv's own implementation, under BSD-3; about 20 s a slice of 512 x 512. The package called bm3d is free for
    non-commercial use only, and not used.

    Args:
        hu: slice.
        strength: the noise that the method is told, in units of the slice's.
        noise_hu: the slice's noise; measured by default.
        kwargs: of deepinv's ``BM3D``.

    Raises:
        ImportError: deepinv, or ptwt that it needs for this, is not installed.
    """
    import torch
    from deepinv.models import BM3D as DeepinvBM3D

    noise = noise_level_hu(hu) if noise_hu is None else noise_hu
    # it expects values of about one, hence in units of 1000 HU
    image = torch.from_numpy(np.asarray(hu, dtype=np.float32) / 1000)[None, None]
    with torch.no_grad():
        restored = DeepinvBM3D(use_legacy=False, **kwargs)(image, sigma=strength * noise / 1000)
    return restored[0, 0].numpy() * 1000
