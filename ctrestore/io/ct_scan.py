"""Axial CT slices of NIfTI files, DICOM series and pictures, one at a time, in HU.

A slice is ``(x, y)`` here, the order of axes in nibabel and MONAI. If a training uses a few slices of a volume,
DICOM volumes are never read completely, and NIfTI volumes are kept as stored.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.affines import voxel_sizes
from PIL import Image, UnidentifiedImageError

from ctrestore.ct import check_has_air, check_hu, stored_to_hu
from ctrestore.errors import InputError
from ctrestore.io import marks
from ctrestore.io.dicom import SeriesOnDisk, open_series
from ctrestore.io.dicom.loading import AIR_HU

NIFTI = (".nii", ".nii.gz")
PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
LOWEST_MEASURED_HU = -1024.0
Range = tuple[float, float]


class Scan(ABC):
    """A CT scan whose slices are read when they are asked for.

    Attributes:
        path: of the file or folder.
        shape: ``(x, y, slices)``.
        affine: voxel to mm, RAS.
    """

    def __init__(self, path: Path, shape: tuple[int, int, int], affine: np.ndarray) -> None:
        self.path, self.shape, self.affine = path, shape, affine

    @abstractmethod
    def slice_hu(self, k: int) -> np.ndarray:
        """The k-th slice ``(x, y)``, float32 in HU."""

    def padding_at(self, k: int) -> np.ndarray:
        """The mask ``(x, y)`` of where the k-th slice is known to hold no measurement."""
        return np.zeros(self.shape[:2], dtype=bool)

    @property
    def restored_by(self) -> str:
        """What restored the scan before, by our own marks; empty: nothing did."""
        return ""

    def release(self) -> None:  # noqa: B027  (most have nothing to forget)
        """Forget the voxels."""


class NiftiScan(Scan):
    """A NIfTI file of one slice or a volume as it is stored, its third axis being that of the slices."""

    def __init__(self, path: Path, affine: np.ndarray, stored: np.ndarray, *, slope: float, intercept: float) -> None:
        x, y, n = stored.shape
        super().__init__(path, (x, y, n), affine)
        self.stored, self.slope, self.intercept = stored, slope, intercept

    def slice_hu(self, k: int) -> np.ndarray:
        plane = self.stored[:, :, k]
        return np.asarray(plane * np.float32(self.slope) + np.float32(self.intercept), dtype=np.float32)


class NiftiAsShown(Scan):
    """A NIfTI whose slices are those that DICOM would show: so turned, and air where nothing was measured.

    x runs to the patient's left (or back), y to the back (or the feet), so that a network sees the same picture
    whichever way a file stores its axes. The header is read at once, the voxels when the first slice is asked for.

    Raises:
        InputError: it is no volume and no slice.
    """

    def __init__(self, path: Path) -> None:
        image: Any = nib.load(path)
        self.header, self.file_affine, self.file_shape = image.header, np.asarray(image.affine), image.shape
        self.slope, self.intercept = float(image.dataobj.slope), float(image.dataobj.inter)
        self.volume_shape = _volume_shape(path, image.shape)
        self.turns = axes_as_shown(self.file_affine)
        x, y, n = self.as_shown(np.broadcast_to(np.int8(0), self.volume_shape)).shape
        to_file = nib.orientations.inv_ornt_aff(self.turns, self.volume_shape)
        super().__init__(path, (x, y, n), self.file_affine @ to_file)

    def as_shown(self, volume: np.ndarray) -> np.ndarray:
        """A view of an array as the file stores it, with its slices as DICOM shows them."""
        return nib.apply_orientation(volume, self.turns)

    @cached_property
    def stored(self) -> np.ndarray:
        """The values of the file; those of an uncompressed one are read from the disk as they are needed."""
        stored = _nifti(self.path, self.path.stat().st_mtime_ns).stored
        limits = np.array([stored.min(), stored.max()])
        check_has_air(stored_to_hu(limits, slope=self.slope, intercept=self.intercept))
        return self.as_shown(stored)

    def slice_hu(self, k: int) -> np.ndarray:
        return self.hu_of(self.stored[..., k])[0]

    def padding_at(self, k: int) -> np.ndarray:
        return self.hu_of(self.stored[..., k])[1]

    def hu_of(self, stored: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """HU and padding of stored values; padding is what lies in a corner below any HU, as in DICOM."""
        hu = stored_to_hu(stored, slope=self.slope, intercept=self.intercept)
        padding = hu == hu[0, 0] if hu[0, 0] < LOWEST_MEASURED_HU else np.zeros(hu.shape, dtype=bool)
        return np.where(padding, np.float32(AIR_HU), hu), padding

    @property
    def restored_by(self) -> str:
        return marks.restored_by_nifti(self.header)

    def release(self) -> None:
        self.__dict__.pop("stored", None)
        forget()


class DicomScan(Scan):
    """A CT series in DICOM, in the planes it was acquired or reformatted in; where nothing was measured, air."""

    def __init__(self, path: Path, series: SeriesOnDisk) -> None:
        super().__init__(path, series.shape, series.affine)
        self.series = series

    def slice_hu(self, k: int) -> np.ndarray:
        return self.series.slice_at(k)[0].T

    def padding_at(self, k: int) -> np.ndarray:
        return self.series.slice_at(k)[1].T

    @property
    def restored_by(self) -> str:
        return marks.restored_by_series(self.series.datasets[0])


class PictureScan(Scan):
    """A grey picture of one slice, of which somebody knows what its darkest and brightest value mean in HU."""

    def __init__(self, path: Path, hu: np.ndarray, *, white: float, range_hu: Range) -> None:
        x, y = hu.shape
        super().__init__(path, (x, y, 1), np.diag([-1.0, -1.0, 1.0, 1.0]))
        self.hu, self.white, self.range_hu = hu, white, range_hu  # white: the grey value, 255 or 65535

    def slice_hu(self, k: int) -> np.ndarray:
        return self.hu


def slice_axis(affine: np.ndarray) -> int:
    """The axis of an array that its slices follow each other along.

    Slices are the planes of square pixels, in which a scanner or a reformat made them; where the voxels are cubes, or
    nothing is square, the axial ones.

    >>> slice_axis(np.diag([0.7, 0.7, 5.0, 1.0])), slice_axis(np.diag([0.7, 3.0, 0.7, 1.0]))
    (2, 1)
    """
    sizes = voxel_sizes(affine)
    square = [axis for axis in range(3) if np.ptp(np.delete(sizes, axis)) <= 0.01 * max(sizes)]
    axial = int(np.flatnonzero(nib.io_orientation(affine)[:, 0] == 2)[0])
    return square[0] if len(square) == 1 else axial


def axes_as_shown(affine: np.ndarray) -> np.ndarray:
    """Axes of an array ``(x, y, slice)`` that shows its slices as DICOM does, as nibabel's orientation to get there.

    Row i: the axis that array axis i becomes, and 1 or -1 for its direction.
    """
    orientation, along = nib.io_orientation(affine), slice_axis(affine)
    x, y = sorted(np.delete(np.arange(3), along), key=lambda axis: orientation[axis, 0])
    to_get_there = np.ones((3, 2))
    for new, old in enumerate((int(x), int(y), along)):
        # to the left, the back and the feet: against RAS
        to_get_there[old] = new, -orientation[old, 1] if new < 2 else 1
    return to_get_there


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
    stored = stored.reshape(_volume_shape(path, stored.shape))
    middle = stored[:, :, stored.shape[2] // 2]
    try:
        check_hu(np.asarray(middle * np.float32(slope) + np.float32(intercept), dtype=np.float32))
    except ValueError as error:
        raise InputError(f"{path}: {error}") from error
    return NiftiScan(path, np.asarray(image.affine, dtype=float), stored, slope=slope, intercept=intercept)


def _volume_shape(path: Path, shape: Sequence[int]) -> tuple[int, int, int]:
    """``(x, y, z)`` of a file's array, which may be one slice or have further axes of length 1.

    Raises:
        InputError: it is no volume and no slice.
    """
    sides = [*shape, 1] if len(shape) == 2 else list(shape)
    while len(sides) > 3 and sides[-1] == 1:
        sides.pop()
    if len(sides) != 3:
        raise InputError(
            f"{path}: expected a volume (x, y, z) or a slice (x, y), found shape {tuple(shape)}. Usual cause: a scan "
            "with several time points. Remedy: split it, one file a volume."
        )
    x, y, z = (int(side) for side in sides)
    return x, y, z


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
    return PictureScan(path, hu, white=white, range_hu=range_hu)


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
