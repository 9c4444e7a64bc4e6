"""Geometry of a fan-beam scanner: rays, pixels, detectors and views."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, NamedTuple

import numpy as np

from ctrestore.psf import Scalars, per_axis


@dataclass(frozen=True)
class FanBeam:
    """A full turn of a source and a detector around the isocentre, the centre of the image.

    Args:
        n_views: projections, evenly over 360 degrees.
        n_detectors: channels, symmetric about the central ray.
        detector_pitch_mm: distance between channels, at the detector.
        source_to_isocentre_mm: radius of the source's orbit.
        source_to_detector_mm: along the central ray.
        detector: ``arc``, centred on the source as in a clinical scanner, or ``flat``.

    Raises:
        ValueError: a number is not positive, or the detector is not behind the isocentre.
    """

    n_views: int
    n_detectors: int
    detector_pitch_mm: float
    source_to_isocentre_mm: float
    source_to_detector_mm: float
    detector: Literal["arc", "flat"] = "arc"

    def __post_init__(self) -> None:
        if self.detector not in ("arc", "flat"):
            raise ValueError(f"detector is 'arc' or 'flat'; got {self.detector!r}.")
        if self.n_views < 1 or self.n_detectors < 2:
            raise ValueError(f"expected views and at least 2 detectors; got {self.n_views} and {self.n_detectors}.")
        if not (self.detector_pitch_mm > 0 and self.source_to_detector_mm > self.source_to_isocentre_mm > 0):
            raise ValueError(
                "expected a positive detector_pitch_mm and source_to_detector_mm > source_to_isocentre_mm > 0; got "
                f"{self.detector_pitch_mm!r}, {self.source_to_detector_mm!r} and {self.source_to_isocentre_mm!r}. "
                "Usual cause: the distance from the isocentre to the detector. Remedy: add the two distances."
            )
        if self.detector == "arc" and self.n_detectors * self.step >= math.pi:
            raise ValueError(
                f"{self.n_detectors} detectors of {self.detector_pitch_mm} mm on an arc of "
                f"{self.source_to_detector_mm} mm see more than 180 degrees. Usual cause: a wrong unit of one of them."
            )

    @property
    def step(self) -> float:
        """Channel distance divided by the distance from the source: radians on an arc, a tangent on a plane."""
        return self.detector_pitch_mm / self.source_to_detector_mm

    @property
    def fan_angles_rad(self) -> np.ndarray:
        """Angle of each channel's ray to the central ray: ``(n_detectors,)``."""
        along = (np.arange(self.n_detectors) - (self.n_detectors - 1) / 2) * self.step
        return along if self.detector == "arc" else np.arctan(along)

    @property
    def view_angles_rad(self) -> np.ndarray:
        """Angle of the source in each view: ``(n_views,)``."""
        return np.arange(self.n_views) * (2 * math.pi / self.n_views)

    @property
    def field_of_view_mm(self) -> float:
        """Diameter of the circle that is completely inside every view."""
        return 2 * self.source_to_isocentre_mm * math.sin(float(self.fan_angles_rad[-1]))


#: Close to a Siemens Somatom Definition Flash: 736 channels over a fan of 50 degrees see 502 mm.
FLASH = FanBeam(1152, 736, 1.2858, 595.0, 1085.6, "arc")
#: Geometry of the simulation of Zeng et al. (IEEE Trans Nucl Sci 62:2226, 2015), assumed to have a flat detector.
ZENG = FanBeam(1160, 672, 1.85, 1361.2 - 615.18, 1361.2, "flat")


class Pixels(NamedTuple):
    """The grid of a slice: pixels and their size along y and x."""

    shape: tuple[int, int]
    spacing_mm: tuple[float, float]

    def centres_mm(self, axis: int) -> np.ndarray:
        """Positions of the pixels along an axis, the isocentre at zero."""
        n = self.shape[axis]
        return (np.arange(n) - (n - 1) / 2) * self.spacing_mm[axis]


def _pixels(shape: tuple[int, ...], spacing_mm: Scalars, geometry: FanBeam) -> Pixels:
    if len(shape) != 2:
        raise ValueError(f"a slice has two axes (y, x); got shape {tuple(shape)}.")
    spacing = per_axis(spacing_mm, name="spacing_mm", n_axes=2)
    radius = math.hypot(shape[0] * spacing[0], shape[1] * spacing[1]) / 2
    if min(spacing) == 0 or radius >= geometry.source_to_isocentre_mm:
        raise ValueError(
            f"the image must have a pixel size and lie inside the orbit of the source, "
            f"{geometry.source_to_isocentre_mm:g} mm from its centre; got {shape[0]} x {shape[1]} pixels of "
            f"{spacing[0]:g} x {spacing[1]:g} mm. Usual cause: an image without spacing, or one in another unit."
        )
    return Pixels((shape[0], shape[1]), (spacing[0], spacing[1]))


class Rays(NamedTuple):
    """Where each ray crosses the lines on which it is sampled: ``(view, detector)`` each.

    A ray that is closer to the x direction is sampled on columns, with a position along y, and the other way round.
    """

    by_row: np.ndarray  # sampled on rows, not on columns
    start: np.ndarray  # position on line 0, in pixels
    slope: np.ndarray  # pixels from line to line
    length_mm: np.ndarray  # of the ray between two lines


@lru_cache(maxsize=2)  # 11 MB each; the slices of a scan share them
def _rays(geometry: FanBeam, pixels: Pixels) -> Rays:
    (n_y, n_x), (size_y, size_x) = pixels
    view = geometry.view_angles_rad[:, None]
    direction = view + geometry.fan_angles_rad
    per_mm_x, per_mm_y = -np.cos(direction) / size_x, -np.sin(direction) / size_y
    source_x = geometry.source_to_isocentre_mm * np.cos(view) / size_x + (n_x - 1) / 2
    source_y = geometry.source_to_isocentre_mm * np.sin(view) / size_y + (n_y - 1) / 2
    by_row = np.abs(per_mm_y) > np.abs(per_mm_x)
    along, across = np.where(by_row, per_mm_y, per_mm_x), np.where(by_row, per_mm_x, per_mm_y)
    slope = across / along
    start = np.where(by_row, source_x - source_y * slope, source_y - source_x * slope)
    return Rays(by_row, start.astype(np.float32), slope.astype(np.float32), (1 / np.abs(along)).astype(np.float32))


class BackProjection(NamedTuple):
    """How to read a filtered view: radius of the orbit, position of tan(gamma) = 0, positions per unit of it, scale."""

    radius_mm: float
    centre: float
    per_tangent: float
    scale: float
