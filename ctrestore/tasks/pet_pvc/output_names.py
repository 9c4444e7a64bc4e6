"""Names of corrected scans."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ctrestore.errors import InputError
from ctrestore.io.nifti import stem


def output_stem(path: str | Path, dataset_dir: str) -> str:
    """Name that a corrected scan starts with: the scan's stem; sub-folders go before it, joined by ``_``.

    BIDS names hold their folders already and stay as they are.
    """
    path, root = Path(path).absolute(), Path(str(dataset_dir)).absolute()
    name = stem(path)
    if root.is_dir() and path.is_relative_to(root) and not name.startswith("sub-"):
        name = "_".join([*path.relative_to(root).parent.parts, name])
    return name


def outputs_of(scans: Sequence[dict[str, Any]], output_dir: str, dataset_dir: str, postfix: str = "pvc") -> list[str]:
    """Where the corrected scans of inference and evaluation lie, in the order of the scans.

    Raises:
        InputError: two scans would be written to one file.
    """
    source: dict[str, str] = {}
    for scan in scans:
        name = str(Path(output_dir) / f"{output_stem(scan['image'], dataset_dir)}_{postfix}.nii.gz")
        other = source.setdefault(name, scan["image"])
        if other != scan["image"]:
            raise InputError(
                f"{other} and {scan['image']} would both be written to {name}. Usual cause: a scan and its compressed "
                "copy side by side, or scans outside --dataset_dir. Remedy: rename one, or name the folder of both."
            )
    return list(source)
