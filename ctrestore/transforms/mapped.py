"""The two bases of dictionary transforms: an array transform, applied to the keys of a sample."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Any, ClassVar

import numpy as np
from monai.config import KeysCollection
from monai.transforms import MapTransform, Randomizable


class Mapped(MapTransform):
    """Dictionary form of ``array_transform``, which gets all further arguments: a misspelt one fails at construction.

    Args:
        keys: of the images.
        allow_missing_keys: MONAI's.
        extras: what the array form's call needs beside the image, ``{argument: key of the sample}``.
        optional_extras: the same for what a sample may lack; the argument is then None.
        kwargs: of the array form.
    """

    array_transform: ClassVar[Callable[..., Any]]

    def __init__(
        self,
        keys: KeysCollection,
        allow_missing_keys: bool = False,
        *,
        extras: Mapping[str, Hashable] = {},
        optional_extras: Mapping[str, Hashable] = {},
        **kwargs: Any,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.extras, self.optional_extras = extras, optional_extras
        self.transform = type(self).array_transform(**kwargs)

    def arguments(self, data: Mapping[Hashable, Any]) -> dict[str, Any]:
        """What the array form gets beside the image."""
        needed = {argument: data[key] for argument, key in self.extras.items()}
        return needed | {argument: data.get(key) for argument, key in self.optional_extras.items()}

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        for key in self.key_iterator(d):
            d[key] = self.transform(d[key], **self.arguments(d))
        return d


class RandMapped(Randomizable, Mapped):
    """Dictionary form of a random ``array_transform``, which draws once for all keys of a sample."""

    def set_random_state(self, seed: int | None = None, state: np.random.RandomState | None = None) -> RandMapped:
        """Of the array form, too: it does the drawing."""
        super().set_random_state(seed, state)
        self.transform.set_random_state(seed, state)
        return self

    def randomize(self, data: Any = None) -> None:
        """Draw what holds for all keys."""
        self.transform.randomize(data)

    def arguments(self, data: Mapping[Hashable, Any]) -> dict[str, Any]:
        """What the array form gets beside the image; it does not draw again."""
        return super().arguments(data) | {"randomize": False}

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        self.randomize()
        return super().__call__(data)
