"""How sharp, and of how much contrast, inserted discs still are after a slice was made worse and restored."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from tqdm import tqdm

from ctrestore.ct import simulate_low_dose
from ctrestore.metrics import TISSUE_BANDS_HU, Disc, insert_disc, task_transfer, uniform_regions
from ctrestore.metrics.task_transfer import REACH, SMALLEST_RADIUS_PIXELS
from ctrestore.psf import N_THREADS
from ctrestore.tasks.ct_report.scores import INPUT, MOST_THREADS, Restorer, SlicePair
from ctrestore.tasks.ct_report.tables import By


class Task(NamedTuple):
    """A disc to find again: where it lies and how bright it is."""

    tissue: str
    contrast_hu: float

    def __str__(self) -> str:
        return f"{self.contrast_hu:+g} HU in {self.tissue}"


#: Fat or a cyst, a lesion that took up contrast medium, calcium, a nodule.
TASKS = (Task("soft tissue", -100.0), Task("soft tissue", 50.0), Task("soft tissue", 300.0), Task("lung", 700.0))
RADIUS_MM = 4.0
LUNG_HU = (-950.0, -650.0)  # wide enough for the small vessels that are everywhere


def insert_discs(pair: SlicePair, tasks: Iterable[Task] = TASKS) -> tuple[np.ndarray, dict[Task, Disc]]:
    """The full dose with a disc of each task in a uniform place of its tissue, and where they are.

    A task finds no place in a slice without enough of its tissue.
    """
    spacing = pair.spacing_mm
    radius = max(RADIUS_MM, SMALLEST_RADIUS_PIXELS * max(spacing))
    side = 2 * int(np.ceil((1 + REACH) * radius / min(spacing))) + 3
    placed: dict[Task, Disc] = {}
    image = pair.filled.astype(np.float64)
    wanted: dict[str, list[Task]] = {}
    for task in tasks:
        wanted.setdefault(task.tissue, []).append(task)
    for tissue, of_tissue in wanted.items():
        band = LUNG_HU if tissue == "lung" else TISSUE_BANDS_HU[tissue]
        try:
            places = uniform_regions(pair.filled, size_pixels=side, n_regions=len(of_tissue), band_hu=band)
        except ValueError:
            continue
        for task, place in zip(of_tissue, places):
            y, x = (
                (along.start + (along.stop - 1 - along.start) / 2) * step for along, step in zip(place, spacing)
            )  # mm from the first pixel's centre
            placed[task] = Disc((float(y), float(x)), radius, task.contrast_hu)
            image = insert_disc(image, placed[task], spacing_mm=spacing)
    return image, placed


def at_dose(image: np.ndarray, pair: SlicePair, dose_fraction: float, seed: int) -> np.ndarray:
    """The image at a fraction of its dose."""
    return simulate_low_dose(
        image,
        dose_fraction=dose_fraction,
        spacing_mm=pair.spacing_mm,
        seed=seed,
        photons_per_ray=pair.photons_per_ray,
    )


def evaluate_discs(
    pairs: Iterable[SlicePair],
    restorers: Mapping[str, Restorer] | Callable[[float], Mapping[str, Restorer]],
    *,
    doses: Iterable[Any],
    worsen: Callable[[np.ndarray, SlicePair, Any, int], np.ndarray] = at_dose,
    by: By = "dose_fraction",
    seed: int = 0,
    tasks: Iterable[Task] = TASKS,
    n_threads: int | None = None,
) -> pd.DataFrame:
    """One line for each slice, dose, method and disc: its contrast, and the frequency that passes by half.

    Discs are inserted before the slice is made worse, with the noise of the same slice without them; what is measured
    is the difference of the two restored slices, which holds no anatomy and hardly any noise.

    Args:
        pairs: their low dose is not used.
        restorers: as for :func:`ctrestore.tasks.ct_report.scores.evaluate_slices`.
        doses: fractions to simulate; or whatever else ``worsen`` takes.
        worsen: from image, pair, dose and seed to the image at that dose.
        by: name of the column of the doses.
        seed: of the noise.
        tasks: what to insert.
        n_threads: slices at once; by default two.

    Returns:
        Columns ``patient``, ``slice``, ``dose_fraction``, ``row``, ``task``, ``contrast_recovery`` (1 is perfect) and
        ``f50`` in units of the untouched disc's 1/mm: ``f50_per_mm``, NaN where the transfer stays above one half up to
        the Nyquist frequency, ``transfer_at_half_nyquist``.
    """
    tasks, doses = tuple(tasks), tuple(doses)

    def of(pair: SlicePair) -> list[dict[str, Any]]:
        with_discs, placed = insert_discs(pair, tasks)
        without = pair.filled.astype(np.float64)
        lines: list[dict[str, Any]] = []
        for dose in doses if placed else ():
            low, low_without = (worsen(image, pair, dose, seed) for image in (with_discs, without))
            methods = restorers(dose) if callable(restorers) else restorers
            rows: dict[str, Restorer] = {INPUT: np.copy, **methods}
            for row, restore in rows.items():
                difference = np.subtract(
                    restore(low.astype(np.float32)), restore(low_without.astype(np.float32)), dtype=np.float64
                )
                for task, disc in placed.items():
                    found = task_transfer(difference, disc, spacing_mm=pair.spacing_mm)
                    half_nyquist = len(found.transfer) // 2
                    lines.append(
                        {
                            "patient": pair.patient,
                            "slice": pair.name,
                            by: dose,
                            "row": row,
                            "task": str(task),
                            "contrast_recovery": found.contrast_recovery,
                            "f50_per_mm": found.frequency_at(0.5),
                            "transfer_at_half_nyquist": float(found.transfer[half_nyquist]),
                        }
                    )
        return lines

    found: list[dict[str, Any]] = []
    with ThreadPoolExecutor(n_threads or min(MOST_THREADS, N_THREADS)) as pool:
        for lines in tqdm(pool.map(of, pairs), desc="inserted discs", unit="slice", disable=None):
            found += lines
    columns = ("patient", "slice", by, "row", "task")
    measures = ("contrast_recovery", "f50_per_mm", "transfer_at_half_nyquist")
    return pd.DataFrame(found, columns=[*columns, *measures])
