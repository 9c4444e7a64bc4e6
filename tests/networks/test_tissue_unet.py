"""Tissues are found from activities relative to the scan's own percentile, never from its unit."""

import pytest
import torch

from ctrestore.networks import HomogeneousUNet, TissueUNet


def trained_like(**kwargs):
    """A small network whose zeros have been replaced, as if it had been trained."""
    torch.manual_seed(0)
    network = TissueUNet(
        **{"features": (4, 6, 8), "encoder_blocks": (1, 1, 1), "decoder_blocks": (1, 1), **kwargs}
    ).eval()
    for parameter in network.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return network.requires_grad_(False)


def image(*size, channels=3):
    return torch.rand((1, channels, *size), generator=torch.Generator().manual_seed(1))


def test_the_weights_take_less_than_4_mb_in_half_precision():
    assert 2 * sum(p.numel() for p in TissueUNet().parameters()) < 4_000_000


def test_an_untrained_network_finds_every_tissue_as_likely_as_any_other():
    with torch.no_grad():
        assert not TissueUNet()(image(8, 8, 8)).any()


@pytest.mark.parametrize("scale", [2.0**-7, 2.0**13])  # powers of two: floating point scales without rounding
def test_a_scan_and_its_percentile_in_other_units_only_sharpen_the_logits(scale):
    network, x = trained_like(), image(16, 8, 8)
    both = torch.cat([x, torch.ones_like(x[:, :1])], dim=1)
    assert torch.equal(network.body(scale * both), scale * network(x))


def test_air_can_have_a_tissue_thanks_to_the_channel_of_ones():
    air = torch.zeros(1, 3, 16, 16, 16)
    assert not HomogeneousUNet(in_channels=3, image_channels=0, out_channels=4)(air).any()
    logits = trained_like()(air)[0, :, 8, 8, 8]
    assert logits.softmax(dim=0).max() > 0.3


@pytest.mark.parametrize("size", [(7, 9, 11), (8, 16, 8)])
def test_any_size_is_kept(size):
    assert trained_like()(image(*size)).shape == (1, 4, *size)


def test_torchscript_and_export_give_the_same_answer():
    network, x = trained_like(), image(8, 16, 8)
    torch.testing.assert_close(torch.jit.script(network)(x), network(x))
    torch.testing.assert_close(torch.export.export(network, (x,)).module()(x), network(x))
