"""Richardson-Lucy is expectation maximisation: it keeps the total and never lowers the Poisson likelihood."""

import numpy as np
import pytest

from ctrestore.psf import blur
from ctrestore.pvc import richardson_lucy


@pytest.fixture
def counts():
    return np.random.default_rng(0).poisson(5.0, (20, 16, 12)).astype(np.float32)


@pytest.mark.parametrize("n_iterations", [1, 10])
def test_the_total_stays_the_same_even_for_activity_at_the_faces(counts, n_iterations):
    corrected = richardson_lucy(counts, fwhm_mm=(4.0, 5.0, 6.0), spacing_mm=2.0, n_iterations=n_iterations)
    assert corrected.sum(dtype=float) == pytest.approx(counts.sum(dtype=float), rel=1e-5)


def test_the_kept_total_is_that_of_the_positive_voxels(counts):
    noisy = counts - 2.0
    corrected = richardson_lucy(noisy, fwhm_mm=5.0, spacing_mm=2.0)
    assert corrected.sum(dtype=float) == pytest.approx(noisy[noisy > 0].sum(dtype=float), rel=1e-5)


def test_every_iteration_raises_the_poisson_likelihood(counts):
    def log_likelihood(estimate):
        expected = blur(estimate.astype(float), fwhm_mm=5.0, spacing_mm=2.0)
        return np.sum(counts * np.log(expected) - expected)

    likelihoods = [
        log_likelihood(richardson_lucy(counts, fwhm_mm=5.0, spacing_mm=2.0, n_iterations=n)) for n in range(1, 7)
    ]
    assert (np.diff(likelihoods) > 0).all()
