"""The scores of a protocol as a MONAI metric, for the validation of a bundle."""

from __future__ import annotations

import torch
from monai.metrics.regression import RegressionMetric
from torch import Tensor

from ctrestore.metrics.protocols import Protocol, ScoreName, find_protocol, score


class ProtocolMetric(RegressionMetric):
    """PSNR in dB, SSIM or RMSE of slices ``(batch, 1, y, x)`` in HU, under a named protocol.

    Args:
        protocol: a name in ``PROTOCOLS``, or your own :class:`Protocol`.
        score: one of the three.
        reduction: MONAI's; the default averages over slices.
        get_not_nans: MONAI's.
    """

    def __init__(
        self,
        protocol: str | Protocol,
        score: ScoreName = "psnr_db",
        reduction: str = "mean",
        get_not_nans: bool = False,
    ) -> None:
        super().__init__(reduction=reduction, get_not_nans=get_not_nans)
        if score not in ("psnr_db", "ssim", "rmse"):
            raise ValueError(f"score is 'psnr_db', 'ssim' or 'rmse'; got {score!r}.")
        self.protocol = find_protocol(protocol)
        self.score: ScoreName = score

    def _compute_metric(self, y_pred: Tensor, y: Tensor) -> Tensor:
        if y.ndim != 4 or y.shape[1] != 1:
            raise ValueError(f"expected slices (batch, 1, y, x); got {tuple(y.shape)}.")
        found = [
            score(pred.numpy(), label.numpy(), protocol=self.protocol, which=self.score)
            for pred, label in zip(_on_cpu(y_pred), _on_cpu(y))
        ]
        return torch.tensor(found, device=y.device)[:, None]


def _on_cpu(slices: Tensor) -> Tensor:
    """``(batch, y, x)``; bfloat16, which numpy lacks, becomes float32; integers stay integers and are refused later."""
    plain = torch.as_tensor(slices).detach().cpu()[:, 0]
    return plain.float() if plain.dtype == torch.bfloat16 else plain
