"""Fan-beam CT of a slice: geometry, forward projection and filtered back-projection.

Images are ``(..., y, x)`` in attenuation per mm, sinograms ``(..., view, detector)`` without unit. Both may be numpy
arrays or torch tensors. The formulas are written in torch: differentiable, on any device. On a CPU, where no gradient
is asked for, loops compiled by numba do the same sums some thirty times as fast (``fan_beam_compiled``).

With the source at angle ``beta`` and distance ``R`` from the isocentre, a point ``(x, y)`` lies at the depth
``U = R - x cos(beta) - y sin(beta)`` and on the ray whose fan angle ``gamma`` has
``tan(gamma) = (x sin(beta) - y cos(beta)) / U``.

References:
    Joseph, IEEE Trans Med Imaging 1:192, 1982 (forward projection).
    Kak and Slaney, Principles of Computerized Tomographic Imaging, 1988, section 3.4 (filtered back-projection).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ctrestore.psf import Scalars, as_float, per_axis

Implementation = Literal["auto", "torch", "compiled"]
Filter = Literal["ramp", "shepp-logan", "cosine", "hamming", "hann"]

#: What each filter leaves of a frequency, given as a fraction of the highest; the names are those of scikit-image.
FILTERS: dict[str, Callable[[Tensor], Tensor]] = {
    "ramp": torch.ones_like,
    "shepp-logan": lambda f: torch.sinc(f / 2),
    "cosine": lambda f: torch.cos(math.pi / 2 * f),
    "hamming": lambda f: 0.54 + 0.46 * torch.cos(math.pi * f),
    "hann": lambda f: 0.5 + 0.5 * torch.cos(math.pi * f),
}

LARGEST_PER_MM = 100.0  # lead at 30 keV has 34
CHUNK = 1 << 23  # samples that torch handles at a time: about 200 MB
OVERSAMPLING = 4  # of the filtered views of an arc on their way to equal steps of tan(gamma)


@dataclass(frozen=True)
class FanBeam:
    """A full turn of a source and a detector around the isocentre, the centre of the image.

    Args:
        n_views: projections, evenly over 360 degrees.
        n_detectors: channels, symmetric about the central ray.
        detector_pitch_mm: from channel to channel, at the detector.
        source_to_isocentre_mm: radius of the source's orbit.
        source_to_detector_mm: along the central ray.
        detector: ``arc``, centred on the source as in a clinical scanner, or ``flat``.

    Raises:
        ValueError: a number is not positive, or the detector does not lie behind the isocentre.
    """

    n_views: int
    n_detectors: int
    detector_pitch_mm: float
    source_to_isocentre_mm: float
    source_to_detector_mm: float
    detector: Literal["arc", "flat"] = "arc"

    def __post_init__(self) -> None:
        if self.detector not in ("arc", "flat"):
            raise ValueError(f"detector is 'arc' or 'flat'; got {self.detector!r}.")
        if self.n_views < 1 or self.n_detectors < 2:
            raise ValueError(f"expected views and at least 2 detectors; got {self.n_views} and {self.n_detectors}.")
        if not (self.detector_pitch_mm > 0 and self.source_to_detector_mm > self.source_to_isocentre_mm > 0):
            raise ValueError(
                "expected a positive detector_pitch_mm and source_to_detector_mm > source_to_isocentre_mm > 0; got "
                f"{self.detector_pitch_mm!r}, {self.source_to_detector_mm!r} and {self.source_to_isocentre_mm!r}. "
                "Usual cause: the distance from the isocentre to the detector. Remedy: add the two distances."
            )
        if self.detector == "arc" and self.n_detectors * self.step >= math.pi:
            raise ValueError(
                f"{self.n_detectors} detectors of {self.detector_pitch_mm} mm on an arc of "
                f"{self.source_to_detector_mm} mm see more than 180 degrees. Usual cause: a wrong unit of one of them."
            )

    @property
    def step(self) -> float:
        """From channel to channel in units of the distance from the source: radians on an arc, a tangent on a plane."""
        return self.detector_pitch_mm / self.source_to_detector_mm

    @property
    def fan_angles_rad(self) -> np.ndarray:
        """Angle of each channel's ray to the central ray: ``(n_detectors,)``."""
        along = (np.arange(self.n_detectors) - (self.n_detectors - 1) / 2) * self.step
        return along if self.detector == "arc" else np.arctan(along)

    @property
    def view_angles_rad(self) -> np.ndarray:
        """Angle of the source in each view: ``(n_views,)``."""
        return np.arange(self.n_views) * (2 * math.pi / self.n_views)

    @property
    def field_of_view_mm(self) -> float:
        """Diameter of the circle that every view sees whole."""
        return 2 * self.source_to_isocentre_mm * math.sin(float(self.fan_angles_rad[-1]))


