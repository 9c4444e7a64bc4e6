"""A training that ends with calibrated weights, and their evaluation beside what needs no network."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from monai.inferers import Inferer
from torch import nn

from ctrestore.metrics import classification_scores, fit_temperature, probabilities_at
from ctrestore.tasks.lung_ct_classification.card import check_against, read_card, write_card
from ctrestore.tasks.lung_ct_classification.predictions import logits_of
from ctrestore.training.weights import BEST, load_weights


def train_and_calibrate(
    trainer: Any,
    network: nn.Module,
    dataset: Any,
    validation: Any,
    inferer: Inferer,
    ckpt_dir: str,
    start_from: str | None = None,
    **card: Any,
) -> None:
    """Run a trainer; then fit the temperature of its best weights on the calibration images and write their card.

    Without calibration images those of validation serve. They have chosen the epoch, so that the network looks surer of
    them than of new ones, and the probabilities come out too bold.

    Args:
        trainer: MONAI's.
        network: bare, of the trainer.
        dataset: of calibration, perhaps empty.
        validation: likewise, of validation.
        inferer: MONAI's.
        ckpt_dir: where the training leaves its weights.
        start_from: weights that it starts from; None: those that the network has.
        card: ``classes`` and how images are prepared; see :mod:`ctrestore.tasks.lung_ct_classification.card`.

    Raises:
        InputError: what a user can mend.
    """
    if start_from is not None:
        load_weights(Path(str(start_from)), network)
    trainer.run()
    if int(os.environ.get("RANK") or 0) > 0:
        return
    weights = Path(str(ckpt_dir)) / BEST
    load_weights(weights, network)
    section = "calibration" if len(dataset) else "validation"
    logits, labels = logits_of(dataset if len(dataset) else validation, network, inferer)
    temperature = fit_temperature(logits, labels)
    before, after = (
        float(classification_scores(probabilities_at(logits, t), labels)["calibration error"])
        for t in (1.0, temperature)
    )
    said = {
        "calibrated_on": f"{len(labels)} images of {section}",
        "calibration_error_before": round(before, 4),
        "calibration_error": round(after, 4),
    }
    write_card(weights, **card, temperature=round(temperature, 4), **said)
    print(
        f"temperature {temperature:.2f}: calibration error on {len(labels)} images of {section} {before:.3f} before, "
        f"{after:.3f} after; written beside {weights}",
        flush=True,
    )


def evaluate_classifier(
    dataset: Any,
    training: Any,
    network: nn.Module,
    inferer: Inferer,
    weights: str,
    classes: Sequence[str],
    output_dir: str,
    **shown: Any,
) -> None:
    """Classify test images and compare with what needs no network; tables and a figure.

    Args:
        dataset: of the test images: ``data`` with their entries, and samples with ``image`` and ``label``.
        training: likewise, without augmentation: the neighbours of the nearest-neighbour baseline.
        network: whose weights are loaded.
        inferer: MONAI's.
        weights: file, with its card beside it.
        classes: of the data, in their order.
        output_dir: made if need be.
        shown: how images are prepared, by the names of the card.

    Raises:
        InputError: weights are missing, or trained for other classes, another order of them or other images.
    """
    from ctrestore.tasks.lung_ct_classification.report import evaluate_lung_classification

    card = read_card(weights)
    check_against(card, weights, classes=classes, **shown)
    load_weights(Path(str(weights)), network)
    logits, labels = logits_of(dataset, network, inferer)
    evaluate_lung_classification(
        logits, labels, dataset, training, output_dir, classes=classes, temperature=float(card["temperature"])
    )
