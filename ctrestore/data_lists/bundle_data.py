"""Where a bundle's training data come from: the embedded phantoms or the user's list."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ctrestore.data_lists.files import read_data_list
from ctrestore.phantoms import cohort, files_of, write_cohort


def embedded_data_dir(bundle_root: str, name: str) -> str:
    """Folder of an embedded data set: ``.data/NAME`` of the checkout that the bundle lies in, or of the bundle itself."""
    root = Path(bundle_root).resolve()
    checkout = root.parent.parent
    return str((checkout if (checkout / "pyproject.toml").is_file() else root) / ".data" / name)


def bundle_entries(
    section: str, data_list: str | None, dataset_dir: str, target: str = "label", n: int | None = None
) -> list[dict[str, Any]]:
    """Entries of a section, with absolute paths, ``label`` being the file under the key ``target``.

    Args:
        section: ``training``, ``validation`` or ``test``.
        data_list: a data list; None: the embedded phantoms, made in ``dataset_dir`` where they are missing.
        dataset_dir: folder that the list's paths start from.
        target: the key of what the network should give, for example ``grey_matter_concentration``.
        n: only the first n subjects.

    Raises:
        ValueError: an entry has no such target.
    """
    if data_list is None:
        folder = Path(dataset_dir)
        subjects = [s for s in cohort() if s.split == section][:n]
        write_cohort(folder, subjects)
        entries = [{"subject": s.name, **{k: str(folder / v) for k, v in files_of(s).items()}} for s in subjects]
    else:
        entries = read_data_list(Path(data_list), section, dataset_dir)[:n]
    for entry in entries:
        if target not in entry:
            raise ValueError(
                f"{entry.get('subject', entry.get('image'))} has no {target!r} in the {section} list; it has "
                f"{', '.join(sorted(entry))}. Remedy: --target with one of them."
            )
    return [{**entry, "label": entry[target]} for entry in entries]