#: Close to a Siemens Somatom Definition Flash: 736 channels over a fan of 50 degrees see 502 mm.
FLASH = FanBeam(1152, 736, 1.2858, 595.0, 1085.6, "arc")
#: Geometry of the simulation of Zeng et al. (IEEE Trans Nucl Sci 62:2226, 2015), taken with a flat detector.
ZENG = FanBeam(1160, 672, 1.85, 1361.2 - 615.18, 1361.2, "flat")


def project(
    attenuation_per_mm: Any,
    *,
    spacing_mm: Scalars,
    geometry: FanBeam = FLASH,
    implementation: Implementation = "auto",
) -> Any:
    """Line integrals through an image: ``(..., y, x)`` to ``(..., view, detector)``, in float32 or float64.

    Joseph's method: a ray is sampled once in each column, or each row where it is steeper, interpolated linearly.

    Args:
        attenuation_per_mm: the image; zero outside.
        spacing_mm: pixel size, one number or (y, x).
        geometry: of the scanner.
        implementation: ``auto`` takes the compiled loops on a CPU where no gradient is asked for, else torch.

    Raises:
        ValueError: the image has less than two axes, no size of its pixels, reaches the source, or cannot be
            attenuation per mm.
    """
    _check_attenuation(attenuation_per_mm)
    return _each(attenuation_per_mm, lambda image: _project_slice(image, spacing_mm, geometry, implementation))


def _check_attenuation(image: Any) -> None:
    """Refuse HU in the place of attenuation. The projection being linear, small negative values are no fault of its.

    Raises:
        ValueError: a value is not finite, or no material attenuates like that.
    """
    values = image.detach() if isinstance(image, Tensor) else image
    lowest, highest = float(values.min()), float(values.max())
    if not (lowest > -LARGEST_PER_MM and highest < LARGEST_PER_MM):  # NaN fails both
        raise ValueError(
            f"expected attenuation per mm, 0.019 in water and never negative; got {lowest:g} to {highest:g}. Usual "
            "cause: HU, or NaN. Remedy: ctrestore.ct.hu_to_attenuation."
        )


def reconstruct(
    sinogram: Any,
    *,
    shape: tuple[int, int],
    spacing_mm: Scalars,
    geometry: FanBeam = FLASH,
    filter: Filter = "ramp",
    implementation: Implementation = "auto",
) -> Any:
    """Filtered back-projection: ``(..., view, detector)`` to attenuation per mm ``(..., y, x)``.

    A pixel that a view does not see gets nothing from it: beyond ``geometry.field_of_view_mm`` values mean nothing.

    Args:
        sinogram: line integrals.
        shape: pixels along y and x.
        spacing_mm: pixel size, one number or (y, x).
        geometry: of the scanner.
        filter: one of :data:`FILTERS`; ``ramp`` is the sharpest, ``hann`` the smoothest.
        implementation: as for :func:`project`.

    Raises:
        ValueError: the sinogram is not of this geometry, there is no such filter, or the pixels have no size.
    """
    if tuple(sinogram.shape[-2:]) != (geometry.n_views, geometry.n_detectors):
        raise ValueError(
            f"expected (..., view, detector) = (..., {geometry.n_views}, {geometry.n_detectors}) for this geometry; "
            f"got {tuple(sinogram.shape)}. Usual cause: another geometry than that of project, or swapped axes."
        )
    if filter not in FILTERS:
        raise ValueError(f"filter is one of {', '.join(FILTERS)}; got {filter!r}.")
    pixels = _pixels(shape, spacing_mm, geometry)

    def reconstruct_slice(views: Tensor) -> Tensor:
        filtered = _filter_views(views, geometry, filter)
        if _compiled(views, implementation):
            return _back_project_compiled(filtered, geometry, pixels)
        return _back_project(filtered, geometry, pixels)

    return _each(sinogram, reconstruct_slice)


