"""A small residual U-Net without biases or normalisation, for images whose unit must not matter."""

from __future__ import annotations

import torch.nn.functional as F
from monai.networks.layers.factories import Conv
from torch import Tensor, nn


def fold(x: Tensor) -> Tensor:
    """Space to depth: ``(batch, c, *spatial)`` to ``(batch, c * 2**n, *spatial / 2)``.

    As MONAI's ``pixelunshuffle`` by a factor of 2, in a form that TorchScript and torch.export accept.
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


class ResidualBlock(nn.Module):
    """``x + conv(relu(conv(relu(x))))``: no bias, no normalisation. The last convolution starts at zero."""

    def __init__(self, spatial_dims: int, channels: int) -> None:
        super().__init__()
        conv = Conv[Conv.CONV, spatial_dims]
        self.first = conv(channels, channels, kernel_size=3, padding=1, bias=False)
        self.second = conv(channels, channels, kernel_size=3, padding=1, bias=False)
        nn.init.kaiming_normal_(self.first.weight, nonlinearity="relu")
        nn.init.zeros_(self.second.weight)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(F.relu(self.first(F.relu(x))))


class HomogeneousUNet(nn.Module):
    """Positively homogeneous residual U-Net: ``f(a * x) = a * f(x)`` for every a > 0.

    Maps ``(batch, in_channels, *spatial)`` to ``(batch, out_channels, *spatial)``; any size (padded inside to a
    multiple of ``2 ** len(features)`` voxels).

    A network with biases or normalisation layers learns the activity scale of its training set; this one can't, so it
    treats Bq/ml, SUV and a patch of any brightness alike (bias-free networks: Mohan et al., ICLR 2020). The image is
    folded into channels at half resolution (space to depth), where the first level works for an eighth of the cost;
    the output is the sum of the image channels plus what the network adds, so an untrained network is the identity.

    Args:
        spatial_dims: 2 or 3.
        in_channels: channels of the input.
        image_channels: how many of them, from the first on, add up to the image that is corrected; the others (a T1,
            say) only inform the correction. 0: the output is no image, and starts at zero.
        features: channels at half resolution, quarter resolution, ...
        encoder_blocks: residual blocks at each depth on the way down (the last is the bottom).
        decoder_blocks: residual blocks at each depth on the way up, from the deepest but one.
        out_channels: of the output; the image is added to each.
    """

    def __init__(
        self,
        spatial_dims: int = 3,
        in_channels: int = 2,
        image_channels: int = 2,
        features: tuple[int, ...] = (32, 64, 128),
        encoder_blocks: tuple[int, ...] = (1, 1, 2),
        decoder_blocks: tuple[int, ...] = (1, 2),
        out_channels: int = 1,
    ) -> None:
        super().__init__()
        if not 0 <= image_channels <= in_channels:
            raise ValueError(f"image_channels must lie in 0..in_channels = {in_channels}; got {image_channels}.")
        if (len(encoder_blocks), len(decoder_blocks)) != (len(features), len(features) - 1):
            raise ValueError(
                f"{len(features)} features need {len(features)} encoder_blocks and {len(features) - 1} decoder_blocks; "
                f"got {len(encoder_blocks)} and {len(decoder_blocks)}."
            )
        self.image_channels = image_channels
        self.side_multiple = 2 ** len(features)
        conv, up = Conv[Conv.CONV, spatial_dims], Conv[Conv.CONVTRANS, spatial_dims]
        folded = 2**spatial_dims

        def blocks(count: int, channels: int) -> nn.Sequential:
            return nn.Sequential(*(ResidualBlock(spatial_dims, channels) for _ in range(count)))

        self.stem = conv(in_channels * folded, features[0], kernel_size=3, padding=1, bias=False)
        self.encoder = nn.ModuleList(blocks(n, c) for n, c in zip(encoder_blocks, features[:-1]))
        self.down = nn.ModuleList(
            conv(c, wide, kernel_size=2, stride=2, bias=False) for c, wide in zip(features, features[1:])
        )
        self.bottom = blocks(encoder_blocks[-1], features[-1])
        self.up = nn.ModuleList(
            up(wide, c, kernel_size=2, stride=2, bias=False) for c, wide in reversed(list(zip(features, features[1:])))
        )
        self.decoder = nn.ModuleList(blocks(n, c) for n, c in zip(decoder_blocks, reversed(features[:-1])))
        self.head = conv(features[0], out_channels * folded, kernel_size=3, padding=1, bias=False)
        nn.init.zeros_(self.head.weight)

    def forward(self, x: Tensor) -> Tensor:
        size = x.shape[2:]
        missing: list[int] = []
        for side in size[::-1]:  # torch's pad counts axes from the last
            missing += [0, -side % self.side_multiple]
        x = F.pad(x, missing)
        image = x[:, : self.image_channels].sum(dim=1, keepdim=True)
        h = self.stem(fold(x))
        skips: list[Tensor] = []
        for encode, down in zip(self.encoder, self.down):
            h = encode(h)
            skips.append(h)
            h = down(h)
        h = self.bottom(h)
        for up, decode in zip(self.up, self.decoder):
            h = decode(up(h) + skips.pop())
        out = image + unfold(self.head(F.relu(h))).to(image.dtype)
        for axis, side in enumerate(size):
            out = out.narrow(2 + axis, 0, side)
        return out
