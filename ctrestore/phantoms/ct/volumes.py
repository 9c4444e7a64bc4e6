"""CT phantoms on disk: NIfTI or DICOM, labels, a sidecar with the truth, and the data list."""

from __future__ import annotations

import json
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import nibabel as nib
import numpy as np
from tqdm import tqdm

from ctrestore.errors import InputError
from ctrestore.io import marks
from ctrestore.io.dicom import write_phantom_series
from ctrestore.io.nifti import write_nifti
from ctrestore.io.whole import read_json, write_json
from ctrestore.phantoms.ct.phantom import KINDS, CTPhantom, Kind, abdomen, chest
from ctrestore.phantoms.ct.thorax import NoduleKind
from ctrestore.phantoms.ct.torso import Tissue
from ctrestore.phantoms.writing import MAX_PROCESSES, n_cores

Format = Literal["nifti", "dicom"]
FORMATS: tuple[Format, ...] = get_args(Format)
NAME, DESCRIPTION = "ctrestore CT phantoms", "dataset_description.json"
GENERATOR_VERSION = "1"  # raise it with every change of any voxel
CLASSES: tuple[Literal["normal"] | NoduleKind, ...] = ("normal", "solid", "part-solid", "ground-glass")
# First seeds of the sections, so that no person is in two sections and a small cohort is the start of a large one.
FIRST_SEED = {"training": 0, "validation": 100_000, "test": 200_000}


def write_ct_cohort(
    folder: str | Path,
    kind: Kind,
    *,
    n_training: int = 40,
    n_validation: int = 4,
    n_test: int = 8,
    n_slices: int = 8,
    matrix: int = 512,
    file_format: Format = "nifti",
    n_processes: int | None = None,
) -> dict[str, Any]:
    """Write the missing phantoms to ``folder``, and return their MONAI data list with relative paths.

    About 0.3 s per person and 0.2 s per slice. An entry holds ``subject``, ``image`` (a file, or a folder of DICOM
    files), ``regions`` (labels of `Tissue`) and ``n_findings`` (nodules, or lesions of the liver, in the slices).
    Chests alternate between the four `CLASSES`, by the kind of their one to three nodules; an entry also has its
    ``class``.

    Args:
        folder: created if missing.
        kind: ``chest`` or ``abdomen``; a folder may hold both.
        n_training: persons for training.
        n_validation: persons for choosing a checkpoint.
        n_test: persons for the test.
        n_slices: of each person.
        matrix: pixels along a side of a slice.
        file_format: of the image; labels are always NIfTI.
        n_processes: at once; by default one per core, at most `MAX_PROCESSES`.

    Raises:
        InputError: an unknown kind or format, negative counts, no process, or a folder of other data or other phantoms.
    """
    if kind not in KINDS or file_format not in FORMATS:
        raise InputError(
            f"Expected a kind of {', '.join(KINDS)} and a format of {', '.join(FORMATS)}; "
            f"got {kind!r} and {file_format!r}."
        )
    counts = dict(zip(FIRST_SEED, (n_training, n_validation, n_test)))
    if min(counts.values()) < 0:
        raise InputError(f"Counts of persons cannot be negative; got {counts}.")
    folder = Path(folder)
    size = {"n_slices": n_slices, "matrix": matrix}
    check_folder(folder, name=NAME, version=GENERATOR_VERSION)
    if n_processes is not None and n_processes < 1:
        raise InputError(f"n_processes must be at least 1, or None for one per core; got {n_processes}.")
    persons = [(section, i) for section, n in counts.items() for i in range(n)]
    listed: dict[str, Any] = {"description": f"{NAME}: {kind}", **{section: [] for section in counts}}
    listed |= {"classes": list(CLASSES)} if kind == "chest" else {}
    write = partial(_write, folder, kind, size, file_format)
    progress = partial(tqdm, total=len(persons), desc=f"{kind} phantoms", unit="scan", delay=2, disable=None)
    n_processes = min(n_processes or n_cores(), max(len(persons), 1), MAX_PROCESSES)
    if n_processes == 1:
        entries = list(progress(map(write, persons)))
    else:
        with ProcessPoolExecutor(n_processes) as pool:
            entries = list(progress(pool.map(write, persons)))
    for (section, _), entry in zip(persons, entries):
        listed[section].append(entry)
    return listed


