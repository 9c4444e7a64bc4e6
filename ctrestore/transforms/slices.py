"""A MONAI transform that reads one slice of a CT scan."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform

from ctrestore.io.ct_scan import open_scan


class LoadSliced(MapTransform):
    """Read one slice of each scan: it becomes ``(1, x, y)`` in HU, a MetaTensor with the affine of its scan.

    Args:
        keys: of the paths, or of scans that are open (:class:`Scan`).
        slice_key: of the number of the slice.
        range_key: of the HU of black and white, where a scan is a picture.
        allow_missing_keys: MONAI's.
    """

    def __init__(
        self,
        keys: KeysCollection,
        slice_key: str = "slice",
        range_key: str = "range_hu",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.slice_key, self.range_key = slice_key, range_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        k, given = int(d[self.slice_key]), d.get(self.range_key)
        for key in self.key_iterator(d):
            scan = d[key]
            if isinstance(scan, str | Path):
                scan = open_scan(scan, range_hu=None if given is None else (float(given[0]), float(given[1])))
            hu = torch.from_numpy(np.ascontiguousarray(scan.slice_hu(k)))[None]
            affine = scan.affine.copy()
            affine[:3, 3] += k * affine[:3, 2]  # of the slice's own first pixel
            d[key] = MetaTensor(hu, affine=affine, meta={"filename_or_obj": str(scan.path)})
        return d
