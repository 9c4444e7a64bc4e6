"""Errors that a user can mend: one line that names the file, the fault and the remedy.

They are ValueErrors or OSErrors, too, for programs that know no more of this package. Commands and
``python -m monai.bundle`` print the line and end with an exit status; Python programs catch :class:`CTRestoreError`.
"""

from __future__ import annotations

from collections.abc import Mapping


class CTRestoreError(Exception):
    """What a user can mend; its text is for people."""

    exit_status = 2


class InputError(CTRestoreError, ValueError):
    """A file, a setting or a piece of data that cannot be used."""


class StorageError(CTRestoreError, OSError):
    """A folder or disk that cannot be written to."""


class TrainingError(CTRestoreError, FloatingPointError):
    """A training that has gone wrong."""


class ScansFailed(InputError):
    """Some scans of a run failed; the others are done.

    Args:
        done: what should have happened to them, such as ``corrected``.
        failed: the reasons, by the name of the scan.
    """

    exit_status = 1

    def __init__(self, done: str, failed: Mapping[str, str]) -> None:
        super().__init__(f"not {done}:" + "".join(f"\n  {scan}: {why}" for scan, why in failed.items()))
        self.failed = dict(failed)
