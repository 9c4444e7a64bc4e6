"""Shared by the package's own restoration networks: a U of residual blocks, and images folded into channels."""

from __future__ import annotations

import torch.nn.functional as F
from monai.networks.layers.factories import Conv
from torch import Tensor, nn


def fold(x: Tensor) -> Tensor:
    """Space to depth: ``(batch, c, *spatial)`` to ``(batch, c * 2**n, *spatial / 2)``.

    Like MONAI's ``pixelunshuffle`` by a factor of 2, in a form that TorchScript and torch.export accept.
    """
    n_axes = x.dim() - 2
    split, order, folded = [x.size(0), x.size(1)], [0, 1], [x.size(0), x.size(1) << n_axes]
    for axis in range(n_axes):
        split += [x.size(2 + axis) // 2, 2]
        order.append(3 + 2 * axis)
        folded.append(x.size(2 + axis) // 2)
    for axis in range(n_axes):
        order.append(2 + 2 * axis)
    return x.reshape(split).permute(order).reshape(folded)


def unfold(x: Tensor, factor: int = 2) -> Tensor:
    """Depth to space: ``(batch, c * factor**n, *spatial)`` to ``(batch, c, *factor * spatial)``; 2 undoes `fold`."""
    n_axes = x.dim() - 2
    channels = x.size(1)
    for _ in range(n_axes):
        channels = channels // factor
    split, order, unfolded = [x.size(0), channels], [0, 1], [x.size(0), channels]
    for _ in range(n_axes):
        split.append(factor)
    for axis in range(n_axes):
        split.append(x.size(2 + axis))
        order += [2 + n_axes + axis, 2 + axis]
        unfolded.append(factor * x.size(2 + axis))
    return x.reshape(split).permute(order).reshape(unfolded)


def missing_to(x: Tensor, multiple: int) -> list[int]:
    """Padding at the end of each side to a multiple of voxels, as torch's ``pad`` takes it (from the last axis on)."""
    missing: list[int] = []
    for side in x.shape[2:][::-1]:
        missing += [0, -side % multiple]
    return missing


def cut_to(x: Tensor, size: list[int]) -> Tensor:
    """The first ``size`` voxels of every spatial axis."""
    for axis, side in enumerate(size):
        x = x.narrow(2 + axis, 0, side)
    return x


class ResidualBlock(nn.Module):
    """``x + conv(relu(conv(relu(x))))`` without normalisation. Its last convolution starts at zero: the identity."""

    def __init__(self, spatial_dims: int, channels: int, bias: bool) -> None:
        super().__init__()
        conv = Conv[Conv.CONV, spatial_dims]
        self.first = conv(channels, channels, kernel_size=3, padding=1, bias=bias)
        self.second = conv(channels, channels, kernel_size=3, padding=1, bias=bias)
        nn.init.kaiming_normal_(self.first.weight, nonlinearity="relu")
        nn.init.zeros_(self.second.weight)
        if bias:
            nn.init.zeros_(self.first.bias)
            nn.init.zeros_(self.second.bias)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(F.relu(self.first(F.relu(x)), inplace=True))


class ResidualU(nn.Module):
    """The U itself: residual blocks at every depth, strided convolutions down, transposed ones up, skips added.

    Networks derive from it, put a stem before :meth:`through` and a head after it. There, sides must be multiples of
    ``2 ** (len(features) - 1)``.

    Args:
        spatial_dims: 2 or 3.
        features: channels at the first depth, the second, ...
        encoder_blocks: residual blocks at each depth on the way down (the last is the bottom).
        decoder_blocks: residual blocks at each depth on the way up, from the deepest but one.
        bias: of every convolution.

    Raises:
        ValueError: the numbers of blocks do not match the number of depths.
    """

    def __init__(
        self,
        spatial_dims: int,
        features: tuple[int, ...],
        encoder_blocks: tuple[int, ...],
        decoder_blocks: tuple[int, ...],
        bias: bool = True,
    ) -> None:
        super().__init__()
        if (len(encoder_blocks), len(decoder_blocks)) != (len(features), len(features) - 1):
            raise ValueError(
                f"{len(features)} features need as many encoder_blocks and one fewer decoder_blocks; got "
                f"{len(encoder_blocks)} and {len(decoder_blocks)}."
            )
        conv, deconv = Conv[Conv.CONV, spatial_dims], Conv[Conv.CONVTRANS, spatial_dims]
        steps = list(zip(features, features[1:]))

        def blocks(count: int, channels: int) -> nn.Sequential:
            return nn.Sequential(*(ResidualBlock(spatial_dims, channels, bias) for _ in range(count)))

        self.encoder = nn.ModuleList(blocks(n, c) for n, c in zip(encoder_blocks, features[:-1]))
        self.down = nn.ModuleList(conv(c, wide, kernel_size=2, stride=2, bias=bias) for c, wide in steps)
        self.bottom = blocks(encoder_blocks[-1], features[-1])
        self.up = nn.ModuleList(deconv(wide, c, kernel_size=2, stride=2, bias=bias) for c, wide in reversed(steps))
        self.decoder = nn.ModuleList(blocks(n, c) for n, c in zip(decoder_blocks, reversed(features[:-1])))

    def through(self, h: Tensor) -> Tensor:
        """Features ``(batch, features[0], *spatial)`` down and up again, to the same shape."""
        skips: list[Tensor] = []
        for encode, down in zip(self.encoder, self.down):
            h = encode(h)
            skips.append(h)
            h = down(h)
        h = self.bottom(h)
        for up, decode in zip(self.up, self.decoder):
            h = decode(up(h) + skips.pop())
        return h
