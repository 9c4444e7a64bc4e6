"""Data lists as JSON files: checked, written atomically, and read with absolute paths."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ctrestore.data_lists.pairing import NIFTI_ENDINGS, subject_of
from ctrestore.data_lists.splitting import SECTIONS
from ctrestore.errors import InputError
from ctrestore.io.whole import written_whole


def check_data_list(data_list: Mapping[str, Any], *, name: str = "The data list") -> None:
    """Refuse a list with a subject or an image in two sections, or with an entry without an image.

    An entry without ``"subject"`` is identified by the ``sub-`` in its image's path, else by that path.
    """
    section_of: dict[str, str] = {}
    for section, entries in _sections(data_list).items():
        for entry in entries:
            if "image" not in entry:
                raise InputError(f"{name}: an entry of {section!r} has no 'image': {dict(entry)}.")
            first = entry["image"] if isinstance(entry["image"], str) else entry["image"][0]
            known_by = {str(first), str(entry.get("subject") or (subject_of(first) if "sub-" in first else first))}
            for token in sorted(known_by):
                if section_of.setdefault(token, section) != section:
                    raise InputError(
                        f"{name}: {token} stands in {section_of[token]!r} and in {section!r}. All scans of a subject "
                        "belong in one section, or the test is no test; make the list again with `ctrestore data-list`."
                    )


def _sections(data_list: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """The lists of entries; in Decathlon files a test entry may be the image's bare path."""
    sections = {}
    for section, entries in data_list.items():
        if isinstance(entries, list) and (section in SECTIONS or any(isinstance(e, dict) for e in entries)):
            sections[section] = [e if isinstance(e, dict) else {"image": e} for e in entries]
    return sections


def write_data_list(data_list: Mapping[str, Any], path: str | Path, *, overwrite: bool = False) -> None:
    """Write the list as JSON, atomically."""
    path = Path(path)
    check_target(path, overwrite=overwrite)
    with written_whole(path) as draft:
        draft.write_text(json.dumps(data_list, indent=4, ensure_ascii=False) + "\n", encoding="utf-8")


def check_target(path: Path, *, overwrite: bool) -> None:
    """Refuse to replace a folder, or an existing list unless told to."""
    if path.is_dir():
        raise InputError(f"{path} is a folder; expected the name of a JSON file.")
    if path.exists() and not overwrite:
        raise InputError(
            f"{path} exists already and may be the split of a finished training. Add --force to replace it."
        )


def read_data_list(
    path: str | Path, section: str = "training", base_dir: str | Path | None = None
) -> list[dict[str, Any]]:
    """Entries of one section with absolute paths, checked: no subject in two sections, no file missing.

    ``image`` and ``label`` are paths, and so is any other text that ends in .nii or .nii.gz or names an existing file;
    the other values stay as they are.

    Args:
        path: the JSON file.
        section: usually "training", "validation" or "test".
        base_dir: folder that the paths are relative to; the list's own folder by default.

    Raises:
        InputError: there is no such list or section, a subject is in two sections, or a file is missing.
    """
    from monai.data import load_decathlon_datalist  # MONAI takes seconds to import, and making a list needs none of it

    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such data list. Make one with `ctrestore data-list`.")
    try:
        data_list = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path}: not a JSON file ({error}).") from error
    sections = _sections(data_list) if isinstance(data_list, dict) else {}
    if not sections.get(section):
        filled = ", ".join(name for name, entries in sections.items() if entries) or "none"
        raise InputError(f"{path}: no section {section!r} with entries. Sections with entries: {filled}.")
    check_data_list(data_list, name=str(path))

    base_dir = (path.parent if base_dir is None else Path(base_dir)).absolute()
    entries = load_decathlon_datalist(path, data_list_key=section, base_dir=base_dir)
    missing = []
    for entry, written in zip(entries, sections[section]):
        for key, value in entry.items():
            if key in ("image", "label"):
                files = value if isinstance(value, list) else [value]
                missing += [file for file in files if isinstance(file, str) and not Path(file).exists()]
            elif isinstance(value, str):
                # MONAI joins any text that exists under base_dir, also "sub-01", which is a folder in BIDS; and it
                # does not change a path if its file is missing.
                if value.endswith(NIFTI_ENDINGS):
                    missing += [] if Path(value).is_absolute() and Path(value).is_file() else [str(base_dir / value)]
                elif Path(value).is_dir():
                    entry[key] = written[key]
    if missing:
        raise InputError(
            f"{missing[0]}: listed in {path}, section {section!r}, but not there ({len(missing)} files missing). "
            f"Paths are relative to {base_dir}; usual cause: another data root than the list was made for."
        )
    return entries
