"""Geometry of a series' slices: order along the normal, even steps, gantry tilt, the affine.

DICOM's patient coordinates are LPS (left, posterior, superior), the affines here RAS like nibabel's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ctrestore.errors import InputError
from ctrestore.io.dicom.series import Slice

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
# Scanners write positions with as little as one decimal: with steps of 0.625 mm every position is up to 0.05 mm off.
EVEN_WITHIN = 0.1  # of a step
SAME_PLACE_MM = 0.01
SAME_DIRECTION = 1e-3  # orientations are written with about four decimals


@dataclass(frozen=True, eq=False)
class Geometry:
    """Grid ``(columns, rows, slices)`` of a series, and the shift of each slice on it.

    Args:
        shape: ``(x, y, z)``.
        affine: voxel to mm, RAS, 4 x 4.
        origin_px: row and column of this grid's first pixel on the first slice; other than 0 only after resampling.
        shift_px: rows and columns between each slice and the slice before it; 0 unless the gantry was tilted.
    """

    shape: tuple[int, int, int]
    affine: np.ndarray
    origin_px: tuple[int, int] = (0, 0)
    shift_px: tuple[float, float] = (0.0, 0.0)

    @property
    def resampled(self) -> bool:
        """Whether the grid differs from the slices' own."""
        return any(self.shift_px)


def normal_of(orientation: Sequence[float]) -> np.ndarray:
    """Unit vector along which slices are sorted: row direction x column direction."""
    normal = np.cross(orientation[:3], orientation[3:])
    return normal / np.linalg.norm(normal)


def affine_of(orientation: Sequence[float], spacing_mm: Sequence[float], step: np.ndarray, position: np.ndarray):
    """RAS affine of an array ``(column, row, slice)`` (PS3.3 C.7.6.2.1.1, eq. C.7.6.2.1-1)."""
    affine = np.eye(4)
    affine[:3, 0] = np.asarray(orientation[:3]) * spacing_mm[1]
    affine[:3, 1] = np.asarray(orientation[3:]) * spacing_mm[0]
    affine[:3, 2], affine[:3, 3] = step, position
    return LPS_TO_RAS @ affine


def arranged(
    slices: Sequence[Slice], *, untilt: bool, single_slice: bool, sheared: bool = False
) -> tuple[list[Slice], Geometry]:
    """Slices sorted along their normal, and their grid.

    Args:
        slices: of one series.
        untilt: make a grid at right angles from a tilted gantry's slices.
        single_slice: accept a single one.
        sheared: keep the positions of a tilted gantry's slices; their affine is then sheared.

    Raises:
        InputError: they are not a stack of equal and evenly spaced slices.
    """
    _check_equal(slices)
    first = slices[0]
    known = [s.position_mm for s in slices if s.position_mm is not None]
    if first.spacing_mm is None or first.orientation is None or len(known) < len(slices):
        raise InputError(
            f"{first.name}: no PixelSpacing, ImageOrientationPatient or ImagePositionPatient, so its place and size "
            "in the patient are unknown. Usual cause: a screenshot or an anonymiser. Remedy: export the original."
        )
    rows, columns = first.shape
    direction, spacing_mm = first.orientation, first.spacing_mm
    normal = normal_of(direction)
    along = np.array(known) @ normal
    order = np.argsort(along, kind="stable")
    ordered, along, positions = [slices[i] for i in order], along[order], np.array(known)[order]
    if len(ordered) == 1:
        step = normal * _thickness(first, allowed=single_slice)
        return ordered, Geometry((columns, rows, 1), affine_of(direction, spacing_mm, step, positions[0]))

    _check_steps(ordered, along)
    step = (positions[-1] - positions[0]) / (len(ordered) - 1)
    even = positions[0] + np.arange(len(ordered))[:, None] * step
    gap_mm = float(step @ normal)
    off = np.linalg.norm(positions - even, axis=1)
    if off.max() > max(SAME_PLACE_MM, EVEN_WITHIN * gap_mm):
        raise InputError(
            f"{ordered[int(off.argmax())].name}: lies {off.max():.2f} mm beside the line through the other slices. "
            "Usual cause: several reconstructions or a moved table in one series. Remedy: export them as series."
        )
    sideways = step - gap_mm * normal
    if sheared or np.linalg.norm(sideways) <= max(SAME_PLACE_MM, 0.01 * gap_mm):
        return ordered, Geometry((columns, rows, len(ordered)), affine_of(direction, spacing_mm, step, positions[0]))
    if not untilt:
        moved_mm = float(np.linalg.norm(sideways))
        raise InputError(
            f"{first.path.parent}: gantry tilt of {np.degrees(np.arctan2(moved_mm, gap_mm)):.1f} degrees, each slice "
            f"lies {moved_mm:.2f} mm beside the one before. Remedy: untilt=True resamples the slices (linear)."
        )
    # The grid at right angles that contains all slices of the tilted stack.
    n = len(ordered)
    along_row, along_column = np.array(direction[:3]), np.array(direction[3:])
    shift = np.array([sideways @ along_column / spacing_mm[0], sideways @ along_row / spacing_mm[1]])
    shift[np.abs(shift) * n < 0.01] = 0.0  # the tilt is about one axis; the other's share is rounding
    low = np.floor(np.minimum(0, (n - 1) * shift)).astype(int)
    high = np.ceil(np.maximum(0, (n - 1) * shift)).astype(int)
    corner = positions[0] + low[0] * spacing_mm[0] * along_column + low[1] * spacing_mm[1] * along_row
    return ordered, Geometry(
        (columns + int(high[1] - low[1]), rows + int(high[0] - low[0]), n),
        affine_of(direction, spacing_mm, gap_mm * normal, corner),
        (int(low[0]), int(low[1])),
        (float(shift[0]), float(shift[1])),
    )


