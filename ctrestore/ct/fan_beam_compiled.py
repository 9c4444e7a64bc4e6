"""The two sums of ``fan_beam`` as loops that numba compiles, on all cores of a CPU.

A quarter turn of the scanner about a square image is a quarter turn of the image. So four views share the positions of
their samples, which are half the work, and their values are adjacent in memory, so one vector instruction
processes all four. Other images have only one "turn", and take twice as long.

The loops release the GIL and run in Python's threads (:func:`ctrestore.psf.in_threads`), not in numba's: numba's
threads crash the process if two threads use them at once, or if a process that used them forks, as a DataLoader does.
They are compiled in every process (one second): numba's cache on disk fails if the package and home are read-only.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numba import njit

from ctrestore.psf import N_THREADS, in_threads

if TYPE_CHECKING:
    from ctrestore.ct.fan_beam_geometry import BackProjection, Rays


def _parts(n: int) -> list[slice]:
    """``n`` items in a few parts per thread, so that no thread waits long for another."""
    bounds = np.linspace(0, n, min(n, 4 * N_THREADS) + 1).astype(int)
    return [slice(int(first), int(last)) for first, last in zip(bounds[:-1], bounds[1:])]


def project(lines: np.ndarray, rays: Rays) -> np.ndarray:
    """Line integrals ``(view, detector, turn)`` from columns and rows ``(2, line, position, turn)``."""
    out = np.zeros((*rays.start.shape, lines.shape[-1]), dtype=lines.dtype)
    loop = _project(lines.shape[-1])
    in_threads(lambda views: loop(lines, *(part[views] for part in rays), out[views]), _parts(len(out)))
    return out


@lru_cache
def _project(n_turns: int) -> Callable[..., None]:
    @njit(nogil=True, fastmath=True)
    def loop(lines: Any, by_row: Any, start: Any, slope: Any, length_mm: Any, out: Any) -> None:
        number = lines.dtype.type  # a float64 among float32 would halve the width of the vector instructions
        one, zero, last_position = number(1), number(0), number(lines.shape[2] - 2)
        for view in range(out.shape[0]):
            n_detectors, sums, rows = out.shape[1], out[view], by_row[view]
            starts, slopes = start[view], slope[view]
            first = 0
            while first < n_detectors:  # a run of detectors with all rays sampled on rows, or all on columns
                last = first
                while last < n_detectors and rows[last] == rows[first]:
                    last += 1
                image = lines[1] if rows[first] else lines[0]
                for index in range(image.shape[0]):
                    line, steps = image[index], number(index)
                    # From ray to ray the position moves one way: rays that miss the line are at the run's ends.
                    enter, leave = first, last
                    while enter < leave and not zero < starts[enter] + slopes[enter] * steps + one < last_position:
                        enter += 1
                    while (
                        enter < leave and not zero < starts[leave - 1] + slopes[leave - 1] * steps + one < last_position
                    ):
                        leave -= 1
                    for detector in range(enter, leave):
                        position = starts[detector] + slopes[detector] * steps + one
                        position = min(max(position, zero), last_position)
                        below = np.uint64(np.int32(position))  # unsigned: avoids the test for negative indices
                        weight = position - number(below)
                        above = below + np.uint64(1)
                        for turn in range(n_turns):
                            value = (one - weight) * line[below, turn] + weight * line[above, turn]
                            sums[detector, turn] += value
                first = last
            for detector in range(n_detectors):
                for turn in range(n_turns):
                    sums[detector, turn] *= number(length_mm[view, detector])

    return loop


def back_project(
    filtered: np.ndarray, *, angles_rad: np.ndarray, y_mm: np.ndarray, x_mm: np.ndarray, reading: BackProjection
) -> np.ndarray:
    """Images ``(y, x, turn)`` from filtered views ``(view, position, turn)``; the scale is not applied."""
    dtype = filtered.dtype
    out = np.zeros((len(y_mm), len(x_mm), filtered.shape[-1]), dtype=dtype)
    cos, sin, y, x = (part.astype(dtype) for part in (np.cos(angles_rad), np.sin(angles_rad), y_mm, x_mm))
    numbers = [dtype.type(n) for n in (reading.radius_mm, reading.centre, reading.per_tangent)]
    loop = _back_project(filtered.shape[-1])
    in_threads(lambda rows: loop(filtered, cos, sin, y[rows], x, *numbers, out[rows]), _parts(len(out)))
    return out


@lru_cache
def _back_project(n_turns: int) -> Callable[..., None]:
    @njit(nogil=True, fastmath=True)
    def loop(
        filtered: Any, cos: Any, sin: Any, y: Any, x: Any, radius: Any, centre: Any, per_tangent: Any, out: Any
    ) -> None:
        number = filtered.dtype.type
        one, zero, last_position = number(1), number(0), number(filtered.shape[1] - 2)
        for view in range(len(filtered)):
            values, c, s = filtered[view], cos[view], sin[view]
            for row in range(len(y)):
                depth_0, across_0 = radius - y[row] * s, -y[row] * c
                for column in range(len(x)):
                    inverse = one / (depth_0 - x[column] * c)
                    position = (across_0 + x[column] * s) * inverse * per_tangent + centre
                    position = min(max(position, zero), last_position)
                    below = np.uint64(np.int32(position))
                    above, weight = below + np.uint64(1), (position - number(below)) * inverse * inverse
                    rest = inverse * inverse - weight
                    for turn in range(n_turns):
                        out[row, column, turn] += rest * values[below, turn] + weight * values[above, turn]

    return loop
