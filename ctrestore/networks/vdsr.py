"""VDSR: twenty layers that learn only the difference to the upsampled image."""

from __future__ import annotations

import torch.nn.functional as F
from monai.networks.layers.factories import Conv
from torch import Tensor, nn

from ctrestore.networks.interpolation import Interpolation, check_scale
from ctrestore.networks.unshuffled_unet import AIR


class VDSR(nn.Module):
    """Very deep super-resolution (Kim et al., CVPR 2016): 3 x 3 convolutions that add details to the upsampled image.

    Maps ``(batch, 1, *spatial)`` in HU / 1000 to ``(batch, 1, *scale * spatial)``; 20 layers have 665,921 parameters.
    Differences from the paper: the last convolution starts at zero, so an untrained network is bicubic interpolation,
    and air is zero, the value for the convolutions beyond the edge.

    Args:
        spatial_dims: 2 or 3.
        scale: 1 restores an image of the same size.
        depth: convolutions.
        features: channels between them.
    """

    def __init__(self, spatial_dims: int = 2, scale: int = 2, depth: int = 20, features: int = 64) -> None:
        super().__init__()
        self.scale, self.air = check_scale(scale), AIR
        conv = Conv[Conv.CONV, spatial_dims]
        channels = [1, *[features] * (depth - 1)]
        self.upsample = Interpolation(scale, "cubic")
        layers = [conv(c, wide, 3, padding=1) for c, wide in zip(channels, channels[1:])]
        for layer in layers:
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)
        self.body = nn.ModuleList(layers)
        self.head = conv(features, 1, 3, padding=1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = self.upsample(x)
        h = x - self.air
        for layer in self.body:
            h = F.relu(layer(h), inplace=True)  # 64 fine images: 0.25 GB for 1024 x 1024
        return x + self.head(h).to(x.dtype)
