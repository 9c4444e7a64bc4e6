"""Losses of a restored scan against its reference."""

from __future__ import annotations

import torch
from torch import Tensor
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
            "Usual cause: a label with frames or channels that the network does not give."
        )
    axes = tuple(range(1, label.ndim))
    return (pred - label).square().mean(dim=axes) / (label.var(dim=axes, correction=0) + floor)


class UnexplainedVarianceLoss(_Loss):
    """Mean over samples of the squared error relative to the label's variance.

    The plain MSE of a batch is dominated by the tracers with the largest contrast; here a faint amyloid scan and a
    contrasty FDG scan count the same.
    """

    def forward(self, pred: Tensor, label: Tensor) -> Tensor:
        return torch.mean(unexplained_variance(pred, label))


class KnownPixelsLoss(_Loss):
    """The mean of a loss over the pixels whose label is known; a label that is not a number says that it is not.

    Args:
        loss: with ``reduction="none"``, such as ``torch.nn.SmoothL1Loss(reduction="none", beta=0.02)``.

    Raises:
        ValueError: the loss reduces by itself.
    """

    def __init__(self, loss: _Loss) -> None:
        super().__init__()
        if loss.reduction != "none":
            raise ValueError(f'the loss must leave its values as they are, reduction="none"; got {loss.reduction!r}.')
        self.loss = loss

    def forward(self, pred: Tensor, label: Tensor) -> Tensor:
        known = torch.isfinite(label)
        # Not by indexing: an infinite or NaN difference would poison the gradient even where it is masked.
        errors = self.loss(pred, torch.where(known, label, pred.detach())) * known
        return errors.sum() / known.sum().clamp(min=1)
