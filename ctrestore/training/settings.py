"""Settings of a config as the command line hands them over: ``--resume true`` arrives as text."""

from __future__ import annotations

from typing import Any

from ctrestore.errors import InputError

TRUTH = {"True": True, "true": True, "False": False, "false": False}


def is_true(value: Any, name: str = "the setting") -> bool:
    """The truth that a setting states; text that is not empty would count as true, also ``"false"``.

    Args:
        value: a bool, or one of the texts ``True``, ``true``, ``False`` and ``false``.
        name: of the setting, for the message.

    Raises:
        InputError: it is something else.
    """
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value in TRUTH:
        return TRUTH[value]
    raise InputError(f"{name} is True or False; got {value!r}. Remedy: write True or False.")
