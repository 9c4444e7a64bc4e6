"""PSNR, SSIM and RMSE of CT slices under a named protocol, which is required.

For the same pair of slices PSNR is 22 to 40 dB, depending on window and data range, so a number needs its protocol.
A protocol is what a group of authors computed, including errors: only so can their numbers be compared with ours.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

NORMALISED = (-1.0, 5.0)  # reference images within these limits are not in HU; (HU + 500) / 500 reaches 5


@dataclass(frozen=True)
class SSIMWindow:
    """The local window of SSIM: a Gaussian (sigma given, in pixels) or a square of equal weights.

    ``zero_border`` pads the slice with zeros, as a PyTorch convolution with ``padding`` does, and averages
    over every pixel. Otherwise only windows inside the slice count, as in scikit-image.
    """

    size_pixels: int
    sigma_pixels: float | None = None
    zero_border: bool = False

    def __str__(self) -> str:
        shape = "uniform" if self.sigma_pixels is None else f"Gaussian sigma {self.sigma_pixels:g}"
        return f"SSIM {self.size_pixels}x{self.size_pixels} {shape}, {'zero' if self.zero_border else 'no'} border"


WANG = SSIMWindow(11, sigma_pixels=1.5)  # Wang et al., IEEE Trans Image Process 13(4):600, 2004
SCIKIT_IMAGE = SSIMWindow(7)  # the default of skimage.metrics.structural_similarity


@dataclass(frozen=True)
class Protocol:
    """The conversion of a slice to the numbers that are compared: ``(value clipped to window - offset) / scale``.

    Args:
        name: its name in tables.
        window: limits to which both slices are clipped, in ``input_unit``; None: no clipping.
        offset: the value that becomes 0. PSNR and RMSE do not depend on it, SSIM does.
        scale: the difference that becomes 1, in ``input_unit``.
        data_range: peak of PSNR and range of SSIM, after scaling.
        ssim_window: local window of SSIM.
        rmse_window: if given, RMSE is computed from the unscaled slices clipped to these limits.
        input_unit: unit of the slices: ``HU`` or ``grey levels``.
        source: the authors of the protocol.
    """

    name: str
    window: tuple[float, float] | None
    data_range: float
    ssim_window: SSIMWindow
    offset: float = 0.0
    scale: float = 1.0
    rmse_window: tuple[float, float] | None = None
    input_unit: str = "HU"
    source: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        for name, window in (("window", self.window), ("rmse_window", self.rmse_window)):
            if window is not None and not window[0] < window[1]:
                raise ValueError(f"{name} must be (low, high) with low < high; got {window}.")
        if not (self.data_range > 0 and self.scale > 0):
            raise ValueError(f"data_range and scale must be positive; got {self.data_range} and {self.scale}.")

    @property
    def rmse_unit(self) -> str:
        """The unit of RMSE: ``HU``, or the number of HU in one."""
        return self.input_unit if self.rmse_window or self.scale == 1 else f"x {self.scale:g} {self.input_unit}"

    def __str__(self) -> str:
        """Everything needed to compute the numbers again, in one line.

        >>> print(PROTOCOLS["hu400_soft_tissue"])
        hu400_soft_tissue: HU clipped to -160..240, range 400, SSIM 11x11 Gaussian sigma 1.5, zero border
        >>> print(PROTOCOLS["hu500_notebook"])
        hu500_notebook: HU not clipped, (HU + 500) / 500, range 1, SSIM 7x7 uniform, no border
        """
        unit = self.input_unit
        parts = [f"{unit} clipped to {self.window[0]:g}..{self.window[1]:g}" if self.window else f"{unit} not clipped"]
        shifted = f"({unit} {'-' if self.offset > 0 else '+'} {abs(self.offset):g})" if self.offset else unit
        if self.offset or self.scale != 1:
            parts.append(f"{shifted} / {self.scale:g}" if self.scale != 1 else shifted)
        parts += [f"range {self.data_range:g}", str(self.ssim_window)]
        if self.rmse_window:
            parts.append(f"RMSE over {self.rmse_window[0]:g}..{self.rmse_window[1]:g} {unit}")
        return f"{self.name}: {', '.join(parts)}"

    def scaled(self, image: np.ndarray) -> np.ndarray:
        """The slice in the unit of the comparison, float64."""
        clipped = image if self.window is None else np.clip(image, *self.window)
        return (clipped - self.offset) / self.scale


def _ldctbench(region: str, centre_hu: float, width_hu: float) -> Protocol:
    """DICOM's windowing (PS3.3 C.11.2.1.2): 400 at 50 runs from -150 to 249 HU, which become 0 and 1."""
    low, steps = centre_hu - width_hu / 2, width_hu - 1
    return Protocol(
        name=f"ldctbench-{region}",
        window=(low, low + steps),
        offset=low,
        scale=steps,
        data_range=1.0,
        ssim_window=SCIKIT_IMAGE,
        rmse_window=(-1024.0, 1900.0),
        source="Eulig et al., Med Phys 51(12):8776, 2024; eeulig/ldct-benchmark, ldctbench/evaluate/utils.py",
    )


