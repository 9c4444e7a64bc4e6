"""Pairs of slices for a report, as they are shown and summarised."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from ctrestore.ct import PHOTONS_PER_RAY
from ctrestore.io.whole import written_whole
from ctrestore.metrics.photons import PHOTONS_KEY
from ctrestore.tasks.ct_report.scores import SlicePair


def pair_of(sample: Mapping[str, Any]) -> SlicePair:
    """A sample ``(1, x, y)`` of a CT bundle as it is looked at: from the feet, nose up.

    Args:
        sample: ``image`` and ``label`` in HU, MetaTensors with the affine of the slice; the label NaN where it is not
            known. ``subject``, ``slice`` and, of a simulated low dose, ``dose_fraction`` and ``photons_per_ray``.
    """
    affine = np.asarray(sample["image"].affine, dtype=float)
    spacing_x, spacing_y = np.linalg.norm(affine[:-1, :2], axis=0).tolist()
    low, full = (as_seen(sample[key], affine) for key in ("image", "label"))
    source = Path(str(sample["image"].meta.get("filename_or_obj", "slice"))).name.removesuffix(".gz")
    name = f"{source.removesuffix('.nii')}_{int(sample.get('slice', 0)):03d}"
    dose = float(sample.get("dose_fraction", float("nan")))
    photons = float(sample.get(PHOTONS_KEY, PHOTONS_PER_RAY))
    return SlicePair(
        low, full, (spacing_y, spacing_x), str(sample.get("subject", name)), name, dose, photons_per_ray=photons
    )


def as_seen(img: torch.Tensor, affine: np.ndarray) -> np.ndarray:
    """The slice ``(1, x, y)`` as ``(y, x)``: the patient's right on the left, the nose up."""
    hu = torch.as_tensor(img).as_subclass(torch.Tensor)[0].detach().cpu().float().numpy().T
    # Rows should run to the patient's back, columns to the left: against both axes of RAS.
    backwards = [slice(None, None, -1 if affine[axis, axis] > 0 else 1) for axis in (1, 0)]
    return np.ascontiguousarray(hu[tuple(backwards)])


def spread(pairs: Sequence[SlicePair], n: int) -> list[SlicePair]:
    """At most so many, evenly spread."""
    if n <= 0 or not pairs:
        return []
    return [pairs[i] for i in np.unique(np.linspace(0, len(pairs) - 1, min(n, len(pairs))).round().astype(int))]


def write_csv(table: pd.DataFrame, path: Path) -> None:
    """A table as CSV, whole or not at all."""
    with written_whole(path) as draft:
        table.to_csv(draft, index=False, float_format="%.6g")
