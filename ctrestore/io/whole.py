"""Atomic writing of output files, in a folder that is tested before the work starts."""

from __future__ import annotations

import glob
import json
import os
import platform
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ctrestore.errors import InputError


def writable_folder(folder: str | Path) -> Path:
    """The folder, created if necessary.

    Raises:
        InputError: it cannot be written to.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass  # the test is only whether the file can be created
    except OSError as error:
        raise InputError(
            f"{folder}: cannot write into this folder ({error.strerror}). Usual cause: a read-only disk, another "
            "user's folder, or a file of that name. Remedy: another output folder (--output_dir of a bundle)."
        ) from error
    return folder


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A temporary name next to ``path``; it becomes ``path`` when the block ends without an error.

    A full disk or a kill leaves the old file or the new one, never a part. The folder is created if necessary.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{os.getpid()}.{path.name}")  # keeps the ending, which decides the format
    try:
        yield draft
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def draft_folder(folder: Path) -> Path:
    """A hidden name next to ``folder`` that this process may fill and rename.

    Files under such names from processes of this machine that have ended are removed.
    """
    start, end = f".{platform.node()}.", f".{folder.name}"
    for left in folder.parent.glob(f"{glob.escape(start)}*{glob.escape(end)}"):
        number = left.name.removeprefix(start).removesuffix(end)
        if number.isdigit() and left.is_dir() and not _is_running(int(number)):
            shutil.rmtree(left, ignore_errors=True)
    return folder.with_name(f"{start}{os.getpid()}{end}")


def _is_running(pid: int) -> bool:
    """Whether a process may be running; True if the system cannot tell."""
    if os.name != "posix":
        return True  # Windows' os.kill would end it
    try:
        os.kill(pid, 0)  # signal 0 only asks
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        return True
    return True


def write_json(content: dict[str, Any], path: Path) -> None:
    """Write indented JSON, in a folder that is created if necessary.

    Raises:
        InputError: a number is NaN or infinite, which JSON does not have.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(path) as draft:
        draft.write_text(json.dumps(content, indent=4, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        InputError: it holds something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path}: not a JSON file ({error}). Usual cause: a comma too many.") from error
    if not isinstance(content, dict):
        raise InputError(f'{path}: expected a JSON object, {{"key": value, ...}}; got {type(content).__name__}.')
    return content
