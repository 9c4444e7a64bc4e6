"""The embedded data of inference: CT test phantoms as a quarter of their dose would have shown them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from ctrestore.ct import simulate_low_dose
from ctrestore.ct_bundle import EMBEDDED
from ctrestore.nifti import write_nifti
from ctrestore.phantoms.ct import KINDS, write_ct_cohort

DOSE_FRACTION = 0.25
N_OF_A_KIND = 2


def quarter_dose_phantoms(folder: Path) -> Path:
    """Make what is missing of the phantoms in a folder, two chests and two abdomens: half a minute, once.

    Their full dose is kept beside it, in ``full_dose``.
    """
    made: dict[Path, Path] = {}
    for kind in KINDS:
        n_slices = EMBEDDED["n_slices"]
        cohort = write_ct_cohort(
            folder / "full_dose", kind, n_training=0, n_validation=0, n_test=N_OF_A_KIND, n_slices=n_slices
        )
        made |= {folder / f"{e['subject']}_ct.nii.gz": folder / "full_dose" / e["image"] for e in cohort["test"]}
    missing = {low: full for low, full in made.items() if not low.is_file()}
    if missing:
        print(f"Simulating a quarter of the dose of {len(missing)} CT phantoms in {folder} (once)", flush=True)
    for seed, (low, full) in enumerate(missing.items()):
        image: Any = nib.load(full)
        slices = np.moveaxis(image.get_fdata(dtype=np.float32), -1, 0)
        spacing_mm = np.linalg.norm(image.affine[:3, :2], axis=0)
        noisy = simulate_low_dose(slices, dose_fraction=DOSE_FRACTION, spacing_mm=spacing_mm.tolist(), seed=seed)
        voxels = np.rint(np.moveaxis(noisy, 0, -1)).astype(np.int16)
        twin = nib.Nifti1Image(voxels, image.affine, image.header)
        write_nifti(twin, low, description="ctrestore phantom at a quarter of its dose")
    return folder
