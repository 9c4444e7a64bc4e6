"""Fan-beam CT of a slice: geometry, forward projection and filtered back-projection.

Images are ``(..., y, x)`` in attenuation per mm, sinograms ``(..., view, detector)`` without unit. Both may be numpy
arrays or torch tensors. The formulas are written in torch: differentiable, on any device. On a CPU, if no gradient
is needed, loops compiled by numba compute the same sums about thirty times as fast (``fan_beam_compiled``).

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
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ctrestore.ct.fan_beam_geometry import FLASH, BackProjection, FanBeam, Pixels, Rays, _pixels, _rays
from ctrestore.psf import Scalars, as_float

Implementation = Literal["auto", "torch", "compiled"]
Filter = Literal["ramp", "shepp-logan", "cosine", "hamming", "hann"]

#: The gain of each filter at a frequency, given as a fraction of the highest; the names are scikit-image's.
FILTERS: dict[str, Callable[[Tensor], Tensor]] = {
    "ramp": torch.ones_like,
    "shepp-logan": lambda f: torch.sinc(f / 2),
    "cosine": lambda f: torch.cos(math.pi / 2 * f),
    "hamming": lambda f: 0.54 + 0.46 * torch.cos(math.pi * f),
    "hann": lambda f: 0.5 + 0.5 * torch.cos(math.pi * f),
}

LARGEST_PER_MM = 100.0  # lead at 30 keV has 34
CHUNK = 1 << 23  # samples that torch processes at a time: about 200 MB
OVERSAMPLING = 4  # of the filtered views of an arc, before they are resampled to equal steps of tan(gamma)


def project(
    attenuation_per_mm: Any,
    *,
    spacing_mm: Scalars,
    geometry: FanBeam = FLASH,
    implementation: Implementation = "auto",
) -> Any:
    """Line integrals through an image: ``(..., y, x)`` to ``(..., view, detector)``, in float32 or float64.

    Joseph's method: a ray is sampled once per column, or once per row if it is steeper, interpolated linearly.

    Args:
        attenuation_per_mm: the image; zero outside.
        spacing_mm: pixel size, one number or (y, x).
        geometry: of the scanner.
        implementation: ``auto`` uses the compiled loops on a CPU if no gradient is needed, else torch.

    Raises:
        ValueError: the image has fewer than two axes, pixels without a size, reaches the source, or cannot be
            attenuation per mm.
    """
    _check_attenuation(attenuation_per_mm)
    return _each(attenuation_per_mm, lambda image: _project_slice(image, spacing_mm, geometry, implementation))


def _check_attenuation(image: Any) -> None:
    """Refuse HU instead of attenuation. The projection is linear, so small negative values are allowed.

    Raises:
        ValueError: a value is not finite, or larger than any material's attenuation.
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

    A pixel outside a view gets nothing from it: values beyond ``geometry.field_of_view_mm`` are meaningless.

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
            f"got {tuple(sinogram.shape)}. Usual cause: project used another geometry, or the axes are swapped."
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


def _each(stack: Any, function: Callable[[Tensor], Tensor]) -> Any:
    """The function applied to every slice in ``(..., a, b)``; the result is of the same kind as the stack."""
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
    """The function of ``x`` for a few views at a time; for the gradient their samples are computed again, not kept."""
    n = max(1, CHUNK // size)
    chunks = [slice(first, min(first + n, n_views)) for first in range(0, n_views, n)]
    if not (x.requires_grad and torch.is_grad_enabled()):
        return [function(x, views) for views in chunks]
    return [checkpoint(function, x, views, use_reentrant=False, preserve_rng_state=False) for views in chunks]


def _lines(image: Tensor) -> Tensor:
    """Columns and rows of an image as ``(2, line, position)``, square, with one zero before and two after each."""
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
        # One more than the position in the image, because of the zero before it; rays outside the image meet zeros.
        position = start.to(image.dtype)[..., None] + slope.to(image.dtype)[..., None] * line + 1
        position = position.clamp(0, n_positions - 2)
        below = position.long()  # the floor: positions are not negative
        index = (by_row.long()[..., None] * n_lines + line) * n_positions + below
        flat, weight = lines.reshape(-1), position - below
        samples = flat[index] * (1 - weight) + flat[index + 1] * weight
        return samples.sum(dim=-1) * length.to(image.dtype)

    return torch.cat(_sum_in_chunks(project_views, lines, geometry.n_views, geometry.n_detectors * n_lines))


def _turns(geometry: FanBeam, pixels: Pixels) -> int:
    """The number of views of a square image that are one view of the rotated image: see ``fan_beam_compiled``."""
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
    n = 2 ** math.ceil(math.log2(2 * geometry.n_detectors))  # long enough that the circular convolution does not wrap
    distance = torch.minimum(torch.arange(n), n - torch.arange(n)).double()
    along = distance * geometry.step
    across = torch.sin(along.clamp(max=math.pi / 2)) if geometry.detector == "arc" else along
    kernel = torch.where(distance % 2 == 1, -0.5 / (math.pi * across.clamp(min=1e-30)) ** 2, 0.0)
    kernel[0] = 1 / (8 * geometry.step**2)
    response = torch.fft.rfft(kernel).real * geometry.step
    return response * FILTERS[filter](torch.linspace(0, 1, len(response), dtype=torch.float64))


def _filter_views(sinogram: Tensor, geometry: FanBeam, filter: Filter) -> Tensor:
    """Weighted and filtered views, at equal steps of tan(gamma), a zero before and two after: ``(view, position)``."""
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
