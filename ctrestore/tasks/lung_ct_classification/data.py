"""The images of a classification: from a data list, or the embedded phantoms."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from ctrestore.data_lists import read_data_list
from ctrestore.errors import InputError
from ctrestore.io.ct_scan import open_scan, spread_evenly
from ctrestore.io.whole import read_json, write_json
from ctrestore.tasks.lung_ct_classification.images import check_input_kind, is_picture, read_grey
from ctrestore.tasks.runtime import Section, waits_for_first_process

LIST, CALIBRATION = "list.json", "calibration"
Embedded = Literal["slices", "volumes"]
VOLUMES: dict[str, Any] = {"n_training": 64, "n_validation": 16, "n_test": 32, "n_slices": 16, "matrix": 256}
logger = logging.getLogger("ctrestore")


def embedded_list(dataset_dir: str | Path, embedded: Embedded = "slices") -> Path:
    """The data list of the embedded lung phantoms, made in the folder on first use.

    Of the processes that ``torchrun`` starts on a machine, the first one writes and the others wait for it.

    Args:
        dataset_dir: folder of the phantoms.
        embedded: ``slices``: one a person, in four classes of tumour; ``volumes``: of 16 slices, in four classes by
            the kind of the nodules.

    Raises:
        InputError: the folder holds other data.
    """
    folder = Path(str(dataset_dir)).expanduser().absolute()
    path = folder / LIST
    if path.is_file():
        return path
    if waits_for_first_process(path):
        return path
    from ctrestore.phantoms.ct import write_ct_cohort, write_lung_cohort

    print(f"Making lung phantoms in {folder} (once; some minutes)", flush=True)
    if embedded == "slices":
        listed = write_lung_cohort(folder)
    else:
        listed = write_ct_cohort(folder, "chest", **VOLUMES)
        for section in ("training", "validation", "test"):
            listed[section] = [{**e, "label": listed["classes"].index(e["class"])} for e in listed[section]]
    write_json(listed, path)
    return path


def _list_of(data_list: str | None, dataset_dir: str, embedded: Embedded) -> Path:
    return embedded_list(dataset_dir, embedded) if data_list is None else Path(str(data_list))


def classes_of(data_list: str | None, dataset_dir: str, embedded: Embedded = "slices") -> list[str]:
    """The names of the classes of a data list, in the order of its labels.

    Raises:
        InputError: no such list, or it does not name two classes or more.
    """
    if data_list is None and not (Path(str(dataset_dir)).expanduser() / LIST).is_file():
        # Known without making the phantoms, so that MONAI's programs can build the network on any machine.
        from ctrestore.phantoms.ct import CLASSES, LUNG_CLASSES

        return list(LUNG_CLASSES if embedded == "slices" else CLASSES)
    path = _list_of(data_list, dataset_dir, embedded)
    if not path.is_file():
        raise InputError(f"{path}: no such data list. Make one with `ctrestore data-list lung_ct_classification`.")
    try:
        classes = read_json(path).get("classes")
    except (json.JSONDecodeError, AttributeError) as error:
        raise InputError(f"{path}: no data list ({error}).") from error
    if not isinstance(classes, list) or len(classes) < 2 or len(set(classes)) < len(classes):
        raise InputError(
            f"{path}: expected the names of two classes or more under 'classes'; got {classes!r}. Make the list with "
            "`ctrestore data-list lung_ct_classification`."
        )
    return [str(name) for name in classes]


def images(
    section: Section | Literal["calibration"],
    data_list: str | None,
    dataset_dir: str,
    classes: Sequence[str],
    input_kind: str = "hu",
    volumes: bool = False,
    slices_per_scan: int | None = None,
    n: int | None = None,
    embedded: Embedded = "slices",
) -> list[dict[str, Any]]:
    """Entries of a section: ``{"subject", "image", "label", "class", "slice"}``, every file looked at.

    Args:
        section: ``training``, ``validation``, ``test``, or ``calibration``, which a list need not have.
        data_list: as ``ctrestore data-list lung_ct_classification`` makes it; None: the embedded phantoms.
        dataset_dir: folder that the list's paths start from.
        classes: names, in the order of the labels.
        input_kind: ``hu`` or ``grey``; see :class:`ctrestore.tasks.lung_ct_classification.LoadClassifiedd`.
        volumes: one entry a scan; else one a slice.
        slices_per_scan: at most so many slices of each, evenly spread; None: all.
        n: only the first n scans.
        embedded: which phantoms, without a list.

    Raises:
        InputError: the list or a file is missing or damaged, of another kind than the network is shown, of an unknown
            class, or a class has no image in training or validation; the file is named.
    """
    check_input_kind(input_kind)
    if n is not None and n < 1:
        raise InputError(f"the number of {section} images must be at least 1, or null for all of them; got {n}.")
    path = _list_of(data_list, dataset_dir, embedded)
    if section == CALIBRATION and path.is_file() and not read_json(path).get(CALIBRATION):
        return []
    found, bad = [], []
    for entry in read_data_list(path, section, dataset_dir)[:n]:
        label = entry.get("label")
        if not isinstance(label, int) or not 0 <= label < len(classes):
            raise InputError(
                f"{entry['image']}: label {label!r} in {path}; expected the place of its class among "
                f"{', '.join(classes)}, from 0 on. Make the list again with `ctrestore data-list`."
            )
        if entry.get("class", classes[label]) != classes[label]:
            raise InputError(
                f"{entry['image']}: its class is {entry['class']!r}, but label {label} means {classes[label]!r} in "
                f"{path}. Usual cause: a list that was edited. Make it again with `ctrestore data-list`."
            )
        kept: dict[str, Any] = {key: entry[key] for key in ("subject", "range_hu") if key in entry}
        kept |= {"image": str(entry["image"]), "label": label, "class": classes[label]}
        kept.setdefault("subject", kept["image"])
        try:
            numbers = _slices_of(kept, input_kind, volumes, slices_per_scan)
        except ValueError as error:
            bad.append(str(error))
            continue
        found += [{**kept, **number} for number in numbers]
    if bad:
        more = f" ({len(bad)} such images)" if len(bad) > 1 else ""
        raise InputError(f"{bad[0]}{more} To go on without: take them out of the folder and make the list again.")
    have = Counter(entry["label"] for entry in found)
    missing = [name for label, name in enumerate(classes) if not have[label]]
    if missing and section in ("training", "validation") and n is None:
        raise InputError(
            f"{path}: no image of {', '.join(missing)} in {section}. A network cannot "
            + ("learn" if section == "training" else "be chosen by")
            + " a class without images. Remedy: another --split of `ctrestore data-list`, or fewer classes."
        )
    return found


def _slices_of(entry: dict[str, Any], input_kind: str, volumes: bool, most: int | None) -> list[dict[str, Any]]:
    """``{"slice": k}`` for each slice that a network is shown.

    Raises:
        InputError: a file that cannot be read, or of the other kind.
    """
    if input_kind == "grey":
        read_grey(entry["image"])
        return [{}]
    if is_picture(entry["image"]) and "range_hu" not in entry:
        raise InputError(
            f"{entry['image']}: a picture, whose HU nobody knows. Remedy: --input_kind grey, which learns from grey "
            "values, or a range_hu in its entry of the list."
        )
    n_slices = open_scan(entry["image"], range_hu=entry.get("range_hu")).shape[2]
    return [{}] if volumes else [{"slice": k} for k in spread_evenly(n_slices, most)]


def class_weights(entries: Sequence[dict[str, Any]], n_classes: int) -> Tensor:
    """Weights ``(classes,)`` that make every class count alike: images over classes times images of the class.

    >>> class_weights([{"label": 0}, {"label": 0}, {"label": 0}, {"label": 1}], 2).tolist()
    [0.6666666865348816, 2.0]
    """
    counts = torch.bincount(torch.tensor([entry["label"] for entry in entries]), minlength=n_classes)
    return len(entries) / (n_classes * counts.clamp(min=1)).float()
