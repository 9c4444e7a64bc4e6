"""The published network is wired as published."""

import pytest
import torch
from torch import nn

from ctrestore.networks import ResUNet


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return ResUNet().eval()


def small(**kwargs):
    torch.manual_seed(0)
    return ResUNet(features=(4, 8), **kwargs).eval()


def convolutions(block):
    """``(in, out, kernel, stride)`` of every convolution, in the order they are applied."""
    found = [m for m in block.modules() if isinstance(m, nn.Conv3d)]
    return [(m.in_channels, m.out_channels, m.kernel_size[0], m.stride[0]) for m in found]


def test_it_has_the_8_447_773_parameters_of_the_authors_code(network):
    assert sum(p.numel() for p in network.parameters()) == 8_447_773


@pytest.mark.parametrize(
    ("level", "before", "mid", "out"),
    [(0, 1, 12, 24), (1, 24, 24, 48), (2, 48, 48, 96), (3, 96, 96, 192), (4, 192, 192, 384)],
)
def test_the_encoder_doubles_its_channels_and_halves_the_image_everywhere_but_at_its_top(
    network, level, before, mid, out
):
    stride = 1 if level == 0 else 2
    assert convolutions(network.encoder[level].body) == [(before, mid, 3, stride), (mid, out, 3, 1)]
    assert convolutions(network.encoder[level].shortcut) == [(before, out, 1, stride)]


@pytest.mark.parametrize(
    ("level", "deep", "skipped", "mid", "out"),
    [(0, 384, 192, 192, 96), (1, 96, 96, 96, 48), (2, 48, 48, 48, 24), (3, 24, 24, 24, 12)],
)
def test_the_decoder_sees_the_upsampled_features_and_the_encoders_of_that_size(network, level, deep, skipped, mid, out):
    assert convolutions(network.decoder[level].body) == [(deep + skipped, mid, 3, 1), (mid, out, 3, 1)]
    assert convolutions(network.decoder[level].shortcut) == [(deep + skipped, out, 1, 1)]


def test_every_convolution_of_a_body_follows_a_normalisation_and_a_relu_except_the_very_first(network):
    kinds = [[type(layer) for layer in block.body] for block in [*network.encoder, *network.decoder]]
    assert kinds[0] == [nn.Conv3d, nn.BatchNorm3d, nn.ReLU, nn.Conv3d]
    assert all(kind == [nn.BatchNorm3d, nn.ReLU, nn.Conv3d] * 2 for kind in kinds[1:])


def test_a_shortcut_is_a_pointwise_convolution_and_a_normalisation_added_without_activation(network):
    block = network.encoder[1]
    assert [type(layer) for layer in block.shortcut] == [nn.Conv3d, nn.BatchNorm3d]
    x = torch.randn(1, 24, 4, 4, 4)
    with torch.no_grad():
        torch.testing.assert_close(block(x), block.body(x) + block.shortcut(x))
        assert block(x).min() < 0


def test_the_decoder_upsamples_by_the_nearest_neighbour_before_it_joins_the_encoder():
    network, seen = small(), []
    network.decoder[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    x = torch.rand(1, 1, 4, 4, 4)
    with torch.no_grad():
        network(x)
        top = network.encoder[0](x)
        bridge = network.encoder[1](top)
    repeated = bridge.repeat_interleave(2, 2).repeat_interleave(2, 3).repeat_interleave(2, 4)
    torch.testing.assert_close(seen[0], torch.cat([repeated, top], dim=1))


def test_the_output_is_a_pointwise_convolution_cut_at_zero(network):
    assert convolutions(network.head) == [(12, 1, 1, 1)]
    seen = []
    handle = network.head.register_forward_hook(lambda _, __, out: seen.append(out))
    with torch.no_grad():
        out = network(torch.randn(1, 1, 16, 16, 32))
    handle.remove()
    assert out.shape == (1, 1, 16, 16, 32)
    assert seen[0].min() < 0, "an untrained head gives negative values, or the test is none"
    torch.testing.assert_close(out, seen[0].clamp(min=0))


def test_the_same_class_makes_the_two_dimensional_network():
    network = small(spatial_dims=2, in_channels=3, out_channels=2)
    with torch.no_grad():
        assert network(torch.rand(1, 3, 6, 8)).shape == (1, 2, 6, 8)
    assert not any(isinstance(m, nn.Conv3d | nn.BatchNorm3d) for m in network.modules())


def test_a_side_that_cannot_be_halved_often_enough_is_refused_with_a_remedy(network):
    with pytest.raises(ValueError, match=r"multiples of 16 voxels; got \(16, 24, 16\).*crop or pad"):
        network(torch.zeros(1, 1, 16, 24, 16))


def test_every_parameter_takes_part_in_the_output():
    network = small()
    network.head.bias.data.fill_(100.0)  # far from the final ReLU's dead side
    network.train()(torch.rand(2, 1, 4, 4, 4)).square().sum().backward()
    assert all(p.grad is not None for p in network.parameters())
