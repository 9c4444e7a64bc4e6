"""A MONAI transform that reads one slice of a CT scan."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import Transform

from ctrestore.io.ct_scan import Scan, open_scan
from ctrestore.transforms.mapped import Mapped


class LoadSlice(Transform):
    """Slice ``k`` of a scan, open or given by its path: ``(1, x, y)`` in HU, a MetaTensor with the affine of its scan.

    ``range_hu`` are the HU of black and white, where a scan is a picture.
    """

    def __call__(  # type: ignore[override]  # MONAI's takes one
        self, scan: str | Path | Scan, k: int, range_hu: Sequence[float] | None = None
    ) -> MetaTensor:
        if isinstance(scan, str | Path):
            scan = open_scan(scan, range_hu=None if range_hu is None else (float(range_hu[0]), float(range_hu[1])))
        hu = torch.from_numpy(np.ascontiguousarray(scan.slice_hu(int(k))))[None]
        affine = scan.affine.copy()
        affine[:3, 3] += int(k) * affine[:3, 2]  # of the slice's own first pixel
        return MetaTensor(hu, affine=affine, meta={"filename_or_obj": str(scan.path)})


class LoadSliced(Mapped):
    """Dictionary form of :class:`LoadSlice`: the number under ``slice_key``, the HU of pictures under ``range_key``."""

    array_transform = LoadSlice

    def __init__(
        self, keys: KeysCollection, slice_key: str = "slice", range_key: str = "range_hu", **kwargs: Any
    ) -> None:
        super().__init__(keys, extras={"k": slice_key}, optional_extras={"range_hu": range_key}, **kwargs)
