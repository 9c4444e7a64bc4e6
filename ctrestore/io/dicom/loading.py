"""A series as a volume in physical units, or slice by slice without holding it in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields
from itertools import groupby
from pathlib import Path
from typing import overload

import numpy as np
import pydicom
from pydicom.config import disable_value_validation
from pydicom.dataset import Dataset
from pydicom.pixels import get_decoder, iter_pixels
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)
from scipy import ndimage

from ctrestore.ct.hounsfield import stored_to_hu
from ctrestore.errors import InputError
from ctrestore.io.dicom.geometry import Geometry, arranged
from ctrestore.io.dicom.series import Slice, find_series

AIR_HU = -1000.0  # the value where nothing was measured: no attenuation at all
UNIT_OF = {"CT": "HU", "BQML": "Bq/ml", "GML": "g/ml"}
# RescaleType of CT values that are not HU (PS3.3 C.11.1.1.2): densities, atomic numbers, ... of spectral CT.
NO_HU = {"OD", "MGML", "Z_EFF", "ED", "EDW", "PCT", "HU_MOD"}


@dataclass(frozen=True, eq=False)
class SeriesOnDisk:
    """A checked series with its pixels still in the files.

    Iterating gives one slice at a time as ``(values, padding)``, float32 and bool of shape ``(y, x)``.
    """

    slices: tuple[Slice, ...] = field(repr=False)  # sorted along the normal
    geometry: Geometry

    @property
    def affine(self) -> np.ndarray:
        """Voxel to mm, RAS, ``(4, 4)``."""
        return self.geometry.affine

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of the volume ``(x, y, z)``."""
        return self.geometry.shape

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Voxel sizes along x, y, z."""
        x, y, z = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(x), float(y), float(z)

    @property
    def series_uid(self) -> str:
        """SeriesInstanceUID."""
        return self.slices[0].series_uid

    @property
    def modality(self) -> str:
        """CT or PT."""
        return self.slices[0].modality

    @property
    def unit(self) -> str:
        """HU, Bq/ml or, if the scanner wrote SUVs, g/ml."""
        return UNIT_OF["CT" if self.modality == "CT" else self.slices[0].units]

    @property
    def fill(self) -> float:
        """The value where nothing was measured: air in CT, zero in PET."""
        return AIR_HU if self.modality == "CT" else 0.0

    @property
    def datasets(self) -> Sequence[Dataset]:
        """Whole headers in the order of the slices, each read on request."""
        return _Headers(self.slices)

    def __len__(self) -> int:
        return len(self.slices)

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for k, stored in enumerate(stored_values(self.slices)):
            yield self._values_of(k, stored)

    def slice_at(self, k: int) -> tuple[np.ndarray, np.ndarray]:
        """``(values, padding)`` of one slice, counted from 0 along the normal."""
        return self._values_of(k, next(stored_values(self.slices[k : k + 1])))

    def _values_of(self, k: int, stored: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        item = self.slices[k]
        padding = padding_of(item, stored)
        values = stored_to_hu(stored, slope=item.slope, intercept=item.intercept)  # or to Bq/ml
        values[padding] = self.fill
        return self._on_grid(values, padding, k)

    def _on_grid(self, values: np.ndarray, padding: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """A slice of a tilted gantry, moved to where the upright grid expects it."""
        if not self.geometry.resampled:
            return values, padding
        moved = np.array(self.geometry.origin_px) - k * np.array(self.geometry.shift_px)
        rows, columns = self.shape[1], self.shape[0]

        def resample(array: np.ndarray, outside: float) -> np.ndarray:
            return ndimage.affine_transform(
                array, np.eye(2), moved, output_shape=(rows, columns), order=1, mode="constant", cval=outside
            )

        return resample(values, self.fill), resample(padding.astype(np.float32), 1.0) > 0


@dataclass(frozen=True, eq=False)
class Series(SeriesOnDisk):
    """A series in memory.

    Args:
        volume: float32 ``(x, y, z)`` in :attr:`unit`; air (CT) or zero (PET) where nothing was measured.
        padding: bool ``(x, y, z)``, True where nothing was measured; None: no padding.
    """

    volume: np.ndarray = field(repr=False)
    padding: np.ndarray | None = field(repr=False)


class _Headers(Sequence[Dataset]):
    """Headers that are read from their files one by one: those of 10,000 slices would take a gigabyte."""

    def __init__(self, slices: Sequence[Slice]) -> None:
        self.slices = slices
        self.multi_frame: tuple[Path | None, Dataset] = None, Dataset()  # the last one: it serves many slices

    def __len__(self) -> int:
        return len(self.slices)

    @overload
    def __getitem__(self, index: int) -> Dataset: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Dataset]: ...
    def __getitem__(self, index: int | slice) -> Dataset | Sequence[Dataset]:
        if isinstance(index, slice):
            return _Headers(self.slices[index])
        item = self.slices[index]
        if self.multi_frame[0] != item.path:
            with disable_value_validation():  # the scanner's values are copied, not judged
                header = pydicom.dcmread(item.path, force=True, stop_before_pixels=True)
            if item.frame is None:
                return header
            self.multi_frame = item.path, header
        return self.multi_frame[1]


def open_series(
    folder: str | Path,
    series_uid: str | None = None,
    *,
    modality: str | None = None,
    untilt: bool = False,
    single_slice: bool = False,
) -> SeriesOnDisk:
    """A CT or PET series, found and checked by its headers; its pixels are read by iterating.

    Args:
        folder: with the files of the series, at any depth and under any names; or one multi-frame file.
        series_uid: SeriesInstanceUID, needed if there are several.
        modality: ``"CT"`` or ``"PT"``, if only one is acceptable.
        untilt: resample the slices of a tilted gantry (linear interpolation within each slice).
        single_slice: accept a single slice; its SliceThickness is used as the spacing.

    Raises:
        InputError: there is no such series, there are several and none was named, or it is not a stack of equal, evenly
            spaced slices of HU or Bq/ml; the message names the file and the remedy.
    """
    slices = _chosen(find_series(folder), series_uid, modality, folder)
    return series_of(slices, untilt=untilt, single_slice=single_slice)


def series_of(
    slices: Sequence[Slice], *, untilt: bool = False, single_slice: bool = False, sheared: bool = False
) -> SeriesOnDisk:
    """The checked series of slices from :func:`ctrestore.io.dicom.find_series`; like :func:`open_series`.

    Args:
        slices: of one series.
        untilt: as in :func:`open_series`.
        single_slice: as in :func:`open_series`.
        sheared: keep a tilted gantry's slices as they are, for code that looks at one slice at a time.
    """
    ordered, geometry = arranged(slices, untilt=untilt, single_slice=single_slice, sheared=sheared)
    _check_values(ordered)
    _check_decoder(ordered[0])
    return SeriesOnDisk(tuple(ordered), geometry)


def load_series(
    folder: str | Path,
    series_uid: str | None = None,
    *,
    modality: str | None = None,
    untilt: bool = False,
    single_slice: bool = False,
) -> Series:
    """A CT or PET series as a volume in HU or Bq/ml.

    Args:
        folder: as in :func:`open_series`, which reads slice by slice if the volume does not fit in memory.
        series_uid: as in :func:`open_series`.
        modality: as in :func:`open_series`.
        untilt: as in :func:`open_series`.
        single_slice: as in :func:`open_series`.

    Raises:
        InputError: as in :func:`open_series`.
    """
    on_disk = open_series(folder, series_uid, modality=modality, untilt=untilt, single_slice=single_slice)
    volume = np.empty(on_disk.shape[::-1], dtype=np.float32)  # (z, y, x): one slice after the other in memory
    padding: np.ndarray | None = None
    for k, (values, unmeasured) in enumerate(on_disk):
        volume[k] = values
        if unmeasured.any():
            padding = np.zeros(volume.shape, dtype=bool) if padding is None else padding
            padding[k] = unmeasured
    checked = {f.name: getattr(on_disk, f.name) for f in fields(on_disk)}
    return Series(**checked, volume=volume.T, padding=None if padding is None else padding.T)


def _chosen(
    found: dict[str, list[Slice]], series_uid: str | None, modality: str | None, folder: str | Path
) -> list[Slice]:
    """The slices of the requested series."""
    listed = "".join(
        f"\n  {uid}  {s[0].modality}, {len(s)} slices, {s[0].description or 'no description'} ({s[0].path.parent})"
        for uid, s in found.items()
    )
    if series_uid is not None:
        if str(series_uid) not in found:
            raise InputError(f"{folder}: no series {series_uid}. Remedy: series_uid with one of these:{listed}")
        found = {str(series_uid): found[str(series_uid)]}
    fitting = {uid: s for uid, s in found.items() if modality in (None, s[0].modality)}
    if not fitting:
        have = ", ".join(sorted({s[0].modality for s in found.values()}))
        raise InputError(f"{folder}: expected modality {modality}, found {have}. Remedy: name a {modality} series.")
    if len(fitting) > 1:
        raise InputError(
            f"{folder}: {len(fitting)} series, and none was named. Remedy: series_uid with one of these:{listed}"
        )
    return next(iter(fitting.values()))


def _check_values(slices: Sequence[Slice]) -> None:
    """Refuse pixels that are neither HU nor an activity concentration."""
    first = slices[0]
    for item in slices:
        if not item.grey:
            raise InputError(
                f"{item.name}: colour pixels. Usual cause: a screenshot. Remedy: name the original series."
            )
        if item.slope == 0 or not np.isfinite([item.slope, item.intercept]).all():
            gives = "HU" if item.modality == "CT" else "Bq/ml"
            raise InputError(
                f"{item.name}: RescaleSlope {item.slope:g}, RescaleIntercept {item.intercept:g} (nan: missing), so its "
                f"stored values give no {gives}. Usual cause: a converter. Remedy: export the original."
            )
        if item.modality == "CT" and item.rescale_type.upper() in NO_HU:
            raise InputError(
                f"{item.name}: RescaleType {item.rescale_type}, expected HU. Usual cause: a material map of spectral "
                "CT. Remedy: name the series of HU images."
            )
        if item.modality == "PT" and item.units not in UNIT_OF:
            raise InputError(
                f"{item.name}: Units {item.units or 'missing'}, expected BQML (Bq/ml). Usual cause: an uncalibrated "
                "reconstruction. Remedy: export the calibrated series."
            )
        if item.units != first.units:
            raise InputError(f"{item.name}: Units {item.units}, other slices have {first.units}.")
    promised = first.n_slices
    if first.modality == "PT" and first.frame is None and promised and len(slices) < promised:
        raise InputError(
            f"{first.path.parent}: {promised - len(slices)} of {promised} slices are missing (NumberOfSlices). Usual "
            "cause: an incomplete copy. Remedy: copy the series again."
        )


def _check_decoder(item: Slice) -> None:
    """Refuse a compression without an installed decoder."""
    syntax = UID(item.syntax)
    if not item.syntax or not syntax.is_compressed:
        return
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError as error:
        raise InputError(f"{item.path}: {syntax.name}: no decoder of single images exists for it.") from error
    if not decoder.is_available:
        raise InputError(
            f"{item.path}: compressed as {syntax.name}, and no decoder for it is installed. Remedy: pip install "
            '"ctrestore[dicom]", or decompress the files (gdcmconv --raw, dcmdjpeg).'
        )


def stored_values(slices: Sequence[Slice]) -> Iterator[np.ndarray]:
    """The stored pixels of each slice, ``(y, x)``, decoded one by one.

    Raises:
        InputError: a file's pixels are damaged or of another size than its header says.
    """
    for path, group in groupby(slices, key=lambda item: item.path):
        items = list(group)
        frames = [item.frame for item in items if item.frame is not None] or None
        try:
            with disable_value_validation():
                pixels = iter_pixels(_pixel_source(items[0]), indices=frames, raw=True)
                for item, stored in zip(items, pixels, strict=True):
                    if stored.shape != item.shape:
                        raise InputError(f"pixels of shape {stored.shape}, the header says {item.shape}")
                    yield stored
        except Exception as error:  # each decoder has its own exceptions
            reason = " ".join(str(error).split())
            raise InputError(
                f"{path}: its pixels cannot be decoded ({type(error).__name__}: {reason}). Usual cause: a truncated or "
                "damaged copy. Remedy: copy or export it again."
            ) from error


def _pixel_source(item: Slice) -> Path | Dataset:
    """A multi-frame file by its path, from which pydicom reads frame by frame; for any other file the dataset."""
    if item.frame is not None and item.syntax != DeflatedExplicitVRLittleEndian:
        return item.path
    dataset = pydicom.dcmread(item.path, force=True)
    if not item.syntax:  # no file meta information: an old export, in DICOM's default encoding
        implicit, little = dataset.original_encoding
        dataset.file_meta.TransferSyntaxUID = (
            ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian if little else ExplicitVRBigEndian
        )
    return dataset


def padding_of(item: Slice, stored: np.ndarray) -> np.ndarray:
    """The mask of padding: the header's declared values, and a corner's value if below any HU.

    Round fields of view are often filled with -2048 or -3024 HU without a declaration in the header, or with another
    value than the declared one.
    """
    padding = np.zeros(stored.shape, dtype=bool)
    if item.padding is not None:
        padding |= (stored >= item.padding[0]) & (stored <= item.padding[1])
    corner = stored[0, 0]
    if item.modality == "CT" and stored_to_hu(corner, slope=item.slope, intercept=item.intercept) < -1024:
        padding |= stored == corner
    return padding
