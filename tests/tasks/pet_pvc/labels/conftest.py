"""A BIDS data set of tiny heads whose labels are known in closed form."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from ctrestore.psf import blur
from tests.conftest import write_nifti

FWHM_MM = (9.0, 10.0, 11.0)
GREY = {1: 3000.0, 2: 3600.0}
WHITE, CSF = 1000.0, 200.0


def head(shift: float = 0.0) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Maps of a head of 24 x 26 x 24 voxels of 4 mm, and its activity, uniform in every region."""
    position = np.stack(np.meshgrid(np.arange(24.0), np.arange(26.0), np.arange(24.0), indexing="ij"), -1)
    radius = np.linalg.norm((position - [11.5 + shift, 12.5, 11.5]) / [9.0, 10.0, 9.0], axis=-1)
    maps = {
        "GM": (radius < 1) & (radius > 0.7),
        "WM": (radius <= 0.7) & (radius > 0.3),
        "CSF": radius <= 0.3,
    }
    parcels = np.where(maps["GM"], 1 + (position[..., 0] > 11.5), 0)
    activity = sum(value * (parcels == parcel) for parcel, value in GREY.items())
    activity = activity + WHITE * maps["WM"] + CSF * maps["CSF"]
    return {**{k: v.astype(np.float32) for k, v in maps.items()}, "parcels": parcels.astype(np.uint8)}, activity


def write_subject(root: Path, name: str, *, shift: float = 0.0, affine: np.ndarray | None = None) -> None:
    """One subject of a BIDS data set, its maps in the derivatives of ``segmented``."""
    affine = np.diag([4.0, 4.0, 4.0, 1.0]) if affine is None else affine
    maps, activity = head(shift)
    pet = blur(activity, fwhm_mm=FWHM_MM, spacing_mm=4.0).astype(np.float32)
    write_nifti(root / name / "pet" / f"{name}_trc-FDG_pet.nii.gz", pet, affine)
    sidecar = {"Units": "Bq/mL", **dict(zip(("FWHM_x", "FWHM_y", "FWHM_z"), FWHM_MM))}
    (root / name / "pet" / f"{name}_trc-FDG_pet.json").write_text(json.dumps(sidecar))
    anat = root / "derivatives" / "segmented" / name / "anat"
    for tissue in ("GM", "WM", "CSF"):
        write_nifti(anat / f"{name}_label-{tissue}_probseg.nii.gz", maps[tissue], affine)
    write_nifti(anat / f"{name}_desc-parcels_dseg.nii.gz", maps["parcels"], affine)


@pytest.fixture
def bids(tmp_path) -> Path:
    """Three subjects."""
    root = tmp_path / "data"
    for i in range(3):
        write_subject(root, f"sub-0{i}", shift=0.3 * i)
    (root / "dataset_description.json").write_text(json.dumps({"Name": "heads", "BIDSVersion": "1.10.0"}))
    return root


def voxels(path: Path) -> np.ndarray:
    return np.asarray(nib.load(path).dataobj, dtype=np.float32)
