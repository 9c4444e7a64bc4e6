"""What a classifier's weights know of themselves: ``model.json`` beside ``model.pt``.

A network gives numbers in an order. Which class each stands for, what its images looked like, and how sure it may be is
written beside the weights by the training, and compared wherever they are used: a class is never silently another.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ctrestore.errors import InputError
from ctrestore.io.whole import read_json, write_json
from ctrestore.tasks.lung_ct_classification.images import INPUT_KINDS

KEYS = ("classes", "input_kind", "window", "image_size", "crop_body", "temperature")


def card_path(weights: str | Path) -> Path:
    """Where the card of weights lies: the same name with .json."""
    return Path(str(weights)).with_suffix(".json")


def write_card(weights: str | Path, **content: Any) -> None:
    """Write the card of weights, whole or not at all."""
    write_json(content, card_path(weights))


def read_card(weights: str | Path) -> dict[str, Any]:
    """The card of weights, checked.

    Raises:
        InputError: there is none, or something is missing in it or cannot be.
    """
    path = card_path(weights)
    if not path.is_file():
        raise InputError(
            f"{path}: no such file. It says which classes the weights {Path(str(weights)).name} tell apart, and in "
            "which order. Remedy: copy it from where the weights come from; a training writes it beside its model.pt."
        )
    try:
        card = read_json(path)
    except ValueError as error:
        raise InputError(f"{path}: not a JSON file ({error}). Remedy: copy it again.") from error
    missing = [key for key in KEYS if key not in card]
    if missing:
        raise InputError(f"{path}: lacks {', '.join(missing)}. Remedy: copy it again, or train again.")
    classes = card["classes"]
    if len(classes) < 2 or len(set(classes)) < len(classes) or card["input_kind"] not in INPUT_KINDS:
        raise InputError(
            f"{path}: expected two different classes or more, and input_kind of {', '.join(INPUT_KINDS)}; got "
            f"{classes} and {card['input_kind']!r}."
        )
    if not 0 < float(card["temperature"]) < math.inf:
        raise InputError(f"{path}: temperature must be above 0; got {card['temperature']!r}.")
    return card


def check_against(card: dict[str, Any], weights: str | Path, *, classes: Sequence[str], **shown: Any) -> None:
    """Refuse weights for other classes, another order of them, or images prepared otherwise.

    Args:
        card: of the weights.
        weights: their file.
        classes: of the data, in their order.
        shown: how the data are prepared, by the names of the card.

    Raises:
        InputError: they differ; both sides are named.
    """
    theirs, ours = list(card["classes"]), list(classes)
    if theirs != ours:
        what = "the same classes in another order" if sorted(theirs) == sorted(ours) else "other classes"
        raise InputError(
            f"{weights} were trained for {what}: {', '.join(theirs)}; the data have {', '.join(ours)}. Remedy: a list "
            "with the classes of the weights in their order, or other weights."
        )
    for name, value in shown.items():
        if card[name] != value:
            raise InputError(
                f"{weights} were trained with {name} {card[name]!r}; here it is {value!r}. Remedy: --{name} as in the "
                "training, or other weights."
            )
