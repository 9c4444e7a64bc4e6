"""Temperature scaling: logits are divided by one number, so that confidence agrees with accuracy."""

from __future__ import annotations

import math

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

LARGEST_TEMPERATURE = 20.0


def as_two_columns(logits: np.ndarray) -> np.ndarray:
    """Logits ``(n, classes)``; for two classes and one output, a column of zeros is put before it."""
    logits = np.asarray(logits, dtype=np.float64)
    if logits.ndim != 2 or not logits.size:
        raise ValueError(f"expected logits (n, classes); got shape {logits.shape}.")
    return np.concatenate([np.zeros_like(logits), logits], axis=1) if logits.shape[1] == 1 else logits


def probabilities_at(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Probabilities ``(n, classes)``; two classes if there is one logit.

    >>> probabilities_at(np.array([[0.0], [np.log(3)]])).round(2).tolist()
    [[0.5, 0.5], [0.25, 0.75]]

    Raises:
        ValueError: the temperature is not above 0.
    """
    if not temperature > 0:
        raise ValueError(f"temperature is above 0; got {temperature!r}.")
    return softmax(as_two_columns(logits) / temperature, axis=1)


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The temperature with the highest likelihood of the labels (Guo et al., ICML 2017), 1/20 to 20.

    Args:
        logits: ``(n, classes)`` of images that were not used for training.
        labels: true classes ``(n,)``.

    Raises:
        ValueError: the numbers of labels and logits differ, or logits are not finite.
    """
    logits, labels = as_two_columns(logits), np.asarray(labels)
    if labels.shape != logits.shape[:1] or not np.isfinite(logits).all():
        raise ValueError(f"expected finite logits (n, classes) and n labels; got {logits.shape} and {labels.shape}.")

    def surprise(log_temperature: float) -> float:
        likely = log_softmax(logits / math.exp(log_temperature), axis=1)
        return -float(likely[np.arange(len(labels)), labels].mean())

    limit = math.log(LARGEST_TEMPERATURE)
    return math.exp(minimize_scalar(surprise, bounds=(-limit, limit), method="bounded").x)
