"""Chest and abdominal CT with known truth: HU without noise, labels, and positions of the findings."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
from scipy.ndimage import gaussian_filter

from ctrestore.errors import InputError
from ctrestore.phantoms.ct.abdomen import Lesion, draw_abdomen, draw_lesions, paint_abdomen
from ctrestore.phantoms.ct.shapes import Canvas
from ctrestore.phantoms.ct.thorax import (
    NODULE_HU,
    Nodule,
    NoduleKind,
    draw_nodules,
    draw_thorax,
    paint_lungs,
    paint_mediastinum,
    paint_nodules,
)
from ctrestore.phantoms.ct.torso import (
    Person,
    Phase,
    Wall,
    draw_person,
    paint_ribs,
    paint_shoulder_blades,
    paint_spine,
    paint_table,
    paint_wall,
)  # fmt: skip
from ctrestore.psf import fwhm_to_sigma

Kind = Literal["chest", "abdomen"]
KINDS: tuple[Kind, ...] = get_args(Kind)
Z_RANGE_MM: dict[Kind, tuple[float, float]] = {"chest": (5, 165), "abdomen": (-150, -30)}  # of the middle slice
FWHM_MM = 1.1  # in-plane resolution of a body kernel


@dataclass(frozen=True)
class Finding:
    """A lung nodule or liver lesion: a labelled, roughly round object of known place and size."""

    what: Literal["nodule", "liver lesion"]
    kind: str
    centre_mm: tuple[float, float, float]  # RAS, as the affine
    diameter_mm: float
    contrast_hu: float | None = None  # of a liver lesion relative to the liver around it


@dataclass(frozen=True)
class CTPhantom:
    """A phantom scan ``(x, y, z)``; the axes run right, front and up (RAS), and the affine is diagonal."""

    kind: Kind
    seed: int
    hu: np.ndarray  # float32, no noise
    labels: np.ndarray  # uint8, see Tissue
    affine: np.ndarray
    phase: Phase
    findings: tuple[Finding, ...]

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Voxel size along x, y, z."""
        return tuple(float(size) for size in np.abs(np.diag(self.affine))[:3])  # type: ignore[return-value]

    @property
    def slices(self) -> np.ndarray:
        """HU as ``(z, y, x)`` in viewing order: rows go to the patient's back, columns to the left."""
        return self.hu.transpose(2, 1, 0)[:, ::-1, ::-1]

    @property
    def label_slices(self) -> np.ndarray:
        """Labels as ``(z, y, x)`` like `slices`."""
        return self.labels.transpose(2, 1, 0)[:, ::-1, ::-1]


def chest(
    seed: int, *, n_slices: int = 1, matrix: int = 512, slice_mm: float = 1.5, z_mm: float | None = None,
    n_nodules: int | None = None,
    nodule_kind: NoduleKind | None = None,
) -> CTPhantom:  # fmt: skip
    """A chest: lungs with vessels, heart and great vessels, ribs and spine, nodules.

    Args:
        seed: decides person, contrast phase, level and nodules; each seed is another person.
        n_slices: 1 for a single slice.
        matrix: pixels along a side; the field of view (340 to 500 mm) follows the person.
        slice_mm: distance between slices.
        z_mm: level of the middle slice above the diaphragm; by default drawn from 5 to 165.
        n_nodules: number in the slices; by default 0 to 3.
        nodule_kind: of all of them, ``solid``, ``part-solid`` or ``ground-glass``; by default drawn for each.

    Raises:
        InputError: fewer than 1 slice, a matrix below 32, a distance of 0 or less, an unknown kind, or too many
            nodules.
    """
    if nodule_kind is not None and nodule_kind not in NODULE_HU:
        raise InputError(f"nodule_kind must be one of {', '.join(NODULE_HU)}, or None; got {nodule_kind!r}.")
    return _phantom("chest", seed, n_slices, matrix, slice_mm, z_mm, n_nodules, nodule_kind)


def abdomen(
    seed: int,
    *,
    n_slices: int = 1,
    matrix: int = 512,
    slice_mm: float = 1.5,
    z_mm: float | None = None,
    n_lesions: int | None = None,
) -> CTPhantom:
    """An abdomen: liver with low-contrast lesions, spleen, kidneys, stomach, bowel with gas, vessels, spine.

    Args:
        seed: decides person, contrast phase, level and lesions.
        n_slices: 1 for a single slice.
        matrix: pixels along a side; the field of view (340 to 500 mm) follows the person.
        slice_mm: distance between slices.
        z_mm: level of the middle slice relative to the diaphragm; by default drawn from -150 to -30.
        n_lesions: number with a centre in the slices; by default 0 to 4, if the liver has room.

    Raises:
        InputError: fewer than 1 slice, a matrix below 32, a distance of 0 or less, or no room for the lesions.
    """
    return _phantom("abdomen", seed, n_slices, matrix, slice_mm, z_mm, n_lesions)


