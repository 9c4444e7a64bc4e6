"""The networks of super-resolution: sizes and parameters as published, and how they start."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from ctrestore.networks import ESPCN, FSRCNN, SRCNN, VDSR, Interpolation, SubPixelUNet

SMALL = {
    SRCNN: {"features": (6, 4)},
    FSRCNN: {"d": 6, "s": 4, "m": 2},
    ESPCN: {"features": (6, 4)},
    VDSR: {"depth": 4, "features": 6},
    SubPixelUNet: {"features": (4, 6, 6), "encoder_blocks": (1, 1, 1), "decoder_blocks": (1, 1)},
}


def n_parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize(
    ("network", "n"),
    [
        (SRCNN(), 8_129),
        (SRCNN(padding="published"), 8_129),
        (SRCNN(kernel_sizes=(9, 5, 5)), 57_281),
        (FSRCNN(scale=3), 12_809),
        (ESPCN(scale=1), 20_417),
        (ESPCN(scale=2), 21_284),
        (ESPCN(scale=3), 22_729),
        (ESPCN(scale=4), 24_752),
        (VDSR(), 665_921),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else str(value),
)
def test_the_number_of_parameters_is_the_published_one(network, n):
    assert n_parameters(network) == n


def test_fsrcnn_has_12464_weights_and_172_slopes():
    network = FSRCNN()
    slopes = sum(n_parameters(layer) for layer in network.modules() if isinstance(layer, nn.PReLU))
    weights = sum(p.numel() for p in network.parameters() if p.ndim > 1)
    assert (weights, slopes) == (12_464, 172)


def test_the_weights_of_two_released_scales_and_the_small_networks_fit_in_four_megabytes():
    networks = [SubPixelUNet(scale=2), SubPixelUNet(scale=4), SRCNN(), FSRCNN(), ESPCN(), VDSR()]
    assert 2 * sum(map(n_parameters, networks)) < 3.95e6  # 2 bytes each, and the files' own overhead
    assert n_parameters(networks[0]) < 1e6


@pytest.mark.parametrize("network", SMALL)
@pytest.mark.parametrize("scale", [1, 2, 3, 4])
def test_every_network_gives_scale_times_its_input_whatever_the_size(network, scale):
    built = network(scale=scale, **SMALL[network])
    assert built.scale == scale
    assert built(torch.zeros(2, 1, 13, 10)).shape == (2, 1, 13 * scale, 10 * scale)


@pytest.mark.parametrize("network", SMALL)
def test_a_volume_is_upscaled_and_has_a_gradient_in_three_dimensions(network):
    torch.manual_seed(0)
    built = network(spatial_dims=3, scale=2, **SMALL[network])
    coarse, fine = torch.rand(1, 1, 8, 8, 4), torch.rand(1, 1, 16, 16, 8)
    optimizer = torch.optim.Adam(built.parameters(), 1e-3)
    losses = []
    for _ in range(8):
        pred = built(coarse)
        assert pred.shape == fine.shape
        loss = (pred - fine).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]


def test_published_srcnn_keeps_the_size_through_a_smaller_and_a_larger_one():
    network = SRCNN(scale=1, padding="published")
    x = torch.rand(1, 1, 299, 299)
    first = network.features(x)
    second = network.mapping(first)
    assert (first.shape[-1], second.shape[-1], network.reconstruction(second).shape[-1]) == (295, 299, 299)
    with pytest.raises(ValueError, match="keeps the size for kernel_sizes"):
        SRCNN(kernel_sizes=(9, 5, 5), padding="published")


@pytest.mark.parametrize("network", [FSRCNN, ESPCN])
def test_the_initial_weights_have_the_deviation_of_the_paper(network):
    torch.manual_seed(0)
    layers = [m for m in network(scale=3).modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
    for layer in layers:
        expected = math.sqrt(2 / (layer.out_channels * math.prod(layer.kernel_size)))
        if layer is layers[-1]:
            expected = 0.001
        n = layer.weight.numel()
        assert float(layer.weight.detach().std()) == pytest.approx(expected, rel=4 / math.sqrt(2 * n))
        assert not layer.bias.any()


@pytest.mark.parametrize(("network", "kernel"), [(VDSR, "cubic"), (SubPixelUNet, "lanczos")])
def test_an_untrained_residual_network_is_an_interpolation(network, kernel):
    x = torch.randn(1, 1, 17, 12)
    torch.testing.assert_close(network(scale=3, **SMALL[network])(x), Interpolation(3, kernel)(x))


def test_at_scale_one_an_untrained_residual_network_is_the_identity():
    x = torch.randn(1, 1, 9, 12)
    for network in (VDSR, SubPixelUNet):
        assert torch.equal(network(scale=1, **SMALL[network])(x), x)


@pytest.mark.parametrize("network", SMALL)
def test_torchscript_gives_the_same_output(network):
    torch.manual_seed(0)
    built = network(scale=2, **SMALL[network]).eval()
    for parameter in built.parameters():
        nn.init.normal_(parameter, std=0.1)
    x = torch.randn(1, 1, 12, 16)
    with torch.no_grad():
        torch.testing.assert_close(torch.jit.script(built)(x), built(x))
        exported = torch.export.export(built, (x,)).module()
        torch.testing.assert_close(exported(x), built(x))


def test_depths_and_blocks_must_fit():
    with pytest.raises(ValueError, match="3 features need as many encoder_blocks"):
        SubPixelUNet(encoder_blocks=(1, 1))
