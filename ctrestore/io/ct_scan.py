"""Axial CT slices of NIfTI files, DICOM series and pictures, one at a time, in HU.

A slice is ``(x, y)`` here, the order of axes in nibabel and MONAI. If a training uses a few slices of a volume,
DICOM volumes are never read completely, and NIfTI volumes are kept as stored.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import nibabel as nib
import numpy as np
from PIL import Image, UnidentifiedImageError

from ctrestore.ct import check_hu
from ctrestore.errors import InputError
from ctrestore.io.dicom import SeriesOnDisk, open_series

NIFTI = (".nii", ".nii.gz")
PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
Range = tuple[float, float]


class Scan(Protocol):
    """A CT scan whose slices are read on request."""

    @property
    def path(self) -> Path:
        """Of the file or folder."""
        ...

    @property
    def shape(self) -> tuple[int, int, int]:
        """``(x, y, z)``."""
        ...

    @property
    def affine(self) -> np.ndarray:
        """Voxel to mm, RAS."""
        ...

    def slice_hu(self, k: int) -> np.ndarray:
        """The k-th slice ``(x, y)``, float32 in HU."""
        ...


@dataclass(frozen=True, eq=False)
class NiftiScan:
    """A NIfTI file of one slice or a volume; its third axis is that of the slices."""

    path: Path
    shape: tuple[int, int, int]
    affine: np.ndarray
    stored: np.ndarray
    slope: float
    intercept: float

    def slice_hu(self, k: int) -> np.ndarray:
        """The k-th slice ``(x, y)``, float32 in HU."""
        plane = self.stored[:, :, k]
        return np.asarray(plane * np.float32(self.slope) + np.float32(self.intercept), dtype=np.float32)


@dataclass(frozen=True, eq=False)
class DicomScan:
    """A DICOM series; air where nothing was measured."""

    path: Path
    series: SeriesOnDisk

    @property
    def shape(self) -> tuple[int, int, int]:
        """``(x, y, z)``."""
        return self.series.shape

    @property
    def affine(self) -> np.ndarray:
        """Voxel to mm, RAS."""
        return self.series.affine

    def slice_hu(self, k: int) -> np.ndarray:
        """The k-th slice ``(x, y)``, float32 in HU; air where nothing was measured."""
        return self.series.slice_at(k)[0].T


@dataclass(frozen=True, eq=False)
class PictureScan:
    """A grey picture of one slice, with known HU of its darkest and brightest value."""

    path: Path
    shape: tuple[int, int, int]
    affine: np.ndarray
    hu: np.ndarray
    white: float  # grey value, 255 or 65535

    def slice_hu(self, k: int) -> np.ndarray:
        """The slice ``(x, y)``, float32 in HU."""
        return self.hu


def open_scan(path: str | Path, *, range_hu: Range | None = None) -> Scan:
    """A CT scan: a NIfTI file, the folder of a DICOM series (or one multi-frame file), or a picture.

    Args:
        path: of the scan.
        range_hu: HU of black and white; only for pictures, which do not state them.

    Raises:
        InputError: there is no such scan, it cannot be read or is not in HU, or a picture comes without its range; the
            message names the file, the fault and the remedy.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path}: no such file or folder. Remedy: a NIfTI file, or the folder of a DICOM series.")
    name = path.name.lower()
    if path.is_file() and name.endswith(NIFTI):
        return _nifti(path, path.stat().st_mtime_ns)
    if path.is_file() and name.endswith(PICTURES):
        return _picture(path, range_hu)
    return _dicom(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=2)  # low and full dose of one patient
