"""What Richardson-Lucy and reblurred Van Cittert have in common: the physics in, the refusals."""

import numpy as np
import pytest

from ctrestore.psf import blur
from ctrestore.pvc import reblurred_van_cittert, richardson_lucy

FWHM_MM = (4.0, 6.0, 8.0)
SPACING_MM = (1.0, 1.5, 2.0)

pytestmark = pytest.mark.parametrize("deconvolve", [richardson_lucy, reblurred_van_cittert])


@pytest.fixture
def hot_sphere():
    """A ball of 8 mm radius, 10 in a background of 2, empty around a head of 24 mm radius: ``(truth, ball)``."""
    axes = [spacing * (np.arange(n) - n // 2) for n, spacing in zip((60, 40, 30), SPACING_MM)]
    radius_mm = np.sqrt(sum(x**2 for x in np.meshgrid(*axes, indexing="ij")))
    return (2.0 * (radius_mm < 24) + 8.0 * (radius_mm < 8)).astype(np.float32), radius_mm < 8


def test_a_blurred_hot_sphere_gets_most_of_its_activity_back(deconvolve, hot_sphere):
    truth, ball = hot_sphere
    pet = blur(truth, fwhm_mm=FWHM_MM, spacing_mm=SPACING_MM)
    corrected = deconvolve(pet, fwhm_mm=FWHM_MM, spacing_mm=SPACING_MM)
    lost_before, lost_after = 1 - pet[ball].mean() / 10, 1 - corrected[ball].mean() / 10
    assert lost_before > 0.2  # spill-out is visible before correction
    assert 0 < lost_after < 0.6 * lost_before
    assert np.mean((corrected - truth) ** 2) < 0.7 * np.mean((pet - truth) ** 2)


def test_only_the_ratio_of_psf_to_voxel_size_matters(deconvolve, hot_sphere):
    pet = blur(hot_sphere[0], fwhm_mm=FWHM_MM, spacing_mm=SPACING_MM)
    doubled = deconvolve(pet, fwhm_mm=2 * np.array(FWHM_MM), spacing_mm=2 * np.array(SPACING_MM))
    np.testing.assert_allclose(doubled, deconvolve(pet, fwhm_mm=FWHM_MM, spacing_mm=SPACING_MM), rtol=1e-5)


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_the_unit_of_the_image_does_not_matter(deconvolve, hot_sphere, scale):
    pet = blur(hot_sphere[0], fwhm_mm=FWHM_MM, spacing_mm=SPACING_MM)
    expected = deconvolve(pet, fwhm_mm=FWHM_MM, spacing_mm=SPACING_MM)
    scaled = deconvolve(np.float32(scale) * pet, fwhm_mm=FWHM_MM, spacing_mm=SPACING_MM)
    np.testing.assert_allclose(scaled / scale, expected, rtol=1e-3, atol=1e-4)


def test_a_uniform_image_is_left_alone(deconvolve):
    flat = np.full((16, 12, 10), 7.0, dtype=np.float32)
    np.testing.assert_allclose(deconvolve(flat, fwhm_mm=6.0, spacing_mm=2.0), 7.0, rtol=1e-5)


def test_an_image_with_negative_noise_gives_finite_activity_of_zero_or_more(deconvolve):
    noise = np.random.default_rng(0).standard_normal((20, 20, 20)).astype(np.float32)
    corrected = deconvolve(noise, fwhm_mm=6.0, spacing_mm=2.0)
    assert np.isfinite(corrected).all() and corrected.min() >= 0


def test_a_point_in_an_empty_volume_gives_no_nan(deconvolve):
    volume = np.zeros((24, 24, 24), dtype=np.float32)
    volume[12, 12, 12] = 1e4
    assert np.isfinite(deconvolve(volume, fwhm_mm=5.0, spacing_mm=1.0)).all()


def test_an_empty_image_stays_empty(deconvolve):
    assert not deconvolve(np.zeros((8, 8, 8)), fwhm_mm=6.0, spacing_mm=2.0).any()


def test_the_input_is_not_changed_and_float32_comes_out(deconvolve, hot_sphere):
    pet = blur(hot_sphere[0], fwhm_mm=FWHM_MM, spacing_mm=SPACING_MM)
    before = pet.copy()
    assert deconvolve(pet, fwhm_mm=FWHM_MM, spacing_mm=SPACING_MM).dtype == np.float32
    np.testing.assert_array_equal(pet, before)


@pytest.mark.parametrize("bad", [None, 0.0, (6.0, 6.0, 0.0), float("nan"), -6.0, (None, None, None)])
def test_a_missing_or_zero_fwhm_is_refused(deconvolve, bad):
    with pytest.raises(ValueError, match="fwhm_mm must be .* sidecar"):
        deconvolve(np.ones((8, 8, 8)), fwhm_mm=bad, spacing_mm=2.0)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e300])
def test_a_voxel_that_is_not_a_finite_number_is_refused(deconvolve, bad):
    image = np.ones((8, 8, 8))
    image[0, 0, 0] = bad
    with pytest.raises(ValueError, match="1 of 512 are NaN or infinite"):
        deconvolve(image, fwhm_mm=6.0, spacing_mm=2.0)


def test_a_dynamic_scan_is_refused(deconvolve):
    with pytest.raises(ValueError, match=r"one volume \(x, y, z\); got an array of shape \(8, 8, 8, 2\)"):
        deconvolve(np.ones((8, 8, 8, 2)), fwhm_mm=6.0, spacing_mm=2.0)


def test_no_iterations_are_refused(deconvolve):
    with pytest.raises(ValueError, match="n_iterations must be 1 or more"):
        deconvolve(np.ones((8, 8, 8)), fwhm_mm=6.0, spacing_mm=2.0, n_iterations=0)
