"""Hounsfield units (HU) and conversions: stored values, attenuation, windows, network input.

0 HU is water, -1000 HU is no attenuation at all. All functions take numpy arrays or torch tensors of any shape.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from ctrestore.psf import as_float

WATER_PER_MM = 0.0192  # linear attenuation of water at 70 keV, about the mean energy of a scan at 120 kV
NETWORK_RANGE_HU = (-1000.0, 2000.0)  # becomes (-1, 2): HU / 1000


class Window(NamedTuple):
    """The HU that a picture shows: from ``level - width / 2`` (black) to ``level + width / 2`` (white)."""

    level: float
    width: float

    @property
    def range_hu(self) -> tuple[float, float]:
        """Black and white, in HU."""
        return self.level - self.width / 2, self.level + self.width / 2


#: Windows that radiologists use; "abdomen" is -160..240 HU and "lung" -1350..150 HU, as in the papers on denoising.
WINDOWS = {
    "abdomen": Window(40, 400),
    "liver": Window(60, 160),
    "mediastinum": Window(50, 350),
    "lung": Window(-600, 1500),
    "bone": Window(400, 1800),
    "brain": Window(40, 80),
}


def hu_to_attenuation(hu: Any, *, water_per_mm: float = WATER_PER_MM) -> Any:
    """Linear attenuation per mm; negative for HU below -1000, which scanners write for noise and for padding.

    Args:
        hu: an array in HU.
        water_per_mm: attenuation of water at the energy in question.
    """
    return (as_float(hu) / 1000.0 + 1.0) * _plausible(water_per_mm)


def attenuation_to_hu(attenuation_per_mm: Any, *, water_per_mm: float = WATER_PER_MM) -> Any:
    """HU from linear attenuation per mm: the inverse of :func:`hu_to_attenuation`."""
    return (as_float(attenuation_per_mm) / _plausible(water_per_mm) - 1.0) * 1000.0


def _plausible(water_per_mm: float) -> float:
    if not 0.001 < water_per_mm < 0.1:  # 15 keV to beyond 10 MeV
        raise ValueError(
            f"water_per_mm is the attenuation of water per mm, about {WATER_PER_MM}; got {water_per_mm!r}. "
            "Usual cause: a value per cm (0.192 at 70 keV). Remedy: divide it by 10."
        )
    return float(water_per_mm)


def check_hu(hu: Any) -> None:
    """Refuse an image that cannot be CT in HU.

    Raises:
        ValueError: a value is not finite, or the range is typical of stored values or of a normalised image.
    """
    lowest, highest = float(hu.min()), float(hu.max())
    if not (math.isfinite(lowest) and math.isfinite(highest)):
        raise ValueError("the image holds NaN or infinite values. Remedy: replace them, for instance by -1000 (air).")
    cause = ""
    if lowest >= 0 and highest > 1000:
        cause = "stored values without their rescale intercept. Remedy: stored_to_hu(stored, slope=..., intercept=...)."
    elif -2 <= lowest < highest <= 5:
        cause = "a normalised image. Remedy: denormalise(image)."
    elif lowest >= 0 and 5 < highest <= 255 and highest - lowest > 100:
        cause = "an 8-bit picture of a window. Remedy: map its grey values back to HU first."
    if cause:
        raise ValueError(
            f"expected Hounsfield units (air -1000, water 0); got values from {lowest:.4g} to {highest:.4g}. "
            f"Usual cause: {cause}"
        )


def check_has_air(hu: Any) -> None:
    """Refuse a scan without air around or in the patient: its values are not HU.

    Args:
        hu: a whole scan, or its lowest and highest value.

    Raises:
        ValueError: a value is not finite, none is below -500 HU, or none above 0.
    """
    lowest, highest = float(hu.min()), float(hu.max())
    if not (math.isfinite(lowest) and math.isfinite(highest)):
        raise ValueError("it holds NaN or infinite voxels. Remedy: replace them, in air by -1000.")
    if lowest > -500 or highest < 0:
        raise ValueError(
            f"its values go from {lowest:g} to {highest:g}; a CT in HU has air near -1000 and tissue above 0. Usual "
            "cause: PET or MR, stored values without the rescale intercept, or a normalised image. Remedy: CT in HU."
        )


def stored_to_hu(stored: np.ndarray, *, slope: float, intercept: float) -> np.ndarray:
    """HU in float32 from the values of a DICOM file: ``slope * stored + intercept`` (PS3.3 C.11.1)."""
    _check_rescale(slope, intercept)
    return (np.asarray(stored, dtype=np.float64) * slope + intercept).astype(np.float32)


def hu_to_stored(
    hu: np.ndarray,
    *,
    slope: float,
    intercept: float,
    dtype: Any,
    bits_stored: int | None = None,
) -> tuple[np.ndarray, int]:
    """The values to store, and how many of them had to be clipped: the inverse of :func:`stored_to_hu`, rounded.

    An integer converted to HU with the same slope and intercept becomes the same integer again.

    Args:
        hu: an array in HU.
        slope: HU per stored unit.
        intercept: HU of a stored zero.
        dtype: integer type of the result.
        bits_stored: of each value, if fewer than in the type (12 of 16 in many scanners).

    Raises:
        ValueError: a value is not finite, the slope is zero, or the type is not an integer type.
    """
    _check_rescale(slope, intercept)
    dtype = np.dtype(dtype)
    if dtype.kind not in "iu":
        raise ValueError(f"stored values are integers; got dtype {dtype}. Remedy: np.int16 or np.uint16.")
    bits = 8 * dtype.itemsize if bits_stored is None else bits_stored
    if not 1 <= bits <= 8 * dtype.itemsize:
        raise ValueError(f"bits_stored is 1 to {8 * dtype.itemsize} for {dtype}; got {bits_stored!r}.")
    lowest, highest = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if dtype.kind == "i" else (0, 2**bits - 1)
    values = np.asarray(np.subtract(np.asarray(hu), intercept, dtype=np.float64))  # the other steps are in place
    values /= slope
    np.rint(values, out=values)
    ends = (values.min(), values.max()) if values.size else (lowest, highest)
    if not np.isfinite(ends).all():  # NaN spreads to minimum and maximum
        raise ValueError(
            f"{int((~np.isfinite(values)).sum())} values are NaN or infinite, which no integer can hold. "
            "Remedy: replace them, for instance by -1000 (air)."
        )
    if lowest <= ends[0] and ends[1] <= highest:
        return values.astype(dtype), 0
    n_clipped = int(((values < lowest) | (values > highest)).sum())
    return values.clip(lowest, highest).astype(dtype), n_clipped


def _check_rescale(slope: float, intercept: float) -> None:
    if not (math.isfinite(slope) and math.isfinite(intercept)) or slope == 0:
        raise ValueError(
            f"slope and intercept are finite, and the slope is not 0; got slope {slope!r}, intercept {intercept!r}. "
            "Usual cause: a damaged header. Most CT files have slope 1 and intercept -1024."
        )


def window(hu: Any, name: str | None = None, *, level: float | None = None, width: float | None = None) -> Any:
    """Grey values of a window: 0 (black) to 1 (white), linear between and clipped beyond.

    Args:
        hu: an array in HU.
        name: one of :data:`WINDOWS`; otherwise give level and width.
        level: HU of the middle grey.
        width: HU between black and white.

    Raises:
        ValueError: there is no such window, or the name and the numbers are both given or both missing.
    """
    if (name is None) == (level is None and width is None):
        raise ValueError(f"give a window by name ({', '.join(WINDOWS)}) or by level and width, but not both.")
    if name is not None:
        if name not in WINDOWS:
            raise ValueError(f"window is one of {', '.join(WINDOWS)}; got {name!r}. For others: level=..., width=...")
        level, width = WINDOWS[name]
    if level is None or width is None or not width > 0:
        raise ValueError(f"a window has a level and a positive width in HU; got level {level!r}, width {width!r}.")
    return ((as_float(hu) - (level - width / 2)) / width).clip(0.0, 1.0)


def normalise(hu: Any, *, range_hu: tuple[float, float] = NETWORK_RANGE_HU) -> Any:
    """Network input, HU / 1000 by default: ``range_hu`` becomes (-1, 2). Nothing is clipped.

    The mapping is linear, so values outside the range (padding, metal) can be restored.
    """
    lowest, highest = _check_range(range_hu)
    return (as_float(hu) - lowest) * (3.0 / (highest - lowest)) - 1.0


def denormalise(normalised: Any, *, range_hu: tuple[float, float] = NETWORK_RANGE_HU) -> Any:
    """HU from network output: the inverse of :func:`normalise`."""
    lowest, highest = _check_range(range_hu)
    return (as_float(normalised) + 1.0) * ((highest - lowest) / 3.0) + lowest


def _check_range(range_hu: tuple[float, float]) -> tuple[float, float]:
    lowest, highest = range_hu
    if not lowest < highest:
        raise ValueError(f"range_hu is (lowest, highest) in HU, for instance {NETWORK_RANGE_HU}; got {range_hu!r}.")
    return lowest, highest
