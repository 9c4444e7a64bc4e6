"""A loss that includes the bias of the mean HU of every tissue; least squares alone leaves one."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from monai.networks.layers import median_filter
from torch import Tensor
from torch.nn.modules.loss import _Loss

from ctrestore.metrics.tissue_bands import TISSUE_BANDS_HU, TISSUE_MEDIAN_PIXELS

#: HU / 1000 at which the penalty of a bias changes from quadratic to linear.
STRAIGHT_FROM = 1e-3


def tissue_biases(pred: Tensor, label: Tensor, *, tissue: Tensor | None = None, min_pixels: int = 500) -> Tensor:
    """Mean of ``pred - label`` in each tissue of a batch of slices ``(batch, 1, y, x)`` in HU / 1000: ``(tissues,)``.

    The tissues are :data:`ctrestore.metrics.TISSUE_BANDS_HU`. The mean is over the pixels of all samples, which
    averages out the random errors of single samples. Pixels with NaN in the label are left out.

    Args:
        pred: images under test.
        label: the reference.
        tissue: images whose values define the tissue; a median of the label by default.
        min_pixels: a tissue with fewer pixels counts as unbiased.

    Raises:
        ValueError: another number of channels or axes, or two shapes.
    """
    if pred.shape != label.shape or pred.ndim != 4 or pred.shape[1] != 1:
        raise ValueError(
            f"expected two batches of slices (batch, 1, y, x); got {tuple(pred.shape)} and {tuple(label.shape)}. "
            "Usual cause: a volume. Remedy: give its slices one by one."
        )
    known = torch.isfinite(label)
    label = torch.where(known, label, pred.detach())
    if tissue is None:
        tissue = median_filter(label, TISSUE_MEDIAN_PIXELS, spatial_dims=2)
    error, found = pred - label, []
    for low, high in TISSUE_BANDS_HU.values():
        inside = known & (1000 * tissue >= low) & (1000 * tissue < high)
        n = inside.sum()
        found.append((error * inside).sum() / n.clamp(min=1) * (n >= min_pixels))
    return torch.stack(found)


def bias_penalty(biases: Tensor) -> Tensor:
    """Sum of the absolute biases in HU / 1000, quadratic below 1 HU, where they are chance."""
    return F.smooth_l1_loss(biases, torch.zeros_like(biases), reduction="sum", beta=STRAIGHT_FROM)


class TissueBiasLoss(_Loss):
    """A loss of pixels plus ``weight`` times the bias of every tissue of the batch.

    The estimate of least error is pulled to the mean of everything that it cannot tell apart: at low doses fat becomes
    too bright and bone too dark. For the last epochs of a training, where the correction costs least
    (`release_means.json`).

    Args:
        loss: of the pixels, such as :class:`ctrestore.losses.LogRMSELoss`.
        weight: of the sum over tissues of the biases in HU / 1000.
    """

    def __init__(self, loss: _Loss, weight: float = 1.0) -> None:
        super().__init__()
        self.loss, self.weight = loss, weight

    def forward(self, pred: Tensor, label: Tensor) -> Tensor:
        return self.loss(pred, label) + self.weight * bias_penalty(tissue_biases(pred, label))
