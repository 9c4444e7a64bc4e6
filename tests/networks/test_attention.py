"""The gates follow CBAM's formulas, and a hook sees their weights."""

import pytest
import torch
import torch.nn.functional as F

from ctrestore.networks import REDCNN, ChannelAttention, ChannelGate, ClassicUNet, SpatialAttention, SpatialGate


def features(*size, channels=8):
    return torch.randn((2, channels, *size), generator=torch.Generator().manual_seed(0))


def test_channel_weights_are_the_sigmoid_of_a_shared_perceptron_of_mean_and_maximum():
    torch.manual_seed(0)
    gate, x = ChannelGate(2, channels=8, reduction=4).requires_grad_(False), features(5, 6)
    first, _, second = gate.perceptron
    assert first.weight.shape == (2, 8, 1, 1)

    def perceptron(pooled):
        hidden = F.relu(pooled @ first.weight[:, :, 0, 0].T + first.bias)
        return hidden @ second.weight[:, :, 0, 0].T + second.bias

    logits = perceptron(x.flatten(2).mean(dim=2)) + perceptron(x.flatten(2).max(dim=2).values)
    torch.testing.assert_close(gate(x), (1 / (1 + torch.exp(-logits)))[:, :, None, None])


def test_spatial_weights_are_the_sigmoid_of_a_7x7_convolution_of_mean_and_maximum_over_channels():
    torch.manual_seed(0)
    gate, x = SpatialGate(2).requires_grad_(False), features(9, 8)
    pooled = F.pad(torch.stack([x.mean(dim=1), x.max(dim=1).values], dim=1), (3, 3, 3, 3))
    here = (pooled[:, :, 4:11, 2:9] * gate.conv.weight).sum(dim=(1, 2, 3))  # the window about pixel (4, 2)
    weights = gate(x)
    assert weights.shape == (2, 1, 9, 8)
    torch.testing.assert_close(weights[:, 0, 4, 2], torch.sigmoid(here))


@pytest.mark.parametrize("attention", [ChannelAttention(2, 8), SpatialAttention(2)])
def test_attention_is_the_features_times_its_weights(attention):
    x = features(9, 8)
    torch.testing.assert_close(attention(x), x * attention.gate(x))
    assert ((attention.gate(x) > 0) & (attention.gate(x) < 1)).all()


def test_a_gate_of_zeros_halves_the_features():
    x = features(9, 8)
    for attention in (ChannelAttention(2, 8), SpatialAttention(2)):
        for parameter in attention.parameters():
            parameter.data.zero_()
        assert torch.equal(attention(x), x / 2)


def test_channel_weights_ignore_positions_and_spatial_weights_move_with_them():
    x, moved = torch.zeros(1, 4, 32, 32), torch.zeros(1, 4, 32, 32)
    x[..., 8:12, 8:12], moved[..., 18:22, 15:19] = (features(4, 4, channels=4)[:1],) * 2
    channel, spatial = ChannelGate(2, 4), SpatialGate(2)
    torch.testing.assert_close(channel(x), channel(moved))
    torch.testing.assert_close(spatial(x)[..., 5:15, 5:15], spatial(moved)[..., 15:25, 12:22])


def test_a_tile_has_other_channel_weights_than_its_image_and_the_same_spatial_ones_inside():
    torch.manual_seed(0)
    x = features(40, 40)
    assert not torch.allclose(ChannelGate(2, 8)(x), ChannelGate(2, 8)(x[..., :20]), atol=1e-4)
    spatial = SpatialGate(2)
    torch.testing.assert_close(spatial(x)[..., :17], spatial(x[..., :20])[..., :17])


@pytest.mark.parametrize(("kind", "gate"), [("channel", ChannelGate), ("spatial", SpatialGate)])
@pytest.mark.parametrize("network", [REDCNN(features=8), ClassicUNet(features=(8,) * 5)])
def test_each_network_has_nine_gates_of_which_a_hook_sees_every_weight(network, kind, gate):
    torch.manual_seed(0)
    widths = {"features": 8} if isinstance(network, REDCNN) else {"features": (8,) * 5}
    gated, seen = type(network)(**widths, attention=kind), []
    for module in gated.modules():
        if isinstance(module, gate):
            module.register_forward_hook(lambda _, __, out: seen.append(out.detach()))
    gated(torch.randn(1, 1, 48, 48))
    assert len(seen) == 9
    assert all(0 < float(weights.min()) <= float(weights.max()) < 1 for weights in seen)
    assert len(list(gated.parameters())) > len(list(network.parameters()))


def test_another_kind_of_attention_is_refused_by_name():
    with pytest.raises(ValueError, match="'channel', 'spatial' or None; got 'self'"):
        REDCNN(attention="self")


def test_the_gates_work_on_volumes():
    x = features(5, 4, 6)
    assert ChannelGate(3, 8)(x).shape == (2, 8, 1, 1, 1)
    assert SpatialGate(3)(x).shape == (2, 1, 5, 4, 6)
