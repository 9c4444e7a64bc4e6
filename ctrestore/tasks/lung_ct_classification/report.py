"""Evaluation of a classifier of CT images beside what needs no network: tables and a figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from PIL import Image
from sklearn.dummy import DummyClassifier
from sklearn.metrics import confusion_matrix, recall_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.tree import DecisionTreeClassifier

from ctrestore.errors import InputError
from ctrestore.io.whole import writable_folder, write_json, written_whole
from ctrestore.metrics import CLASSIFICATION_MEASURES, probabilities_at, score_intervals
from ctrestore.tasks.ct_report.pairs import write_csv

NETWORK, UNCALIBRATED = "network", "network, not calibrated"
NEIGHBOUR, METADATA, MAJORITY = "nearest neighbour, 48 x 48", "metadata alone", "majority class"
THUMBNAIL = 48
NOTES = f"""\
In brackets 95 % intervals, bootstrapped by subject. Balanced accuracy: mean recall of the classes. AUC: each class
against the rest, mean. Calibration error: mean distance of confidence and accuracy over 15 bins; "{UNCALIBRATED}" has
the same classes with the temperature 1. "{NEIGHBOUR}": the class of the training image whose thumbnail is nearest, no
learning. "{METADATA}": a decision tree on width, height, aspect, and mode of a picture or pixel size of a scan, never
on what is in it. "{MAJORITY}": the commonest class of the training. A network that is not clearly above all three has
shown nothing."""


def thumbnails(samples: Any) -> tuple[np.ndarray, np.ndarray]:
    """Images of a data set as rows of 48 x 48 values, and their labels."""
    rows, labels = [], []
    for i in range(len(samples)):
        sample = samples[i]
        image = torch.as_tensor(sample["image"]).as_subclass(torch.Tensor).float()
        if image.ndim > 3:  # of a volume, its mean along z
            image = image.mean(dim=-1)
        small = torch.nn.functional.adaptive_avg_pool2d(image[None], THUMBNAIL)
        rows.append(small.flatten().numpy())
        labels.append(int(sample["label"]))
    return np.array(rows), np.array(labels)


def metadata_of(path: str) -> list[float]:
    """Width, height, aspect, and mode of a picture (channels) or pixel size of a scan in mm."""
    if path.lower().endswith((".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")):
        with Image.open(path) as image:
            width, height = image.size
            return [width, height, width / height, len(image.getbands())]
    if Path(path).is_dir():
        return [0.0, 0.0, 0.0, 0.0]  # a DICOM series: all alike
    header: Any = nib.load(path).header
    width, height = (int(side) for side in header.get_data_shape()[:2])
    return [width, height, width / height, float(header.get_zooms()[0])]


def _one_hot(guesses: np.ndarray, n_classes: int) -> np.ndarray:
    return np.eye(n_classes)[guesses]


def baselines(dataset: Any, training: Any, n_classes: int) -> dict[str, np.ndarray]:
    """Probabilities ``(n, classes)`` of what needs no network, by the name of its row."""
    seen, known = thumbnails(training)
    shown, _ = thumbnails(dataset)
    neighbour = KNeighborsClassifier(1).fit(seen, known).predict(shown)
    majority = DummyClassifier(strategy="most_frequent").fit(seen, known).predict(shown)
    of_training, of_test = ([metadata_of(str(e["image"])) for e in each.data] for each in (training, dataset))
    tree = DecisionTreeClassifier(max_depth=6, random_state=0).fit(of_training, known).predict(of_test)
    guesses = {NEIGHBOUR: neighbour, METADATA: tree, MAJORITY: majority}
    return {name: _one_hot(found, n_classes) for name, found in guesses.items()}


def evaluate_lung_classification(
    logits: np.ndarray,
    labels: np.ndarray,
    dataset: Any,
    training: Any,
    output_dir: str | Path,
    *,
    classes: Sequence[str],
    temperature: float,
) -> pd.DataFrame:
    """A line a row of the table and measure; written with a line an image, and a figure, to a folder, and printed.

    ``output_dir`` receives metrics.csv (what is returned), predictions.csv, summary.json, table.md and confusion.png.

    Args:
        logits: of the test images ``(n, classes)``, or ``(n, 1)`` for two classes.
        labels: true classes ``(n,)``.
        dataset: of the test images: ``data`` with ``image`` and ``subject``, samples with ``image`` and ``label``.
        training: likewise.
        output_dir: made if need be.
        classes: names, in the order of the labels.
        temperature: of the calibration.

    Raises:
        InputError: there is no image.
    """
    output_dir = writable_folder(output_dir)
    if not len(labels):
        raise InputError("there is no test image. Usual cause: a list whose section `test` is empty.")
    subjects = [str(entry["subject"]) for entry in dataset.data]
    calibrated = probabilities_at(logits, temperature)
    rows: dict[str, np.ndarray] = {NETWORK: calibrated, UNCALIBRATED: probabilities_at(logits)}
    rows |= baselines(dataset, training, len(classes))
    found = []
    for name, probabilities in rows.items():
        for measure, interval in score_intervals(probabilities, labels, subjects).items():
            if measure == "calibration error" and name not in (NETWORK, UNCALIBRATED):
                continue  # certain of everything
            found.append(
                {"row": name, "measure": measure, "value": interval.mean, "low": interval.low, "high": interval.high}
            )
    if "normal" in classes and len(classes) > 2:
        found += _among_cancers(calibrated, labels, subjects, list(classes).index("normal"))
    metrics = pd.DataFrame(found)
    write_csv(metrics, output_dir / "metrics.csv")
    of_images = pd.DataFrame(calibrated, columns=list(classes))
    of_images.insert(0, "predicted", [classes[i] for i in calibrated.argmax(axis=1)])
    of_images.insert(0, "class", [classes[i] for i in labels])
    of_images.insert(0, "file", [str(entry["image"]) for entry in dataset.data])
    write_csv(of_images, output_dir / "predictions.csv")
    matrix = confusion_matrix(labels, calibrated.argmax(axis=1), labels=range(len(classes)))
    recalls = recall_score(
        labels, calibrated.argmax(axis=1), labels=range(len(classes)), average=None, zero_division=np.nan
    )
    text = as_markdown(metrics, matrix, recalls, classes, n_images=len(labels), n_subjects=len(set(subjects)))
    with written_whole(output_dir / "table.md") as draft:
        draft.write_text(text, encoding="utf-8")
    summary = {"classes": list(classes), "temperature": temperature, "confusion": matrix.tolist(), "metrics": found}
    write_json(summary, output_dir / "summary.json")
    with written_whole(output_dir / "confusion.png") as draft:
        confusion_figure(matrix, calibrated, labels, classes).savefig(draft, dpi=120, format="png")
    print(text, flush=True)
    print(f"written to {output_dir.resolve()}", flush=True)
    return metrics


def _among_cancers(
    probabilities: np.ndarray, labels: np.ndarray, subjects: Sequence[str], normal: int
) -> list[dict[str, Any]]:
    """The network where the question is which tumour: normals are left out, and so is their probability."""
    ill = labels != normal
    kept = [i for i in range(probabilities.shape[1]) if i != normal]
    among = probabilities[ill][:, kept] + 1e-12
    among /= among.sum(axis=1, keepdims=True)
    moved = np.searchsorted(kept, labels[ill])
    of_ill = [subject for subject, is_ill in zip(subjects, ill) if is_ill]
    return [
        {"row": f"{NETWORK}, tumours alone", "measure": m, "value": i.mean, "low": i.low, "high": i.high}
        for m, i in score_intervals(among, moved, of_ill).items()
    ]


def as_markdown(
    metrics: pd.DataFrame,
    matrix: np.ndarray,
    recalls: np.ndarray,
    classes: Sequence[str],
    *,
    n_images: int,
    n_subjects: int,
) -> str:
    """The tables of an evaluation."""
    lines = [f"**{n_images} test images of {n_subjects} subjects**", ""]
    lines += ["| | " + " | ".join(CLASSIFICATION_MEASURES) + " |", "| --- |" + " ---: |" * len(CLASSIFICATION_MEASURES)]
    for name, part in metrics.groupby("row", sort=False):
        by_measure: Mapping[str, Any] = {row["measure"]: row for _, row in part.iterrows()}
        cells = [
            f"{by_measure[m]['value']:.3f} ({by_measure[m]['low']:.3f}..{by_measure[m]['high']:.3f})"
            if m in by_measure
            else "-"
            for m in CLASSIFICATION_MEASURES
        ]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    lines += ["", "True class in rows, what the network said in columns:", ""]
    lines += ["| | " + " | ".join(classes) + " | recall |", "| --- |" + " ---: |" * (len(classes) + 1)]
    for name, row, recall in zip(classes, matrix, recalls):
        lines.append(f"| {name} | " + " | ".join(str(int(n)) for n in row) + f" | {recall:.2f} |")
    return "\n".join([*lines, "", NOTES, ""])


def confusion_figure(
    matrix: np.ndarray, probabilities: np.ndarray, labels: np.ndarray, classes: Sequence[str]
) -> Figure:
    """The confusion matrix, and how often the network is right at each confidence."""
    drawn = Figure(figsize=(11, 4.8), layout="constrained")
    left, right = drawn.subplots(1, 2, width_ratios=(1.2, 1))
    share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    left.imshow(share, cmap="Blues", vmin=0, vmax=1)
    left.set_xticks(range(len(classes)), [name.replace(".", " ") for name in classes], rotation=20, ha="right")
    left.set_yticks(range(len(classes)), [name.replace(".", " ") for name in classes])
    left.set(xlabel="said", ylabel="true")
    for i in range(len(classes)):
        for j in range(len(classes)):
            left.text(j, i, str(int(matrix[i, j])), ha="center", color="white" if share[i, j] > 0.5 else "black")
    confidence, is_right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    bins = np.clip((confidence * 10).astype(int), 0, 9)
    used = [b for b in range(10) if (bins == b).any()]
    x = [float(confidence[bins == b].mean()) for b in used]
    y = [float(is_right[bins == b].mean()) for b in used]
    right.plot([0, 1], [0, 1], color="0.7", linewidth=1)
    right.scatter(x, y, s=[12 + 200 * float((bins == b).mean()) for b in used])
    right.set(xlim=(0, 1), ylim=(0, 1), xlabel="confidence", ylabel="share that is right", title="Calibration")
    return drawn