#: The protocols by name.
PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        Protocol(
            name="hu400_soft_tissue",
            window=(-160.0, 240.0),
            data_range=400.0,
            ssim_window=SSIMWindow(11, sigma_pixels=1.5, zero_border=True),
            source="SSinyu/RED-CNN, measure.py; the usual one for RED-CNN, WGAN-VGG, CTformer",
        ),
        _ldctbench("chest", -600.0, 1500.0),
        _ldctbench("abdomen", 50.0, 400.0),
        _ldctbench("neuro", 40.0, 80.0),
        Protocol(
            name="full4096",
            window=(-1024.0, 3072.0),
            offset=-1024.0,
            data_range=4096.0,
            ssim_window=WANG,
            source="the whole range of 12-bit CT; SSIM as published",
        ),
        Protocol(
            name="hu3000_slides",
            window=(-1000.0, 2000.0),
            scale=1000.0,
            data_range=3.0,
            ssim_window=SCIKIT_IMAGE,
            source="HU / 1000 in -1..2, the normalisation on the slides; their SSIM window is not on record",
        ),
        Protocol(
            name="hu500_notebook",
            window=None,
            offset=-500.0,
            scale=500.0,
            data_range=1.0,
            ssim_window=SCIKIT_IMAGE,
            source="the notebook's range of 1 belongs to images of 0..1, but its run from -1 to 5: about 15 dB too low",
        ),
        Protocol(
            name="grey8_course",
            window=None,
            data_range=255.0,
            ssim_window=WANG,
            input_unit="grey levels",
            source="8-bit images, maximum 255; the original subtracted unsigned bytes, which wraps around",
        ),
    )
}

ScoreName = Literal["psnr_db", "ssim", "rmse"]


@dataclass(frozen=True)
class Scores:
    """PSNR in dB, SSIM and RMSE of one slice, with their protocol."""

    psnr_db: float
    ssim: float
    rmse: float
    protocol: Protocol

    def __str__(self) -> str:
        """The numbers, each with its protocol, and the protocol's definition."""
        name = f"[{self.protocol.name}]"
        return (
            f"PSNR {self.psnr_db:.2f} dB {name}, SSIM {self.ssim:.4f} {name}, "
            f"RMSE {self.rmse:.4g} {self.protocol.rmse_unit} {name}; {self.protocol}"
        )

    def as_row(self) -> dict[str, Any]:
        """A row of a table: the protocol is in the names of the columns, its definition in the last one."""
        name = self.protocol.name
        return {
            f"psnr_db[{name}]": self.psnr_db,
            f"ssim[{name}]": self.ssim,
            f"rmse[{name}]": self.rmse,
            f"protocol[{name}]": str(self.protocol),
        }


def find_protocol(protocol: str | Protocol | None) -> Protocol:
    """The protocol of this name; your own :class:`Protocol` is returned as it is.

    Raises:
        ValueError: there is no such protocol, or no name was given.
    """
    if isinstance(protocol, Protocol):
        return protocol
    if protocol not in PROTOCOLS:
        raise ValueError(
            f"PSNR, SSIM and RMSE need a protocol; got {protocol!r}. Remedy: name one of {', '.join(PROTOCOLS)}, "
            "or give your own Protocol. Window and data range alone change PSNR by 18 dB."
        )
    return PROTOCOLS[protocol]


def scores(
    pred: Any, reference: Any, *, protocol: str | Protocol | None = None, known: np.ndarray | None = None
) -> Scores:
    """PSNR, SSIM and RMSE of a slice ``(y, x)`` against its reference, under a named protocol.

    Args:
        pred: the slice under test, floating point, in the protocol's input unit (HU, except for ``grey8_course``).
        reference: the reference slice, same shape and unit.
        protocol: a name in ``PROTOCOLS``, or a :class:`Protocol`. Deliberately without a default.
        known: boolean mask of the pixels with known reference, for example not saturated. The others are in no
            mean, and in the SSIM windows of their neighbours they count as right. The published protocols have no mask.

    Raises:
        ValueError: there is no protocol, no pixel is known, or the slices are integers, not in its unit, not finite, or
            of different shapes.

    >>> water, brighter = np.zeros((16, 16)), np.full((16, 16), 4.0)
    >>> round(scores(brighter, water, protocol="hu400_soft_tissue").psnr_db, 6)  # 20 log10(400 / 4)
    40.0
    """
    protocol = find_protocol(protocol)
    if known is not None:
        pred, reference = _agreeing_where_unknown(pred, reference, known)
    psnr_db, rmse, scaled, target = _errors(pred, reference, protocol)
    if known is not None:  # the errors were averaged over all pixels, and are zero in the unknown ones
        factor = known.size / np.count_nonzero(known)
        psnr_db, rmse = psnr_db - 10 * math.log10(factor), rmse * math.sqrt(factor)
    return Scores(psnr_db, _ssim(scaled, target, protocol, known), rmse, protocol)


