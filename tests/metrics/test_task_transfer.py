"""Transfer of a disc blurred by a Gaussian, whose image and transfer are both known in closed form."""

import numpy as np
import pytest
from scipy import ndimage, stats

from ctrestore.metrics import Disc, disc_coverage, insert_disc, task_transfer

SPACING_MM = 0.7
DISC = Disc(centre_mm=(44.9, 45.2), radius_mm=15.0, contrast_hu=-80.0)
SHAPE = (130, 128)


def blurred_disc(sigma_mm, disc=DISC, shape=SHAPE, spacing_mm=SPACING_MM):
    """A disc under a Gaussian, exactly: a non-central chi-square's distribution in the distance from the centre."""
    y, x = (np.arange(n) * spacing_mm - centre for n, centre in zip(shape, disc.centre_mm))
    squared = y[:, None] ** 2 + x**2
    return disc.contrast_hu * stats.ncx2.cdf((disc.radius_mm / sigma_mm) ** 2, 2, squared / sigma_mm**2)


def gaussian_transfer(frequency_per_mm, sigma_mm):
    return np.exp(-2 * np.pi**2 * sigma_mm**2 * frequency_per_mm**2)


class TestTransfer:
    @pytest.mark.parametrize("sigma_mm", [0.6, 1.0, 1.5])
    def test_of_a_gaussian_blur_is_a_gaussian(self, sigma_mm):
        found = task_transfer(blurred_disc(sigma_mm), DISC, spacing_mm=SPACING_MM, relative=False)
        np.testing.assert_allclose(found.transfer, gaussian_transfer(found.frequency_per_mm, sigma_mm), atol=0.001)
        f50 = np.sqrt(np.log(2) / 2) / (np.pi * sigma_mm)
        assert found.frequency_at(0.5) == pytest.approx(f50, rel=0.01)

    @pytest.mark.parametrize(("radius_in_sigmas", "error"), [(5, 0.02), (10 / 3, 0.11)])
    def test_of_a_small_disc_is_less_exact(self, radius_in_sigmas, error):
        disc = Disc(DISC.centre_mm, 5.0, -80.0)
        sigma_mm = 5.0 / radius_in_sigmas
        found = task_transfer(blurred_disc(sigma_mm, disc), disc, spacing_mm=SPACING_MM, relative=False)
        expected = gaussian_transfer(found.frequency_per_mm, sigma_mm)
        np.testing.assert_allclose(found.transfer, expected, atol=error)

    @pytest.mark.parametrize("sigma_mm", [0.8, 1.5])
    def test_of_an_inserted_disc_is_that_of_what_happened_to_it(self, sigma_mm):
        inserted = insert_disc(np.full(SHAPE, 50.0), DISC, spacing_mm=SPACING_MM)
        restored = ndimage.gaussian_filter(inserted, sigma_mm / SPACING_MM)
        found = task_transfer(restored, DISC, spacing_mm=SPACING_MM)
        np.testing.assert_allclose(found.transfer, gaussian_transfer(found.frequency_per_mm, sigma_mm), atol=0.015)

    def test_of_an_untouched_disc_is_1(self):
        found = task_transfer(insert_disc(np.zeros(SHAPE), DISC, spacing_mm=SPACING_MM), DISC, spacing_mm=SPACING_MM)
        np.testing.assert_allclose(found.transfer, 1, atol=1e-12)
        assert found.contrast_hu == pytest.approx(-80)
        assert np.isnan(found.frequency_at(0.5))

    def test_is_the_same_for_dark_and_bright_discs_and_on_any_background(self):
        dark = task_transfer(blurred_disc(1.0), DISC, spacing_mm=SPACING_MM)
        bright = task_transfer(1000 - blurred_disc(1.0), Disc(DISC.centre_mm, 15.0, 80.0), spacing_mm=SPACING_MM)
        np.testing.assert_allclose(dark.transfer, bright.transfer, rtol=1e-9)

    def test_is_right_on_pixels_that_are_not_square(self):
        disc, spacing = Disc((40.0, 40.0), 15.0, 100.0), (0.5, 1.0)
        y, x = (np.arange(n) * step - 40.0 for n, step in zip((160, 80), spacing))
        image = 100 * stats.ncx2.cdf((15 / 1.2) ** 2, 2, (y[:, None] ** 2 + x**2) / 1.2**2)
        found = task_transfer(image, disc, spacing_mm=spacing, relative=False)
        np.testing.assert_allclose(found.transfer, gaussian_transfer(found.frequency_per_mm, 1.2), atol=0.015)

    def test_of_many_noisy_realisations_comes_close_to_that_without_noise(self):
        noise = 10 * np.random.default_rng(0).standard_normal((100, *SHAPE))
        found = task_transfer(blurred_disc(1.0) + noise, DISC, spacing_mm=SPACING_MM, relative=False)
        f50 = np.sqrt(np.log(2) / 2) / np.pi
        assert found.frequency_at(0.5) == pytest.approx(f50, rel=0.1)
        assert found.contrast_recovery == pytest.approx(1, abs=0.01)


