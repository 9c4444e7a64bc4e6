"""Shapes, smooth random fields and the canvas for one axial slice.

Coordinates are in mm and LPS: x to the patient's left, y to the back, z to the head. A slice has x as a row
``(1, nx)``, y as a column ``(ny, 1)`` and one z; the distance functions also accept points, three arrays of one shape.
Distances are negative inside a shape; those of ellipses are first-order estimates, exact at the edge, where they are
used.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike
from scipy.interpolate import make_interp_spline

TINY = 1e-6


def ellipse(
    x: np.ndarray,
    y: np.ndarray,
    *,
    centre: tuple[float, float],
    radii: tuple[ArrayLike, ArrayLike],
    angle_deg: float = 0.0,
    power: float = 2.0,
) -> np.ndarray:
    """Distance in mm to an ellipse; a power above 2 makes it squarer (Lamé's curve).

    The angle rotates x towards y: clockwise on a screen with rows towards the back.
    """
    dx, dy = x - np.float32(centre[0]), y - np.float32(centre[1])
    if angle_deg:
        cosine, sine = np.float32(np.cos(np.deg2rad(angle_deg))), np.float32(np.sin(np.deg2rad(angle_deg)))
        dx, dy = dx * cosine + dy * sine, dy * cosine - dx * sine
    rx, ry = np.maximum(np.asarray(radii, dtype=np.float32), TINY)
    u, v = np.abs(dx) / rx, np.abs(dy) / ry
    if power == 2.0:
        level = np.sqrt(u * u + v * v)
        slope = np.sqrt((u / rx) ** 2 + (v / ry) ** 2) / np.maximum(level, TINY)
    else:
        level = (u**power + v**power) ** (1 / power)
        over = np.maximum(level, TINY) ** (1 - power)
        slope = over * np.sqrt((u ** (power - 1) / rx) ** 2 + (v ** (power - 1) / ry) ** 2)
    return (level - 1) / np.maximum(slope, 1 / max(rx.max(), ry.max()))


def ellipsoid(
    x: np.ndarray,
    y: np.ndarray,
    z: ArrayLike,
    *,
    centre: tuple[float, float, float],
    radii: tuple[float, float, float],
    angle_deg: float = 0.0,
) -> np.ndarray:
    """Distance in mm to the section of an ellipsoid at the plane z; the angle rotates it in that plane."""
    height = 1 - ((np.asarray(z, dtype=np.float32) - centre[2]) / radii[2]) ** 2
    shrink = np.sqrt(np.maximum(height, 0.0))
    inside = ellipse(
        x, y, centre=centre[:2], radii=(radii[0] * shrink, radii[1] * shrink), angle_deg=angle_deg
    )  # fmt: skip
    return np.where(height > 0, inside, np.maximum(inside, 1.0) + 20.0).astype(np.float32)


def capsule(x: np.ndarray, y: np.ndarray, *, start: Sequence[float], end: Sequence[float], radius: float) -> np.ndarray:
    """Distance in mm to a stroke with round ends in the plane; exact."""
    along = np.subtract(end, start).astype(np.float32)
    dx, dy = x - np.float32(start[0]), y - np.float32(start[1])
    t = np.clip((dx * along[0] + dy * along[1]) / max(float(along @ along), TINY), 0, 1)
    return np.hypot(dx - t * along[0], dy - t * along[1]) - np.float32(radius)


def union(a: np.ndarray, b: np.ndarray, *, blend_mm: float = 0.0) -> np.ndarray:
    """Distance to the union of both shapes; edges that meet are rounded over ``blend_mm``."""
    if blend_mm <= 0:
        return np.minimum(a, b)
    near = np.clip(0.5 + 0.5 * (b - a) / np.float32(blend_mm), 0, 1)
    return b + (a - b) * near - np.float32(blend_mm) * near * (1 - near)


def overlap(*shapes: np.ndarray) -> np.ndarray:
    """Distance to the intersection of all shapes."""
    result = shapes[0]
    for shape in shapes[1:]:
        result = np.maximum(result, shape)
    return result


class Waves:
    """A smooth random field in space: plane waves of random direction, mean 0, standard deviation 1.

    It is the same field at any point of any slice, so neighbouring slices fit together.
    """

    def __init__(self, rng: np.random.Generator, *, wavelength_mm: tuple[float, float], n: int = 48) -> None:
        direction = rng.standard_normal((n, 3))
        direction /= np.linalg.norm(direction, axis=1, keepdims=True)
        length = np.exp(rng.uniform(np.log(wavelength_mm[0]), np.log(wavelength_mm[1]), n))
        self.k = (2 * np.pi * direction / length[:, None]).astype(np.float32)
        self.phase = rng.uniform(0, 2 * np.pi, n).astype(np.float32)
        self.amplitude = np.float32(np.sqrt(2 / n))

    def __call__(self, x: np.ndarray, y: np.ndarray, z: ArrayLike) -> np.ndarray:
        """The field on a slice, or at points."""
        if x.ndim == 2 and x.shape[0] == 1 and y.shape[1] == 1:
            # cos(a + b) = cos a cos b - sin a sin b turns the sum over waves into two matrix products.
            a = x[0, :, None] * self.k[:, 0]
            b = y[:, 0, None] * self.k[:, 1] + float(np.asarray(z)) * self.k[:, 2] + self.phase
            return self.amplitude * (np.cos(b) @ np.cos(a).T - np.sin(b) @ np.sin(a).T)
        points = np.stack(np.broadcast_arrays(x, y, np.asarray(z)), axis=-1)
        return (self.amplitude * np.cos(points @ self.k.T + self.phase).sum(axis=-1)).astype(np.float32)


@dataclass(frozen=True)
class Tube:
    """A bent pipe: a chain of points ``(n, 3)`` in mm with a radius at each."""

    points: np.ndarray
    radii: np.ndarray

    @classmethod
    def through(cls, points: ArrayLike, radii: ArrayLike, *, n: int = 24) -> Tube:
        """A smooth pipe through a few points."""
        knots = np.asarray(points, dtype=float)
        at = np.arange(len(knots))
        fine = np.linspace(0, len(knots) - 1, n)
        widths = np.broadcast_to(np.asarray(radii, dtype=float), len(knots))
        smooth = make_interp_spline(at, knots, k=min(3, len(knots) - 1))(fine)
        return cls(smooth.astype(np.float32), np.interp(fine, at, widths).astype(np.float32))

    @property
    def segments(self) -> Segments:
        """The pipe as a bundle of straight pieces."""
        return Segments(self.points[:-1], self.points[1:], self.radii[:-1], self.radii[1:])


@dataclass(frozen=True)
class Segments:
    """Straight round pieces: ends ``(n, 3)`` and radii ``(n,)`` at both ends, in mm."""

    start: np.ndarray
    end: np.ndarray
    start_radius: np.ndarray
    end_radius: np.ndarray

    def __len__(self) -> int:
        return len(self.start)


def segment_distance(
    x: np.ndarray, y: np.ndarray, z: float, segments: Segments, *, far_mm: float = 1e3, margin_mm: float = 2.0
) -> np.ndarray:
    """Distance ``(ny, nx)`` in mm to the nearest piece at the plane z; ``far_mm`` if all are beyond ``margin_mm``."""
    result = np.full((y.shape[0], x.shape[1]), np.float32(far_mm))
    thick = np.maximum(segments.start_radius, segments.end_radius)
    low = np.minimum(segments.start, segments.end) - (thick + margin_mm)[:, None]
    high = np.maximum(segments.start, segments.end) + (thick + margin_mm)[:, None]
    px = float(x[0, 1] - x[0, 0])
    x0, y0 = float(x[0, 0]), float(y[0, 0])
    for i in np.flatnonzero((low[:, 2] <= z) & (high[:, 2] >= z)):
        columns = slice(max(int((low[i, 0] - x0) / px), 0), max(int((high[i, 0] - x0) / px) + 2, 0))
        rows = slice(max(int((low[i, 1] - y0) / px), 0), max(int((high[i, 1] - y0) / px) + 2, 0))
        part = result[rows, columns]
        if not part.size:
            continue
        start, along = segments.start[i], segments.end[i] - segments.start[i]
        dx, dy, dz = x[:, columns] - start[0], y[rows] - start[1], np.float32(z - start[2])
        t = np.clip((dx * along[0] + dy * along[1] + dz * along[2]) / max(float(along @ along), TINY), 0, 1)
        radius = segments.start_radius[i] + t * (segments.end_radius[i] - segments.start_radius[i])
        away = np.sqrt((dx - t * along[0]) ** 2 + (dy - t * along[1]) ** 2 + (dz - t * along[2]) ** 2) - radius
        np.minimum(part, away, out=part)
    return result


@dataclass
class Canvas:
    """One slice under construction: HU and labels ``(y, x)``; later paint covers earlier paint."""

    x: np.ndarray
    y: np.ndarray
    z: float
    hu: np.ndarray = field(init=False)
    labels: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.hu = np.full((self.y.shape[0], self.x.shape[1]), np.float32(-1000))
        self.labels = np.zeros(self.hu.shape, dtype=np.uint8)

    @property
    def pixel_mm(self) -> float:
        """Width of a pixel."""
        return float(self.x[0, 1] - self.x[0, 0])

    def paint(
        self, distance: np.ndarray, hu: float | np.ndarray, label: int | None = None, *, soft_mm: float = 0.0
    ) -> None:
        """Cover the inside of a shape; a pixel at the edge is covered in part, ``soft_mm`` widens the edge."""
        edge = np.float32(self.pixel_mm + soft_mm)
        cover = np.clip(0.5 - distance / edge, 0, 1)
        self.hu += (np.asarray(hu, dtype=np.float32) - self.hu) * cover
        if label is not None:
            self.labels[cover > 0.5] = label
