"""The table of tasks: one row for each bundle, which says what its data look like on disk.

A new bundle is its folders and a row here. ``ctrestore data-list`` and the tests of all bundles read the table. It
imports nothing, so that ``--help`` answers at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class Task:
    """A row: where files lie when the user gives no patterns (globs relative to the root); empty: patterns needed.

    Attributes:
        images: globs of the network's input.
        labels: glob of everything that may be a label.
        label_kind: regular expression that a label's file name matches; its group is the kind, one per list.
        maps: optional keys of an entry, each with the glob of its files.
        off_grid_maps: the optional keys that need not share the image's grid.
        ct: "pairs" of low and full dose, "full" dose alone, or a folder for each of the "classes"; see `ct_layouts`.
    """

    images: tuple[str, ...] = ()
    labels: str = ""
    label_kind: str = ""
    maps: Mapping[str, str] = field(default_factory=dict)
    off_grid_maps: tuple[str, ...] = ()
    ct: Literal["pairs", "full", "classes", ""] = ""


#: By the name of the bundle's folder.
TASKS: dict[str, Task] = {
    "pet_pvc": Task(
        images=("sub-*/pet/*_pet.nii*", "sub-*/ses-*/pet/*_pet.nii*"),
        labels="derivatives/*/sub-*/**/*_pet.nii*",
        label_kind=r"_(desc-[^_/]*pvc[^_/]*|desc-truth|pvc-[^_/]+)_pet\.nii",  # PETPrep writes _pvc-<METHOD>
        maps={
            "truth": "derivatives/*/sub-*/**/*_desc-truth_pet.nii*",
            "grey_matter": "derivatives/*/sub-*/**/*_label-GM_probseg.nii*",
            "white_matter": "derivatives/*/sub-*/**/*_label-WM_probseg.nii*",
            "csf": "derivatives/*/sub-*/**/*_label-CSF_probseg.nii*",
            "parcels": "derivatives/*/sub-*/**/*_desc-parcels_dseg.nii*",
            "lesions": "derivatives/*/sub-*/**/*_desc-lesions_dseg.nii*",
            "t1": "sub-*/**/anat/*_T1w.nii*",
        },
        off_grid_maps=("t1",),
    ),
    "ldct_denoising": Task(ct="pairs"),
    "ct_super_resolution": Task(ct="full"),
    "lung_ct_classification": Task(ct="classes"),
}
