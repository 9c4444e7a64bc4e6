"""Training labels of a whole data set, and the data list that training reads."""

from __future__ import annotations

import json
import os
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm import tqdm

from ctrestore.data_lists import check_data_list, write_data_list
from ctrestore.data_lists.building import check_files, sections_of
from ctrestore.data_lists.pairing import subject_of
from ctrestore.data_lists.splitting import SECTIONS, split_sizes
from ctrestore.errors import InputError, ScansFailed
from ctrestore.io.bids import Outputs, derivative_name, describe_dataset
from ctrestore.io.bids import sources as bids_sources
from ctrestore.io.grid import GRID_TOLERANCE_MM, read_grid
from ctrestore.io.nifti import fwhm_from_sidecar, stem
from ctrestore.io.whole import writable_folder
from ctrestore.phantoms import phantom_entries
from ctrestore.psf import per_axis
from ctrestore.tasks.pet_pvc.labels.making import FWHM_KEYS, METHODS, is_finished, make_label, planned_sidecar
from ctrestore.tasks.pet_pvc.labels.subjects import MAPS, Sources, find_sources
from ctrestore.tasks.runtime import for_each_scan


@dataclass(frozen=True)
class _Finished:
    """A label that is there, what its sidecar says, and what there is to say of it."""

    scan: Sources
    label: Path
    planned: dict[str, Any]
    links: dict[str, str]  # BIDS data sets that its sources lie in
    notes: tuple[str, ...] = ()
    was_there: bool = False


def make_labels(
    dataset_dir: str,
    output_dir: str,
    *,
    method: str = "mMG",
    fwhm_mm: float | Sequence[float] | None = None,
    fwhm_table: str | None = None,
    pet: str | None = None,
    grey_matter: str | None = None,
    white_matter: str | None = None,
    csf: str | None = None,
    parcels: str | None = None,
    subjects: int | None = None,
    split: Sequence[float] = (0.8, 0.1, 0.1),
    split_seed: int = 0,
    embedded_dir: str | None = None,
) -> None:
    """Correct every PET that has tissue maps, and list the pairs for training.

    ``output_dir`` receives ``sub-X[/ses-Y]/pet/..._desc-pvc<METHOD>_pet.nii.gz``, a sidecar for each, and
    ``pet_pvc_<METHOD>.json``, whose paths are relative to itself. A label that is finished, with the same settings from
    the same files, is kept.

    Args:
        dataset_dir: BIDS data set, or a folder that the patterns describe.
        output_dir: of labels and list.
        method: ``mMG``: grey-matter concentration by Müller-Gärtner, white matter and CSF from the GTM; ``RBV``: the
            activity of the whole head.
        fwhm_mm: of all scans, one number or [x, y, z]; None: from the table, else from each sidecar.
        fwhm_table: TSV with participant_id, FWHM_x, FWHM_y, FWHM_z.
        pet: glob of the PETs; None: BIDS names. The same for the maps below; ``none`` leaves CSF or parcels out.
        grey_matter: see ``pet``.
        white_matter: see ``pet``.
        csf: see ``pet``.
        parcels: see ``pet``.
        subjects: only the first so many scans (of embedded data: of each section).
        split: as of ``ctrestore data-list``.
        split_seed: chooses which subjects go where.
        embedded_dir: stands for the embedded phantoms, made when missing.

    Raises:
        InputError: nothing can be done, or, at the end, scans failed; each is named with its fault.
    """
    if method not in METHODS:
        raise InputError(f"method is {' or '.join(METHODS)}; got {method!r}.")
    if fwhm_mm is not None and fwhm_table is not None:
        raise InputError("give the FWHM of all scans (--fwhm_mm) or the table (--fwhm_table), not both.")
    root, output = Path(str(dataset_dir)), Path(str(output_dir)).absolute()
    table = None if fwhm_table is None else read_fwhm_table(Path(str(fwhm_table)))
    faults: dict[Path, str] = {}
    if embedded_dir is not None and root.resolve() == Path(embedded_dir).resolve():
        sources = _embedded(root, subjects)
    else:
        if not root.is_dir():
            raise InputError(f"{root} is not a folder. Remedy: --dataset_dir with the folder that holds the subjects.")
        patterns = {"grey_matter": grey_matter, "white_matter": white_matter, "csf": csf, "parcels": parcels}
        sources, faults = find_sources(root, patterns, pet=pet)
        sources = sources[:subjects]
        if sources:
            split_sizes(len({scan.subject for scan in sources}), split)  # said before hours of work
    targets = label_paths(sources, output, method)
    writable_folder(output)

    def finish(pair: tuple[Sources, Path]) -> _Finished:
        scan, label = pair
        uris, links = bids_sources([scan.image, *scan.maps.values()], Outputs(image=label, dataset=output))
        planned = planned_sidecar(scan, method, fwhm_of(scan, fwhm_mm, table), uris)
        if is_finished(label, scan, planned):
            return _Finished(scan, label, planned, links, was_there=True)
        if label.exists():
            tqdm.write(f"{label}: made with other settings or from other files; made again")
        return _Finished(scan, label, planned, links, notes=tuple(make_label(scan, label, planned)))

    todo = [(str(scan.image), (scan, label)) for scan, label in zip(sources, targets)]
    known = {str(image): fault for image, fault in faults.items()}
    done, failed = for_each_scan(todo, finish, doing=f"{method} labels", failed=known)

    kept = sum(one.was_there for one in done)
    notes: dict[str, list[Path]] = defaultdict(list)
    links: dict[str, str] = {}
    for one in done:
        links |= one.links
        for note in one.notes:
            notes[note].append(one.scan.image)
    for note, images in notes.items():
        print(f"{note}: {len(images)} of {len(done) - kept} scans, the first is {images[0]}")
    print(
        f"{len(done) - kept} labels made, {kept} were there already, {len(failed)} scans skipped; in {output}",
        flush=True,
    )
    trouble = dict(failed)
    if done:
        describe_dataset(output, links)
        pairs, planned = [(one.scan, one.label) for one in done], {one.label: one.planned for one in done}
        try:
            written = write_list(pairs, planned, output / f"pet_pvc_{method}.json", split=split, seed=split_seed)
            print(f"data list: {written} (train.json takes it as --data_list)", flush=True)
        except ValueError as error:
            trouble["no data list"] = str(error)
    if trouble:
        raise ScansFailed("everything was done", trouble)


