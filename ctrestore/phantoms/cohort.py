"""The embedded subjects: who they are, and their files in a BIDS-like folder.

Training and validation heads come from the families ``template`` and ``folded``; the test heads from ``ribbon``, with
tracers, point spread functions, grids and orientations that no training head has.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from tqdm import tqdm

from ctrestore.phantoms.anatomy import Anatomy, Family, build_anatomy
from ctrestore.phantoms.scan import Grid, acquire, resample_to_grid
from ctrestore.phantoms.uptake import TRACERS, draw_uptake

SPLITS = ("training", "validation", "test")
ADNI_GRIDS = (
    # Matrix and voxel size of brain PET as ADNI sites stored it: 160-256 x 192-288 x 160-288 of 0.92-1.25 mm.
    Grid((192, 224, 200), (1.0, 1.0, 1.0), "RAS"),
    Grid((200, 224, 200), (1.0, 1.0, 1.0), "LAS"),
    Grid((160, 192, 160), (1.2, 1.2, 1.2), "LPS"),
    Grid((208, 240, 208), (0.95, 0.95, 1.0), "RAS"),
)
TEST_GRIDS = (
    Grid((160, 192, 168), (1.25, 1.25, 1.25), "LPI"),
    Grid((256, 256, 207), (1.02, 1.02, 1.02), "RAI", (4.0, -3.0)),
    Grid((208, 256, 232), (0.94, 0.94, 0.94), "LAS"),
    Grid((160, 200, 200), (1.2, 1.05, 1.05), "RAS", (-5.0, 0.0)),
    Grid((200, 256, 256), (1.0, 0.92, 0.92), "PIR"),
    Grid((192, 224, 208), (1.0, 1.0, 1.0), "PSR"),
    Grid((160, 160, 96), (1.22, 1.5, 2.0), "LPS"),
    Grid((176, 208, 176), (1.17, 1.17, 1.17), "RPS", (0.0, 6.0)),
)


@dataclass(frozen=True)
class Subject:
    """Everything that decides a phantom; the same subject always gives the same files."""

    name: str
    split: str
    family: Family
    tracer: str
    fwhm_mm: tuple[float, float, float]
    noise: float
    scale_bq_per_ml: float
    grid: Grid
    seed: int


def _subject(split: str, index: int) -> Subject:
    rng = np.random.default_rng([SPLITS.index(split), index, 2021])
    if split == "test":
        family, tracer = "ribbon", ("FDGAD", "PIBpos", "FDGAD", "PIBneg")[index % 4]
        # Odd widths that training does not draw: narrower, wider and with a long axial tail.
        transaxial, axial = (
            (4.2, 4.2),
            (8.0, 8.0),
            (6.0, 7.5),
            (5.0, 6.5),
            (7.6, 5.0),
            (6.5, 6.5),
            (4.6, 8.0),
            (5.5, 5.5),
        )[index % 8]
        grid = TEST_GRIDS[index % len(TEST_GRIDS)]
    else:
        family = ("template", "folded")[index % 2]
        tracer = ("AV45neg", "FDG", "AV45pos", "contrast")[index // 2 % 4]
        transaxial = float(np.round(rng.uniform(4.5, 7.5), 2))
        axial = float(np.round(np.clip(transaxial + rng.uniform(-0.8, 0.8), 4.5, 7.5), 2))
        grid = ADNI_GRIDS[(0, 1, 2, 0, 1, 3)[index // 2 % 6]]
    return Subject(
        name=f"sub-{split}{index:02d}",
        split=split,
        family=family,
        tracer=tracer,
        fwhm_mm=(float(transaxial), float(transaxial), float(axial)),
        noise=float(np.round(rng.uniform(0.02, 0.07), 3)),
        scale_bq_per_ml=float(np.round(rng.uniform(3e3, 1.2e4))),
        grid=grid,
        seed=int(rng.integers(2**31)),
    )


def cohort(n_training: int = 40, n_validation: int = 4, n_test: int = 8) -> list[Subject]:
    """The embedded subjects; a smaller cohort is the beginning of a larger one."""
    return [_subject(split, i) for split, n in zip(SPLITS, (n_training, n_validation, n_test)) for i in range(n)]


def files_of(subject: Subject) -> dict[str, str]:
    """Data-list keys of a subject and their files, relative to the phantom folder."""
    name, tracer = subject.name, TRACERS[subject.tracer].name
    derived = f"derivatives/phantom/{name}"
    return {
        "image": f"{name}/pet/{name}_trc-{tracer}_pet.nii.gz",
        "label": f"{derived}/pet/{name}_trc-{tracer}_desc-truth_pet.nii.gz",
        "truth": f"{derived}/pet/{name}_trc-{tracer}_desc-truth_pet.nii.gz",
        "grey_matter_concentration": f"{derived}/pet/{name}_trc-{tracer}_desc-greymatter_pet.nii.gz",
        "grey_matter": f"{derived}/anat/{name}_label-GM_probseg.nii.gz",
        "white_matter": f"{derived}/anat/{name}_label-WM_probseg.nii.gz",
        "csf": f"{derived}/anat/{name}_label-CSF_probseg.nii.gz",
        "parcels": f"{derived}/anat/{name}_desc-parcels_dseg.nii.gz",
        "lesions": f"{derived}/anat/{name}_desc-lesions_dseg.nii.gz",
        "t1": f"{name}/anat/{name}_T1w.nii.gz",
    }


def data_list(subjects: Iterable[Subject]) -> dict[str, Any]:
    """MONAI data list of the subjects, one section a split, paths relative to the phantom folder."""
    listed: dict[str, Any] = {
        "description": "Embedded brain PET phantoms (ctrestore phantoms): the split and the subjects are fixed.",
        **{split: [] for split in SPLITS},
    }
    for subject in subjects:
        listed[subject.split].append({"subject": subject.name, **files_of(subject)})
    return listed


def _t1(anatomy: Anatomy, seed: int) -> np.ndarray:
    """A T1-weighted image of the head: grey 600, white 850, CSF 250, skin 700, with noise and a bias field."""
    outer_mm = -anatomy.depth_mm
    skin = np.clip(outer_mm - 5.0, 0, 1) * np.clip(11.0 - outer_mm, 0, 1)
    clean = 600 * anatomy.grey_matter + 850 * anatomy.white_matter + 250 * anatomy.csf + 700 * skin
    rng = np.random.default_rng([seed, 3])
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, n, dtype=np.float32) for n in clean.shape), indexing="ij", sparse=True)
    bias = 1 + sum(rng.uniform(-0.08, 0.08) * axis for axis in (x, y, z))
    return np.maximum(clean * bias + 12 * rng.standard_normal(clean.shape, dtype=np.float32), 0).astype(np.float32)


def _sidecar(subject: Subject) -> dict[str, Any]:
    tracer = TRACERS[subject.tracer].name
    return {
        "Manufacturer": "ctrestore",
        "ManufacturersModelName": "brain PET phantom",
        "Units": "Bq/mL",
        "TracerName": tracer,
        "TracerRadionuclide": "C11" if tracer.startswith("11C") else "F18",
        "FWHM_x": subject.fwhm_mm[0],
        "FWHM_y": subject.fwhm_mm[1],
        "FWHM_z": subject.fwhm_mm[2],
        "PhantomFamily": subject.family,
        "PhantomUptake": subject.tracer,
        "PhantomNoise": subject.noise,
        "PhantomSeed": subject.seed,
        "GeneratedBy": f"ctrestore {version('ctrestore')}",
    }


def render(subject: Subject) -> dict[str, nib.Nifti1Image]:
    """All images of a subject on its own grid, by data-list key (``label`` is ``truth``); activity in Bq/ml."""
    anatomy = build_anatomy(subject.family, seed=subject.seed)
    uptake = draw_uptake(anatomy, TRACERS[subject.tracer], seed=subject.seed)
    scale = subject.scale_bq_per_ml / float(uptake.activity[anatomy.grey_matter > 0.5].mean())
    fwhm = subject.fwhm_mm
    pet = acquire(uptake.activity, fwhm_mm=fwhm, noise=subject.noise, seed=subject.seed) * scale
    volumes = {
        "image": pet,
        "truth": uptake.activity * scale,
        "grey_matter_concentration": uptake.grey_matter_concentration * scale,
        "grey_matter": anatomy.grey_matter,
        "white_matter": anatomy.white_matter,
        "csf": anatomy.csf,
        "t1": _t1(anatomy, subject.seed),
    }
    images = {k: resample_to_grid(v.astype(np.float32), anatomy.affine, subject.grid) for k, v in volumes.items()}
    for key, values in {"parcels": anatomy.parcels, "lesions": uptake.lesions}.items():
        images[key] = resample_to_grid(values, anatomy.affine, subject.grid, order=0)
    return images


def write_subject(subject: Subject, folder: Path) -> None:
    """Write a subject's images and sidecar under ``folder``; complete or not at all, skipped when already there."""
    files = files_of(subject)
    done = folder / subject.name
    if done.is_dir():
        return
    images = render(subject)
    staging = folder / f".{subject.name}.{os.getpid()}"
    shutil.rmtree(staging, ignore_errors=True)
    for key, image in images.items():
        path = staging / files[key]
        path.parent.mkdir(parents=True, exist_ok=True)
        if key in ("grey_matter", "white_matter", "csf"):  # probabilities in steps of 1/255
            image.set_data_dtype(np.uint8)
            image.header.set_slope_inter(1 / 255, 0)
            stored = nib.Nifti1Image(np.round(image.get_fdata() * 255).astype(np.uint8), image.affine, image.header)
            stored.header.set_slope_inter(1 / 255, 0)
            image = stored
        elif image.get_data_dtype() == np.float32:
            image.set_data_dtype(np.int16)  # nibabel chooses the slope, as scanners do
        nib.save(image, path)
    sidecar = staging / files["image"].replace(".nii.gz", ".json")
    sidecar.write_text(json.dumps(_sidecar(subject), indent=4) + "\n")
    derived = folder / "derivatives" / "phantom" / subject.name
    derived.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(derived, ignore_errors=True)
    (staging / "derivatives" / "phantom" / subject.name).rename(derived)
    (staging / subject.name).rename(done)  # last: this folder says that the subject is complete
    shutil.rmtree(staging)


def write_cohort(folder: Path, subjects: list[Subject], *, n_processes: int | None = None) -> Path:
    """Write the subjects that are missing under ``folder``, with a progress bar, and return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    description = folder / "dataset_description.json"
    if not description.exists():
        text = {"Name": "ctrestore brain PET phantoms", "BIDSVersion": "1.10.0", "DatasetType": "raw"}
        description.write_text(json.dumps(text, indent=4) + "\n")
    missing = [s for s in subjects if not (folder / s.name).is_dir()]
    if not missing:
        return folder
    n_processes = min(n_processes or os.cpu_count() or 1, len(missing), 8)
    started = time.monotonic()
    print(f"Making {len(missing)} brain PET phantoms in {folder} (once; about 10 s each and core)", flush=True)
    if n_processes == 1:
        for subject in tqdm(missing, desc="phantoms", unit="subject"):
            write_subject(subject, folder)
    else:
        with ProcessPoolExecutor(n_processes) as pool:
            write = partial(write_subject, folder=folder)
            for _ in tqdm(pool.map(write, missing), total=len(missing), desc="phantoms", unit="subject"):
                pass
    print(f"{len(missing)} phantoms in {time.monotonic() - started:.0f} s", flush=True)
    return folder