class Pixels(NamedTuple):
    """The grid of a slice: pixels and their size along y and x."""

    shape: tuple[int, int]
    spacing_mm: tuple[float, float]

    def centres_mm(self, axis: int) -> np.ndarray:
        """Positions of the pixels along an axis, the isocentre at zero."""
        n = self.shape[axis]
        return (np.arange(n) - (n - 1) / 2) * self.spacing_mm[axis]


def _pixels(shape: tuple[int, ...], spacing_mm: Scalars, geometry: FanBeam) -> Pixels:
    if len(shape) != 2:
        raise ValueError(f"a slice has two axes (y, x); got shape {tuple(shape)}.")
    spacing = per_axis(spacing_mm, name="spacing_mm", n_axes=2)
    radius = math.hypot(shape[0] * spacing[0], shape[1] * spacing[1]) / 2
    if min(spacing) == 0 or radius >= geometry.source_to_isocentre_mm:
        raise ValueError(
            f"the image must have pixels of a size and lie inside the orbit of the source, "
            f"{geometry.source_to_isocentre_mm:g} mm from its centre; got {shape[0]} x {shape[1]} pixels of "
            f"{spacing[0]:g} x {spacing[1]:g} mm. Usual cause: an image without spacing, or one given in another unit."
        )
    return Pixels((shape[0], shape[1]), (spacing[0], spacing[1]))


def _each(stack: Any, function: Callable[[Tensor], Tensor]) -> Any:
    """The function of every slice in ``(..., a, b)``; the result is of the same kind as the stack."""
    if stack.ndim < 2:
        raise ValueError(f"expected (..., y, x) or (..., view, detector); got shape {tuple(stack.shape)}.")
    is_tensor = isinstance(stack, Tensor)
    tensor = as_float(stack.as_subclass(Tensor) if is_tensor else torch.from_numpy(np.ascontiguousarray(stack)))
    with torch.autocast(tensor.device.type, enabled=False):
        out = torch.stack([function(one) for one in tensor.reshape(-1, *tensor.shape[-2:])])
    out = out.reshape(*tensor.shape[:-2], *out.shape[-2:])
    return out if is_tensor else out.numpy()


def _compiled(tensor: Tensor, implementation: Implementation) -> bool:
    needs_torch = tensor.device.type != "cpu" or (tensor.requires_grad and torch.is_grad_enabled())
    if implementation == "compiled" and needs_torch:
        raise ValueError(
            f"the compiled loops have no gradient and run on the CPU; got a tensor on {tensor.device}, requires_grad="
            f"{tensor.requires_grad}. Remedy: implementation='auto'."
        )
    if implementation not in ("auto", "torch", "compiled"):
        raise ValueError(f"implementation is 'auto', 'torch' or 'compiled'; got {implementation!r}.")
    return implementation != "torch" and not needs_torch


