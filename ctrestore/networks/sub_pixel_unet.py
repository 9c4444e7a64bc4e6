"""A small residual U-Net on the coarse grid that adds its details to a Lanczos interpolation."""

from __future__ import annotations

import torch.nn.functional as F
from monai.networks.layers.factories import Conv
from torch import Tensor, nn

from ctrestore.networks.homogeneous_unet import unfold
from ctrestore.networks.interpolation import Interpolation, check_scale
from ctrestore.networks.unshuffled_unet import AIR, ResidualBlock


class SubPixelUNet(nn.Module):
    """Residual blocks at the input's resolution and below; a sub-pixel convolution adds to the Lanczos interpolation.

    Maps ``(batch, 1, *spatial)`` in HU / 1000 to ``(batch, 1, *scale * spatial)``; any size (continued at its edges to
    a multiple of 4, for three depths). The blocks are EDSR's (Lim et al., CVPRW 2017: no normalisation), upscaling is
    ESPCN's. Half of the blocks lie deeper, at a fraction of the cost, and see enough of the image to take its noise
    away. An untrained network is the Lanczos interpolation.

    Args:
        spatial_dims: 2 or 3.
        scale: 1 restores an image of the same size.
        features: channels at the input's resolution, half of it, ...
        encoder_blocks: residual blocks at each depth on the way down (the last is the bottom).
        decoder_blocks: residual blocks at each depth on the way up, from the deepest but one.
    """

    def __init__(
        self,
        spatial_dims: int = 2,
        scale: int = 2,
        features: tuple[int, ...] = (48, 64, 80),
        encoder_blocks: tuple[int, ...] = (1, 1, 2),
        decoder_blocks: tuple[int, ...] = (1, 3),
    ) -> None:
        super().__init__()
        if (len(encoder_blocks), len(decoder_blocks)) != (len(features), len(features) - 1):
            raise ValueError(
                f"{len(features)} features need as many encoder_blocks and one decoder_blocks less; got "
                f"{len(encoder_blocks)} and {len(decoder_blocks)}."
            )
        self.scale, self.air = check_scale(scale), AIR
        self.side_multiple = 2 ** (len(features) - 1)
        conv, up = Conv[Conv.CONV, spatial_dims], Conv[Conv.CONVTRANS, spatial_dims]

        def blocks(count: int, channels: int) -> nn.Sequential:
            return nn.Sequential(*(ResidualBlock(spatial_dims, channels) for _ in range(count)))

        self.upsample = Interpolation(scale, "lanczos")
        self.stem = conv(1, features[0], kernel_size=3, padding=1)
        self.encoder = nn.ModuleList(blocks(n, c) for n, c in zip(encoder_blocks, features[:-1]))
        self.down = nn.ModuleList(conv(c, wide, kernel_size=2, stride=2) for c, wide in zip(features, features[1:]))
        self.bottom = blocks(encoder_blocks[-1], features[-1])
        self.up = nn.ModuleList(
            up(wide, c, kernel_size=2, stride=2) for c, wide in reversed(list(zip(features, features[1:])))
        )
        self.decoder = nn.ModuleList(blocks(n, c) for n, c in zip(decoder_blocks, reversed(features[:-1])))
        self.head = conv(features[0], scale**spatial_dims, kernel_size=3, padding=1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, x: Tensor) -> Tensor:
        size = x.shape[2:]
        missing: list[int] = []
        for side in size[::-1]:  # torch's pad counts axes from the last
            missing += [0, -side % self.side_multiple]
        h = self.stem(F.pad(x, missing, mode="replicate") - self.air)
        skips: list[Tensor] = []
        for encode, down in zip(self.encoder, self.down):
            h = encode(h)
            skips.append(h)
            h = down(h)
        h = self.bottom(h)
        for up, decode in zip(self.up, self.decoder):
            h = decode(up(h) + skips.pop())
        details = unfold(self.head(F.relu(h)), self.scale).to(x.dtype)
        for axis, side in enumerate(size):
            details = details.narrow(2 + axis, 0, self.scale * side)
        return self.upsample(x) + details
