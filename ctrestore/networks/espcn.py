"""ESPCN, the origin of the sub-pixel convolution."""

from __future__ import annotations

import torch
from monai.networks.layers.factories import Conv
from torch import Tensor, nn

from ctrestore.networks.fsrcnn import LAST_STD, initialise_by_outputs
from ctrestore.networks.interpolation import check_scale
from ctrestore.networks.residual_u import unfold


class ESPCN(nn.Module):
    """Efficient sub-pixel CNN (Shi et al., CVPR 2016): its last channels become the pixels of the fine image.

    Maps ``(batch, 1, *spatial)`` to ``(batch, 1, *scale * spatial)``; 20,417, 21,284, 22,729 and 24,752 parameters at
    scale 1 to 4. Convolutions are padded with the values at the image's edge.

    Args:
        spatial_dims: 2 or 3.
        scale: 1 restores an image of the same size.
        features: channels of the two hidden layers.
    """

    def __init__(self, spatial_dims: int = 2, scale: int = 2, features: tuple[int, int] = (64, 32)) -> None:
        super().__init__()
        self.scale = check_scale(scale)
        conv = Conv[Conv.CONV, spatial_dims]
        wide, narrow = features
        self.features = conv(1, wide, 5, padding=2, padding_mode="replicate")
        self.mapping = conv(wide, narrow, 3, padding=1, padding_mode="replicate")
        self.sub_pixel = conv(narrow, scale**spatial_dims, 3, padding=1, padding_mode="replicate")
        self.apply(initialise_by_outputs)
        nn.init.normal_(self.sub_pixel.weight, std=LAST_STD)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.mapping(torch.tanh(self.features(x))))
        return unfold(self.sub_pixel(h), self.scale)
