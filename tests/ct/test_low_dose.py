"""The laws of dose: how noise depends on it, and what must not change."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.ndimage import uniform_filter

from ctrestore.ct import (
    ELECTRONIC_NOISE,
    WATER_PER_MM,
    noise_at_dose,
    noise_components,
    simulate_low_dose,
    simulate_scan,
    stored_to_hu,
)
from ctrestore.ct.low_dose import FEWEST_PHOTONS

SPACING_MM, PHOTONS = 2.5, 1e6
N_SLICES = 8  # of noise; with 3200 pixels in each, standard deviations are sure to 0.5 %, or 1 % where it is smooth


@pytest.fixture(scope="module")
def ideal(small_arc, water):
    """A scan of noise-free slices, by ``ideal(dose_fraction, ...)``."""

    def scan(dose_fraction: float, *, diameter_mm: float = 200, seed: int = 0, **kwargs) -> np.ndarray:
        slices = np.stack([water(diameter_mm)] * N_SLICES)
        kwargs = {"photons_per_ray": PHOTONS, **kwargs}
        return simulate_scan(
            slices, dose_fraction=dose_fraction, spacing_mm=SPACING_MM, seed=seed, geometry=small_arc, **kwargs
        )

    return scan


@pytest.fixture(scope="module")
def added(small_arc, water):
    """The noise inserted into slices, by ``added(dose_fraction, ...)``."""

    def insert(
        dose_fraction: float, *, diameter_mm: float = 200, seed: int = 0, n_slices: int = N_SLICES, **kwargs
    ) -> np.ndarray:
        slices = np.stack([water(diameter_mm)] * n_slices)
        kwargs = {"photons_per_ray": PHOTONS, **kwargs}
        low_dose = simulate_low_dose(
            slices, dose_fraction=dose_fraction, spacing_mm=SPACING_MM, seed=seed, geometry=small_arc, **kwargs
        )
        return low_dose - slices

    return insert


@pytest.fixture(scope="module")
def inside(radius_mm) -> np.ndarray:
    """The central 80 % of the disc of 200 mm."""
    return radius_mm < 80


def test_an_ideal_scan_has_noise_of_one_over_the_root_of_the_dose(ideal, inside):
    full, *others = (ideal(dose, seed=i)[:, inside].std() for i, dose in enumerate((1.0, 0.5, 0.25, 0.1)))
    for dose, noise in zip((0.5, 0.25, 0.1), others):
        assert noise / full == pytest.approx(dose**-0.5, rel=0.03)


def test_inserted_noise_grows_as_the_root_of_one_over_dose_minus_one(added, inside):
    half, *others = (added(dose, seed=i)[:, inside].std() for i, dose in enumerate((0.5, 0.25, 0.1)))
    for dose, noise in zip((0.25, 0.1), others):
        assert noise / half == pytest.approx((1 / dose - 1) ** 0.5, rel=0.03)


@pytest.mark.parametrize("electronic_noise", [0.0, 30.0])
@pytest.mark.parametrize("dose", [0.5, 0.25])
def test_inserted_noise_is_what_the_low_dose_scan_has_beyond_the_full_dose_scan(
    ideal, added, radius_mm, electronic_noise, dose
):
    """Variances add up, also where the electronics contribute half of them."""
    kwargs = {"electronic_noise": electronic_noise, "diameter_mm": 300}
    inside = radius_mm < 120
    full, low = (ideal(a, seed=i, **kwargs)[:, inside].var() for i, a in enumerate((1.0, dose)))
    assert added(dose, seed=2, **kwargs)[:, inside].var() + full == pytest.approx(low, rel=0.04)


def test_more_photons_mean_less_noise_by_the_square_root(added, inside):
    few, many = (added(0.25, photons_per_ray=n)[:, inside].std() for n in (1e6, 4e6))
    assert few / many == pytest.approx(2.0, rel=0.01)


def test_the_mean_stays_within_one_hu(ideal, added, inside):
    for dose in (1.0, 0.25, 0.1):
        assert abs(ideal(dose)[:, inside].mean()) < 1.0
        assert abs(added(dose)[:, inside].mean()) < 1.0


def test_the_power_of_the_noise_falls_to_zero_at_zero_frequency(added):
    """As with the ramp filter: proportional to the frequency. White noise would be even."""
    roi = added(0.25, filter="ramp", n_slices=24)[:, 36:92, 36:92]  # 140 mm inside the disc
    taper = np.hanning(56)[:, None] * np.hanning(56)
    power = (np.abs(np.fft.fft2(roi * taper)) ** 2).mean(axis=0)
    frequency = np.hypot(*np.meshgrid(*[np.fft.fftfreq(56)] * 2))
    rings = [power[(frequency > f - 0.025) & (frequency <= f + 0.025)].mean() for f in (0.05, 0.1, 0.15, 0.2)]
    assert rings[1] / rings[0] == pytest.approx(2.0, rel=0.15)
    assert rings == sorted(rings)  # interpolation bends the line at higher frequencies
    assert power[0, 0] < 0.1 * power.mean()  # not zero, because the taper lets the neighbouring frequencies in


def test_noise_is_largest_behind_the_densest_paths(small_arc, water, radius_mm):
    """Two discs of bone in a row make streaks between them, which noise in the image cannot."""
    body = np.stack([water(280)] * N_SLICES)
    along = (np.arange(128) - 63.5) * SPACING_MM
    for x in (-80, 80):
        body[:, np.hypot(along[:, None], along - x) < 20] = 1500
    noise = simulate_low_dose(body, dose_fraction=0.25, spacing_mm=SPACING_MM, seed=0, geometry=small_arc) - body
    between = noise[:, 60:68, 50:78]
    horizontal, vertical = (np.diff(between, axis=axis).std() for axis in (2, 1))
    assert vertical > 1.5 * horizontal


def test_dose_one_adds_nothing(added):
    assert (added(1.0) == 0).all()


def test_the_same_seed_gives_the_same_noise(small_arc, water):
    kwargs = {"dose_fraction": 0.25, "spacing_mm": SPACING_MM, "geometry": small_arc}
    for simulate in (simulate_scan, simulate_low_dose):
        first, again, other = (simulate(water(200), seed=seed, **kwargs) for seed in (7, 7, 8))
        np.testing.assert_array_equal(first, again)
        assert not np.array_equal(first, other)


def test_every_slice_has_noise_of_its_own(added, inside):
    noise = added(0.25)[:, inside]
    correlation = np.corrcoef(noise) - np.eye(N_SLICES)
    assert np.abs(correlation).max() < 0.1


def test_tensors_get_the_noise_of_arrays(small_arc, water):
    hu = water(200)[None]
    kwargs = {"dose_fraction": 0.25, "spacing_mm": SPACING_MM, "seed": 0, "geometry": small_arc}
    expected = simulate_low_dose(hu, **kwargs)
    for dtype in (torch.float32, torch.float64):
        noisy = simulate_low_dose(torch.from_numpy(hu).to(dtype), **kwargs)
        assert noisy.dtype == dtype
        np.testing.assert_allclose(noisy.numpy(), expected, atol=1e-3)
    assert expected.dtype == np.float32
    assert simulate_low_dose(hu.astype(np.int16), **kwargs).dtype == np.float32


def test_no_gradient_passes_through_the_noise(small_arc, water):
    hu = torch.from_numpy(water(200)).requires_grad_()
    simulate_low_dose(hu, dose_fraction=0.25, spacing_mm=SPACING_MM, seed=0, geometry=small_arc).sum().backward()
    assert (hu.grad == 1).all()


@pytest.mark.parametrize("dose", [0.1, 0.4])
def test_components_give_the_noise_of_every_dose(small_arc, water, dose):
    kwargs = {"spacing_mm": SPACING_MM, "seed": 3, "geometry": small_arc, "photons_per_ray": 1e5}
    hu = water(200)
    components = noise_components(hu, lowest_dose_fraction=0.1, **kwargs)
    expected = simulate_low_dose(hu, dose_fraction=dose, **kwargs)
    np.testing.assert_allclose(hu + noise_at_dose(components, dose_fraction=dose), expected, atol=0.01)


def test_padding_stays_as_it_is(small_arc, water, radius_mm):
    hu = water(200)
    hu[radius_mm > 150] = -2048
    kwargs = {"dose_fraction": 0.25, "spacing_mm": SPACING_MM, "seed": 0, "geometry": small_arc}
    noisy = simulate_low_dose(hu, **kwargs)
    assert (noisy[radius_mm > 150] == -2048).all()
    assert (noisy[radius_mm < 150] != hu[radius_mm < 150]).mean() > 0.99
    masked = simulate_low_dose(hu, padding=radius_mm > 120, **kwargs)
    np.testing.assert_array_equal(masked[radius_mm > 120], hu[radius_mm > 120])
    np.testing.assert_array_equal(masked[radius_mm <= 120], noisy[radius_mm <= 120])


def test_tube_current_may_change_from_view_to_view(small_arc, added, inside):
    """A sine of the angle, as modulation gives to oval patients: the variance goes with the mean of 1 / photons."""
    modulation = PHOTONS * (1 + 0.6 * np.cos(2 * small_arc.view_angles_rad))[:, None]
    even, modulated = (added(0.25, photons_per_ray=n)[:, inside].std() for n in (PHOTONS, modulation))
    assert modulated / even == pytest.approx(np.sqrt((PHOTONS / modulation).mean()), rel=0.02)


def test_the_deviation_of_a_logarithm_of_counts_stays_below_that_of_the_fewest_photons():
    """The reason of FEWEST_PHOTONS: what a scanner measures of starved rays, and equation (1) at that many photons."""
    rng = np.random.default_rng(0)
    spreads = []
    for mean in np.geomspace(0.1, 100, 31):
        counts = rng.poisson(mean, 20000) + rng.normal(0, ELECTRONIC_NOISE, 20000)
        spreads.append(np.log(np.maximum(counts, 1)).std())
    first_order = np.sqrt(1 / FEWEST_PHOTONS + ELECTRONIC_NOISE**2 / FEWEST_PHOTONS**2)
    assert 0.7 < max(spreads) < first_order < 1.0


def test_starved_rays_make_no_more_noise_than_the_fewest_photons(small_arc, water):
    """300 mm of bone: exp(-11) of 100 photons. Without a bound, equation (1) would give a thousand times the noise."""
    hu = np.where(water(300) > -500, 1000, -1000).astype(np.float32)
    kwargs = {"spacing_mm": SPACING_MM, "seed": 0, "geometry": small_arc, "dose_fraction": 0.1}
    starved, fewest = (simulate_low_dose(hu, photons_per_ray=n, **kwargs) - hu for n in (100.0, 1.0))
    np.testing.assert_allclose(starved[50:78, 50:78].std(), fewest[50:78, 50:78].std(), rtol=0.05)
    assert np.isfinite(simulate_scan(hu, photons_per_ray=100, **kwargs)).all()


@pytest.mark.skipif("CTRESTORE_DATA" not in os.environ, reason="set CTRESTORE_DATA to look at real scans")
def test_a_quarter_of_the_dose_of_real_scans_looks_like_a_quarter():
    """The reason of PHOTONS_PER_RAY: scans of 15.6 HU lack 27, the root of 1 / 0.25 - 1 times their own."""
    pydicom = pytest.importorskip("pydicom")
    folder = Path(os.environ["CTRESTORE_DATA"]) / "ct_dicom"
    paths = [*folder.glob("*/*.dcm"), *folder.glob("*/*/axial/*.dcm")]
    if not paths:
        pytest.skip(f"no slices in {folder}")
    added = []
    for path in sorted(paths):
        header = pydicom.dcmread(path)
        hu = stored_to_hu(
            header.pixel_array, slope=float(header.RescaleSlope), intercept=float(header.RescaleIntercept)
        )
        spacing_mm = [float(size) for size in header.PixelSpacing]
        smooth = uniform_filter(hu, 9)
        soft = (smooth > -10) & (smooth < 80)
        added.append((simulate_low_dose(hu, dose_fraction=0.25, spacing_mm=spacing_mm, seed=0) - hu)[soft].std())
    assert np.median(added) == pytest.approx(26, abs=2)


def test_an_unbiased_logarithm_divides_by_the_photons_of_the_dose(ideal, inside):
    """The most cited simulator divides by those of the full dose: an offset of log(4) in every ray at a quarter."""
    offset_hu = 1000 * np.log(4) / (WATER_PER_MM * 200)
    assert offset_hu > 100
    assert abs(ideal(0.25)[:, inside].mean()) < 0.01 * offset_hu


@pytest.mark.parametrize("simulate", [simulate_low_dose, simulate_scan])
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"dose_fraction": 0}, "above 0 and at most 1"),
        ({"dose_fraction": -0.5}, "above 0 and at most 1"),
        ({"dose_fraction": 25}, "percentage"),
        ({"dose_fraction": float("nan")}, "above 0"),
        ({"photons_per_ray": 0}, "1e4 to 1e7"),
        ({"photons_per_ray": 5.3}, None),
        ({"photons_per_ray": np.ones(3) * 1e5}, "broadcasts"),
        ({"electronic_noise": -1}, "electronic_noise"),
        ({"spacing_mm": 0}, "without spacing"),
        ({"hu": np.zeros(8)}, r"slices \(..., y, x\)"),
        ({"hu": np.full((8, 8), np.nan)}, "NaN"),
        ({"hu": np.linspace(0, 4095, 64).reshape(8, 8)}, "stored_to_hu"),
    ],
)
def test_a_mistake_is_named(simulate, wrong, message):
    kwargs = {"hu": np.full((8, 8), -1000.0), "dose_fraction": 0.25, "spacing_mm": 1.0, "seed": 0, **wrong}
    hu = kwargs.pop("hu")
    if message is None:
        simulate(hu, **kwargs)  # few photons are a bad scan, but allowed
        return
    with pytest.raises(ValueError, match=message):
        simulate(hu, **kwargs)


def test_a_mask_of_another_shape_is_refused():
    with pytest.raises(ValueError, match="padding has shape"):
        simulate_low_dose(
            np.zeros((8, 8)), dose_fraction=0.25, spacing_mm=1.0, seed=0, padding=np.zeros((4, 8), dtype=bool)
        )
