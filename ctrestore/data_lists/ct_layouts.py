"""Layouts of CT data sets: DICOM patients, pairs of low and full dose, slices as PNG, one folder per class.

Known without patterns:

- the Low Dose CT Grand Challenge: ``L067/full_3mm/*.IMA`` with ``L067/quarter_3mm``, or the download's own
  ``3mm B30/full_3mm/L067/full_3mm``;
- TCIA's LDCT-and-Projection-data: ``C002/<study>/1.000000-Full Dose Images-95998`` with ``...-Low Dose Images-...``;
- one folder per patient with DICOM series, NIfTI or PNG slices below it;
- one folder per class of PNG or JPEG (``Data/train/normal``), and COVID-CT with the text files of its split.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from tqdm import tqdm

from ctrestore.data_lists.pairing import NIFTI_ENDINGS, one_line, subject_of
from ctrestore.errors import InputError

PICTURE_ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
DICOM_ENDINGS = (".dcm", ".ima")
SECTION_FOLDERS = {
    "train": "training", "training": "training", "val": "validation", "valid": "validation",
    "validation": "validation", "test": "test", "testing": "test",
}  # fmt: skip
_MAYO = re.compile(r"(full|quarter)_(.+)", re.IGNORECASE)
_TCIA = re.compile(r"(full|low)[ _-]dose[ _-](images|projections)", re.IGNORECASE)
_PATIENT = re.compile(r"[A-Z]\d{2,4}")  # L067, C002, N005, and ACR phantoms apart


@dataclass(frozen=True)
class Unit:
    """One scan under the root: a folder of DICOM files, or one file."""

    path: str
    what: str  # "dicom", "nifti", "picture"


def find_units(root: Path) -> list[Unit]:
    """Every scan under the root, sorted: folders that hold DICOM files, NIfTI files, pictures.

    Hidden files, ``derivatives`` and label maps (``_dseg``, ``_probseg``, ``_mask``) are not scans.
    """
    units = []
    for place, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name != "derivatives")
        here = Path(place)
        names = sorted(name for name in files if not name.startswith("."))
        lower = {name: name.lower() for name in names}
        if any(_is_dicom(here / name) for name in names if _may_be_dicom(lower[name])):
            units.append(Unit(here.relative_to(root).as_posix(), "dicom"))
            continue
        for name in names:
            path = (here / name).relative_to(root).as_posix()
            if lower[name].endswith(NIFTI_ENDINGS):
                if not re.search(r"_(dseg|probseg|mask)\.nii", lower[name]):
                    units.append(Unit(path, "nifti"))
            elif lower[name].endswith(PICTURE_ENDINGS):
                units.append(Unit(path, "picture"))
    return sorted(units, key=lambda unit: unit.path)


def _may_be_dicom(name: str) -> bool:
    """Whether the name does not show that the file is something else."""
    return name.endswith(DICOM_ENDINGS) or not re.search(r"\.[a-z]{2,5}$", name)


def _is_dicom(path: Path) -> bool:
    """Whether a file starts like a DICOM file; an .IMA or .dcm may lack the preamble."""
    if path.name.lower().endswith(DICOM_ENDINGS):
        return True
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def dicom_files(folder: Path) -> list[Path]:
    """The files of a DICOM folder, without those that are clearly something else."""
    return sorted(
        path
        for path in folder.iterdir()
        if path.is_file() and not path.name.startswith(".") and _may_be_dicom(path.name.lower())
    )


def find_scans(root: Path, *, pairs: bool) -> list[dict[str, Any]]:
    """Entries of all CT scans under the root: ``{"subject", "image"}``, and ``label`` for pairs of doses.

    The subject of a DICOM series is its PatientID, or is read from the path if all series have the same PatientID.

    Args:
        root: folder that the paths are relative to.
        pairs: low dose as ``image`` with full dose as ``label``; otherwise only full dose, as ``image``.

    Raises:
        InputError: there are no scans, a scan lacks its other dose, or there are several kinds of pairs.
    """
    units = find_units(root)
    for what in ("dicom", "nifti", "picture"):  # slices exported as pictures are often next to their source
        if found := [unit.path for unit in units if unit.what == what]:
            break
    else:
        raise InputError(
            f"{root} holds no CT: no DICOM files, no .nii or .nii.gz, no pictures. Remedy: give the folder that holds "
            'the patients, or name the files with --image "{subject}/..." (and --label).'
        )
    doses = {path: role for path in found if (role := _dose_of(path))}
    if doses:
        return _by_dose(root, doses, pairs=pairs)
    patients = _patient_ids(root, found) if what == "dicom" else {}
    return [_with_section({"subject": patients.get(path) or _patient_of(path), "image": path}) for path in found]


def _patient_ids(root: Path, folders: Sequence[str]) -> dict[str, str]:
    """The PatientID in the first readable file of each folder, because folders may be studies and not patients.

    Empty if all are the same, as after an anonymisation that gave everybody one name.
    """
    from pydicom import dcmread
    from pydicom.errors import InvalidDicomError

    patients = {}
    for folder in tqdm(folders, desc="reading patients' names", delay=2, leave=False, disable=None):
        for path in dicom_files(root / folder):
            try:
                header = dcmread(path, stop_before_pixels=True, specific_tags=["PatientID"])
            except (InvalidDicomError, EOFError, ValueError):
                continue
            patients[folder] = str(header.get("PatientID") or "").strip()
            break
    return patients if len(set(patients.values())) > 1 else {}


def _dose_of(path: str) -> tuple[str, str] | None:
    """Whether the dose is "full" or "low", and the name of the reconstruction; None for other folders.

    >>> _dose_of("3mm B30/quarter_3mm/L067/quarter_3mm")
    ('low', '3mm')
    >>> _dose_of("C002/12-23-2021-NA-NA-62464/1.000000-Low Dose Images-39882")
    ('low', 'images')
    """
    for part in reversed(PurePosixPath(path).parts):
        if match := _MAYO.fullmatch(part):
            return ("full" if match[1].lower() == "full" else "low", match[2].lower())
        if match := _TCIA.search(part):
            return match[1].lower(), match[2].lower()
    return None


def _by_dose(root: Path, doses: dict[str, tuple[str, str]], *, pairs: bool) -> list[dict[str, Any]]:
    scans: dict[tuple[str, str, str], dict[str, list[str]]] = defaultdict(lambda: {"full": [], "low": []})
    kinds = set()
    for path, (dose, kind) in doses.items():
        if kind == "projections":
            continue
        # "3mm B30" and "3mm D45" of the challenge are two kernels of one patient.
        kernel = next((part for part in PurePosixPath(path).parts if re.fullmatch(r"\dmm [A-Z]\d+", part)), "")
        kinds.add(f"{kernel}/{kind}".strip("/"))
        scans[_patient_of(path), kernel, kind][dose].append(path)
    if len(kinds) > 1:
        raise InputError(
            f"{root} holds {len(kinds)} kinds of reconstruction ({', '.join(sorted(kinds))}), and a list takes one. "
            "Remedy: name the folder of one kind as --root, or choose by patterns such as "
            '--image "{subject}/quarter_3mm" --label "{subject}/full_3mm".'
        )
    entries, problems = [], []
    for (subject, _, _), found in sorted(scans.items()):
        if not pairs:
            entries += [{"subject": subject, "image": path} for path in found["full"]]
        elif len(found["full"]) == len(found["low"]) == 1:
            entries.append({"subject": subject, "image": found["low"][0], "label": found["full"][0]})
        else:
            problems.append(
                f"{root}: {subject} has {len(found['low'])} low-dose and {len(found['full'])} full-dose scans; "
                "expected one of each. Usual cause: an interrupted download. Remedy: complete or remove the patient."
            )
    if problems:
        raise InputError(one_line(problems))
    return entries


def _patient_of(path: str) -> str:
    """The patient in a path: a ``sub-``, a folder like L067 or C002, else the first folder that is not a section.

    Picture slices without a folder of their own are identified by their name without the slice number.

    >>> _patient_of("C002/12-23-2021-NA-NA-62464/1.0-Full Dose Images-1"), _patient_of("train/1944_z211.png")
    ('C002', '1944')
    """
    *folders, name = PurePosixPath(path).parts
    if "sub-" in path:
        return subject_of(path)
    parts = [*folders, name]
    if named := [part for part in parts if _PATIENT.fullmatch(part)]:
        return named[0]
    own = [folder for folder in folders if folder.lower() not in SECTION_FOLDERS]
    return own[0] if own else source_of(name)


def source_of(name: str) -> str:
    """The source in a picture's name, without the numbers of its slices and copies.

    A source that is too short joins patients, which is safe; one that is too long separates a patient's slices.

    >>> source_of("10 - Copy (2).png"), source_of("1944_z211.png"), source_of("2020.03.01.20029769-p21-73_1%1.png")
    ('10', '1944', '2020.03.01.20029769')
    >>> source_of("Comparison-of-different-samples-12.png"), source_of("L067_0042.png"), source_of("1%0.jpg")
    ('Comparison-of-different-samples', 'L067', '1')
    """
    stem = name
    for ending in (*NIFTI_ENDINGS[::-1], *PICTURE_ENDINGS):
        if stem.lower().endswith(ending):
            stem = stem[: -len(ending)]
            break
    stem = re.sub(r"( - Copy)?( ?\(\d+\))*$", "", stem)
    stem = re.sub(r"%\d+$", "", stem)
    stem = re.sub(r"-p\d+(-\d+)?([_-]\d+)*$", "", stem)  # COVID-CT: page and figure of a preprint
    shorter = re.sub(r"[ _-](z|slice|img|image)?_?\d+$", "", stem, flags=re.IGNORECASE)
    return shorter or stem or name


def find_classes(root: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """Entries ``{"subject", "image", "label", "class"}`` of pictures in one folder per class, and the classes' names.

    ``label`` is the index of the class among the sorted names. If folders (train, valid, test) or COVID-CT's text
    files split the data, an entry also has its ``section``.

    Raises:
        InputError: no pictures, or fewer than two classes.
    """
    units = [unit.path for unit in find_units(root) if unit.what == "picture"]
    if not units:
        raise InputError(
            f"{root} holds no pictures ({', '.join(PICTURE_ENDINGS)}). Expected one folder for each class."
        )
    loose = [path for path in units if "/" not in path or PurePosixPath(path).parent.name.lower() in SECTION_FOLDERS]
    if loose:
        raise InputError(
            f"{root / loose[0]}: not in the folder of a class. Expected for example {root.name}/train/normal/1.png or "
            f"{root.name}/normal/1.png ({len(loose)} such pictures)."
        )
    class_of = {path: class_name(PurePosixPath(path).parent.name) for path in units}
    classes = sorted(set(class_of.values()))
    if len(classes) < 2:
        raise InputError(
            f"{root} holds one class only, {classes[0]!r}. Usual cause: --root is the folder of one class; name the "
            "folder above."
        )
    sections = _covid_split(root)
    entries = []
    for path in units:
        name = class_of[path]
        entry = {"subject": f"{name}/{source_of(PurePosixPath(path).name)}", "image": path}
        entry |= {"label": classes.index(name), "class": name}  # type: ignore[dict-item]
        if section := sections.get((PurePosixPath(path).parent.name.removeprefix("CT_").lower(), Path(path).name)):
            entry["section"] = section
        entries.append(_with_section(entry))
    return entries, classes


def class_name(folder: str) -> str:
    """A class without the stage that the Kaggle chest CT set adds to some of its folders.

    >>> class_name("large.cell.carcinoma_left.hilum_T2_N2_M0_IIIa"), class_name("normal"), class_name("CT_COVID")
    ('large.cell.carcinoma', 'normal', 'CT_COVID')
    """
    return re.sub(r"_.*_T\d.*$", "", folder)


def _with_section(entry: dict[str, Any]) -> dict[str, Any]:
    """The entry with the section from a folder of its path."""
    for folder in PurePosixPath(entry["image"]).parts[:-1]:
        if folder.lower() in SECTION_FOLDERS:
            return {**entry, "section": SECTION_FOLDERS[folder.lower()]}
    return entry


def _covid_split(root: Path) -> dict[tuple[str, str], str]:
    """Class and file name to section, from COVID-CT's text files (``Data-split/COVID/trainCT_COVID.txt``)."""
    split = {}
    for path in sorted(root.rglob("*CT_*.txt")):
        match = re.fullmatch(r"(train|val|test)CT_(\w+)\.txt", path.name)
        if match is None or path.parent.name.startswith("old"):
            continue
        for line in path.read_text(encoding="utf-8").splitlines():
            if line.strip():
                split[match[2].lower(), line.strip()] = SECTION_FOLDERS[match[1]]
    return split


def given_sections(entries: Sequence[dict[str, Any]]) -> bool:
    """Whether the data set has its own split, with training and a part for testing.

    Raises:
        InputError: some scans have a section and others do not.
    """
    named = [entry for entry in entries if "section" in entry]
    if not named:
        return False
    if len(named) < len(entries):
        odd = next(entry for entry in entries if "section" not in entry)
        raise InputError(
            f"{odd['image']}: in no section, but {len(named)} of {len(entries)} scans are in one by their folder or a "
            "split file. Complete the split, or give --split to draw a new one."
        )
    return len({entry["section"] for entry in named}) > 1


def without_section(entries: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The entries in the form of a data list."""
    return [{key: value for key, value in entry.items() if key != "section"} for entry in entries]
