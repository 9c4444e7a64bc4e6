"""Scans and pictures classified one after the other, into one table; on request, where the network looked."""

from __future__ import annotations

import csv
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.engine import Events
from monai.data import DataLoader, Dataset
from monai.visualize import blend_images
from PIL import Image

from ctrestore.data_lists import read_data_list
from ctrestore.errors import InputError, ScansFailed
from ctrestore.io.ct_scan import Scan
from ctrestore.io.whole import writable_folder, written_whole
from ctrestore.tasks.ct_restoration import find_scans
from ctrestore.tasks.lung_ct_classification.data import LIST, embedded_list
from ctrestore.tasks.lung_ct_classification.images import check_input_kind, is_picture
from ctrestore.tasks.runtime import for_each_scan
from ctrestore.training.weights import LoadWeights

TABLE, WHOLE = "predictions.csv", "all"


@dataclass
class Images:
    """What is to be classified: the entries of each file or series, and what is wrong with those that cannot be."""

    found: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    @property
    def entries(self) -> list[dict[str, Any]]:
        """One entry an image that the network is shown: the data of a MONAI dataset."""
        return [entry for entries in self.found.values() for entry in entries]


def find_images(
    dataset_dir: str,
    output_dir: str,
    *,
    input_kind: str = "hu",
    embedded_dir: str | None = None,
    n_embedded: int = 8,
    window: Sequence[float] | None = None,
    series_uid: str | None = None,
    volumes: bool = False,
) -> Images:
    """The images of a file or folder.

    Args:
        dataset_dir: for weights of HU a NIfTI file, a DICOM series, a folder of either, or pictures with a window; for
            weights of grey values a picture or a folder of them.
        output_dir: of the table.
        input_kind: what the network was trained on, ``hu`` or ``grey``.
        embedded_dir: stands for embedded test phantoms, made when missing.
        n_embedded: so many of these.
        window: level and width in HU of pictures, for weights of HU.
        series_uid: only this DICOM series.
        volumes: one entry a scan instead of one a slice.

    Raises:
        InputError: there is no such place, or nothing of that kind there.
    """
    check_input_kind(input_kind)
    source = Path(str(dataset_dir))
    if embedded_dir is not None and source.resolve() == Path(embedded_dir).resolve():
        embedded_list(source)
        listed = read_data_list(source / LIST, "test", source)[:n_embedded]
        return Images({str(entry["image"]): [{"image": str(entry["image"]), "slice": 0}] for entry in listed})
    if input_kind == "grey":
        return Images({str(path): [{"image": str(path)}] for path in _pictures(source, window)})
    scans = find_scans(str(source), str(Path(str(output_dir)) / "scans"), window=window, series_uid=series_uid)
    return Images({str(found): _entries_of(found.scan, volumes) for found in scans.found}, dict(scans.failed))


def _entries_of(scan: Scan, volumes: bool) -> list[dict[str, Any]]:
    return [{"image": scan}] if volumes else [{"image": scan, "slice": k} for k in range(scan.shape[2])]


def _pictures(source: Path, window: Sequence[float] | None) -> list[Path]:
    if window is not None:
        raise InputError("these weights were trained on grey values; they have no use for a --window.")
    if not source.exists():
        raise InputError(f"{source}: no such file or folder. Remedy: a picture, or a folder of them.")
    if source.is_file():
        return [source]
    found = [p for p in sorted(source.rglob("*")) if is_picture(p) and p.is_file() and not p.name.startswith(".")]
    others = [p for p in source.rglob("*") if p.is_file() and p.name.lower().endswith((".nii", ".nii.gz", ".dcm"))]
    if not found and others:
        raise InputError(
            f"{others[0]}: a scan in HU, and these weights were trained on the grey values of 8-bit pictures. Remedy: "
            "weights that were trained on HU, or pictures made like those of the training."
        )
    return found


