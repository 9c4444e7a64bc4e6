"""The noises for super-resolution and for the study of COVID-CT, by name and level.

Their levels are for a picture of -1000 (black) to 400 HU (white), the range of 8-bit chest slices. The
visible ones disturb a reader. Those named ``published-`` come from a course: its noise of variance 1 on grey
levels of 0 to 255 is invisible (48 dB).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from ctrestore.ct.degrade import Seed, add_gaussian, add_poisson, add_reconstruction_noise, add_salt_and_pepper
from ctrestore.psf import as_float

BLACK_HU, WHITE_HU = -1000.0, 400.0
GREY_LEVEL_HU = (WHITE_HU - BLACK_HU) / 255

PICTURE: dict[str, Any] = {"low": BLACK_HU, "high": WHITE_HU}


def _clean(hu: Any, *, strength: float, seed: Seed) -> Any:
    return as_float(hu)


def _gaussian(hu: Any, *, strength: float, seed: Seed, sigma_hu: float) -> Any:
    return add_gaussian(hu, sigma_hu=strength * sigma_hu, seed=seed)


def _scanner(hu: Any, *, strength: float, seed: Seed, sigma_hu: float, cutoffs: tuple[float, float]) -> Any:
    generator = np.random.default_rng(seed)
    drawn = {"cutoff": generator.uniform(*cutoffs), "anisotropy": generator.uniform()}
    drawn["direction_rad"] = generator.uniform(0, math.pi)
    return add_reconstruction_noise(hu, sigma_hu=strength * sigma_hu, seed=generator, **drawn)


def _salt_and_pepper(hu: Any, *, strength: float, seed: Seed, fraction: float) -> Any:
    return add_salt_and_pepper(hu, fraction=min(strength * fraction, 1.0), seed=seed, **PICTURE)


def _poisson(hu: Any, *, strength: float, seed: Seed, photons_at_white: float) -> Any:
    if strength == 0:
        return as_float(hu)
    return add_poisson(hu, photons_at_high=photons_at_white / strength**2, seed=seed, **PICTURE)


#: By name. ``scanner``: the spectrum of filtered backprojection, with a kernel and a direction drawn for each image.
#: ``published-``: standard deviation of one grey level; 0.4 % of the pixels (its salt of 1 grey level is white here);
#: ``2 ** ceil(log2(256))`` times 255 photons at white.
NOISES: dict[str, Callable[..., Any]] = {
    "clean": _clean,
    "gaussian": partial(_gaussian, sigma_hu=28.0),
    "scanner": partial(_scanner, sigma_hu=28.0, cutoffs=(0.6, 1.6)),
    "salt-and-pepper": partial(_salt_and_pepper, fraction=0.02),
    "poisson": partial(_poisson, photons_at_white=1000.0),
    "published-gaussian": partial(_gaussian, sigma_hu=GREY_LEVEL_HU),
    "published-salt-and-pepper": partial(_salt_and_pepper, fraction=0.004),
    "published-poisson": partial(_poisson, photons_at_white=256.0 * 255),
}


def check_noise(name: str) -> str:
    """The name, if there is a noise of this name.

    Raises:
        ValueError: there is none.
    """
    if name not in NOISES:
        raise ValueError(f"noise is one of {', '.join(NOISES)}; got {name!r}.")
    return name


def add_noise(hu: Any, name: str, *, seed: Seed, strength: float = 1.0) -> Any:
    """The image in HU with one of :data:`NOISES`; the same seed gives the same noise.

    Args:
        hu: array or tensor of any shape; for ``scanner``, slices ``(..., y, x)``.
        name: of the noise.
        seed: or a generator.
        strength: 2 doubles the standard deviation (or the fraction of pixels, for salt and pepper), 0 is no noise.

    Raises:
        ValueError: there is no such noise, or the strength is negative or not a number.
    """
    if not (strength >= 0 and math.isfinite(strength)):
        raise ValueError(f"strength is 0 or more, with 1 for the level of the name; got {strength!r}.")
    return NOISES[check_noise(name)](hu, strength=strength, seed=seed)
