"""Chest CT slices in four classes that differ by the tumour, with the noise of a scanner at full dose."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ctrestore.ct import ELECTRONIC_NOISE, WATER_PER_MM, fewer_views, simulate_low_dose
from ctrestore.errors import InputError
from ctrestore.phantoms.ct.phantom import pixels, ras_affine, seen_by_scanner, to_ras
from ctrestore.phantoms.ct.shapes import Canvas
from ctrestore.phantoms.ct.thorax import draw_thorax, paint_lungs, paint_mediastinum
from ctrestore.phantoms.ct.torso import (
    Phase,
    Wall,
    draw_person,
    paint_ribs,
    paint_shoulder_blades,
    paint_spine,
    paint_table,
    paint_wall,
)  # fmt: skip
from ctrestore.phantoms.ct.tumours import (
    LUNG_CLASSES,
    LungClass,
    Tumour,
    draw_bystanders,
    draw_tumour,
    paint_bystanders,
    paint_tumour,
)

Z_RANGE_MM = (45.0, 115.0)  # around the hila, for all classes: the level must not reveal the class
SLICE_MM = 1.5
N_TWIGS = 700  # of each tree of vessels and side
# Keys of the random streams of a seed; `chest` and `abdomen` use 0 and 1.
STREAM = 2
# For a thin lung slice with noise of 35 to 45 HU, which hides no nodule. The tube current follows the patient, as in
# scanners: this is the number of photons for 260 mm of water, and the noise is the same for everybody.
PHOTONS_AT_260_MM = 1e4


@dataclass(frozen=True)
class LungPhantom:
    """One axial slice ``(x, y, 1)`` of a chest; the axes run right, front and up (RAS), and the affine is diagonal."""

    seed: int
    lung_class: LungClass
    hu: np.ndarray  # float32, with the noise of full dose
    noise_free_hu: np.ndarray
    labels: np.ndarray  # uint8, see Tissue: the tumour is NODULE, its cavity GAS
    affine: np.ndarray
    photons_per_ray: float  # at full dose, for simulations of a lower one
    phase: Phase
    tumour: Tumour | None


def lung_slice(seed: int, lung_class: LungClass, *, matrix: int = 512) -> LungPhantom:
    """A slice through a tumour of a class, or through a chest without one.

    Args:
        seed: decides the person, the level, the tumour and the noise; each seed is another person.
        lung_class: one of `LUNG_CLASSES`.
        matrix: pixels along a side; the field of view (340 to 500 mm) follows the person.

    Raises:
        InputError: there is no such class, or the matrix is below 32.
    """
    if lung_class not in LUNG_CLASSES or matrix < 32:
        raise InputError(
            f"Expected a class of {', '.join(LUNG_CLASSES)} and a matrix of 32 or more; got {lung_class!r} and "
            f"{matrix}."
        )
    person_rng, organ_rng, bystander_rng, tumour_rng, noise_rng = (
        np.random.default_rng([seed, STREAM, part]) for part in range(5)
    )
    person = draw_person(person_rng)
    z = float(person_rng.uniform(*Z_RANGE_MM))
    across_mm, down_mm = person_rng.normal(0, 6, 2)
    thorax = draw_thorax(organ_rng, person, n_twigs=N_TWIGS)
    bystanders = draw_bystanders(bystander_rng, person, thorax, z_mm=z)
    tumour = draw_tumour(tumour_rng, person, thorax, lung_class, z_mm=z)
    x, y, pixel_mm = pixels(person, matrix, (float(across_mm), float(down_mm)))
    canvas = Canvas(x, y, z)
    wall = Wall.of(person, canvas)
    paint_table(person, canvas, wall)
    paint_wall(person, canvas, wall)
    paint_shoulder_blades(person, canvas, wall)
    paint_lungs(person, thorax, canvas)
    paint_bystanders(person, thorax, bystanders, canvas)
    if tumour is not None:
        paint_tumour(person, thorax, tumour, canvas)
    paint_mediastinum(person, thorax, canvas)
    paint_ribs(person, canvas, wall)
    paint_spine(person, canvas)
    clean = seen_by_scanner(canvas.hu, pixel_mm)
    photons = PHOTONS_AT_260_MM * math.exp(WATER_PER_MM * (water_equivalent_mm(clean, pixel_mm) - 260))
    noisy = _at_full_dose(clean, pixel_mm, photons, noise_rng)
    affine = ras_affine(x, y, pixel_mm, slice_mm=SLICE_MM, z_mm=z)
    hu, free, labels = (to_ras(image[None]) for image in (noisy, clean, canvas.labels))
    return LungPhantom(seed, lung_class, hu, free, labels, affine, photons, person.phase, tumour)


def water_equivalent_mm(hu: np.ndarray, pixel_mm: float) -> float:
    """Diameter of a disc of water that attenuates like a slice (AAPM report 220, equation 3)."""
    return 2 * pixel_mm * math.sqrt(float(np.maximum(hu / 1000 + 1, 0).sum()) / math.pi)


def _at_full_dose(hu: np.ndarray, pixel_mm: float, photons_per_ray: float, rng: np.random.Generator) -> np.ndarray:
    """The noise of full dose for a slice without noise.

    At half its dose a scan lacks the variance ``1 / N`` of its quanta, which is that of full dose, but three times that
    of its electronics; so the electronics count a third.
    """
    noisy = simulate_low_dose(
        hu,
        dose_fraction=0.5,
        spacing_mm=pixel_mm,
        seed=rng,
        **fewer_views(photons_per_ray=photons_per_ray, electronic_noise=ELECTRONIC_NOISE / math.sqrt(3)),
    )
    return np.maximum(noisy, -1024).astype(np.float32)
