"""Classification of CT slices and pictures: data, what the weights know, training, evaluation, inference."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ctrestore.tasks.lung_ct_classification.card import check_against, read_card, write_card
    from ctrestore.tasks.lung_ct_classification.data import class_weights, classes_of, embedded_list
    from ctrestore.tasks.lung_ct_classification.images import INPUT_KINDS, LoadClassifiedd, read_grey
    from ctrestore.tasks.lung_ct_classification.inference import Images, classify_each, find_images
    from ctrestore.tasks.lung_ct_classification.predictions import Probabilitiesd, logits_of, scores_and_classes
    from ctrestore.tasks.lung_ct_classification.training import evaluate_classifier, train_and_calibrate

__all__ = [
    "INPUT_KINDS",
    "Images",
    "LoadClassifiedd",
    "Probabilitiesd",
    "check_against",
    "class_weights",
    "classes_of",
    "classify_each",
    "embedded_list",
    "evaluate_classifier",
    "find_images",
    "logits_of",
    "read_card",
    "read_grey",
    "scores_and_classes",
    "train_and_calibrate",
    "write_card",
]


def __getattr__(name: str) -> Any:
    """The exported names, when they are asked for: they need torch and MONAI, which take seconds (PEP 562)."""
    from importlib import import_module

    files = {
        "card": ("check_against", "read_card", "write_card"),
        "data": ("class_weights", "classes_of", "embedded_list"),
        "images": ("INPUT_KINDS", "LoadClassifiedd", "read_grey"),
        "inference": ("Images", "classify_each", "find_images"),
        "predictions": ("Probabilitiesd", "logits_of", "scores_and_classes"),
        "training": ("evaluate_classifier", "train_and_calibrate"),
    }
    for file, names in files.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{file}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
