"""Gradients under mixed precision are those of float32, to the precision of bfloat16."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ctrestore.precision import mixed_precision


def of_weights(layer: nn.Module, image: torch.Tensor, towards: torch.Tensor, *, enabled: bool) -> torch.Tensor:
    with mixed_precision(image.device, enabled):
        out = layer(image)
    assert out.dtype == (torch.bfloat16 if enabled and image.shape[2] >= 8 else torch.float32)
    return torch.autograd.grad((out.float() * towards).sum(), layer.weight)[0]


@pytest.mark.parametrize(("kernel", "depth"), [(3, 1), (3, 2), (5, 4), (7, 3), (3, 8)])
def test_gradients_of_shallow_images(kernel, depth):
    # oneDNN's bfloat16 kernel reads memory that is not its own when the kernel is deeper than the image.
    layer = nn.Conv3d(16, 16, kernel, padding=kernel // 2, bias=False)
    for _ in range(5):
        image, towards = torch.randn(2, 4, 16, depth, 6, 6)
        freed = [torch.full((n,), torch.nan) for n in (100, 1000, 5000, 20000, 100000)]  # what such a read would find
        del freed
        found = of_weights(layer, image, towards, enabled=True)
        exact = of_weights(layer, image, towards, enabled=False)
        assert (found - exact).norm() < 0.01 * exact.norm()


def test_without_gradients_all_is_bfloat16():
    layer = nn.Conv3d(4, 4, 3, padding=1)
    with torch.no_grad(), mixed_precision(torch.device("cpu")):
        assert layer(torch.ones(1, 4, 2, 6, 6)).dtype == torch.bfloat16