def score(pred: Any, reference: Any, *, protocol: str | Protocol, which: ScoreName) -> float:
    """One of the three numbers of :func:`scores`; all but SSIM take a tenth of the time."""
    protocol = find_protocol(protocol)
    psnr_db, rmse, scaled, target = _errors(pred, reference, protocol)
    return {"psnr_db": psnr_db, "rmse": rmse}[which] if which != "ssim" else _ssim(scaled, target, protocol)


def _agreeing_where_unknown(pred: Any, reference: Any, known: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The two slices, made equal and finite where the reference is not known."""
    pred, reference = np.asarray(pred), np.asarray(reference)
    if known.dtype != bool or known.shape != reference.shape or pred.shape != reference.shape or not known.any():
        raise ValueError(
            f"known must be a boolean mask {reference.shape} with a pixel in it, and pred must have that shape; got "
            f"{known.dtype} {known.shape}, {np.count_nonzero(known)} set, and pred {pred.shape}."
        )
    filled = np.where(known | np.isfinite(reference), reference, reference[known].mean())
    return np.where(known, pred, filled), filled


def _errors(pred: Any, reference: Any, protocol: Protocol) -> tuple[float, float, np.ndarray, np.ndarray]:
    """PSNR, RMSE and the two slices as the protocol scales them."""
    from skimage.metrics import mean_squared_error  # takes half a second, and inference needs no comparison

    pred, reference = _slice(pred, "pred"), _slice(reference, "reference")
    _check_pair(pred, reference, protocol)
    scaled, target = protocol.scaled(pred), protocol.scaled(reference)
    squared_error = mean_squared_error(scaled, target)
    if protocol.rmse_window:
        rmse = math.sqrt(
            mean_squared_error(np.clip(pred, *protocol.rmse_window), np.clip(reference, *protocol.rmse_window))
        )
    else:
        rmse = math.sqrt(squared_error)
    psnr_db = 10 * math.log10(protocol.data_range**2 / squared_error) if squared_error > 0 else math.inf
    return psnr_db, rmse, scaled, target


def _ssim(scaled: np.ndarray, target: np.ndarray, protocol: Protocol, known: np.ndarray | None = None) -> float:
    from skimage.metrics import structural_similarity

    window = protocol.ssim_window
    arguments: dict[str, Any] = {"win_size": window.size_pixels}
    if window.sigma_pixels is not None:
        # scikit-image takes a Gaussian's extent from sigma and truncate, win_size only for the margin
        arguments |= {
            "gaussian_weights": True,
            "sigma": window.sigma_pixels,
            "truncate": (window.size_pixels // 2) / window.sigma_pixels,
            "use_sample_covariance": False,
        }
    if window.zero_border:
        # the mean over the inner windows of the padded slice is that over all windows of the slice
        scaled, target = (np.pad(image, window.size_pixels // 2) for image in (scaled, target))
        known = None if known is None else np.pad(known, window.size_pixels // 2)
    arguments["data_range"] = protocol.data_range
    if known is None:
        return float(structural_similarity(scaled, target, **arguments))
    _, of_windows = structural_similarity(scaled, target, full=True, **arguments)
    inner = (slice(window.size_pixels // 2, -(window.size_pixels // 2)),) * 2  # the windows inside the slice
    counted = known[inner]
    return float(of_windows[inner][counted].mean()) if counted.any() else float("nan")


def _slice(image: Any, name: str) -> np.ndarray:
    image = np.asarray(image)
    if image.dtype.kind != "f":
        raise ValueError(
            f"{name} must be floating point; got {image.dtype}. Differences of unsigned integers wrap around, which "
            "gives 28 dB for any two 8-bit images, and squares of 16-bit ones overflow. Remedy: image.astype(float)."
        )
    if image.ndim != 2:
        raise ValueError(
            f"{name} must be one slice (y, x); got shape {image.shape}. Protocols are defined for slices: "
            "score each and average by patient."
        )
    if not np.isfinite(image).all():
        raise ValueError(f"{name} holds NaN or infinity. Usual cause: a diverged network, or padding marked by NaN.")
    return image.astype(np.float64)


def _check_pair(pred: np.ndarray, reference: np.ndarray, protocol: Protocol) -> None:
    if pred.shape != reference.shape:
        raise ValueError(f"pred and reference must have the same shape; got {pred.shape} and {reference.shape}.")
    if min(reference.shape) < protocol.ssim_window.size_pixels:
        size = protocol.ssim_window.size_pixels
        raise ValueError(
            f"SSIM of {protocol.name} needs {size} pixels along each axis; got a slice of {reference.shape}."
        )
    low, high = float(reference.min()), float(reference.max())
    if protocol.input_unit == "HU" and low < high and low >= NORMALISED[0] and high <= NORMALISED[1]:
        raise ValueError(
            f"{protocol.name} needs slices in HU; the reference lies within {low:.4g}..{high:.4g}. "
            "Usual cause: normalised images. Remedy: undo the normalisation first."
        )
    if protocol.input_unit == "grey levels" and (low < 0 or high > 255):
        raise ValueError(
            f"{protocol.name} needs grey levels of 0..255; the reference lies within {low:.4g}..{high:.4g}. "
            "Usual cause: HU. Remedy: window them first, or use a protocol for HU."
        )
