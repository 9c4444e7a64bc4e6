"""From a folder of scans to a checked data list."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ctrestore.data_lists.audit import audit, component_of, find_copies, without_copies
from ctrestore.data_lists.ct_layouts import find_classes, find_scans, given_sections, without_section
from ctrestore.data_lists.files import check_data_list
from ctrestore.data_lists.pairing import (
    NIFTI_ENDINGS,
    PAIRING_ENTITIES,
    ScanFile,
    belongs,
    find_pairs,
    named_scans,
    one_line,
)
from ctrestore.data_lists.splitting import SECTIONS, split_subjects
from ctrestore.data_lists.tasks import TASKS
from ctrestore.errors import InputError
from ctrestore.io.grid import GRID_TOLERANCE_MM, Grid, find_duplicates, read_grid

DEFAULT_SPLIT = (0.8, 0.1, 0.1)

logger = logging.getLogger(__name__)


def build_data_list(
    task: str,
    root: str | Path,
    *,
    image: str | None = None,
    label: str | None = None,
    split: Sequence[float] | None = None,
    seed: int = 0,
    drop_duplicates: bool = False,
) -> dict[str, Any]:
    """The checked data list of every scan under ``root``: ``{"description", "seed", "training": [...], ...}``.

    Lists of CT tasks contain an ``audit`` of copies among the scans, and those of classes the names of the ``classes``.

    Args:
        task: a key of ``TASKS``.
        root: folder that the list's paths are relative to.
        image: glob of the images, relative to ``root``; by default the task's BIDS layout.
        label: glob of the labels; by default the only kind of label in the BIDS derivatives.
        split: subjects in training, validation and test: counts that add up to all, or fractions that add up to 1; by
            default the split in the folders of a CT data set, else 0.8, 0.1 and 0.1.
        seed: decides which subjects go into which section.
        drop_duplicates: for a CT task, leave out copies; see `without_copies`.

    Raises:
        InputError: anything that would make a wrong or leaking list; the message names the file and the remedy.
    """
    if task not in TASKS:
        raise InputError(f"Unknown task {task!r}; expected one of {', '.join(TASKS)}.")
    root = Path(root)
    if not root.is_dir():
        raise InputError(f"{root} is not a folder. --root must be the folder that holds the subjects.")
    if TASKS[task].ct:
        return build_ct_list(
            task, root, image=image, label=label, split=split, seed=seed, drop_duplicates=drop_duplicates
        )
    if drop_duplicates:
        raise InputError(f"--drop-duplicates is for CT tasks; a copied scan of {task} is always refused.")
    split = DEFAULT_SPLIT if split is None else split
    entries = find_pairs(task, root, image=image, label=label)
    # Before headers are read, so an impossible split is reported at once.
    split_subjects((entry["subject"] for entry in entries), split, seed=seed)
    add_maps(task, root, entries, check_files(root, entries))
    return sections_of(task, entries, split=split, seed=seed)


def build_ct_list(
    task: str,
    root: Path,
    *,
    image: str | None,
    label: str | None,
    split: Sequence[float] | None,
    seed: int,
    drop_duplicates: bool,
) -> dict[str, Any]:
    """The data list of a CT task: its own layouts, the data's own split if it has one, and an audit of copies.

    If there is no such split, patients with a common copy are drawn into one section.
    """
    kind = TASKS[task].ct
    classes: list[str] = []
    if kind == "classes":
        if image is not None or label is not None:
            raise InputError(f"{task} finds its pictures by the folders of the classes; leave out --image and --label.")
        entries, classes = find_classes(root)
    elif image is None:
        if label is not None:
            raise InputError(f"--label needs --image for {task}: each names one half of the pairs.")
        entries = find_scans(root, pairs=kind == "pairs")
    else:
        entries = list(find_pairs(task, root, image=image, label=label))
    as_given = split is None and given_sections(entries)
    if not as_given:
        entries = without_section(entries)
        # Before files are read, so an impossible split is reported at once.
        split_subjects((entry["subject"] for entry in entries), split or DEFAULT_SPLIT, seed=seed)
    nifti = [entry for entry in entries if "label" in entry and str(entry["image"]).endswith(NIFTI_ENDINGS)]
    check_grids(root, nifti)

    copies = find_copies(root, entries)
    kept, dropped = without_copies(entries, copies) if drop_duplicates else (list(range(len(entries))), [])
    if not as_given:
        position = {entry["subject"]: i for i, entry in enumerate(entries)}
        links = [[position[entries[i]["subject"]] for i in group] for group in copies.near]
        names = sorted(position, key=lambda subject: position[subject])
        group_of = component_of(links, len(entries))
        first_of = {group_of[position[name]]: name for name in reversed(names)}
        tied = {name: first_of[group_of[position[name]]] for name in names}
        staying = {tied[entries[i]["subject"]] for i in kept}
        if n_tied := len(position) - len(set(tied.values())):
            logger.warning(
                "%d subjects share a copy with another one and are drawn with it, as one subject; "
                "--drop-duplicates leaves exact copies out.", n_tied,
            )  # fmt: skip
        drawn = split_subjects(staying, split or DEFAULT_SPLIT, seed=seed)
        section_of = {name: section for section, members in drawn.items() for name in members}
        for entry in entries:
            entry["section"] = section_of.get(tied[entry["subject"]], "")
    report = audit(entries, copies)
    report["dropped"] = [entries[i]["image"] for i in dropped]
    if as_given and classes:
        # The data's own split neither separates patients nor names them: each picture counts as one subject.
        sources = defaultdict(set)
        for entry in entries:
            sources[entry["subject"]].add(entry["section"])
            entry["subject"] = entry["image"]
        report["names_across_sections"] = sum(len(sections) > 1 for sections in sources.values())
    how = "the data's own split" if as_given else "subjects drawn by seed"
    data_list: dict[str, Any] = {"description": f"{task}: {how}, paths relative to the data's root"}
    data_list |= {} if as_given else {"seed": seed}
    data_list |= {"classes": classes} if classes else {}
    data_list["audit"] = report
    for section in SECTIONS:
        members = [entries[i] for i in kept if entries[i]["section"] == section]
        data_list |= {section: without_section(members)} if members else {}
    check_data_list(data_list)
    return data_list


def sections_of(
    task: str, entries: Sequence[Mapping[str, Any]], *, split: Sequence[float], seed: int
) -> dict[str, Any]:
    """The data list of these entries, their subjects drawn into sections by seed.

    Raises:
        InputError: the split does not add up, or an image is listed under two subjects.
    """
    subjects = split_subjects((entry["subject"] for entry in entries), split, seed=seed)
    data_list: dict[str, Any] = {
        "description": f"{task}: subjects drawn by seed, paths relative to the data's root",
        "seed": seed,
    }
    data_list |= {name: [e for e in entries if e["subject"] in members] for name, members in subjects.items()}
    check_data_list(data_list)
    return data_list


def check_files(root: Path, entries: Sequence[Mapping[str, str]]) -> dict[str, Grid]:
    """Refuse unreadable scans, labels on another grid than their image and copied scans; else return the images' grids.

    Two labels of one subject may be equal (two reconstructions of one scan); all other equal files are mistakes.
    """
    grids = check_grids(root, entries)
    problems = []
    role = {root / entry[key]: (entry["subject"], key) for entry in entries for key in ("image", "label")}
    for group in find_duplicates(role):
        if len({role[path][0] for path in group}) > 1 or any(role[path][1] == "image" for path in group):
            names = " and ".join(f"{path} ({role[path][1]} of {role[path][0]})" for path in group)
            problems.append(
                f"{names}: the same content. A scan under two names could be in training and in test. "
                "Remedy: remove one, or put the right file in its place."
            )
    if problems:
        raise InputError(one_line(problems))
    return grids


def check_grids(root: Path, entries: Sequence[Mapping[str, str]]) -> dict[str, Grid]:
    """Refuse unreadable scans and labels on another grid than their image; else return the images' grids."""
    grids, problems = {}, []
    for entry in tqdm(entries, desc="reading headers", delay=2, leave=False, disable=None):
        if entry["image"] == entry["label"]:
            problems.append(f"{root / entry['image']}: image and label are one file. Make the two patterns more exact.")
            continue
        try:
            grid, of_label = read_grid(root / entry["image"]), read_grid(root / entry["label"])
        except ValueError as error:
            problems.append(str(error))
            continue
        grids[entry["image"]] = grid
        if (distance_mm := grid.distance_mm(of_label)) > GRID_TOLERANCE_MM:
            fault = (
                f"{of_label.shape} voxels, but its image {root / entry['image']} has {grid.shape}"
                if grid.shape != of_label.shape
                else f"its voxels lie up to {distance_mm:.3g} mm from those of its image {root / entry['image']}"
            )
            problems.append(
                f"{root / entry['label']}: {fault}. Image and label must share one grid to {GRID_TOLERANCE_MM} mm; "
                "resample the label to the image, or correct the image again without resampling."
            )
    if problems:
        raise InputError(one_line(problems))
    return grids


