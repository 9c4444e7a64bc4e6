"""Output paths: one file and its sidecar, or the layout of BIDS derivatives with its description."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ctrestore import __version__
from ctrestore.errors import InputError
from ctrestore.io.nifti import sidecar_of, stem
from ctrestore.io.whole import read_json, writable_folder, write_json, written_whole
from ctrestore.pvc_methods import CHAINS
from ctrestore.pvc_methods import TABLES as TABLES_ONLY

IMAGES = (".nii", ".nii.gz")
TABLES = (".tsv", ".txt", ".csv")
BIDS_VERSION = "1.11.0"
DESCRIPTION = "dataset_description.json"
# BIDS has no name yet for tables of regions; this one is from the proposal for PET derivatives (BEP 23).
TABLE_ENDING = "_tacs.tsv"


@dataclass(frozen=True)
class Outputs:
    """The files to write, None if unwanted. ``petpvc_table`` is PETPVC's text, ``dataset`` a folder of derivatives."""

    image: Path | None = None
    table: Path | None = None
    petpvc_table: Path | None = None
    sidecar: Path | None = None
    dataset: Path | None = None

    def check(self, inputs: Sequence[Path]) -> None:
        """Refuse, before any work, outputs that cannot be written or that would replace an input.

        Raises:
            InputError: names the file and the reason.
        """
        for path in (self.image, self.table, self.petpvc_table, self.sidecar):
            if path is None:
                continue
            for other in [*inputs, *map(sidecar_of, inputs)]:
                if path.exists() and other.exists() and path.samefile(other):
                    raise InputError(f"{path} is an input, and would be replaced. Remedy: another name for the output.")
            if path.is_dir():
                raise InputError(f"{path} is a folder; expected the name of a file.")
            writable_folder(path.parent)
        described = [] if self.dataset is None else [self.dataset / DESCRIPTION]
        for path in described:
            if path.is_file() and read_json(path).get("DatasetType", "raw") != "derivative":
                raise InputError(
                    f"{path} says that this folder holds raw data. Derivatives belong in their own folder. "
                    f"Remedy: -o {path.parent / 'derivatives' / 'ctrestore'}."
                )


def planned_outputs(output: str, *, pet: Path, method: str, table: Path | None, has_regions: bool) -> Outputs:
    """The meaning of ``-o OUT`` for ``ctrestore pvc``.

    Raises:
        InputError: OUT is a table for a method that gives an image, has no known ending, or is a folder although the
            PET's name is not a BIDS name.
    """
    path = Path(output)
    if path.name.endswith(IMAGES) and not path.is_dir():
        return Outputs(image=path, table=table, sidecar=sidecar_of(path))
    if path.suffix in TABLES and not path.is_dir():
        if method not in TABLES_ONLY:
            raise InputError(f"{output}: {method} gives an image. Remedy: name a .nii.gz, and the table with --table.")
        if table is not None:
            raise InputError(f"{output} is a table already, and --table {table} another. Remedy: name one of them.")
        return Outputs(table=path, sidecar=path.with_suffix(".json"))
    if path.suffix and not path.is_dir() and not output.endswith(("/", os.sep)):
        raise InputError(
            f"{output}: expected a NIfTI ({', '.join(IMAGES)}), a table of {' or '.join(TABLES_ONLY)} "
            f"({', '.join(TABLES)}) or a folder for BIDS derivatives."
        )
    image = path / derivative_name(pet, method)
    of_regions = image.with_name(image.name.removesuffix("_pet.nii.gz") + TABLE_ENDING) if has_regions else None
    return Outputs(image=image, table=table or of_regions, sidecar=sidecar_of(image), dataset=path)


def drop_in_outputs(output: str, *, method: str, table: Path | None) -> Outputs:
    """What ``-o OUT`` means for ``petpvc``: methods that give means alone write PETPVC's text to it, whatever its name.

    Raises:
        InputError: an image's name does not end in .nii or .nii.gz.
    """
    path = Path(output)
    if method in TABLES_ONLY:
        return Outputs(petpvc_table=path, table=table)
    if not path.name.endswith(IMAGES):
        raise InputError(f"{output}: expected a name that ends in {' or '.join(IMAGES)}.")
    return Outputs(image=path, table=table)


def derivative_name(pet: Path, method: str) -> str:
    """Path in BIDS derivatives of a corrected PET.

    >>> derivative_name(Path("sub-01_ses-a_trc-18FFDG_desc-motion_pet.nii.gz"), "LABBE+RBV")
    'sub-01/ses-a/pet/sub-01_ses-a_trc-18FFDG_desc-pvcLABBERBV_pet.nii.gz'

    Raises:
        InputError: the PET's name is not a BIDS name.
    """
    name = stem(pet)
    if not re.fullmatch(r"sub-[A-Za-z0-9]+(_[a-z]+-[A-Za-z0-9+]+)*_pet", name):
        raise InputError(
            f"{pet.name}: no BIDS name (sub-01_..._pet.nii.gz), so the output in a folder has no name either. "
            "Remedy: name the output file, -o FILE.nii.gz."
        )
    entities = [part for part in name.split("_")[:-1] if not part.startswith("desc-")]
    folders = [part for part in entities if part.startswith(("sub-", "ses-"))]
    return "/".join([*folders, "pet", "_".join([*entities, f"desc-pvc{CHAINS[method].label}", "pet.nii.gz"])])


def sources(files: Sequence[Path], outputs: Outputs) -> tuple[list[str], dict[str, str]]:
    """The inputs in BIDS form, ``bids:<dataset>:<path>`` if they are in a dataset, and its DatasetLinks.

    A file outside any dataset is written relative to the output's folder.
    """
    home = outputs.dataset or next(path for path in (outputs.image, outputs.table) if path is not None).parent
    listed, links = [], {}
    for path in (file.resolve() for file in files):
        dataset = next((folder for folder in path.parents if (folder / DESCRIPTION).is_file()), None)
        if dataset is None or outputs.dataset is None:
            listed.append(_relative(path, home))
            continue
        raw = read_json(dataset / DESCRIPTION).get("DatasetType", "raw") == "raw"
        name = "raw" if raw else "".join(letter for letter in dataset.name if letter.isalnum()) or "source"
        if dataset == home.resolve():
            name = ""
        else:
            links[name] = _relative(dataset, home)
        listed.append(f"bids:{name}:{path.relative_to(dataset).as_posix()}")
    return listed, links


def _relative(path: Path, folder: Path) -> str:
    try:
        return Path(os.path.relpath(path, folder.resolve())).as_posix()
    except ValueError:  # on another drive of Windows
        return path.as_uri()


def describe_dataset(folder: Path, links: dict[str, str]) -> None:
    """Make the folder a BIDS dataset of derivatives; existing content of its description stays."""
    path = folder / DESCRIPTION
    content: dict[str, Any] = {
        "Name": "Partial volume corrected PET",
        "BIDSVersion": BIDS_VERSION,
        "DatasetType": "derivative",
        "GeneratedBy": [{"Name": "ctrestore", "Version": __version__}],
    }
    before = read_json(path) if path.is_file() else {}
    content |= before
    if links:
        content["DatasetLinks"] = {**content.get("DatasetLinks", {}), **links}
    if content != before:
        write_json(content, path)
    ignored = folder / ".bidsignore"
    lines = ignored.read_text(encoding="utf-8").splitlines() if ignored.is_file() else []
    if f"*{TABLE_ENDING}" not in lines:
        with written_whole(ignored) as draft:
            draft.write_text("\n".join([*lines, f"*{TABLE_ENDING}"]) + "\n", encoding="utf-8")
