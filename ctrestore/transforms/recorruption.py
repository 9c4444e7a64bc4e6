"""Learning to denoise CT from low-dose scans alone, by corrupting them again (recorrupted-to-recorrupted).

A scan ``y = x + n`` gets more noise ``n'`` that is drawn as its own noise was, with its spread and its texture. Then

    y + alpha n'    and    y - n' / alpha

hold noise that is uncorrelated: ``cov = var(n) - var(n')`` = 0. A network that learns, in the mean square, to give the
second from the first learns what it would learn from the clean ``x``. Blind-spot methods need noise that is independent
from pixel to pixel; noise of CT is not, but its covariance is known: it comes out of the projections
(:func:`ctrestore.ct.noise_components`).

Reference:
    Pang et al., Recorrupted-to-Recorrupted: unsupervised deep learning for image denoising, CVPR 2021.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, RandomizableTransform
from torch import Tensor

from ctrestore.errors import InputError
from ctrestore.metrics import local_noise_hu


class MatchNoised(MapTransform):
    """Scale simulated noise to the strength of the noise that a scan holds.

    Both are measured in the flat parts of the scan's soft tissue, where the simulation has the strength of the photons
    that it was told and the scan that of its own, which is seldom known. A slice without soft tissue keeps the noise as
    simulated.

    Args:
        keys: the scan in HU, ``(1, x, y)``.
        noise_key: ``(2 n, x, y)``, quantum and electronic, of ``low_dose.NoiseRealisationsd``; they
            are added up to ``(n, x, y)``.
        allow_missing_keys: MONAI's.
    """

    def __init__(self, keys: KeysCollection, noise_key: str = "noise", allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.noise_key = noise_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        for key in self.key_iterator(d):
            quantum, electronic = d[self.noise_key].float().chunk(2)
            noise = quantum + electronic
            own, simulated = local_noise_hu(np.asarray(d[key])[0], np.asarray(noise)[0], tissue=np.asarray(d[key])[0])
            factor = own / simulated if simulated > 0 and math.isfinite(own) else 1.0
            d[self.noise_key] = (noise * factor).half()
        return d


def recorrupted(scan: Tensor, noise: Tensor, *, alpha: float) -> tuple[Tensor, Tensor]:
    """``scan + alpha noise`` and ``scan - noise / alpha``: what to learn from, and what to learn to give.

    Args:
        scan: with its own noise.
        noise: drawn as that was, of the same shape.
        alpha: above 0. Small values leave the input nearly as it is and make the target noisier.
    """
    if not alpha > 0:
        raise InputError(f"alpha is above 0, usually 0.5 to 1; got {alpha!r}.")
    return scan + alpha * noise, scan - noise / alpha


class Recorruptd(MapTransform):
    """The same pair every time, of the first realisation: for validation without full dose.

    A network is better the nearer it gets to ``label`` from ``image``, though the noise of the label stays.

    Args:
        keys: the scan; the pair takes its place under ``image_key`` and ``label_key``.
        noise_key: realisations ``(n, ...)``, removed.
        alpha: see :func:`recorrupted`.
        image_key: of the input.
        label_key: of the target.
        allow_missing_keys: MONAI's.
    """

    def __init__(
        self,
        keys: KeysCollection,
        noise_key: str = "noise",
        alpha: float = 0.5,
        image_key: str = "image",
        label_key: str = "label",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.noise_key, self.alpha, self.image_key, self.label_key = noise_key, float(alpha), image_key, label_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        noise = d.pop(self.noise_key)[:1].float()
        for key in self.key_iterator(d):
            d[self.image_key], d[self.label_key] = recorrupted(d[key], noise, alpha=self.alpha)
        return d


class RandRecorruptd(RandomizableTransform, MapTransform):
    """A pair of scans with independent noise from a single one: ``image`` to learn from, ``label`` to learn to give.

    Args:
        keys: the scan; the pair takes its place under ``image_key`` and ``label_key``.
        noise_key: realisations ``(n, ...)``, mixed anew every time as ``low_dose.RandLowDosed``
            does, and removed.
        alpha: lowest and highest.
        image_key: of the input.
        label_key: of the target.
        range_key: of the range in HU that is known of an entry, as for ``low_dose.ForgetUnknownd``;
            the target is NaN where the scan lies beyond.
        allow_missing_keys: MONAI's.
    """

    def __init__(
        self,
        keys: KeysCollection,
        noise_key: str = "noise",
        alpha: Sequence[float] = (0.5, 1.0),
        image_key: str = "image",
        label_key: str = "label",
        range_key: str = "known_hu",
        allow_missing_keys: bool = False,
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        RandomizableTransform.__init__(self, prob=1.0)
        lowest, highest = (float(value) for value in alpha)
        if not 0 < lowest <= highest:
            raise InputError(f"alpha is (lowest, highest), above 0; got {tuple(alpha)!r}.")
        self.noise_key, self.alpha, self.image_key, self.label_key = noise_key, (lowest, highest), image_key, label_key
        self.range_key = range_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        self.randomize(None)
        realisations = d.pop(self.noise_key).float()
        weights = self.R.standard_normal(realisations.shape[0])
        weights = torch.as_tensor(weights / np.linalg.norm(weights), dtype=torch.float32)
        noise = torch.tensordot(weights, torch.as_tensor(realisations).as_subclass(Tensor), dims=1)
        alpha = self.R.uniform(*self.alpha)
        for key in self.key_iterator(d):
            scan = d[key]
            d[self.image_key], target = recorrupted(scan, noise, alpha=alpha)
            low, high = d.get(self.range_key, (-math.inf, math.inf))
            d[self.label_key] = torch.where((scan < low) | (scan > high), torch.nan, target)
        return d
