"""Default settings of the classical methods, as the commands print them."""

from __future__ import annotations

DEFAULT_ALPHA, DEFAULT_STOP = 1.5, 0.01
