"""What the configs of the CT bundles call beside MONAI: their slices, full dose alone or low and full dose in pairs.

As in :mod:`ctrestore.bundle`, the errors a user can mend end the process with one clean message.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import Dataset, PersistentDataset, get_track_meta, set_track_meta
from monai.inferers import Inferer
from monai.transforms import Compose
from monai.transforms.traits import RandomizableTrait
from monai.utils import convert_to_tensor
from torch import Tensor, nn
from tqdm import tqdm

from ctrestore.bundle import Section, ends_cleanly, waits_for_first_process
from ctrestore.ct import denormalise, normalise
from ctrestore.ct_photons import PHOTONS_KEY
from ctrestore.ct_slices import open_scan, spread_evenly
from ctrestore.ct_transforms import CLIP_HU, TakeOver, dose_map
from ctrestore.data_lists import read_data_list
from ctrestore.files import write_json
from ctrestore.handlers import load_weights
from ctrestore.inferers import MixedPrecisionInferer

EMBEDDED: dict[str, Any] = {"n_training": 16, "n_validation": 4, "n_test": 6, "n_slices": 4}  # of each kind
LIST = "list.json"


def embedded_list(dataset_dir: str | Path) -> Path:
    """The data list of the embedded CT phantoms, chests and abdomens, made in the folder on first use.

    Of the processes that ``torchrun`` starts on a machine, the first one writes and the others wait for it.

    Raises:
        ValueError: the folder holds other data.
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


