"""Classification of CT slices and pictures: data, what the weights know, training, evaluation, inference."""

from ctrestore.tasks.lung_ct_classification.card import check_against, read_card, write_card
from ctrestore.tasks.lung_ct_classification.data import class_weights, classes_of, embedded_list, images
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
    "images",
    "logits_of",
    "read_card",
    "read_grey",
    "scores_and_classes",
    "train_and_calibrate",
    "write_card",
]
