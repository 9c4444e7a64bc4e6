"""The loss is zero for a perfect prediction, one for a know-nothing, whatever the contrast of the scan."""

import pytest
import torch

from ctrestore.losses import BoundedBCELoss, UnexplainedVarianceLoss, unexplained_variance


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


def test_bounded_cross_entropy_is_torchs_less_the_entropy_of_the_label():
    y, pred = label().clamp(0.01, 0.99), label(1).clamp(0.01, 0.99)
    entropy = torch.nn.functional.binary_cross_entropy(y, y)
    expected = torch.nn.functional.binary_cross_entropy(pred, y) - entropy
    torch.testing.assert_close(BoundedBCELoss(low=0.0, high=1.0)(pred, y), expected)
    torch.testing.assert_close(BoundedBCELoss(low=-1.0, high=2.0)(3 * pred - 1, 3 * y - 1), expected)
    assert float(BoundedBCELoss(low=0.0, high=1.0)(y, y)) == pytest.approx(0.0, abs=1e-6)


def test_bounded_cross_entropy_has_a_finite_slope_that_leads_back_from_beyond_the_range():
    y = torch.tensor([0.0, 0.5, 1.0])
    for beyond in (-3.0, -0.01, 1.01, 3.0):
        pred = torch.full((3,), beyond, requires_grad=True)
        loss = BoundedBCELoss(low=0.0, high=1.0, reduction="none")(pred, y)
        loss.sum().backward()
        assert torch.isfinite(loss).all()
        assert torch.isfinite(pred.grad).all()
        assert (loss >= 0).all()
        assert torch.sign(pred.grad[1]) == (1 if beyond > 1 else -1)
    with pytest.raises(ValueError, match="low lies below high"):
        BoundedBCELoss(low=1.0, high=0.0)
