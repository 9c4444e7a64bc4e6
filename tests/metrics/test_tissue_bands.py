"""Errors by tissue against inserted errors."""

import numpy as np
import pytest
from scipy.stats import truncnorm

from ctrestore.metrics import TISSUE_BANDS_HU, tissue_band_errors

VALUES_HU = {"air": -1000.0, "lung": -850.0, "fat": -100.0, "soft tissue": 40.0, "bone": 500.0}


@pytest.fixture
def tissues():
    """A strip of 20,000 pixels for each tissue: ``(5, 20000)``."""
    return np.repeat(np.array(list(VALUES_HU.values()))[:, None], 20000, axis=1)


def test_bias_and_noise_of_each_tissue_come_back(tissues):
    bias, noise = np.array([0, 5, -3, 1, 20.0]), np.array([2, 30, 10, 15, 50.0])
    pred = tissues + bias[:, None] + noise[:, None] * np.random.default_rng(0).standard_normal(tissues.shape)
    found = tissue_band_errors(pred, tissues)
    assert list(found) == list(VALUES_HU)
    for i, error in enumerate(found.values()):
        assert error.n_pixels == 20000
        assert error.bias_hu == pytest.approx(bias[i], abs=4 * noise[i] / np.sqrt(20000))
        assert error.spread_hu == pytest.approx(noise[i], rel=4 / np.sqrt(2 * 20000))


def test_opposite_biases_that_cancel_in_the_slice_are_seen(tissues):
    pred = tissues + np.array([0, 10, 0, -10, 0])[:, None]
    assert np.mean(pred - tissues) == 0
    found = tissue_band_errors(pred, tissues)
    assert (found["lung"].bias_hu, found["soft tissue"].bias_hu) == (10, -10)


def test_a_band_of_a_noisy_image_gives_a_perfect_image_a_bias_unless_tissue_is_given():
    truth = np.zeros(200_000)
    noisy = truth + 40 * np.random.default_rng(0).standard_normal(truth.shape)
    low, high = TISSUE_BANDS_HU["soft tissue"]
    expected = -truncnorm.mean(low / 40, high / 40, scale=40)
    assert expected < -20
    assert tissue_band_errors(truth, noisy)["soft tissue"].bias_hu == pytest.approx(expected, abs=0.5)
    honest = tissue_band_errors(truth, noisy, tissue=truth)["soft tissue"]
    assert honest.bias_hu == pytest.approx(0, abs=4 * 40 / np.sqrt(truth.size))
    assert honest.n_pixels == truth.size


def test_edges_between_the_bands_and_pixels_outside_the_mask_do_not_count(tissues):
    pred = tissues + 1
    assert all(error.n_pixels == 0 for error in tissue_band_errors(pred[:1] * 0 + 120, pred[:1] * 0 + 120).values())
    mask = np.zeros(tissues.shape, dtype=bool)
    mask[2, :5] = True
    found = tissue_band_errors(pred, tissues, mask=mask)
    assert found["fat"].n_pixels == 5
    assert np.isnan(found["bone"].bias_hu)


def test_another_grid_or_a_mask_of_numbers_is_refused(tissues):
    with pytest.raises(ValueError, match=r"pred must have the reference's shape \(5, 20000\); got \(5, 1\)"):
        tissue_band_errors(tissues[:, :1], tissues)
    with pytest.raises(ValueError, match="mask must be boolean; got float64"):
        tissue_band_errors(tissues, tissues, mask=tissues)
