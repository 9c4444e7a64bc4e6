"""How many photons a scan was made with, as its own noise tells."""

from __future__ import annotations

import math

import numpy as np

from ctrestore.ct import PHOTONS_PER_RAY, fewer_views, noise_components
from ctrestore.ct.degrade import Seed
from ctrestore.metrics import local_noise_hu
from ctrestore.psf import Scalars

#: Of an entry of a data list: photons of a ray at its full dose, without a patient.
PHOTONS_KEY = "photons_per_ray"
#: Farther from the usual number, the noise of a slice says more of its kernel than of its photons.
MOST_FROM_USUAL = 30.0


def photons_of(hu: np.ndarray, *, spacing_mm: Scalars, seed: Seed = 0) -> float:
    """Photons per ray, at the scan's dose and without a patient, with which a simulation has the scan's own noise.

    With them half of the dose adds as much variance as the slice holds, as equation (1) of
    :mod:`ctrestore.ct.low_dose` has it. Both noises are measured in the flat parts of soft tissue
    (:func:`ctrestore.metrics.local_noise_hu`). The kernel of the scan is not known: a sharp one counts as few photons,
    a smooth one, or iterative reconstruction, as many.

    Args:
        hu: a slice ``(y, x)`` with its noise.
        spacing_mm: of its pixels.
        seed: of the noise that is simulated for comparison.

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
