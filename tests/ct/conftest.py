"""A small scanner and a disc of water."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from ctrestore.ct import FLASH, FanBeam

SIDE, SPACING_MM = 128, 2.5


@pytest.fixture(scope="session")
def small_arc() -> FanBeam:
    """The default scanner with a third of its channels and a quarter of its views."""
    return replace(FLASH, n_views=288, n_detectors=246, detector_pitch_mm=3 * FLASH.detector_pitch_mm)


@pytest.fixture(scope="session")
def small_flat(small_arc) -> FanBeam:
    return replace(small_arc, detector="flat")


@pytest.fixture(params=["arc", "flat"])
def geometry(request, small_arc, small_flat) -> FanBeam:
    return small_arc if request.param == "arc" else small_flat


def radii_mm(side: int = SIDE, spacing_mm: float = SPACING_MM) -> np.ndarray:
    """Distance of each pixel from the isocentre."""
    along = (np.arange(side) - (side - 1) / 2) * spacing_mm
    return np.hypot(along[:, None], along)


def disc_of(diameter_mm: float) -> np.ndarray:
    """Part of each pixel inside a disc at the isocentre, in float32; its rim is one pixel wide."""
    return np.clip((diameter_mm / 2 - radii_mm()) / SPACING_MM + 0.5, 0, 1).astype(np.float32)


@pytest.fixture(scope="session")
def radius_mm() -> np.ndarray:
    return radii_mm()


@pytest.fixture(scope="session")
def disc() -> Callable[[float], np.ndarray]:
    return disc_of


@pytest.fixture(scope="session")
def water() -> Callable[[float], np.ndarray]:
    """A disc of water in air, in HU, by its diameter in mm."""
    return lambda diameter_mm: 1000 * disc_of(diameter_mm) - 1000
