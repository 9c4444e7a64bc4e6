import numpy as np
import pytest
import torch

from ctrestore.ct import add_gaussian, add_poisson, add_poisson_12bit, add_salt_and_pepper

N = 256
NOISES = {
    "gaussian": lambda image, seed: add_gaussian(image, sigma_hu=20.0, seed=seed),
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
    assert (image == 50).all()  # the image itself is left alone


def test_a_generator_goes_on_where_it_was():
    generator = np.random.default_rng(0)
    first, second = (add_gaussian(flat(0), sigma_hu=1.0, seed=generator) for _ in range(2))
    assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 0.02


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: add_gaussian(flat(0), sigma_hu=-1, seed=0), "sigma_hu"),
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