def classify_each(
    evaluator: Any,
    images: Images,
    dataset: Dataset,
    weights: LoadWeights,
    classes: Sequence[str],
    output_dir: str,
    cam: Any = None,
    dataset_dir: str = "",
) -> None:
    """Run the evaluator file by file and write ``predictions.csv``; a bad file is named and the others go on.

    A line holds file, slice, the likeliest class and the probability of each. A scan of several slices has a line for
    each of them and one for all: the mean of their probabilities.

    Args:
        evaluator: whose postprocessing gives probabilities; its loader says how many slices make a batch.
        images: to classify.
        dataset: whose transform prepares an entry.
        weights: of the evaluator's network, loaded first.
        classes: names, in the order of the probabilities.
        output_dir: of the table, and of pictures under ``cam``.
        cam: MONAI's class activation map of the network; None: no pictures.
        dataset_dir: where the images were looked for.

    Raises:
        InputError: there is no image, or no weights, or, at the end, files failed.
    """
    if not images.found and not images.failed:
        raise InputError(
            f"{dataset_dir} holds nothing to classify. Expected pictures, NIfTI files or DICOM series; for weights "
            "of grey values pictures alone. Remedy: name another --dataset_dir."
        )
    weights.load()
    folder = writable_folder(str(output_dir))
    evaluator.interrupt_resume_enabled = False  # a failed run is not gone on with
    evaluator.logger.setLevel(logging.CRITICAL)  # it would announce every bad file twice, without its name
    batch_size, kept = evaluator.data_loader.batch_size, []
    evaluator.add_event_handler(Events.ITERATION_COMPLETED, lambda engine: kept.extend(engine.state.output))
    rows: list[dict[str, Any]] = []  # also of a file whose picture cannot be drawn

    def classify(name: str) -> None:
        entries = images.found[name]
        kept.clear()
        evaluator.data_loader = DataLoader(Dataset(entries, dataset.transform), batch_size=batch_size, num_workers=0)
        evaluator.state.epoch_length = len(evaluator.data_loader)
        evaluator.run()
        found = np.stack([torch.as_tensor(item["pred"]).numpy() for item in kept])
        rows.extend(rows_of(name, entries, found, classes))
        if cam is not None:
            most = found.mean(axis=0).argmax()
            shown = int(found[:, most].argmax())
            image = dataset.transform(dict(entries[shown]))["image"]
            source = entries[shown]["image"]
            in_ras = not (isinstance(source, str) and is_picture(source))  # grey pictures stay as they are shown
            _draw(cam, torch.as_tensor(image), int(most), folder / "cam", name, entries[shown].get("slice"), in_ras)

    todo = [(name, name) for name in images.found]
    done, failed = for_each_scan(todo, classify, doing="classifying", unit="file", failed=images.failed)
    if rows:
        write_table(rows, folder / TABLE)
    print(f"{len(done)} of {len(done) + len(failed)} files classified; table: {(folder / TABLE).resolve()}")
    if failed:
        raise ScansFailed("classified", failed)


def rows_of(
    name: str, entries: Sequence[dict[str, Any]], probabilities: np.ndarray, classes: Sequence[str]
) -> list[dict[str, Any]]:
    """The lines of a file: one for each slice, and one for all of several; a picture has no number.

    Raises:
        InputError: another number of probabilities than of classes.
    """
    if probabilities.shape[1] != len(classes):
        raise InputError(f"the network gives {probabilities.shape[1]} probabilities; the weights know {len(classes)}.")

    def row(number: Any, found: np.ndarray) -> dict[str, Any]:
        return {"file": name, "slice": number, "class": classes[int(found.argmax())], **dict(zip(classes, found))}

    lines = [row(entry.get("slice", WHOLE), found) for entry, found in zip(entries, probabilities)]
    return lines if len(lines) == 1 else [*lines, row(WHOLE, probabilities.mean(axis=0))]


def write_table(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Write the lines of all files as CSV, probabilities to four digits."""
    with written_whole(path) as draft, draft.open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator=os.linesep)
        table.writeheader()
        for row in rows:
            table.writerow({k: f"{v:.4f}" if isinstance(v, float | np.floating) else v for k, v in row.items()})


def _draw(cam: Any, image: torch.Tensor, label: int, folder: Path, name: str, number: Any, in_ras: bool) -> None:
    """The image as the network saw it, under the map of what spoke for a class: a PNG, as a radiologist looks at it."""
    device = next(cam.nn_module.model.parameters()).device
    if image.ndim > 3:
        raise InputError("class activation maps of volumes are not drawn. Remedy: --save_cam False.")
    with torch.enable_grad():
        found = cam(x=image[None].to(device).requires_grad_(), class_idx=label)[0].detach().cpu()
    low, high = float(image.min()), float(image.max())
    grey = (image - low) / max(high - low, 1e-6)
    blended = blend_images(grey, 1 - found, alpha=0.35, cmap="jet", rescale_arrays=False)  # MONAI's maps: low is where
    seen = (np.asarray(blended)[:, ::-1, ::-1] if in_ras else np.asarray(blended)).transpose(2, 1, 0)
    pixels = (seen.clip(0, 1) * 255).astype(np.uint8)
    stem = "_".join(part for part in Path(name).parts[-3:] if part not in ("/", ".", "..")) or "image"
    writable_folder(folder)
    target = folder / f"{stem}{'' if number is None else f'_{number:03d}'}.png"
    with written_whole(target) as draft:
        Image.fromarray(pixels).save(draft, format="PNG")