def _sum_in_chunks(function: Callable[[Tensor, slice], Tensor], x: Tensor, n_views: int, size: int) -> list[Tensor]:
    """The function of ``x`` for a few views at a time; their samples are computed again for the gradient, not kept."""
    n = max(1, CHUNK // size)
    chunks = [slice(first, min(first + n, n_views)) for first in range(0, n_views, n)]
    if not (x.requires_grad and torch.is_grad_enabled()):
        return [function(x, views) for views in chunks]
    return [checkpoint(function, x, views, use_reentrant=False, preserve_rng_state=False) for views in chunks]


class Rays(NamedTuple):
    """Where each ray crosses the lines that it is sampled on: ``(view, detector)`` each.

    A ray that runs rather along x is sampled on columns, with a position along y, and the other way round.
    """

    by_row: np.ndarray  # sampled on rows, not on columns
    start: np.ndarray  # position on line 0, in pixels
    slope: np.ndarray  # pixels from line to line
    length_mm: np.ndarray  # of the ray between two lines


@lru_cache(maxsize=2)  # 11 MB each; the slices of a scan share them
def _rays(geometry: FanBeam, pixels: Pixels) -> Rays:
    (n_y, n_x), (size_y, size_x) = pixels
    view = geometry.view_angles_rad[:, None]
    direction = view + geometry.fan_angles_rad
    per_mm_x, per_mm_y = -np.cos(direction) / size_x, -np.sin(direction) / size_y
    source_x = geometry.source_to_isocentre_mm * np.cos(view) / size_x + (n_x - 1) / 2
    source_y = geometry.source_to_isocentre_mm * np.sin(view) / size_y + (n_y - 1) / 2
    by_row = np.abs(per_mm_y) > np.abs(per_mm_x)
    along, across = np.where(by_row, per_mm_y, per_mm_x), np.where(by_row, per_mm_x, per_mm_y)
    slope = across / along
    start = np.where(by_row, source_x - source_y * slope, source_y - source_x * slope)
    return Rays(by_row, start.astype(np.float32), slope.astype(np.float32), (1 / np.abs(along)).astype(np.float32))


def _lines(image: Tensor) -> Tensor:
    """Columns and rows of an image as ``(2, line, position)``, square, with a zero before and two behind each."""
    n_y, n_x = image.shape
    n = max(n_y, n_x)
    square = torch.nn.functional.pad(image, (0, n - n_x, 0, n - n_y))
    return torch.nn.functional.pad(torch.stack([square.T, square]), (1, 2))


def _project_slice(image: Tensor, spacing_mm: Scalars, geometry: FanBeam, implementation: Implementation) -> Tensor:
    pixels = _pixels(tuple(image.shape), spacing_mm, geometry)
    rays = _rays(geometry, pixels)
    if _compiled(image, implementation):
        return _project_compiled(image, rays, _turns(geometry, pixels))
    lines = _lines(image)
    n_lines, n_positions = lines.shape[1:]
    line = torch.arange(n_lines, device=image.device)

    def project_views(lines: Tensor, views: slice) -> Tensor:
        by_row, start, slope, length = (torch.from_numpy(part[views]).to(image.device) for part in rays)
        # One more than the position in the image, because of the zero before it; what misses the image meets zeros.
        position = start.to(image.dtype)[..., None] + slope.to(image.dtype)[..., None] * line + 1
        position = position.clamp(0, n_positions - 2)
        below = position.long()  # the floor: positions are not negative
        index = (by_row.long()[..., None] * n_lines + line) * n_positions + below
        flat, weight = lines.reshape(-1), position - below
        samples = flat[index] * (1 - weight) + flat[index + 1] * weight
        return samples.sum(dim=-1) * length.to(image.dtype)

    return torch.cat(_sum_in_chunks(project_views, lines, geometry.n_views, geometry.n_detectors * n_lines))


def _turns(geometry: FanBeam, pixels: Pixels) -> int:
    """How many views of a square image are one view of the image in turn: see ``fan_beam_compiled``."""
    (n_y, n_x), (size_y, size_x) = pixels
    return 4 if n_y == n_x and size_y == size_x and geometry.n_views % 4 == 0 else 1


def _project_compiled(image: Tensor, rays: Rays, n_turns: int) -> Tensor:
    from ctrestore.ct import fan_beam_compiled  # imported here because numba takes half a second

    turned = torch.stack([_lines(torch.rot90(image, turn)) for turn in range(n_turns)], dim=-1)
    n_views = len(rays.start)
    first = Rays(*(part[: n_views // n_turns] for part in rays))
    views = torch.from_numpy(fan_beam_compiled.project(turned.contiguous().numpy(), first))
    return views.movedim(-1, 0).reshape(n_views, -1)


@lru_cache(maxsize=8)
def _ramp(geometry: FanBeam, filter: Filter) -> Tensor:
    """Half the ramp filter of Kak and Slaney in the frequency domain, times the step: ``(frequency,)``, float64.

    Sampled in space, not in frequency, which would make a constant vanish (eq. 61); for an arc with eq. 104's
    ``(gamma / sin(gamma))^2``.
    """
    n = 2 ** math.ceil(math.log2(2 * geometry.n_detectors))  # so long that the circular convolution does not wrap round
    distance = torch.minimum(torch.arange(n), n - torch.arange(n)).double()
    along = distance * geometry.step
    across = torch.sin(along.clamp(max=math.pi / 2)) if geometry.detector == "arc" else along
    kernel = torch.where(distance % 2 == 1, -0.5 / (math.pi * across.clamp(min=1e-30)) ** 2, 0.0)
    kernel[0] = 1 / (8 * geometry.step**2)
    response = torch.fft.rfft(kernel).real * geometry.step
    return response * FILTERS[filter](torch.linspace(0, 1, len(response), dtype=torch.float64))


def _filter_views(sinogram: Tensor, geometry: FanBeam, filter: Filter) -> Tensor:
    """Weighted and filtered views, at equal steps of tan(gamma), a zero before and two behind: ``(view, position)``."""
    angles = torch.from_numpy(geometry.fan_angles_rad)
    response = _ramp(geometry, filter).to(sinogram)
    weighted = sinogram * torch.cos(angles).to(sinogram)
    filtered = torch.fft.irfft(torch.fft.rfft(weighted, n=2 * (len(response) - 1)) * response)
    filtered = filtered[..., : geometry.n_detectors]
    if geometry.detector == "arc":
        filtered = filtered * torch.cos(angles).to(sinogram) ** 2  # 1 / distance^2 is cos^2 / depth^2
        tangents, _ = _tangents(geometry)
        channel = np.arctan(tangents) / geometry.step + (geometry.n_detectors - 1) / 2
        below = torch.from_numpy(channel.astype(np.int64)).clamp(0, geometry.n_detectors - 2).to(sinogram.device)
        weight = torch.from_numpy(channel).to(sinogram) - below
        filtered = filtered[:, below] * (1 - weight) + filtered[:, below + 1] * weight
    return torch.nn.functional.pad(filtered, (1, 2))


def _tangents(geometry: FanBeam) -> tuple[np.ndarray, float]:
    """tan(gamma) of the positions in a filtered view, and their step."""
    if geometry.detector == "flat":
        return np.tan(geometry.fan_angles_rad), geometry.step
    step, last = geometry.step / OVERSAMPLING, math.tan(float(geometry.fan_angles_rad[-1]))
    n = int(2 * last / step)
    return (np.arange(n + 1) - n / 2) * step, step


class BackProjection(NamedTuple):
    """How a filtered view is read: radius of the orbit, position of tan(gamma) = 0, positions a unit of it, scale."""

    radius_mm: float
    centre: float
    per_tangent: float
    scale: float


def _reading(geometry: FanBeam) -> BackProjection:
    tangents, step = _tangents(geometry)
    radius_mm, centre = geometry.source_to_isocentre_mm, 1 + (len(tangents) - 1) / 2  # 1: the zero before it
    return BackProjection(radius_mm, centre, 1 / step, radius_mm * 2 * math.pi / geometry.n_views)


def _back_project_compiled(filtered: Tensor, geometry: FanBeam, pixels: Pixels) -> Tensor:
    from ctrestore.ct import fan_beam_compiled

    reading, n_turns = _reading(geometry), _turns(geometry, pixels)
    n_views = geometry.n_views // n_turns
    images = fan_beam_compiled.back_project(
        filtered.reshape(n_turns, n_views, -1).movedim(0, -1).contiguous().numpy(),
        angles_rad=geometry.view_angles_rad[:n_views],
        y_mm=pixels.centres_mm(0),
        x_mm=pixels.centres_mm(1),
        reading=reading,
    )
    turned = torch.from_numpy(images).unbind(dim=-1)
    return torch.stack([torch.rot90(image, -turn) for turn, image in enumerate(turned)]).sum(dim=0) * reading.scale


def _back_project(filtered: Tensor, geometry: FanBeam, pixels: Pixels) -> Tensor:
    reading, n_positions = _reading(geometry), filtered.shape[-1]
    y, x = (torch.from_numpy(pixels.centres_mm(axis)).to(filtered) for axis in (0, 1))
    angles = torch.from_numpy(geometry.view_angles_rad)
    cos, sin = torch.cos(angles).to(filtered), torch.sin(angles).to(filtered)

    def views_at_pixels(filtered: Tensor, views: slice) -> Tensor:
        c, s = cos[views, None, None], sin[views, None, None]
        depth = reading.radius_mm - x * c - y[:, None] * s
        position = (x * s - y[:, None] * c) / depth * reading.per_tangent + reading.centre
        position = position.clamp(0, n_positions - 2)
        below = position.long()
        first = torch.arange(views.start, views.stop, device=filtered.device)[:, None, None] * n_positions
        flat, index, weight = filtered.reshape(-1), first + below, position - below
        return ((flat[index] * (1 - weight) + flat[index + 1] * weight) / depth**2).sum(dim=0)

    size = pixels.shape[0] * pixels.shape[1]
    return torch.stack(_sum_in_chunks(views_at_pixels, filtered, geometry.n_views, size)).sum(dim=0) * reading.scale
