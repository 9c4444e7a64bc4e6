"""RED-CNN is wired as published, except for the ReLU that would cut off air."""

import pytest
import torch
from torch import nn

from ctrestore.networks import REDCNN


def small(**kwargs):
    torch.manual_seed(0)
    return REDCNN(**{"features": 4, **kwargs}).eval().requires_grad_(False)


def image(*size):
    return torch.randn((2, 1, *size), generator=torch.Generator().manual_seed(1))


def test_it_has_the_1_848_865_parameters_of_the_paper():
    assert sum(p.numel() for p in REDCNN().parameters()) == 1_848_865


def test_a_patch_of_55_shrinks_to_35_and_grows_back():
    network, sides = small(), []
    for layer in (*network.encoder, *network.decoder):
        layer.register_forward_hook(lambda _, __, out: sides.append(out.shape[-1]))
    assert network(image(55, 55)).shape == (2, 1, 55, 55)
    assert sides == [51, 47, 43, 39, 35, 39, 43, 47, 51, 55]


def test_shortcuts_join_the_input_and_the_outputs_of_the_second_and_fourth_convolution_before_the_relu():
    network, x = small(), image(25, 30)
    one, two, three, four, five = network.encoder
    a, b, c, d, e = network.decoder
    second = one(x).relu()
    second = two(second).relu()
    fourth = four(three(second).relu()).relu()
    y = (a(five(fourth).relu()) + fourth).relu()
    y = (c(b(y).relu()) + second).relu()
    torch.testing.assert_close(network(x), e(d(y).relu()) + x)


def test_air_stays_below_zero_because_no_relu_ends_the_network():
    network = small()
    for parameter in network.decoder[-1].parameters():
        parameter.zero_()
    x = torch.full((1, 1, 32, 32), -1.0)
    assert torch.equal(network(x), x)


def test_a_silent_last_layer_gives_the_input_whatever_the_options():
    for options in ({"batch_norm": True}, {"kaiming": True}, {"attention": "channel"}):
        network = small(**options)
        for parameter in network.decoder[-1].parameters():
            parameter.zero_()
        assert torch.equal(network(image(24, 24)), image(24, 24)), options


def test_batch_norm_is_between_convolution_and_relu_and_not_after_the_last_layer():
    network = REDCNN(features=4, batch_norm=True)
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(norms) == 9
    negative = []
    for norm in norms:
        norm.register_forward_hook(lambda _, __, out: negative.append(bool((out < 0).any())))
    network(image(30, 30))
    assert all(negative), "what a ReLU has not seen yet has values below zero"
    extra = sum(p.numel() for p in network.parameters()) - sum(p.numel() for p in REDCNN(features=4).parameters())
    assert extra == 9 * 2 * 4


def test_kaiming_weights_keep_the_variance_that_a_relu_halves():
    torch.manual_seed(0)
    network = REDCNN(kaiming=True)
    for layer in (*network.encoder, *network.decoder):
        # torch's fan_out is the first axis: outputs of a convolution, inputs of a transposed one; here always 96 * 25
        assert layer.weight.std().item() == pytest.approx((2 / (96 * 25)) ** 0.5, rel=0.1)
        assert not layer.bias.any()


def test_images_too_small_for_the_unpadded_convolutions_are_refused():
    assert small()(image(21, 21)).shape == (2, 1, 21, 21)
    with pytest.raises(ValueError, match=r"at least 21 voxels.*got \[55, 20\]"):
        small()(image(55, 20))


def test_the_three_dimensional_network_is_the_same_class():
    assert small(spatial_dims=3, depth=2)(image(10, 9, 12)).shape == (2, 1, 10, 9, 12)


@pytest.mark.parametrize("options", [{}, {"batch_norm": True}, {"attention": "channel"}, {"attention": "spatial"}])
def test_torchscript_and_torch_export_agree_with_the_network(options):
    network, x = small(**options), image(24, 31)
    torch.testing.assert_close(torch.jit.script(network)(x), network(x))
    torch.testing.assert_close(torch.export.export(network, (x,)).module()(x), network(x))


def test_under_autocast_the_layers_that_read_and_write_the_image_keep_their_precision():
    network, x = small(depth=1), image(12, 12)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(network(x), network.double()(x.double()).float(), rtol=1e-5, atol=1e-6)
