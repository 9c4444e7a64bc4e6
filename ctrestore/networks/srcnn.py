"""SRCNN, the first convolutional network for super-resolution."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from monai.networks.layers.factories import Conv
from torch import Tensor, nn

from ctrestore.networks.interpolation import Interpolation, check_scale


class SRCNN(nn.Module):
    """Super-resolution CNN (Dong et al., IEEE TPAMI 38(2):295, 2016): three convolutions on the upsampled image.

    Maps ``(batch, 1, *spatial)`` to ``(batch, 1, *scale * spatial)``. 9-1-5 has 8,129 parameters, 9-5-5 has 57,281.
    Beyond its edges the image is continued with the edge values; the paper has no padding and gives a smaller image.

    Args:
        spatial_dims: 2 or 3.
        scale: 1 restores an image of the same size.
        kernel_sizes: of the three convolutions; (9, 1, 5) or (9, 5, 5).
        padding: ``same`` pads each convolution to keep the size; ``published`` pads each by 2, as in a course:
            this keeps the size for (9, 1, 5), but invents two rings of it.
        features: channels after the first and the second convolution.
    """

    def __init__(
        self,
        spatial_dims: int = 2,
        scale: int = 2,
        kernel_sizes: tuple[int, int, int] = (9, 1, 5),
        padding: Literal["same", "published"] = "same",
        features: tuple[int, int] = (64, 32),
    ) -> None:
        super().__init__()
        if padding not in ("same", "published"):
            raise ValueError(f"padding is 'same' or 'published'; got {padding!r}.")
        if padding == "published" and sum(kernel_sizes) != 15:
            raise ValueError(f"padding 'published' keeps the size for kernel_sizes (9, 1, 5) only; got {kernel_sizes}.")
        self.scale = check_scale(scale)
        conv = Conv[Conv.CONV, spatial_dims]
        channels = (1, *features, 1)
        self.upsample = Interpolation(scale, "cubic")
        self.features, self.mapping, self.reconstruction = (
            conv(c, wide, k, padding=k // 2 if padding == "same" else 2, padding_mode="replicate")
            for c, wide, k in zip(channels, channels[1:], kernel_sizes)
        )

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.features(self.upsample(x)), inplace=True)  # 64 fine images: 0.25 GB for 1024 x 1024
        return self.reconstruction(F.relu(self.mapping(h), inplace=True))
