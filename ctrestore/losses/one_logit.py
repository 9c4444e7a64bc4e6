"""Binary cross-entropy of a network with one output, on labels that are whole numbers."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor
from torch.nn.modules.loss import _Loss


class OneLogitLoss(_Loss):
    """``torch.nn.BCEWithLogitsLoss`` of logits ``(batch, 1)`` and labels ``(batch,)`` of 0 or 1, each class weighted.

    Args:
        weight: of both classes ``(2,)``; None: equal weights.
    """

    weight: Tensor | None

    def __init__(self, weight: Tensor | None = None) -> None:
        super().__init__()
        self.register_buffer("weight", weight)

    def forward(self, pred: Tensor, label: Tensor) -> Tensor:
        weight = None if self.weight is None else self.weight.to(pred)[label]
        return F.binary_cross_entropy_with_logits(pred[:, 0], label.to(pred), weight=weight)
