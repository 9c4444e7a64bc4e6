"""The point spread function has the requested width in mm, and moves activity without changing the total."""

import numpy as np
import pytest
import torch

from ctrestore.psf import FWHM_PER_SIGMA, blur, fwhm_to_sigma, per_axis, sigma_to_fwhm, sigma_voxels

SPACING_MM = (1.0, 1.5, 2.0)


def point_source(shape=(61, 51, 41)):
    volume = np.zeros(shape)
    volume[tuple(n // 2 for n in shape)] = 1.0
    return volume


def measured_fwhm_mm(volume, spacing_mm):
    """FWHM of the Gaussian with the volume's second moments."""
    widths = []
    for axis, spacing in enumerate(spacing_mm):
        profile = volume.sum(axis=tuple(a for a in range(3) if a != axis))
        position_mm = spacing * np.arange(profile.size)
        centre_mm = np.average(position_mm, weights=profile)
        widths.append(sigma_to_fwhm(np.sqrt(np.average((position_mm - centre_mm) ** 2, weights=profile))))
    return widths


def test_a_six_millimetre_psf_on_two_millimetre_voxels_has_a_sigma_of_1_274_voxels():
    np.testing.assert_allclose(sigma_voxels(fwhm_mm=6.0, spacing_mm=2.0), 1.274, atol=5e-4)


def test_a_gaussian_falls_to_half_its_maximum_half_a_fwhm_from_its_centre():
    sigma = fwhm_to_sigma(6.0)
    assert np.exp(-(3.0**2) / (2 * sigma**2)) == pytest.approx(0.5)


def test_sigma_and_fwhm_are_inverse():
    assert sigma_to_fwhm(fwhm_to_sigma(5.3)) == pytest.approx(5.3)
    assert pytest.approx(2.3548, abs=5e-5) == FWHM_PER_SIGMA


@pytest.mark.parametrize("fwhm_mm", [6.0, (4.0, 6.0, 8.0)])
def test_a_point_source_gets_the_requested_fwhm_in_mm_along_every_axis(fwhm_mm):
    seen = blur(point_source(), fwhm_mm=fwhm_mm, spacing_mm=SPACING_MM)
    # cutting the tails at four sigma takes 0.05 % off the width
    np.testing.assert_allclose(measured_fwhm_mm(seen, SPACING_MM), np.broadcast_to(fwhm_mm, 3), rtol=2e-3)


def test_two_blurs_in_sequence_add_in_quadrature():
    twice = blur(
        blur(point_source(), fwhm_mm=4.0, spacing_mm=SPACING_MM), fwhm_mm=(3.0, 4.0, 5.0), spacing_mm=SPACING_MM
    )
    expected_mm = np.hypot(4.0, (3.0, 4.0, 5.0))
    np.testing.assert_allclose(measured_fwhm_mm(twice, SPACING_MM), expected_mm, rtol=5e-3)


def test_a_blur_of_zero_width_changes_nothing():
    volume = np.random.default_rng(0).random((9, 8, 7))
    np.testing.assert_array_equal(blur(volume, fwhm_mm=0.0, spacing_mm=1.0), volume)


def test_zero_width_along_one_axis_does_not_blur_it():
    seen = blur(point_source(), fwhm_mm=(0.0, 6.0, 6.0), spacing_mm=1.0)
    assert np.count_nonzero(seen.sum(axis=(1, 2))) == 1


def test_the_total_stays_the_same_even_for_activity_at_the_faces():
    volume = np.random.default_rng(0).random((12, 9, 5))
    assert blur(volume, fwhm_mm=8.0, spacing_mm=SPACING_MM).sum() == pytest.approx(volume.sum(), rel=1e-12)


def test_a_uniform_volume_stays_uniform_up_to_its_faces():
    np.testing.assert_allclose(blur(np.full((9, 9, 9), 3.0), fwhm_mm=7.0, spacing_mm=1.0), 3.0, rtol=1e-12)


def test_the_blur_is_its_own_adjoint():
    x, y = np.random.default_rng(0).standard_normal((2, 12, 9, 5))
    forward = np.vdot(blur(x, fwhm_mm=6.0, spacing_mm=SPACING_MM), y)
    assert forward == pytest.approx(np.vdot(x, blur(y, fwhm_mm=6.0, spacing_mm=SPACING_MM)), rel=1e-12)


def test_leading_axes_are_blurred_one_volume_at_a_time():
    stack = np.random.default_rng(0).random((2, 3, 8, 8, 8))
    seen = blur(stack, fwhm_mm=4.0, spacing_mm=1.0)
    np.testing.assert_allclose(seen[1, 2], blur(stack[1, 2], fwhm_mm=4.0, spacing_mm=1.0))


@pytest.mark.parametrize(("given", "returned"), [(np.float32, np.float32), (np.float64, np.float64), (int, np.float32)])
def test_floats_keep_their_type_and_whole_numbers_become_float32(given, returned):
    assert blur(np.ones((5, 5, 5), dtype=given), fwhm_mm=4.0, spacing_mm=1.0).dtype == returned


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -1.0, (6.0, 6.0), (6.0, None, 6.0)])
def test_a_missing_or_impossible_width_is_refused_by_name(bad):
    with pytest.raises(ValueError, match="fwhm_mm must be one number or 3 numbers in mm"):
        per_axis(bad, name="fwhm_mm")


def test_a_voxel_of_no_size_is_refused():
    with pytest.raises(ValueError, match="spacing_mm must be positive"):
        sigma_voxels(fwhm_mm=6.0, spacing_mm=(1.0, 1.0, 0.0))


@pytest.mark.parametrize("kernel", ["exact", "itk"])
@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy])
def test_two_blurs_at_once_equal_two_blurs_up_to_the_faces(kernel, kind):
    volume = kind(np.random.default_rng(0).random((24, 19, 33)))
    psf = {"fwhm_mm": (4.0, 0.0, 6.0), "spacing_mm": SPACING_MM, "kernel": kernel}
    np.testing.assert_allclose(blur(volume, **psf, times=2), blur(blur(volume, **psf), **psf), atol=1e-12)