def _embedded(folder: Path, n: int | None) -> list[Sources]:
    """The phantoms, with the section that each belongs to."""
    sources = []
    for section in SECTIONS:
        for entry in phantom_entries(folder, section, n=n):  # type: ignore[arg-type]
            paths = {key: Path(value) for key, value in entry.items() if key not in ("subject", "image", "label")}
            maps = {key: paths.pop(key) for key in MAPS}
            sources.append(Sources(entry["subject"], Path(entry["image"]), maps, section=section, more=paths))
    return sources


def label_paths(sources: Sequence[Sources], output: Path, method: str) -> list[Path]:
    """Where the labels go, in the order of the scans.

    Raises:
        InputError: two would go to one file.
    """
    paths: list[Path] = []
    origin: dict[Path, Path] = {}
    for scan in sources:
        path = output / derivative_name(bids_name(scan), method)
        if (other := origin.setdefault(path, scan.image)) != scan.image:
            raise InputError(
                f"{other} and {scan.image} would both be written to {path}. Usual cause: a scan and its compressed "
                "copy side by side. Remedy: rename one, or a --pet pattern that only one matches."
            )
        paths.append(path)
    return paths


def bids_name(scan: Sources) -> Path:
    """The PET's name if it is one of BIDS; else one of its subject, the name it has being the acquisition.

    >>> bids_name(Sources("p_7", Path("p_7/rest pet.nii"), {})).name
    'sub-p7_acq-restpet_pet.nii.gz'
    """
    if scan.image.name.startswith("sub-") and stem(scan.image).endswith("_pet"):
        return scan.image

    def plain(text: str) -> str:
        return re.sub(r"[^0-9A-Za-z]", "", text) or "0"

    return Path(f"sub-{plain(scan.subject.removeprefix('sub-'))}_acq-{plain(stem(scan.image))}_pet.nii.gz")


