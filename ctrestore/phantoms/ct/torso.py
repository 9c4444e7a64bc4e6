"""A person with sizes, build and contrast phase drawn by seed, and the parts that all levels share, skin to bones.

z is 0 mm at the right dome of the diaphragm; the arch of the aorta is near 120 and the kidneys near -105. Sizes are
those of adults, set by eye by comparison with public CT scans; HU are usual values of the tissues.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from ctrestore.phantoms.ct.shapes import Canvas, Segments, Waves, capsule, ellipse, overlap, union

Phase = Literal["native", "arterial", "portal venous"]


class Tissue(IntEnum):
    """Values of the label maps; 0 is outside the body."""

    OUTSIDE = 0
    FAT = 1
    MUSCLE = 2
    BONE = 3
    CARTILAGE = 4
    LUNG = 5
    LUNG_VESSEL = 6
    AIRWAY = 7
    HEART = 8
    BLOOD = 9
    LIVER = 10
    LIVER_LESION = 11
    GALLBLADDER = 12
    SPLEEN = 13
    KIDNEY = 14
    PANCREAS = 15
    BOWEL = 16
    GAS = 17
    NODULE = 18
    TABLE = 19
    SPINAL_CANAL = 20
    SKIN = 21
    OESOPHAGUS = 22


# HU of the tissues that contrast medium changes.
PHASES: dict[Phase, dict[str, float]] = {
    "native": {
        "aorta": 42, "lung_artery": 42, "vein": 40, "portal": 40, "heart_muscle": 46, "liver": 58, "liver_vessel": 44,
        "spleen": 50, "cortex": 34, "medulla": 31, "pancreas": 42, "bowel_wall": 40, "muscle": 55, "marrow": 190,
    },
    "arterial": {
        "aorta": 310, "lung_artery": 260, "vein": 90, "portal": 100, "heart_muscle": 110, "liver": 72,
        "liver_vessel": 92, "spleen": 125, "cortex": 185, "medulla": 75, "pancreas": 105, "bowel_wall": 90,
        "muscle": 59, "marrow": 200,
    },
    "portal venous": {
        "aorta": 155, "lung_artery": 145, "vein": 150, "portal": 168, "heart_muscle": 105, "liver": 108,
        "liver_vessel": 152, "spleen": 122, "cortex": 190, "medulla": 165, "pancreas": 92, "bowel_wall": 80,
        "muscle": 62, "marrow": 205,
    },
}  # fmt: skip


@dataclass(frozen=True)
class Person:
    """The numbers that make one body; lengths in mm."""

    cage: tuple[float, float]  # half-width and half-depth of the rib cage's inside at the diaphragm
    squareness: float
    fat_mm: float  # under the skin
    muscle: float  # 1 is average
    breast_mm: float
    age: float  # 0 young .. 1 old: less marrow, more calcium, lungs of lower density
    phase: Phase
    rib_phase_mm: float
    disc_phase_mm: float
    couch_mm: float  # width of the table
    tilt: tuple[float, float]  # the spine's sway to the side, in mm, and its wave's phase
    wall_waves: Waves
    shape_waves: tuple[Waves, Waves]
    strands: Waves
    grain: Waves
    fine_grain: Waves

    def hu(self, name: str) -> float:
        """HU of a tissue in this person's contrast phase."""
        return PHASES[self.phase][name]

    def half_axes(self, z: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
        """Half-width and half-depth of the cage at z."""
        wide = np.interp(
            np.asarray(z), (-260, -120, -40, 20, 90, 150, 190, 225), (0.93, 0.91, 1.0, 1.02, 0.97, 0.82, 0.62, 0.40)
        )
        deep = np.interp(
            np.asarray(z), (-260, -120, -40, 20, 90, 150, 190, 225), (0.86, 0.92, 1.0, 1.02, 0.92, 0.74, 0.58, 0.42)
        )
        return self.cage[0] * wide, self.cage[1] * deep

    def cage_distance(self, x: np.ndarray, y: np.ndarray, z: ArrayLike) -> np.ndarray:
        """Distance to the inside of the chest and belly wall."""
        return ellipse(x, y, centre=(0, 0), radii=self.half_axes(z), power=self.squareness)

    def spine_y(self, z: ArrayLike) -> float:
        """Y of the centre of the vertebral bodies."""
        return float(
            self.cage[1]
            * np.interp(np.asarray(z), (-200, -120, -20, 60, 130, 210), (0.40, 0.42, 0.56, 0.62, 0.56, 0.36))
        )

    def erector_distance(self, x: np.ndarray, y: np.ndarray, z: float) -> np.ndarray:
        """Distance to the long muscles next to the spine."""
        lumbar = float(ramp(-z, 40, 110))
        centre_y = self.spine_y(z) + 42 + 3 * lumbar
        beside = np.abs(x - np.float32(self.spine_x(z)))
        radii = (25 + 9 * lumbar, 14 + 7 * lumbar * min(self.muscle, 1.1))
        return ellipse(beside, y, centre=(26 + 7 * lumbar, centre_y), radii=radii, power=2.4)

    def spine_x(self, z: float) -> float:
        """A little scoliosis."""
        return float(self.tilt[0] * np.sin(z / 90 + self.tilt[1]))


def draw_person(rng: np.random.Generator) -> Person:
    """A person: small to large, lean to obese, young to old, in one of three contrast phases."""
    size = rng.normal(1, 0.06)
    breast = rng.uniform(10, 32) if rng.random() < 0.45 else 0.0
    return Person(
        cage=(136 * size * rng.uniform(0.94, 1.07), 98 * size * rng.uniform(0.9, 1.1)),
        squareness=rng.uniform(2.15, 2.7),
        fat_mm=float(np.clip(rng.lognormal(np.log(17), 0.5), 5, 48)),
        muscle=rng.uniform(0.75, 1.25),
        breast_mm=breast,
        age=rng.random(),
        phase=list(PHASES)[rng.choice(3, p=(0.4, 0.2, 0.4))],
        rib_phase_mm=rng.uniform(0, 24),
        disc_phase_mm=rng.uniform(0, 30),
        couch_mm=rng.uniform(400, 460),
        tilt=(rng.normal(0, 3), rng.uniform(0, 6)),
        wall_waves=Waves(rng, wavelength_mm=(120, 260), n=16),
        shape_waves=(Waves(rng, wavelength_mm=(50, 160), n=24), Waves(rng, wavelength_mm=(50, 160), n=24)),
        strands=Waves(rng, wavelength_mm=(9, 26), n=64),
        grain=Waves(rng, wavelength_mm=(5, 16), n=96),
        fine_grain=Waves(rng, wavelength_mm=(2.2, 4.5), n=96),
    )


def ramp(value: ArrayLike, low: float, high: float) -> np.ndarray:
    """0 up to ``low``, 1 from ``high``, smooth between."""
    t = np.clip((np.asarray(value, dtype=np.float32) - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


@dataclass(frozen=True)
class Wall:
    """Distances ``(y, x)`` of one slice for all parts of the body wall."""

    cage: np.ndarray
    muscle: np.ndarray  # outer edge of the muscles
    skin: np.ndarray
    from_back: np.ndarray  # angle around the cage, degrees: 0 at the back, 90 at the side, 180 at the front

    @classmethod
    def of(cls, person: Person, canvas: Canvas) -> Wall:
        """The wall at a slice."""
        x, y, z = canvas.x, canvas.y, canvas.z
        a, b = person.half_axes(z)
        cage = person.cage_distance(x, y, z)
        from_back = np.rad2deg(np.arctan2(np.abs(x) / a, y / b)).astype(np.float32)
        chest, shoulder = float(ramp(z, -60, 40)), float(ramp(z, 70, 140))
        beside = np.abs(x)
        back = (12 + 2 * (1 - chest)) * np.exp(-((beside / 58) ** 2)) * ramp(-from_back, -75, -35)
        side = (8 + 6 * (1 - chest) + 16 * shoulder) * np.exp(-(((from_back - 85) / 38) ** 2))
        shoulder_blade = 26 * shoulder * np.exp(-(((from_back - 52) / 24) ** 2))
        front = 13 * float(ramp(z, 30, 90)) * np.exp(-(((from_back - 142) / 20) ** 2))
        rectus = 7 * (1 - chest) * np.exp(-(((beside - 32) / 26) ** 2)) * ramp(from_back, 110, 140)
        muscle = 8 + person.muscle * (back + side + shoulder_blade + front + rectus)
        waves = person.wall_waves(x, y, z)
        fat = person.fat_mm * (0.8 + 0.10 * waves + (0.25 - 0.45 * chest) * ramp(from_back, 100, 160))
        fat = fat * (1 - 0.45 * np.exp(-((beside / 14) ** 2)))  # fat is thinnest at the midline
        hang = float(ramp(z, -5, 45) * (1 - ramp(z, 105, 150)))
        breast = person.breast_mm * hang * np.exp(-(((beside - 0.56 * a) / (0.36 * a)) ** 2)) * ramp(from_back, 95, 128)
        erector = person.erector_distance(x, y, z)
        muscles = union(cage - muscle, erector - 2, blend_mm=18)
        skin = union(cage - muscle - np.maximum(fat, 3.0) - breast, erector - 4 - 0.7 * person.fat_mm, blend_mm=30)
        # The back lies flat on the table.
        bed = y - np.float32(person.spine_y(z) + 62 + 0.55 * person.fat_mm)
        return cls(cage, muscles, -union(-skin, -bed, blend_mm=40), from_back)


def paint_table(person: Person, canvas: Canvas, wall: Wall) -> None:
    """A curved shell of carbon fibre filled with foam, under the back."""
    lying = np.where(wall.skin < 0, np.broadcast_to(canvas.y, wall.skin.shape), -1e3).max() + 3.0
    radius = 620.0
    from_centre = np.hypot(canvas.x, canvas.y - (lying + 4 - radius))
    half = person.couch_mm / 2
    inside = np.abs(canvas.x) - half
    canvas.paint(overlap(np.abs(from_centre - radius - 12) - 12, inside), -960.0, Tissue.TABLE)
    for at, hu in ((0.0, -250.0), (24.0, -420.0)):
        canvas.paint(overlap(np.abs(from_centre - radius - at) - 1.1, inside), hu, Tissue.TABLE)


def paint_wall(person: Person, canvas: Canvas, wall: Wall) -> None:
    """Skin, fat with its strands, breast, and layers of muscle with fat between."""
    x, y, z = canvas.x, canvas.y, canvas.z
    strands = person.strands(x, y, z)
    grain = person.grain(x, y, z)
    canvas.paint(wall.skin, 20.0, Tissue.SKIN)
    fat = -108 + 5 * grain + 34 * np.clip(np.abs(strands) * -9 + 1, 0, 1)  # thin septa where the field is zero
    canvas.paint(wall.skin + 1.8, fat, Tissue.FAT)
    if person.breast_mm > 0 and -10 < z < 150:
        a, _ = person.half_axes(z)
        into = np.abs(np.abs(x) - 0.56 * a) / (0.30 * a)
        gland = np.maximum(into * 30 - 25, 4 - wall.muscle)  # between muscle and skin
        gland = overlap(gland, wall.skin + 9, 120 - wall.from_back) - 2
        dense = np.clip(1.6 * strands + 0.8 * person.shape_waves[0](x, y, z), 0, 1)
        canvas.paint(gland, -100 + 125 * dense, Tissue.FAT, soft_mm=4)
    canvas.paint(wall.muscle, person.hu("muscle") + 5 * grain, Tissue.MUSCLE)
    # Sheets of fat separate the muscles: surfaces along the wall, bent by a smooth field, where the muscle is thick.
    thickness = np.maximum(wall.cage - wall.muscle, 1)
    depth = (wall.cage - 4) / np.maximum(thickness - 4, 1) + 0.09 * person.shape_waves[0](x, y, z)
    for level in (0.12, 0.52):
        sheet = overlap(np.abs(depth - level) * thickness - 0.8, 11 - thickness, wall.muscle + 1)
        canvas.paint(sheet, -75.0, Tissue.FAT, soft_mm=0.5)
    # Streaks of fat inside the muscles of old people.
    streaks = overlap(np.abs(strands) * 7 - 0.8 * person.age, wall.muscle + 2, 3 - wall.cage)
    canvas.paint(streaks, -20.0, soft_mm=1.2)


def bone(
    canvas: Canvas, person: Person, distance: np.ndarray, *, cortex_mm: float = 1.5, cortex_hu: float = 780
) -> None:
    """A bone: compact outside, spongy marrow inside."""
    canvas.paint(distance, cortex_hu - 160 * person.age, Tissue.BONE)
    grain = person.fine_grain(canvas.x, canvas.y, canvas.z)
    marrow = person.hu("marrow") * (1.15 - 0.55 * person.age) + 38 * grain
    canvas.paint(distance + cortex_mm, marrow, soft_mm=1.0)


def paint_ribs(person: Person, canvas: Canvas, wall: Wall) -> None:
    """Ribs slope down to the front, so a slice cuts several; in front they end as cartilage at the sternum."""
    z, angle = canvas.z, wall.from_back
    drop = 105 * (1 - np.cos(np.deg2rad(0.95 * angle))) / 2
    height = np.mod(z + drop + person.rib_phase_mm, 24.0) - 12
    last = float(np.interp(np.asarray(z), (-125, -60, 0, 50), (78, 108, 138, 172)))
    there = overlap(angle - last, 16 - angle, -62 - (z + drop), (z + drop) - 235) * 1.6
    rib = overlap((np.hypot((wall.cage - 5) / 4.0, height / 6.2) - 1) * 4.0, there)
    joint = float(np.interp(np.asarray(z), (0, 60, 150), (112, 134, 152)))
    bone(canvas, person, overlap(rib, (angle - joint) * 1.6), cortex_mm=1.4)
    cartilage = overlap(rib - 0.6, (joint - angle) * 1.6)
    canvas.paint(cartilage, 95 + 60 * person.age * (person.grain(canvas.x, canvas.y, z) > 0.9), Tissue.CARTILAGE)
    if 12 < z < 192:
        b = float(person.half_axes(z)[1])
        half = float(np.interp(np.asarray(z), (12, 40, 120, 150, 185), (7, 15, 14, 24, 27)))
        plate = ellipse(canvas.x, canvas.y, centre=(0, -b - 6.0), radii=(half, 5.8), power=3.0)
        bone(canvas, person, plate, cortex_mm=1.1, cortex_hu=430)


def paint_shoulder_blades(person: Person, canvas: Canvas, wall: Wall) -> None:
    """Thin plates behind the upper ribs, between two muscles."""
    z = canvas.z
    if z < 72 or z > 200:
        return
    a, b = (float(half) for half in person.half_axes(z))
    grow = float(ramp(z, 72, 110))
    for side in (-1, 1):
        inner = (side * (0.66 * a + 14), 0.74 * b + 16)
        outer = (side * (a + 6 + 14 * grow), 0.74 * b + 16 - (24 + 36 * grow))
        middle = ((inner[0] + outer[0]) / 2 + side * 5, (inner[1] + outer[1]) / 2 + 4)
        plate = union(
            capsule(canvas.x, canvas.y, start=inner, end=middle, radius=2.2),
            capsule(canvas.x, canvas.y, start=middle, end=outer, radius=2.8 + 1.8 * grow),
            blend_mm=3,
        )
        bone(canvas, person, overlap(plate, wall.muscle + 2), cortex_mm=1.5)


def paint_spine(person: Person, canvas: Canvas) -> None:
    """Vertebra or disc, canal with cord, arch and processes, and the long muscles of the back."""
    x, y, z = canvas.x - np.float32(person.spine_x(canvas.z)), canvas.y, canvas.z
    middle = person.spine_y(z)
    rx = float(np.interp(np.asarray(z), (-160, -60, 40, 190), (24.5, 20, 16.5, 14.5)))
    ry = float(np.interp(np.asarray(z), (-160, -60, 40, 190), (17.5, 15.5, 14, 11)))
    canal_y, canal = middle + ry + 6.5, 8.2
    grain, strands = person.grain(x, y, z), person.strands(x, y, z)
    lumbar = float(ramp(-z, 40, 110))
    erector = person.erector_distance(canvas.x, y, z)
    canvas.paint(erector - 1.2, -60.0, Tissue.FAT)
    streaked = 70 * person.age**2 * np.clip(1 - np.abs(strands + 0.3 * grain) * 2.2, 0, 1)
    canvas.paint(erector, person.hu("muscle") - streaked + 4 * grain, Tissue.MUSCLE, soft_mm=0.4)
    place = np.mod(z + person.disc_phase_mm, 31.0 - 6 * (1 - lumbar))
    body = ellipse(x, y, centre=(0, middle), radii=(rx, ry), power=2.4)
    hollow = ellipse(x, y, centre=(0, canal_y), radii=(9.5, 8.5))  # the back of the body is a little hollow
    body = overlap(body, -hollow)
    if place < 5.0:  # a disc
        canvas.paint(body, 92 + 4 * grain, Tissue.CARTILAGE)
        canvas.paint(body + 5, 74 + 3 * grain, soft_mm=3)
    else:
        near_plate = min(place - 5.0, 4.0) < 1.2
        bone(canvas, person, body, cortex_mm=1.0, cortex_hu=480 if near_plate else 620)
        vein = capsule(x, y, start=(0, middle + 3), end=(0, middle + ry), radius=1.3)
        canvas.paint(overlap(vein, body + 1), 60.0, soft_mm=2.0)
    arch = overlap(
        np.abs(ellipse(x, y, centre=(0, canal_y), radii=(canal + 3.4, canal + 3.0))) - 2.6, middle + ry - 3 - y
    )
    parts = [arch]
    if place > 8:  # pedicles and the processes that point to the sides
        for side in (-1, 1):
            parts.append(capsule(x, y, start=(side * 10, middle + ry - 4), end=(side * 12, canal_y + 2), radius=3.6))
            out = 30 - 4 * lumbar
            parts.append(capsule(x, y, start=(side * 13, canal_y + 3), end=(side * out, canal_y + 10), radius=3.2))
    tip = canal_y + canal + (24 if place > 6 else 15)
    parts.append(capsule(x, y, start=(0, canal_y + canal + 3), end=(0, tip), radius=2.6))
    bones = parts[0]
    for part in parts[1:]:
        bones = union(bones, part, blend_mm=3)
    canal_shape = ellipse(x, y, centre=(0, canal_y), radii=(canal, canal - 1))
    bone(canvas, person, overlap(bones, -canal_shape), cortex_mm=1.3)
    canvas.paint(canal_shape, 12.0, Tissue.SPINAL_CANAL)
    if z > -60:
        canvas.paint(ellipse(x, y, centre=(0, canal_y), radii=(5.2, 4.0)), 38.0, soft_mm=1.0)


def branching(
    rng: np.random.Generator,
    *,
    root: ArrayLike,
    targets: np.ndarray,
    leaf_mm: float,
    step_mm: float = 9.0,
    wander: float = 0.12,
) -> Segments:
    """A tree of vessels from a root to all targets, with Murray's law: cubes of radii add up at a fork.

    Each target joins the nearest point of the existing tree, nearer targets first; detours along the tree count
    a quarter, so branches run outwards.

    Args:
        rng: of the small bends.
        root: chain of points ``(n, 3)`` in mm; the tree begins at the first one.
        targets: points ``(n, 3)``, the ends of the twigs.
        leaf_mm: radius of the last twigs.
        step_mm: length of a straight piece.
        wander: sideways displacement of a joint, as a share of the step.

    Reference:
        Murray, PNAS 12(3):207, 1926.
    """
    nodes = [np.asarray(point, dtype=np.float32) for point in np.asarray(root)]
    parents = [-1, *range(len(nodes) - 1)]
    space = np.empty((len(nodes) + len(targets) * 12, 3), dtype=np.float32)
    detour = np.zeros(len(space), dtype=np.float32)
    space[: len(nodes)] = nodes
    for i in range(1, len(nodes)):
        detour[i] = detour[i - 1] + np.linalg.norm(space[i] - space[i - 1])
    count = len(nodes)
    order = np.argsort(np.linalg.norm(targets - space[count - 1], axis=1))
    for target in targets[order]:
        if count + 16 > len(space):
            space = np.concatenate([space, np.empty_like(space)])
            detour = np.concatenate([detour, np.zeros_like(detour)])
        gap = space[:count] - target
        cost = np.sqrt(np.einsum("ij,ij->i", gap, gap)) + 0.25 * detour[:count]
        at = int(np.argmin(cost))
        n = int(np.clip(np.ceil(np.linalg.norm(space[at] - target) / step_mm), 1, 12))
        way = space[at] + (target - space[at]) * (np.arange(1, n + 1, dtype=np.float32)[:, None] / n)
        way[:-1] += rng.normal(0, wander * step_mm, (n - 1, 3))
        for point in way:
            space[count] = point
            parents.append(at)
            detour[count] = detour[at] + np.linalg.norm(point - space[at])
            at, count = count, count + 1
    cubes = np.zeros(count)
    is_leaf = np.ones(count, dtype=bool)
    is_leaf[[parent for parent in parents if parent >= 0]] = False
    cubes[is_leaf] = leaf_mm**3
    for i in range(count - 1, 0, -1):  # children come after their parents
        cubes[parents[i]] += cubes[i]
    radius = np.cbrt(cubes).astype(np.float32)
    child = np.arange(1, count)
    parent = np.asarray(parents[1:])
    return Segments(space[parent], space[child], np.minimum(radius[parent], radius[child] * 1.25), radius[child])
