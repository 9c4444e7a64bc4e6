"""Data of a training without pairs: low dose of some people, full dose of others, never the same.

As in :mod:`ctrestore.tasks.pet_pvc.scans`, the errors a user can mend end the process with one clean message.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.utils.data import Dataset

from ctrestore.ct import denormalise
from ctrestore.errors import InputError
from ctrestore.io.ct_scan import open_scan, spread_evenly
from ctrestore.metrics.no_reference import log_noise
from ctrestore.tasks.ct_slices import slices
from ctrestore.tasks.ldct_denoising.evaluation import is_paired

Domain = Literal["low", "full", "validation"]
LOW, FULL = "training_low_dose", "training_full_dose"  # sections of a list that has both
Entry = dict[str, Any]


def _sections(data_list: str | None) -> set[str]:
    if data_list is None:
        return set()
    try:
        content = json.loads(Path(str(data_list)).read_text(encoding="utf-8"))
        return {name for name, value in content.items() if isinstance(value, list) and value}
    except (OSError, ValueError, AttributeError) as error:
        raise InputError(f"{data_list}: no data list ({error}). Make one with `ctrestore data-list`.") from error


def has_low_dose(data_list: str | None, low_dose_list: str | None = None) -> bool:
    """Whether there are real low-dose scans, so that none is to be simulated.

    Raises:
        InputError: no such list.
    """
    if low_dose_list is not None or LOW in _sections(data_list):
        return True
    return is_paired(data_list)


def _subject(entry: Entry) -> str:
    return str(entry.get("subject", entry.get("image", entry.get("label"))))


def low_dose_half(subjects: Sequence[str]) -> set[str]:
    """The first half of the subjects in the order of a hash of their names: those whose low dose is learned from.

    >>> sorted(low_dose_half(["a", "b", "c", "d", "a"]))
    ['c', 'd']
    """
    names = sorted(set(subjects), key=lambda name: hashlib.sha256(name.encode()).digest())
    return set(names[: len(names) // 2])


def _few_of_each(entries: list[Entry], n: int | None) -> list[Entry]:
    """At most n slices of each subject, at each dose, evenly spread."""
    of_subject: dict[tuple[str, Any], list[Entry]] = {}
    for entry in entries:
        of_subject.setdefault((_subject(entry), entry.get("dose_fraction")), []).append(entry)
    return [found[i] for found in of_subject.values() for i in spread_evenly(len(found), n)]


def unpaired_slices(
    domain: Domain,
    data_list: str | None,
    dataset_dir: str,
    low_dose_list: str | None = None,
    low_dose_dir: str | None = None,
    n: int | None = None,
    slices_per_scan: int | None = None,
    slices_per_subject: int | None = None,
    dose_fractions: Sequence[float] | None = None,
) -> list[Entry]:
    """Entries of a domain, one a slice: ``{"image", "slice", "subject", ...}``; no subject is in two domains.

    Where the two domains come from, the first that applies:

    - a ``low_dose_list``: its ``training`` section is the low dose, that of ``data_list`` the full dose, and its
      ``validation`` section is validated on;
    - sections ``training_low_dose`` and ``training_full_dose`` in ``data_list``; its ``validation`` holds low dose;
    - pairs in ``data_list``: the low dose of half of the training subjects, the full dose of the others;
    - full dose alone (or None, the embedded phantoms): the same halves, and the config simulates the low dose.

    Args:
        domain: ``low`` or ``full`` to train on, or ``validation``: low dose of other people.
        data_list: as above.
        dataset_dir: folder that the list's paths start from.
        low_dose_list: as above.
        low_dose_dir: folder of the low-dose list; by default ``dataset_dir``.
        n: only the first n scans of a list.
        slices_per_scan: at most so many of a scan, evenly spread.
        slices_per_subject: at most so many of a subject, so that nobody is the half of a domain.
        dose_fractions: of full dose alone in validation; every slice once for each, under ``dose_fraction``.

    Raises:
        InputError: a list or a scan is missing, a subject is in both domains, or there are fewer than two subjects.
    """
    if domain not in get_args(Domain):
        raise InputError(f"domain is one of {', '.join(get_args(Domain))}; got {domain!r}.")
    options: dict[str, Any] = {"n": n, "slices_per_scan": slices_per_scan}
    sections, paired = _sections(data_list), low_dose_list is None and is_paired_list(data_list)
    if domain == "validation":
        if low_dose_list is not None:
            found = slices("validation", low_dose_list, low_dose_dir or dataset_dir, **options)
        else:
            simulated = not paired and LOW not in sections
            doses = dose_fractions if simulated else None
            found = slices("validation", data_list, dataset_dir, **options, dose_fractions=doses)
        return _few_of_each([_only(entry, "image" if paired else "label") for entry in found], slices_per_subject)
    if low_dose_list is not None:
        low = slices("training", low_dose_list, low_dose_dir or dataset_dir, **options)
        full = slices("training", data_list, dataset_dir, **options)
        if both := {_subject(entry) for entry in low} & {_subject(entry) for entry in full}:
            raise InputError(
                f"{sorted(both)[0]} is in the low-dose and in the full-dose list ({len(both)} subjects in all). "
                "Remedy: every subject in one of them, or train on pairs."
            )
        found = low if domain == "low" else full
    elif LOW in sections:
        found = slices({"low": LOW, "full": FULL}[domain], data_list, dataset_dir, **options)  # type: ignore[arg-type]
    else:
        found = slices("training", data_list, dataset_dir, **options)
        low_half = low_dose_half([_subject(entry) for entry in found])
        if not low_half:
            raise InputError("training without pairs needs two subjects or more: the domains have different people.")
        found = [entry for entry in found if (_subject(entry) in low_half) == (domain == "low")]
    of_pair = "image" if paired and domain == "low" else "label"
    return _few_of_each([_only(entry, of_pair) for entry in found], slices_per_subject)


def is_paired_list(data_list: str | None) -> bool:
    """Whether the list has pairs; one that has sections of both doses has none, whatever labels mean there."""
    return LOW not in _sections(data_list) and is_paired(data_list)


def _only(entry: Entry, key: str) -> Entry:
    """The entry with one image alone, under ``image``: what a domain does not have, nothing can look at."""
    kept = {name: value for name, value in entry.items() if name not in ("image", "label", "known_hu")}
    return {**kept, "image": entry[key]}


class UnpairedDataset(Dataset):
    """Low-dose patches under ``image`` beside full-dose patches of other people under ``label``.

    As long as the longer of the two; the shorter one is gone through again. Which goes with which means nothing: no
    loss compares them.

    Args:
        low: items with ``image``.
        full: items with ``image``.
    """

    def __init__(self, low: Any, full: Any) -> None:
        self.low, self.full = low, full

    def __len__(self) -> int:
        return max(len(self.low), len(self.full))

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {
            "image": self.low[index % len(self.low)]["image"],
            "label": self.full[index % len(self.full)]["image"],
        }


def noise_of(entries: Sequence[Entry], n: int = 64) -> list[tuple[float, float]]:
    """Noise of full-dose slices, :func:`ctrestore.metrics.no_reference.log_noise`, of at most n, evenly spread."""
    chosen = [entries[i] for i in spread_evenly(len(entries), n)]
    return [
        log_noise(open_scan(entry["image"], range_hu=entry.get("range_hu")).slice_hu(entry["slice"]))
        for entry in chosen
    ]


def restored_in_hu(output: Sequence[dict[str, Tensor]]) -> tuple[list[Tensor], list[Tensor]]:
    """``pred`` and ``image`` of an engine's output in HU: for metrics that look at no reference."""
    pred, image = ([denormalise(torch.as_tensor(sample[key])) for sample in output] for key in ("pred", "image"))
    return pred, image