class TestContrast:
    def test_lost_without_blur_is_seen_in_the_contrast_and_not_in_the_transfer(self):
        image = 0.6 * insert_disc(np.zeros(SHAPE), DISC, spacing_mm=SPACING_MM)
        found = task_transfer(image, DISC, spacing_mm=SPACING_MM)
        assert found.contrast_recovery == pytest.approx(0.6)
        np.testing.assert_allclose(found.transfer, 1, atol=1e-12)

    def test_an_erased_disc_has_no_transfer(self):
        image = np.random.default_rng(0).standard_normal(SHAPE)
        found = task_transfer(image, DISC, spacing_mm=SPACING_MM)
        assert abs(found.contrast_recovery) < 0.05
        assert np.isnan(found.transfer).all()
        assert np.isnan(found.frequency_at(0.5))


class TestDisc:
    def test_covers_its_area_wherever_it_lies(self):
        for centre in ((30.0, 30.0), (30.13, 29.71)):
            coverage = disc_coverage(Disc(centre, 10.0, 1.0), (120, 120), spacing_mm=0.5)
            assert coverage.sum() * 0.25 == pytest.approx(np.pi * 100, rel=1e-3)
            assert (coverage.min(), coverage.max()) == (0, 1)

    def test_is_centred_where_it_should_be(self):
        coverage = disc_coverage(Disc((20.3, 31.6), 8.0, 1.0), (80, 100), spacing_mm=(0.6, 0.5))
        y, x = ndimage.center_of_mass(coverage)
        assert (y * 0.6, x * 0.5) == pytest.approx((20.3, 31.6), abs=0.02)

    def test_is_cut_at_the_slices_edge(self):
        coverage = disc_coverage(Disc((0.0, 0.0), 10.0, 1.0), (50, 50), spacing_mm=1.0)
        assert coverage[0, 0] == 1
        assert disc_coverage(Disc((-90.0, 0.0), 10.0, 1.0), (50, 50), spacing_mm=1.0).sum() == 0

    def test_goes_into_every_slice_of_a_stack(self):
        stack = insert_disc(np.zeros((3, *SHAPE), dtype=np.int16), DISC, spacing_mm=SPACING_MM)
        assert stack.min(axis=(1, 2)).tolist() == [-80.0] * 3


@pytest.mark.parametrize(
    ("disc", "fault"),
    [
        (Disc((64.0, 64.0), 15.0, -80.0), "1.75 radii around the disc must lie inside the slice.*centre in pixels"),
        (Disc((45.0, 45.0), 2.0, -80.0), "radius of 4 pixels or more"),
        (Disc((45.0, 45.0), 15.0, 0.0), "and a contrast"),
    ],
)
def test_a_disc_that_cannot_be_measured_is_refused(disc, fault):
    with pytest.raises(ValueError, match=fault):
        task_transfer(np.zeros(SHAPE), disc, spacing_mm=SPACING_MM)


def test_an_image_that_is_not_a_slice_is_refused():
    with pytest.raises(ValueError, match=r"image must be \(y, x\) or \(n, y, x\)"):
        task_transfer(np.zeros((2, 2, *SHAPE)), DISC, spacing_mm=SPACING_MM)
