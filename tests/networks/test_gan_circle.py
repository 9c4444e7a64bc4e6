"""GAN-CIRCLE's generator is the paper's by its parameters, and its critic judges patches of any size by their noise."""

import pytest
import torch
import torch.nn.functional as F

from ctrestore.networks import GANCircleCritic, GANCircleGenerator
from ctrestore.networks.gan_circle import FEATURES


def n_parameters(network):
    return sum(parameter.numel() for parameter in network.parameters())


def image(*sides, batch=2, seed=0):
    return torch.randn((batch, 1, *sides), generator=torch.Generator().manual_seed(seed))


def trained(network, seed=0):
    """The network with a last layer that is not zero."""
    with torch.no_grad():
        network.head.weight.normal_(generator=torch.Generator().manual_seed(seed))
    return network.eval()


# The generator


@pytest.mark.parametrize(("scale", "count"), [(1, 164_536), (2, 168_120)], ids=["denoising", "super-resolution"])
def test_the_generator_has_as_many_parameters_as_the_paper_s(scale, count):
    assert n_parameters(GANCircleGenerator(scale=scale)) == count


def test_all_twelve_features_reach_the_reconstruction():
    network = GANCircleGenerator()
    assert (len(FEATURES), sum(FEATURES)) == (12, 423)
    assert network.branches.in_channels == 423


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_the_branches_see_the_features_as_if_they_were_concatenated(spatial_dims):
    network = GANCircleGenerator(spatial_dims=spatial_dims)
    generator = torch.Generator().manual_seed(0)
    found = [torch.randn((1, n, *[5] * spatial_dims), generator=generator) for n in FEATURES]
    with torch.no_grad():
        torch.testing.assert_close(network._of_all(found), network.branches(torch.cat(found, dim=1)))


def test_an_untrained_generator_is_the_identity():
    x = image(17, 23)
    assert torch.equal(GANCircleGenerator().eval()(x), x)


def test_an_untrained_super_resolving_generator_interpolates():
    x = image(16, 18)
    expected = F.interpolate(x, scale_factor=2.0, mode="bicubic", align_corners=False)
    torch.testing.assert_close(GANCircleGenerator(scale=2).eval()(x), expected)


@pytest.mark.parametrize("sides", [(5, 7), (33, 64), (12, 13, 9)])
def test_any_size_comes_back_in_two_and_in_three_dimensions(sides):
    network = trained(GANCircleGenerator(spatial_dims=len(sides)))
    with torch.no_grad():
        assert network(image(*sides)).shape == (2, 1, *sides)


def test_a_pixel_depends_on_sixteen_neighbours_to_each_side_and_no_more():
    """Twelve feature convolutions and three more in a row (B, C1, C2) and the last: a reach of 16."""
    network, x = trained(GANCircleGenerator()), image(48, 48, batch=1).requires_grad_()
    network(x)[0, 0, 24, 24].backward()
    rows, columns = x.grad[0, 0].nonzero(as_tuple=True)
    assert [rows.min(), rows.max(), columns.min(), columns.max()] == [24 - 16, 24 + 16] * 2


def test_dropout_is_active_only_in_training():
    network, x = trained(GANCircleGenerator(dropout=0.2)), image(16, 16)
    with torch.no_grad():
        assert torch.equal(network(x), network(x))
        network.train()
        assert not torch.equal(network(x), network(x))


def test_another_scale_is_refused():
    with pytest.raises(ValueError, match=r"scale is 1 .* or 2 .*got 4"):
        GANCircleGenerator(scale=4)


# The critic


@pytest.mark.parametrize("sides", [(8, 8), (55, 55), (64, 96), (33, 40, 35)])
def test_the_critic_gives_one_number_an_image_whatever_its_size(sides):
    critic = GANCircleCritic(spatial_dims=len(sides), features=(4, 8, 8, 8), hidden=8)
    assert critic(image(*sides)).shape == (2,)


def test_the_critic_has_the_layers_of_the_paper():
    """Convolutions of 4 x 4 with biases, 1 to 64, 128, 256 and 512; then 512 to 1024 to 1."""
    convolutions = sum(16 * a * b + b for a, b in ((1, 64), (64, 128), (128, 256), (256, 512)))
    assert n_parameters(GANCircleCritic()) == convolutions + (512 + 1) * 1024 + 1024 + 1


def test_the_number_of_an_image_does_not_depend_on_its_neighbours_in_the_batch():
    critic, x = GANCircleCritic(features=(8, 8, 8, 8), hidden=8), image(40, 40, batch=3)
    with torch.no_grad():
        torch.testing.assert_close(critic(x)[1:2], critic(x[1:2]))


def test_the_noise_of_a_uniform_patch_is_not_divided_out():
    """The critic should judge it."""
    critic = GANCircleCritic(features=(16, 16, 16, 16), hidden=16)
    noise = 0.05 * image(64, 64, batch=1)
    with torch.no_grad():
        assert (critic(noise) - critic(2 * noise)).abs() > 1e-4


def test_values_outside_the_clip_range_have_no_effect_and_no_gradient():
    critic = GANCircleCritic(features=(8, 8, 8, 8), hidden=8, seen=(-0.95, 0.3))
    dark_and_bright = torch.full((1, 1, 40, 40), -1.0)
    dark_and_bright[..., 20:] = 0.395
    more = dark_and_bright * 2
    with torch.no_grad():
        assert torch.equal(critic(dark_and_bright), critic(more))
    more.requires_grad_()
    critic(more).sum().backward()
    assert not more.grad.any()


def test_a_critic_of_details_cannot_separate_tissues_by_their_mean_but_separates_noise():
    torch.manual_seed(0)  # some weights hardly answer to anything
    critic = GANCircleCritic(features=(8, 8, 8, 8), hidden=8, instance_norm=False, detail_pixels=7)
    noise = 0.02 * image(40, 40, batch=1)
    with torch.no_grad():
        torch.testing.assert_close(critic(noise), critic(noise - 0.1))
        assert (critic(noise) - critic(2 * noise)).abs() > 1e-4
    x = noise.requires_grad_()
    critic(x).sum().backward()
    inner = x.grad[..., 6:-6, 6:-6]
    assert inner.sum().abs() < 0.05 * inner.abs().sum()


def test_an_even_window_of_details_is_refused():
    with pytest.raises(ValueError, match="odd number of pixels"):
        GANCircleCritic(detail_pixels=6)


def test_an_empty_range_is_refused():
    with pytest.raises(ValueError, match="lowest below highest"):
        GANCircleCritic(seen=(0.3, -0.95))
