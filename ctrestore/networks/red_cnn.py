"""The residual encoder-decoder network for low-dose CT."""

from __future__ import annotations

from functools import partial
from itertools import pairwise

import torch
import torch.nn.functional as F
from monai.networks.layers.factories import Conv, Norm
from torch import Tensor, nn

from ctrestore.networks.attention import AttentionKind, attention_of

KERNEL_SIZE = 5


@torch.jit.unused
def _without_autocast(layer: nn.Module, x: Tensor) -> Tensor:
    """A layer in its weights' own precision: bfloat16 has steps of 4 HU at HU / 1000 = 1."""
    with torch.autocast(x.device.type, enabled=False):
        return layer(x.to(next(layer.parameters()).dtype))


class REDCNN(nn.Module):
    """Residual encoder-decoder CNN for low-dose CT (Chen et al., IEEE TMI 36(12):2524, 2017).

    Maps ``(batch, 1, *spatial)`` to the same shape. No layer is padded: five convolutions remove 20 voxels from each
    side of a patch (55 -> 35) and five transposed convolutions restore them, so each side needs at least 21.

    Unlike the paper there is no ReLU after the last layer: it would set everything below zero to zero, which on HU /
    1000 is fat, lung and air. As in the paper a shortcut is added before the ReLU, not after it. Under autocast the
    first and the last layer, which read and write the image, keep their precision.

    Args:
        spatial_dims: 2 or 3.
        features: channels of every layer.
        depth: number of convolutions, and of transposed ones. A shortcut joins every second pair of them.
        batch_norm: convolution, batch normalisation, (shortcut,) ReLU; none after the last layer.
        attention: on the features after the ReLU of every layer but the last: ``channel``, ``spatial`` or None. The
            channel gate pools over the whole image, so tiles give another result than the image.
        kaiming: weights drawn from Kaiming's normal distribution (fan_out, relu), biases zero; else torch's default.
    """

    def __init__(
        self,
        spatial_dims: int = 2,
        features: int = 96,
        depth: int = 5,
        batch_norm: bool = False,
        attention: AttentionKind | None = None,
        kaiming: bool = False,
    ) -> None:
        super().__init__()
        conv, deconv = Conv[Conv.CONV, spatial_dims], Conv[Conv.CONVTRANS, spatial_dims]
        norm = Norm[Norm.BATCH, spatial_dims] if batch_norm else nn.Identity
        gated = partial(attention_of, attention, spatial_dims=spatial_dims, channels=features)
        widths = list(pairwise((1, *[features] * depth)))
        self.smallest_side = depth * (KERNEL_SIZE - 1) + 1
        self.encoder = nn.ModuleList(conv(narrow, wide, kernel_size=KERNEL_SIZE) for narrow, wide in widths)
        self.encoder_norms = nn.ModuleList(norm(features) for _ in range(depth))
        self.encoder_attentions = nn.ModuleList(gated() for _ in range(depth))
        self.decoder = nn.ModuleList(deconv(wide, narrow, kernel_size=KERNEL_SIZE) for narrow, wide in widths[::-1])
        self.decoder_norms = nn.ModuleList([norm(features) for _ in range(depth - 1)] + [nn.Identity()])
        self.decoder_attentions = nn.ModuleList([gated() for _ in range(depth - 1)] + [nn.Identity()])
        if kaiming:
            for layer in (*self.encoder, *self.decoder):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
                nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        if min(x.shape[2:]) < self.smallest_side:
            raise ValueError(
                f"RED-CNN needs sides of at least {self.smallest_side} voxels, as its convolutions are not padded; "
                f"got {list(x.shape[2:])}. Remedy: larger patches, or pad the image."
            )
        inputs: list[Tensor] = []
        for layer, norm, attention in zip(self.encoder, self.encoder_norms, self.encoder_attentions):
            inputs.append(x)
            if torch.jit.is_scripting() or len(inputs) > 1:  # noqa: SIM108  # TorchScript skips branches of statements alone
                x = layer(x)
            else:
                x = _without_autocast(layer, x)
            x = attention(F.relu(norm(x)))
        for layer, norm, attention in zip(self.decoder, self.decoder_norms, self.decoder_attentions):
            shortcut = inputs.pop()
            if torch.jit.is_scripting() or len(inputs) > 0:  # noqa: SIM108
                x = layer(x)
            else:
                x = _without_autocast(layer, x)
            x = norm(x)
            if len(inputs) % 2 == 0:
                x = x + shortcut
            if len(inputs) > 0:
                x = attention(F.relu(x))
        return x