@ends_cleanly
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
        SystemExit: the list or a scan is missing or cannot be read, or low and full dose differ in shape.
    """
    if n is not None and n < 1:
        raise ValueError(f"the number of {section} scans must be at least 1, or null for all of them; got {n}.")
    path = embedded_list(dataset_dir) if data_list is None else Path(str(data_list))
    found = []
    for entry in read_data_list(path, section, dataset_dir)[:n]:
        paired = "label" in entry
        files = {"image": entry["image"], "label": entry["label"]} if paired else {"label": entry["image"]}
        shapes = {key: open_scan(path, range_hu=entry.get("range_hu")).shape for key, path in files.items()}
        if len(set(shapes.values())) > 1:
            raise ValueError(
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


@ends_cleanly
def is_paired(data_list: str | None) -> bool:
    """Whether a data list holds low and full dose in pairs, so that nothing is to be simulated.

    Raises:
        SystemExit: no such list, or some of its scans have a partner and others have none.
    """
    if data_list is None:
        return False
    try:
        content = json.loads(Path(str(data_list)).read_text(encoding="utf-8"))
        listed = [entry for value in content.values() if isinstance(value, list) for entry in value]
        paired = {"label" in entry for entry in listed if isinstance(entry, dict)}
    except (OSError, ValueError, AttributeError) as error:
        raise ValueError(f"{data_list}: no data list ({error}). Make one with `ctrestore data-list`.") from error
    if len(paired) > 1:
        raise ValueError(
            f"{data_list}: some scans have a label (full dose beside low dose) and some have none. Remedy: two lists, "
            "and two trainings."
        )
    return True in paired


def for_each(data: Sequence[dict[str, Any]], key: str, values: Sequence[Any]) -> list[dict[str, Any]]:
    """Every entry once for each value, which it has under the key: a slice with each of several noises."""
    return [{**entry, key: value} for entry in data for value in values]


def prepared_dataset(
    data: list[dict[str, Any]], transform: Compose, cache_dir: str | None = None, n_threads: int = 2
) -> Dataset:
    """Dataset in memory of what precedes the first random transform, done once an entry, by threads.

    Args:
        data: entries.
        transform: MONAI transform chain.
        cache_dir: folder that keeps the prepared entries for other runs, too; None: memory alone.
        n_threads: that prepare; most of the work is done outside Python's lock.
    """
    first_random = transform.get_index_of_first(lambda step: isinstance(step, RandomizableTrait))
    steps = list(transform.transforms)
    fixed, rest = Compose(steps[:first_random]), Compose([] if first_random is None else steps[first_random:])
    source = PersistentDataset(
        data, fixed, cache_dir=None if cache_dir is None else str(cache_dir), hash_transform=settings_hash
    )
    progress = partial(tqdm, total=len(data), desc="preparing slices", unit="slice", delay=2, disable=None)
    with ThreadPoolExecutor(n_threads) as pool:
        ready = list(progress(pool.map(source.__getitem__, range(len(data)))))
    # Without metadata, as they come back from a cache.
    return PlainDataset([convert_to_tensor(item, convert_numeric=False, track_meta=False) for item in ready], rest)


class PlainDataset(Dataset):
    """MONAI's Dataset of entries without metadata, whose transforms do not make any: twice as fast for small patches.

    Not for threads: whether metadata is kept is a setting of the whole process. Worker processes have their own.
    """

    def _transform(self, index: int) -> Any:
        tracked = get_track_meta()
        set_track_meta(False)
        try:
            return super()._transform(index)
        finally:
            set_track_meta(tracked)


def settings_hash(transforms: Sequence[Any]) -> bytes:
    """What tells one chain of transforms from another: the classes and their settings, the same in every process.

    MONAI's hash of a pickle depends on which strings two settings share in memory.
    """

    def plain(value: Any) -> Any:
        if isinstance(value, (str, int, float, bool, type(None))):
            return value
        if isinstance(value, Mapping):
            return {str(key): plain(value[key]) for key in sorted(value, key=str)}
        if isinstance(value, (list, tuple, set)):
            return [plain(item) for item in value]
        settings = vars(value) if hasattr(value, "__dict__") and not callable(getattr(value, "__code__", None)) else {}
        name = getattr(value, "__qualname__", type(value).__qualname__)
        return [name, plain(settings)] if settings else [name, "" if " at 0x" in repr(value) else repr(value)]

    return hashlib.sha256(json.dumps(plain(list(transforms))).encode()).hexdigest().encode()


def layer_rates(network: nn.Module, learning_rate: float, last_layer_factor: float = 1.0) -> list[dict[str, Any]]:
    """Parameter groups for an optimizer: all layers at ``learning_rate``, the last one at a fraction of it.

    SRCNN and FSRCNN are trained with a factor of 0.1 (Dong et al.): the layer that makes the image reaches its level
    early and then follows every batch.
    """
    layers = [layer for layer in network.modules() if list(layer.parameters(recurse=False))]
    last = list(layers[-1].parameters(recurse=False))
    slower = {id(parameter) for parameter in last}
    others = [parameter for parameter in network.parameters() if id(parameter) not in slower]
    return [{"params": others, "lr": learning_rate}, {"params": last, "lr": last_layer_factor * learning_rate}]


@ends_cleanly
def weights_at(
    scale: int, bundle_root: str, name: str = "model", ckpt_dir: str | None = None, must_exist: bool = True
) -> str:
    """The weights of a super-resolution network for a scale: of one's own training, or else the released ones.

    Released are ``models/NAME.pt`` for scale 2 and ``models/NAME_xSCALE.pt`` for others, of the default network
    ``models/xSCALE.pt``.

    Args:
        scale: how many times finer.
        bundle_root: of the bundle.
        name: of the network's overlay; ``model``: the default network.
        ckpt_dir: of one's own training.
        must_exist: whether a file that is not there is an error.

    Raises:
        SystemExit: there are no weights for this scale.
    """
    own = None if ckpt_dir is None else Path(str(ckpt_dir)) / "model.pt"
    if own is not None and own.is_file():
        return str(own)
    other = f"x{scale}" if name == "model" else f"{name}_x{scale}"
    path = Path(str(bundle_root)) / "models" / f"{name if scale == 2 else other}.pt"
    if must_exist and not path.is_file():
        there = ", ".join(sorted(file.name for file in path.parent.glob("*.pt"))) or "none"
        raise ValueError(
            f"there are no weights for scale {scale}: no {path} (there: {there}; model.pt is for scale 2). Remedy: "
            f"another scale, a training of your own with --scale {scale}, or --weights FILE of one."
        )
    return str(path)


def predictions_in_hu(output: Sequence[dict[str, Tensor]]) -> tuple[list[Tensor], list[Tensor]]:
    """``pred`` and ``label`` of an engine's output, from the network's unit to HU: for metrics."""
    pred, label = ([denormalise(sample[key]) for sample in output] for key in ("pred", "label"))
    return pred, label


def restored_slice(
    hu: np.ndarray,
    *,
    network: nn.Module,
    inferer: Inferer,
    clip_hu: Sequence[float] = CLIP_HU,
    told_dose: bool = False,
    dose_fraction: float | None = None,
    strength: float = 1.0,
) -> np.ndarray:
    """A slice in HU ``(y, x)`` as a network restores it, on its grid or a finer one.

    Values outside the range that the network sees stay as they were.

    Args:
        hu: slice.
        network: ``(1, 1, x, y)`` in HU / 1000 to the same; with the map of the dose as a second channel if it is told.
        inferer: MONAI's.
        clip_hu: lowest and highest HU that the network sees.
        told_dose: whether the network is told the dose.
        dose_fraction: of the full dose; None: not known.
        strength: share of the restoration that is taken over.
    """
    before = torch.from_numpy(np.ascontiguousarray(hu.T, dtype=np.float32))
    device = next((weights.device for weights in network.parameters()), torch.device("cpu"))
    with torch.inference_mode():
        shown = normalise(before.clamp(*clip_hu))[None]
        if told_dose:
            shown = torch.cat([shown, dose_map(shown, dose_fraction)])
        restored = denormalise(inferer(shown[None].to(device), network))[0, 0].float().cpu()
    return TakeOver(clip_hu, strength)(restored, before).numpy().T


def _is_true(value: Any) -> bool:
    """Whether a setting is true; the command line hands over "false" as text."""
    return str(value).lower() == "true"


def _with_weights(rows: Sequence[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[str]]:
    """The rows whose networks have weights, loaded, and what is to be said of the others.

    Raises:
        ValueError: the first row has none.
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


