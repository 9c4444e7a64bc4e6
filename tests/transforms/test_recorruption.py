"""Noise of a scan, and as much again: two halves that do not know each other."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ctrestore.transforms.recorruption import MatchNoised, RandRecorruptd, Recorruptd, recorrupted

SIDE = 96


def coloured(seed: int, n: int = 1, sigma: float = 20.0) -> torch.Tensor:
    """Noise whose neighbours are correlated, as in CT: ``(n, x, y)``."""
    white = torch.randn((n, 1, SIDE, SIDE), generator=torch.Generator().manual_seed(seed))
    smooth = torch.nn.functional.avg_pool2d(white, 3, stride=1, padding=1)
    return sigma * (smooth / smooth.std())[:, 0]


@pytest.mark.parametrize("alpha", [0.5, 1.0])
def test_the_noise_of_the_pair_is_uncorrelated_though_that_of_the_scan_is_not(alpha):
    clean = torch.full((1, SIDE, SIDE), 40.0)
    products = []
    for seed in range(30):
        image, label = recorrupted(clean + coloured(seed), coloured(1000 + seed), alpha=alpha)
        products.append(((image - 40) * (label - 40)).mean().item())
    # 30 fields of about 96 * 96 / 9 independent values each, of variance (1 + a^2)(1 + 1 / a^2) sigma^4.
    spread = 400 * np.sqrt((1 + alpha**2) * (1 + alpha**-2) / (30 * SIDE**2 / 9))
    assert abs(np.mean(products)) < 4 * spread
    assert abs(np.mean(products)) < 0.1 * 400  # where the scan with itself has 400


def test_least_squares_from_the_pair_finds_the_weight_that_least_squares_from_the_truth_finds():
    """The best multiple of the input, the simplest denoiser of all, learned without a clean pixel."""
    truth = 30 * torch.sign(coloured(5))
    scan = truth + coloured(6)
    image, label = recorrupted(scan, coloured(7), alpha=1.0)
    learned = (image * label).sum() / (image * image).sum()
    supervised = (image * truth).sum() / (image * image).sum()
    assert learned.item() == pytest.approx(supervised.item(), abs=0.05)
    assert supervised < 0.7  # it does denoise


def test_simulated_noise_is_made_as_strong_as_that_of_the_scan():
    scan = 40 + coloured(1, sigma=25.0)
    data = {"label": scan, "noise": torch.cat([coloured(2, n=2, sigma=8.0), coloured(3, n=2, sigma=6.0)])}
    matched = MatchNoised(keys="label")(data)["noise"]
    assert matched.shape == (2, SIDE, SIDE)
    assert matched.float().std().item() == pytest.approx(25, rel=0.1)


def test_a_slice_without_soft_tissue_keeps_the_noise_as_simulated():
    data = {"label": torch.full((1, SIDE, SIDE), -1000.0), "noise": torch.ones(2, SIDE, SIDE)}
    assert torch.equal(MatchNoised(keys="label")(data)["noise"], torch.full((1, SIDE, SIDE), 2.0).half())


def test_every_draw_is_another_pair_and_the_seed_says_which():
    transform = RandRecorruptd(keys="label", alpha=(1.0, 1.0))
    scan, noise = torch.zeros(1, SIDE, SIDE), coloured(1, n=3)

    def draw(seed):
        drawn = transform.set_random_state(seed)({"label": scan, "noise": noise})
        assert "noise" not in drawn
        return drawn

    first, again, other = draw(1), draw(1), draw(2)
    assert torch.equal(first["image"], again["image"])
    assert not torch.equal(first["image"], other["image"])
    assert torch.equal(first["image"], -first["label"])  # alpha 1 of an empty scan
    assert first["image"].std().item() == pytest.approx(20, rel=0.15)


def test_what_is_saturated_is_no_target():
    scan = torch.tensor([[[0.0, 500.0]]])
    drawn = RandRecorruptd(keys="label")({"label": scan, "noise": torch.ones(1, 1, 2), "known_hu": [-1000, 394]})
    assert drawn["label"].isnan().tolist() == [[[False, True]]]
    assert torch.isfinite(drawn["image"]).all()


def test_alpha_must_be_positive():
    with pytest.raises(ValueError, match="alpha is above 0"):
        recorrupted(torch.zeros(1), torch.zeros(1), alpha=0.0)
    with pytest.raises(ValueError, match="lowest, highest"):
        RandRecorruptd(keys="label", alpha=(0.0, 1.0))


def test_the_pair_of_a_validation_is_always_the_same():
    transform, noise = Recorruptd(keys="label", alpha=0.5), coloured(1, n=3)
    scan = torch.full((1, SIDE, SIDE), 40.0)
    for _ in range(2):
        pair = transform({"label": scan, "noise": noise})
        torch.testing.assert_close(pair["image"], 40 + noise[:1] / 2)
        torch.testing.assert_close(pair["label"], 40 - 2 * noise[:1])
        assert "noise" not in pair