def _write(
    folder: Path, kind: Kind, size: dict[str, int], file_format: Format, person: tuple[str, int]
) -> dict[str, Any]:
    """Write one person's files, the sidecar last: if it exists, everything does."""
    section, i = person
    subject = f"sub-{kind}{section}{i:03d}"
    stem = f"{subject}/ct/{subject}"
    image = f"{stem}_ct.nii.gz" if file_format == "nifti" else f"{stem}_dicom"
    regions = f"derivatives/phantom/{subject}/ct/{subject}_dseg.nii.gz"
    sidecar = folder / f"{stem}_{file_format}.json"
    if sidecar.is_file():
        truth = read_json(sidecar)
        if any(truth.get(key) != value for key, value in size.items()):
            raise InputError(
                f"{sidecar}: this phantom has {truth.get('n_slices')} slices of {truth.get('matrix')} pixels, and "
                f"{size['n_slices']} of {size['matrix']} were asked for. Remedy: name another folder, or remove it."
            )
    else:
        phantom = _make(kind, section, i, **size)
        write_labels(phantom, folder / regions)
        if file_format == "nifti":
            write_hu(phantom, folder / image)
        else:
            write_dicom(phantom, folder / image, name=subject)
        truth = {**size, **truth_of(phantom)}
        write_json(truth, sidecar)
    entry = {"subject": subject, "image": image, "regions": regions, "n_findings": len(truth["findings"])}
    return {**entry, "class": CLASSES[i % len(CLASSES)]} if kind == "chest" else entry


def _make(kind: Kind, section: str, i: int, *, n_slices: int, matrix: int) -> CTPhantom:
    """The person number ``i`` of a section."""
    seed = FIRST_SEED[section] + i
    if kind == "abdomen":
        return abdomen(seed, n_slices=n_slices, matrix=matrix)
    round_, turn = divmod(i, len(CLASSES))
    if (nodule := CLASSES[turn]) == "normal":
        return chest(seed, n_slices=n_slices, matrix=matrix, n_nodules=0)
    return chest(seed, n_slices=n_slices, matrix=matrix, n_nodules=1 + round_ % 3, nodule_kind=nodule)


def write_hu(phantom: CTPhantom, path: Path) -> None:
    """The HU as int16 NIfTI."""
    write_volume(np.rint(phantom.hu).astype(np.int16), phantom.affine, path, what=_what(phantom))


def write_labels(phantom: CTPhantom, path: Path) -> None:
    """The labels as uint8 NIfTI."""
    write_volume(phantom.labels, phantom.affine, path, what=_what(phantom))


def write_dicom(phantom: CTPhantom, folder: Path, *, name: str) -> list[Path]:
    """The HU as a CT series, one file per slice, rows to the patient's left as scanners write them."""
    flip = np.diag([-1.0, -1.0, 1.0, 1.0])
    flip[:2, 3] = np.array(phantom.hu.shape[:2]) - 1
    return write_phantom_series(
        phantom.hu[::-1, ::-1], phantom.affine @ flip, folder, name=name, description=_what(phantom)
    )


def truth_of(phantom: CTPhantom) -> dict[str, Any]:
    """Content of the sidecar: seed, contrast phase, findings (mm, RAS) and the meaning of the labels."""
    return {
        "kind": phantom.kind,
        "seed": phantom.seed,
        "phase": phantom.phase,
        "spacing_mm": [round(size, 6) for size in phantom.spacing_mm],
        "findings": [
            {
                "what": finding.what,
                "kind": finding.kind,
                "centre_mm": [round(value, 3) for value in finding.centre_mm],
                "diameter_mm": round(finding.diameter_mm, 3),
                "contrast_hu": finding.contrast_hu,
            }
            for finding in phantom.findings
        ],
        "labels": {tissue.name.lower(): int(tissue) for tissue in Tissue},
    }


def _what(phantom: CTPhantom) -> str:
    return f"{phantom.kind} phantom, seed {phantom.seed}"


def write_volume(voxels: np.ndarray, affine: np.ndarray, path: Path, *, what: str) -> None:
    """Write voxels ``(x, y, z)`` as NIfTI in mm, atomically."""
    image = nib.Nifti1Image(voxels, affine)
    image.header.set_xyzt_units("mm", "sec")
    image.set_qform(affine, code=1)
    image.set_sform(affine, code=1)
    write_nifti(image, path, description=marks.phantom(what))


def check_folder(folder: Path, *, name: str, version: str) -> None:
    """Refuse other data and other phantoms; a new folder gets a description that identifies it."""
    path = folder / DESCRIPTION
    if path.is_file():
        text = json.loads(path.read_text(encoding="utf-8"))
        found = text.get("GeneratedBy", [{}])[0].get("Version")
        if text.get("Name") != name or found != version:
            raise InputError(
                f"{folder} holds {text.get('Name')!r} of version {found}; expected {name!r} of version {version}. "
                "Remedy: name an empty folder, or remove that one."
            )
    elif folder.is_dir() and any(not entry.name.startswith(".") for entry in folder.iterdir()):
        raise InputError(f"{folder} holds other data than CT phantoms. Remedy: name an empty folder for the phantoms.")
    else:
        generator = {"Name": "ctrestore phantoms", "Version": version}
        write_json({"Name": name, "BIDSVersion": "1.10.0", "DatasetType": "raw", "GeneratedBy": [generator]}, path)