@ends_cleanly
def evaluate_super_resolution(
    dataset: Any, rows: Sequence[dict[str, Any]], output_dir: str, clip_hu: Sequence[float], **choices: Any
) -> None:
    """Bring test slices to a finer grid with networks and by interpolation; write tables and pictures of how good.

    Args:
        dataset: samples with ``image`` (coarse) and ``label`` in HU; see
            :func:`ctrestore.report.evaluate_ct_super_resolution`.
        rows: of the table, ``{"name", "network", "weights", "amp"}`` each. The first must have its weights; others
            without are left out, which the table says.
        output_dir: made if need be.
        clip_hu: lowest and highest HU that the networks see.
        choices: of :func:`ctrestore.report.evaluate_ct_super_resolution`.

    Raises:
        SystemExit: the weights are missing or belong to another network, there is no slice, or a result is NaN.
    """
    from ctrestore.report import evaluate_ct_super_resolution

    found, remarks = _with_weights(rows)
    networks = {
        row["name"]: partial(
            restored_slice,
            network=row["network"].eval(),
            inferer=MixedPrecisionInferer(row["amp"]),
            clip_hu=clip_hu,
        )
        for row in found
    }
    evaluate_ct_super_resolution(dataset, networks, output_dir, remarks=remarks, **choices)


@ends_cleanly
def evaluate_denoising(
    dataset: Any,
    rows: Sequence[dict[str, Any]],
    output_dir: str,
    inferer: Inferer,
    clip_hu: Sequence[float] = CLIP_HU,
    **choices: Any,
) -> None:
    """Restore test slices with networks and classical methods, and write tables and pictures of how good they are.

    Args:
        dataset: samples with ``image`` and ``label`` in HU; see :func:`ctrestore.report.evaluate_ldct_denoising`.
        rows: of the table, ``{"name", "network", "weights", "told_dose", "strength"}`` each. The first must have its
            weights; others without are left out, which the table says.
        output_dir: made if need be.
        inferer: of all networks.
        clip_hu: lowest and highest HU that they see.
        choices: of :func:`ctrestore.report.evaluate_ldct_denoising`.

    Raises:
        SystemExit: the weights are missing or belong to another network, there is no slice, or a result is NaN.
    """
    from ctrestore.report import evaluate_ldct_denoising

    networks = {}
    found, remarks = _with_weights(rows)
    for row in found:
        networks[row["name"]] = partial(
            restored_slice,
            network=row["network"].eval(),
            inferer=inferer,
            clip_hu=clip_hu,
            told_dose=_is_true(row.get("told_dose", False)),
            strength=float(row.get("strength", 1)),
        )

    def of_dose(dose_fraction: float) -> dict[str, Any]:
        known = None if math.isnan(dose_fraction) else dose_fraction
        return {name: partial(restore, dose_fraction=known) for name, restore in networks.items()}

    evaluate_ldct_denoising(dataset, of_dose, output_dir, remarks=remarks, **choices)
