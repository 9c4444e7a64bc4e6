"""The default CT network is the identity until trained, takes any size, and gets the local noise level."""

import pytest
import torch
import torch.nn.functional as F

from ctrestore.networks import UnshuffledUNet
from ctrestore.networks.residual_u import ResidualBlock
from ctrestore.networks.unshuffled_unet import LocalNoise


def trained_like(**kwargs):
    """A small network whose zeros have been replaced, as if it had been trained."""
    torch.manual_seed(0)
    sizes = {"features": (4, 6, 8), "encoder_blocks": (1, 1, 1), "decoder_blocks": (1, 1)}
    network = UnshuffledUNet(**{**sizes, **kwargs}).eval()
    for parameter in network.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    return network.requires_grad_(False)


def noise(*shape, sigma=0.03, seed=1):
    return sigma * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_an_untrained_network_is_the_identity_to_the_bit():
    x = noise(2, 1, 40, 55)
    with torch.no_grad():
        assert torch.equal(UnshuffledUNet()(x), x)


def test_the_default_fits_in_two_megabytes_of_half_precision():
    network = UnshuffledUNet()
    assert sum(p.numel() for p in network.parameters()) == 961_588
    assert not list(network.buffers())  # nothing that normalises by statistics of the training set


def test_in_place_operations_of_a_block_change_neither_result_nor_input_nor_gradient():
    torch.manual_seed(0)
    block = ResidualBlock(2, 6, bias=True)
    torch.nn.init.normal_(block.second.weight)
    x = torch.randn(1, 6, 9, 9, requires_grad=True)

    def gradients(out):
        return torch.autograd.grad(out.square().sum(), [x, *block.parameters()])

    kept = x.detach().clone()
    plain = x + block.second(F.relu(block.first(F.relu(x))))
    ours = block(x)
    assert torch.equal(ours, plain)
    assert torch.equal(x, kept)
    assert all(torch.equal(one, other) for one, other in zip(gradients(ours), gradients(plain)))


@pytest.mark.parametrize("in_channels", [1, 2])
def test_the_memory_order_of_the_pixels_only_changes_the_time(in_channels):
    network, x = trained_like(in_channels=in_channels), noise(2, in_channels, 40, 55)
    ordered = network(x.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(ordered, network(x), rtol=0, atol=1e-6)


@pytest.mark.parametrize("size", [(55, 55), (8, 8), (33, 70)])
def test_any_size_is_kept(size):
    network, x = trained_like(), noise(1, 1, *size)
    out = network(x)
    assert out.shape == x.shape
    assert not torch.allclose(out, x), "the network does something"


def test_a_size_that_needs_no_padding_is_the_edge_continued_one_cut_back():
    network, x = trained_like(), noise(1, 1, 30, 32)
    continued = torch.cat([x, x[:, :, -1:].expand(-1, -1, 2, -1)], dim=2)
    torch.testing.assert_close(network(x), network(continued)[:, :, :30])


def test_further_channels_inform_the_network_and_are_not_added_to_the_image():
    x, told = noise(1, 1, 32, 40), torch.full((1, 1, 32, 40), -0.3)
    with torch.no_grad():
        assert torch.equal(UnshuffledUNet(in_channels=2)(torch.cat([x, told], dim=1)), x)
    network = trained_like(in_channels=2)
    one, other = (network(torch.cat([x, factor * told], dim=1)) for factor in (1, 2))
    assert not torch.allclose(one, other)


def test_volumes_work_in_the_same_way():
    x = noise(1, 1, 24, 24, 24)
    assert trained_like(spatial_dims=3)(x).shape == x.shape


def test_the_noise_map_is_proportional_to_the_noise_and_zero_without():
    measure = LocalNoise(spatial_dims=2)
    level = measure(noise(1, 1, 128, 128))
    assert level.shape == (1, 2, 64, 64)
    torch.testing.assert_close(measure(3 * noise(1, 1, 128, 128)), 3 * level)
    assert not measure(torch.full((1, 1, 32, 32), -1.0)).any()


def test_an_edge_does_not_count_as_noise():
    x = noise(1, 1, 128, 128)
    edge = x.clone()
    edge[..., 64:, :] += 1.0  # 1000 HU in a field of 30
    plain, with_edge = (LocalNoise(spatial_dims=2)(image)[0, 0] for image in (x, edge))
    assert with_edge.max() < 1.5 * plain.max()


def test_distant_pixels_do_not_matter():
    """Tiles can be restored one by one: the field of view is finite."""
    network, x = trained_like(), noise(1, 1, 256, 64)
    other = x.clone()
    other[:, :, 192:] += 0.5
    torch.testing.assert_close(network(other)[:, :, :64], network(x)[:, :, :64])


def test_blocks_that_do_not_fit_the_depth_are_refused():
    with pytest.raises(ValueError, match="as many encoder_blocks"):
        UnshuffledUNet(features=(4, 4, 4), encoder_blocks=(1, 1), decoder_blocks=(1, 1))
