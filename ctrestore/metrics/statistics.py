"""Intervals and tests with the patient as unit: a hundred slices of one patient are not a hundred patients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import bootstrap, wilcoxon


class Interval(NamedTuple):
    """Mean over patients and its bootstrap confidence interval."""

    mean: float
    low: float
    high: float
    confidence: float
    n_patients: int

    def __str__(self) -> str:
        interval = f"{self.confidence:.0%} interval {self.low:.4g} to {self.high:.4g}"
        return f"{self.mean:.4g} ({interval}, {self.n_patients} patients)"


class PairedComparison(NamedTuple):
    """Mean difference with its interval, and the two-sided p of Wilcoxon's signed-rank test over patients."""

    difference: Interval
    p_value: float

    def __str__(self) -> str:
        return f"{self.difference}, p = {self.p_value:.2g} (Wilcoxon, paired by patient)"


def patient_means(values: Sequence[float] | np.ndarray, patients: Sequence[str] | np.ndarray) -> np.ndarray:
    """The mean of each patient's values, ``(n_patients,)`` in the order of the sorted names.

    Raises:
        ValueError: there is not one patient per value, there are none, or a value is not finite.

    >>> patient_means([30.0, 32.0, 40.0], ["A", "A", "B"])
    array([31., 40.])
    """
    values = np.asarray(values, dtype=np.float64)
    names, index = np.unique(np.asarray(patients), return_inverse=True)
    if values.ndim != 1 or index.shape != values.shape or not values.size:
        raise ValueError(f"expected a patient for each value; got values {values.shape} and patients {index.shape}.")
    if not np.isfinite(values).all():
        raise ValueError(
            f"{np.count_nonzero(~np.isfinite(values))} of {values.size} values are not finite. "
            "Usual cause: an infinite PSNR, because pred is its own reference; or an empty tissue band."
        )
    return np.bincount(index, values) / np.bincount(index, minlength=len(names))


def bootstrap_by_patient(
    values: Sequence[float] | np.ndarray,
    patients: Sequence[str] | np.ndarray,
    *,
    confidence: float = 0.95,
    n_resamples: int = 9999,
    seed: int = 0,
) -> Interval:
    """Mean over patients of their mean values, with a bootstrap interval (BCa) over patients.

    Drawing slices instead would make it narrower, by up to the square root of the number of slices per patient,
    because the slices of one patient are alike. Every patient has the same weight, with any number of slices.

    Args:
        values: one number per slice (or lesion, or scan).
        patients: the patient of each.
        confidence: of the interval.
        n_resamples: number of bootstrap samples.
        seed: same seed, same interval.

    Raises:
        ValueError: fewer than two patients, or as in :func:`patient_means`.

    Reference:
        Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 14.
    """
    return _interval(patient_means(values, patients), confidence=confidence, n_resamples=n_resamples, seed=seed)


def compare_by_patient(
    new: Sequence[float] | np.ndarray,
    baseline: Sequence[float] | np.ndarray,
    patients: Sequence[str] | np.ndarray,
    *,
    confidence: float = 0.95,
    n_resamples: int = 9999,
    seed: int = 0,
) -> PairedComparison:
    """Difference ``new - baseline`` on the same slices: mean over patients, bootstrap interval, Wilcoxon's p.

    Pairing removes the differences between patients. With five patients even a unanimous result has p = 2 / 2^5 = 0.06.

    Args:
        new: one number per slice.
        baseline: the number of the other method for the same slice.
        patients: the patient of each.
        confidence: of the interval.
        n_resamples: number of bootstrap samples.
        seed: same seed, same interval.

    Raises:
        ValueError: fewer than two patients, lists of different lengths, or a value that is not finite.

    Reference:
        Wilcoxon, Biometrics Bulletin 1(6):80, 1945.
    """
    new, baseline = np.asarray(new, dtype=np.float64), np.asarray(baseline, dtype=np.float64)
    if new.shape != baseline.shape:
        raise ValueError(f"new and baseline must be of the same slices; got {new.shape} and {baseline.shape}.")
    differences = patient_means(new - baseline, patients)
    interval = _interval(differences, confidence=confidence, n_resamples=n_resamples, seed=seed)
    p_value = float(wilcoxon(differences).pvalue) if differences.any() else 1.0
    return PairedComparison(interval, p_value)


def _interval(means: np.ndarray, *, confidence: float, n_resamples: int, seed: int) -> Interval:
    if len(means) < 2:
        raise ValueError("an interval needs two patients or more; got one. Usual cause: one name for all slices.")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be between 0 and 1; got {confidence!r}.")
    mean = float(means.mean())
    if np.ptp(means) == 0:  # BCa divides by the spread
        return Interval(mean, mean, mean, confidence, len(means))
    found = bootstrap(
        (means,), np.mean, confidence_level=confidence, n_resamples=n_resamples, rng=np.random.default_rng(seed)
    ).confidence_interval
    return Interval(mean, float(found.low), float(found.high), confidence, len(means))
