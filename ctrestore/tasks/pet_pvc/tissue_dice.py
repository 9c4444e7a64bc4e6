"""How well tissue maps that were seen in the PET alone agree with the true ones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import torch
from monai.metrics import compute_dice

from ctrestore.errors import InputError
from ctrestore.io.grid import GRID_TOLERANCE_MM, Grid, read_grid
from ctrestore.tasks.pet_pvc.evaluated_scans import Scan

TISSUES = {"grey_matter": "grey matter", "white_matter": "white matter", "csf": "CSF"}


def compare_tissues(scan: Scan, path: str | Path) -> dict[str, Any]:
    """Dice of grey matter, white matter and CSF, each being where its fraction exceeds one half; NaN without a truth.

    Args:
        scan: with the true maps.
        path: of the maps ``(x, y, z, tissue)`` to compare, tissues in the order of ``TISSUES``.

    Raises:
        InputError: the maps are missing or damaged, or lie on another grid than the scan.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected tissue maps. Remedy: run --method hybrid --save_tissue True.")
    grid = read_grid(path)
    found = grid.shape
    if len(found) != 4 or found[3] != len(TISSUES) or not _same_place(grid, scan.grid):
        raise InputError(
            f"{path}: expected maps {(*scan.grid.shape, len(TISSUES))} on the grid of {scan.files['image']}; got "
            f"{found}. Usual cause: maps of another scan."
        )
    loaded: Any = nib.load(path)
    maps = np.asarray(loaded.dataobj, dtype=np.float32)
    scores: dict[str, Any] = {"subject": scan.name}
    for i, key in enumerate(TISSUES):
        truth = scan.read_if_given(key)
        scores[key] = float("nan") if truth is None else dice(maps[..., i], truth)
    return scores


def dice(fractions: np.ndarray, truth: np.ndarray) -> float:
    """Dice of where two maps ``(x, y, z)`` exceed one half; NaN if the true one never does."""
    pred, reference = (torch.from_numpy(volume > 0.5)[None, None] for volume in (fractions, truth))
    return float(compute_dice(pred, reference))


def _same_place(maps: Grid, scan: Grid) -> bool:
    return Grid(maps.shape[:3], maps.affine).distance_mm(scan) <= GRID_TOLERANCE_MM


def tissue_text(table: pd.DataFrame) -> str:
    """Dice of each scan and their median, for a terminal."""
    median = {"subject": "median", **table[list(TISSUES)].median()}
    lines = ["", "Tissues seen in the PET alone, Dice with the true ones (fraction above one half):"]
    lines.append(f"{'':<22}" + "".join(f"{name:>14}" for name in TISSUES.values()))
    for row in [*table.to_dict("records"), median]:
        lines.append(f"{row['subject']:<22}" + "".join(f"{row[key]:>14.3f}" for key in TISSUES))
    return "\n".join(lines)


def tissue_table(scans: Sequence[Scan], maps: Sequence[str | Path]) -> pd.DataFrame:
    """One line a scan: its subject and the Dice of each tissue."""
    return pd.DataFrame([compare_tissues(scan, path) for scan, path in zip(scans, maps)])