def add_maps(task: str, root: Path, entries: Sequence[dict[str, str]], grids: Mapping[str, Grid]) -> None:
    """Give each entry its optional maps; an ambiguous map or one on another grid is left out with a warning.

    A map belongs to an image of its subject unless its name contains another session or tracer.
    """
    for key, pattern in TASKS[task].maps.items():
        candidates = defaultdict(list)
        for file in named_scans(root, pattern):
            candidates[file.subject].append(file)
        left_out = []
        for entry in entries:
            scan = ScanFile(entry["image"], entry["subject"])
            # run-2 of a T1w does not belong to run-2 of the PET
            telling = PAIRING_ENTITIES if pattern.endswith("_pet.nii*") else ("ses", "trc")
            fitting = [file.path for file in candidates[entry["subject"]] if belongs(file, scan, telling)]
            if not fitting:
                continue
            of_map = {path: read_grid(root / path) for path in fitting}
            if key not in TASKS[task].off_grid_maps:
                grid = grids[entry["image"]]
                fitting = [path for path in fitting if grid.distance_mm(of_map[path]) <= GRID_TOLERANCE_MM]
            if len(fitting) == 1:
                entry[key] = fitting[0]
            else:
                left_out.append(f"{entry['image']} ({len(fitting) or 'none'} on its grid)")
        if left_out:
            logger.warning(
                "%s left out for %d of %d scans, the first is %s; expected one file a scan like %s.",
                key, len(left_out), len(entries), left_out[0], pattern,
            )  # fmt: skip
