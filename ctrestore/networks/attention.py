"""The two attentions of CBAM: weights of channels and weights of voxels.

Both consist of a gate, a module whose output is the weights, and the product with the features. So a forward
hook on the gates of a network sees every weight that it uses::

    gates = [module for module in network.modules() if isinstance(module, ChannelGate)]

CBAM applies one after the other; here a network uses one of them, to separate their effects.
"""

from __future__ import annotations

from typing import Literal

import torch
from monai.networks.layers.factories import Conv
from torch import Tensor, nn

AttentionKind = Literal["channel", "spatial"]


class ChannelGate(nn.Module):
    """Weights of the channels, ``(batch, channels, *spatial)`` to ``(batch, channels, 1, ...)`` in 0..1.

    One shared perceptron gets each channel's mean and its maximum over the whole image; the sum goes through a
    sigmoid. So a tile, a crop or a patch has other weights than the whole image.

    Args:
        spatial_dims: 2 or 3.
        channels: of the features.
        reduction: how many times narrower the perceptron's hidden layer is.
    """

    def __init__(self, spatial_dims: int, channels: int, reduction: int = 16) -> None:
        super().__init__()
        dense, hidden = Conv[Conv.CONV, spatial_dims], max(1, channels // reduction)
        self.perceptron = nn.Sequential(
            dense(channels, hidden, kernel_size=1), nn.ReLU(), dense(hidden, channels, kernel_size=1)
        )

    def forward(self, x: Tensor) -> Tensor:
        axes = list(range(2, x.ndim))
        mean, maximum = x.mean(dim=axes, keepdim=True), x.amax(dim=axes, keepdim=True)
        return torch.sigmoid(self.perceptron(mean) + self.perceptron(maximum))


class SpatialGate(nn.Module):
    """Weights of the voxels, ``(batch, channels, *spatial)`` to ``(batch, 1, *spatial)`` in 0..1.

    A convolution with kernel size 7, zero-padded and without bias, gets the mean and the maximum over channels.

    Args:
        spatial_dims: 2 or 3.
        kernel_size: odd.
    """

    def __init__(self, spatial_dims: int, kernel_size: int = 7) -> None:
        super().__init__()
        self.conv = Conv[Conv.CONV, spatial_dims](2, 1, kernel_size=kernel_size, padding=kernel_size // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.conv(torch.cat([x.mean(dim=1, keepdim=True), x.amax(dim=1, keepdim=True)], dim=1)))


class ChannelAttention(nn.Module):
    """Features times the weights of their channels (Woo et al., CBAM, ECCV 2018, section 3). Same shape.

    Do not use with tiles: :class:`ChannelGate` pools over its whole input, so a tiled image gives another result.
    """

    def __init__(self, spatial_dims: int, channels: int, reduction: int = 16) -> None:
        super().__init__()
        self.gate = ChannelGate(spatial_dims, channels, reduction)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(x)


class SpatialAttention(nn.Module):
    """Features times the weights of their voxels (Woo et al., CBAM, ECCV 2018, section 3). Same shape.

    The original code has batch normalisation after the convolution; the paper and this class do not.
    """

    def __init__(self, spatial_dims: int, kernel_size: int = 7) -> None:
        super().__init__()
        self.gate = SpatialGate(spatial_dims, kernel_size)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(x)


def attention_of(kind: AttentionKind | None, *, spatial_dims: int, channels: int) -> nn.Module:
    """The attention of that kind for this number of channels; without a kind, the identity.

    Raises:
        ValueError: there is no such kind.
    """
    if kind is None:
        return nn.Identity()
    if kind == "channel":
        return ChannelAttention(spatial_dims, channels)
    if kind == "spatial":
        return SpatialAttention(spatial_dims)
    raise ValueError(f"attention is 'channel', 'spatial' or None; got {kind!r}.")
