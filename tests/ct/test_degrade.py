import numpy as np
import pytest
import torch

from ctrestore.ct import (
    add_gaussian,
    add_poisson,
    add_poisson_12bit,
    add_reconstruction_noise,
    add_salt_and_pepper,
    noise_components,
)

N = 256
NOISES = {
    "gaussian": lambda image, seed: add_gaussian(image, sigma_hu=20.0, seed=seed),
    "reconstruction": lambda image, seed: add_reconstruction_noise(image, sigma_hu=20.0, cutoff=1.0, seed=seed),
    "salt and pepper": lambda image, seed: add_salt_and_pepper(image, fraction=0.1, seed=seed),
    "poisson": lambda image, seed: add_poisson(image, photons_at_high=100, seed=seed),
    "12 bit": lambda image, seed: add_poisson_12bit(image, dose_fraction=0.25, seed=seed),
}


def flat(hu: float) -> np.ndarray:
    return np.full((N, N), hu, dtype=np.float32)


def three_sigma(sigma: float) -> float:
    """Of the mean of N x N pixels."""
    return 3 * sigma / N


def test_gaussian_noise_has_its_sigma_and_no_mean():
    noise = add_gaussian(flat(50), sigma_hu=20.0, seed=1) - 50
    assert abs(noise.mean()) < three_sigma(20)
    assert noise.std() == pytest.approx(20, rel=0.02)  # seven times the spread of a standard deviation, 1 / sqrt(2 N^2)


def correlations(noise: np.ndarray) -> list[float]:
    """Of pixels one, two and three apart."""
    noise = noise - noise.mean()
    return [float(np.mean(noise[..., lag:] * noise[..., :-lag]) / noise.var()) for lag in (1, 2, 3)]


@pytest.mark.parametrize(("cutoff", "expected"), [(0.6, 0.83), (1.0, 0.57), (1.6, 0.20)])
def test_reconstruction_noise_has_its_sigma_everywhere_and_the_correlation_of_its_cutoff(cutoff, expected):
    noise = add_reconstruction_noise(np.zeros((40, 60, 75)), sigma_hu=20.0, cutoff=cutoff, seed=1)
    assert noise.std() == pytest.approx(20, rel=0.01)
    assert correlations(noise)[0] == pytest.approx(expected, abs=0.01)
    edge_to_edge = np.corrcoef(noise[:, :, 0].ravel(), noise[:, :, -1].ravel())[0, 1]
    assert abs(edge_to_edge) < 0.07  # three standard deviations of 2400 pairs; it would be `expected` if it wrapped
    assert correlations(noise.transpose(0, 2, 1))[0] == pytest.approx(expected, abs=0.01)  # in both directions


def test_reconstruction_noise_varies_along_the_detector_of_its_noisiest_view():
    """By the variances of the views, 1 + cos(2 angle): those across have none, so columns hold nearly one value."""
    streaks = add_reconstruction_noise(np.zeros((300, 300)), sigma_hu=20.0, cutoff=1.0, seed=1, anisotropy=1.0)
    turned = add_reconstruction_noise(
        np.zeros((300, 300)), sigma_hu=20.0, cutoff=1.0, seed=1, anisotropy=1.0, direction_rad=np.pi / 2
    )
    for noise, along in ((streaks, turned.T), (turned.T, streaks)):
        assert noise.std() == pytest.approx(20, rel=0.02)
        assert correlations(noise)[0] == pytest.approx(correlations(along)[0], abs=0.01)
    assert correlations(streaks.T)[0] > 0.75 > 0.5 > correlations(streaks)[0]


