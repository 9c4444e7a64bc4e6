"""Output files that are there whole or not at all, in a folder that is known to be writable before the work starts."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd


def writable_folder(folder: str | Path) -> Path:
    """The folder, made if need be.

    Raises:
        ValueError: nothing can be written there.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ValueError(
            f"{folder}: cannot write into this folder ({error}). Usual cause: a read-only disk, another user's folder, "
            "or a file of that name. Choose another output folder."
        ) from error
    return folder


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A name beside ``path`` to write to; it becomes ``path`` when the block ends without an error."""
    draft = path.with_name(f".{os.getpid()}.{path.name}")  # keeps the ending, which decides the format
    try:
        yield draft
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def write_csv(table: pd.DataFrame, path: Path) -> None:
    """The table as CSV, without its index, in six significant digits."""
    with written_whole(path) as draft:
        table.to_csv(draft, index=False, float_format="%.6g")
