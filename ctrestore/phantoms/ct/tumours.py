"""Tumours of the lung in the four classes of a classifier, and harmless structures that look like them.

The classes follow textbook descriptions of the types, which are tendencies, not rules: adenocarcinoma grows in the
periphery with spikes into the lung, large cell carcinoma makes a big lobed mass near the hilum, squamous cell
carcinoma a thick-walled cavity. Sizes, places and traits of the classes overlap, and everybody, ill or not, may have
hilar lymph nodes, granulomas and bullae.

Reference:
    Purandare and Rangarajan, Indian J Radiol Imaging 25(2):109, 2015 (how the types look in CT).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike

from ctrestore.errors import InputError
from ctrestore.phantoms.ct.shapes import Canvas, Segments, Waves, overlap, segment_distance
from ctrestore.phantoms.ct.thorax import Thorax, air_space, heart_outline, mediastinum
from ctrestore.phantoms.ct.torso import Person, Tissue

LungClass = Literal["adenocarcinoma", "large.cell.carcinoma", "normal", "squamous.cell.carcinoma"]
LUNG_CLASSES: tuple[LungClass, ...] = get_args(LungClass)  # sorted: the place of a class is its label


@dataclass(frozen=True)
class Traits:
    """The distributions of a class's tumours; ranges are uniform, lengths without a unit relative to the tumour.

    Attributes:
        diameter_mm: median, smallest and largest of a log-normal distribution.
        central: share of tumours that touch the mediastinum or the heart; of the others, the share ``peripheral``
            is below the pleura, and the rest anywhere.
        peripheral: share of tumours below the pleura.
        n_spikes: their number, most of them near the plane of the slice.
        spike: their length, relative to the radius.
        lobes: standard deviation of the radius.
        cavity: diameter of the hole, relative to the tumour's.
        with_cavity: share of tumours that have one.
        hazy: share of tumours that are ground glass with a solid core.
    """

    diameter_mm: tuple[float, float, float]
    central: float
    peripheral: float
    n_spikes: tuple[int, int]
    spike: tuple[float, float]
    lobes: tuple[float, float]
    cavity: tuple[float, float]
    with_cavity: float
    hazy: float = 0.0


TRAITS: dict[LungClass, Traits] = {
    "adenocarcinoma": Traits((28, 20, 42), 0.0, 0.85, (16, 28), (0.7, 1.4), (0.04, 0.09), (0.12, 0.22), 0.1, 0.25),
    "large.cell.carcinoma": Traits((46, 32, 64), 0.85, 0.0, (0, 3), (0.2, 0.4), (0.1, 0.18), (0, 0), 0.0),
    "squamous.cell.carcinoma": Traits((40, 28, 58), 0.4, 0.1, (0, 5), (0.2, 0.5), (0.05, 0.12), (0.4, 0.65), 1.0),
}
THINNEST_WALL_MM = 4.0  # a thinner wall looks like a bulla
NODE_HU, GRANULOMA_HU, SPIKE_HU = 45.0, 180.0, -30.0


@dataclass(frozen=True)
class Ball:
    """A rough ball: its radius varies with direction."""

    centre_mm: tuple[float, float, float]  # LPS
    diameter_mm: float
    rough: float
    waves: Waves

    def distance(self, x: np.ndarray, y: np.ndarray, z: ArrayLike) -> np.ndarray:
        """Distance to the ball, negative inside."""
        dx, dy, dz = x - self.centre_mm[0], y - self.centre_mm[1], np.asarray(z) - self.centre_mm[2]
        away = np.sqrt(dx * dx + dy * dy + dz * dz)
        return (away - self.diameter_mm / 2 * (1 + self.rough * self.waves(x, y, z))).astype(np.float32)


@dataclass(frozen=True)
class Tumour:
    """A tumour: its body, its spikes and its cavity; for a hazy one, the radius of its solid core."""

    kind: LungClass
    body: Ball
    hu: float
    heart_mm: float | None
    spikes: Segments
    cavity: Ball | None
    cavity_hu: float


@dataclass(frozen=True)
class Bystanders:
    """Harmless structures: lymph nodes at the hila, small calcified granulomas, bullae (holes with a thin wall)."""

    nodes: tuple[Ball, ...]
    granulomas: tuple[Ball, ...]
    bullae: tuple[Ball, ...]


def draw_tumour(
    rng: np.random.Generator, person: Person, thorax: Thorax, kind: LungClass, *, z_mm: float
) -> Tumour | None:
    """A tumour of a class in the slice at ``z_mm``, which cuts it near its middle; None for ``normal``."""
    if kind == "normal":
        return None
    traits = TRAITS[kind]
    median, smallest, largest = traits.diameter_mm
    diameter = float(np.clip(rng.lognormal(np.log(median), 0.25), smallest, largest))
    where = str(
        rng.choice(
            ("central", "peripheral", "anywhere"),
            p=(traits.central, traits.peripheral, 1 - traits.central - traits.peripheral),
        )
    )
    x, y, diameter = _place(rng, person, thorax, where, diameter, z_mm)
    centre = (x, y, z_mm + float(rng.uniform(-0.15, 0.15)) * diameter)
    body = _ball(rng, centre, diameter, float(rng.uniform(*traits.lobes)))
    spikes = _spikes(rng, body, n=int(rng.integers(*traits.n_spikes, endpoint=True)), lengths=traits.spike)
    cavity = None
    if rng.random() < traits.with_cavity:
        hole = min(float(rng.uniform(*traits.cavity)) * diameter, diameter - 2.6 * THINNEST_WALL_MM)
        room = max(0.5 * (diameter - hole) - 1.3 * THINNEST_WALL_MM, 0.0)  # lobes make the wall thinner in places
        angle, away = rng.uniform(0, 2 * np.pi), room * np.sqrt(rng.random())
        middle = (x + float(away * np.cos(angle)), y + float(away * np.sin(angle)), z_mm)
        cavity = _ball(rng, middle, hole, float(rng.uniform(0.05, 0.12)))
    hazy = rng.random() < traits.hazy
    hu = float(rng.uniform(-600, -350) if hazy else rng.uniform(15, 60))
    heart = 0.5 * float(rng.uniform(0.3, 0.6)) * diameter if hazy else None
    return Tumour(kind, body, hu, heart, spikes, cavity, float(rng.uniform(-900, -350)))


def draw_bystanders(rng: np.random.Generator, person: Person, thorax: Thorax, *, z_mm: float) -> Bystanders:
    """Harmless structures in the slice at ``z_mm``, in any person."""

    def some(n: int, where: str, diameters: tuple[float, float], rough: float) -> tuple[Ball, ...]:
        found = []
        for _ in range(n):
            x, y, diameter = _place(rng, person, thorax, where, float(rng.uniform(*diameters)), z_mm)
            found.append(_ball(rng, (x, y, z_mm + float(rng.uniform(-0.2, 0.2)) * diameter), diameter, rough))
        return tuple(found)

    return Bystanders(
        nodes=some(int(rng.integers(0, 3)), "central", (8, 16), 0.06),
        granulomas=some(int(rng.integers(0, 3)), "anywhere", (3, 7), 0.0),
        bullae=some(int(rng.choice(3, p=(0.65, 0.25, 0.1))), "anywhere", (8, 26), 0.08),
    )


def _place(
    rng: np.random.Generator, person: Person, thorax: Thorax, where: str, diameter_mm: float, z_mm: float
) -> tuple[float, float, float]:
    """x, y of a centre, and the diameter, made smaller if there is no room for it."""
    a, b = person.cage
    while diameter_mm > 2:
        x, y = rng.uniform((-a, -b), (a, b), (3000, 2)).astype(np.float32).T
        depth = -air_space(thorax, person, x, y, z_mm)
        below_wall = -person.cage_distance(x, y, z_mm)
        to_middle = np.minimum(
            mediastinum(person, thorax.heart_scale, x, y, z_mm),
            heart_outline(person, thorax.heart_scale, thorax.heart_turn_deg, x, y, z_mm),
        )
        # A central mass may reach into the mediastinum, which is painted over it; a peripheral one touches the pleura.
        fits = {
            "central": (depth > 0.3 * diameter_mm) & (to_middle < 0.5 * diameter_mm) & (below_wall > 0.6 * diameter_mm),
            "peripheral": (depth > 0.42 * diameter_mm) & (below_wall < 0.5 * diameter_mm + 18) & (to_middle > 25),
            "anywhere": depth > 0.5 * diameter_mm + 1,
        }[where]
        if where == "central":
            fits &= np.abs(y - 0.05 * b) < 0.5 * b  # hila are in the middle third, from front to back
        if fits.any():
            i = int(np.argmax(fits))  # the first of the drawn ones, which are in no order
            return float(x[i]), float(y[i]), diameter_mm
        diameter_mm *= 0.85
    raise InputError(f"No room in the lung at z = {z_mm:.0f} mm. Remedy: a level between the diaphragm and the apex.")


def _ball(rng: np.random.Generator, centre: tuple[float, float, float], diameter_mm: float, rough: float) -> Ball:
    waves = Waves(rng, wavelength_mm=(0.35 * diameter_mm, 1.1 * diameter_mm), n=24)
    return Ball(centre, diameter_mm, rough, waves)


def _spikes(rng: np.random.Generator, body: Ball, *, n: int, lengths: tuple[float, float]) -> Segments:
    """Tapering strands from inside the body outwards, most of them near the plane of the slice."""
    direction = rng.standard_normal((n, 3)) * (1, 1, 0.2)
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    radius, centre = body.diameter_mm / 2, np.asarray(body.centre_mm)
    reach = radius * (1 + rng.uniform(*lengths, n))[:, None]
    bend = rng.normal(0, 0.12 * radius, (n, 3)) * (1, 1, 0.2)
    base = rng.uniform(1.1, 2.0, n)
    return Segments(
        (centre + 0.7 * radius * direction).astype(np.float32),
        (centre + reach * direction + bend).astype(np.float32),
        base.astype(np.float32),
        (0.35 * base).astype(np.float32),
    )


def paint_bystanders(person: Person, thorax: Thorax, bystanders: Bystanders, canvas: Canvas) -> None:
    """Nodes, granulomas and bullae in the lungs; they keep the label of their surroundings."""
    x, y, z = canvas.x, canvas.y, canvas.z
    lung = air_space(thorax, person, x, y, z)
    grain = person.grain(x, y, z)
    for bulla in bystanders.bullae:
        away = bulla.distance(x, y, z)
        canvas.paint(overlap(away - 0.9, lung), -550.0)
        canvas.paint(overlap(away, lung + 0.9), -975.0)
    for balls, hu in ((bystanders.nodes, NODE_HU), (bystanders.granulomas, GRANULOMA_HU)):
        for ball in balls:
            canvas.paint(overlap(ball.distance(x, y, z), lung), hu + 6 * grain, soft_mm=0.3)


def paint_tumour(person: Person, thorax: Thorax, tumour: Tumour, canvas: Canvas) -> None:
    """A tumour in the lung, painted before the mediastinum, which may cover part of a central one."""
    x, y, z = canvas.x, canvas.y, canvas.z
    lung = air_space(thorax, person, x, y, z)
    grain = person.grain(x, y, z)
    spikes = overlap(segment_distance(x, y, z, tumour.spikes), lung - 0.5)
    canvas.paint(spikes, SPIKE_HU, Tissue.NODULE, soft_mm=0.3)
    body = overlap(tumour.body.distance(x, y, z), lung - 1.0)
    if tumour.heart_mm is None:
        canvas.paint(body, tumour.hu + 8 * grain, Tissue.NODULE, soft_mm=0.6)
    else:
        canvas.paint(body, tumour.hu + 30 * grain, Tissue.NODULE, soft_mm=1.5)
        heart = body + tumour.body.diameter_mm / 2 - tumour.heart_mm
        canvas.paint(heart, NODE_HU - 15 + 8 * grain, Tissue.NODULE, soft_mm=1.0)
    if tumour.cavity is not None:
        hole = overlap(tumour.cavity.distance(x, y, z), body + 0.5 * THINNEST_WALL_MM)
        canvas.paint(hole, tumour.cavity_hu + 20 * grain, Tissue.GAS, soft_mm=1.0)
