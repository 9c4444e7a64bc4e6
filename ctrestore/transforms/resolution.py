"""MONAI transforms for super-resolution: the coarse, noisy image of a fine one.

Images are channel-first in HU, ``(channel, x, y)`` or ``(channel, x, y, z)``. A training prepares whole fine slices and
makes the coarse image of each patch anew::

    RandSpatialCropd(keys="label", roi_size=(96, 96), random_size=False),
    LowResolutiond(keys="image", label_key="label", scale=2),
    RandImageNoised(keys="image", noises=("clean", "gaussian")),
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, RandomizableTransform, Transform
from torch import Tensor

from ctrestore.ct.image_noise import add_noise, check_noise
from ctrestore.ct.resolution import Method, coarser_affine, lower_resolution, whole_blocks
from ctrestore.errors import InputError
from ctrestore.transforms.low_dose import from_slices, generator_of, to_slices
from ctrestore.transforms.mapped import Mapped, RandMapped


def _noisy(img: Tensor, name: str, *, strength: float = 1.0, seed: np.random.Generator) -> Tensor:
    """The image with a noise that, of a volume, every slice has of its own."""
    return from_slices(add_noise(to_slices(img), name, strength=strength, seed=seed), img)


class LowResolutiond(MapTransform):
    """Make the coarse images of an entry from its fine label: :func:`ctrestore.ct.resolution.lower_resolution`.

    The label loses the pixels at its end that fill no block. The affine of a MetaTensor is that of the coarse grid.

    Args:
        keys: of the coarse images to make.
        label_key: of the fine image.
        scale: fine pixels that make a coarse one, along each of the in-plane axes.
        through_plane: the same along z, for volumes: thicker slices.
        method: ``mean`` or ``bicubic``.
        allow_missing_keys: MONAI's.
    """

    def __init__(
        self,
        keys: KeysCollection,
        label_key: str = "label",
        scale: int = 2,
        through_plane: int = 1,
        method: Method = "mean",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.label_key, self.method = label_key, method
        self.factors = (scale, scale, through_plane)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        fine: Tensor = d[self.label_key]
        factors = self.factors[: fine.ndim - 1]
        d[self.label_key] = whole_blocks(fine, factors=factors)
        coarse = lower_resolution(torch.as_tensor(fine).as_subclass(Tensor), factors=factors, method=self.method)
        if isinstance(fine, MetaTensor):
            affine = coarser_affine(np.asarray(fine.affine, dtype=float), factors=factors)
            others = {name: value for name, value in fine.meta.items() if name != "affine"}
            coarse = MetaTensor(coarse, affine=torch.from_numpy(affine), meta=others)
        for key in self.keys:
            d[key] = coarse
        return d


class RandImageNoise(RandomizableTransform):
    """Add one of several noises, of a strength drawn evenly from a range.

    Args:
        noises: names in :data:`ctrestore.ct.image_noise.NOISES`, all alike probable; name one twice to double it.
        strength: lowest and highest; 1 is the level of the name.

    Raises:
        InputError: there is no such noise, or the strengths are no range.
    """

    def __init__(self, noises: Sequence[str] = ("clean", "gaussian"), strength: Sequence[float] = (0.0, 1.0)) -> None:
        super().__init__(prob=1.0)
        if isinstance(noises, str) or not noises:
            raise InputError(f"noises is a list of names, such as ['clean', 'gaussian']; got {noises!r}.")
        self.noises = [check_noise(name) for name in noises]
        lowest, highest = (float(value) for value in strength)
        if not 0 <= lowest <= highest:
            raise InputError(f"strength is (lowest, highest), 0 or more; got {tuple(strength)!r}.")
        self.strengths = (lowest, highest)

    def randomize(self, data: Any = None) -> None:
        """Draw the kind of noise, its strength, and where its values come from."""
        super().randomize(data)
        self.noise = self.noises[int(self.R.randint(len(self.noises)))]
        self.strength = self.R.uniform(*self.strengths)
        self.generator = np.random.default_rng(int(self.R.randint(2**31 - 1)))

    def __call__(self, img: Tensor, randomize: bool = True) -> Tensor:
        if randomize:
            self.randomize()
        return _noisy(img, self.noise, strength=self.strength, seed=self.generator)


class RandImageNoised(RandMapped):
    """Dictionary form of :class:`RandImageNoise`: one kind and strength for all keys, and for each noise of its own."""

    array_transform = RandImageNoise


class AtNoise(Transform):
    """Add the noise whose name comes with an image in HU, at its own level; without one the image stays.

    Every image gets other noise, and the same in every run.

    Args:
        seed: another one gives other noise.
    """

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def __call__(self, img: Tensor, noise: str | None = None) -> Tensor:
        return img if noise is None else _noisy(img, noise, seed=generator_of(img, self.seed))


class AtNoised(Mapped):
    """Dictionary form of :class:`AtNoise`; ``noise_key`` is that of the name, which an entry may lack."""

    array_transform = AtNoise

    def __init__(self, keys: KeysCollection, noise_key: str = "noise", **kwargs: Any) -> None:
        super().__init__(keys, optional_extras={"noise": noise_key}, **kwargs)
