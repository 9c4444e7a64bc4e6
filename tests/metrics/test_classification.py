"""Scores of a classifier against scikit-learn, and tests and intervals against their definitions."""

from __future__ import annotations

from math import comb

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, f1_score, roc_auc_score

from ctrestore.metrics import CLASSIFICATION_MEASURES, classification_scores, mcnemar, score_intervals


@pytest.fixture
def guesses() -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of three classes for 60 images, with ties, and the truth, with which they correlate."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 60)
    logits = np.round(rng.normal(0, 1, (60, 3)) + 1.2 * np.eye(3)[labels], 1)
    return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True), labels


def test_the_scores_equal_those_of_scikit_learn(guesses):
    probabilities, labels = guesses
    found, pred = classification_scores(probabilities, labels), probabilities.argmax(axis=1)
    assert found["accuracy"] == np.mean(pred == labels)
    assert found["balanced accuracy"] == pytest.approx(balanced_accuracy_score(labels, pred))
    assert found["macro F1"] == pytest.approx(f1_score(labels, pred, average="macro"))
    assert found["AUC"] == pytest.approx(roc_auc_score(labels, probabilities, multi_class="ovr"))


def test_a_count_of_two_equals_listing_the_image_twice(guesses):
    probabilities, labels = guesses
    counts = np.random.default_rng(1).integers(0, 4, (1, len(labels)))
    again = classification_scores(np.repeat(probabilities, counts[0], axis=0), np.repeat(labels, counts[0]))
    counted = classification_scores(probabilities, labels, counts)
    assert {name: values[0] for name, values in counted.items()} == pytest.approx(again)


def test_the_calibration_error_is_the_gap_between_confidence_and_accuracy():
    """Ten images of confidence 0.8, of which six are right: 0.2."""
    probabilities = np.tile([0.8, 0.2], (10, 1))
    assert classification_scores(probabilities, np.array([0] * 6 + [1] * 4))["calibration error"] == pytest.approx(0.2)


@pytest.mark.parametrize(("lost", "gained"), [(0, 0), (5, 0), (7, 3), (12, 12)])
def test_mcnemar_is_the_sign_test_of_what_changed(lost, gained):
    first = np.array([True] * lost + [False] * gained + [True, False])
    second = np.array([False] * lost + [True] * gained + [True, False])
    n, few = lost + gained, min(lost, gained)
    exact = min(1.0, 2 * sum(comb(n, k) for k in range(few + 1)) / 2**n)
    assert mcnemar(first, second) == (lost, gained, pytest.approx(exact))


def test_an_interval_draws_patients_and_not_images(guesses):
    """Listing each image nine times adds no evidence."""
    probabilities, labels = guesses
    names = [f"patient {i}" for i in range(len(labels))]
    once = score_intervals(probabilities, labels, names, n_resamples=400)
    often = score_intervals(
        np.repeat(probabilities, 9, axis=0), np.repeat(labels, 9), np.repeat(names, 9), n_resamples=400
    )
    for name in CLASSIFICATION_MEASURES:
        assert once[name].low <= once[name].mean <= once[name].high or name == "calibration error"  # which is biased
        assert often[name][:3] == pytest.approx(once[name][:3], abs=0.02)
    p = once["accuracy"].mean
    assert once["accuracy"].high - once["accuracy"].low == pytest.approx(2 * 1.96 * np.sqrt(p * (1 - p) / 60), rel=0.15)


def test_a_class_without_images_is_left_out():
    probabilities = np.array([[0.7, 0.2, 0.1], [0.2, 0.7, 0.1]])
    found = classification_scores(probabilities, np.array([0, 1]))
    assert found["balanced accuracy"] == found["AUC"] == 1


def test_logits_and_labels_without_a_class_are_refused():
    with pytest.raises(ValueError, match="softmax"):
        classification_scores(np.array([[3.0, -1.0]]), np.array([0]))
    with pytest.raises(ValueError, match="0 to 1; got 2"):
        classification_scores(np.array([[0.5, 0.5]]), np.array([2]))
    with pytest.raises(ValueError, match="same images"):
        mcnemar([True], [True, False])
