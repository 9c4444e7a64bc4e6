"""Reblurred Van Cittert against its closed form: a cosine passes the PSF with one gain, so it stays a cosine."""

from functools import partial

import numpy as np
import pytest

from ctrestore.psf import blur
from ctrestore.pvc import reblurred_van_cittert
from ctrestore.pvc.van_cittert import iterate_van_cittert


def cosine(n_cycles_per_volume, *, mean=10.0, amplitude=1.0):
    """A cosine that continues itself when mirrored at the faces, along x."""
    wave = np.cos(np.pi * n_cycles_per_volume * (np.arange(32) + 0.5) / 32)
    return np.broadcast_to((mean + amplitude * wave)[:, None, None], (32, 8, 8)).astype(np.float32)


@pytest.mark.parametrize("n_iterations", [1, 3, 12])
@pytest.mark.parametrize("alpha", [0.5, 1.5])
def test_a_cosine_approaches_its_true_amplitude_by_1_minus_alpha_gain_squared_an_iteration(n_iterations, alpha):
    psf = {"fwhm_mm": 8.0, "spacing_mm": 2.0}
    gain = np.ptp(blur(cosine(6), **psf)) / np.ptp(cosine(6))
    corrected = reblurred_van_cittert(cosine(6), alpha=alpha, n_iterations=n_iterations, stop=0.0, **psf)
    true_amplitude = 1 / gain
    expected = true_amplitude + (1 - true_amplitude) * (1 - alpha * gain**2) ** n_iterations
    assert 0.2 < gain < 0.9
    np.testing.assert_allclose(corrected, cosine(6, amplitude=expected), rtol=1e-5)


def test_it_stops_once_an_iteration_changes_less_than_the_asked_share_of_the_image():
    psf = {"fwhm_mm": 8.0, "spacing_mm": 2.0}
    image = cosine(6)
    states = [image] + [reblurred_van_cittert(image, n_iterations=n, stop=0.0, **psf) for n in range(1, 12)]
    changes = [np.linalg.norm(b - a) / np.linalg.norm(image) for a, b in zip(states, states[1:])]
    stop = (changes[4] + changes[5]) / 2  # first undercut by the sixth iteration
    np.testing.assert_array_equal(reblurred_van_cittert(image, stop=stop, **psf), states[6])


@pytest.mark.parametrize("alpha", [0.0, 2.0, float("nan")])
def test_a_step_that_cannot_converge_is_refused(alpha):
    with pytest.raises(ValueError, match="alpha must lie between 0 and 2"):
        reblurred_van_cittert(cosine(6), fwhm_mm=8.0, spacing_mm=2.0, alpha=alpha)


def test_one_blur_of_twice_the_width_does_what_two_blurs_do():
    """h(f) - h(h(e)) for h(f - h(e)); in float64, where the order of the operations hardly shows."""
    image = np.random.default_rng(0).random((20, 18, 22))
    seen = partial(blur, fwhm_mm=6.0, spacing_mm=2.0)
    how = {"alpha": 1.5, "n_iterations": 8, "stop": 0.0}
    at_once = iterate_van_cittert(image, seen, seen_twice=partial(seen, times=2), **how)
    np.testing.assert_allclose(at_once, iterate_van_cittert(image, seen, **how), atol=1e-12)
