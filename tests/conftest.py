"""Fixtures that more than one test module uses."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import TypeVar

import nibabel as nib
import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ctrestore.psf import blur
from ctrestore.tasks.runtime import error_inside

ROOT = Path(__file__).parent.parent
SPACING_MM, FWHM_MM = 4.0, 10.0
Case = TypeVar("Case")


def cases(found: Iterable[Case], at_least: int = 1) -> list[Case]:
    """Cases of a parametrised test that are searched for (files, printed commands), not written down.

    A search that finds nothing any more must fail: pytest would skip the test, and nobody would see it.
    """
    listed = list(found)
    assert len(listed) >= at_least, f"expected {at_least} cases or more; found {len(listed)}: {listed}"
    return listed


@pytest.fixture(scope="session", autouse=True)
def few_threads():
    """Tiny tensors are no faster on many threads, and much slower where others use the machine."""
    torch.set_num_threads(1)


@pytest.fixture
def drawings(monkeypatch) -> list[Figure]:
    """Every figure that is saved, in order; the files are written all the same."""
    saved: list[Figure] = []
    save = Figure.savefig

    def noted(figure, *args, **kwargs):
        saved.append(figure)
        return save(figure, *args, **kwargs)

    monkeypatch.setattr(Figure, "savefig", noted)
    return saved


def image_in(axes: Axes) -> np.ndarray:
    """The values of the one image that these axes show."""
    (image,) = axes.get_images()
    return np.asarray(image.get_array())


@contextmanager
def refused(match: str = "") -> Iterator[SimpleNamespace]:
    """The block ends with an error of ours, which may be inside of MONAI's."""
    caught = SimpleNamespace(value=None)
    try:
        yield caught
    except Exception as error:
        caught.value = error_inside(error)
        if caught.value is None:
            raise
    else:
        pytest.fail("nothing was refused")
    assert re.search(match, str(caught.value)), str(caught.value)


