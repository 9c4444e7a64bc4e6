"""Losses of a restored scan against its reference."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.loss import _Loss


def unexplained_variance(pred: Tensor, label: Tensor, *, floor: float = 1e-4) -> Tensor:
    """Mean squared error of each sample over the variance of its label: ``(batch, ...)`` to ``(batch,)``.

    0 is perfect, 1 is as good as predicting the label's mean. ``floor`` keeps patches of air (labels scaled to about
    0..1) from dominating.

    Raises:
        ValueError: prediction and label differ in shape (torch would broadcast them).
    """
    if pred.shape != label.shape:
        raise ValueError(
            f"prediction {tuple(pred.shape)} and label {tuple(label.shape)} differ in shape. "
            "Usual cause: a label with frames or channels that the network's output does not have."
        )
    axes = tuple(range(1, label.ndim))
    return (pred - label).square().mean(dim=axes) / (label.var(dim=axes, correction=0) + floor)


class UnexplainedVarianceLoss(_Loss):
    """Mean over samples of the squared error relative to the label's variance.

    The tracers with the largest contrast dominate the plain MSE of a batch; here a faint amyloid scan and an
    FDG scan of high contrast have the same weight.
    """

    def forward(self, pred: Tensor, label: Tensor) -> Tensor:
        return torch.mean(unexplained_variance(pred, label))


class KnownPixelsLoss(_Loss):
    """The mean of a loss over the pixels with a known label; NaN in the label means unknown.

    Args:
        loss: with ``reduction="none"``, such as ``torch.nn.SmoothL1Loss(reduction="none", beta=0.02)``.

    Raises:
        ValueError: the loss itself reduces.
    """

    def __init__(self, loss: _Loss) -> None:
        super().__init__()
        if loss.reduction != "none":
            raise ValueError(f'the loss must not reduce its values, reduction="none"; got {loss.reduction!r}.')
        self.loss = loss

    def forward(self, pred: Tensor, label: Tensor) -> Tensor:
        known = torch.isfinite(label)
        # Not by indexing: an infinite or NaN difference would make the gradient NaN even where it is masked.
        errors = self.loss(pred, torch.where(known, label, pred.detach())) * known
        return errors.sum() / known.sum().clamp(min=1)


#: Mean and standard deviation of the channels (red, green, blue, in 0..1) that torchvision's networks expect.
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def as_imagenet(image: Tensor, *, value_range: tuple[float, float]) -> Tensor:
    """A grey image as input for a network trained on photographs: ``(batch, 1, y, x)`` to ``(batch, 3, y, x)``.

    ``value_range`` becomes 0..1, and all three channels get the grey value, minus ImageNet's mean and
    divided by its standard deviation. Nothing is clipped, so every value has a gradient.
    """
    low, high = value_range
    grey = (image - low) / (high - low)
    mean, std = (image.new_tensor(values).view(1, 3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    return (grey - mean) / std


def feature_distance(
    pred: Tensor, label: Tensor, *, features: nn.Module, value_range: tuple[float, float] = (-1.0, 2.0)
) -> Tensor:
    """Mean absolute difference of a network's features of two batches of grey images ``(batch, 1, y, x)``.

    No gradient flows into the label. Where the label is NaN, the prediction replaces it. Parameters of
    ``features`` get a gradient unless they are frozen.

    Args:
        pred: images under test.
        label: the reference.
        features: takes ``(batch, 3, y, x)``, normalised as for ImageNet.
        value_range: the values that become black and white.

    Raises:
        ValueError: images with another number of channels, or of two shapes.
    """
    if pred.shape != label.shape or pred.ndim != 4 or pred.shape[1] != 1:
        raise ValueError(
            f"expected two batches of grey images (batch, 1, y, x); got {tuple(pred.shape)} and {tuple(label.shape)}. "
            "Usual cause: a volume. Remedy: give its slices one by one."
        )
    with torch.no_grad():
        label = torch.where(torch.isfinite(label), label, pred)
        target = features(as_imagenet(label, value_range=value_range))
    return F.l1_loss(features(as_imagenet(pred, value_range=value_range)), target)


class FeatureLoss(_Loss):
    """A loss of pixels plus ``weight`` times the distance of features.

    With the squared error and VGG16's relu3_3 it is the "VGG loss" of low-dose CT. MONAI's PerceptualLoss cannot do
    this: its VGG is LPIPS, five layers with their own weights, which needs that package and a download.

    Args:
        loss: of the pixels, such as ``torch.nn.MSELoss()``, or :class:`KnownPixelsLoss` where labels have NaN.
        features: of :func:`feature_distance`, such as ``training.imagenet.vgg16_relu3_3()``; frozen here.
        weight: of the feature term.
        value_range: the values that become black and white; HU / 1000 in -1..2 by default.
    """

    def __init__(
        self,
        loss: _Loss,
        features: nn.Module,
        weight: float = 0.01,
        value_range: tuple[float, float] = (-1.0, 2.0),
    ) -> None:
        super().__init__()
        self.loss, self.features = loss, features.eval().requires_grad_(False)
        self.weight, self.value_range = weight, value_range

    def forward(self, pred: Tensor, label: Tensor) -> Tensor:
        distance = feature_distance(pred, label, features=self.features, value_range=self.value_range)
        return self.loss(pred, label) + self.weight * distance


def log_rmse(pred: Tensor, label: Tensor, *, floor: float = 0.003) -> Tensor:
    """Logarithm of the root mean squared error of each sample, ``(batch, ...)`` to ``(batch,)``.

    Pixels with NaN in the label are left out. ``floor``, in the unit of the images (0.003: 3 HU), keeps samples
    that are nearly right (air) from dominating.

    Raises:
        ValueError: prediction and label differ in shape (torch would broadcast them).
    """
    if pred.shape != label.shape:
        raise ValueError(f"prediction {tuple(pred.shape)} and label {tuple(label.shape)} differ in shape.")
    axes, known = tuple(range(1, label.ndim)), torch.isfinite(label)
    errors = (pred - torch.where(known, label, pred.detach())).square() * known
    return 0.5 * torch.log(errors.sum(dim=axes) / known.sum(dim=axes).clamp(min=1) + floor**2)


class LogRMSELoss(_Loss):
    """Mean over samples of the logarithm of their RMSE: minus the mean PSNR, except for a factor and an offset.

    The noisiest samples dominate a mean squared error, and it learns to smooth nearly clean images; here a sample with
    5 HU of noise has the same weight as one with 50 (PSNR loss: Chen et al., HINet, CVPR workshops 2021).

    Args:
        floor: see :func:`log_rmse`.
    """

    def __init__(self, floor: float = 0.003) -> None:
        super().__init__()
        self.floor = floor

    def forward(self, pred: Tensor, label: Tensor) -> Tensor:
        return log_rmse(pred, label, floor=self.floor).mean()


def bounded_cross_entropy(pred: Tensor, label: Tensor, *, low: float, high: float, margin: float) -> Tensor:
    """Cross-entropy of grey values as probabilities, minus its smallest value: 0 where ``pred`` is ``label``.

    ``low`` becomes 0 and ``high`` 1. Within ``margin`` of these, where the slope of a logarithm grows without limit,
    and beyond, where it has no value, the loss continues along its tangent.
    """
    probability, target = ((x - low) / (high - low) for x in (pred, label))
    target = target.clamp(margin, 1 - margin)
    inside = probability.clamp(margin, 1 - margin)
    divergence = target * (target / inside).log() + (1 - target) * ((1 - target) / (1 - inside)).log()
    slope = (inside - target) / (inside * (1 - inside))
    return divergence + slope.detach() * (probability - inside)


class BoundedBCELoss(_Loss):
    """Binary cross-entropy for images, as in a course that trained SRCNN and FSRCNN, extended to values beyond 0 and 1.

    Plain cross-entropy also has its minimum at the label, but not a minimum of 0 for grey values. Its slope is
    unlimited at black and white, and it has no value where interpolation overshoots these: see
    :func:`bounded_cross_entropy`. An error near the ends of the range, in air, counts many times as much as one in the
    middle.

    Args:
        low: of the range, in the network's unit (HU / 1000).
        high: of the range.
        margin: from the ends, as a share of the range.
        reduction: of torch's losses.
    """

    def __init__(self, low: float = -1.024, high: float = 3.071, margin: float = 1e-3, reduction: str = "mean") -> None:
        super().__init__(reduction=reduction)
        if not low < high or not 0 < margin < 0.5:
            raise ValueError(f"low lies below high, margin in 0..0.5; got {low!r}, {high!r}, {margin!r}.")
        self.low, self.high, self.margin = low, high, margin

    def forward(self, pred: Tensor, label: Tensor) -> Tensor:
        found = bounded_cross_entropy(pred, label, low=self.low, high=self.high, margin=self.margin)
        return found if self.reduction == "none" else found.sum() if self.reduction == "sum" else found.mean()
