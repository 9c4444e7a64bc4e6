"""MONAI inferers: mixed precision on any device, and sliding windows that fit the head and the frames."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from monai.inferers import Inferer, SlidingWindowInferer
from torch import Tensor


def _channels_last(x: Tensor) -> Tensor:
    """The same values in the memory order that convolutions are fastest in."""
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    return x.contiguous(memory_format=formats[x.ndim]) if x.ndim in formats else x


class MixedPrecisionInferer(Inferer):
    """Run the network on the whole input under bfloat16 autocast; float32 out.

    MONAI's ``amp`` switch is for CUDA alone; bfloat16 needs no gradient scaler and is 2 to 4 times faster on CPUs that
    know it, too.
    """

    def __init__(self, enabled: bool = True) -> None:
        self.enabled = enabled

    def __call__(self, inputs: Tensor, network: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:
        with torch.autocast(inputs.device.type, dtype=torch.bfloat16, enabled=self.enabled):
            return network(_channels_last(inputs), *args, **kwargs).float()


class FittedSlidingWindowInferer(SlidingWindowInferer):
    """Sliding windows of at most ``roi_size``, shrunk to fit the image evenly; bfloat16 autocast; frames one by one.

    Two windows of 128 over a head of 176 voxels would overlap by 80; two of 104 overlap by the 0.25 asked for and cost
    half as much in 3-D. A dynamic scan, whose frames are ``channels_per_frame`` channels each, gives one output channel
    a frame.

    Args:
        roi_size: largest window along each axis.
        overlap: fraction of a window shared with its neighbour.
        channels_per_frame: input channels that make one frame.
        multiple_of: windows are multiples of so many voxels.
        amp: bfloat16 autocast.
        kwargs: of MONAI's SlidingWindowInferer.

    Raises:
        ValueError: the overlap is not in 0..1 (1 excluded).
    """

    def __init__(
        self,
        roi_size: tuple[int, ...] = (128, 128, 128),
        overlap: float = 0.25,
        channels_per_frame: int = 2,
        multiple_of: int = 8,
        amp: bool = True,
        **kwargs: Any,
    ) -> None:
        if not 0 <= overlap < 1:
            raise ValueError(
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
