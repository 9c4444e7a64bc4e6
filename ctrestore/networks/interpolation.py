"""Bicubic and Lanczos upsampling as layers, and a network behind one: the baselines of super-resolution."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

Kernel = Literal["cubic", "lanczos"]
REACH_PIXELS = {"cubic": 2, "lanczos": 3}


def kernel_at(kernel: Kernel, distance_pixels: np.ndarray) -> np.ndarray:
    """Value of an interpolation kernel at distances in pixels of the coarse image.

    ``cubic``: Keys, IEEE Trans Acoust 29(6):1153, 1981, with a = -0.5; ``lanczos``: sinc with a window of three lobes.
      Both
    as in Pillow.
    """
    d = np.abs(distance_pixels)
    if kernel == "cubic":
        near = 1.5 * d**3 - 2.5 * d**2 + 1
        far = -0.5 * d**3 + 2.5 * d**2 - 4 * d + 2
        return np.where(d < 1, near, np.where(d < 2, far, 0.0))
    return np.where(d < 3, np.sinc(d) * np.sinc(d / 3), 0.0)


def phase_weights(kernel: Kernel, scale: int) -> np.ndarray:
    """Weights of the coarse pixels around a fine one: ``(scale, 2 reach + 1)``, each row with sum 1.

    Pixels are areas: ``scale`` fine pixels divide a coarse one evenly, so the p-th is off its centre by
    ``(p + 0.5) / scale - 0.5`` coarse pixels.

    Raises:
        ValueError: there is no such kernel, or the scale is not a whole number of 1 or more.
    """
    if kernel not in REACH_PIXELS:
        raise ValueError(f"kernel is one of {', '.join(REACH_PIXELS)}; got {kernel!r}.")
    check_scale(scale)
    reach = REACH_PIXELS[kernel]
    phases = (np.arange(scale) + 0.5) / scale - 0.5
    weights = kernel_at(kernel, phases[:, None] - np.arange(-reach, reach + 1))
    return weights / weights.sum(axis=1, keepdims=True)


def check_scale(scale: int) -> int:
    """The scale, if it is a whole number of 1 or more.

    Raises:
        ValueError: it is not.
    """
    if isinstance(scale, bool) or int(scale) != scale or scale < 1:
        raise ValueError(f"scale is a whole number, 1 (same size), 2, 3, ...; got {scale!r}.")
    return int(scale)


class Interpolation(nn.Module):
    """Bicubic or Lanczos upsampling: ``(batch, channel, *spatial)`` to ``(batch, channel, *scale * spatial)``.

    The half-pixel convention of Pillow, scikit-image and torch's ``align_corners=False``; beyond its edges the image is
    continued with the edge values. Any number of axes, in the input's precision even under autocast: bfloat16 would
    round HU by 4. torch has no Lanczos on GPUs, no cubic kernel in 3-D, and another one (a = -0.75) in 2-D.

    Args:
        scale: a whole number; 1 leaves the image as it is.
        kernel: ``cubic`` or ``lanczos``.
    """

    def __init__(self, scale: int = 2, kernel: Kernel = "cubic") -> None:
        super().__init__()
        self.weights: list[list[float]] = phase_weights(kernel, scale).tolist()
        self.scale = check_scale(scale)
        self.reach = REACH_PIXELS[kernel]

    def forward(self, x: Tensor) -> Tensor:
        if self.scale == 1:
            return x
        x = F.pad(x, [self.reach] * (2 * (x.dim() - 2)), mode="replicate")
        for axis in range(2, x.dim()):
            n = x.size(axis) - 2 * self.reach
            phases: list[Tensor] = []
            for weights in self.weights:
                total = torch.zeros_like(x.narrow(axis, 0, n))
                for i, weight in enumerate(weights):
                    if weight != 0.0:
                        total = total.add(x.narrow(axis, i, n), alpha=weight)
                phases.append(total)
            x = torch.stack(phases, dim=axis + 1).flatten(axis, axis + 1)
        return x


class Interpolated(nn.Module):
    """An interpolation and then a network of one size: ``(batch, 1, *spatial)`` to ``(batch, 1, *scale * spatial)``.

    Args:
        network: maps ``(batch, 1, *spatial)`` to the same shape.
        scale: of the interpolation.
        kernel: of the interpolation.
    """

    def __init__(self, network: nn.Module, scale: int = 2, kernel: Kernel = "cubic") -> None:
        super().__init__()
        self.scale = check_scale(scale)
        self.upsample = Interpolation(scale, kernel)
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        return self.network(self.upsample(x))
