"""The default network is the identity until trained, is homogeneous, and takes any size."""

import pytest
import torch
from monai.networks.utils import pixelshuffle, pixelunshuffle

from ctrestore.networks import HomogeneousUNet
from ctrestore.networks.residual_u import fold, unfold


def trained_like(**kwargs):
    """A small network whose zeros have been replaced, as if it had been trained."""
    torch.manual_seed(0)
    network = HomogeneousUNet(
        **{"features": (4, 6, 8), "encoder_blocks": (1, 1, 1), "decoder_blocks": (1, 1), **kwargs}
    ).eval()
    for parameter in network.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return network.requires_grad_(False)


def image(*size, channels=2):
    return torch.rand((1, channels, *size), generator=torch.Generator().manual_seed(1))


def test_an_untrained_network_returns_the_sum_of_the_image_channels_to_the_bit():
    x = image(24, 16, 16)
    with torch.no_grad():
        assert torch.equal(HomogeneousUNet()(x), x.sum(dim=1, keepdim=True))


def test_the_default_has_fewer_than_three_million_parameters_and_no_bias_or_statistics():
    network = HomogeneousUNet()
    assert sum(p.numel() for p in network.parameters()) < 3_000_000
    assert not list(network.buffers())
    assert all(name.endswith("weight") for name, _ in network.named_parameters())


@pytest.mark.parametrize("scale", [2.0**-7, 2.0**13])  # powers of two: floating point scales without rounding
def test_a_scan_in_other_units_gives_the_same_answer_in_those_units(scale):
    network, x = trained_like(), image(16, 16, 8)
    assert torch.equal(network(scale * x), scale * network(x))
    assert not torch.allclose(network(x), x.sum(dim=1, keepdim=True)), "the network does something"


def test_becquerel_and_suv_agree_within_rounding():
    network, x = trained_like(), image(16, 16, 8)
    torch.testing.assert_close(network(13_700.3 * x) / 13_700.3, network(x), rtol=1e-4, atol=1e-5)


def test_the_image_is_added_to_every_channel_of_the_output_and_to_none_without_image_channels():
    x = image(8, 8, 8)
    with torch.no_grad():
        assert torch.equal(HomogeneousUNet(out_channels=3)(x), x.sum(dim=1, keepdim=True).expand(1, 3, 8, 8, 8))
        assert not HomogeneousUNet(image_channels=0, out_channels=3)(x).any()


def test_air_stays_air():
    assert not trained_like()(torch.zeros(1, 2, 8, 8, 8)).any()


@pytest.mark.parametrize("size", [(7, 9, 11), (8, 8, 8), (1, 17, 5)])
def test_any_size_comes_back_as_it_came_and_equals_the_padded_image(size):
    network, x = trained_like(), image(*size)
    out = network(x)
    assert out.shape == (1, 1, *size)
    padded = torch.zeros(1, 2, *(-(-side // 8) * 8 for side in size))
    padded[..., : size[0], : size[1], : size[2]] = x
    assert torch.equal(out, network(padded)[..., : size[0], : size[1], : size[2]])


def test_a_correction_moves_with_the_head_in_steps_of_the_coarsest_voxel():
    network = trained_like(features=(4,), encoder_blocks=(1,), decoder_blocks=())  # sees 8 voxels to each side
    here, there = torch.zeros(1, 2, 32, 20, 20), torch.zeros(1, 2, 32, 20, 20)
    here[..., 10:14, 10:12, 8:12], there[..., 16:20, 10:12, 8:12] = (image(4, 2, 4),) * 2
    torch.testing.assert_close(network(here)[..., 2:24, :, :], network(there)[..., 8:30, :, :])


def test_a_t1_channel_informs_the_correction_but_is_no_part_of_the_image():
    x = image(16, 8, 8, channels=3)
    with torch.no_grad():
        untrained = HomogeneousUNet(in_channels=3, image_channels=2)(x)
    assert torch.equal(untrained, x[:, :2].sum(dim=1, keepdim=True))
    network = trained_like(in_channels=3, image_channels=2)
    without = x.clone()
    without[:, 2] = 0.0
    assert not torch.allclose(network(x), network(without))


def test_the_two_dimensional_network_is_homogeneous_too():
    network, x = trained_like(spatial_dims=2), image(9, 14)
    assert network(x).shape == (1, 1, 9, 14)
    assert torch.equal(network(4.0 * x), 4.0 * network(x))


def test_under_autocast_the_image_itself_keeps_full_precision():
    x = image(8, 8, 8)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(HomogeneousUNet()(x), x.sum(dim=1, keepdim=True))


@pytest.mark.parametrize("size", [(8, 8, 8), (9, 12, 7)])
def test_torchscript_and_torch_export_agree_with_the_network(size):
    network, x = trained_like(), image(*size)
    expected = network(x)
    torch.testing.assert_close(torch.jit.script(network)(x), expected)
    torch.testing.assert_close(torch.export.export(network, (x,)).module()(x), expected)


@pytest.mark.parametrize("size", [(6, 4), (4, 6, 2)])
def test_fold_and_unfold_are_monais_pixel_shuffles_and_each_others_inverse(size):
    x = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(2))
    assert torch.equal(fold(x), pixelunshuffle(x, spatial_dims=len(size), scale_factor=2))
    assert torch.equal(unfold(fold(x)), x)
    assert torch.equal(unfold(fold(x)), pixelshuffle(fold(x), spatial_dims=len(size), scale_factor=2))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"in_channels": 1, "image_channels": 2}, r"0\.\.in_channels = 1; got 2"),
        ({"features": (4, 8)}, r"2 features need as many encoder_blocks and one fewer decoder_blocks; got 3 and 2"),
    ],
)
def test_arguments_that_contradict_each_other_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        HomogeneousUNet(**arguments)