def write_nifti(path: Path, data: np.ndarray, affine: np.ndarray | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(data, np.diag([SPACING_MM] * 3 + [1.0]) if affine is None else affine)
    image.header.set_xyzt_units("mm", "sec")
    nib.save(image, path)
    return path


@pytest.fixture(scope="session")
def tiny_heads(tmp_path_factory) -> Path:
    """Eight small heads (a shell of grey matter around white, 4 mm voxels) with truth, maps, sidecars and list.json."""
    root = tmp_path_factory.mktemp("tiny_heads")
    rng = np.random.default_rng(0)
    listed: dict[str, list] = {"training": [], "validation": [], "test": []}
    for i, section in enumerate(["training"] * 4 + ["validation"] * 2 + ["test"] * 2):
        name = f"sub-{i}"
        position = np.stack(np.meshgrid(*[np.arange(40.0)] * 3, indexing="ij"), -1) - 19.5 - rng.uniform(-2, 2, 3)
        radius = np.linalg.norm(position / [13.0, 15.0, 14.0], axis=-1)
        maps = {"grey_matter": (radius < 1) & (radius > 0.75), "white_matter": radius <= 0.75, "csf": radius < 0}
        maps = {key: values.astype(np.float32) for key, values in maps.items()}
        truth = 3000 * maps["grey_matter"] + 1000 * maps["white_matter"]
        side = 1 + (position[..., 0] > 0) + 2 * (position[..., 1] > 0)
        volumes = {
            "image": blur(truth, fwhm_mm=FWHM_MM, spacing_mm=SPACING_MM),
            "label": truth,
            **maps,
            "parcels": (side * (maps["grey_matter"] > 0)).astype(np.uint8),
        }
        entry = {"subject": name}
        for key, values in volumes.items():
            ending = {"image": "pet", "label": "desc-truth_pet"}.get(key, key)
            path = write_nifti(root / name / f"{name}_{ending}.nii.gz", values)
            entry[key] = path.relative_to(root).as_posix()
        sidecar = {f"FWHM_{axis}": FWHM_MM for axis in "xyz"}
        (root / name / f"{name}_pet.json").write_text(json.dumps(sidecar))
        listed[section].append(entry)
    (root / "list.json").write_text(json.dumps(listed, indent=4) + "\n")
    return root


def small(tiny_heads: Path, tmp_path: Path, **more) -> dict:
    """Overrides that shrink a run of bundles/pet_pvc to seconds."""
    return {
        "bundle_root": str(ROOT / "bundles" / "pet_pvc"),
        "data_list": str(tiny_heads / "list.json"),
        "dataset_dir": str(tiny_heads),
        "ckpt_dir": str(tmp_path / "runs"),
        "output_dir": str(tmp_path / "out"),
        "spacing_mm": 4.0,
        "cube_size": 48,
        "patch_size": [24, 24, 24],  # bfloat16 convolutions over 2 voxels are not reliable on CPUs
        "patches_per_subject": 2,
        "max_epochs": 2,
        "val_interval": 1,
        **more,
    }


@pytest.fixture(scope="session")
def tiny_bodies(tmp_path_factory) -> Path:
    """Six small bodies (fat, soft tissue, a lung, bone; 5 mm pixels, two slices) in HU, and their list.json."""
    root = tmp_path_factory.mktemp("tiny_bodies")
    rng = np.random.default_rng(0)
    listed: dict[str, list] = {"training": [], "validation": [], "test": []}
    for i, section in enumerate(["training"] * 3 + ["validation"] + ["test"] * 2):
        x, y, z = np.meshgrid(np.arange(64.0) - 31.5, np.arange(48.0) - 23.5, np.arange(2.0), indexing="ij")
        x, y = x + rng.uniform(-2, 2) + z, y + rng.uniform(-2, 2)
        hu = np.full(x.shape, -1000.0)
        hu[np.hypot(x / 26, y / 19) < 1] = -100
        hu[np.hypot(x / 23, y / 16) < 1] = 40
        hu[np.hypot((x - 10) / 7, y / 10) < 1] = -850
        hu[np.hypot(x + 8, y - 9) < 3] = 600
        write_nifti(root / f"body-{i}.nii.gz", hu.astype(np.int16), np.diag([5.0, 5.0, 3.0, 1.0]))
        listed[section].append({"subject": f"body-{i}", "image": f"body-{i}.nii.gz"})
    (root / "list.json").write_text(json.dumps(listed, indent=4) + "\n")
    return root


def small_ct(tiny_bodies: Path, tmp_path: Path, **more) -> dict:
    """Overrides that shrink a run of bundles/ldct_denoising to seconds."""
    return {
        "bundle_root": str(ROOT / "bundles" / "ldct_denoising"),
        "data_list": str(tiny_bodies / "list.json"),
        "dataset_dir": str(tiny_bodies),
        "ckpt_dir": str(tmp_path / "runs"),
        "output_dir": str(tmp_path / "out"),
        "network_def": {
            "_target_": "ctrestore.networks.UnshuffledUNet",
            "in_channels": 2,
            "features": [8, 8, 8],
            "encoder_blocks": [1, 1, 1],
            "decoder_blocks": [1, 1],
        },
        "patch_size": [32, 32],
        "batch_size": 4,
        "patches_per_slice": 2,
        "max_epochs": 2,
        "val_interval": 1,
        "n_noise": 2,
        "cache_dir": str(tiny_bodies / "cache"),  # projecting is what takes the time
        "validation_doses": [0.1],
        **more,
    }


CLASSES = ["adenocarcinoma", "large.cell.carcinoma", "normal", "squamous.cell.carcinoma"]
CHESTS = {"training": 8, "validation": 4, "test": 4}


def chest_slice(label: int, rng: np.random.Generator, side: int = 48) -> np.ndarray:
    """A body ``(x, y)`` in HU whose class is in how much of it is bright."""
    x, y = np.meshgrid(*[np.arange(side) - side / 2 + rng.uniform(-2, 2)] * 2, indexing="ij")
    hu = np.where(np.hypot(x / 20, y / 16) < 1, -850.0, -1000.0)
    hu[np.abs(np.hypot(x / 20, y / 16) - 1) < 0.12] = 40
    hu[np.hypot(x - 4, y) < 2.5 * label] = 60
    return hu + rng.normal(0, 20, hu.shape)


@pytest.fixture(scope="session")
def tiny_chests(tmp_path_factory) -> Path:
    """Sixteen small slices of four classes in HU, and their list.json."""
    root = tmp_path_factory.mktemp("tiny_chests")
    rng = np.random.default_rng(0)
    listed: dict = {"classes": CLASSES}
    for section, n in CHESTS.items():
        listed[section] = []
        for i in range(n):
            name = f"{section}-{i}.nii.gz"
            hu = chest_slice(i % 4, rng)[..., None].astype(np.int16)
            write_nifti(root / name, hu, np.diag([7.0, 7.0, 3.0, 1.0]))
            entry = {"subject": f"{section}-{i}", "image": name, "label": i % 4, "class": CLASSES[i % 4]}
            listed[section].append(entry)
    (root / "list.json").write_text(json.dumps(listed, indent=4) + "\n")
    return root
