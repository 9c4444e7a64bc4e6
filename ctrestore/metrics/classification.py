"""Accuracy of class probabilities, with intervals that resample patients."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import binomtest, rankdata

from ctrestore.metrics.statistics import Interval

N_BINS = 15  # of confidence, for the calibration error (Guo et al., ICML 2017)
CLASSIFICATION_MEASURES = ("accuracy", "balanced accuracy", "macro F1", "AUC", "calibration error")


class McNemar(NamedTuple):
    """The changes between two classifications of the same images, and the two-sided exact p of McNemar's test."""

    n_lost: int  # right only in the first one
    n_gained: int  # right only in the second one
    p_value: float


def mcnemar(first: Sequence[bool] | np.ndarray, second: Sequence[bool] | np.ndarray) -> McNemar:
    """Test whether two classifications of the same images are equally often right; its unit is images, not patients.

    Args:
        first: whether each image was right.
        second: the same for the other classification.

    Raises:
        ValueError: the numbers of images differ.

    Reference:
        McNemar, Psychometrika 12:153, 1947.

    >>> mcnemar([True, True, True, False], [True, False, False, False])
    McNemar(n_lost=2, n_gained=0, p_value=0.5)
    """
    a, b = np.asarray(first, dtype=bool), np.asarray(second, dtype=bool)
    if a.shape != b.shape:
        raise ValueError(f"expected the same images twice; got {a.shape} and {b.shape}.")
    lost, gained = int((a & ~b).sum()), int((b & ~a).sum())
    return McNemar(lost, gained, float(binomtest(lost, lost + gained).pvalue) if lost + gained else 1.0)


def classification_scores(
    probabilities: np.ndarray, labels: np.ndarray, counts: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """`CLASSIFICATION_MEASURES` of probabilities ``(n, classes)``: one number each, or one for every row of ``counts``.

    Macro F1 and balanced accuracy are means over classes; the AUC is the mean over classes, each against the rest.
    The calibration error is the mean difference between confidence and accuracy over `N_BINS` bins of confidence. A
    class with no images, or with all images, is left out of a mean if the measure is undefined for it.

    Args:
        probabilities: of each image; rows add up to 1.
        labels: true classes ``(n,)``, as column numbers.
        counts: the weight of each image, ``(m, n)``, as a bootstrap draws them; by default one.

    Raises:
        ValueError: no image, a label without a column, or probabilities that are not finite or do not add up to 1.
    """
    probabilities, labels = np.asarray(probabilities, dtype=np.float64), np.asarray(labels)
    _check(probabilities, labels)
    drawn = np.ones((1, len(labels))) if counts is None else np.asarray(counts, dtype=np.float64)
    pred, n_classes = probabilities.argmax(axis=1), probabilities.shape[1]
    is_true, is_pred = labels[:, None] == np.arange(n_classes), pred[:, None] == np.arange(n_classes)
    n_true, n_pred, n_hit = (drawn @ of.astype(float) for of in (is_true, is_pred, is_true & is_pred))
    with warnings.catch_warnings(), np.errstate(invalid="ignore", divide="ignore"):
        warnings.simplefilter("ignore", RuntimeWarning)  # the mean of no values is NaN, as intended
        found = (
            n_hit.sum(axis=1) / drawn.sum(axis=1),
            np.nanmean(n_hit / n_true, axis=1),
            np.nanmean(2 * n_hit / (n_true + n_pred), axis=1),
            np.nanmean([_auc(probabilities[:, c], is_true[:, c], drawn) for c in range(n_classes)], axis=0),
            _calibration_error(probabilities.max(axis=1), pred == labels, drawn),
        )
    return {name: values if counts is not None else values[0] for name, values in zip(CLASSIFICATION_MEASURES, found)}


def _check(probabilities: np.ndarray, labels: np.ndarray) -> None:
    if probabilities.ndim != 2 or labels.shape != probabilities.shape[:1] or not len(labels):
        raise ValueError(
            f"expected probabilities (n, classes) and n labels; got {probabilities.shape} and {labels.shape}."
        )
    if not np.allclose(probabilities.sum(axis=1), 1, atol=1e-3):
        raise ValueError("expected probabilities that add up to 1. Usual cause: logits. Remedy: a softmax.")
    if labels.min() < 0 or labels.max() >= probabilities.shape[1]:
        raise ValueError(f"labels must be 0 to {probabilities.shape[1] - 1}; got {labels.min()} to {labels.max()}.")


def _auc(scores: np.ndarray, positive: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Share of pairs in which the positive image has the higher score (ties count half), for each row of counts."""
    rank = rankdata(scores, method="dense") - 1
    up, down = np.zeros((2, len(counts), int(rank.max()) + 1))
    np.add.at(up.T, rank[positive], counts[:, positive].T)
    np.add.at(down.T, rank[~positive], counts[:, ~positive].T)
    below = np.cumsum(down, axis=1) - 0.5 * down
    return (up * below).sum(axis=1) / (up.sum(axis=1) * down.sum(axis=1))


def _calibration_error(confidence: np.ndarray, right: np.ndarray, counts: np.ndarray) -> np.ndarray:
    of_bin = np.minimum((confidence * N_BINS).astype(int), N_BINS - 1)[:, None] == np.arange(N_BINS)
    gap = counts @ (of_bin * (confidence - right)[:, None])
    return np.abs(gap).sum(axis=1) / counts.sum(axis=1)


def score_intervals(
    probabilities: np.ndarray,
    labels: np.ndarray,
    patients: Sequence[str] | np.ndarray,
    *,
    confidence: float = 0.95,
    n_resamples: int = 2000,
    seed: int = 0,
) -> dict[str, Interval]:
    """`CLASSIFICATION_MEASURES` of all images, each with the percentiles of a bootstrap over patients.

    Args:
        probabilities: as for `classification_scores`.
        labels: as for `classification_scores`.
        patients: the patient of each image.
        confidence: of the intervals.
        n_resamples: number of bootstrap samples.
        seed: same seed, same intervals.

    Raises:
        ValueError: as in `classification_scores`, or not one patient per image.
    """
    names, index = np.unique(np.asarray(patients), return_inverse=True)
    values = classification_scores(probabilities, labels)
    if index.shape != np.asarray(labels).shape:
        raise ValueError(f"expected a patient for each image; got {index.shape} for {np.asarray(labels).shape}.")
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=n_resamples)[:, index]
    resampled = classification_scores(probabilities, labels, drawn)
    found = {}
    for name in CLASSIFICATION_MEASURES:
        low, high = np.nanpercentile(resampled[name], [50 * (1 - confidence), 50 * (1 + confidence)])
        found[name] = Interval(float(values[name]), float(low), float(high), confidence, len(names))
    return found
