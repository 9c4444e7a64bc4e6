"""Sharpening makes edges steeper; the lectures' recipe overshoots."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from ctrestore.pvc import FITTED_SHARPENING, LECTURES_SHARPENING, sharpen


@pytest.fixture
def step():
    volume = np.zeros((32, 8, 8), dtype=np.float32)
    volume[16:] = 1.0
    return volume


def test_the_default_is_the_fitted_recipe(step):
    np.testing.assert_array_equal(sharpen(step), sharpen(step, **FITTED_SHARPENING))


def test_the_lectures_recipe_is_taken_literally(step):
    blurred = gaussian_filter(step, 3)
    expected = blurred + 30 * (blurred - gaussian_filter(blurred, 1))
    np.testing.assert_allclose(sharpen(step, **LECTURES_SHARPENING), expected, rtol=1e-5, atol=1e-6)


def test_the_lectures_recipe_overshoots_an_edge_and_the_fitted_one_hardly_does(step):
    assert sharpen(step, **LECTURES_SHARPENING).max() > 1.2
    assert sharpen(step, **FITTED_SHARPENING).max() < 1.1


def test_alpha_steepens_the_smoothed_edge(step):
    plain = sharpen(step, pre_sigma_voxels=2.0, sharpen_sigma_voxels=1.0, alpha=0.0)
    sharpened = sharpen(step, pre_sigma_voxels=2.0, sharpen_sigma_voxels=1.0, alpha=3.0)
    assert np.diff(sharpened[:, 4, 4]).max() > 1.2 * np.diff(plain[:, 4, 4]).max()


def test_with_no_widths_nothing_changes(step):
    np.testing.assert_array_equal(sharpen(step, pre_sigma_voxels=0.0, sharpen_sigma_voxels=0.0, alpha=30.0), step)


def test_the_total_stays_the_same(step):
    assert sharpen(step, **LECTURES_SHARPENING).sum() == pytest.approx(step.sum(), rel=1e-5)


def test_a_volume_with_nan_is_refused_and_counted(step):
    step[3, 3, 3] = np.nan
    with pytest.raises(ValueError, match="1 of 2048 are NaN or infinite"):
        sharpen(step)


def test_a_negative_width_is_refused(step):
    with pytest.raises(ValueError, match="sharpen_sigma_voxels=-1.0"):
        sharpen(step, sharpen_sigma_voxels=-1.0)
