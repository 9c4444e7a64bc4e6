"""A small residual U-Net that works at half resolution and gets the noise level of each place."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from monai.networks.layers.factories import Conv, Pool
from torch import Tensor, nn

from ctrestore.networks.residual_u import ResidualU, cut_to, fold, missing_to, unfold

AIR = -1.0  # HU / 1000: the value for convolutions beyond the edge of a slice
DETAIL = 0.05  # 50 HU, the size of noise and fine structure: the unit of the network's detail channels and output


class LocalNoise(nn.Module):
    """The local noise level of an image: ``(batch, 1, *spatial)`` to ``(batch, n_bands, *spatial / 2)``.

    For details of 1, 2, ... pixels: their mean magnitude in blocks of 8 pixels. The smallest among neighbouring blocks
    counts, because edges raise it, while noise is everywhere. It tells the network how much noise to remove, so
    it hardly changes a nearly clean scan. Sides must be multiples of 8.
    """

    def __init__(self, spatial_dims: int, n_bands: int = 2) -> None:
        super().__init__()
        average, maximum = Pool[Pool.AVG, spatial_dims], Pool[Pool.MAX, spatial_dims]
        self.smooth = average(3, stride=1, padding=1, count_include_pad=False)
        self.halve, self.block = average(2), nn.ModuleList(average(8 >> band) for band in range(n_bands))
        self.around = maximum(3, stride=1, padding=1)
        self.spread = average(3, stride=1, padding=1, count_include_pad=False)

    def forward(self, x: Tensor) -> Tensor:
        found = []
        for block in self.block:
            flicker = block((x - self.smooth(x)).abs())
            level = self.spread(-self.around(-flicker))
            found.append(F.interpolate(level, scale_factor=4.0, mode="nearest"))  # blocks of 8 on a grid of 2
            x = self.halve(x)
        return torch.cat(found, dim=1)


class UnshuffledUNet(ResidualU):
    """Residual U-Net on pixel-unshuffled images, with noise-level maps computed from the image itself.

    Maps ``(batch, in_channels, *spatial)``, of which the first channel is the image in HU / 1000, to
    ``(batch, 1, *spatial)``; any size (continued at its edges to a multiple of ``2 ** len(features)``). The image is
    folded into channels at half resolution (pixel unshuffle, as in FFDNet, Zhang et al., IEEE TIP 27(9):4608, 2018),
    which makes the widest level four times cheaper. Besides the image the network gets its details, in units of 50
    HU: noise of 0.02 on values of 1 is hard to learn, and training took more steps without this. The output
    is the image plus the network's change, so an untrained network is the identity. There is no normalisation layer,
    because it would shift HU.

    Args:
        spatial_dims: 2 or 3.
        in_channels: the image, and maps that only inform the network (for example the dose).
        features: channels at half resolution, quarter resolution, ...
        encoder_blocks: residual blocks at each depth on the way down (the last is the bottom).
        decoder_blocks: residual blocks at each depth on the way up, from the deepest but one.
        noise_bands: noise-level maps; 0: none.
    """

    def __init__(
        self,
        spatial_dims: int = 2,
        in_channels: int = 1,
        features: tuple[int, ...] = (48, 72, 96),
        encoder_blocks: tuple[int, ...] = (2, 2, 2),
        decoder_blocks: tuple[int, ...] = (2, 2),
        noise_bands: int = 2,
    ) -> None:
        super().__init__(spatial_dims, features, encoder_blocks, decoder_blocks)
        if len(features) < 3:
            raise ValueError(f"the noise maps need three depths or more; got features {features}.")
        self.side_multiple, self.air, self.detail = 2 ** len(features), AIR, DETAIL  # TorchScript knows no globals
        conv, folded = Conv[Conv.CONV, spatial_dims], 2**spatial_dims
        self.noise = LocalNoise(spatial_dims, noise_bands) if noise_bands else None
        self.halve = Pool[Pool.AVG, spatial_dims](2)
        self.smooth = Pool[Pool.AVG, spatial_dims](5, stride=1, padding=2, count_include_pad=False)
        self.stem = conv(2 * folded + noise_bands + in_channels - 1, features[0], kernel_size=3, padding=1)
        self.head = conv(features[0], folded, kernel_size=3, padding=1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, x: Tensor) -> Tensor:
        size = list(x.shape[2:])
        x = F.pad(x, missing_to(x, self.side_multiple), mode="replicate")
        # A separate plane: averages take four times as long if the dose is interleaved with its pixels.
        told, x = x[:, 1:], x[:, :1].contiguous()
        seen = [fold(x - self.air), fold((x - self.smooth(x)) / self.detail)]
        if self.noise is not None:
            seen.append(self.noise(x) / self.detail)
        if told.shape[1]:
            seen.append(self.halve(told))
        h = self.through(self.stem(torch.cat(seen, dim=1)))
        return cut_to(x + self.detail * unfold(self.head(F.relu(h))).to(x.dtype), size)