def _thickness(single: Slice, *, allowed: bool) -> float:
    if not allowed:
        raise InputError(
            f"{single.name}: the series is one slice, so nothing tells its spacing. Usual cause: an incomplete copy. "
            "Remedy: single_slice=True, if one is all there is; its SliceThickness then stands for the spacing."
        )
    if not single.thickness_mm or single.thickness_mm <= 0:
        raise InputError(f"{single.name}: one slice without SliceThickness; its size along the normal is unknown.")
    return single.thickness_mm


def _check_equal(slices: Sequence[Slice]) -> None:
    """Refuse slices of several sizes, orientations or pixel spacings."""
    first = slices[0]
    for other in slices:
        if other.shape != first.shape:
            raise InputError(
                f"{other.path.parent}: slices of different sizes in one series, {first.shape} and {other.shape} (rows, "
                f"columns; {other.name}). Usual cause: mixed exports. Remedy: keep the files of one reconstruction."
            )
        if _differ(other.orientation, first.orientation, SAME_DIRECTION):
            raise InputError(
                f"{other.path.parent}: slices of different orientations in one series, {first.orientation} and "
                f"{other.orientation} ({other.name}). Usual cause: reformatted images beside the axial ones. Remedy: "
                "keep the files of one orientation."
            )
        if _differ(other.spacing_mm, first.spacing_mm, 1e-4):
            raise InputError(
                f"{other.path.parent}: slices of different PixelSpacing in one series, {first.spacing_mm} and "
                f"{other.spacing_mm} mm ({other.name}). Usual cause: two fields of view. Remedy: keep the files of one."
            )


def _differ(one: Sequence[float] | None, other: Sequence[float] | None, tolerance: float) -> bool:
    if one is None or other is None:
        return one is not other
    return not np.allclose(one, other, rtol=0, atol=tolerance)


def _check_steps(ordered: Sequence[Slice], along: np.ndarray) -> None:
    """Refuse two slices at one position, missing slices and uneven steps."""
    gaps = np.diff(along)
    if gaps.min() < SAME_PLACE_MM:
        k = int(gaps.argmin())
        copies = ordered[k].instance_uid == ordered[k + 1].instance_uid and ordered[k].frame == ordered[k + 1].frame
        raise InputError(
            f"{ordered[k].name} and {ordered[k + 1].name}: duplicate slices, both {along[k]:.2f} mm along the normal. "
            + ("They are copies of one image. Remedy: remove one." if copies else
               "Usual cause: several phases, time frames or reconstructions in one series. Remedy: keep one of them.")
        )  # fmt: skip
    step = gaps[gaps < 1.5 * gaps.min()].mean()
    even = along[0] + np.arange(len(along)) * (along[-1] - along[0]) / (len(along) - 1)
    if np.abs(along - even).max() <= max(SAME_PLACE_MM, EVEN_WITHIN * step):
        return
    k = int(gaps.argmax())
    between = f"between {ordered[k].name} and {ordered[k + 1].name}"
    n_steps = np.round(gaps / step)
    if np.abs(gaps / n_steps - step).max() <= max(SAME_PLACE_MM, EVEN_WITHIN * step):
        raise InputError(
            f"{ordered[0].path.parent}: {int(n_steps.sum()) - len(gaps)} of {int(n_steps.sum()) + 1} slices are "
            f"missing; the largest gap, {gaps[k]:g} mm where {step:g} mm are usual, is {between}. Usual cause: an "
            "incomplete copy. Remedy: copy the series again."
        )
    raise InputError(
        f"{ordered[0].path.parent}: uneven steps, {gaps.min():g} to {gaps.max():g} mm; the largest is {between}. Usual "
        "cause: two scans of different spacing in one series, or missing slices. Remedy: keep one scan."
    )
