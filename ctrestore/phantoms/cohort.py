"""The embedded subjects: their properties, their images, and the names of their files in a BIDS-like folder.

Training and validation heads come from the families ``template`` and ``folded``; the test heads from ``ribbon``, with
patterns of uptake, point spread functions and grids that are in no training head.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import nibabel as nib
import numpy as np

from ctrestore import __version__
from ctrestore.errors import InputError
from ctrestore.phantoms.anatomy import Anatomy, Family, build_anatomy, scalp_and_skull
from ctrestore.phantoms.scan import Grid, acquire, resample_to_grid
from ctrestore.phantoms.uptake import TRACERS, draw_uptake

Split = Literal["training", "validation", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)
# Like the PET of ADNI's sites: matrices of 160 x 192 x 160 to 256 x 288 x 288, voxels of 0.92 to 1.25 mm.
ADNI_GRIDS = (
    Grid((192, 224, 200), (1.0, 1.0, 1.0), "RAS"),
    Grid((200, 224, 200), (1.0, 1.0, 1.0), "LAS"),
    Grid((160, 192, 160), (1.2, 1.2, 1.2), "LPS"),
    Grid((208, 240, 208), (0.95, 0.95, 1.0), "RAS"),
)
# None of the above: another voxel size, another orientation, a tilt, or several of these.
TEST_GRIDS = (
    Grid((160, 192, 168), (1.25, 1.25, 1.25), "LPI"),
    Grid((256, 256, 207), (1.02, 1.02, 1.02), "RAI", (4.0, -3.0)),
    Grid((208, 232, 256), (0.94, 0.94, 0.94), "LSA"),
    Grid((168, 232, 208), (1.2, 1.05, 1.05), "RAS", (-5.0, 0.0)),
    Grid((256, 256, 200), (0.92, 0.92, 1.0), "PIR"),
    Grid((240, 224, 192), (1.0, 1.0, 1.0), "PSR"),
    Grid((160, 160, 96), (1.22, 1.5, 2.0), "RPI"),
    Grid((176, 208, 176), (1.17, 1.17, 1.17), "RPS", (0.0, 6.0)),
)


# Transaxial and axial FWHM in mm. Training draws both from 4.5 to 7.5, at most 0.8 apart; all of these are outside:
# narrower, wider, or longer in one direction.
TEST_FWHM_MM = ((4.2, 4.2), (8.0, 8.0), (6.0, 7.5), (5.0, 6.5), (7.6, 5.0), (6.5, 5.0), (4.6, 8.0), (4.4, 5.5))


@dataclass(frozen=True)
class Subject:
    """Everything that decides a phantom: the same subject always gives the same images."""

    name: str
    split: Split
    family: Family
    tracer: str  # key of `TRACERS`
    fwhm_mm: tuple[float, float, float]  # along the world's x, y, z
    noise: float  # relative standard deviation at the mean of the head, see `acquire`
    scale_bq_per_ml: float  # mean true activity of the grey matter
    grid: Grid
    seed: int


def _subject(split: Split, index: int) -> Subject:
    """The subject of that number; each has its own generator, so more subjects do not change the first ones."""
    rng = np.random.default_rng([SPLITS.index(split), index, 2021])
    family: Family
    if split == "test":
        family = "ribbon"
        tracer = ("FDGAD", "PIBpos", "FDGAD", "PIBneg")[index % 4]
        transaxial, axial = TEST_FWHM_MM[index % len(TEST_FWHM_MM)]
        grid = TEST_GRIDS[index % len(TEST_GRIDS)]
    else:
        # Periods of 2, 8 and 12 subjects: every family is combined with every tracer and every grid.
        family = "template" if index % 2 == 0 else "folded"
        tracer = ("AV45neg", "FDG", "AV45pos", "contrast")[index // 2 % 4]
        transaxial = float(np.round(rng.uniform(4.5, 7.5), 2))
        axial = float(np.round(np.clip(transaxial + rng.uniform(-0.8, 0.8), 4.5, 7.5), 2))
        grid = ADNI_GRIDS[(0, 1, 2, 0, 1, 3)[index // 2 % 6]]
    return Subject(
        name=f"sub-{split}{index:02d}",
        split=split,
        family=family,
        tracer=tracer,
        fwhm_mm=(transaxial, transaxial, axial),
        noise=float(np.round(rng.uniform(0.02, 0.07), 3)),
        scale_bq_per_ml=float(np.round(rng.uniform(3e3, 1.2e4))),
        grid=grid,
        seed=int(rng.integers(2**31)),
    )


def cohort(n_training: int = 40, n_validation: int = 4, n_test: int = 8) -> list[Subject]:
    """The embedded subjects; a smaller cohort is the beginning of a larger one.

    Raises:
        InputError: a count is negative.
    """
    if min(n_training, n_validation, n_test) < 0:
        raise InputError(f"Counts of subjects cannot be negative; got {n_training}, {n_validation} and {n_test}.")
    return [_subject(split, i) for split, n in zip(SPLITS, (n_training, n_validation, n_test)) for i in range(n)]


def files_of(subject: Subject) -> dict[str, str]:
    """Data-list keys of a subject and their files, relative to the phantom folder; the target is the true activity."""
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
    """MONAI data list of the subjects, one section per split, paths relative to the phantom folder."""
    listed: dict[str, Any] = {
        "description": "Embedded brain PET phantoms (ctrestore phantoms): the split and the subjects are fixed.",
        **{split: [] for split in SPLITS},
    }
    for subject in subjects:
        listed[subject.split].append({"subject": subject.name, **files_of(subject)})
    return listed


def _t1(anatomy: Anatomy, seed: int) -> np.ndarray:
    """A T1-weighted image of the head: grey 600, white 850, CSF 250, skin 700, with noise and a bias field."""
    skin, _ = scalp_and_skull(anatomy.depth_mm)
    clean = 600 * anatomy.grey_matter + 850 * anatomy.white_matter + 250 * anatomy.csf + 700 * skin
    rng = np.random.default_rng([seed, 3])
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, n, dtype=np.float32) for n in clean.shape), indexing="ij", sparse=True)
    bias = 1 + sum(rng.uniform(-0.08, 0.08) * axis for axis in (x, y, z))
    return np.maximum(clean * bias + 12 * rng.standard_normal(clean.shape, dtype=np.float32), 0).astype(np.float32)


def sidecar_of(subject: Subject) -> dict[str, Any]:
    """Content of the PET's JSON sidecar, with PETPrep's names for the FWHM (mm, along the world's axes)."""
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
        "GeneratedBy": f"ctrestore {__version__}",
    }


def render(subject: Subject) -> dict[str, nib.Nifti1Image]:
    """All images of a subject on its own grid, by data-list key, without ``label``, which is ``truth``.

    Activities are in Bq/ml, tissues are fractions; all are float32, except the uint8 ``parcels`` and ``lesions``.
    About 10 s on one core.
    """
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
