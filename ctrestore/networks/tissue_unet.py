"""Tissue fractions of each voxel of a brain PET, from the PET alone: the homogeneous U-Net with a reference unit."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ctrestore.networks.homogeneous_unet import HomogeneousUNet

TISSUES = ("grey_matter", "white_matter", "csf", "background")


class TissueUNet(nn.Module):
    """Logits of grey matter, white matter, CSF and the rest; their softmax over channels are the tissue fractions.

    Maps ``(batch, in_channels, *spatial)`` to ``(batch, out_channels, *spatial)``; any size.

    Fractions must not depend on the unit of the scan, but the logits of a network without biases grow with the
    activity, and are 0 for every class in air. Therefore the scan is divided by its own 99th percentile, which makes
    the fractions independent of its scale, and a channel of ones, which stands for that percentile, is added. The body
    stays bias-free: ``body(a * x, a) = a * body(x, 1)``; it compares activities with the channel of ones.

    The bottom is smaller than the default of :class:`HomogeneousUNet`, so the weights take less than 4 MB in half
    precision.

    Args:
        spatial_dims: 2 or 3.
        in_channels: channels of the input, all in units of the scan's percentile.
        out_channels: classes.
        features: channels at half resolution, quarter resolution, ...
        encoder_blocks: of :class:`HomogeneousUNet`.
        decoder_blocks: of :class:`HomogeneousUNet`.
    """

    def __init__(
        self,
        spatial_dims: int = 3,
        in_channels: int = 3,
        out_channels: int = len(TISSUES),
        features: tuple[int, ...] = (32, 64, 96),
        encoder_blocks: tuple[int, ...] = (1, 1, 2),
        decoder_blocks: tuple[int, ...] = (1, 2),
    ) -> None:
        super().__init__()
        self.body = HomogeneousUNet(
            spatial_dims=spatial_dims,
            in_channels=in_channels + 1,
            image_channels=0,
            features=features,
            encoder_blocks=encoder_blocks,
            decoder_blocks=decoder_blocks,
            out_channels=out_channels,
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.body(torch.cat([x, torch.ones_like(x[:, :1])], dim=1))
