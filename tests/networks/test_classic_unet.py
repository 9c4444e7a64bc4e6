"""The classic U-Net has the published number of parameters and takes images of any size."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ctrestore.networks import ClassicUNet


def small(**kwargs):
    torch.manual_seed(0)
    return ClassicUNet(**{"features": (4, 6, 8, 10, 12), **kwargs}).eval().requires_grad_(False)


def image(*size):
    return torch.randn((2, 1, *size), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("batch_norm", "count"), [(False, 31_030_593), (True, 31_042_369)])
def test_it_has_the_published_number_of_parameters(batch_norm, count):
    assert sum(p.numel() for p in ClassicUNet(batch_norm=batch_norm).parameters()) == count


def test_every_level_has_two_convolutions_and_the_decoder_sees_the_upsampled_and_the_passed_on():
    network = ClassicUNet()
    widths = [
        [(m.in_channels, m.out_channels) for m in block.modules() if isinstance(m, nn.Conv2d)]
        for block in (*network.encoder, *network.decoder)
    ]
    down = [(1, 64), (64, 128), (128, 256), (256, 512), (512, 1024)]
    up = [(1024, 512), (512, 256), (256, 128), (128, 64)]
    assert widths == [[(a, b), (b, b)] for a, b in down + up]
    upsampling = [m for block in network.decoder for m in block.modules() if isinstance(m, nn.ConvTranspose2d)]
    assert [(m.in_channels, m.out_channels, m.kernel_size) for m in upsampling] == [(a, b, (2, 2)) for a, b in up]


def test_an_image_of_multiples_of_16_is_not_padded():
    network, x, seen = small(), image(32, 48), []
    network.encoder[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    network(x)
    assert seen[0] is x


@pytest.mark.parametrize(
    ("size", "padding", "mode"),
    [((55, 55), (4, 5, 4, 5), "reflect"), ((5, 20), (6, 6, 5, 6), "replicate"), ((1, 16), (0, 0, 7, 8), "replicate")],
)
def test_any_other_image_is_the_cropped_output_of_the_padded_one(size, padding, mode):
    network, x = small(), image(*size)
    left, _, top, _ = padding
    whole = network(F.pad(x, padding, mode=mode))
    assert all(side % 16 == 0 for side in whole.shape[2:])
    assert torch.equal(network(x), whole[..., top : top + size[0], left : left + size[1]])


def test_values_below_zero_can_come_out():
    assert (small()(image(32, 32)) < 0).any()


def test_with_a_silent_head_the_residual_form_gives_the_image():
    network = small(residual=True)
    for parameter in network.head.parameters():
        parameter.zero_()
    assert torch.equal(network(image(20, 33)), image(20, 33))


@pytest.mark.parametrize("options", [{}, {"batch_norm": True}, {"attention": "channel"}, {"attention": "spatial"}])
def test_torchscript_and_torch_export_agree_with_the_network(options):
    network, x = small(**options), image(24, 33)
    torch.testing.assert_close(torch.jit.script(network)(x), network(x))
    torch.testing.assert_close(torch.export.export(network, (x,)).module()(x), network(x))


def test_the_three_dimensional_network_is_the_same_class():
    assert small(spatial_dims=3, features=(2, 3, 4))(image(5, 8, 6)).shape == (2, 1, 5, 8, 6)


def test_under_autocast_the_output_has_the_steps_of_float32_because_no_image_is_added_to_it():
    """Of bfloat16 128 values lie between 0.5 and 1, so that neighbours of 600 HU would be 4 HU away."""
    network = small()
    network.head.bias.fill_(0.7)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = network(image(64, 64))
    assert out.dtype == torch.float32
    between = out[(out > 0.5) & (out < 1)]
    assert len(between.unique()) > 1000
