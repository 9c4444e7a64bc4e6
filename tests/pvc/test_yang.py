import numpy as np
import pytest

from ctrestore.psf import blur
from ctrestore.pvc import yang

PSF = {"fwhm_mm": (6.0, 5.0, 7.0), "spacing_mm": 2.0}


@pytest.fixture
def truth():
    position = np.stack(np.meshgrid(*[np.arange(24.0)] * 3, indexing="ij"), -1) - 11.5
    radius = np.linalg.norm(position, axis=-1)
    return (3.0 * ((radius < 9) & (radius > 6)) + 1.0 * (radius <= 6)).astype(np.float32)


def test_the_truth_is_a_fixed_point(truth):
    pet = blur(truth, **PSF)
    np.testing.assert_allclose(yang(pet, truth, **PSF), truth, rtol=1e-5)


def test_an_estimate_with_the_right_edges_and_wrong_means_gets_closer_to_the_truth(truth):
    pet, estimate = blur(truth, **PSF), np.where(truth == 3, 2.6, 1.15 * truth).astype(np.float32)
    errors = [np.abs(yang(pet, estimate, **PSF, n_steps=n) - truth).mean() for n in (1, 2, 4)]
    assert np.abs(estimate - truth).mean() > errors[0] > errors[1] > errors[2]


def test_both_images_in_another_unit_give_the_result_in_that_unit(truth):
    pet, estimate = blur(truth, **PSF), blur(truth, fwhm_mm=3.0, spacing_mm=2.0)
    expected = 5000 * yang(pet, estimate, **PSF)
    np.testing.assert_allclose(yang(5000 * pet, 5000 * estimate, **PSF), expected, rtol=1e-4)


def test_air_and_negative_voxels_give_nothing_and_no_nan(truth):
    pet = blur(truth, **PSF) - 0.01
    corrected = yang(pet, truth, **PSF)
    assert np.isfinite(corrected).all()
    assert not corrected[truth == 0].any()


def test_one_wrong_voxel_of_the_estimate_is_moved_by_a_factor_of_two_at_most(truth):
    pet, estimate = blur(truth, **PSF), truth.copy()
    estimate[:] = np.where(truth > 0, 0.1, 0)
    assert yang(pet, estimate, **PSF).max() <= 0.2 + 1e-6


def test_images_of_different_shape_are_refused(truth):
    with pytest.raises(ValueError, match=r"\(12, 24, 24\).*Remedy"):
        yang(truth, truth[::2], **PSF)


@pytest.mark.parametrize("fwhm_mm", [None, 0, -1, np.nan])
def test_an_fwhm_is_needed(truth, fwhm_mm):
    with pytest.raises(ValueError, match="fwhm_mm"):
        yang(truth, truth, fwhm_mm=fwhm_mm, spacing_mm=2.0)