def test_reconstruction_noise_is_coloured_like_noise_from_projections():
    water = np.where(np.hypot(*np.mgrid[-128:128, -128:128]) < 110, 0.0, -1000.0).astype(np.float32)
    projected = noise_components(water, spacing_mm=0.9, seed=0).quantum[78:178, 78:178]
    size = min((abs(correlations(drawn)[0] - correlations(projected)[0]), correlations(drawn))
               for drawn in (add_reconstruction_noise(np.zeros((100, 100)), sigma_hu=1.0, cutoff=c, seed=2)
                             for c in (1.0, 1.1, 1.2, 1.3, 1.4, 1.5)))  # fmt: skip
    # The cutoff is the detector's; given it, the further neighbours follow. A hundred pixels a side, two draws.
    np.testing.assert_allclose(size[1], correlations(projected), atol=0.06)


def test_salt_is_white_pepper_is_black_and_the_rest_stays():
    image = add_salt_and_pepper(flat(50), fraction=0.1, seed=1)
    values, counts = np.unique(image, return_counts=True)
    np.testing.assert_array_equal(values, [-1000, 50, 2000])
    np.testing.assert_allclose(counts / N**2, [0.05, 0.9, 0.05], atol=0.004)  # 4 standard deviations


def test_salt_and_pepper_reach_every_corner():
    np.testing.assert_array_equal(np.unique(add_salt_and_pepper(flat(50), fraction=1.0, seed=1)), [-1000, 2000])


@pytest.mark.parametrize("hu", [-900.0, 0.0, 1000.0])
def test_poisson_noise_keeps_the_mean_and_follows_the_square_root(hu):
    noise = add_poisson(flat(hu), photons_at_high=1000, seed=1) - hu
    sigma = np.sqrt((hu + 1000) * 3000 / 1000)
    assert abs(noise.mean()) < three_sigma(sigma)
    assert noise.std() == pytest.approx(sigma, rel=0.02)


@pytest.mark.parametrize("dose_fraction", [1.0, 0.25, 0.1])
def test_12_bit_noise_is_divided_back_so_that_the_mean_stays(dose_fraction):
    noise = add_poisson_12bit(flat(50), dose_fraction=dose_fraction, seed=1) - 50
    sigma = np.sqrt(1074 / dose_fraction)
    assert abs(noise.mean()) < three_sigma(sigma)
    assert noise.std() == pytest.approx(sigma, rel=0.02)


@pytest.mark.parametrize("name", NOISES)
def test_the_same_seed_gives_the_same_noise_in_arrays_and_tensors(name):
    noise, image = NOISES[name], flat(50)
    first = noise(image, 3)
    np.testing.assert_array_equal(noise(image, 3), first)
    np.testing.assert_array_equal(noise(torch.from_numpy(image), 3).numpy(), first)
    assert not np.array_equal(noise(image, 4), first)
    assert first.dtype == np.float32
    assert (image == 50).all()  # the image itself does not change


def test_a_generator_continues_its_stream():
    generator = np.random.default_rng(0)
    first, second = (add_gaussian(flat(0), sigma_hu=1.0, seed=generator) for _ in range(2))
    assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 0.02


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: add_gaussian(flat(0), sigma_hu=-1, seed=0), "sigma_hu"),
        (lambda: add_reconstruction_noise(flat(0), sigma_hu=1, cutoff=0, seed=0), "Nyquist"),
        (lambda: add_reconstruction_noise(flat(0), sigma_hu=1, cutoff=1, seed=0, anisotropy=2), "all views alike"),
        (lambda: add_reconstruction_noise(np.zeros(9), sigma_hu=1, cutoff=1, seed=0), "slices"),
        (lambda: add_salt_and_pepper(flat(0), fraction=4, seed=0), "percentage"),
        (lambda: add_salt_and_pepper(flat(0), fraction=0.1, low=1, high=0, seed=0), "darker"),
        (lambda: add_poisson(flat(0), photons_at_high=0, seed=0), "photons"),
        (lambda: add_poisson(flat(np.nan), photons_at_high=10, seed=0), "NaN"),
        (lambda: add_poisson_12bit(flat(0), dose_fraction=0, seed=0), "above 0 and at most 1"),
        (lambda: add_poisson_12bit(flat(0), dose_fraction=25, seed=0), "0.25 for a quarter"),
    ],
)
def test_a_mistake_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
