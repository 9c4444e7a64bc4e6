"""Sliding windows fit the head, treat frames alike and keep an identity network the identity."""

import pytest
import torch
from monai.inferers import SlidingWindowInferer

from ctrestore.networks import REDCNN, HomogeneousUNet, UnshuffledUNet
from ctrestore.training.inferers import FittedSlidingWindowInferer, MixedPrecisionInferer, TiledInferer


def scan(*size, channels=2, seed=0):
    return torch.rand((1, channels, *size), generator=torch.Generator().manual_seed(seed))


def identity(x):
    return x.sum(dim=1, keepdim=True)


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    made = HomogeneousUNet(features=(4, 8), encoder_blocks=(1, 1), decoder_blocks=(1,)).eval()
    for parameter in made.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    return made.requires_grad_(False)


@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5])
@pytest.mark.parametrize("largest", [64, 100, 128])
def test_the_fewest_windows_that_cover_a_side_share_at_least_the_overlap_asked_for(largest, overlap):
    inferer = FittedSlidingWindowInferer(roi_size=(largest,) * 3, overlap=overlap)
    for side in range(8, 400):
        window = inferer.window(side, largest)
        assert window <= largest
        assert window % 8 == 0
        n_windows = 1
        while n_windows * window - (n_windows - 1) * overlap * window < side:
            n_windows += 1
        if n_windows > 1:  # spread evenly, neighbours share what is left over
            shared = (n_windows * window - side) / (n_windows - 1)
            assert shared >= overlap * window - 1e-9
            # one window fewer, of the largest length that is a multiple of 8, would leave a gap
            longest = largest // 8 * 8
            assert (n_windows - 1) * longest - (n_windows - 2) * overlap * longest < side


def test_two_windows_over_a_head_of_176_voxels_are_104_long():
    assert FittedSlidingWindowInferer().window(176, 128) == 104


def test_a_small_head_is_one_window_just_large_enough():
    assert FittedSlidingWindowInferer().window(50, 128) == 56


def test_the_network_gets_the_planned_windows():
    sizes = []

    def spy(x):
        sizes.append(tuple(x.shape[2:]))
        return identity(x)

    FittedSlidingWindowInferer(roi_size=(32, 32, 32))(scan(44, 24, 20), spy)
    assert sizes == [(32, 24, 24), (32, 24, 24)]


@pytest.mark.parametrize("size", [(40, 33, 21), (16, 16, 16), (5, 40, 9)])
def test_an_identity_network_stays_the_identity_through_sliding_windows(size):
    x = scan(*size)
    out = FittedSlidingWindowInferer(roi_size=(24, 24, 24), amp=False)(x, identity)
    torch.testing.assert_close(out, identity(x), rtol=1e-5, atol=1e-6)  # the weights sum to one but for rounding


def test_air_stays_exactly_zero():
    x = scan(40, 32, 20)
    x[..., :10] = 0.0
    out = FittedSlidingWindowInferer(roi_size=(24, 24, 24))(x, identity)
    assert not out[..., :10].any()


def test_the_frames_of_a_dynamic_scan_equal_separate_runs(network):
    first, second = scan(20, 16, 24), scan(20, 16, 24, seed=1)
    inferer = FittedSlidingWindowInferer(roi_size=(16, 16, 16))
    together = inferer(torch.cat([first, second], dim=1), network)
    assert together.shape == (1, 2, 20, 16, 24)
    torch.testing.assert_close(together[:, :1], inferer(first, network))
    torch.testing.assert_close(together[:, 1:], inferer(second, network))


def test_one_inferer_serves_scans_of_different_sizes(network):
    inferer = FittedSlidingWindowInferer(roi_size=(16, 16, 16))
    inferer(scan(30, 30, 30), network)
    x = scan(20, 16, 24)
    torch.testing.assert_close(inferer(x, network), FittedSlidingWindowInferer(roi_size=(16, 16, 16))(x, network))


@pytest.mark.parametrize("wrap", [MixedPrecisionInferer, lambda amp: FittedSlidingWindowInferer((24, 24, 24), amp=amp)])
def test_bfloat16_changes_the_result_by_less_than_half_a_percent(network, wrap):
    x = scan(24, 16, 32)
    exact, fast = wrap(False)(x, network), wrap(True)(x, network)
    assert fast.dtype == torch.float32
    assert 0 < (fast - exact).norm() / exact.norm() < 0.005


def test_without_mixed_precision_the_network_is_called_as_it_is(network):
    x = scan(16, 16, 16)
    torch.testing.assert_close(MixedPrecisionInferer(False)(x, network), network(x))


@pytest.mark.parametrize("overlap", [1.0, -0.1])
def test_an_overlap_outside_zero_to_one_is_refused(overlap):
    with pytest.raises(ValueError, match="at least 0, below 1"):
        FittedSlidingWindowInferer(overlap=overlap)


# The reach of each network in pixels.
REACH = {
    "RED-CNN": (REDCNN(features=4), 20, 16),
    "U-Net": (UnshuffledUNet(features=(4, 4, 4)), 128, 16),
}


@pytest.mark.parametrize("name", REACH)
def test_tiles_give_the_same_result_as_the_whole_image_without_a_seam(name):
    network, reach, multiple_of = REACH[name]
    generator = torch.Generator().manual_seed(0)
    for parameter in network.parameters():  # an untrained U-Net is the identity
        parameter.data = 0.2 * torch.randn(parameter.shape, generator=generator)
    margin = -(-reach // multiple_of) * multiple_of
    tile = 2 * margin + 3 * multiple_of
    image = torch.randn(1, 1, tile + 27, tile + 52, generator=generator)  # three tiles by three, the last ones narrow
    with torch.no_grad():
        whole = TiledInferer(amp=False)(image, network)
        tiled = TiledInferer(tile=tile, margin=margin, amp=False)(image, network)
        averaged = SlidingWindowInferer((tile, tile), overlap=0.5, mode="gaussian")(image, network)
    scale = whole.abs().max()
    assert (tiled - whole).abs().max() < 1e-5 * scale
    assert (averaged - whole).abs().max() > 1e-3 * scale  # the edges of tiles, averaged in


def test_an_image_that_fits_is_not_cut():
    seen = []
    TiledInferer(tile=64, margin=16)(torch.rand(2, 1, 64, 40), lambda x: seen.append(x.shape) or x)
    assert seen == [(2, 1, 64, 40)]


@pytest.mark.parametrize("tile", [256, 100])
def test_a_tile_that_keeps_nothing_is_refused(tile):
    with pytest.raises(ValueError, match="keeps nothing"):
        TiledInferer(tile=tile, margin=128)
