"""Datasets with slices that are prepared once; random transforms follow for every sample."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from monai.data import Dataset, PersistentDataset, get_track_meta, set_track_meta
from monai.transforms import Compose
from monai.transforms.traits import RandomizableTrait
from monai.utils import convert_to_tensor
from tqdm import tqdm


def prepared_dataset(
    data: list[dict[str, Any]], transform: Compose, cache_dir: str | None = None, n_threads: int = 2
) -> Dataset:
    """Dataset in memory after the transforms before the first random one, which run once per entry, in threads.

    Args:
        data: entries.
        transform: MONAI transform chain.
        cache_dir: folder that keeps the prepared entries for other runs; None: only memory.
        n_threads: for the preparation; most of the work releases the GIL.
    """
    first_random = transform.get_index_of_first(lambda step: isinstance(step, RandomizableTrait))
    steps = list(transform.transforms)
    fixed, rest = Compose(steps[:first_random]), Compose([] if first_random is None else steps[first_random:])
    source = PersistentDataset(
        data, fixed, cache_dir=None if cache_dir is None else str(cache_dir), hash_transform=settings_hash
    )
    progress = partial(tqdm, total=len(data), desc="preparing slices", unit="slice", delay=2, disable=None)
    with ThreadPoolExecutor(n_threads) as pool:
        ready = list(progress(pool.map(source.__getitem__, range(len(data)))))
    # Without metadata, as they come back from a cache.
    return PlainDataset([convert_to_tensor(item, convert_numeric=False, track_meta=False) for item in ready], rest)


class PlainDataset(Dataset):
    """MONAI's Dataset of entries and transforms without metadata: twice as fast for small patches.

    Not for threads: whether metadata is kept is a setting of the whole process. Worker processes have their own.
    """

    def _transform(self, index: int) -> Any:
        tracked = get_track_meta()
        set_track_meta(False)
        try:
            return super()._transform(index)
        finally:
            set_track_meta(tracked)


def settings_hash(transforms: Sequence[Any]) -> bytes:
    """The identity of a chain of transforms: the classes and their settings, the same in every process.

    MONAI's hash of a pickle depends on which strings two settings share in memory.
    """

    def plain(value: Any) -> Any:
        if isinstance(value, (str, int, float, bool, type(None))):
            return value
        if isinstance(value, Mapping):
            return {str(key): plain(value[key]) for key in sorted(value, key=str)}
        if isinstance(value, (list, tuple, set)):
            return [plain(item) for item in value]
        settings = vars(value) if hasattr(value, "__dict__") and not callable(getattr(value, "__code__", None)) else {}
        name = getattr(value, "__qualname__", type(value).__qualname__)
        return [name, plain(settings)] if settings else [name, "" if " at 0x" in repr(value) else repr(value)]

    return hashlib.sha256(json.dumps(plain(list(transforms))).encode()).hexdigest().encode()
