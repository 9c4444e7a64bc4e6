"""The U-Net of the paper, five levels deep, for images of any size."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from monai.networks.layers.factories import Conv
from monai.networks.nets.basic_unet import Down, TwoConv, UpCat
from torch import Tensor, nn

from ctrestore.networks.attention import AttentionKind, attention_of


class ClassicUNet(nn.Module):
    """U-Net (Ronneberger et al., MICCAI 2015) with padded convolutions: 31,030,593 parameters, 31,042,369 with norms.

    Maps ``(batch, in_channels, *spatial)`` to ``(batch, out_channels, *spatial)``. The image is padded to multiples of
    16 by reflection at its ends (by repetition if it is too small) and the output cropped. There is no activation after
    the last convolution, so values below zero are possible.

    Built from MONAI's blocks. MONAI's ``BasicUNet`` has 69,696 more parameters, because its uppermost level does not
    halve the channels when it upsamples; its ``UNet`` has strided and residual units.

    Args:
        spatial_dims: 2 or 3.
        in_channels: of the image.
        out_channels: of the output.
        features: channels at each depth.
        batch_norm: convolution, batch normalisation, ReLU.
        attention: after the two convolutions of every level, down and up: ``channel``, ``spatial`` or None. The
            channel gate pools over the whole image, so tiles give another result than the image.
        residual: add the image to the output (its first channels); the paper does not.
    """

    def __init__(
        self,
        spatial_dims: int = 2,
        in_channels: int = 1,
        out_channels: int = 1,
        features: tuple[int, ...] = (64, 128, 256, 512, 1024),
        batch_norm: bool = False,
        attention: AttentionKind | None = None,
        residual: bool = False,
    ) -> None:
        super().__init__()
        block: dict[str, Any] = {"act": "relu", "norm": "batch" if batch_norm else None, "bias": True}
        self.side_multiple, self.residual = 2 ** (len(features) - 1), residual
        self.encoder = nn.ModuleList([TwoConv(spatial_dims, in_channels, features[0], **block)])
        self.encoder.extend(Down(spatial_dims, shallow, deep, **block) for shallow, deep in pairwise(features))
        self.decoder = nn.ModuleList(
            UpCat(spatial_dims, deep, shallow, shallow, **block) for deep, shallow in pairwise(features[::-1])
        )
        self.encoder_attentions, self.decoder_attentions = (
            nn.ModuleList(attention_of(attention, spatial_dims=spatial_dims, channels=wide) for wide in widths)
            for widths in (features, features[-2::-1])
        )
        self.head = Conv[Conv.CONV, spatial_dims](features[0], out_channels, kernel_size=1)

    def forward(self, image: Tensor) -> Tensor:
        size = image.shape[2:]
        missing = [-side % self.side_multiple for side in size]
        before_and_after: list[int] = []
        for n in missing[::-1]:  # F.pad starts at the last axis
            before_and_after += [n // 2, n - n // 2]
        x = image
        if max(missing) > 0:
            reflects = all([n - n // 2 < side for n, side in zip(missing, size)])
            x = F.pad(image, before_and_after, mode="reflect" if reflects else "replicate")
        skips: list[Tensor] = []
        for encode, attention in zip(self.encoder, self.encoder_attentions):
            x = attention(encode(x))
            skips.append(x)
        x = skips.pop()
        for decode, attention in zip(self.decoder, self.decoder_attentions):
            x = attention(decode(x, skips.pop()))
        x = self.head(x) if torch.jit.is_scripting() else self._head_in_float32(x)
        for axis, side in enumerate(size):
            x = x.narrow(2 + axis, missing[axis] // 2, side)
        return image[:, :1] + x if self.residual else x

    @torch.jit.unused
    def _head_in_float32(self, x: Tensor) -> Tensor:
        """The last convolution without autocast: its output is an image, and bfloat16 has steps of 4 HU at -600 HU."""
        with torch.autocast(x.device.type, enabled=False):
            return self.head(x.float())
