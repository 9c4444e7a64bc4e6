"""Contrast to noise of a lesion whose contrast and noise are known."""

import numpy as np
import pytest

from ctrestore.metrics import contrast_to_noise


@pytest.fixture
def lesion():
    """Slice with a lesion of -30 HU in noise of 10 HU, its mask and that of the background."""
    hu = 60 + 10 * np.random.default_rng(0).standard_normal((200, 200))
    inside = np.zeros(hu.shape, dtype=bool)
    inside[80:120, 80:120] = True
    return np.where(inside, hu - 30, hu), inside, ~inside


def test_a_contrast_of_30_in_noise_of_10_gives_3_whatever_its_sign(lesion):
    image, inside, outside = lesion  # the mean of 1600 pixels is off by 10 / 40 HU: 0.025 a sigma
    assert contrast_to_noise(image, inside, outside) == pytest.approx(3, abs=0.1)
    assert contrast_to_noise(-image, inside, outside) == pytest.approx(3, abs=0.1)


def test_it_does_not_depend_on_unit_or_offset(lesion):
    image, inside, outside = lesion
    expected = contrast_to_noise(image, inside, outside)
    assert contrast_to_noise(2 * image - 1024, inside, outside) == pytest.approx(expected)


@pytest.mark.parametrize("wrong", [np.zeros((200, 200), dtype=bool), np.ones((200, 200)), np.ones((2, 2), dtype=bool)])
def test_numbers_that_are_not_a_mask_are_refused(lesion, wrong):
    image, inside, _ = lesion
    with pytest.raises(ValueError, match="background must be a boolean mask"):
        contrast_to_noise(image, inside, wrong)


def test_a_background_without_noise_is_refused(lesion):
    _, inside, outside = lesion
    with pytest.raises(ValueError, match="does not vary"):
        contrast_to_noise(np.where(inside, 30.0, 60.0), inside, outside)
