"""Which PET, tissue maps and parcels belong together: from their names alone."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ctrestore.data_lists import TASKS
from ctrestore.data_lists.pairing import ScanFile, belongs, find_files, named_scans
from ctrestore.errors import InputError

TISSUES = ("grey_matter", "white_matter", "csf")
MAPS = (*TISSUES, "parcels")
NEEDED = ("grey_matter", "white_matter")
NONE = "none"  # in place of a pattern: leave this map out

_ENDINGS = {
    "grey_matter": "_label-GM_probseg.nii*",
    "white_matter": "_label-WM_probseg.nii*",
    "csf": "_label-CSF_probseg.nii*",
    "parcels": "_dseg.nii*",
}
# Spaces of the subject's own head; a map in a template's space lies on another head.
_OWN_SPACES = ("", "pet", "T1w", "individual", "scanner", "orig", "fsnative")
# Parcellations by preference; a _dseg that names none of them is a tissue segmentation, and lesions are no parcels.
_PARCELS = (r"_desc-parcels_", r"_desc-aparcaseg_", r"_desc-aparca2009saseg_", r"_(?:atlas|seg)-", r"_desc-aseg_")


@dataclass(frozen=True)
class Sources:
    """The files that the label of one scan is made from.

    Attributes:
        subject: as the data list will call it.
        image: the PET.
        maps: paths by key of ``MAPS``; CSF and parcels are not always there.
        section: of the data list, where it is fixed (embedded data).
        more: further files of its entry in the data list.
    """

    subject: str
    image: Path
    maps: Mapping[str, Path]
    section: str | None = None
    more: Mapping[str, Path] = field(default_factory=dict)


def find_sources(
    root: Path, patterns: Mapping[str, str | None], *, pet: str | None = None
) -> tuple[list[Sources], dict[Path, str]]:
    """The scans under ``root`` that a label can be made of, and of the others what is wrong, by their PET.

    Args:
        root: BIDS data set, its maps in it or in its ``derivatives/``, or any folder that the patterns describe.
        patterns: globs of the maps by key, relative to the root; ``{subject}`` stands for the subject's name; None: the
            BIDS names; ``none``: without that map.
        pet: glob of the PETs; None: the BIDS names.

    Raises:
        InputError: there is no PET, or a pattern matches nothing.
    """
    if pet is not None:
        images = find_files(root, pet)
    else:
        found = [file for pattern in TASKS["pet_pvc"].images for file in named_scans(root, pattern)]
        images = [file for file in found if "_desc-" not in file.path]  # raw BIDS names carry no desc
        if not images:
            raise InputError(
                f"{root} holds no BIDS PET ({' or '.join(TASKS['pet_pvc'].images)}). Remedy: name the folder that "
                'holds the subjects, or say where the files lie: --pet "{subject}/pet.nii.gz" --grey_matter '
                '"{subject}/c1.nii.gz" --white_matter "{subject}/c2.nii.gz".'
            )
    candidates = {key: _candidates(root, key, patterns.get(key)) for key in MAPS}
    usable, problems = [], {}
    for image in images:
        try:
            chosen = {key: _choose(root, image, key, candidates[key], patterns.get(key)) for key in MAPS}
        except ValueError as error:
            problems[root / image.path] = str(error)
            continue
        maps = {key: root / path for key, path in chosen.items() if path is not None}
        usable.append(Sources(image.subject, root / image.path, maps))
    return usable, problems


def _candidates(root: Path, key: str, pattern: str | None) -> dict[str, list[ScanFile]]:
    """Files that may be a map, by subject."""
    if pattern == NONE:
        return {}
    if pattern is not None:
        files = find_files(root, pattern)
    else:
        places = ("sub-*/**/*", "derivatives/*/sub-*/**/*", "derivatives/sub-*/**/*")
        files = [file for place in places for file in named_scans(root, place + _ENDINGS[key])]
        files = [file for file in files if _entity("space", file) in _OWN_SPACES and not _entity("hemi", file)]
    by_subject = defaultdict(list)
    for file in files:
        by_subject[file.subject].append(file)
    return by_subject


def _choose(
    root: Path, image: ScanFile, key: str, candidates: Mapping[str, Sequence[ScanFile]], pattern: str | None
) -> str | None:
    """The path of the one map that belongs to a scan, or None where an optional one is missing.

    Raises:
        InputError: several could be meant, or a map that is needed is missing.
    """
    fitting = [file for file in candidates.get(image.subject, ()) if belongs(file, image, ("ses", "trc"))]
    if pattern is None:
        in_pet_space = [file for file in fitting if _entity("space", file) == "pet"]
        fitting = in_pet_space or fitting
        if key == "parcels":
            ranked = ([file for file in fitting if re.search(kind, file.path)] for kind in _PARCELS)
            fitting = next((files for files in ranked if files), [])
    if len(fitting) > 1:
        names = " and ".join(str(root / file.path) for file in fitting[:2])
        raise InputError(
            f"{len(fitting)} files could be its {key}: {names}. Remedy: --{key} with a pattern that only one matches"
            + ("." if key in NEEDED else f", or --{key} {NONE}.")
        )
    if not fitting and key in NEEDED:
        raise InputError(
            f"no {key} of {image.subject} found ({pattern or '*' + _ENDINGS[key]} in {root} or its derivatives). "
            f'Remedy: segment the MRI, or --{key} "PATTERN" with {{subject}} where the subject\'s name stands.'
        )
    return fitting[0].path if fitting else None


def _entity(name: str, file: ScanFile) -> str:
    """A BIDS entity of a file's name, empty where it has none."""
    found = re.search(rf"_{name}-([^_/.]+)", file.path)
    return found[1] if found else ""
