"""Inside the chest: lungs with vessels, airways and fissures, heart, great vessels, nodules."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from ctrestore.errors import InputError
from ctrestore.phantoms.ct.shapes import (  # fmt: skip
    Canvas,
    Segments,
    Tube,
    Waves,
    ellipse,
    ellipsoid,
    overlap,
    segment_distance,
    union,
)
from ctrestore.phantoms.ct.torso import Person, Tissue, branching, ramp

NoduleKind = Literal["solid", "part-solid", "ground-glass"]
NODULE_HU: dict[NoduleKind, float] = {"solid": 35.0, "part-solid": -560.0, "ground-glass": -620.0}


@dataclass(frozen=True)
class Nodule:
    """A lung nodule: place, size and kind; ``rough`` is the relative depth of its lobes and spikes."""

    centre_mm: tuple[float, float, float]  # LPS
    diameter_mm: float
    kind: NoduleKind
    rough: float
    waves: Waves

    def distance(self, x: np.ndarray, y: np.ndarray, z: ArrayLike) -> np.ndarray:
        """Distance to the nodule: a ball with lobes, or an exact ball if ``rough`` is 0."""
        dx, dy, dz = x - self.centre_mm[0], y - self.centre_mm[1], np.asarray(z) - self.centre_mm[2]
        away = np.sqrt(dx * dx + dy * dy + dz * dz)
        radius: float | np.ndarray = self.diameter_mm / 2
        if self.rough:
            radius = radius * (1 + self.rough * self.waves(x, y, z))
        return (away - radius).astype(np.float32)


@dataclass(frozen=True)
class Thorax:
    """The chest of one person."""

    domes: tuple[tuple[float, float, float], tuple[float, float, float]]  # x, y, z of the diaphragm's right, left top
    heart_scale: float
    heart_turn_deg: float
    lung_hu: float
    arteries: Segments
    veins: Segments
    airways: tuple[Tube, ...]
    great: tuple[tuple[Tube, str], ...]  # tubes of blood, and the name of each vessel
    nodules: tuple[Nodule, ...]


def dome_height(
    person: Person, domes: tuple[tuple[float, float, float], ...], x: np.ndarray, y: np.ndarray
) -> np.ndarray:
    """Z of the diaphragm above a point."""
    a, b = person.cage
    saddle = (0.02 * a, -0.28 * b, min(top for *_, top in domes) - 7)  # the heart rests on it
    result = np.float32(-1e3)
    for (cx, cy, top), wide, long in zip((*domes, saddle), (0.53, 0.51, 0.60), (0.98, 0.96, 0.80)):
        r2 = ((x - cx) / (wide * a)) ** 2 + ((y - cy) / (long * b)) ** 2
        result = -union(-(top - 62 * r2**1.25), -result, blend_mm=14) if np.ndim(result) else top - 62 * r2**1.25
    return np.asarray(result, dtype=np.float32)


def lobes(person: Person, x: np.ndarray, y: np.ndarray, z: ArrayLike) -> np.ndarray:
    """Distance to the two pleural cavities, which extend back on both sides of the spine."""
    a, b = person.half_axes(z)
    both = []
    for side in (-1, 1):
        u, v = (x - side * 0.455 * a) / (0.505 * a), (y - 0.01 * b) / (0.95 * b)
        power = np.where(u * side < 0, 3.3, 2.3).astype(np.float32)  # squarer towards the other lung
        level = (np.abs(u) ** power + np.abs(v) ** power) ** (1 / power)
        both.append((level - 1) * np.minimum(0.505 * a, 0.95 * b))
    return np.maximum(np.minimum(*both), person.cage_distance(x, y, z) + 1.5).astype(np.float32)


def mediastinum(person: Person, thorax_scale: float, x: np.ndarray, y: np.ndarray, z: ArrayLike) -> np.ndarray:
    """Distance to the space between the lungs, without the heart."""
    _, b = person.half_axes(z)
    z = np.asarray(z)
    half = np.interp(z, (-40, 0, 55, 88, 118, 150, 200), (19, 19, 25, 33, 30, 27, 29)) * (0.85 + 0.15 * thorax_scale)
    u, v = x / half, (y - 8) / (0.56 * b)
    core = (np.sqrt(u * u + v * v) - 1) * np.minimum(half, 0.56 * b)
    u, v = x / np.interp(np.asarray(z), (0, 60, 110, 170), (10, 5, 9, 22)), (y + 0.55 * b) / (0.5 * b)
    front = (np.sqrt(u * u + v * v) - 1) * 8.0
    return union(core, front, blend_mm=16)


def heart_outline(
    person: Person, scale: float, turn_deg: float, x: np.ndarray, y: np.ndarray, z: ArrayLike
) -> np.ndarray:
    """Distance to the sac around the heart."""
    body = ellipsoid(
        x, y, z, centre=(22, -0.24 * person.cage[1], 32), radii=(68 * scale, 50 * scale, 54), angle_deg=turn_deg
    )
    right = ellipsoid(x, y, z, centre=(-14, -0.16 * person.cage[1], 50), radii=(34 * scale, 40 * scale, 50))
    return union(body, right, blend_mm=14)


def air_space(thorax: Thorax, person: Person, x: np.ndarray, y: np.ndarray, z: ArrayLike) -> np.ndarray:
    """Distance to the lungs, including vessels."""
    above = (dome_height(person, thorax.domes, x, y) - z) * 0.7
    inside = overlap(lobes(person, x, y, z), above)
    inside = overlap(inside, -mediastinum(person, thorax.heart_scale, x, y, z))
    return overlap(inside, -heart_outline(person, thorax.heart_scale, thorax.heart_turn_deg, x, y, z))


def draw_thorax(rng: np.random.Generator, person: Person, *, n_twigs: int = 1000) -> Thorax:
    """The chest without nodules."""
    a, b = person.cage
    domes = (
        (-0.46 * a, -0.06 * b, rng.uniform(-4, 4)),
        (0.47 * a, -0.04 * b, rng.uniform(-22, -8)),
    )
    scale, turn = rng.uniform(0.88, 1.12), rng.uniform(22, 42)
    spine = [(person.spine_x(z), person.spine_y(z)) for z in (120, 90, 40, 0, -60, -140, -230)]
    aorta_mm = rng.uniform(10.5, 13.5) + 1.5 * person.age
    arch = rng.uniform(112, 126)
    descending = [
        (22, spine[0][1] - 14, arch - 6),
        (24 + spine[1][0], spine[1][1] - 12, 90),
        (22 + spine[2][0], spine[2][1] - 14, 40),
        (14 + spine[3][0], spine[3][1] - 23, 0),
        (7 + spine[4][0], spine[4][1] - 28, -60),
        (4 + spine[5][0], spine[5][1] - 30, -140),
        (3 + spine[6][0], spine[6][1] - 31, -230),
    ]
    top = b * 0.92
    great = (
        (
            Tube.through(
                [
                    (-4, -14, 60),
                    (-13, -20, 75),
                    (-15, -22, 95),
                    (-9, -14, arch),
                    (8, 4, arch + 9),
                    (19, 20, arch + 3),
                    *descending,
                ],
                [aorta_mm + 3] * 4
                + [aorta_mm + 1] * 2
                + [aorta_mm] * 3
                + [aorta_mm - 1, aorta_mm - 2, aorta_mm - 2.5, aorta_mm - 3],
                n=90,
            ),
            "aorta",
        ),
        (
            Tube.through([(10, -38, 58), (16, -32, 76), (14, -18, 92), (6, -6, 97)], [13.5, 13, 12.5, 11], n=20),
            "lung_artery",
        ),
        (
            Tube.through([(8, -8, 96), (-12, -2, 92), (-30, 4, 88), (-44, 8, 82)], [10.5, 9.5, 9, 7], n=20),
            "lung_artery",
        ),
        (
            Tube.through([(10, -10, 97), (24, 0, 103), (36, 10, 100), (44, 15, 88)], [11, 10, 9.5, 7], n=20),
            "lung_artery",
        ),
        (
            Tube.through(
                [(-25, -8, 55), (-29, -14, 85), (-28, -18, 120), (-24, -20, 145), (-32, -12, 190)],
                [11, 9, 8.5, 8, 6.5],
                n=30,
            ),
            "vein",
        ),
        (
            Tube.through([(-26, -22, 140), (-6, -30, 147), (16, -24, 156), (30, -14, 190)], [6.5, 6.5, 6.5, 6], n=24),
            "vein",
        ),
        (
            Tube.through([(-6, -14, arch + 10), (-14, -12, 150), (-24, -4, 190), (-30, 0, 220)], [6, 6, 5, 4], n=20),
            "aorta",
        ),
        (
            Tube.through([(6, -4, arch + 11), (12, -2, 150), (20, 2, 190), (24, 2, 220)], [4, 4, 3.6, 3.4], n=20),
            "aorta",
        ),
        (Tube.through([(16, 12, arch + 8), (22, 14, 150), (30, 12, 190), (40, 8, 215)], [5, 5, 4.5, 4], n=20), "aorta"),
        (Tube.through([(-6, 16, 62), (-28, 12, 66), (-46, 12, 64)], [9, 6.5, 5], n=12), "lung_vein"),
        (Tube.through([(10, 16, 64), (32, 14, 68), (47, 16, 66)], [9, 6.5, 5], n=12), "lung_vein"),
    )
    trachea_y = 0.18 * top
    airways = (
        Tube.through([(-1, trachea_y - 12, 220), (1, trachea_y - 4, 160), (2, trachea_y, 104)], [8.5, 8.5, 8.8], n=24),
        Tube.through(
            [
                (1, trachea_y, 104),
                (-14, trachea_y + 3, 96),
                (-32, trachea_y + 4, 84),
                (-42, trachea_y + 8, 66),
                (-50, trachea_y + 22, 38),
            ],
            [8, 7, 6, 5, 2.8],
            n=24,
        ),
        Tube.through(
            [
                (3, trachea_y, 104),
                (20, trachea_y + 4, 94),
                (38, trachea_y + 6, 82),
                (48, trachea_y + 14, 62),
                (56, trachea_y + 28, 36),
            ],
            [7.5, 6.2, 5.6, 4.6, 2.6],
            n=24,
        ),
        Tube.through(
            [(-26, trachea_y + 3, 90), (-44, trachea_y - 6, 100), (-60, trachea_y - 22, 112)], [4.5, 3.6, 2], n=16
        ),
        Tube.through(
            [(36, trachea_y + 6, 84), (50, trachea_y - 12, 88), (62, trachea_y - 32, 92)], [4.5, 3.6, 2], n=16
        ),
        Tube.through(
            [(-42, trachea_y + 8, 64), (-52, trachea_y - 14, 54), (-60, trachea_y - 40, 44)], [3.6, 3, 1.8], n=16
        ),
    )
    nothing = _no_segments()
    lung_hu = rng.uniform(-880, -800) - 15 * person.age
    thorax = Thorax(domes, scale, turn, lung_hu, nothing, nothing, airways, great, ())
    trees: list[list[Segments]] = [[], []]
    for side, artery_root, vein_root in (
        (-1, ((-38, 6, 85), (-46, 10, 79)), ((-40, 12, 65), (-48, 12, 63))),
        (1, ((40, 13, 94), (46, 16, 84)), ((42, 15, 67), (49, 17, 64))),
    ):
        points = _points_inside(rng, thorax, person, side, 2 * n_twigs)
        for tree, root, targets in zip(trees, (artery_root, vein_root), (points[:n_twigs], points[n_twigs:])):
            tree.append(branching(rng, root=root, targets=targets, leaf_mm=0.56))
    arteries, veins = (_joined(tree) for tree in trees)
    return replace(thorax, arteries=arteries, veins=veins)


def _no_segments() -> Segments:
    nothing = np.zeros((0, 3), np.float32)
    return Segments(nothing, nothing, nothing[:, 0], nothing[:, 0])


def _joined(parts: list[Segments]) -> Segments:
    fields = ("start", "end", "start_radius", "end_radius")
    return Segments(*(np.concatenate([getattr(part, name) for part in parts]) for name in fields))


def _points_inside(rng: np.random.Generator, thorax: Thorax, person: Person, side: int, n: int) -> np.ndarray:
    """Points ``(n, 3)`` spread over one lung, slightly inside its edge."""
    a, b = person.cage
    found: list[np.ndarray] = []
    while sum(map(len, found)) < n:
        points = rng.uniform((0, -b, -70), (a, b, 215), (4 * n, 3)).astype(np.float32) * (side, 1, 1)
        x, y, z = points.T.astype(np.float32)
        found.append(points[air_space(thorax, person, x, y, z) < -2.5])
    return np.concatenate(found)[:n].astype(np.float32)


def draw_nodules(
    rng: np.random.Generator,
    person: Person,
    thorax: Thorax,
    *,
    n: int,
    z_range: tuple[float, float],
    kind: NoduleKind | None = None,
) -> tuple[Nodule, ...]:
    """Nodules of 5 to 28 mm in the lung, without overlap, with centres in a range of z.

    Args:
        rng: of all their properties.
        person: the person.
        thorax: the person's chest.
        n: their number.
        z_range: in mm.
        kind: of all of them; by default drawn for each.

    Raises:
        InputError: the lung in that range has no room for so many.
    """
    a, b = person.cage
    found: list[Nodule] = []
    for _ in range(n):
        diameter = float(np.clip(rng.lognormal(np.log(11), 0.5), 5, 28))
        for attempt in range(600):
            if attempt % 200 == 199:
                diameter = max(5.0, 0.6 * diameter)  # a smaller one fits
            centre = rng.uniform((-a, -b, z_range[0]), (a, b, z_range[1]))
            x, y, z = (np.array([value], dtype=np.float32) for value in centre)
            gaps = [np.linalg.norm(centre - other.centre_mm) - 0.75 * other.diameter_mm for other in found]
            apart = all(gap > 0.75 * diameter + 2 for gap in gaps)
            if apart and air_space(thorax, person, x, y, z)[0] < -(0.62 * diameter + 1):
                break
        else:
            raise InputError(
                f"No room for {n} nodules between z = {z_range[0]:.0f} and {z_range[1]:.0f} mm of this lung. "
                "Remedy: ask for fewer."
            )
        drawn = list(NODULE_HU)[rng.choice(3, p=(0.6, 0.2, 0.2))]
        rough = float(rng.uniform(0.03, 0.13) if rng.random() < 0.8 else 0.0)
        waves = Waves(rng, wavelength_mm=(0.35 * diameter, 1.2 * diameter), n=24)
        place = (float(centre[0]), float(centre[1]), float(centre[2]))
        found.append(Nodule(place, diameter, kind or drawn, rough, waves))
    return tuple(found)


def paint_lungs(person: Person, thorax: Thorax, canvas: Canvas) -> None:
    """Air, its fine texture, fissures; vessels and airways; nodules."""
    x, y, z = canvas.x, canvas.y, canvas.z
    lung = air_space(thorax, person, x, y, z)
    if lung.min() > 0:
        return
    texture = 16 * person.grain(x, y, z) + 16 * person.fine_grain(x, y, z) + 14 * person.shape_waves[0](x, y, z)
    below = 55 * (y / person.cage[1])  # the lung's lower, dependent parts hold more blood
    air = thorax.lung_hu + below + texture
    if person.age > 0.75:  # holes of emphysema
        air = air - 90 * np.clip(person.grain(x, y, z) - 0.9, 0, 1)
    canvas.paint(lung - 0.8, 10.0)  # pleura
    canvas.paint(lung, air, Tissue.LUNG)
    bend = 7 * person.shape_waves[1](x, y, z)
    for side in (-1, 1):  # the oblique fissure falls from the back to the front
        level = 115 - 0.95 * (person.cage[1] - y) + bend - z
        canvas.paint(overlap(np.abs(level) * 0.7 - 0.25, -side * x, lung + 1.0), -730.0)
    _paint_tree(person, thorax.veins, canvas, lung, person.hu("aorta") if person.phase != "native" else 40.0)
    _paint_tree(person, thorax.arteries, canvas, lung, person.hu("lung_artery"))
    for airway in thorax.airways[1:]:
        tube = segment_distance(x, y, z, airway.segments, margin_mm=4)
        canvas.paint(overlap(tube - 1.1, lung - 1), -60.0)
        canvas.paint(overlap(tube, lung), -960.0, Tissue.AIRWAY)


def paint_nodules(person: Person, thorax: Thorax, canvas: Canvas) -> None:
    """Nodules, painted over the rest of the lung; a part-solid one has a solid core."""
    x, y, z = canvas.x, canvas.y, canvas.z
    for nodule in thorax.nodules:
        if abs(z - nodule.centre_mm[2]) > nodule.diameter_mm:
            continue
        away = nodule.distance(x, y, z)
        grain = person.grain(x, y, z)
        hazy = nodule.kind != "solid"
        hu = NODULE_HU[nodule.kind] + grain * (30 if hazy else 6)
        canvas.paint(away, hu, Tissue.NODULE, soft_mm=1.0 if hazy else 0.2)
        if nodule.kind == "part-solid":
            canvas.paint(away + 0.26 * nodule.diameter_mm, 20 + 6 * grain, Tissue.NODULE, soft_mm=0.6)


def _paint_tree(person: Person, tree: Segments, canvas: Canvas, lung: np.ndarray, blood_hu: float) -> None:
    vessels = overlap(segment_distance(canvas.x, canvas.y, canvas.z, tree), lung + 0.3)
    canvas.paint(vessels, blood_hu, Tissue.LUNG_VESSEL, soft_mm=0.1)


def paint_mediastinum(person: Person, thorax: Thorax, canvas: Canvas) -> None:
    """Fat, heart with its chambers, great vessels, trachea, oesophagus."""
    x, y, z = canvas.x, canvas.y, canvas.z
    grain, strands = person.grain(x, y, z), person.strands(x, y, z)
    if z > -75:
        cavity = person.cage_distance(x, y, z) + 1.5
        above = (dome_height(person, thorax.domes, x, y) - z) * 0.7
        # Fat fills the rest of the cavity, also at the front between the lungs.
        room = overlap(cavity, above, -air_space(thorax, person, x, y, z) + 0.8)
        haze = -95 + 6 * grain + 40 * np.clip(1 - np.abs(strands) * 7, 0, 1)
        canvas.paint(room, haze, Tissue.FAT)
        if z > 75:  # lymph nodes and thymus
            nodes = overlap(room + 2.5, (0.95 - strands) * 4, (110 - y) * 0.1 - 8.0)
            canvas.paint(nodes, 32.0)
        _paint_heart(person, thorax, canvas, overlap(cavity, above))
    for tube, carries in thorax.great:
        # The pulmonary veins carry blood from the lungs, and so does the aorta.
        hu = person.hu("aorta" if carries == "lung_vein" else carries)
        shape = segment_distance(x, y, z, tube.segments, margin_mm=4)
        if (shape < 1).any():
            canvas.paint(shape, hu + 3 * grain, Tissue.BLOOD)
            if carries == "aorta" and person.age > 0.55:  # plaques of calcium in the wall
                plaque = overlap(np.abs(shape + 0.6) - 0.9, (1.5 - strands) * 3)
                canvas.paint(plaque, 550.0, soft_mm=0.3)
    if z > 82:
        trachea = segment_distance(x, y, z, thorax.airways[0].segments, margin_mm=4)
        for airway in thorax.airways[1:3]:
            trachea = np.minimum(trachea, segment_distance(x, y, z, airway.segments, margin_mm=4))
        trachea = overlap(trachea, -air_space(thorax, person, x, y, z) - 1)
        canvas.paint(trachea - 1.5, 30.0)
        canvas.paint(trachea, -985.0, Tissue.AIRWAY)
    if z > -18:
        gullet_x = 4 + person.spine_x(z) + 10 * float(ramp(-z, -40, 10))
        gullet_y = person.spine_y(z) - float(np.interp(np.asarray(z), (-20, 20, 90, 200), (36, 26, 21, 17)))
        gullet = ellipse(x, y, centre=(gullet_x, gullet_y), radii=(8.0, 5.6), angle_deg=12)
        canvas.paint(gullet - 0.8, -60.0)
        canvas.paint(gullet, 42 + 5 * grain, Tissue.OESOPHAGUS)
        if person.strands(np.zeros((1, 1), np.float32), np.zeros((1, 1), np.float32), z / 3)[0, 0] > 0.5:
            canvas.paint(gullet + 3.6, -700.0, Tissue.GAS, soft_mm=1)


def _paint_heart(person: Person, thorax: Thorax, canvas: Canvas, room: np.ndarray) -> None:
    """The sac with fat in it, muscle, and four chambers of blood."""
    x, y, z = canvas.x, canvas.y, canvas.z
    if not -16 < z < 100:
        return
    s, turn, b = thorax.heart_scale, thorax.heart_turn_deg, person.cage[1]
    sac = overlap(heart_outline(person, s, turn, x, y, z), room - 1)
    grain = person.grain(x, y, z)
    canvas.paint(sac, -15.0, Tissue.FAT)
    canvas.paint(sac + 0.9, -88 + 5 * grain, Tissue.FAT)
    bend = 2.2 * person.shape_waves[0](x, y, z) + 1.2 * person.strands(x, y, z)
    fat = 1.8 + 0.07 * person.fat_mm

    def part(
        centre: tuple[float, float, float], radii: tuple[float, float, float], angle_deg: float = 0.0
    ) -> np.ndarray:
        scaled = (radii[0] * s, radii[1] * s, radii[2])
        return ellipsoid(x, y, z, centre=centre, radii=scaled, angle_deg=angle_deg) + bend

    inside = sac + fat
    lv_centre = (38.0, -0.15 * b, 28.0)
    left = part(lv_centre, (52, 35, 48), turn)
    left_blood = part(lv_centre, (37, 21, 36), turn)
    right = part((8, -0.50 * b, 32), (50, 27, 48), turn - 6)
    right_atrium = part((-26, -0.14 * b, 46), (23, 31, 42), 8)
    left_atrium = part((4, 0.13 * b, 66), (35, 19, 27), 4)
    muscle = union(
        union(left, right - 2.5, blend_mm=5), union(right_atrium - 2, left_atrium - 2, blend_mm=5), blend_mm=4
    )
    canvas.paint(overlap(muscle, inside), person.hu("heart_muscle") + 4 * grain, Tissue.HEART)
    venous = 0.5 * (person.hu("lung_artery") + person.hu("vein"))
    for chamber, hu in (
        (overlap(right, -left - 0.5), venous),
        (right_atrium, venous),
        (left_atrium, person.hu("aorta")),
        (left_blood, person.hu("aorta")),
    ):
        canvas.paint(overlap(chamber, inside + 2), hu + 4 * grain, Tissue.BLOOD, soft_mm=1.2)
