"""The two sums of ``fan_beam`` as loops that numba compiles, on all cores of a CPU.

The loops leave Python alone and run in Python's threads (:func:`ctrestore.psf.in_threads`), not in numba's: those end
the process where two threads use them at once, or where a process that used them forks, as a DataLoader does.
They are compiled in every process (a second): numba's cache on disk fails where the package and home are read-only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numba import njit

from ctrestore.psf import N_THREADS, in_threads

if TYPE_CHECKING:
    from ctrestore.ct.fan_beam import FanBeam, Pixels, Rays


def _parts(n: int) -> list[slice]:
    """``n`` items in a few parts a thread, so that none waits long for another."""
    bounds = np.linspace(0, n, min(n, 4 * N_THREADS) + 1).astype(int)
    return [slice(int(first), int(last)) for first, last in zip(bounds[:-1], bounds[1:])]


def project(lines: np.ndarray, rays: Rays) -> np.ndarray:
    """Line integrals ``(view, detector)`` from columns and rows ``(2, line, position)``, as ``fan_beam`` makes them."""
    lines = np.ascontiguousarray(lines)
    out = np.empty(rays.start.shape, dtype=lines.dtype)
    in_threads(lambda views: _project(lines, *(part[views] for part in rays), out[views]), _parts(len(out)))
    return out


@njit(nogil=True, fastmath=True)
def _project(lines: Any, by_row: Any, start: Any, slope: Any, length_mm: Any, out: Any) -> None:
    n_lines, n_positions = lines.shape[1], lines.shape[2]
    highest = np.int32(n_positions - 2)
    for view in range(out.shape[0]):
        for detector in range(out.shape[1]):
            image = lines[1] if by_row[view, detector] else lines[0]
            first_position, step = start[view, detector] + np.float32(1), slope[view, detector]
            # The lines on which the ray lies between the zeros before and behind the image.
            first, last = 0, n_lines
            if abs(step) > 1e-9:
                enters, leaves = -first_position / step, (highest - first_position) / step
                if enters > leaves:
                    enters, leaves = leaves, enters
                first, last = max(first, int(np.ceil(enters))), min(last, int(np.floor(leaves)) + 1)
            elif first_position < 0 or first_position > highest:
                last = 0
            total = np.float32(0)
            for line in range(first, last):
                position = first_position + step * np.float32(line)
                below = min(max(np.int32(position), np.int32(0)), highest)
                weight = position - below
                value = image[line, below]
                total += value + weight * (image[line, below + 1] - value)
            out[view, detector] = total * length_mm[view, detector]


def back_project(filtered: np.ndarray, geometry: FanBeam, pixels: Pixels) -> np.ndarray:
    """The image ``(y, x)`` from filtered views ``(view, position)``, as ``fan_beam`` makes them."""
    from ctrestore.ct.fan_beam import back_projection

    reading, angles = back_projection(geometry), geometry.view_angles_rad
    dtype = filtered.dtype
    cos, sin = np.cos(angles).astype(dtype), np.sin(angles).astype(dtype)
    y, x = (pixels.centres_mm(axis).astype(dtype) for axis in (0, 1))
    numbers = [dtype.type(n) for n in (geometry.source_to_isocentre_mm, reading.centre, reading.per_tangent)]
    out = np.zeros(pixels.shape, dtype=dtype)
    in_threads(lambda rows: _back_project(filtered, cos, sin, y[rows], x, *numbers, out[rows]), _parts(len(out)))
    return out * dtype.type(reading.scale)


@njit(nogil=True, fastmath=True)
def _back_project(
    filtered: Any, cos: Any, sin: Any, y: Any, x: Any, radius: Any, centre: Any, per_tangent: Any, out: Any
) -> None:
    number = filtered.dtype.type  # a float64 or an int64 among float32 halves the width of the vector instructions
    one, zero, last = number(1), number(0), number(filtered.shape[1] - 2)
    for view in range(len(filtered)):
        values, c, s = filtered[view], cos[view], sin[view]
        for row in range(len(y)):
            depth_0, across_0 = radius - y[row] * s, -y[row] * c
            sums = out[row]
            for column in range(len(x)):
                inverse = one / (depth_0 - x[column] * c)
                position = (across_0 + x[column] * s) * inverse * per_tangent + centre
                position = min(max(position, zero), last)
                below = np.int32(position)
                weight, value = position - number(below), values[below]
                sums[column] += inverse * inverse * (value + weight * (values[below + 1] - value))
