"""Temperature scaling: confidence that agrees with accuracy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import softmax

from ctrestore.metrics import classification_scores, fit_temperature, probabilities_at


def drawn_from(logits: np.ndarray, seed: int) -> np.ndarray:
    """Labels drawn with the probabilities of the logits."""
    cumulative = softmax(logits, axis=1).cumsum(axis=1)
    return (np.random.default_rng(seed).random((len(logits), 1)) > cumulative).sum(axis=1)


@pytest.mark.parametrize("overconfidence", [0.5, 1.0, 4.0])
def test_the_temperature_undoes_how_much_the_logits_exaggerate(overconfidence):
    honest = np.random.default_rng(0).normal(0, 2, (20_000, 4))
    labels = drawn_from(honest, seed=1)
    # Of 20,000 labels the likeliest temperature is known to about a percent.
    assert fit_temperature(overconfidence * honest, labels) == pytest.approx(overconfidence, rel=0.04)


def test_a_fitted_temperature_lowers_the_calibration_error_and_changes_no_class():
    honest = np.random.default_rng(0).normal(0, 2, (5_000, 3))
    labels, logits = drawn_from(honest, seed=1), 3 * honest
    temperature = fit_temperature(logits, labels)
    before, after = (probabilities_at(logits, t) for t in (1.0, temperature))
    errors = [float(classification_scores(p, labels)["calibration error"]) for p in (before, after)]
    assert errors[1] < 0.02 < 0.1 < errors[0]
    np.testing.assert_array_equal(before.argmax(axis=1), after.argmax(axis=1))


def test_one_logit_belongs_to_the_second_of_two_classes():
    np.testing.assert_allclose(probabilities_at(np.array([[2.0]])), probabilities_at(np.array([[0.0, 2.0]])))


def test_impossible_arguments_are_refused():
    with pytest.raises(ValueError, match="above 0"):
        probabilities_at(np.zeros((2, 2)), 0.0)
    with pytest.raises(ValueError, match="n labels"):
        fit_temperature(np.zeros((2, 2)), np.zeros(3))
    with pytest.raises(ValueError, match="finite"):
        fit_temperature(np.full((2, 2), np.nan), np.zeros(2))
