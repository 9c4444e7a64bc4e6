"""The residual 3-D U-Net of the PET partial-volume network that this project started from."""

from __future__ import annotations

from itertools import pairwise

import torch
from monai.networks.layers.factories import Conv, Norm
from torch import Tensor, nn


class ResidualBlock(nn.Module):
    """Two 3-wide convolutions, each after normalisation and ReLU, around a 1-wide normalised shortcut."""

    def __init__(
        self, spatial_dims: int, in_channels: int, mid_channels: int, out_channels: int, stride: int, first: bool
    ) -> None:
        super().__init__()
        conv, norm = Conv[Conv.CONV, spatial_dims], Norm[Norm.BATCH, spatial_dims]
        # The very first convolution of the network gets the image itself, unnormalised.
        before = [] if first else [norm(in_channels), nn.ReLU()]
        self.body = nn.Sequential(
            *before,
            conv(in_channels, mid_channels, kernel_size=3, stride=stride, padding=1),
            norm(mid_channels),
            nn.ReLU(),
            conv(mid_channels, out_channels, kernel_size=3, padding=1),
        )
        self.shortcut = nn.Sequential(conv(in_channels, out_channels, kernel_size=1, stride=stride), norm(out_channels))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x) + self.shortcut(x)


class ResUNet(nn.Module):
    """Residual U-Net for PET partial volume correction (github.com/wjh1065, see Reference).

    Maps ``(batch, in_channels, *spatial)`` to ``(batch, out_channels, *spatial)``, not negative; each side a multiple
    of ``2 ** (len(features) - 1)`` voxels. With the defaults it has 8,447,773 parameters, as the authors' code. Layer
    names and initialisation are PyTorch's, not Keras'.

    Reference:
        https://github.com/wjh1065/Partial-Volume-Effect-Correction-Algorithm-from-PET-scan (2021, MIT licence), network
        ``Resunet3D_4_floor(filters=6)``; only its structure is used.

    Args:
        spatial_dims: 2 or 3.
        in_channels: images stacked as input; the paper's is one, grey-matter-masked PET.
        out_channels: images of the output.
        features: channels at each depth; the inner width of a block is half of them.
    """

    def __init__(
        self,
        spatial_dims: int = 3,
        in_channels: int = 1,
        out_channels: int = 1,
        features: tuple[int, ...] = (24, 48, 96, 192, 384),
    ) -> None:
        super().__init__()
        self.side_multiple = 2 ** (len(features) - 1)
        self.encoder = nn.ModuleList(
            ResidualBlock(spatial_dims, narrow, wide // 2, wide, stride=1 if level == 0 else 2, first=level == 0)
            for level, (narrow, wide) in enumerate(pairwise((in_channels, *features)))
        )
        # A decoder block gets the upsampled features and the encoder's of that size; its output has half as many
        # channels as that encoder level.
        below = (features[-1], *(wide // 2 for wide in reversed(features[1:-1])))
        self.decoder = nn.ModuleList(
            ResidualBlock(spatial_dims, deep + skipped, skipped, skipped // 2, stride=1, first=False)
            for deep, skipped in zip(below, reversed(features[:-1]))
        )
        self.upsample = nn.Upsample(scale_factor=2, mode="nearest")
        self.head = Conv[Conv.CONV, spatial_dims](features[0] // 2, out_channels, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        if any(side % self.side_multiple for side in x.shape[2:]):
            raise ValueError(
                f"ResUNet needs sides that are multiples of {self.side_multiple} voxels; got {tuple(x.shape[2:])}. "
                "Remedy: crop or pad the patch, or use a sliding window."
            )
        passed = []
        for block in self.encoder:
            x = block(x)
            passed.append(x)
        passed.pop()  # the bridge feeds the decoder directly
        for block in self.decoder:
            x = block(torch.cat([self.upsample(x), passed.pop()], dim=1))
        return torch.relu(self.head(x))
