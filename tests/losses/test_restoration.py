"""The loss is zero for a perfect prediction, one for a know-nothing, whatever the contrast of the scan."""

import pytest
import torch

from ctrestore.losses import UnexplainedVarianceLoss, unexplained_variance


def label(seed=0):
    return torch.rand((2, 1, 8, 8, 8), generator=torch.Generator().manual_seed(seed))


def test_a_perfect_prediction_costs_nothing():
    assert unexplained_variance(label(), label()).tolist() == [0.0, 0.0]


def test_predicting_the_mean_of_the_label_costs_one():
    y = label()
    mean = y.mean(dim=(1, 2, 3, 4), keepdim=True).expand_as(y)
    torch.testing.assert_close(unexplained_variance(mean, y, floor=0.0), torch.ones(2))


def test_it_is_one_minus_the_coefficient_of_determination():
    y, pred = label(), label(1)
    residual = ((pred - y) ** 2).flatten(1).sum(1)
    total = ((y - y.flatten(1).mean(1).view(-1, 1, 1, 1, 1)) ** 2).flatten(1).sum(1)
    torch.testing.assert_close(unexplained_variance(pred, y, floor=0.0), residual / total)


def test_a_faint_scan_counts_as_much_as_one_of_ten_times_its_contrast():
    y, pred = label(), label(1)
    torch.testing.assert_close(
        unexplained_variance(10 * pred, 10 * y, floor=0.0), unexplained_variance(pred, y, floor=0.0)
    )


def test_a_patch_of_air_stays_finite_because_of_the_floor():
    air = torch.zeros(1, 1, 4, 4, 4)
    noise = torch.full_like(air, 0.01)
    torch.testing.assert_close(unexplained_variance(noise, air), torch.tensor([0.01**2 / 1e-4]))


def test_the_loss_is_the_mean_over_samples_and_has_a_gradient():
    y, pred = label(), label(1).requires_grad_()
    loss = UnexplainedVarianceLoss()(pred, y)
    torch.testing.assert_close(loss, unexplained_variance(pred, y).mean())
    loss.backward()
    assert pred.grad is not None
    assert pred.grad.abs().sum() > 0


def test_shapes_that_torch_would_broadcast_are_refused():
    with pytest.raises(ValueError, match=r"\(2, 1, 8, 8, 8\) and label \(2, 3, 8, 8, 8\) differ in shape"):
        UnexplainedVarianceLoss()(label(), label().expand(2, 3, 8, 8, 8))
