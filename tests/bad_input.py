"""Makers of bad input: the files that unlucky users have, made by code, every value invented.

A maker takes an empty folder and gives the path to name. Tests beside the module that refuses the input call one maker
by its name, under the marker ``bad_input``; ``benchmarks/bad_input.py`` gives all of them to every command and bundle.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from scipy.ndimage import gaussian_filter

# ---------------------------------------------------------------------------------------------------------------------
# Good scans, which the makers spoil


def pet_voxels(side: int = 20) -> np.ndarray:
    """A head of two tissues, blurred: float32 ``(side, side, side)``, every voxel above zero."""
    position = np.stack(np.meshgrid(*[np.arange(side) - (side - 1) / 2] * 3, indexing="ij"))
    radius = np.sqrt((position**2).sum(0))
    activity = np.where(radius < 0.38 * side, 5000.0, 0.0) + np.where(radius < 0.2 * side, 10000.0, 0.0)
    noise = np.random.default_rng(0).random((side,) * 3)
    return np.asarray(gaussian_filter(activity, 1.0) + noise, dtype=np.float32)


def ct_voxels(side: int = 48, n_slices: int = 3) -> np.ndarray:
    """A round body of soft tissue in air: int16 HU ``(side, side, n_slices)``."""
    x, y = np.meshgrid(*[np.arange(side) - (side - 1) / 2] * 2, indexing="ij")
    hu = np.where(np.hypot(x, y) < 0.4 * side, 40.0, -1000.0)[..., None]
    noise = np.random.default_rng(0).normal(0, 20, (side, side, n_slices))
    return np.rint(hu + noise).astype(np.int16)


PET_AFFINE = np.diag([9.0, 9.0, 9.0, 1.0])  # 20 voxels are a head of 180 mm
CT_AFFINE = np.diag([-0.8, -0.8, 3.0, 1.0])


def nifti(path: Path, voxels: np.ndarray, affine: np.ndarray, **options: Any) -> Path:
    """A NIfTI in mm."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(voxels, affine, **options)
    image.header.set_xyzt_units("mm", "sec")
    nib.save(image, path)
    return path


def pet(folder: Path, name: str = "pet.nii.gz") -> Path:
    """A good PET."""
    return nifti(folder / name, pet_voxels(), PET_AFFINE)


def ct(folder: Path, name: str = "ct.nii.gz") -> Path:
    """A good CT volume."""
    return nifti(folder / name, ct_voxels(), CT_AFFINE)


def with_header(path: Path, **fields: Any) -> Path:
    """The uncompressed NIfTI again, with raw header fields of another value; nibabel would mend or refuse many."""
    raw = bytearray(path.read_bytes())
    header = np.frombuffer(bytes(raw[:348]), nib.Nifti1Header.template_dtype).copy()
    for name, value in fields.items():
        header[name] = value
    raw[:348] = header.tobytes()
    path.write_bytes(bytes(raw))
    return path


# ---------------------------------------------------------------------------------------------------------------------
# Kind 4: damaged compressed files


def flipped_byte(path: Path, fraction: float = 0.5) -> Path:
    """The file with one byte altered at a fraction of its length."""
    raw = bytearray(path.read_bytes())
    raw[int(fraction * (len(raw) - 9))] ^= 0xFF  # the last eight are the checksum and length
    path.write_bytes(bytes(raw))
    return path


# ---------------------------------------------------------------------------------------------------------------------
# Kind 6: what is no HU; kind 17: CT series that look wrong and are right


# ---------------------------------------------------------------------------------------------------------------------
# Kind 7: non-finite or foreign weights


# ---------------------------------------------------------------------------------------------------------------------
# Kind 8: geometry that cannot be


# ---------------------------------------------------------------------------------------------------------------------
# Kinds 9 and 16: training data and settings


# ---------------------------------------------------------------------------------------------------------------------
# Kinds 10 to 13 and 15: where outputs go, and what is left out


# ---------------------------------------------------------------------------------------------------------------------
# Kinds 14 and 23: sidecars, masks, frames


# ---------------------------------------------------------------------------------------------------------------------
# Kind 18: PET series in DICOM


# ---------------------------------------------------------------------------------------------------------------------
# Kind 19: MGH files and other orientations


# ---------------------------------------------------------------------------------------------------------------------
# Kinds 20 and 21: pictures
