"""Losses: zero for a perfect prediction, one for the label's mean at any contrast; distances of VGG16's features."""

import math

import pytest
import torch

from ctrestore.losses import (
    BoundedBCELoss,
    FeatureLoss,
    KnownPixelsLoss,
    LogRMSELoss,
    UnexplainedVarianceLoss,
    as_imagenet,
    feature_distance,
    log_rmse,
    unexplained_variance,
)
from ctrestore.networks import VGG16Features


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


def test_bounded_cross_entropy_is_torchs_minus_the_entropy_of_the_label():
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


def test_pixels_of_unknown_truth_have_neither_loss_nor_gradient():
    loss = KnownPixelsLoss(torch.nn.L1Loss(reduction="none"))
    pred = torch.tensor([[1.0, 2.0, 3.0]], requires_grad=True)
    value = loss(pred, torch.tensor([[0.0, torch.nan, 1.0]]))
    assert value.item() == pytest.approx((1 + 2) / 2)
    value.backward()
    assert pred.grad.tolist() == [[0.5, 0.0, 0.5]]


def test_a_label_without_any_known_pixel_costs_nothing_and_a_loss_that_reduces_is_refused():
    loss = KnownPixelsLoss(torch.nn.L1Loss(reduction="none"))
    assert float(loss(torch.ones(1, 3), torch.full((1, 3), torch.nan))) == 0
    with pytest.raises(ValueError, match="not reduce its values"):
        KnownPixelsLoss(torch.nn.L1Loss())


def slices(seed=0):
    return torch.rand((2, 1, 24, 20), generator=torch.Generator().manual_seed(seed)) * 3 - 1


@pytest.fixture
def vgg():
    """Only the architecture: the law holds for any weights."""
    torch.manual_seed(0)
    return VGG16Features()


def test_imagenets_networks_get_black_and_white_in_three_channels_of_their_mean_and_spread():
    black, white = torch.full((1, 1, 2, 2), -1.0), torch.full((1, 1, 2, 2), 2.0)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    torch.testing.assert_close(as_imagenet(black, value_range=(-1, 2))[0, :, 0, 0], -mean / std)
    torch.testing.assert_close(as_imagenet(white, value_range=(-1, 2))[0, :, 1, 1], (1 - mean) / std)


def test_the_feature_loss_is_the_mse_and_a_hundredth_of_the_absolute_difference_of_relu3_3(vgg):
    pred, label = slices(0), slices(1)
    features = [vgg(as_imagenet(image, value_range=(-1, 2))) for image in (pred, label)]
    assert features[0].shape == (2, 256, 6, 5)
    expected = ((pred - label) ** 2).mean() + 0.01 * (features[0] - features[1]).abs().mean()
    assert (features[0] - features[1]).abs().max() > 0
    torch.testing.assert_close(FeatureLoss(torch.nn.MSELoss(), vgg)(pred, label), expected)
    assert FeatureLoss(torch.nn.MSELoss(), vgg)(label, label) == 0


def test_the_feature_loss_teaches_the_prediction_and_neither_the_label_nor_the_features(vgg):
    pred, label = slices(0).requires_grad_(), slices(1).requires_grad_()
    feature_distance(pred, label.detach(), features=vgg.requires_grad_(False)).backward()
    assert pred.grad.abs().sum() > 0
    FeatureLoss(torch.nn.MSELoss(), vgg)(pred, label.detach() * 1).backward()
    assert label.grad is None
    assert all(parameter.grad is None for parameter in vgg.parameters())


def test_vgg16_up_to_relu3_3_has_seven_convolutions_two_poolings_and_1_735_488_parameters(vgg):
    kinds = "".join({"Conv2d": "c", "ReLU": "r", "MaxPool2d": "p"}[type(layer).__name__] for layer in vgg)
    assert kinds == "crcrpcrcrpcrcrcr"
    assert sum(p.numel() for p in vgg.parameters()) == 1_735_488


def test_a_feature_loss_of_volumes_or_of_two_shapes_is_refused(vgg):
    with pytest.raises(ValueError, match=r"grey images \(batch, 1, y, x\); got \(2, 1, 8, 8, 8\)"):
        FeatureLoss(torch.nn.MSELoss(), vgg)(label(), label())
    with pytest.raises(ValueError, match="grey images"):
        FeatureLoss(torch.nn.MSELoss(), vgg)(slices(), slices()[..., :10])


def test_pixels_of_unknown_label_change_neither_part_of_the_loss(vgg):
    """For any value there: the features get the prediction itself."""
    pred, label = slices(0).requires_grad_(), slices(1)
    label[:, :, 5:9, 3:7] = torch.nan
    same = torch.where(label.isnan(), pred.detach(), label)
    pixels = KnownPixelsLoss(torch.nn.MSELoss(reduction="none"))
    loss = FeatureLoss(pixels, vgg)(pred, label)
    torch.testing.assert_close(loss, pixels(pred, label) + 0.01 * feature_distance(pred, same, features=vgg))
    loss.backward()
    assert torch.isfinite(pred.grad).all()


def test_ten_times_the_error_costs_the_same_whether_a_sample_is_noisy_or_nearly_clean():
    pred = torch.tensor([[0.1, 0.1], [0.01, -0.01]])
    unknown = torch.tensor([[0.0, 0.0], [0.0, torch.nan]])
    noisy, clean = log_rmse(pred, unknown, floor=0.0).tolist()
    assert noisy == pytest.approx(math.log(0.1))
    assert clean == pytest.approx(math.log(0.01))
    both = LogRMSELoss(floor=0.0)(pred, unknown).item()
    assert both == pytest.approx((noisy + clean) / 2)
    assert LogRMSELoss(floor=0.0)(10 * pred, unknown).item() == pytest.approx(both + math.log(10))


def test_a_perfect_sample_costs_the_floor_and_has_a_finite_gradient():
    pred = torch.zeros(1, 4, requires_grad=True)
    loss = LogRMSELoss(floor=0.003)(pred, torch.zeros(1, 4))
    assert loss.item() == pytest.approx(math.log(0.003), rel=1e-5)
    loss.backward()
    assert pred.grad.tolist() == [[0.0] * 4]
    with pytest.raises(ValueError, match="differ in shape"):
        LogRMSELoss()(torch.zeros(1, 4), torch.zeros(4))