def _phantom(
    kind: Kind,
    seed: int,
    n_slices: int,
    matrix: int,
    slice_mm: float,
    z_mm: float | None,
    n_findings: int | None,
    nodule_kind: NoduleKind | None = None,
) -> CTPhantom:
    if n_slices < 1 or matrix < 32 or not slice_mm > 0:
        raise InputError(
            f"A phantom needs 1 slice or more, a matrix of 32 or more and a distance above 0 mm between slices; got "
            f"n_slices={n_slices}, matrix={matrix}, slice_mm={slice_mm}."
        )
    if n_findings is not None and n_findings < 0:
        raise InputError(f"The number of nodules or lesions cannot be negative; got {n_findings}.")
    # One generator each, so another number of findings does not change the person.
    person_rng, organ_rng, belly_rng, finding_rng = (
        np.random.default_rng([seed, KINDS.index(kind), part]) for part in range(4)
    )
    person = draw_person(person_rng)
    level = float(person_rng.uniform(*Z_RANGE_MM[kind])) if z_mm is None else float(z_mm)
    thorax = draw_thorax(organ_rng, person)
    belly = draw_abdomen(belly_rng, person, thorax)
    across_mm, down_mm = person_rng.normal(0, 6, 2)  # nobody is exactly in the middle
    heights = level + slice_mm * (np.arange(n_slices) - (n_slices - 1) / 2)
    spread = (float(heights[0]) - 0.5 * slice_mm, float(heights[-1]) + 0.5 * slice_mm)
    if kind == "chest":
        n = int(finding_rng.integers(0, 4)) if n_findings is None else n_findings
        thorax = replace(
            thorax, nodules=draw_nodules(finding_rng, person, thorax, n=n, z_range=spread, kind=nodule_kind)
        )
    else:
        wanted = int(finding_rng.integers(0, 5)) if n_findings is None else n_findings
        try:
            lesions = draw_lesions(finding_rng, person, thorax, belly, n=wanted, z_range=spread)
        except ValueError:
            if n_findings is not None:
                raise
            lesions = ()
        belly = replace(belly, lesions=lesions)

    x, y, pixel_mm = pixels(person, matrix, (float(across_mm), float(down_mm)))
    hu = np.empty((n_slices, matrix, matrix), dtype=np.float32)
    labels = np.empty((n_slices, matrix, matrix), dtype=np.uint8)
    for i, z in enumerate(heights):
        canvas = Canvas(x, y, float(z))
        wall = Wall.of(person, canvas)
        paint_table(person, canvas, wall)
        paint_wall(person, canvas, wall)
        paint_shoulder_blades(person, canvas, wall)
        paint_abdomen(person, thorax, belly, canvas)
        paint_lungs(person, thorax, canvas)
        paint_mediastinum(person, thorax, canvas)
        paint_nodules(person, thorax, canvas)
        paint_ribs(person, canvas, wall)
        paint_spine(person, canvas)
        hu[i] = seen_by_scanner(canvas.hu, pixel_mm)
        labels[i] = canvas.labels

    affine = ras_affine(x, y, pixel_mm, slice_mm=slice_mm, z_mm=float(heights[0]))
    findings = (*(_of_nodule(nodule) for nodule in thorax.nodules), *(_of_lesion(lesion) for lesion in belly.lesions))
    return CTPhantom(kind, seed, to_ras(hu), to_ras(labels), affine, person.phase, findings)


def pixels(person: Person, matrix: int, off_mm: tuple[float, float]) -> tuple[np.ndarray, np.ndarray, float]:
    """Positions of a slice's pixels in mm, x ``(1, nx)`` and y ``(ny, 1)``, and their width, which fits the person."""
    fov_mm = float(np.clip(2.0 * (person.cage[0] + 30 + person.fat_mm) + 40, 340, 500))
    pixel_mm = fov_mm / matrix
    from_middle = (np.arange(matrix) - (matrix - 1) / 2) * pixel_mm
    x = (from_middle + off_mm[0]).astype(np.float32)[None, :]
    return x, (from_middle + 8 + off_mm[1]).astype(np.float32)[:, None], pixel_mm


def seen_by_scanner(hu: np.ndarray, pixel_mm: float) -> np.ndarray:
    """A painted slice at a scanner's resolution, clipped to values that scanners store."""
    return np.maximum(gaussian_filter(hu, fwhm_to_sigma(FWHM_MM) / pixel_mm, mode="nearest"), -1024)


def ras_affine(x: np.ndarray, y: np.ndarray, pixel_mm: float, *, slice_mm: float, z_mm: float) -> np.ndarray:
    """The affine of slices after `to_ras`: LPS rows and columns become RAS, both in-plane axes are reversed."""
    affine = np.diag([pixel_mm, pixel_mm, slice_mm, 1.0])
    affine[:3, 3] = (-float(x[0, -1]), -float(y[-1, 0]), z_mm)
    return affine


def to_ras(slices: np.ndarray) -> np.ndarray:
    """``(z, y, x)`` with y to the back and x to the left, as ``(x, y, z)`` with x to the right and y to the front."""
    return np.ascontiguousarray(slices[:, ::-1, ::-1].transpose(2, 1, 0))


def _of_nodule(nodule: Nodule) -> Finding:
    x, y, z = nodule.centre_mm
    return Finding("nodule", nodule.kind, (-x, -y, z), nodule.diameter_mm)


def _of_lesion(lesion: Lesion) -> Finding:
    x, y, z = lesion.centre_mm
    return Finding("liver lesion", "low contrast", (-x, -y, z), lesion.diameter_mm, lesion.contrast_hu)
