"""The merging networks against scipy, and against every window of zeros and ones."""

from itertools import product

import numpy as np
import pytest
from scipy import ndimage

from ctrestore.metrics.median import ROWS_AT_ONCE, _sorted, median_5x5

SIZES = [(1, 1), (1, 5), (3, 2), (5, 5), (ROWS_AT_ONCE, 7), (ROWS_AT_ONCE + 1, 40), (3 * ROWS_AT_ONCE - 1, 64)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int16, np.uint8])
def test_medians_equal_those_of_scipy_up_to_the_edges(size, dtype):
    image = (np.random.default_rng(0).random(size) * 200).astype(dtype)
    found = median_5x5(image)
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, ndimage.median_filter(image, size=5))


def test_ties_and_the_order_of_axes_in_memory_change_nothing():
    image = np.random.default_rng(1).integers(0, 3, (70, 50))
    np.testing.assert_array_equal(median_5x5(np.asfortranarray(image)), ndimage.median_filter(image, size=5))


def test_every_window_of_zeros_and_ones_has_its_median():
    """A network of minima and maxima that sorts all zeros and ones right sorts everything right.

    The first step sorts columns, so how many ones a column has is all that matters: 6 to the power of 5 windows, side
    by side.
    """
    ones = np.array(list(product(range(6), repeat=5)))  # (window, column)
    windows = np.arange(5)[:, None, None] < ones  # (row, window, column)
    medians = median_5x5(windows.reshape(5, -1).astype(np.uint8))[2, 2::5]
    np.testing.assert_array_equal(medians, ones.sum(axis=1) >= 13)


def test_every_column_of_zeros_and_ones_is_sorted():
    columns = np.array(list(product((0, 1), repeat=5)))
    np.testing.assert_array_equal(_sorted(list(columns.T)), np.sort(columns).T)


def test_a_volume_is_refused():
    with pytest.raises(ValueError, match=r"\(y, x\)"):
        median_5x5(np.zeros((5, 5, 5)))
