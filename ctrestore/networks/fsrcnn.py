"""FSRCNN: SRCNN made fast by working on the small image."""

from __future__ import annotations

import math

from monai.networks.layers.factories import Conv
from torch import Tensor, nn

from ctrestore.networks.interpolation import check_scale

LAST_STD = 0.001


def initialise_by_outputs(layer: nn.Module) -> None:
    """Weights of standard deviation ``sqrt(2 / (out_channels * kernel))``, biases of zero: He et al., ICCV 2015."""
    if isinstance(layer, nn.Conv2d | nn.Conv3d):
        nn.init.normal_(layer.weight, std=math.sqrt(2 / (layer.out_channels * math.prod(layer.kernel_size))))
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)


class FSRCNN(nn.Module):
    """Fast super-resolution CNN (Dong et al., ECCV 2016): FSRCNN(d, s, m), upscaled by a transposed convolution.

    Maps ``(batch, 1, *spatial)`` to ``(batch, 1, *scale * spatial)``; FSRCNN(56, 12, 4) has 12,809 parameters. Each
    convolution is followed by a PReLU with one slope per channel. Padding repeats the values at the image's edge.

    Args:
        spatial_dims: 2 or 3.
        scale: 1 restores an image of the same size.
        d: channels of the features.
        s: channels of the mapping, fewer than ``d``.
        m: convolutions of the mapping.
    """

    def __init__(self, spatial_dims: int = 2, scale: int = 2, d: int = 56, s: int = 12, m: int = 4) -> None:
        super().__init__()
        self.scale = check_scale(scale)
        conv, deconv = Conv[Conv.CONV, spatial_dims], Conv[Conv.CONVTRANS, spatial_dims]
        widths = [(1, d, 5), (d, s, 1), *[(s, s, 3)] * m, (s, d, 1)]
        self.body = nn.Sequential()
        for c, wide, k in widths:
            self.body.append(conv(c, wide, k, padding=k // 2, padding_mode="replicate"))
            self.body.append(nn.PReLU(wide))
        self.upscale = deconv(d, 1, 9, stride=scale, padding=4, output_padding=scale - 1)
        self.body.apply(initialise_by_outputs)
        nn.init.normal_(self.upscale.weight, std=LAST_STD)
        nn.init.zeros_(self.upscale.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.upscale(self.body(x))