def _nifti(path: Path, changed: int) -> NiftiScan:
    try:
        image: Any = nib.load(path)
        stored = np.asanyarray(image.dataobj.get_unscaled() if nib.is_proxy(image.dataobj) else image.dataobj)
    except Exception as error:  # for damaged files nibabel, zlib and numpy raise various errors
        reason = " ".join(str(error).split())
        raise InputError(
            f"{path}: cannot be read as NIfTI ({reason or type(error).__name__}). Usual cause: a truncated or damaged "
            "copy. Remedy: copy or convert it again."
        ) from error
    slope, intercept = (float(value) for value in (image.dataobj.slope, image.dataobj.inter))
    if stored.ndim > 3 and set(stored.shape[3:]) == {1}:
        stored = stored.reshape(stored.shape[:3])
    if stored.ndim == 2:
        stored = stored[..., None]
    if stored.ndim != 3:
        raise InputError(
            f"{path}: expected a volume (x, y, z) or one slice; got shape {image.shape}. Usual cause: a scan with "
            "several time points. Remedy: split it."
        )
    middle = stored[:, :, stored.shape[2] // 2]
    try:
        check_hu(np.asarray(middle * np.float32(slope) + np.float32(intercept), dtype=np.float32))
    except ValueError as error:
        raise InputError(f"{path}: {error}") from error
    x, y, z = stored.shape
    return NiftiScan(path, (x, y, z), np.asarray(image.affine, dtype=float), stored, slope, intercept)


def forget() -> None:
    """Release the voxels of NIfTI files that are kept for their next slice."""
    _nifti.cache_clear()


@lru_cache(maxsize=64)  # only headers
def _dicom(path: Path, changed: int) -> DicomScan:
    return DicomScan(path, open_series(path, modality="CT", single_slice=True))


def _picture(path: Path, range_hu: Range | None) -> PictureScan:
    if range_hu is None:
        raise InputError(
            f"{path}: a picture does not say what its grey values mean in HU. Remedy: give the window that was used to "
            "make it, for instance --window 40 400, or use the DICOM files."
        )
    low, high = range_hu
    if not low < high:
        raise InputError(f"range_hu is (HU of black, HU of white), for instance (-160, 240); got {range_hu!r}.")
    try:
        image = Image.open(path)
        grey = np.asarray(image if image.mode in ("L", "I;16", "I") else image.convert("RGB"))
    except (UnidentifiedImageError, OSError) as error:
        raise InputError(f"{path}: cannot be read as a picture ({error}). Remedy: export it again.") from error
    if grey.ndim == 3:
        if (grey != grey[..., :1]).any():
            raise InputError(
                f"{path}: a picture in colour. Usual cause: arrows or a colour map. Remedy: export it in grey."
            )
        grey = grey[..., 0]
    white = 255.0 if grey.dtype == np.uint8 else 65535.0
    hu = (low + grey.astype(np.float32) * np.float32((high - low) / white)).T
    return PictureScan(path, (hu.shape[0], hu.shape[1], 1), np.diag([-1.0, -1.0, 1.0, 1.0]), hu, white)


def slice_in_ras(scan: Scan, k: int) -> tuple[np.ndarray, tuple[float, float]]:
    """The k-th slice with its axes to the patient's right and front, however it is stored, and its pixel size in mm.

    For networks that were not trained on rotated slices.

    Raises:
        InputError: the slices of the scan are not axial.
    """
    orientation = nib.io_orientation(scan.affine)
    if orientation[2, 0] != 2:
        raise InputError(
            f"{scan.path}: its slices are not axial (axes {''.join(nib.aff2axcodes(scan.affine))}). Remedy: store it "
            "with the axial slices along the third axis, for instance as RAS."
        )
    hu, sizes_mm = scan.slice_hu(k), np.linalg.norm(scan.affine[:3, :2], axis=0)
    hu = np.flip(hu, axis=tuple(axis for axis in (0, 1) if orientation[axis, 1] < 0))
    if orientation[0, 0] == 1:
        hu, sizes_mm = hu.T, sizes_mm[::-1]
    return np.ascontiguousarray(hu), (float(sizes_mm[0]), float(sizes_mm[1]))


def spread_evenly(n_slices: int, n: int | None) -> Sequence[int]:
    """At most ``n`` of the numbers 0 ... n_slices - 1, evenly spread.

    >>> spread_evenly(9, 3), spread_evenly(2, 3)
    ([1, 4, 7], [0, 1])
    """
    if n is None or n >= n_slices:
        return list(range(n_slices))
    return [int((i + 0.5) * n_slices / n) for i in range(n)]
