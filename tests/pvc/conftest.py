"""A head of a few lines of geometry, and its regions."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
import torch

from ctrestore.psf import blur
from ctrestore.pvc import Regions

SPACING_MM = (2.0, 1.5, 2.5)
PSF = {"fwhm_mm": (6.0, 5.0, 7.0), "spacing_mm": SPACING_MM}
TRUE_MEANS = np.array([100.0, 4000.0, 9000.0, 6000.0])


class Head(NamedTuple):
    labels: np.ndarray  # 0 air, 1 a ball of white matter, 2 the left and 3 the right half of a shell around it
    truth: np.ndarray
    pet: np.ndarray
    regions: Regions
    means: np.ndarray


@pytest.fixture(scope="session")
def head() -> Head:
    """Uniform regions, blurred without noise: every correction by regions has a truth in closed form."""
    shape = (44, 54, 38)
    axes = [spacing * (np.arange(n) - n / 2) for n, spacing in zip(shape, SPACING_MM)]
    x, y, z = np.meshgrid(*axes, indexing="ij")
    radius_mm = np.sqrt(x**2 + y**2 + z**2)
    labels = np.where(radius_mm < 18, 1, np.where(radius_mm < 28, np.where(x < 0, 2, 3), 0)).astype(np.uint8)
    truth = TRUE_MEANS[labels].astype(np.float32)
    return Head(labels, truth, blur(truth, **PSF), Regions.from_labels(labels), TRUE_MEANS)


def one_hot(labels: np.ndarray, n: int) -> np.ndarray:
    """``(region, x, y, z)``, float32."""
    return (labels == np.arange(n)[:, None, None, None]).astype(np.float32)


@pytest.fixture(scope="session")
def soft(head) -> np.ndarray:
    """Fractions of air, white and two grey regions, mixed at their borders: ``(4, x, y, z)``."""
    return blur(one_hot(head.labels, 4), fwhm_mm=3.0, spacing_mm=SPACING_MM)


def mixed(soft: np.ndarray) -> np.ndarray:
    """The true image of soft regions with TRUE_MEANS."""
    return np.tensordot(TRUE_MEANS.astype(np.float32), soft, axes=1)


def as_tensor(volume: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(volume))
