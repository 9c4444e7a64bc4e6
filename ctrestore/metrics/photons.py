"""The number of photons of a scan, estimated from its own noise."""

from __future__ import annotations

import math

import numpy as np

from ctrestore.ct import PHOTONS_PER_RAY, fewer_views, noise_components
from ctrestore.ct.degrade import Seed
from ctrestore.metrics import local_noise_hu
from ctrestore.psf import Scalars

#: Key of a data list's entry: photons per ray at its full dose, without a patient.
PHOTONS_KEY = "photons_per_ray"
#: Farther from the usual number, the noise of a slice depends more on its kernel than on its photons.
MOST_FROM_USUAL = 30.0


def photons_of(hu: np.ndarray, *, spacing_mm: Scalars, seed: Seed = 0) -> float:
    """Photons per ray, at the scan's dose and without a patient, for which a simulation has the scan's own noise.

    With this number half of the dose doubles the variance of the slice, by equation (1) of
    :mod:`ctrestore.ct.low_dose`. Both noises are measured in the flat parts of soft tissue
    (:func:`ctrestore.metrics.local_noise_hu`). The kernel of the scan is unknown: a sharp one looks like few photons,
    a smooth one, or iterative reconstruction, like many.

    Args:
        hu: a slice ``(y, x)`` with its noise.
        spacing_mm: of its pixels.
        seed: of the noise simulated for comparison.

    Returns:
        Photons, at most 30 times more or fewer than ``PHOTONS_PER_RAY``; that number for a slice without soft tissue.

    Raises:
        ValueError: not an image in HU.
    """
    simulated = noise_components(hu, spacing_mm=spacing_mm, seed=seed, **fewer_views()).quantum
    own_hu, simulated_hu = local_noise_hu(hu, simulated, tissue=hu)
    if not (math.isfinite(own_hu) and simulated_hu > 0):
        return PHOTONS_PER_RAY
    factor = MOST_FROM_USUAL if own_hu == 0 else (simulated_hu / own_hu) ** 2
    return PHOTONS_PER_RAY * min(max(factor, 1 / MOST_FROM_USUAL), MOST_FROM_USUAL)
