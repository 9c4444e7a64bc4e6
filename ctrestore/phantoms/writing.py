"""Phantoms on disk: each written once, atomically, by several processes.

A subject is rendered into a hidden folder next to its place and renamed. A killed process leaves only that
folder behind, and the next process removes it. Two processes that make the same subject at once get the same voxels,
and the first one to finish keeps its files.
"""

from __future__ import annotations

import errno
import json
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from tqdm import tqdm

from ctrestore.errors import InputError, StorageError
from ctrestore.io.whole import written_whole
from ctrestore.phantoms.cohort import SPLITS, Split, Subject, cohort, data_list, files_of, render, sidecar_of

DESCRIPTION, NAME = "dataset_description.json", "ctrestore brain PET phantoms"
# Raise it with every change of any voxel. Folders of the first version do not state it.
GENERATOR_VERSION = "1"
FRACTIONS = ("grey_matter", "white_matter", "csf")
MAX_PROCESSES = 8  # each takes about 1 GB of memory
ABANDONED_S = 3600.0  # a subject takes ten seconds: no process uses a hidden folder as old as this
PATIENCE_S = 1800.0  # the longest wait for a new subject from rank 0
POLL_S = 1.0


def phantom_entries(
    folder: str | Path, section: Split, *, n: int | None = None, n_processes: int | None = None
) -> list[dict[str, Any]]:
    """Data-list entries of one split with absolute paths; missing subjects are written first.

    Args:
        folder: of the phantoms, created if missing.
        section: ``training``, ``validation`` or ``test``.
        n: only the first ``n`` subjects of the split; by default all of the embedded cohort.
        n_processes: see `write_cohort`.

    Raises:
        InputError: there is no such split, or ``n`` is below 1.
        OSError: see `write_cohort`.
    """
    if section not in SPLITS:
        raise InputError(f"section must be one of {', '.join(SPLITS)}; got {section!r}.")
    if n is not None and n < 1:
        raise InputError(f"n must be at least 1, or None for all subjects of {section!r}; got {n}.")
    counts = {} if n is None else {f"n_{section}": n}
    subjects = [subject for subject in cohort(**counts) if subject.split == section]
    folder = write_cohort(folder, subjects, n_processes=n_processes)
    return [
        {key: value if key == "subject" else str(folder / value) for key, value in entry.items()}
        for entry in data_list(subjects)[section]
    ]


def write_cohort(folder: str | Path, subjects: Sequence[Subject], *, n_processes: int | None = None) -> Path:
    """Write the missing subjects to ``folder``, with a progress bar, and return its absolute path.

    Of the processes that ``torchrun`` starts on a machine, the first one writes and the others wait for it.

    Args:
        folder: created if missing.
        subjects: existing ones are kept.
        n_processes: by default one per core, at most `MAX_PROCESSES`. Where processes do not start by ``fork``
            (Windows, macOS, Python 3.14), a script that calls this needs the usual ``if __name__ == "__main__":``.

    Raises:
        InputError: ``n_processes`` is below 1, or the folder holds other data or another version of the phantoms.
        OSError: the folder cannot be written to, the disk is full, or a process was killed; the message says which.
    """
    if n_processes is not None and n_processes < 1:
        raise InputError(f"n_processes must be at least 1, or None for one per core; got {n_processes}.")
    folder = Path(folder).expanduser().absolute()
    _check_folder(folder)
    missing = [subject for subject in subjects if not is_written(subject, folder)]
    if not missing:
        return folder
    if _local_rank() > 0:
        _wait_for_first_rank(folder, missing)
        return folder
    with _errors_naming(folder):
        folder.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(folder)
        _write_description(folder)
    n_processes = min(n_processes or n_cores(), len(missing), MAX_PROCESSES)
    started = time.monotonic()
    print(f"Making {len(missing)} brain PET phantoms in {folder} (once; about 10 s each per core)", flush=True)
    progress = partial(tqdm, total=len(missing), desc="phantoms", unit="subject")
    if n_processes == 1:
        for subject in progress(missing):
            write_subject(subject, folder)
    else:
        try:
            # One thread each, as in the workers of a DataLoader: a forked process must not start OpenMP's threads.
            with ProcessPoolExecutor(n_processes, initializer=torch.set_num_threads, initargs=(1,)) as pool:
                for _ in progress(pool.map(partial(write_subject, folder=folder), missing)):
                    pass  # the loop only moves the bar, and raises what a worker raised
        except BrokenProcessPool as error:
            raise ChildProcessError(
                f"A process that made phantoms in {folder} was killed. Usual cause: lack of memory: {n_processes} "
                "processes need about 1 GB each. Finished subjects stay. Remedy: run it again with fewer processes."
            ) from error
    print(f"{len(missing)} phantoms in {time.monotonic() - started:.0f} s", flush=True)
    return folder


