"""Squares for measuring noise contain no edge."""

import numpy as np
import pytest

from ctrestore.metrics import uniform_regions


@pytest.fixture
def abdomen():
    """Air, a body of 40 HU with a vessel grid of 70 HU in its left half, and noise of 15 HU."""
    hu = np.full((160, 160), -1000.0)
    hu[20:140, 20:140] = 40
    hu[20:140, 20:80:10] = 70
    return hu + 15 * np.random.default_rng(0).standard_normal(hu.shape)


def test_squares_lie_in_the_uniform_half_and_do_not_overlap(abdomen):
    found = uniform_regions(abdomen, size_pixels=16, n_regions=4)
    assert len(found) == 4
    taken = np.zeros(abdomen.shape, dtype=int)
    for region in found:
        assert abdomen[region].shape == (16, 16)
        taken[region] += 1
    assert taken.max() == 1
    inside = np.zeros(abdomen.shape, dtype=bool)
    inside[20:140, 71:140] = True  # the last vessel is column 70
    assert inside[taken == 1].all()


def test_the_squares_are_not_chosen_for_low_noise(abdomen):
    found = uniform_regions(abdomen, size_pixels=16, n_regions=4)
    assert np.std([abdomen[region] for region in found]) == pytest.approx(15, rel=0.05)


def test_a_square_may_touch_the_slices_edge_with_odd_and_even_sides():
    for size in (15, 16):
        assert uniform_regions(np.full((16, 16), 40.0), size_pixels=size, n_regions=1)


def test_fewer_squares_are_returned_if_no_more_fit(abdomen):
    assert 0 < len(uniform_regions(abdomen, size_pixels=50, n_regions=50)) < 6


def test_a_slice_without_such_a_square_is_refused(abdomen):
    with pytest.raises(ValueError, match=r"no square of 24 pixels lies within -10..80 HU.*another band_hu"):
        uniform_regions(np.full((64, 64), -850.0), size_pixels=24)
    with pytest.raises(ValueError, match="300 pixels or more"):
        uniform_regions(abdomen, size_pixels=300)
