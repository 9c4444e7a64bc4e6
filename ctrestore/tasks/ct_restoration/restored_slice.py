"""A CT slice as a network restores it, for evaluations."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from monai.inferers import Inferer
from torch import nn

from ctrestore.ct import denormalise, normalise
from ctrestore.transforms.low_dose import CLIP_HU, TakeOver, dose_map


def restored_slice(
    hu: np.ndarray,
    *,
    network: nn.Module,
    inferer: Inferer,
    clip_hu: Sequence[float] = CLIP_HU,
    told_dose: bool = False,
    dose_fraction: float | None = None,
    strength: float = 1.0,
) -> np.ndarray:
    """A slice in HU ``(y, x)`` as a network restores it, on its grid or a finer one.

    Values outside the range that the network sees stay as they were.

    Args:
        hu: slice.
        network: ``(1, 1, x, y)`` in HU / 1000 to the same; with the map of the dose as a second channel if it is told.
        inferer: MONAI's.
        clip_hu: lowest and highest HU that the network sees.
        told_dose: whether the network is told the dose.
        dose_fraction: of the full dose; None: not known.
        strength: share of the restoration that is taken over.
    """
    before = torch.from_numpy(np.ascontiguousarray(hu.T, dtype=np.float32))
    device = next((weights.device for weights in network.parameters()), torch.device("cpu"))
    with torch.inference_mode():
        shown = normalise(before.clamp(*clip_hu))[None]
        if told_dose:
            shown = torch.cat([shown, dose_map(shown, dose_fraction)])
        restored = denormalise(inferer(shown[None].to(device), network))[0, 0].float().cpu()
    return TakeOver(clip_hu, strength)(restored, before).numpy().T
