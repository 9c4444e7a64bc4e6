"""Detectability in white noise, where it is the signal's norm over the noise."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from scipy.stats import norm

from ctrestore.metrics import (
    channelized_hotelling,
    contrast_to_noise,
    difference_of_gaussians_channels,
    laguerre_gauss_channels,
)

SHAPE = (25, 25)
NOISE_HU = 20.0


def gaussian_lesion(width_mm, peak_hu):
    """The shape of the first Laguerre-Gauss channel of this width, on pixels of 1 mm."""
    y, x = np.meshgrid(np.arange(25) - 12.0, np.arange(25) - 12.0, indexing="ij")
    return peak_hu * np.exp(-np.pi * (y**2 + x**2) / width_mm**2)


def white(n, seed):
    return NOISE_HU * np.random.default_rng(seed).standard_normal((n, *SHAPE))


CHANNELS = laguerre_gauss_channels(SHAPE, width_mm=8.0, spacing_mm=1.0)
LESION = gaussian_lesion(8.0, peak_hu=10.0)
IDEAL = float(np.linalg.norm(LESION) / NOISE_HU)  # 2.83: peak * width / 2 over the noise


class TestDetectability:
    def test_of_a_gaussian_in_white_noise_is_its_norm_over_the_noise(self):
        assert pytest.approx(10 * 8 / 2 / NOISE_HU * np.sqrt(2), rel=1e-3) == IDEAL
        found = channelized_hotelling(white(2000, 1) + LESION, white(2000, 2), CHANNELS)
        assert found.d_prime == pytest.approx(IDEAL, rel=0.03)  # sd of d' about 0.045
        assert found.d_prime_interval[0] < IDEAL < found.d_prime_interval[1]
        assert found.auc == pytest.approx(norm.cdf(IDEAL / np.sqrt(2)), abs=0.005)

    def test_of_any_lesion_in_white_noise_is_that_of_its_projection_onto_the_channels(self):
        lesion = np.zeros(SHAPE)
        lesion[9:15, 11:17] = 12.0
        channels = difference_of_gaussians_channels(SHAPE, n_channels=6)
        basis, _ = np.linalg.qr(channels.reshape(6, -1).T)
        expected = np.linalg.norm(basis.T @ lesion.ravel()) / NOISE_HU
        assert expected < 0.95 * np.linalg.norm(lesion) / NOISE_HU  # channels lose something
        found = channelized_hotelling(white(2000, 3) + lesion, white(2000, 4), channels)
        assert found.d_prime == pytest.approx(expected, rel=0.04)

    def test_doubles_with_the_contrast_and_halves_with_the_noise(self):
        present, absent = white(1500, 5), white(1500, 6)
        d_prime = channelized_hotelling(present + LESION, absent, CHANNELS).d_prime
        assert channelized_hotelling(present + 2 * LESION, absent, CHANNELS).d_prime == pytest.approx(
            2 * d_prime, rel=0.06
        )
        assert channelized_hotelling(2 * present + LESION, 2 * absent, CHANNELS).d_prime == pytest.approx(
            d_prime / 2, rel=0.06
        )

    def test_does_not_depend_on_the_unit_of_image_or_channels(self):
        present, absent = white(60, 7) + LESION, white(60, 8)
        expected = channelized_hotelling(present, absent, CHANNELS).d_prime
        rescaled = CHANNELS * np.array([1, 1e-6, 1e6, 3, 1])[:, None, None]
        assert channelized_hotelling(1e3 * present + 5, 1e3 * absent + 5, rescaled).d_prime == pytest.approx(expected)

    def test_from_few_regions_is_right_on_average_and_the_interval_holds_the_truth(self):
        # drawn in channel space: white noise through orthonormal channels stays white
        rng = np.random.default_rng(0)
        channels, signal = np.eye(4).reshape(4, 2, 2), np.array([[1.5, 0], [0, 0]])
        found = [
            channelized_hotelling(rng.standard_normal((15, 2, 2)) + signal, rng.standard_normal((15, 2, 2)), channels)
            for _ in range(400)
        ]
        # uncorrected, the mean of d'^2 is (2.25 + 2 * 4 / 15) * 28 / (28 - 5) = 3.4; its deviation is 1.4 / sqrt(400)
        assert np.mean([f.d_prime**2 for f in found]) == pytest.approx(1.5**2, abs=0.25)
        covered = np.mean([f.d_prime_interval[0] <= 1.5 <= f.d_prime_interval[1] for f in found])
        assert covered == pytest.approx(0.95, abs=4 * np.sqrt(0.95 * 0.05 / 400))

    def test_of_a_smoothed_image_is_no_higher_though_its_contrast_to_noise_is(self):
        lesion, shape = 2 * LESION, LESION / LESION.max()
        here, around = shape > 0.5, shape < 0.01
        present, absent = white(600, 13) + lesion, white(600, 14)
        smooth = [gaussian_filter(images, (0, 1.5, 1.5)) for images in (present, absent)]
        cnr = [np.mean([contrast_to_noise(i, here, around) for i in images]) for images in (present, smooth[0])]
        assert cnr[1] > 3 * cnr[0]
        assert channelized_hotelling(*smooth, CHANNELS).d_prime < 1.05 * 2 * IDEAL

    def test_of_nothing_has_an_interval_from_0(self):
        found = channelized_hotelling(white(40, 9), white(40, 10), CHANNELS)
        assert found.d_prime_interval[0] == 0
        assert found.auc_interval[0] == 0.5

    def test_of_a_lesion_that_nobody_could_miss_is_finite(self):
        found = channelized_hotelling(white(30, 11) + 100 * LESION, white(30, 12), CHANNELS)
        assert found.d_prime_interval[0] < found.d_prime < found.d_prime_interval[1] < np.inf
        assert found.d_prime == pytest.approx(100 * IDEAL, rel=0.4)


class TestChannels:
    def test_laguerre_gauss_are_orthonormal(self):
        channels = laguerre_gauss_channels((101, 121), width_mm=10.0, spacing_mm=(0.5, 0.4)).reshape(5, -1)
        np.testing.assert_allclose(channels @ channels.T * 0.5 * 0.4, np.eye(5), atol=1e-6)

    def test_differences_of_gaussians_see_no_mean_and_are_centred(self):
        for shape in ((24, 24), (25, 31)):
            channels = difference_of_gaussians_channels(shape)
            np.testing.assert_allclose(channels.sum(axis=(1, 2)), 0, atol=1e-12)
            np.testing.assert_allclose(channels, channels[:, ::-1, ::-1], atol=1e-2 * np.abs(channels).max())

    def test_a_width_of_nothing_is_refused(self):
        with pytest.raises(ValueError, match="must be positive"):
            laguerre_gauss_channels(SHAPE, width_mm=0.0, spacing_mm=1.0)


@pytest.mark.parametrize(
    ("present", "absent", "arguments", "fault"),
    [
        (white(4, 0), white(4, 0), {}, "5 channels need more than 8 regions.*got 4 with and 4 without"),
        (white(20, 0)[:, :9], white(20, 0), {}, "must be .n, y, x. of one y and x"),
        (np.zeros((20, *SHAPE)), np.ones((20, *SHAPE)), {}, "does not vary"),
        (np.full((20, *SHAPE), np.nan), white(20, 0), {}, "NaN"),
        (white(20, 0), white(20, 1), {"confidence": 95}, "confidence must be between 0 and 1; got 95"),
    ],
)
def test_regions_that_cannot_be_judged_are_refused(present, absent, arguments, fault):
    with pytest.raises(ValueError, match=fault):
        channelized_hotelling(present, absent, CHANNELS, **arguments)
