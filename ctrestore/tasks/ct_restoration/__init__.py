"""CT scans of any kind restored slice by slice by a bundle's evaluator: DICOM series, NIfTI files, pictures."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ctrestore.tasks.ct_restoration.finding import Scans, find_scans
    from ctrestore.tasks.ct_restoration.restoring import WriteScans, restore_each

__all__ = ["Scans", "WriteScans", "find_scans", "restore_each"]


def __getattr__(name: str) -> Any:
    """The exported names, when they are asked for: they need torch and MONAI, which take seconds (PEP 562)."""
    from importlib import import_module

    files = {"finding": ("Scans", "find_scans"), "restoring": ("WriteScans", "restore_each")}
    for file, names in files.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{file}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
