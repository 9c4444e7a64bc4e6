"""A small head of three uniform tissues, as the files that the commands read."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from ctrestore.commands.main import main
from ctrestore.psf import blur

SPACING_MM = (2.0, 2.5, 3.0)
FWHM_MM = (6.0, 7.0, 8.0)
AFFINE = np.array([[-2.0, 0, 0, 32], [0, 2.5, 0, -40], [0, 0, 3.0, -36], [0, 0, 0, 1]])
SHAPE = (32, 30, 24)
MEANS = {"grey": 10000.0, "white": 3000.0, "csf": 500.0}
PSF = ["-x", "6", "-y", "7", "-z", "8"]


@dataclass(frozen=True)
class Head:
    """A folder with ``sub-01_pet.nii.gz``, tissue maps, ``masks.nii.gz`` (4-D), ``labels.nii.gz`` and its table."""

    folder: Path
    truth: np.ndarray
    masks: dict[str, np.ndarray]

    @property
    def pet(self) -> Path:
        return self.folder / "sub-01_pet.nii.gz"

    @property
    def tissues(self) -> list[str]:
        return [str(self.folder / f"{name}.nii.gz") for name in MEANS]

    def path(self, name: str) -> Path:
        return self.folder / name

    def command(self, *arguments) -> int:
        """Exit status of ``ctrestore pvc -i PET -x 6 -y 7 -z 8 ...``."""
        return main(["pvc", "-i", str(self.pet), *PSF, *map(str, arguments)])


def save(path: Path, data: np.ndarray, affine: np.ndarray = AFFINE) -> Path:
    image = nib.Nifti1Image(data, affine)
    image.header.set_xyzt_units("mm", "sec")
    nib.save(image, path)
    return path


def read(path: Path) -> np.ndarray:
    return np.asarray(nib.load(path).dataobj, dtype=np.float32)


def soft(mask: np.ndarray) -> np.ndarray:
    """Fractions at the border, as a segmentation has them."""
    return blur(mask.astype(np.float32), fwhm_mm=3.0, spacing_mm=SPACING_MM)


@pytest.fixture
def head(tmp_path) -> Head:
    position = np.stack(np.meshgrid(*[np.arange(n) - (n - 1) / 2 for n in SHAPE], indexing="ij"), -1) * SPACING_MM
    radius = np.linalg.norm(position / [22.0, 25.0, 24.0], axis=-1)
    shells = {
        "grey": (radius < 1) & (radius >= 0.65),
        "white": (radius < 0.65) & (radius >= 0.25),
        "csf": radius < 0.25,
    }
    masks = {name: soft(shell) for name, shell in shells.items()}
    truth = sum(MEANS[name] * mask for name, mask in masks.items())
    save(tmp_path / "sub-01_pet.nii.gz", blur(truth, fwhm_mm=FWHM_MM, spacing_mm=SPACING_MM))
    for name, mask in masks.items():
        save(tmp_path / f"{name}.nii.gz", mask)
    save(tmp_path / "masks.nii.gz", np.stack([*masks.values()], axis=-1))
    labels = sum(value * shell for value, shell in zip((7, 40, 4), shells.values())).astype(np.int16)
    save(tmp_path / "labels.nii.gz", labels)
    (tmp_path / "labels.tsv").write_text("index\tname\n0\toutside\n7\tcortex\n40\twhite\n4\tventricle\n")
    return Head(tmp_path, truth, masks)


def sidecar(folder: Path, **content) -> None:
    (folder / "sub-01_pet.json").write_text(json.dumps(content))
