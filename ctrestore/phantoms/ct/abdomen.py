"""Inside the belly: liver with lesions, gallbladder, spleen, stomach, kidneys, pancreas, vessels, bowel."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from ctrestore.errors import InputError
from ctrestore.phantoms.ct.shapes import (  # fmt: skip
    Canvas,
    Segments,
    Tube,
    ellipse,
    ellipsoid,
    overlap,
    segment_distance,
    union,
)
from ctrestore.phantoms.ct.thorax import Thorax, dome_height
from ctrestore.phantoms.ct.torso import Person, Tissue, branching, ramp


@dataclass(frozen=True)
class Lesion:
    """A ball in the liver, of low contrast."""

    centre_mm: tuple[float, float, float]  # LPS
    diameter_mm: float
    contrast_hu: float  # relative to the liver around it

    def distance(self, x: np.ndarray, y: np.ndarray, z: ArrayLike) -> np.ndarray:
        """Distance to the ball."""
        dx, dy, dz = x - self.centre_mm[0], y - self.centre_mm[1], np.asarray(z) - self.centre_mm[2]
        return (np.sqrt(dx * dx + dy * dy + dz * dz) - self.diameter_mm / 2).astype(np.float32)


@dataclass(frozen=True)
class Loop:
    """A piece of bowel and its content."""

    tube: Tube
    wall_mm: float
    content: str  # "fluid", "stool", "gas"


@dataclass(frozen=True)
class Abdomen:
    """The abdomen of one person."""

    liver_scale: float
    liver_end: float  # z of the lower edge at the right side
    fatty: float  # HU by which fat lowers the liver
    spleen_scale: float
    kidneys: tuple[tuple[float, float, float], tuple[float, float, float]]
    kidney_scale: float
    stomach_scale: float
    stomach_level: float  # y of the fluid's surface: gas is in front of it
    liver_vessels: Segments
    portal: tuple[Tube, ...]
    renal: tuple[tuple[Tube, str], ...]
    pancreas: Tube
    loops: tuple[Loop, ...]
    mesentery: Segments
    lesions: tuple[Lesion, ...]


def liver_outline(
    person: Person, domes: tuple, scale: float, end: float, x: np.ndarray, y: np.ndarray, z: ArrayLike
) -> np.ndarray:
    """Distance to the liver: the right half under the dome, and a left lobe in front of the stomach."""
    a, b = person.half_axes(z)
    z = np.asarray(z, dtype=np.float32)
    down = ramp(-z, 40, -end)  # 0 at the dome, 1 at the lower edge
    big = _level(
        x,
        y,
        -0.46 * a - 0.10 * a * down,
        0.02 * b + 0.02 * b * down,
        0.58 * a * (1 - 0.52 * down),
        b * (1 - 0.45 * down),
    )
    left_size = scale * (1 - ramp(-z, 55, 100))
    left = _level(x, y, -0.06 * a, -0.48 * b, 0.62 * a * left_size, 0.36 * b * (0.6 + 0.4 * left_size))
    left = np.where(left_size > 0.05, left, 40.0)
    shape = union(big, left, blend_mm=22)
    # The hollow underside: gallbladder, duodenum and kidney press into it.
    hollow = _level(x, y, 0.02 * a, 0.42 * b, 0.50 * a, 0.62 * b)
    shape = np.maximum(shape, -hollow - 2 - 60 * (1 - ramp(-z, 22, 62)))
    under = (z - dome_height(person, domes, x, y) + 2.0) * 0.7
    return overlap(shape, person.cage_distance(x, y, z) + 4.5, under, np.float32(end) - z).astype(np.float32)


def _level(x: np.ndarray, y: np.ndarray, cx: ArrayLike, cy: ArrayLike, rx: ArrayLike, ry: ArrayLike) -> np.ndarray:
    """Approximate distance to an ellipse with a size that may vary from point to point."""
    rx, ry = np.maximum(rx, 1.0), np.maximum(ry, 1.0)
    u, v = (x - cx) / rx, (y - cy) / ry
    return (np.sqrt(u * u + v * v) - 1) * np.minimum(rx, ry)


def draw_abdomen(rng: np.random.Generator, person: Person, thorax: Thorax) -> Abdomen:
    """The abdomen without lesions."""
    a, b = person.cage
    scale, end = rng.uniform(0.65, 1.05), rng.uniform(-160, -115)
    kidneys = (
        (-0.40 * a, 0.42 * b + rng.uniform(-3, 5), rng.uniform(-125, -105)),
        (0.40 * a, 0.42 * b + rng.uniform(-3, 5), rng.uniform(-108, -88)),
    )
    fatty = float(rng.uniform(0, 35)) if rng.random() < 0.3 else 0.0
    back = {z: person.spine_y(z) for z in (-60, -85, -110, -140, -200)}
    portal = (
        Tube.through(
            [(-4, 0.02 * b, -96), (-14, -0.04 * b, -82), (-34, -0.06 * b, -62), (-50, -0.05 * b, -52)], [6, 6.5, 6.5, 5]
        ),
        Tube.through([(-3, 0.0, -220), (-4, -0.02 * b, -150), (-4, 0.02 * b, -98)], [4, 5, 6]),
        Tube.through(
            [(-4, 0.02 * b, -96), (18, 0.06 * b, -86), (50, 0.16 * b, -74), (0.62 * a, 0.30 * b, -66)], [5.5, 5, 4.5, 4]
        ),
    )
    ivc_x = -17 + person.spine_x(-100)
    renal = (
        (
            Tube.through(
                [
                    (-30, -0.02 * b, 8),
                    (-24, 0.10 * b, -20),
                    (ivc_x, back[-85] - 25, -85),
                    (ivc_x, back[-110] - 24, -110),
                    (ivc_x - 1, back[-200] - 23, -220),
                ],
                [11, 11, 10.5, 10, 9.5],
                n=50,
            ),
            "vein",
        ),
        (
            Tube.through(
                [
                    (ivc_x, back[-110] - 24, kidneys[0][2] + 4),
                    (-32, back[-110] - 18, kidneys[0][2] + 2),
                    (kidneys[0][0] + 12, kidneys[0][1] - 6, kidneys[0][2]),
                ],
                [5, 4.5, 4],
            ),
            "vein",
        ),
        (
            Tube.through(
                [
                    (ivc_x + 6, back[-85] - 29, kidneys[1][2] + 4),
                    (8, back[-85] - 40, kidneys[1][2] + 4),
                    (28, back[-85] - 26, kidneys[1][2] + 2),
                    (kidneys[1][0] - 12, kidneys[1][1] - 6, kidneys[1][2]),
                ],
                [5, 4, 4.5, 4],
            ),
            "vein",
        ),
        (
            Tube.through(
                [
                    (4, back[-110] - 29, kidneys[0][2] + 7),
                    (-22, back[-110] - 12, kidneys[0][2] + 4),
                    (kidneys[0][0] + 14, kidneys[0][1] - 4, kidneys[0][2] + 3),
                ],
                [3, 2.8, 2.5],
            ),
            "aorta",
        ),
        (
            Tube.through(
                [
                    (5, back[-85] - 28, kidneys[1][2] + 7),
                    (24, back[-85] - 18, kidneys[1][2] + 4),
                    (kidneys[1][0] - 14, kidneys[1][1] - 4, kidneys[1][2] + 3),
                ],
                [3, 2.8, 2.5],
            ),
            "aorta",
        ),
        (
            Tube.through(
                [
                    (5, back[-85] - 36, -78),
                    (6, back[-110] - 44, -100),
                    (6, back[-140] - 42, -150),
                    (4, back[-140] - 44, -220),
                ],
                [3.6, 3.4, 3.2, 3],
            ),
            "aorta",
        ),
        (
            Tube.through(
                [
                    (5, back[-60] - 36, -66),
                    (6, back[-60] - 46, -68),
                    (-8, back[-60] - 48, -70),
                    (-24, back[-60] - 50, -66),
                ],
                [3.6, 3.2, 2.8, 2.4],
            ),
            "aorta",
        ),
    )
    pancreas = Tube.through(
        [(-26, 0.0, -122), (-22, -0.08 * b, -104), (4, -0.10 * b, -90), (32, 0.04 * b, -80), (0.50 * a, 0.20 * b, -70)],
        np.array([12, 13, 9, 9.5, 8]) * rng.uniform(0.75, 1.1),
        n=36,
    )
    liver = _inside(
        rng, 260, person, lambda x, y, z: liver_outline(person, thorax.domes, scale, end, x, y, z), z=(-150, 5)
    )
    vessels = branching(rng, root=portal[0].points[-2:], targets=liver[:150], leaf_mm=0.62, step_mm=12)
    hepatic = branching(rng, root=((-26, 0.06 * b, -8), (-32, 0.0, -16)), targets=liver[150:], leaf_mm=0.75, step_mm=12)
    joined = Segments(
        *(
            np.concatenate([getattr(vessels, n), getattr(hepatic, n)])
            for n in ("start", "end", "start_radius", "end_radius")
        )
    )
    room = _inside(
        rng, 140, person, lambda x, y, z: np.maximum(person.cage_distance(x, y, z) + 14, y - 0.12 * b), z=(-230, -85)
    )
    mesentery = branching(rng, root=((-2, 0.02 * b, -108), (0, -0.1 * b, -125)), targets=room, leaf_mm=0.8, step_mm=14)
    return Abdomen(
        liver_scale=scale,
        liver_end=end,
        fatty=fatty,
        spleen_scale=rng.uniform(0.85, 1.2),
        kidneys=kidneys,
        kidney_scale=rng.uniform(0.9, 1.1),
        stomach_scale=rng.uniform(0.75, 1.15),
        stomach_level=rng.uniform(-0.62, -0.3) * b,
        liver_vessels=joined,
        portal=portal,
        renal=renal,
        pancreas=pancreas,
        loops=_bowel(rng, person),
        mesentery=mesentery,
        lesions=(),
    )


def _inside(rng: np.random.Generator, n: int, person: Person, distance, *, z: tuple[float, float]) -> np.ndarray:
    """Points ``(n, 3)`` at least 5 mm inside a shape."""
    a, b = person.cage
    found: list[np.ndarray] = []
    while sum(map(len, found)) < n:
        points = rng.uniform((-a, -b, z[0]), (a, b, z[1]), (4 * n, 3)).astype(np.float32)
        found.append(points[distance(*points.T) < -5])
    return np.concatenate(found)[:n]


def _bowel(rng: np.random.Generator, person: Person) -> tuple[Loop, ...]:
    """Colon around the belly, small bowel coiled in the middle."""
    a, b = person.cage
    r = rng.uniform(15, 21)
    contents = rng.choice(["stool", "stool", "gas", "fluid"], 8)
    colon = (
        [
            (-0.70 * a, 0.10 * b, -235),
            (-0.72 * a, 0.08 * b, -190),
            (-0.70 * a, 0.02 * b, -150),
            (-0.62 * a, -0.22 * b, -128),
        ],
        [
            (-0.60 * a, -0.25 * b, -128),
            (-0.42 * a, -0.58 * b, -136),
            (0.0, -0.70 * b, -150),
            (0.36 * a, -0.62 * b, -128),
        ],
        [
            (0.36 * a, -0.62 * b, -128),
            (0.56 * a, -0.44 * b, -104),
            (0.74 * a, -0.08 * b, -70),
            (0.76 * a, 0.14 * b, -84),
        ],
        [(0.77 * a, 0.16 * b, -86), (0.77 * a, 0.22 * b, -130), (0.74 * a, 0.18 * b, -180), (0.70 * a, 0.10 * b, -235)],
    )
    sizes = (1.15, 1.0, 0.85, 0.7)
    loops = [
        Loop(Tube.through(path, r * size, n=30), 2.2, str(content))
        for path, size, content in zip(colon, sizes, contents)
    ]
    for _ in range(rng.integers(20, 28)):
        centre = rng.uniform((-0.5 * a, -0.55 * b, -225), (0.58 * a, 0.0, -112))
        steps = rng.normal(0, 1, (6, 3)) * (24, 17, 22)
        path = np.clip(
            centre + np.cumsum(steps, axis=0) * 0.8, (-0.62 * a, -0.66 * b, -240), (0.64 * a, 0.08 * b, -105)
        )
        content = str(rng.choice(["fluid", "fluid", "fluid", "gas"]))
        loops.append(Loop(Tube.through(path, rng.uniform(8.5, 12), n=40), 2.4, content))
    jejunum = [
        (0.30 * a, 0.02 * b, -96),
        (0.42 * a, -0.14 * b, -104),
        (0.52 * a, -0.2 * b, -118),
        (0.46 * a, 0.0, -130),
    ]
    loops.append(Loop(Tube.through(jejunum, 11, n=30), 2.6, "fluid"))
    duodenum = [
        (-0.16 * a, -0.2 * b, -92),
        (-0.28 * a, -0.04 * b, -100),
        (-0.28 * a, 0.06 * b, -128),
        (0.0, 0.08 * b, -140),
        (0.2 * a, 0.04 * b, -124),
    ]
    loops.append(Loop(Tube.through(duodenum, 10.5, n=36), 2.6, "fluid"))
    return tuple(loops)


def draw_lesions(
    rng: np.random.Generator, person: Person, thorax: Thorax, abdomen: Abdomen, *, n: int, z_range: tuple[float, float]
) -> tuple[Lesion, ...]:
    """Low-contrast balls of 5 to 30 mm in the liver, without overlap.

    Raises:
        InputError: the liver in that range has no room for so many.
    """
    a, b = person.cage
    found: list[Lesion] = []
    for _ in range(n):
        diameter = float(np.clip(rng.lognormal(np.log(12), 0.5), 5, 30))
        for _ in range(600):
            centre = rng.uniform((-a, -b, z_range[0]), (a, b, z_range[1]))
            x, y, z = (np.array([value], dtype=np.float32) for value in centre)
            apart = all(
                np.linalg.norm(centre - other.centre_mm) > (diameter + other.diameter_mm) / 2 + 3 for other in found
            )
            inside = liver_outline(person, thorax.domes, abdomen.liver_scale, abdomen.liver_end, x, y, z)[0]
            if apart and inside < -(0.5 * diameter + 3):
                break
        else:
            raise InputError(
                f"No room for {n} lesions between z = {z_range[0]:.0f} and {z_range[1]:.0f} mm of this liver. "
                "Remedy: ask for fewer."
            )
        contrast = float(rng.uniform(-60, -10) if rng.random() < 0.8 else rng.uniform(10, 40))
        found.append(Lesion((float(centre[0]), float(centre[1]), float(centre[2])), diameter, contrast))
    return tuple(found)


def paint_abdomen(person: Person, thorax: Thorax, abdomen: Abdomen, canvas: Canvas) -> None:
    """All organs below the diaphragm in this slice."""
    x, y, z = canvas.x, canvas.y, canvas.z
    if z > 12:
        return
    grain = person.grain(x, y, z)
    strands = person.strands(x, y, z)
    a, b = person.half_axes(z)
    wall = person.cage_distance(x, y, z)
    under = (z - dome_height(person, thorax.domes, x, y) + 1.0) * 0.7
    room = overlap(wall + 3, under)
    if room.min() > 0:
        return
    canvas.paint(room - 0.6, person.hu("muscle") - 15, Tissue.MUSCLE)  # the diaphragm
    fat = -104 + 6 * grain + 26 * np.clip(1 - np.abs(strands) * 9, 0, 1)
    canvas.paint(room + 1.5, fat, Tissue.FAT)
    _paint_back_muscles(person, canvas, grain)
    _paint_bowel(person, abdomen, canvas, room + 2.5, grain, strands)
    _paint_vessel_tree(canvas, abdomen.mesentery, person.hu("portal"), wall + 12)
    _paint_pancreas(person, abdomen, canvas, grain)
    _paint_spleen(person, abdomen, canvas, room, grain)
    _paint_stomach(person, abdomen, canvas, room, grain, strands)
    _paint_liver(person, thorax, abdomen, canvas, grain)
    _paint_kidneys(person, abdomen, canvas, room, grain)
    for tube in abdomen.portal:
        shape = segment_distance(x, y, z, tube.segments)
        canvas.paint(shape, person.hu("portal") + 3 * grain, Tissue.BLOOD)
    for tube, carries in abdomen.renal:
        shape = overlap(segment_distance(x, y, z, tube.segments), room)
        canvas.paint(shape, person.hu(carries) + 3 * grain, Tissue.BLOOD)


def _paint_back_muscles(person: Person, canvas: Canvas, grain: np.ndarray) -> None:
    """Psoas, quadratus lumborum and the crura of the diaphragm."""
    x, y, z = canvas.x, canvas.y, canvas.z
    middle, at = person.spine_y(z), person.spine_x(z)
    hu = person.hu("muscle") + 4 * grain
    for side in (-1, 1):
        if z < -82:
            grow = (0.25 + 0.75 * float(ramp(-z, 70, 165))) * person.muscle
            psoas = ellipse(
                x, y, centre=(at + side * (27 + 9 * grow), middle + 6 - 3 * grow), radii=(6 + 15 * grow, 8 + 14 * grow)
            )
            canvas.paint(psoas, hu, Tissue.MUSCLE)
            square = ellipse(
                x,
                y,
                centre=(at + side * 58, middle + 24),
                radii=(15 * float(ramp(-z, 85, 130)) + 2, 6.5),
                angle_deg=side * 28,
            )
            canvas.paint(square, hu, Tissue.MUSCLE)
        if -115 < z < 5:
            leg = ellipse(x, y, centre=(at + side * 14, middle - 20), radii=(4.0, 12.0), angle_deg=-side * 22)
            canvas.paint(leg, hu - 6, Tissue.MUSCLE)


def _paint_liver(person: Person, thorax: Thorax, abdomen: Abdomen, canvas: Canvas, grain: np.ndarray) -> None:
    x, y, z = canvas.x, canvas.y, canvas.z
    bend = 3.0 * person.shape_waves[0](x, y, z)
    liver = liver_outline(person, thorax.domes, abdomen.liver_scale, abdomen.liver_end, x, y, z)
    liver = np.where(liver > -8, liver + bend, liver)
    liver = overlap(liver, person.cage_distance(x, y, z) + 4)
    hu = person.hu("liver") - abdomen.fatty
    canvas.paint(liver, hu + 3.5 * grain + 2.5 * person.shape_waves[1](x, y, z), Tissue.LIVER)
    if liver.min() < 0:
        vessels = overlap(segment_distance(x, y, z, abdomen.liver_vessels), liver + 2)
        canvas.paint(vessels, max(person.hu("liver_vessel"), 38.0) + 2 * grain, soft_mm=0.5)
        for lesion in abdomen.lesions:
            if abs(z - lesion.centre_mm[2]) < lesion.diameter_mm:
                ball = lesion.distance(x, y, z)
                canvas.paint(ball, hu + lesion.contrast_hu + 3 * grain, Tissue.LIVER_LESION, soft_mm=0.8)
    bladder = ellipsoid(
        x, y, z, centre=(-0.36 * person.cage[0], -0.36 * person.cage[1], -98), radii=(14, 20, 30), angle_deg=25
    )
    canvas.paint(bladder - 1.6, 45.0)
    canvas.paint(bladder, 9 + 2 * grain, Tissue.GALLBLADDER)


def _paint_spleen(person: Person, abdomen: Abdomen, canvas: Canvas, room: np.ndarray, grain: np.ndarray) -> None:
    x, y, z = canvas.x, canvas.y, canvas.z
    a, b = person.cage
    s = abdomen.spleen_scale
    whole = ellipsoid(
        x, y, z, centre=(0.72 * a, 0.34 * b, -58), radii=(0.28 * a * s, 0.50 * b * s, 46 * s), angle_deg=-18
    )
    hilum = ellipsoid(x, y, z, centre=(0.38 * a, 0.20 * b, -58), radii=(0.26 * a, 0.34 * b, 60), angle_deg=-18)
    spleen = overlap(whole + 1.5 * person.shape_waves[1](x, y, z), -hilum, room + 3)
    mottle = 18 * person.strands(x, y, z) if person.phase == "arterial" else 0.0
    canvas.paint(spleen, person.hu("spleen") + 3 * grain + mottle, Tissue.SPLEEN)


def _paint_stomach(
    person: Person, abdomen: Abdomen, canvas: Canvas, room: np.ndarray, grain: np.ndarray, strands: np.ndarray
) -> None:
    x, y, z = canvas.x, canvas.y, canvas.z
    a, b = person.cage
    s = abdomen.stomach_scale
    top = ellipsoid(x, y, z, centre=(0.46 * a, -0.10 * b, -44), radii=(0.32 * a * s, 0.42 * b * s, 40), angle_deg=-20)
    exit_ = ellipsoid(x, y, z, centre=(0.22 * a, -0.36 * b, -84), radii=(0.36 * a * s, 0.22 * b * s, 34), angle_deg=12)
    bend = 3 * person.shape_waves[0](x, y, z) + 0.5 * strands
    stomach = overlap(union(top, exit_, blend_mm=15) + bend, room + 4)
    _paint_hollow(
        person, canvas, stomach, wall_mm=4.5, content="food", level=abdomen.stomach_level, grain=grain, strands=strands
    )


def _paint_hollow(
    person: Person, canvas: Canvas, outside: np.ndarray, *, wall_mm: float, content: str, level: float,
    grain: np.ndarray, strands: np.ndarray,
) -> None:  # fmt: skip
    """A hollow organ: wall, content, and gas that floats in front of the level."""
    fine = person.fine_grain(canvas.x, canvas.y, canvas.z)
    canvas.paint(outside, person.hu("bowel_wall") + 6 * grain, Tissue.BOWEL)
    lumen = outside + wall_mm
    if content == "stool":
        pores = np.clip(1.4 * (grain + 0.5 * fine - 1.0), 0, 1)  # bubbles
        crumbs = 42 + 14 * grain - 25 * np.clip(strands, 0, 1) - 480 * pores
        canvas.paint(lumen, crumbs, Tissue.BOWEL)
        return
    canvas.paint(lumen, 12 + 5 * grain + (26 * np.clip(strands, -0.3, 1) if content == "food" else 0), Tissue.BOWEL)
    canvas.paint(overlap(lumen, canvas.y - np.float32(level)), -965.0, Tissue.GAS)


def _paint_kidneys(person: Person, abdomen: Abdomen, canvas: Canvas, room: np.ndarray, grain: np.ndarray) -> None:
    x, y, z = canvas.x, canvas.y, canvas.z
    s = abdomen.kidney_scale
    for (cx, cy, cz), side in zip(abdomen.kidneys, (-1, 1)):
        if abs(z - cz) > 85 * s:
            continue
        turn = side * 32.0
        around = overlap(
            ellipsoid(
                x,
                y,
                z,
                centre=(cx, cy, cz),
                radii=(34 * s + 0.3 * person.fat_mm, 36 * s + 0.3 * person.fat_mm, 76),
                angle_deg=turn,
            ),
            room + 4,
        )
        canvas.paint(around, -106 + 5 * grain, Tissue.FAT)
        waves = 1.3 * person.shape_waves[1](x, y, z)
        kidney = ellipsoid(x, y, z, centre=(cx, cy, cz), radii=(27 * s, 31 * s, 55 * s), angle_deg=turn) + waves
        turned = np.deg2rad(turn)
        door = (cx - side * 22 * s * np.cos(turned), cy - 22 * s * abs(np.sin(turned)), cz)
        sinus = ellipsoid(x, y, z, centre=door, radii=(20 * s, 11 * s, 30 * s), angle_deg=turn)
        tissue = overlap(kidney, -sinus, room + 3)
        canvas.paint(tissue, person.hu("cortex") + 3 * grain, Tissue.KIDNEY)
        around = np.arctan2(y - cy, x - cx)
        # Pyramids: lobes of medulla inside of 7 mm of cortex.
        pyramids = overlap(tissue + 6.5, (0.0 - np.cos(6 * around + 1.6 * waves + z / 9)) * 4)
        canvas.paint(pyramids, person.hu("medulla") + 3 * grain, Tissue.KIDNEY, soft_mm=1.5)
        inner = overlap(sinus + 1, kidney + 1)
        canvas.paint(inner, -80 + 8 * grain, Tissue.FAT)
        calyces = overlap(inner + 2, (person.strands(x, y, z) * -6 + 1.5))
        canvas.paint(calyces, 10.0 if person.phase != "portal venous" else 40.0, soft_mm=1.0)


def _paint_pancreas(person: Person, abdomen: Abdomen, canvas: Canvas, grain: np.ndarray) -> None:
    x, y, z = canvas.x, canvas.y, canvas.z
    shape = segment_distance(x, y, z, abdomen.pancreas.segments, margin_mm=8)
    shape = shape + 2.0 * person.strands(x, y, z) + 1.0 * grain  # lobules with fat between
    canvas.paint(shape, person.hu("pancreas") + 6 * grain - 14 * person.age, Tissue.PANCREAS, soft_mm=0.8)


def _paint_bowel(
    person: Person, abdomen: Abdomen, canvas: Canvas, room: np.ndarray, grain: np.ndarray, strands: np.ndarray
) -> None:
    x, y, z = canvas.x, canvas.y, canvas.z
    pouches = 1.8 * person.shape_waves[0](x, y, z) + 1.6 * person.shape_waves[1](x, y, z) + 0.5 * strands
    for loop in abdomen.loops:
        shape = segment_distance(x, y, z, loop.tube.segments, margin_mm=6)
        if shape.min() > 0:
            continue
        shape = overlap(shape + pouches, room)
        here = shape < 0
        if not here.any():
            continue
        heights = np.broadcast_to(y, shape.shape)[here]
        # Gas in front, fluid behind; a gas-filled loop is almost empty of fluid.
        front, behind = float(heights.min()), float(heights.max())
        level = front + (behind - front) * {"gas": 0.85, "fluid": -1.0, "stool": -1.0}[loop.content]
        _paint_hollow(
            person, canvas, shape, wall_mm=loop.wall_mm, content=loop.content, level=level, grain=grain, strands=strands
        )


def _paint_vessel_tree(canvas: Canvas, tree: Segments, hu: float, room: np.ndarray) -> None:
    canvas.paint(overlap(segment_distance(canvas.x, canvas.y, canvas.z, tree), room), hu, Tissue.BLOOD)
