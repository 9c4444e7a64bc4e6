"""Work on many scans one by one: a bad one is named with its reason, and the others go on."""

from __future__ import annotations

import errno
import logging
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar("Item")
Result = TypeVar("Result")
SECONDS_A_LINE = 60.0  # of progress in a log, where every step would be a line of its own
logger = logging.getLogger("ctrestore")


def for_each_scan(
    scans: Sequence[tuple[str, Item]],
    work: Callable[[Item], Result],
    *,
    doing: str | None = None,
    unit: str = "scan",
    failed: Mapping[str, str] | None = None,
) -> tuple[list[Result], dict[str, str]]:
    """What the work gives for each scan that it succeeds for, in order, and why it failed, by the name of the others.

    Whatever is wrong with one scan is said at once, in one line, and the next one follows. What ends a process
    (KeyboardInterrupt, SystemExit) ends the work. The caller raises :class:`ctrestore.errors.ScansFailed`.

    Args:
        scans: each with its name for messages.
        work: what is done to one of them. It gets nothing else and knows no other scan.
        doing: what the progress bar says, for example ``correcting``; None: the work shows progress of its own.
        unit: what the bar counts.
        failed: what is known to be wrong with further scans; it is said first, and comes first in the result.
    """
    done: list[Result] = []
    reasons: dict[str, str] = {}
    for name, why in (failed or {}).items():
        _report(reasons, name, why)
    interval_s = 0.1 if sys.stderr.isatty() else SECONDS_A_LINE
    for name, item in tqdm(scans, desc=doing, unit=unit, mininterval=interval_s, disable=doing is None):
        try:
            done.append(work(item))
        except Exception as error:
            logger.debug("%s", name, exc_info=True)
            _report(reasons, name, reason(error).removeprefix(f"{name}: "))
    return done, reasons


def _report(reasons: dict[str, str], name: str, why: str) -> None:
    reasons[name] = why
    tqdm.write(f"skipped {name}: {why}")


def reason(error: BaseException) -> str:
    """The innermost message of a chain of exceptions, on one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    kind, message = type(error).__name__, str(error)
    # LoadImage and SaveImage raise the tracebacks of every reader or writer they tried as one text, ours first.
    tried = re.search(r"^(?:\w+\.)*(\w+): (.*)$", message, re.MULTILINE)
    if "cannot find a suitable" in message and tried is not None:
        kind, message = tried.groups()
    message = " ".join(message.split())
    if kind in ("ImageFileError", "EOFError", "BadGzipFile", "HeaderDataError", "error") or (
        "damaged" in message and "Remedy" not in message
    ):
        return (
            f"cannot be read as NIfTI ({message or kind}). Usual cause: a truncated or damaged copy, or another format "
            "under this name. Remedy: copy or convert it again."
        )
    if f"[Errno {errno.ENOSPC}]" in message:
        return "the disk is full; nothing of this scan was written. Remedy: free space, and run again."
    return message if isinstance(error, ValueError) or kind == "ValueError" else f"{kind}: {message}"
