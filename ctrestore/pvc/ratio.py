"""Division where the divisor may be next to nothing."""

from __future__ import annotations

from typing import Any

import numpy as np


def ratio(numerator: Any, denominator: Any, *, floor: float, otherwise: float) -> Any:
    """The quotient where the denominator exceeds ``floor``, else ``otherwise``; of the arrays' kind, no NaN."""
    if float(denominator.min()) > floor:  # as a rule; numpy's division `where` takes ten times as long
        return numerator / denominator
    with np.errstate(all="ignore"):
        quotient = numerator / denominator
    quotient[denominator <= floor] = otherwise
    return quotient
