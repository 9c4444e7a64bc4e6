"""Division where the divisor may be next to nothing."""

from __future__ import annotations

from typing import Any

import numpy as np

from ctrestore.psf import namespace


def ratio(numerator: Any, denominator: Any, *, floor: float, otherwise: float) -> Any:
    """The quotient where the denominator exceeds ``floor``, else ``otherwise``; of the arrays' kind, no NaN."""
    xp = namespace(denominator)
    if xp is np:
        out = np.full_like(denominator, otherwise)
        return np.divide(numerator, denominator, out=out, where=denominator > floor)
    return xp.where(denominator > floor, numerator / denominator.clip(min=max(floor, 1e-30)), otherwise)
