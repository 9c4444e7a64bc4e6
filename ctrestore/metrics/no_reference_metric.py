"""The score without a reference as a MONAI metric, for the validation of a training without pairs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

import torch
from monai.metrics import CumulativeIterationMetric
from torch import Tensor

from ctrestore.metrics.no_reference import DRIFT_BANDS_HU, Traces, Verdict, traces, verdict

Part = Literal["score", "noise_octaves", "drift_hu", "edges"]


class NoReferenceMetric(CumulativeIterationMetric):
    """Minus the penalty of :func:`ctrestore.metrics.no_reference.verdict` over all slices: 0 is the best.

    Slices are ``(batch, 1, *spatial)`` in HU: the restored ones, and as reference the low-dose ones.

    Args:
        reference_noise: of full-dose slices, :func:`ctrestore.metrics.no_reference.log_noise` of each.
        part: ``score``, or one of its parts: ``noise_octaves``, ``drift_hu`` (in ``tissue``) or ``edges``.
        tissue: of the drift.

    Raises:
        ValueError: there is no such part or tissue.
    """

    def __init__(
        self, reference_noise: Sequence[Sequence[float]], part: Part = "score", tissue: str = "soft tissue"
    ) -> None:
        super().__init__()
        if part not in get_args(Part) or tissue not in DRIFT_BANDS_HU:
            raise ValueError(
                f"part is one of {', '.join(get_args(Part))}, tissue one of {', '.join(DRIFT_BANDS_HU)}; got {part!r}, "
                f"{tissue!r}."
            )
        self.reference_noise, self.part, self.tissue = reference_noise, part, tissue

    def _compute_tensor(self, y_pred: Tensor, y: Tensor | None = None, **kwargs: Any) -> Tensor:
        if y is None or y.ndim != 4 or y.shape[1] != 1 or y_pred.shape != y.shape:
            got = (tuple(y_pred.shape), None if y is None else tuple(y.shape))
            raise ValueError(f"expected restored and low-dose slices (batch, 1, y, x); got {got}.")
        rows = []
        for pred, image in zip(*(torch.as_tensor(one).detach().cpu().float()[:, 0].numpy() for one in (y_pred, y))):
            found = traces(pred, image)
            rows.append([*found.noise, *found.drift_hu, *found.n_pixels, found.edges_after, found.edges_before])
        return torch.tensor(rows, dtype=torch.float64)

    def aggregate(self) -> Tensor:
        """The score, or its part, of all slices of all processes."""
        n = len(DRIFT_BANDS_HU)
        rows = torch.as_tensor(self.get_buffer()).tolist()
        found = [Traces((a, b), tuple(rest[:n]), tuple(rest[n : 2 * n]), *rest[2 * n :]) for a, b, *rest in rows]
        return torch.tensor(self._of(verdict(found, self.reference_noise)))

    def _of(self, found: Verdict) -> float:
        values = {
            "score": -found.penalty,
            "noise_octaves": found.noise_octaves,
            "drift_hu": found.drift_hu[self.tissue],
            "edges": found.edges,
        }
        return values[self.part]
