"""The grid of a NIfTI file, and whether it is complete or a copy, reading as few of its bytes as possible."""

from __future__ import annotations

import gzip
import hashlib
import itertools
import math
import os
import zlib
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from tqdm import tqdm

from ctrestore.errors import InputError


@dataclass(frozen=True)
class Grid:
    """Shape (trailing axes of length 1 dropped) and voxel-to-mm affine of a scan."""

    shape: tuple[int, ...]
    affine: np.ndarray

    def distance_mm(self, other: Grid) -> float:
        """The largest distance in mm between corner voxels of both grids; infinite if the shapes differ."""
        if self.shape != other.shape:
            return math.inf
        corners = np.array([(*corner, 1) for corner in itertools.product(*((0, n - 1) for n in self.shape[:3]))])
        return float(np.linalg.norm(corners @ (self.affine - other.affine).T, axis=1).max())


def read_grid(path: Path) -> Grid:
    """Shape and affine of a NIfTI file; refuses a faulty header and missing data.

    Raises:
        InputError: it is not a NIfTI, is truncated, or its header gives no usable grid.
    """
    try:
        scan = nib.load(path)
    except (ImageFileError, HeaderDataError, OSError, EOFError, zlib.error) as error:
        raise InputError(
            f"{path}: not a readable NIfTI ({error}). Expected a .nii or .nii.gz file; usual cause: an interrupted "
            "copy, or another format under this name. Copy or convert it again."
        ) from error
    if not isinstance(scan, nib.Nifti1Pair):
        raise InputError(f"{path}: expected a NIfTI, found {type(scan).__name__}. Convert it to .nii.gz.")
    shape, affine = scan.shape, scan.affine
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) < 3 or min(shape) < 1:
        raise InputError(f"{path}: expected a volume of three axes or more, found shape {scan.shape}.")
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        raise InputError(
            f"{path}: the affine gives no voxel size (zero or not a number). Usual cause: a converter that left the "
            "geometry empty. Convert the scan again from its source."
        )
    offset = scan.dataobj.offset  # type: ignore[attr-defined]  # of its ArrayProxy; the header's is set to 0
    n_bytes = offset + scan.header.get_data_dtype().itemsize * math.prod(scan.shape)
    if not _holds_bytes(Path(str(scan.file_map["image"].filename)), n_bytes):
        raise InputError(f"{path}: truncated, the header promises {n_bytes} bytes. Usual cause: an interrupted copy.")
    return Grid(shape, affine)


def _holds_bytes(path: Path, n_bytes: int) -> bool:
    """Whether the (decompressed) file is at least this long, judged by its last bytes if possible."""
    if path.suffix != ".gz":
        return path.stat().st_size >= n_bytes
    if _gzip_trailer(path)[4:] == (n_bytes % 2**32).to_bytes(4, "little"):
        return True
    try:  # truncated, or several gzip members in a row: the file must be read
        return sum(len(chunk) for chunk in _chunks(path)) >= n_bytes
    except (OSError, EOFError, zlib.error):
        return False


def _gzip_trailer(path: Path) -> bytes:
    """The last eight bytes: CRC-32 and length of the decompressed content (RFC 1952, section 2.3.1)."""
    with path.open("rb") as file:
        file.seek(-min(8, path.stat().st_size), os.SEEK_END)
        return file.read()


def _chunks(path: Path, size: int = 2**20) -> Iterable[bytes]:
    """The decompressed content, piece by piece."""
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        yield from iter(lambda: file.read(size), b"")


def find_duplicates(paths: Iterable[Path]) -> list[list[Path]]:
    """Groups of files with the same content, also if compressed twice. Most files are told apart by a few bytes."""

    def quick(path: Path) -> bytes:
        if path.suffix == ".gz":
            return _gzip_trailer(path)
        n_bytes = path.stat().st_size
        with path.open("rb") as file:
            file.seek(n_bytes // 2)  # the first slices of many scans are all zero
            return n_bytes.to_bytes(8, "little") + file.read(2**16)

    def thorough(path: Path) -> bytes:
        digest = hashlib.sha256()
        for chunk in _chunks(path):
            digest.update(chunk)
        return digest.digest()

    groups = [sorted(set(paths))]
    for fingerprint in (quick, thorough):
        parts: dict[tuple[int, bytes], list[Path]] = defaultdict(list)
        for number, group in enumerate(groups):
            for path in tqdm(group, desc="comparing files", delay=2, leave=False, disable=None):
                parts[number, hashlib.sha256(fingerprint(path)).digest()].append(path)
        groups = [part for part in parts.values() if len(part) > 1]
    return groups


GRID_TOLERANCE_MM = 0.01  # sform and qform of one scan differ by about a thousandth of this
