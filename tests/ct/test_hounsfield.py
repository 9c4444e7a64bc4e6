import numpy as np
import pytest
import torch

from ctrestore.ct import (
    WATER_PER_MM,
    WINDOWS,
    attenuation_to_hu,
    check_hu,
    denormalise,
    hu_to_attenuation,
    hu_to_stored,
    normalise,
    stored_to_hu,
    window,
)

EVERY_INT16 = np.arange(-(2**15), 2**15).astype(np.int16)
#: slope and intercept as scanners write them; 0.1 has no exact binary form
RESCALES = [(1.0, -1024.0), (1.0, 0.0), (1.0, -8192.0), (0.1, -1000.0), (2.5, 17.3), (-1.0, 5.0)]


@pytest.mark.parametrize(("slope", "intercept"), RESCALES)
@pytest.mark.parametrize("stored", [EVERY_INT16, EVERY_INT16.view(np.uint16)], ids=["int16", "uint16"])
def test_every_stored_value_comes_back_bit_by_bit_through_hu(stored, slope, intercept):
    hu = stored_to_hu(stored, slope=slope, intercept=intercept)
    back, n_clipped = hu_to_stored(hu, slope=slope, intercept=intercept, dtype=stored.dtype)
    assert hu.dtype == np.float32
    assert n_clipped == 0
    assert back.dtype == stored.dtype
    np.testing.assert_array_equal(back, stored)


@pytest.mark.parametrize(("slope", "intercept"), RESCALES[:4])
def test_every_stored_value_survives_normalisation_and_attenuation(slope, intercept):
    hu = stored_to_hu(EVERY_INT16, slope=slope, intercept=intercept)
    for there, back in ((normalise, denormalise), (hu_to_attenuation, attenuation_to_hu)):
        returned, _ = hu_to_stored(back(there(hu)), slope=slope, intercept=intercept, dtype=np.int16)
        np.testing.assert_array_equal(returned, EVERY_INT16)


def test_a_benchmarks_wrong_inverse_would_be_detected():
    """ldct-benchmark adds the standard deviation where it should add the mean: 1024 comes back as 1044.7."""
    assert denormalise(normalise(np.float32([24.0])))[0] == pytest.approx(24.0, abs=1e-3)


def test_values_that_do_not_fit_are_clipped_and_counted():
    stored, n_clipped = hu_to_stored(
        np.float32([-2000, -1024, 0, 3071, 3072]), slope=1, intercept=-1024, dtype=np.uint16, bits_stored=12
    )
    np.testing.assert_array_equal(stored, [0, 0, 1024, 4095, 4095])
    assert n_clipped == 2


def test_half_a_unit_of_error_is_rounded_away():
    stored, _ = hu_to_stored(np.float32([10.49, 9.51, -10.49]), slope=1, intercept=-1024, dtype=np.int16)
    np.testing.assert_array_equal(stored, [1034, 1034, 1014])


def test_water_and_air_have_their_attenuation():
    np.testing.assert_allclose(hu_to_attenuation(np.float32([-1000, 0, 1000])), [0, WATER_PER_MM, 2 * WATER_PER_MM])
    np.testing.assert_allclose(attenuation_to_hu(np.float64([0, 0.02, 0.04]), water_per_mm=0.02), [-1000, 0, 1000])


def test_the_default_normalisation_divides_by_a_thousand():
    np.testing.assert_allclose(normalise(np.float32([-1000, 0, 2000, 3071])), [-1, 0, 2, 3.071], atol=1e-6)


@pytest.mark.parametrize("name", WINDOWS)
def test_a_window_runs_from_black_to_white(name):
    black, white = WINDOWS[name].range_hu
    shown = window(np.float64([black - 1, black, (black + white) / 2, white, white + 1]), name)
    np.testing.assert_allclose(shown, [0, 0, 0.5, 1, 1], atol=1e-12)


def test_the_windows_of_the_papers_have_names():
    assert WINDOWS["abdomen"].range_hu == (-160, 240)
    assert WINDOWS["lung"].range_hu == (-1350, 150)
    np.testing.assert_array_equal(
        window(np.float32([0, 50]), level=40, width=400), window(np.float32([0, 50]), "abdomen")
    )


def test_tensors_stay_tensors():
    hu = torch.tensor([-1000.0, 40.0])
    for function in (normalise, denormalise, hu_to_attenuation, attenuation_to_hu, lambda x: window(x, "lung")):
        assert isinstance(function(hu), torch.Tensor)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: stored_to_hu(EVERY_INT16, slope=0, intercept=0), "slope is not 0"),
        (lambda: hu_to_stored(np.zeros(2), slope=float("nan"), intercept=0, dtype=np.int16), "damaged header"),
        (lambda: hu_to_stored(np.zeros(2), slope=1, intercept=0, dtype=np.float32), "np.int16"),
        (lambda: hu_to_stored(np.float32([np.nan]), slope=1, intercept=0, dtype=np.int16), "NaN"),
        (lambda: hu_to_stored(np.zeros(2), slope=1, intercept=0, dtype=np.uint8, bits_stored=12), "1 to 8"),
        (lambda: hu_to_attenuation(np.zeros(2), water_per_mm=0.192), "per cm"),
        (lambda: window(np.zeros(2), "lungs"), "'lungs'"),
        (lambda: window(np.zeros(2)), "by name"),
        (lambda: window(np.zeros(2), "lung", level=40), "not both"),
        (lambda: window(np.zeros(2), level=40), "positive width"),
        (lambda: normalise(np.zeros(2), range_hu=(2000, -1000)), "lowest, highest"),
    ],
)
def test_a_mistake_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    ("values", "remedy"),
    [
        ([0, 1024, 4095], "stored_to_hu"),
        ([-1, 0, 2], "denormalise"),
        ([0, 0.5, 1], "denormalise"),
        ([0, 128, 255], "grey values"),
        ([-1000, float("nan")], "replace"),
    ],
)
def test_an_image_that_is_not_in_hu_is_refused(values, remedy):
    with pytest.raises(ValueError, match=remedy):
        check_hu(np.float32(values))


@pytest.mark.parametrize("values", [[0, 0], [-1000, -1000], [-1024, 3071], [-3024, 500], [-80, 60]])
def test_an_image_in_hu_passes(values):
    check_hu(np.float32(values))