def write_subject(subject: Subject, folder: Path) -> None:
    """Write a subject's images and sidecar to ``folder`` atomically; do nothing if they exist."""
    if is_written(subject, folder):
        return
    with _errors_naming(folder):  # before rendering, which takes seconds
        staging = Path(tempfile.mkdtemp(prefix=f".{subject.name}.{platform.node()}.{os.getpid()}.", dir=folder))
    try:
        images = render(subject)
        with _errors_naming(folder):
            _write_files(subject, images, staging)
            _publish(subject, staging, folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def is_written(subject: Subject, folder: Path) -> bool:
    """Whether every file of the subject exists."""
    return all((folder / file).is_file() for file in files_of(subject).values())


def _write_files(subject: Subject, images: dict[str, nib.Nifti1Image], folder: Path) -> None:
    """Fractions in steps of 1/255, activities and T1 in 65536 steps (nibabel chooses the slope, as scanners do)."""
    files = files_of(subject)
    for key, image in images.items():
        path = folder / files[key]
        path.parent.mkdir(parents=True, exist_ok=True)
        if key in FRACTIONS:
            steps = np.round(image.get_fdata() * 255).astype(np.uint8)
            image = nib.Nifti1Image(steps, image.affine, image.header)
            image.set_data_dtype(np.uint8)
            image.header.set_slope_inter(1 / 255, 0)
        elif image.get_data_dtype() == np.float32:
            image.set_data_dtype(np.int16)
        nib.save(image, path)
    sidecar = folder / files["image"].replace(".nii.gz", ".json")
    sidecar.write_text(json.dumps(sidecar_of(subject), indent=4) + "\n", encoding="utf-8")


def _publish(subject: Subject, staging: Path, folder: Path) -> None:
    """Rename a staged subject to its place, the true maps first: if the PET is there, so are they."""
    aside = count()
    for part in (Path("derivatives", "phantom", subject.name), Path(subject.name)):
        place = folder / part
        place.parent.mkdir(parents=True, exist_ok=True)
        while not is_written(subject, folder):  # else another process was faster
            try:
                (staging / part).rename(place)
                break
            except OSError as error:
                if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                    raise
            # Half a subject is there: from a killed run, from another process, or because somebody deleted the rest.
            with suppress(FileNotFoundError):  # another process may be moving it too
                place.rename(staging / f"replaced-{next(aside)}")


def _check_folder(folder: Path) -> None:
    """Refuse to mix phantoms with other data, or with phantoms from another version of this package."""
    # Listed before the description is read: a process that creates the folder meanwhile writes the description first.
    if not folder.is_dir() or all(path.name.startswith(".") for path in folder.iterdir()):
        return
    try:
        description = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        description = {}
    if description.get("Name") != NAME:
        raise InputError(
            f"{folder} holds other data than the embedded phantoms. Remedy: name an empty folder for the phantoms; or, "
            f"to use those scans, list them with `ctrestore data-list pet_pvc --root {folder} -o FILE` and add "
            "--data_list FILE."
        )
    version = description.get("GeneratedBy", [{}])[0].get("Version", "1")
    if version != GENERATOR_VERSION:
        raise InputError(
            f"{folder} holds phantoms of generator version {version}; this is version {GENERATOR_VERSION}, whose "
            "voxels differ. Remedy: remove that folder to make the phantoms again, or name another one."
        )


def _write_description(folder: Path) -> None:
    """The file that makes the folder a BIDS data set and describes its phantoms."""
    if (folder / DESCRIPTION).is_file():
        return
    generator = {"Name": "ctrestore phantoms", "Version": GENERATOR_VERSION}
    text = {"Name": NAME, "BIDSVersion": "1.10.0", "DatasetType": "raw", "GeneratedBy": [generator]}
    with written_whole(folder / DESCRIPTION) as draft:
        draft.write_text(json.dumps(text, indent=4) + "\n", encoding="utf-8")


def _remove_abandoned(folder: Path) -> None:
    """Remove the hidden folders of processes that have ended."""
    for staging in folder.glob(".sub-*"):
        if staging.is_dir() and _is_abandoned(staging):
            shutil.rmtree(staging, ignore_errors=True)


def _is_abandoned(staging: Path) -> bool:
    """Whether a hidden folder is an hour old, or its process no longer runs on this machine."""
    try:
        age_s = time.time() - staging.stat().st_mtime
    except FileNotFoundError:  # its process has just finished
        return False
    if age_s > ABANDONED_S:
        return True
    owner, _, pid = staging.name.rpartition(".")[0].rpartition(".")
    if os.name != "posix" or not owner.endswith(f".{platform.node()}") or not pid.isdigit():
        return False  # nothing is known about another machine's processes, and Windows' os.kill would end them
    try:
        os.kill(int(pid), 0)  # signal 0 only asks whether the process exists
    except ProcessLookupError:
        return True
    except PermissionError:  # it exists, and belongs to another user
        return False
    return False


def _local_rank() -> int:
    """Number of this process among those that ``torchrun`` started on this machine; 0 outside ``torchrun``.

    Each machine has a writer, because machines may have separate disks; on a shared disk both write, which is safe.
    """
    return int(os.environ.get("LOCAL_RANK") or os.environ.get("RANK") or 0)


def _wait_for_first_rank(folder: Path, missing: Sequence[Subject]) -> None:
    """Return when another process has written all the subjects."""
    print(f"Rank {_local_rank()} waits for rank 0, which makes {len(missing)} phantoms in {folder}", flush=True)
    last_news = time.monotonic()
    while left := [subject for subject in missing if not is_written(subject, folder)]:
        if len(left) < len(missing):
            last_news = time.monotonic()
        elif time.monotonic() - last_news > PATIENCE_S:
            raise TimeoutError(
                f"Rank {_local_rank()} has waited {PATIENCE_S / 60:.0f} minutes for {left[0].name} in {folder}, which "
                "rank 0 should write. Usual cause: rank 0 failed; see its message. Remedy: make the phantoms "
                f"first, with `ctrestore phantoms -o {folder}`."
            )
        missing = left
        time.sleep(POLL_S)


def n_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def _errors_naming(folder: Path) -> Iterator[None]:
    """Add the phantoms' folder and the remedy to errors of the file system."""
    try:
        yield
    except OSError as error:
        message = (
            f"cannot write phantoms to {folder}: {error.strerror or error}. A subject takes about 30 MB. Remedy: free "
            "space there, or name a folder that you may write to."
        )
        raise StorageError(message) from error
