"""The embedded data of inference: CT test phantoms as a quarter of their dose, or larger pixels, had shown them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from ctrestore.ct import STORED_RANGE_HU, add_noise, coarser_affine, lower_resolution, simulate_low_dose
from ctrestore.io import marks
from ctrestore.io.nifti import write_nifti
from ctrestore.tasks.ct_slices import EMBEDDED

DOSE_FRACTION = 0.25
N_OF_A_KIND = 2


Degrade = Callable[[np.ndarray, np.ndarray, int], tuple[np.ndarray, np.ndarray]]


def quarter_dose_phantoms(folder: Path) -> Path:
    """Make what is missing of the phantoms in a folder, two chests and two abdomens: half a minute, once.

    Their full dose is kept beside it, in ``full_dose``.
    """

    def lower(volume: np.ndarray, affine: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
        spacing_mm = np.linalg.norm(affine[:3, :2], axis=0)
        slices = np.moveaxis(volume, -1, 0)
        noisy = simulate_low_dose(slices, dose_fraction=DOSE_FRACTION, spacing_mm=spacing_mm.tolist(), seed=seed)
        return np.moveaxis(noisy, 0, -1), affine

    return _made(folder, "full_dose", "a quarter of the dose", lower)


def coarse_phantoms(folder: Path) -> Path:
    """Make what is missing of the phantoms in a folder, of pixels twice as wide and with noise of 28 HU: once.

    What they are the means of is kept beside them, in ``fine``.
    """
    factors = (2, 2, 1)

    def lower(volume: np.ndarray, affine: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
        noisy = add_noise(lower_resolution(volume, factors=factors), "gaussian", seed=seed)
        return noisy.clip(*STORED_RANGE_HU), coarser_affine(affine, factors=factors)

    return _made(folder, "fine", "half of the resolution", lower)


def _made(folder: Path, kept: str, what: str, degrade: Degrade) -> Path:
    """Make the missing ones of degraded phantoms; the others are in the sub-folder ``kept``."""
    from ctrestore.phantoms.ct import KINDS, write_ct_cohort

    made: dict[Path, Path] = {}
    for kind in KINDS:
        n_slices = EMBEDDED["n_slices"]
        cohort = write_ct_cohort(
            folder / kept, kind, n_training=0, n_validation=0, n_test=N_OF_A_KIND, n_slices=n_slices
        )
        made |= {folder / f"{e['subject']}_ct.nii.gz": folder / kept / e["image"] for e in cohort["test"]}
    missing = {low: full for low, full in made.items() if not low.is_file()}
    if missing:
        print(f"Simulating {what} of {len(missing)} CT phantoms in {folder} (once)", flush=True)
    for seed, (low, full) in enumerate(missing.items()):
        image: Any = nib.load(full)
        volume, affine = degrade(image.get_fdata(dtype=np.float32), image.affine, seed)
        twin = nib.Nifti1Image(np.rint(volume).astype(np.int16), affine, image.header)
        write_nifti(twin, low, description=marks.degraded_phantom(what))
    return folder
