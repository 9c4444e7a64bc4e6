"""Tables that are there whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from ctrestore.files import written_whole


def write_csv(table: pd.DataFrame, path: Path) -> None:
    """The table as CSV, without its index, in six significant digits."""
    with written_whole(path) as draft:
        table.to_csv(draft, index=False, float_format="%.6g")
