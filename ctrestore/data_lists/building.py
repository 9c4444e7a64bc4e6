"""From a folder of scans to a checked data list."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ctrestore.data_lists.files import check_data_list
from ctrestore.data_lists.pairing import PAIRING_ENTITIES, ScanFile, belongs, find_pairs, named_scans, one_line
from ctrestore.data_lists.scans import Grid, find_duplicates, read_grid
from ctrestore.data_lists.splitting import split_subjects
from ctrestore.data_lists.tasks import TASKS

GRID_TOLERANCE_MM = 0.01  # sform and qform of one scan differ by about a thousandth of this

logger = logging.getLogger(__name__)


def build_data_list(
    task: str,
    root: str | Path,
    *,
    image: str | None = None,
    label: str | None = None,
    split: Sequence[float] = (0.8, 0.1, 0.1),
    seed: int = 0,
) -> dict[str, Any]:
    """The checked data list of every scan under ``root``: ``{"description", "seed", "training": [...], ...}``.

    Args:
        task: a key of ``TASKS``.
        root: folder that the list's paths are relative to.
        image: glob of the images, relative to ``root``; without it the task's BIDS layout.
        label: glob of the labels; without it the one kind of label in the BIDS derivatives.
        split: subjects in training, validation and test: counts that add up to all, or fractions that add up to 1.
        seed: chooses which subjects go where.

    Raises:
        ValueError: anything that would make a wrong or leaking list; the message names the file and the remedy.
    """
    if task not in TASKS:
        raise ValueError(f"Unknown task {task!r}; expected one of {', '.join(TASKS)}.")
    root = Path(root)
    if not root.is_dir():
        raise ValueError(f"{root} is not a folder. --root must be the folder that holds the subjects.")
    entries = find_pairs(task, root, image=image, label=label)
    # Before headers are read: a split that cannot be is said at once.
    split_subjects((entry["subject"] for entry in entries), split, seed=seed)
    add_maps(task, root, entries, check_files(root, entries))
    return sections_of(task, entries, split=split, seed=seed)


def sections_of(
    task: str, entries: Sequence[Mapping[str, Any]], *, split: Sequence[float], seed: int
) -> dict[str, Any]:
    """The data list of these entries, their subjects drawn into sections by seed.

    Raises:
        ValueError: the split does not add up, or an image stands under two subjects' names.
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
    """Refuse unreadable scans, labels off their image's grid and copied scans; the images' grids otherwise.

    Two labels of one subject may be equal (two reconstructions of one scan); anything else that is equal is a mistake.
    """
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
        raise ValueError(one_line(problems))

    role = {root / entry[key]: (entry["subject"], key) for entry in entries for key in ("image", "label")}
    for group in find_duplicates(role):
        if len({role[path][0] for path in group}) > 1 or any(role[path][1] == "image" for path in group):
            names = " and ".join(f"{path} ({role[path][1]} of {role[path][0]})" for path in group)
            problems.append(
                f"{names}: the same content. A scan under two names would be trained on and tested on. "
                "Take one away, or copy the right file in its place."
            )
    if problems:
        raise ValueError(one_line(problems))
    return grids


def add_maps(task: str, root: Path, entries: Sequence[dict[str, str]], grids: Mapping[str, Grid]) -> None:
    """Give each entry the optional maps that belong to it; one that is ambiguous or off the grid is left out, and said.

    A map belongs to an image of its subject unless its name says another session or tracer.
    """
    for key, pattern in TASKS[task].maps.items():
        candidates = defaultdict(list)
        for file in named_scans(root, pattern):
            candidates[file.subject].append(file)
        left_out = []
        for entry in entries:
            scan = ScanFile(entry["image"], entry["subject"])
            # run-2 of a T1w is not run-2 of the PET
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