def fwhm_of(
    scan: Sources, fwhm_mm: float | Sequence[float] | None, table: Mapping[str, tuple[float, ...]] | None
) -> tuple[float, ...]:
    """FWHM along the patient's axes: the argument, else the table's, else the sidecar's.

    Raises:
        InputError: it is not known, or no positive number of millimetres.
    """
    if fwhm_mm is not None:
        widths = per_axis(fwhm_mm, name="fwhm_mm")
        if min(widths) <= 0:
            raise InputError(f"fwhm_mm must be above 0 mm; got {fwhm_mm!r}. Remedy: the scanner's resolution in mm.")
        return widths
    if table is not None:
        for name in (scan.subject, subject_of(f"{scan.subject}/{scan.image.name}")):
            if name.removeprefix("sub-") in table:
                return table[name.removeprefix("sub-")]
        raise InputError(f"{scan.subject} is not in the FWHM table. Remedy: add a line for it.")
    try:
        return fwhm_from_sidecar(scan.image)
    except ValueError as error:
        raise InputError(f"{error} On the command line: --fwhm_mm 6, or --fwhm_table FILE.tsv by subject.") from None


def read_fwhm_table(path: Path) -> dict[str, tuple[float, ...]]:
    """FWHM in mm along the patient's x, y, z by participant (without ``sub-``), from a TSV.

    Raises:
        InputError: no such file, a column is missing, a subject stands there twice, or a width is no positive number.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such FWHM table.")
    table = pd.read_csv(path, sep="\t", dtype=str)
    missing = {"participant_id", *FWHM_KEYS} - set(table.columns)
    if missing:
        raise InputError(
            f"{path}: no column {', '.join(sorted(missing))}; it has {', '.join(map(str, table.columns))}. Usual "
            "cause: commas instead of tabs. Expected: participant_id, FWHM_x, FWHM_y, FWHM_z, separated by tabs."
        )
    widths = table[list(FWHM_KEYS)].apply(pd.to_numeric, errors="coerce")
    bad = ~((widths > 0) & (widths < float("inf"))).all(axis=1)
    if bad.any():
        raise InputError(f"{path}: {table['participant_id'][bad].iloc[0]} has no positive FWHM in mm in every column.")
    names = table["participant_id"].str.removeprefix("sub-")
    if names.duplicated().any():
        raise InputError(f"{path}: {names[names.duplicated()].iloc[0]} stands there twice.")
    return dict(zip(names, widths.itertuples(index=False, name=None)))


def write_list(
    pairs: Sequence[tuple[Sources, Path]],
    planned: Mapping[Path, Mapping[str, Any]],
    path: Path,
    *,
    split: Sequence[float],
    seed: int,
) -> Path:
    """Write the data list of PETs and labels, with paths relative to its own folder; a differing old one is kept aside.

    Raises:
        InputError: a scan stands there twice under two names, or the split does not add up.
    """

    def relative(file: Path) -> str:
        return Path(os.path.relpath(file.absolute(), path.parent)).as_posix()

    entries: list[dict[str, Any]] = []
    sections: dict[str, list[dict[str, Any]]] = {}
    for scan, label in pairs:
        grid = read_grid(scan.image)
        # Maps off the grid of the PET are of no use to training and evaluation.
        maps = {k: p for k, p in scan.maps.items() if read_grid(p).distance_mm(grid) <= GRID_TOLERANCE_MM}
        files = {"image": scan.image, "label": label, **maps, **scan.more}
        entry: dict[str, Any] = {key: relative(file) for key, file in files.items()}
        entry = {"subject": scan.subject, **entry}
        entry["fwhm_mm"] = [planned[label][column] for column in FWHM_KEYS]
        entries.append(entry)
        if scan.section is not None:
            sections.setdefault(scan.section, []).append(entry)
    check_files(path.parent, entries)
    if sections:
        data_list: dict[str, Any] = {"description": "Embedded phantoms, paths relative to this file", **sections}
        check_data_list(data_list)
    else:
        data_list = sections_of("pet_pvc", entries, split=split, seed=seed)
        data_list["description"] = "pet_pvc: subjects drawn by seed, paths relative to this file"
    if path.is_file() and json.loads(path.read_text(encoding="utf-8")) != data_list:
        number = 1
        while (aside := path.with_name(f"{path.stem}_previous_{number}.json")).exists():
            number += 1
        path.replace(aside)
        print(f"the scans or the split changed: the list that was here is {aside.name}; subjects may have moved in it")
    write_data_list(data_list, path, overwrite=True)
    return path
