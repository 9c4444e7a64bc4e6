"""The lung phantoms of a classifier on disk: one slice per person, and the data list with their classes."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from ctrestore.errors import InputError
from ctrestore.io.whole import read_json, write_json
from ctrestore.phantoms.ct.lung_classes import LungPhantom, lung_slice
from ctrestore.phantoms.ct.tumours import LUNG_CLASSES
from ctrestore.phantoms.ct.volumes import FIRST_SEED, check_folder, write_volume
from ctrestore.phantoms.writing import MAX_PROCESSES, n_cores

NAME = "ctrestore lung phantoms"
GENERATOR_VERSION = "1"  # raise it with every change of any voxel
LUNG_COHORT = {"n_training": 480, "n_validation": 80, "n_test": 240}  # the test is large for narrow intervals
LUNG_FIRST_SEED = {**FIRST_SEED, "calibration": 300_000}


def write_lung_cohort(
    folder: str | Path,
    *,
    n_training: int = LUNG_COHORT["n_training"],
    n_validation: int = LUNG_COHORT["n_validation"],
    n_test: int = LUNG_COHORT["n_test"],
    n_calibration: int | None = None,
    matrix: int = 512,
    n_processes: int | None = None,
) -> dict[str, Any]:
    """Write the missing slices to ``folder``, and return their MONAI data list with relative paths.

    About 0.6 s per person on a core. An entry holds ``subject``, ``image``, ``label`` and ``class``; the list's
    ``classes`` are sorted names, and a label is an index into them. Persons alternate between the classes.
    A simulation of a lower dose needs ``photons_per_ray`` of the full dose.

    Args:
        folder: created if missing.
        n_training: persons for training.
        n_validation: persons for choosing a checkpoint.
        n_test: persons for the test.
        n_calibration: persons for fitting the temperature, not used for choosing an epoch; by default ``n_validation``.
        matrix: pixels along a side of a slice.
        n_processes: at once; by default one per core, at most `MAX_PROCESSES`.

    Raises:
        InputError: negative counts, no process, or a folder of other data or other phantoms.
    """
    if n_calibration is None:
        n_calibration = n_validation
    counts = dict(zip(LUNG_FIRST_SEED, (n_training, n_validation, n_test, n_calibration)))
    if min(counts.values()) < 0 or (n_processes is not None and n_processes < 1):
        raise InputError(
            f"Counts of persons cannot be negative, and n_processes must be at least 1, or None for one per core; got "
            f"{counts} and {n_processes}."
        )
    folder = Path(folder)
    check_folder(folder, name=NAME, version=GENERATOR_VERSION)
    persons = [(section, i) for section, n in counts.items() for i in range(n)]
    listed: dict[str, Any] = {"description": NAME, "classes": list(LUNG_CLASSES), **{name: [] for name in counts}}
    write = partial(_write, folder, matrix)
    progress = partial(tqdm, total=len(persons), desc="lung phantoms", unit="slice", delay=2, disable=None)
    n_processes = min(n_processes or n_cores(), max(len(persons), 1), MAX_PROCESSES)
    if n_processes == 1:
        entries = list(progress(map(write, persons)))
    else:
        with ProcessPoolExecutor(n_processes, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            entries = list(progress(pool.map(write, persons, chunksize=4)))
    for (section, _), entry in zip(persons, entries):
        listed[section].append(entry)
    return listed


def _write(folder: Path, matrix: int, person: tuple[str, int]) -> dict[str, Any]:
    """Write one person's slice, and the sidecar last: if it exists, everything does."""
    section, i = person
    subject = f"sub-lung{section}{i:03d}"
    label = i % len(LUNG_CLASSES)
    image = f"{subject}/ct/{subject}_ct.nii.gz"
    sidecar = folder / subject / "ct" / f"{subject}_ct.json"
    if sidecar.is_file():
        if (made := read_json(sidecar).get("matrix")) != matrix:
            raise InputError(
                f"{sidecar}: this phantom has {made} pixels per side, and {matrix} were asked for. Remedy: name "
                "another folder, or remove this one."
            )
    else:
        phantom = lung_slice(LUNG_FIRST_SEED[section] + i, LUNG_CLASSES[label], matrix=matrix)
        what = f"lung phantom, seed {phantom.seed}"
        write_volume(np.rint(phantom.hu).astype(np.int16), phantom.affine, folder / image, what=what)
        write_json({"matrix": matrix, **_truth_of(phantom)}, sidecar)
    photons = read_json(sidecar)["photons_per_ray"]
    return {
        "subject": subject, "image": image, "label": label, "class": LUNG_CLASSES[label], "photons_per_ray": photons,
    }  # fmt: skip


def _truth_of(phantom: LungPhantom) -> dict[str, Any]:
    """Content of the sidecar: seed, class, contrast phase, and the tumour (mm, RAS)."""
    tumour = None
    if phantom.tumour is not None:
        x, y, z = phantom.tumour.body.centre_mm
        hole = phantom.tumour.cavity
        tumour = {
            "centre_mm": [round(-x, 3), round(-y, 3), round(z, 3)],
            "diameter_mm": round(phantom.tumour.body.diameter_mm, 3),
            "n_spikes": len(phantom.tumour.spikes),
            "cavity_diameter_mm": None if hole is None else round(hole.diameter_mm, 3),
        }
    return {
        "seed": phantom.seed,
        "class": phantom.lung_class,
        "phase": phantom.phase,
        "photons_per_ray": round(phantom.photons_per_ray),
        "tumour": tumour,
    }
