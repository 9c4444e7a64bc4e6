"""Restored CT slices against their full dose: what is measured of each slice, in one row a method.

Slices are ``(y, x)`` in HU, as seen from the feet with the nose up. A method is a function from slice to slice.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import ndimage
from scipy.signal import fftconvolve
from tqdm import tqdm

from ctrestore.ct.low_dose import PADDING_BELOW_HU, PHOTONS_PER_RAY
from ctrestore.errors import InputError
from ctrestore.metrics import (
    TISSUE_BANDS_HU,
    TISSUE_MEDIAN_PIXELS,
    Disc,
    disc_coverage,
    noise_power_spectrum,
    scores,
    tissue_band_errors,
    uniform_regions,
)
from ctrestore.psf import N_THREADS

Restorer = Callable[[np.ndarray], np.ndarray]

INPUT, FULL_DOSE = "input", "full dose"
#: Soft tissue, the whole range, the lungs.
SCORED_PROTOCOLS = ("hu400_soft_tissue", "full4096", "ldctbench-chest")
LUNG_SHARE_OF_CHEST = 0.10  # of the body's pixels; abdomens with the lowest tip of the lungs stay below
BODY_HU = -300.0
FEWEST_PIXELS = 200  # of a tissue, for a bias of a slice to count
REGION_SIDES_PIXELS = (32, 20)  # of the squares that noise is measured in; the smaller where the larger do not fit
N_REGIONS = 8
EDGE_HU_PER_MM = 40.0  # vessels in the lung, organs against fat; noise, smoothed as below, does not reach it
EDGE_SIGMA_PIXELS, SURROUND_SIGMA_PIXELS = 1.0, 3.0
FALSE_DISC_RADIUS_MM = 3.0
FALSE_DISC_PERCENTILE = 99.9
FALSE_DISC_TISSUES = ("lung", "soft tissue")
MOST_THREADS = 2


@dataclass(frozen=True)
class SlicePair:
    """A slice at low and at full dose, ``(y, x)`` in HU; the full dose is NaN where it is not known.

    Attributes:
        low: what is restored.
        full: what it is compared with.
        spacing_mm: pixel size along y and x.
        patient: whom the slices of one patient have in common.
        name: of the slice.
        dose_fraction: of the low dose; NaN where nobody knows.
        noise: name of what was added to it, if anything was.
        photons_per_ray: of the full dose, for simulations of a lower one.
    """

    low: np.ndarray
    full: np.ndarray
    spacing_mm: tuple[float, float]
    patient: str
    name: str
    dose_fraction: float = float("nan")
    noise: str = ""
    photons_per_ray: float = PHOTONS_PER_RAY

    def __post_init__(self) -> None:
        if self.low.shape != self.full.shape or self.low.ndim != 2 or not np.isfinite(self.low).all():
            raise InputError(
                f"{self.name}: expected a low and a full dose (y, x) of one shape, the low one without NaN; got "
                f"{self.low.shape} and {self.full.shape}."
            )
        if not self.known.any():
            raise InputError(f"{self.name}: no pixel of the full dose is known. Usual cause: a wrong known_hu.")

    @cached_property
    def known(self) -> np.ndarray:
        """Where the full dose is known and no padding."""
        return np.isfinite(self.full) & (self.full >= PADDING_BELOW_HU)

    @cached_property
    def filled(self) -> np.ndarray:
        """The full dose, with the low one where it is not known: for measures that need an image without holes."""
        return np.where(np.isfinite(self.full), self.full, self.low)

    @cached_property
    def tissue(self) -> np.ndarray:
        """HU that tell the tissue: the full dose, its noise reduced by a median."""
        return ndimage.median_filter(self.filled, size=TISSUE_MEDIAN_PIXELS)

    @cached_property
    def lung_share(self) -> float:
        """Which share of the body, holes included, has the density of lung."""
        parts, n = ndimage.label(self.tissue > BODY_HU)
        if n == 0:
            return 0.0
        largest = parts == 1 + int(np.argmax(np.bincount(parts.ravel())[1:]))
        body = ndimage.binary_fill_holes(largest)
        low, high = TISSUE_BANDS_HU["lung"]
        return float(((self.tissue >= low) & (self.tissue < high) & body).sum() / body.sum())

    @property
    def region(self) -> str:
        """``chest`` or ``abdomen``."""
        return "chest" if self.lung_share >= LUNG_SHARE_OF_CHEST else "abdomen"

    @cached_property
    def uniform(self) -> np.ndarray | None:
        """Row and column of the first pixel of squares of soft tissue, and their side: ``(n, 3)``; None without any."""
        for side in REGION_SIDES_PIXELS:
            try:
                found = uniform_regions(self.filled, size_pixels=side, n_regions=N_REGIONS)
            except ValueError:
                continue
            return np.array([(rows.start, columns.start, side) for rows, columns in found])
        return None

    @cached_property
    def edges(self) -> tuple[np.ndarray, np.ndarray]:
        """Where the anatomy has edges, and how much brighter than its surroundings it is there."""
        smooth = ndimage.gaussian_filter(self.filled, EDGE_SIGMA_PIXELS)
        steepness = np.hypot(*np.gradient(smooth, *self.spacing_mm))
        surround = ndimage.gaussian_filter(self.filled, SURROUND_SIGMA_PIXELS)
        return (steepness > EDGE_HU_PER_MM) & self.known, smooth - surround

    @cached_property
    def disc_template(self) -> np.ndarray:
        """Weights whose sum with an image is the contrast of a disc to the ring around it."""
        half = int(np.ceil(2 * FALSE_DISC_RADIUS_MM / min(self.spacing_mm)))
        shape, centre = (2 * half + 1,) * 2, tuple(half * step for step in self.spacing_mm)
        inner, outer = (
            disc_coverage(Disc((centre[0], centre[1]), radius, 1.0), shape, spacing_mm=self.spacing_mm)
            for radius in (FALSE_DISC_RADIUS_MM, 2 * FALSE_DISC_RADIUS_MM)
        )
        return inner / inner.sum() - (outer - inner) / (outer - inner).sum()

    @cached_property
    def disc_places(self) -> dict[str, np.ndarray]:
        """By tissue: where a disc and the ring around it would lie wholly within it."""
        reach, places = 2 * FALSE_DISC_RADIUS_MM, {}
        for name in FALSE_DISC_TISSUES:
            low, high = TISSUE_BANDS_HU[name]
            inside = np.pad((self.tissue >= low) & (self.tissue < high) & self.known, 1)  # beyond the slice is outside
            distance_mm = ndimage.distance_transform_edt(inside, sampling=self.spacing_mm)
            places[name] = (distance_mm > reach)[1:-1, 1:-1]
        return places


class NoiseTexture(NamedTuple):
    """Of uniform soft tissue: variance in HU^2 and mean frequency in 1/mm of the noise; NaN without such tissue."""

    variance_hu2: float
    frequency_per_mm: float


def noise_texture(image: np.ndarray, pair: SlicePair) -> NoiseTexture:
    """Noise of an image in the uniform regions of the full dose."""
    if pair.uniform is None:
        return NoiseTexture(float("nan"), float("nan"))
    regions = np.stack([image[row : row + side, column : column + side] for row, column, side in pair.uniform])
    spectrum = noise_power_spectrum(regions, spacing_mm=pair.spacing_mm)
    variance = spectrum.variance_hu2
    return NoiseTexture(variance, spectrum.mean_frequency_per_mm if variance > 0 else float("nan"))


def edge_correlation(residual: np.ndarray, pair: SlicePair) -> float:
    """Correlation of an error with the anatomy at its edges: below 0 blurred, above 0 sharpened, 0 for plain noise."""
    where, detail = pair.edges
    if where.sum() < FEWEST_PIXELS or not residual[where].any():
        return float("nan")
    return float(np.corrcoef(residual[where], detail[where])[0, 1])


def false_discs_hu(residual: np.ndarray, pair: SlicePair) -> dict[str, float]:
    """By tissue: contrast of the strongest discs that an error holds and the anatomy does not, in HU.

    The 99.9th percentile, over all places where a disc of 3 mm radius and the ring around it lie within one tissue, of
    the contrast that it would be seen with. Noise makes such discs, too: compare with the input.
    """
    contrast = np.abs(fftconvolve(residual, pair.disc_template[::-1, ::-1], mode="same"))
    return {
        name: float(np.percentile(contrast[places], FALSE_DISC_PERCENTILE)) if places.any() else float("nan")
        for name, places in pair.disc_places.items()
    }


def measure(pred: np.ndarray, pair: SlicePair) -> dict[str, float]:
    """All measures of one restored slice, by the name of their column."""
    found: dict[str, float] = {}
    known = None if pair.known.all() else pair.known
    for protocol in SCORED_PROTOCOLS:
        row = scores(pred.astype(np.float64), pair.filled.astype(np.float64), protocol=protocol, known=known).as_row()
        found |= {column: value for column, value in row.items() if not column.startswith("protocol")}
    errors = tissue_band_errors(pred, pair.filled, tissue=pair.tissue, mask=pair.known)
    for name, error in errors.items():
        found[f"bias_hu[{name}]"] = error.bias_hu if error.n_pixels >= FEWEST_PIXELS else float("nan")
    residual = np.where(pair.known, np.subtract(pred, pair.filled, dtype=np.float64), 0.0)
    found["noise_hu2"], found["noise_per_mm"] = noise_texture(pred, pair)
    found["residual_hu2"], found["residual_per_mm"] = noise_texture(residual, pair)
    found["edge_correlation"] = edge_correlation(residual, pair)
    found |= {f"false_disc_hu[{name}]": value for name, value in false_discs_hu(residual, pair).items()}
    return found


def evaluate_slices(
    pairs: Iterable[SlicePair],
    restorers: Mapping[str, Restorer] | Callable[[float], Mapping[str, Restorer]],
    *,
    n_threads: int | None = None,
) -> pd.DataFrame:
    """One line for each slice and method, the untouched input being the first one.

    Args:
        pairs: may be a generator: each is forgotten when it is measured.
        restorers: from slice to slice, by the name of their row; or a function that gives them for a dose fraction,
            for methods with a setting for each.
        n_threads: slices that are measured at once; by default two.

    Returns:
        Columns ``patient``, ``slice``, ``region``, ``lung_share``, ``dose_fraction``, ``noise``, ``row``, ``seconds``
        and those of :func:`measure`; of the full dose itself (``full_noise_hu2``, ``full_noise_per_mm``) what its noise
        is.

    Raises:
        InputError: a method changes the shape of a slice, or gives NaN.
    """

    def of(pair: SlicePair) -> list[dict[str, Any]]:
        methods = restorers(pair.dose_fraction) if callable(restorers) else restorers
        full = noise_texture(pair.filled, pair)
        lines = []
        rows: dict[str, Restorer] = {INPUT: np.copy, **methods}
        for row, restore in rows.items():
            start = time.perf_counter()
            pred = np.asarray(restore(pair.low), dtype=np.float32)
            seconds = time.perf_counter() - start
            if pred.shape != pair.low.shape or not np.isfinite(pred).all():
                raise InputError(
                    f"{pair.name}: {row} made {pred.shape} of {pair.low.shape}, or NaN. Usual cause: weights that do "
                    "not belong to the network, or half precision that overflowed."
                )
            lines.append(
                {
                    "patient": pair.patient,
                    "slice": pair.name,
                    "region": pair.region,
                    "lung_share": pair.lung_share,
                    "dose_fraction": pair.dose_fraction,
                    "noise": pair.noise,
                    "row": row,
                    "seconds": seconds,
                    **measure(pred, pair),
                    "full_noise_hu2": full.variance_hu2,
                    "full_noise_per_mm": full.frequency_per_mm,
                }
            )
        return lines

    found: list[dict[str, Any]] = []
    with ThreadPoolExecutor(n_threads or min(MOST_THREADS, N_THREADS)) as pool:
        for lines in tqdm(pool.map(of, pairs), desc="evaluation", unit="slice", disable=None):
            found += lines
    return pd.DataFrame(found)
