"""What a correction gives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Correction:
    """What a correction gives.

    Attributes:
        image: corrected ``(x, y, z)``, float32; of methods that give means alone (GTM, LABBE), None.
        means: true means by region, float64: those of GTM or LABBE where the method starts from them, else the means
            over the corrected image; None without regions.
        white_value: of white matter, where Müller-Gärtner used one.
    """

    image: Any | None
    means: np.ndarray | None
    white_value: float | None = None
