"""The photons of a scan, from its noise: a simulation is the law, and half the dose doubles the variance."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ctrestore.ct import PHOTONS_PER_RAY, noise_components, simulate_low_dose
from ctrestore.metrics import local_noise_hu
from ctrestore.metrics.photons import MOST_FROM_USUAL, photons_of
from ctrestore.transforms.low_dose import AtDosed, NoiseRealisationsd, RandLowDosed

SPACING_MM = 2.5
X = (np.arange(128) - 63.5) * SPACING_MM
BODY = np.where(np.hypot(X / 140, X[:, None] / 100) < 1, 50.0, -1000.0).astype(np.float32)


def scan(photons: float) -> np.ndarray:
    return BODY + noise_components(BODY, spacing_mm=SPACING_MM, seed=1, photons_per_ray=photons).quantum


@pytest.mark.parametrize("photons", [5e4, 2e5, 1e6])
def test_photons_are_estimated_from_noise(photons):
    assert photons_of(scan(photons), spacing_mm=SPACING_MM) == pytest.approx(photons, rel=0.15)


def test_half_the_dose_has_twice_the_variance_of_the_scan():
    full = scan(6e4)
    found = photons_of(full, spacing_mm=SPACING_MM)
    half = simulate_low_dose(full, dose_fraction=0.5, spacing_mm=SPACING_MM, seed=2, photons_per_ray=found)
    own, lowered = local_noise_hu(full, half, tissue=BODY)
    assert lowered / own == pytest.approx(2**0.5, rel=0.07)


def test_a_slice_without_noise_or_tissue_gets_a_number():
    assert photons_of(BODY, spacing_mm=SPACING_MM) == pytest.approx(MOST_FROM_USUAL * PHOTONS_PER_RAY)
    assert photons_of(np.full_like(BODY, -1000.0), spacing_mm=SPACING_MM) == PHOTONS_PER_RAY


def test_transforms_lower_an_entry_by_its_own_photons():
    image = torch.from_numpy(BODY)[None]
    added = {}
    for photons in (1e5, 4e5):
        entry = {"image": image, "dose_fraction": 0.5, "photons_per_ray": photons}
        noisy = AtDosed("image", spacing_mm=SPACING_MM)(entry)["image"]
        noise = NoiseRealisationsd("image", n=1, spacing_mm=SPACING_MM)(entry)["noise"]
        anew = RandLowDosed("image", dose_fraction=(0.5, 0.5), spacing_mm=SPACING_MM)
        anew.set_random_state(0)
        added[photons] = [float(x.std()) for x in (noisy - image, noise[0], anew(entry)["image"] - image)]
    for few, many in zip(added[1e5], added[4e5]):
        assert few / many == pytest.approx(2, rel=0.05)  # electronic noise makes it a little more
