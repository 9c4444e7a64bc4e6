"""The evaluation protocol of the published 3-D ResUNet for PET partial volume correction, beside its published table.

Its numbers are printed for comparison, not as a measure of correctness: most of its 256-cube is empty, where SSIM is 1.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
from nibabel.processing import resample_from_to
from scipy.ndimage import center_of_mass

from ctrestore.errors import InputError
from ctrestore.metrics import published_protocol
from ctrestore.pvc import FITTED_SHARPENING, LECTURES_SHARPENING, sharpen
from ctrestore.tasks.pet_pvc.evaluated_scans import Scan

CUBE_VOXELS = 256

#: SSIM and RMSE, means over 94 ADNI scans. Which values the sharpening had is not published.
#: https://github.com/wjh1065/Partial-Volume-Effect-Correction-Algorithm-from-PET-scan
PUBLISHED = {"input": (0.9831, 18846.75), "sharpened": (0.9710, 24192.54), "network": (0.9948, 12275.09)}


def to_cube(volume: np.ndarray, affine: np.ndarray, centre_voxel: tuple[float, ...]) -> np.ndarray:
    """The volume ``(x, y, z)`` on a 256-cube of 1 mm voxels along the patient's axes, zero outside its own grid.

    Args:
        volume: in any unit.
        affine: from its voxels to mm.
        centre_voxel: what lies in the cube's centre, in voxels of the volume.
    """
    cube = np.eye(4)
    cube[:3, 3] = (affine @ [*centre_voxel, 1.0])[:3] - (CUBE_VOXELS - 1) / 2
    resliced = resample_from_to(nib.Nifti1Image(volume, affine), ((CUBE_VOXELS,) * 3, cube), order=1)
    return np.asarray(resliced.dataobj, dtype=np.float32)


def compare_by_published_protocol(scan: Scan, name: str) -> list[dict[str, Any]]:
    """SSIM, RMSE and RMSE / clip value of input, both sharpenings and the correction against the label, one row each.

    As published, input and target hold grey matter alone (probability above 0.5), and the input is clipped at the
    target's 99th percentile before it is sharpened. The correction is masked too, since it may be that of a whole PET,
    and clipped like the target, since it also corrects what lies above. Without a map of grey matter nothing is masked,
    which column ``grey_matter_masked`` says.
    """
    image = scan.read("image")
    in_cube = partial(to_cube, affine=scan.grid.affine, centre_voxel=center_of_mass(np.maximum(image, 0)))
    masked = "grey_matter" in scan.files
    inside = in_cube(scan.read("grey_matter")) > 0.5 if masked else np.True_
    target = in_cube(scan.read("label" if "label" in scan.files else "truth")) * inside
    if not target.max() > 0:
        where = "in grey matter" if masked else "anywhere"
        raise InputError(f"its reference has no positive voxel {where}. Usual cause: an empty file, or another scan's.")
    pet = np.clip(in_cube(image) * inside, 0, np.percentile(target[target > 0], 99))
    rows = {
        "input": (pet, False),
        "sharpened (fitted)": (sharpen(pet, **FITTED_SHARPENING), False),
        "sharpened (SciPy)": (sharpen(pet, **LECTURES_SHARPENING), False),
        name: (in_cube(scan.read("prediction")) * inside, True),
    }
    return [
        {
            "subject": scan.name,
            "row": row,
            "grey_matter_masked": masked,
            **published_protocol(pred, target, clip_pred=clip)._asdict(),
        }
        for row, (pred, clip) in rows.items()
    ]


def published_table(scored: list[dict[str, Any]], name: str) -> tuple[pd.DataFrame, str]:
    """All scans and, as subject ``mean``, their mean beside the published one: as a table and for a terminal."""
    scans = pd.DataFrame(scored)
    mean = scans.drop(columns=["subject", "grey_matter_masked"]).groupby("row", sort=False).mean().reset_index()
    mean.insert(0, "subject", "mean")
    table = pd.concat([scans, mean], ignore_index=True)
    published = [PUBLISHED.get("network" if row == name else row.split(" ")[0]) for row in table["row"]]
    for i, column in enumerate(("published_ssim", "published_rmse")):
        table[column] = [np.nan if values is None else values[i] for values in published]
    of_row = scans[scans["row"] == name]
    n_scans, n_whole = len(of_row), int((~of_row["grey_matter_masked"]).sum())
    lines = [
        "",
        f"The published network's own protocol, mean of {n_scans} scans (256-cube, grey matter alone, target "
        "clipped at its 99th percentile, SSIM range: each image's own maximum);",
        "published: 94 ADNI scans in other units, so only the order of the rows compares.",
        *([f"{n_whole} of {n_scans} have no map of grey matter: their whole PET was taken."] if n_whole else []),
        f"{'':<22}{'SSIM':>10}{'RMSE':>12}{'RMSE/clip':>12}{'published':>12}{'published':>12}",
        f"{'':<22}{'':>10}{'':>12}{'':>12}{'SSIM':>12}{'RMSE':>12}",
    ]
    for row in table[table["subject"] == "mean"].itertuples():
        lines.append(
            f"{row.row:<22}{row.ssim:>10.4f}{row.rmse:>12.2f}{row.rmse_over_clip:>12.4f}"
            f"{row.published_ssim:>12.4f}{row.published_rmse:>12.2f}"
        )
    return table, "\n".join(lines)
