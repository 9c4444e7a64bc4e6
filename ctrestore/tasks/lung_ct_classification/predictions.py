"""From a network's logits to probabilities, and what metrics and calibration take of them."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import DataLoader
from monai.inferers import Inferer
from monai.transforms import MapTransform
from torch import Tensor, nn

from ctrestore.metrics import probabilities_at


class Probabilitiesd(MapTransform):
    """Logits ``(classes,)`` of an image as calibrated probabilities; one logit as those of two classes.

    Args:
        keys: of the logits.
        temperature: that they are divided by.
        allow_missing_keys: MONAI's.
    """

    def __init__(self, keys: KeysCollection, temperature: float = 1.0, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.temperature = float(temperature)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        for key in self.key_iterator(d):
            logits = torch.as_tensor(d[key]).as_subclass(Tensor).float().cpu()
            d[key] = torch.from_numpy(probabilities_at(logits[None].numpy(), self.temperature)[0]).float()
        return d


def scores_and_classes(output: Sequence[Mapping[str, Any]]) -> tuple[list[Tensor], list[Tensor]]:
    """Probabilities and the true class as ones and zeros, of an engine's output: for MONAI's metrics."""
    probabilities = [torch.from_numpy(probabilities_at(item["pred"][None].float().cpu().numpy())[0]) for item in output]
    truths = [
        nn.functional.one_hot(torch.as_tensor(item["label"]).cpu().long(), len(found))
        for item, found in zip(output, probabilities)
    ]
    return probabilities, truths


def logits_of(
    dataset: Any, network: nn.Module, inferer: Inferer, *, batch_size: int = 16
) -> tuple[np.ndarray, np.ndarray]:
    """Logits ``(n, outputs)`` and labels ``(n,)`` of a data set; the network is left in evaluation mode."""
    device = next(network.parameters()).device
    logits, labels = [], []
    network.eval()
    with torch.inference_mode():
        for batch in DataLoader(dataset, batch_size=batch_size, num_workers=0):
            logits.append(inferer(batch["image"].to(device), network).float().cpu().numpy())
            labels.append(np.asarray(batch["label"]))
    return np.concatenate(logits), np.concatenate(labels).astype(int)
