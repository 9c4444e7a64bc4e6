"""What the configs of the CT bundles call beside MONAI: their slices, full dose alone or low and full dose in pairs.

As in :mod:`ctrestore.tasks.pet_pvc.scans`, the errors a user can mend end the process with one clean message.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from ctrestore.ct import denormalise
from ctrestore.data_lists import read_data_list
from ctrestore.errors import InputError
from ctrestore.io.ct_scan import open_scan, spread_evenly
from ctrestore.io.whole import write_json
from ctrestore.metrics.photons import PHOTONS_KEY
from ctrestore.tasks.runtime import Section, waits_for_first_process
from ctrestore.training.weights import load_weights

EMBEDDED: dict[str, Any] = {"n_training": 16, "n_validation": 4, "n_test": 6, "n_slices": 4}  # of each kind
LIST = "list.json"


def embedded_list(dataset_dir: str | Path) -> Path:
    """The data list of the embedded CT phantoms, chests and abdomens, made in the folder on first use.

    Of the processes that ``torchrun`` starts on a machine, the first one writes and the others wait for it.

    Raises:
        InputError: the folder holds other data.
    """
    folder = Path(dataset_dir).expanduser().absolute()
    path = folder / LIST
    if path.is_file():
        return path
    if waits_for_first_process(path):
        return path
    from ctrestore.phantoms.ct import write_ct_cohort

    print(f"Making CT phantoms in {folder} (once; about a minute)", flush=True)
    chests, abdomens = (write_ct_cohort(folder, kind, **EMBEDDED) for kind in ("chest", "abdomen"))
    sections = {name: chests[name] + abdomens[name] for name in ("training", "validation", "test")}
    write_json({"description": "ctrestore CT phantoms: chest and abdomen", **sections}, path)
    return path


def slices(
    section: Section,
    data_list: str | None,
    dataset_dir: str,
    n: int | None = None,
    slices_per_scan: int | None = None,
    dose_fractions: Sequence[float] | None = None,
) -> list[dict[str, Any]]:
    """Entries of a section, one a slice: ``{"subject", "label", "slice", ...}`` with absolute paths.

    ``label`` is the full dose. Lists of pairs give the low dose as ``image``, too; of full dose alone, the config
    simulates it.

    Args:
        section: ``training``, ``validation`` or ``test``.
        data_list: as ``ctrestore data-list`` makes for ``ldct_denoising`` (pairs) or ``ct_super_resolution`` (full
            dose alone); None: the embedded phantoms, made in ``dataset_dir`` where they are missing.
        dataset_dir: folder that the list's paths start from.
        n: only the first n scans.
        slices_per_scan: at most so many of a scan, evenly spread; None: all.
        dose_fractions: of full dose alone, every slice once for each, under ``dose_fraction``; None: once, without.

    Raises:
        InputError: the list or a scan is missing or cannot be read, or low and full dose differ in shape.
    """
    if n is not None and n < 1:
        raise InputError(f"the number of {section} scans must be at least 1, or null for all of them; got {n}.")
    path = embedded_list(dataset_dir) if data_list is None else Path(str(data_list))
    found = []
    for entry in read_data_list(path, section, dataset_dir)[:n]:
        paired = "label" in entry
        files = {"image": entry["image"], "label": entry["label"]} if paired else {"label": entry["image"]}
        shapes = {key: open_scan(path, range_hu=entry.get("range_hu")).shape for key, path in files.items()}
        if len(set(shapes.values())) > 1:
            raise InputError(
                f"{files['image']} has shape {shapes['image']}, its full dose {files['label']} {shapes['label']}. "
                "Remedy: reconstruct both alike, or list other pairs."
            )
        kept = {
            key: entry[key]
            for key in ("subject", "range_hu", "known_hu", "regions", "class", "dose_fraction", PHOTONS_KEY)
            if key in entry
        }
        lowered = [] if paired else [{"dose_fraction": float(a)} for a in dose_fractions or ()]
        for k in spread_evenly(shapes["label"][2], slices_per_scan):
            found += [{**kept, **files, "slice": k, **dose} for dose in lowered or [{}]]
    return found


def for_each(data: Sequence[dict[str, Any]], key: str, values: Sequence[Any]) -> list[dict[str, Any]]:
    """Every entry once for each value, which it has under the key: a slice with each of several noises."""
    return [{**entry, key: value} for entry in data for value in values]


def predictions_in_hu(output: Sequence[dict[str, Tensor]]) -> tuple[list[Tensor], list[Tensor]]:
    """``pred`` and ``label`` of an engine's output, from the network's unit to HU: for metrics."""
    pred, label = ([denormalise(sample[key]) for sample in output] for key in ("pred", "label"))
    return pred, label


def _with_weights(rows: Sequence[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[str]]:
    """The rows whose networks have weights, loaded, and what is to be said of the others.

    Raises:
        InputError: the first row has none.
    """
    found, remarks = [], []
    for i, row in enumerate(rows):
        path = Path(str(row["weights"]))
        if i and not path.is_file():
            remarks.append(f"{row['name']}: not run, there is no {path.name}.")
            continue
        load_weights(path, row["network"])
        found.append(row)
    return found, remarks
