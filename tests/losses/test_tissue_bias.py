"""The bias of tissues: over all samples, by the tissue of the label, and cheap to correct."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from ctrestore.losses import LogRMSELoss, TissueBiasLoss, tissue_biases
from ctrestore.metrics import TISSUE_BANDS_HU, TISSUE_MEDIAN_PIXELS, tissue_band_errors

FAT, SOFT, BONE = (list(TISSUE_BANDS_HU).index(name) for name in ("fat", "soft tissue", "bone"))
ROOM = TISSUE_MEDIAN_PIXELS // 2


def halves(n=2, side=40):
    """Slices of fat on the left and soft tissue on the right, HU / 1000."""
    label = torch.full((n, 1, side, side), -0.1)
    label[..., side // 2 :] = 0.04
    return label


def noise(like, hu, seed):
    return hu / 1000 * torch.randn(like.shape, generator=torch.Generator().manual_seed(seed))


def test_it_is_the_bias_that_the_evaluation_reports():
    label = halves() + noise(halves(), 30, seed=0)
    pred = label + noise(label, 20, seed=1) + 0.005
    tissue = ndimage.median_filter(1000 * label.numpy(), size=(1, 1, TISSUE_MEDIAN_PIXELS, TISSUE_MEDIAN_PIXELS))
    # At the border the two medians differ.
    inside = np.zeros(label.shape, dtype=bool)
    inside[..., ROOM:-ROOM, ROOM:-ROOM] = True
    expected = tissue_band_errors(1000 * pred.numpy(), 1000 * label.numpy(), tissue=tissue, mask=inside)
    same_inside = torch.where(torch.from_numpy(inside), pred, label)
    found = tissue_biases(same_inside, label)
    for i in (FAT, SOFT):
        n = [((tissue >= low) & (tissue < high)) for low, high in TISSUE_BANDS_HU.values()][i].sum()
        error = expected[list(TISSUE_BANDS_HU)[i]]
        # Behind the border a few pixels more or less are of the tissue; they have no error.
        assert 1000 * found[i].item() == pytest.approx(error.bias_hu * error.n_pixels / n, abs=0.15)


def test_a_bias_of_one_tissue_is_found_there_and_no_noise_counts():
    label = halves(n=8)
    pred = label + noise(label, 20, seed=0) + 0.003 * (label < 0)
    found = 1000 * tissue_biases(pred, label)
    # The mean of 6,400 values of 20 HU: 0.25 HU, and what is within 0.7 HU is within three of these.
    assert found[FAT].item() == pytest.approx(3.0, abs=0.7)
    assert found[SOFT].item() == pytest.approx(0.0, abs=0.7)
    assert found[BONE].item() == 0.0


def test_opposite_errors_of_two_samples_cancel():
    label = halves(n=2)
    pred = label + torch.tensor([0.01, -0.01]).view(2, 1, 1, 1)
    torch.testing.assert_close(tissue_biases(pred, label), torch.zeros(len(TISSUE_BANDS_HU)), atol=1e-7, rtol=0)


def test_few_pixels_of_a_tissue_and_unknown_ones_do_not_count():
    label = halves(n=1)
    label[..., :5, :5] = 0.8
    pred = label + 0.01 * (label > 0.2) + 5 * (label < 0)
    unknown = torch.where(label < 0, torch.nan, label)
    assert tissue_biases(pred, unknown).tolist() == [0.0] * len(TISSUE_BANDS_HU)
    pred.requires_grad_()
    TissueBiasLoss(LogRMSELoss())(pred, unknown).backward()
    assert torch.isfinite(pred.grad).all()


def test_least_squares_pulls_a_mixture_to_its_mean_and_the_loss_does_not():
    # Two tissues, told apart only by a noisy observation: the best linear estimate is a x + b with a < 1, and its fat
    # is too bright, its soft tissue too dark.
    label = halves(n=8)
    seen = label + noise(label, 70, seed=0)

    def fitted(loss):
        slope, offset = torch.ones((), requires_grad=True), torch.zeros((), requires_grad=True)
        optimizer = torch.optim.LBFGS([slope, offset], max_iter=60, line_search_fn="strong_wolfe")

        def closure():
            optimizer.zero_grad()
            value = loss(slope * seen + offset, label)
            value.backward()
            return value

        optimizer.step(closure)
        with torch.no_grad():
            return 1000 * tissue_biases(slope * seen + offset, label)

    plain, corrected = fitted(LogRMSELoss()), fitted(TissueBiasLoss(LogRMSELoss(), weight=100.0))
    assert plain[FAT] > 20 and plain[SOFT] < -20
    assert corrected.abs().max() < 0.1 * plain.abs().max()


def test_the_weight_is_a_factor_and_its_default_is_one():
    label = halves()
    pred = label + 0.004
    plain, one, ten = (
        loss(pred, label) for loss in (LogRMSELoss(), TissueBiasLoss(LogRMSELoss()), TissueBiasLoss(LogRMSELoss(), 10))
    )
    # Beyond 1 HU a bias of b HU costs (b - 0.5) / 1000; here 4 HU in two tissues.
    assert (one - plain).item() == pytest.approx(2 * 0.0035, rel=1e-3)
    assert (ten - plain).item() == pytest.approx(20 * 0.0035, rel=1e-3)


def test_volumes_and_two_shapes_are_refused():
    with pytest.raises(ValueError, match="slices one by one"):
        tissue_biases(torch.zeros(1, 1, 4, 4, 4), torch.zeros(1, 1, 4, 4, 4))
    with pytest.raises(ValueError, match="two batches of slices"):
        tissue_biases(torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 4, 5))
