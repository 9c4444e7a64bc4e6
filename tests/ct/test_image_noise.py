"""The noises by name have the levels that their definitions state."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ctrestore.ct.image_noise import NOISES, add_noise

WATER = np.zeros((300, 300))


@pytest.mark.parametrize(
    ("name", "sigma_hu"),
    [
        ("clean", 0.0),
        ("gaussian", 28.0),
        ("scanner", 28.0),
        ("poisson", math.sqrt(1000 * 1400 / 1000)),  # 714 photons at water
        ("published-gaussian", 1400 / 255),
        ("published-poisson", math.sqrt(1000 * 1400 / 65280)),
    ],
)
@pytest.mark.parametrize("strength", [1.0, 0.5])
def test_the_deviation_in_water_is_that_of_the_name(name, sigma_hu, strength):
    noise = add_noise(WATER, name, seed=0, strength=strength)
    assert noise.std() == pytest.approx(strength * sigma_hu, rel=0.02)
    assert abs(noise.mean()) < 0.02 * sigma_hu + 1e-9


@pytest.mark.parametrize(("name", "fraction"), [("salt-and-pepper", 0.02), ("published-salt-and-pepper", 0.004)])
def test_salt_is_white_and_pepper_is_black(name, fraction):
    noise = add_noise(WATER, name, seed=0)
    for value in (-1000.0, 400.0):
        assert (noise == value).mean() == pytest.approx(fraction / 2, rel=0.15)
    assert set(np.unique(noise)) == {-1000.0, 0.0, 400.0}


def test_the_published_gaussian_noise_is_invisible_by_its_own_measure():
    """Standard deviation 1 on grey levels of 0..255 is 20 log10(255) = 48.1 dB."""
    error = add_noise(WATER, "published-gaussian", seed=1) - WATER
    assert 10 * math.log10(1400**2 / np.square(error).mean()) == pytest.approx(48.13, abs=0.1)


@pytest.mark.parametrize("name", NOISES)
def test_strength_zero_is_clean_and_a_seed_repeats_the_noise(name):
    np.testing.assert_array_equal(add_noise(WATER, name, seed=3, strength=0.0), WATER)
    np.testing.assert_array_equal(add_noise(WATER, name, seed=3), add_noise(WATER, name, seed=3))


def test_impossible_arguments_are_refused():
    with pytest.raises(ValueError, match="noise is one of clean, gaussian"):
        add_noise(WATER, "snow", seed=0)
    with pytest.raises(ValueError, match="strength is 0 or more"):
        add_noise(WATER, "gaussian", seed=0, strength=-1.0)
