"""Copies and near copies among scans, which test and training must not share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from tqdm import tqdm

from ctrestore.data_lists.ct_layouts import PICTURE_ENDINGS, dicom_files
from ctrestore.data_lists.splitting import SECTIONS
from ctrestore.errors import InputError
from ctrestore.io.grid import find_duplicates

THUMBNAIL = 32
# Correlation of two thumbnails. On 267 slices of 235 LIDC patients two patients reach 0.95 at most; the same slice as a
# JPEG of quality 75, resized and squeezed, or 15 % brighter, still has 0.999. Cropped by 2 % at each side it has 0.91
# and is not found.
NEAR = 0.99


@dataclass(frozen=True)
class Copies:
    """Groups of entries that are copies of each other, as indices.

    Attributes:
        exact: the same bytes, in a picture or file, or in any file of a DICOM folder.
        near: pictures that look the same: exact copies and those that were resized, brightened or saved again.
    """

    exact: list[list[int]]
    near: list[list[int]]


def find_copies(root: Path, entries: Sequence[Mapping[str, Any]], *, near: float = NEAR) -> Copies:
    """The copies among the images (not labels).

    Exact copies are found among all kinds of files, near ones among pictures: for DICOM and NIfTI the patient is known.

    Args:
        root: folder that the paths are relative to.
        entries: with ``image``, a file or a folder of DICOM files.
        near: correlation of two thumbnails from which pictures count as the same.

    Raises:
        InputError: a picture cannot be read.
    """
    owners: dict[Path, int] = {}
    for i, entry in enumerate(entries):
        path = root / entry["image"]
        owners |= dict.fromkeys(dicom_files(path) if path.is_dir() else [path], i)
    exact = [[owners[path] for path in group] for group in find_duplicates(owners)]
    pictures = [i for i, entry in enumerate(entries) if str(entry["image"]).lower().endswith(PICTURE_ENDINGS)]
    thumbnails = _thumbnails([root / entries[i]["image"] for i in pictures])
    alike = [[pictures[a], pictures[b]] for a, b in _alike(thumbnails, near)]
    groups = _groups(exact, len(entries))
    return Copies(groups, _groups([*groups, *alike], len(entries)))


def _thumbnails(paths: Sequence[Path]) -> np.ndarray:
    """Each picture as ``THUMBNAIL`` squared grey values of mean 0 and length 1; ``(n, pixels)``."""
    from PIL import Image, UnidentifiedImageError

    rows = np.zeros((len(paths), THUMBNAIL**2), dtype=np.float32)
    for row, path in zip(rows, tqdm(paths, desc="comparing pictures", delay=2, leave=False, disable=None)):
        try:
            with Image.open(path) as picture:
                grey = picture.convert("RGB").convert("L")  # first RGB: transparent pixels count as stored
                small = np.asarray(grey.resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX), dtype=np.float32)
        except (UnidentifiedImageError, OSError, SyntaxError) as error:
            raise InputError(
                f"{path}: not a readable picture ({error}). Usual cause: an interrupted copy. Remedy: copy it again or "
                "remove it."
            ) from error
        row[:] = small.ravel() - small.mean()
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-6)


def _alike(thumbnails: np.ndarray, near: float, *, block: int = 1024) -> list[tuple[int, int]]:
    """Pairs with a correlation of ``near`` or more, block by block to save memory."""
    pairs = []
    for start in range(0, len(thumbnails), block):
        correlation = thumbnails[start : start + block] @ thumbnails.T
        for a, b in np.argwhere(correlation >= near):
            if start + a < b:
                pairs.append((int(start + a), int(b)))
    return pairs


def _groups(links: Sequence[Sequence[int]], n: int) -> list[list[int]]:
    """Sets with a common member joined into one; members in order."""
    joined = component_of(links, n)
    members: dict[int, list[int]] = {}
    for i, component in enumerate(joined):
        members.setdefault(int(component), []).append(i)
    return [group for group in members.values() if len(group) > 1]


def component_of(links: Sequence[Sequence[int]], n: int) -> np.ndarray:
    """For each of ``n`` things the number of its group; things in one link belong together."""
    rows = [link[0] for link in links for _ in link]
    columns = [member for link in links for member in link]
    return connected_components(coo_matrix((np.ones(len(rows)), (rows, columns)), shape=(n, n)), directed=False)[1]


def audit(entries: Sequence[Mapping[str, Any]], copies: Copies) -> dict[str, Any]:
    """A report on the copies: the number of groups, and of those across sections or classes.

    Args:
        entries: with ``image``, and ``section`` and ``class`` where there are any.
        copies: of these entries.
    """
    report: dict[str, Any] = {"n_scans": len(entries)}
    for kind in ("exact", "near"):
        groups = getattr(copies, kind)
        across = [group for group in groups if len({entries[i].get("section") for i in group}) > 1]
        leaked = {name: 0 for name in SECTIONS[1:]}
        for group in across:
            sections = [entries[i].get("section") for i in group]
            if SECTIONS[0] in sections:
                for name in leaked:
                    leaked[name] += sections.count(name)
        report[kind] = {
            "groups": len(groups),
            "scans_in_groups": sum(map(len, groups)),
            "groups_across_sections": len(across),
            "scans_that_are_in_training_too": leaked,
            "groups_across_classes": sum(len({entries[i].get("class") for i in group}) > 1 for group in groups),
            "across_sections": [[str(entries[i]["image"]) for i in group] for group in across],
        }
    return report


def without_copies(entries: Sequence[Mapping[str, Any]], copies: Copies) -> tuple[list[int], list[int]]:
    """The entries to keep and to drop, as indices.

    Of exact copies one stays, in training if there is one there; exact copies with different classes are all dropped,
    because nobody knows which class is right. Of near copies, those in validation and test that training has are
    dropped, and those in test that validation has. Inside a section they stay: neighbouring slices are data.
    """
    order = {name: rank for rank, name in enumerate(SECTIONS)}
    rank = [order.get(entry.get("section", ""), 0) for entry in entries]
    dropped: set[int] = set()
    for group in copies.exact:
        one_class = len({entries[i].get("class") for i in group}) == 1
        first = min(group, key=lambda i: (rank[i], i))
        dropped |= {i for i in group if i != first or not one_class}
    for group in copies.near:
        first_rank = min(rank[i] for i in group)
        dropped |= {i for i in group if rank[i] > first_rank}
    return [i for i in range(len(entries)) if i not in dropped], sorted(dropped)
