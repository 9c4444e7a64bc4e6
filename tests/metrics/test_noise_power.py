"""Spectra in closed form: white noise is flat, filtered noise has the filter's square, the integral is the variance."""

import numpy as np
import pytest

from ctrestore.metrics import noise_power_spectrum

SPACING_MM = (0.8, 0.7)
NOISE_HU = 20.0


def white(n=200, shape=(48, 64), seed=0):
    return NOISE_HU * np.random.default_rng(seed).standard_normal((n, *shape))


def test_white_noise_is_flat_at_variance_times_pixel_area():
    found = noise_power_spectrum(white(), spacing_mm=SPACING_MM, trend_order=0)
    frequency, power = found.radial()
    level = NOISE_HU**2 * SPACING_MM[0] * SPACING_MM[1]
    # the mean of N squared moduli spreads by 1/sqrt(N); the first ring has 4 or so independent ones a region
    assert power.mean() == pytest.approx(level, rel=0.01)
    np.testing.assert_allclose(power, level, rtol=0.15)
    assert frequency[-1] == pytest.approx(0.5 / max(SPACING_MM), rel=0.05)


@pytest.mark.parametrize(("trend_order", "n_terms"), [(0, 1), (1, 3), (2, 6)])
def test_the_integral_is_the_variance_minus_the_trend(trend_order, n_terms):
    regions = white(n=2000, shape=(16, 16))
    found = noise_power_spectrum(regions, spacing_mm=SPACING_MM, trend_order=trend_order)
    share = 1 - n_terms / 256
    assert found.variance_hu2 == pytest.approx(share * NOISE_HU**2, rel=4 * np.sqrt(2 / regions.size))


def test_the_integral_is_the_variance_exactly_for_any_one_region():
    region = white(n=1)[0].cumsum(axis=0)
    found = noise_power_spectrum(region, spacing_mm=SPACING_MM, trend_order=0)
    assert found.variance_hu2 == pytest.approx(region.var(), rel=1e-12)


def test_filtered_noise_has_the_square_of_the_filters_transfer():
    sigma_mm = 1.0
    noise = white(n=400, shape=(64, 64))
    f_y, f_x = (np.fft.fftfreq(64, spacing) for spacing in SPACING_MM)
    transfer = np.exp(-2 * np.pi**2 * sigma_mm**2 * (f_y[:, None] ** 2 + f_x**2))
    filtered = np.fft.ifft2(np.fft.fft2(noise) * transfer).real
    found = noise_power_spectrum(filtered, spacing_mm=SPACING_MM, trend_order=0)
    expected = NOISE_HU**2 * SPACING_MM[0] * SPACING_MM[1] * np.fft.fftshift(transfer) ** 2
    above_zero = np.hypot(found.frequency_y_per_mm[:, None], found.frequency_x_per_mm) > 0
    # a chi-square of 2 x 400 degrees of freedom a pixel, half as many on the axes: 4096 of them within 5 sigma
    np.testing.assert_allclose(found.power[above_zero], expected[above_zero], rtol=5 / np.sqrt(200))
    # a Gaussian's: <f> = int f^2 exp(-a f^2) df / int f exp(-a f^2) df = sqrt(pi / a) / 2 with a = 4 pi^2 sigma^2
    assert found.mean_frequency_per_mm == pytest.approx(0.25 / (np.sqrt(np.pi) * sigma_mm), rel=0.02)


def test_blotchy_noise_of_the_same_deviation_lies_at_lower_frequencies():
    fine = white(n=20, shape=(64, 64))
    coarse = fine + np.roll(fine, 1, axis=1) + np.roll(fine, 1, axis=2)
    coarse *= fine.std() / coarse.std()
    spectra = [noise_power_spectrum(noise, spacing_mm=1.0) for noise in (fine, coarse)]
    assert spectra[1].variance_hu2 == pytest.approx(spectra[0].variance_hu2, rel=0.02)
    assert spectra[1].mean_frequency_per_mm < 0.8 * spectra[0].mean_frequency_per_mm


def test_cupping_does_not_count_as_noise():
    y, x = np.meshgrid(np.arange(48), np.arange(64), indexing="ij")
    cupping = 60 + 0.3 * x - 0.2 * y + 0.02 * (x - 30.0) ** 2 + 0.01 * x * y
    noise = white(n=4)
    found = noise_power_spectrum(noise + cupping, spacing_mm=SPACING_MM)
    np.testing.assert_allclose(found.power, noise_power_spectrum(noise, spacing_mm=SPACING_MM).power, atol=1e-6)


def test_the_difference_of_two_realisations_holds_no_anatomy():
    anatomy = 1000 * np.random.default_rng(5).random((48, 64))
    first, second = anatomy + white(seed=1), anatomy + white(seed=2)
    found = noise_power_spectrum((first - second) / np.sqrt(2), spacing_mm=SPACING_MM)
    assert found.variance_hu2 == pytest.approx(NOISE_HU**2, rel=0.02)


@pytest.mark.parametrize(
    ("regions", "arguments", "fault"),
    [
        (np.zeros((2, 4, 64)), {}, r"8 pixels or more along y and x; got \(2, 4, 64\)"),
        (np.full((16, 16), np.nan), {}, "NaN"),
        (np.zeros((16, 16)), {"trend_order": 3}, "trend_order must be 0"),
        (np.zeros((16, 16)), {"spacing_mm": 0.0}, "spacing_mm must be positive"),
        (np.zeros((16, 16)), {"spacing_mm": -1.0}, "spacing_mm must be"),
    ],
)
def test_regions_without_a_spectrum_are_refused(regions, arguments, fault):
    with pytest.raises(ValueError, match=fault):
        noise_power_spectrum(regions, **{"spacing_mm": 1.0, **arguments})
