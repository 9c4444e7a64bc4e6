"""A small residual U-Net without biases or normalisation, for images of any unit."""

from __future__ import annotations

import torch.nn.functional as F
from monai.networks.layers.factories import Conv
from torch import Tensor, nn

from ctrestore.networks.residual_u import ResidualU, cut_to, fold, missing_to, unfold


class HomogeneousUNet(ResidualU):
    """Positively homogeneous residual U-Net: ``f(a * x) = a * f(x)`` for every a > 0.

    Maps ``(batch, in_channels, *spatial)`` to ``(batch, out_channels, *spatial)``; any size (padded inside to a
    multiple of ``2 ** len(features)`` voxels).

    A network with biases or normalisation layers learns the activity scale of its training set. This one cannot, so it
    treats Bq/ml, SUV and a patch of any brightness alike (bias-free networks: Mohan et al., ICLR 2020). The image is
    folded into channels at half resolution (space to depth), where the first level costs an eighth;
    the output is the sum of the image channels plus the network's change, so an untrained network is the identity.

    Args:
        spatial_dims: 2 or 3.
        in_channels: channels of the input.
        image_channels: how many of them, from the first, add up to the corrected image; the others (for example a T1)
            only inform the correction. 0: the output is not an image, and starts at zero.
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
        super().__init__(spatial_dims, features, encoder_blocks, decoder_blocks, bias=False)
        if not 0 <= image_channels <= in_channels:
            raise ValueError(f"image_channels must lie in 0..in_channels = {in_channels}; got {image_channels}.")
        self.image_channels = image_channels
        self.side_multiple = 2 ** len(features)
        conv, folded = Conv[Conv.CONV, spatial_dims], 2**spatial_dims
        self.stem = conv(in_channels * folded, features[0], kernel_size=3, padding=1, bias=False)
        self.head = conv(features[0], out_channels * folded, kernel_size=3, padding=1, bias=False)
        nn.init.zeros_(self.head.weight)

    def forward(self, x: Tensor) -> Tensor:
        size = list(x.shape[2:])
        x = F.pad(x, missing_to(x, self.side_multiple))
        image = x[:, : self.image_channels].sum(dim=1, keepdim=True)
        h = self.through(self.stem(fold(x)))
        return cut_to(image + unfold(self.head(F.relu(h))).to(image.dtype), size)
