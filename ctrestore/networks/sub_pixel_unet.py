"""A small residual U-Net on the coarse grid that adds its details to a Lanczos interpolation."""

from __future__ import annotations

import torch.nn.functional as F
from monai.networks.layers.factories import Conv
from torch import Tensor, nn

from ctrestore.networks.interpolation import Interpolation, check_scale
from ctrestore.networks.residual_u import ResidualU, cut_to, missing_to, unfold
from ctrestore.networks.unshuffled_unet import AIR


class SubPixelUNet(ResidualU):
    """Residual blocks at the input's resolution and below; a sub-pixel convolution adds to the Lanczos interpolation.

    Maps ``(batch, 1, *spatial)`` in HU / 1000 to ``(batch, 1, *scale * spatial)``; any size (continued at its edges to
    a multiple of 4, for three depths). The blocks are EDSR's (Lim et al., CVPRW 2017: no normalisation), upscaling is
    ESPCN's. Half of the blocks are deeper, at a fraction of the cost, and see enough of the image to remove its noise.
    An untrained network is the Lanczos interpolation.

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
        super().__init__(spatial_dims, features, encoder_blocks, decoder_blocks)
        self.scale, self.air = check_scale(scale), AIR
        self.side_multiple = 2 ** (len(features) - 1)
        conv = Conv[Conv.CONV, spatial_dims]
        self.upsample = Interpolation(scale, "lanczos")
        self.stem = conv(1, features[0], kernel_size=3, padding=1)
        self.head = conv(features[0], scale**spatial_dims, kernel_size=3, padding=1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, x: Tensor) -> Tensor:
        shown = F.pad(x, missing_to(x, self.side_multiple), mode="replicate")
        h = self.through(self.stem(shown - self.air))
        details = unfold(self.head(F.relu(h)), self.scale).to(x.dtype)
        return self.upsample(x) + cut_to(details, [self.scale * side for side in x.shape[2:]])
