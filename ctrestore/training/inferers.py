"""MONAI inferers: mixed precision on any device, and sliding windows that fit the head and the frames."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import torch
from monai.inferers import Inferer, SlidingWindowInferer
from torch import Tensor

from ctrestore.errors import InputError
from ctrestore.training.precision import Amp, check_amp, mixed_precision


def _channels_last(x: Tensor) -> Tensor:
    """The same values in the memory order in which convolutions are fastest."""
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    return x.contiguous(memory_format=formats[x.ndim]) if x.ndim in formats else x


class MixedPrecisionInferer(Inferer):
    """Run the network on the whole input, under bfloat16 autocast where that is faster; float32 out.

    MONAI's ``amp`` switch is only for CUDA; bfloat16 needs no gradient scaler and is also 2 to 4 times faster on CPUs
    that support it.

    Args:
        enabled: ``"auto"``, True or False, as in :func:`ctrestore.training.precision.use_bfloat16`.

    Raises:
        InputError: it is something else.
    """

    def __init__(self, enabled: Amp = "auto") -> None:
        self.enabled = check_amp(enabled)

    def __call__(self, inputs: Tensor, network: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:
        with mixed_precision(inputs.device, self.enabled):
            return network(_channels_last(inputs), *args, **kwargs).float()


class FittedSlidingWindowInferer(SlidingWindowInferer):
    """Sliding windows of at most ``roi_size``, shrunk to fit the image evenly; mixed precision; frames one by one.

    Two windows of 128 over a head of 176 voxels would overlap by 80; two of 104 have the requested overlap of 0.25 and
    cost half as much in 3-D. A dynamic scan, with ``channels_per_frame`` channels for each frame, gives one output
    channel per frame.

    Args:
        roi_size: largest window along each axis.
        overlap: fraction of a window shared with its neighbour.
        channels_per_frame: number of input channels for one frame.
        multiple_of: windows are multiples of this number of voxels.
        amp: ``"auto"``, True or False: bfloat16 autocast, as in :func:`ctrestore.training.precision.use_bfloat16`.
        kwargs: of MONAI's SlidingWindowInferer.

    Raises:
        InputError: the overlap is not in 0..1 (1 excluded).
    """

    def __init__(
        self,
        roi_size: tuple[int, ...] = (128, 128, 128),
        overlap: float = 0.25,
        channels_per_frame: int = 2,
        multiple_of: int = 8,
        amp: Amp = "auto",
        **kwargs: Any,
    ) -> None:
        if not 0 <= overlap < 1:
            raise InputError(
                f"overlap is the fraction of a window shared with the next, at least 0, below 1; got {overlap}."
            )
        super().__init__(roi_size=roi_size, overlap=overlap, mode="gaussian", **kwargs)
        self.largest, self.channels_per_frame, self.multiple_of = tuple(roi_size), channels_per_frame, multiple_of
        self.run = MixedPrecisionInferer(amp)

    def window(self, side: int, largest: int) -> int:
        """Length of the windows along an axis of ``side`` voxels."""
        n_windows = 1
        while True:
            # n windows with this overlap span the side: n * w - (n - 1) * overlap * w >= side.
            exact = side / (n_windows - (n_windows - 1) * float(self.overlap))  # type: ignore[arg-type]
            length = self.multiple_of * -(-int(-(-exact // 1)) // self.multiple_of)
            if length <= largest or largest < self.multiple_of:
                return min(length, largest)
            n_windows += 1

    def __call__(self, inputs: Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> Tensor:
        self.roi_size = [self.window(side, largest) for side, largest in zip(inputs.shape[2:], self.largest)]

        def predict(x: Tensor, *a: Any, **k: Any) -> Tensor:
            return self.run(x, network, *a, **k)

        one_frame: Callable[..., Any] = super().__call__
        frames = inputs.split(self.channels_per_frame, dim=1)
        return torch.cat([one_frame(frame, predict, *args, **kwargs) for frame in frames], dim=1)


class TiledInferer(Inferer):
    """Run the network on whole images, or on overlapping tiles of which only the middle is kept; mixed precision.

    Averaging overlaps, as MONAI's SlidingWindowInferer does, mixes in the network's output at the edge of a tile.
    Here each pixel comes from a tile that extends ``margin`` pixels beyond it, or to the edge of the image. If the
    network does not look farther than that, tiles give the same result as the whole image. The output may be finer
    than the input by a whole number; tile and margin are in pixels of the input.

    Args:
        tile: longest side of a tile in pixels, for devices with little memory; None: the whole image.
        margin: pixels at each side that the network gets but that are not kept.
        multiple_of: tiles start at multiples of this number of pixels, for the network's pooling.
        amp: ``"auto"``, True or False: bfloat16 autocast, as in :func:`ctrestore.training.precision.use_bfloat16`.

    Raises:
        InputError: nothing would be left of a tile.
    """

    def __init__(self, tile: int | None = None, margin: int = 128, multiple_of: int = 16, amp: Amp = "auto") -> None:
        self.step = None if tile is None else (tile - 2 * margin) // multiple_of * multiple_of
        if self.step is not None and (self.step < 1 or margin % multiple_of):
            raise InputError(
                f"a tile of {tile} pixels with a margin of {margin} keeps nothing, or the margin is no multiple of "
                f"{multiple_of}. Remedy: a larger tile, at least {2 * margin + multiple_of}, or a smaller margin."
            )
        self.margin, self.run = margin, MixedPrecisionInferer(amp)

    def __call__(self, inputs: Tensor, network: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:
        sides = inputs.shape[2:]
        if self.step is None or max(sides) <= self.step + 2 * self.margin:
            return self.run(inputs, network, *args, **kwargs)
        out: Tensor | None = None
        for starts in product(*(range(0, side, self.step) for side in sides)):
            shown = [slice(max(s - self.margin, 0), s + self.step + self.margin) for s in starts]
            window: Any = (Ellipsis, *shown)
            pred = self.run(inputs[window], network, *args, **kwargs)
            finer = pred.shape[-1] // inputs[window].shape[-1]
            if out is None:
                out = pred.new_empty((*pred.shape[:2], *(finer * side for side in sides)))
            within = [s - seen.start for s, seen in zip(starts, shown)]
            middle: Any = (Ellipsis, *(slice(finer * s, finer * (s + self.step)) for s in within))
            place: Any = (Ellipsis, *(slice(finer * s, finer * (s + self.step)) for s in starts))
            out[place] = pred[middle]
        assert out is not None
        return out
