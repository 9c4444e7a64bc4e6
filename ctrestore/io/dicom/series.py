"""The slices in a folder: one small record per slice, by series, only from the headers."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydicom
from pydicom.config import disable_value_validation
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.uid import (
    UID,
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    EnhancedCTImageStorage,
    EnhancedPETImageStorage,
    LegacyConvertedEnhancedCTImageStorage,
    LegacyConvertedEnhancedPETImageStorage,
    MediaStorageDirectoryStorage,
    PositronEmissionTomographyImageStorage,
)

from ctrestore.errors import InputError

MODALITY_OF = {
    CTImageStorage: "CT",
    EnhancedCTImageStorage: "CT",
    LegacyConvertedEnhancedCTImageStorage: "CT",
    PositronEmissionTomographyImageStorage: "PT",
    EnhancedPETImageStorage: "PT",
    LegacyConvertedEnhancedPETImageStorage: "PT",
}
SINGLE_FRAME = (CTImageStorage, PositronEmissionTomographyImageStorage)
DICOM_ENDINGS = {".dcm", ".ima"}
# These are all the tags that are read; there are few, so the headers of 10,000 slices fit in some megabytes.
TAGS = [
    "SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "SeriesDescription", "SeriesNumber", "Modality", "ImageType",
    "Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "PhotometricInterpretation", "BitsAllocated", "BitsStored",
    "PixelRepresentation", "PixelSpacing", "ImageOrientationPatient", "ImagePositionPatient", "SliceThickness",
    "RescaleSlope", "RescaleIntercept", "RescaleType", "Units", "PixelPaddingValue", "PixelPaddingRangeLimit",
    "NumberOfSlices", "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Slice:
    """The header's information on one slice. None: not in the header."""

    path: Path
    frame: int | None  # of a multi-frame file, from 0; None: the file is one slice
    series_uid: str
    instance_uid: str
    sop_class: str
    syntax: str
    modality: str
    description: str
    number: int | None
    image_type: tuple[str, ...]
    shape: tuple[int, int]  # rows, columns
    grey: bool
    bits: tuple[int, int]  # allocated, stored
    signed: bool
    spacing_mm: tuple[float, float] | None  # between rows, between columns
    orientation: tuple[float, ...] | None  # unit vectors along a row and along a column, in patient coordinates LPS
    position_mm: tuple[float, ...] | None  # centre of the first pixel, LPS
    thickness_mm: float | None
    slope: float  # NaN: not in the header
    intercept: float
    rescale_type: str
    units: str
    padding: tuple[int, int] | None  # lowest and highest stored value that means "nothing was measured here"
    n_slices: int | None  # number promised in PET headers

    @property
    def name(self) -> str:
        """File, and frame of a multi-frame file, counted from 1 as in DICOM."""
        return str(self.path) if self.frame is None else f"{self.path}, frame {self.frame + 1}"


def find_series(folder: str | Path) -> dict[str, list[Slice]]:
    """Slices of every CT and PET series under a folder (or in one file), by SeriesInstanceUID; localizers left out.

    Files that are not DICOM, and objects without slices (structures, reports, screenshots), are ignored.

    Raises:
        InputError: there is no such folder, a damaged file, or nothing that is a slice.
    """
    series, others = look_through(Path(folder))
    if not series:
        seen = ", ".join(f"{n} x {what}" for what, n in others.items())
        raise InputError(
            f"{folder}: no slices of CT or PET; found {seen or 'no DICOM file at all'}. Usual cause: another folder of "
            "the study. Remedy: name the folder of the CT or PET series."
        )
    return series


def look_through(folder: Path, damaged: dict[Path, str] | None = None) -> tuple[dict[str, list[Slice]], Counter[str]]:
    """Slices by series, and the counts of other DICOM objects.

    Args:
        folder: of the files, or one file.
        damaged: collects the damaged files and their faults; None: the first one raises ValueError.
    """
    if not folder.exists():
        raise InputError(f"{folder} does not exist. Expected a folder of DICOM files, or one multi-frame file.")
    files = [folder] if folder.is_file() else sorted(p for p in folder.rglob("*") if p.is_file())
    series: dict[str, list[Slice]] = defaultdict(list)
    others: Counter[str] = Counter()
    for path in files:
        with disable_value_validation():  # needed values are checked later, the others do not matter here
            try:
                header = None if path.name.startswith(".") else _header(path)
                if header is None or header.SOPClassUID == MediaStorageDirectoryStorage:
                    continue
                if header.SOPClassUID not in MODALITY_OF:
                    others[f"{header.get('Modality', 'unknown modality')} ({UID(header.SOPClassUID).name})"] += 1
                    continue
                slices = slices_of(path, header)
            except ValueError as error:
                if damaged is None:
                    raise
                damaged[path] = str(error)
                continue
        for item in slices:
            if "LOCALIZER" in item.image_type:
                others[f"{item.modality} (localizer)"] += 1
            else:
                series[item.series_uid].append(item)
    return dict(series), others


def _header(path: Path) -> Dataset | None:
    """The tags above of a DICOM file; None for another file."""
    with path.open("rb") as file:
        start = file.read(132)
    marked = start[128:] == b"DICM"
    if not marked and start[:1] not in (b"\x02", b"\x08"):  # without a preamble it starts at group 2 or 8
        if path.suffix.lower() in DICOM_ENDINGS:
            raise InputError(_damaged(path, "it does not start like DICOM"))
        return None
    try:
        with path.open("rb") as file:
            header = pydicom.dcmread(file, force=not marked, stop_before_pixels=True, specific_tags=TAGS)
            n_left = path.stat().st_size - file.tell()  # pydicom stops in front of the pixels
        n_bytes = _native_bytes(header)
    # pydicom raises any of these on bytes that are truncated or not DICOM; a file that claims to be DICOM is named.
    except (InvalidDicomError, EOFError, ValueError, KeyError, NotImplementedError, AttributeError, OSError) as error:
        if not marked and path.suffix.lower() not in DICOM_ENDINGS:
            return None
        raise InputError(_damaged(path, f"{type(error).__name__}: {error}")) from error
    if "SOPClassUID" not in header:
        meta = header.file_meta.get("MediaStorageSOPClassUID", "") if hasattr(header, "file_meta") else ""
        if meta == MediaStorageDirectoryStorage or not (marked or path.suffix.lower() in DICOM_ENDINGS):
            return None
        raise InputError(_damaged(path, "its header ends before the SOP class"))
    if header.SOPClassUID in MODALITY_OF:
        missing = [tag for tag in ("SeriesInstanceUID", "SOPInstanceUID", "Rows", "Columns") if not header.get(tag)]
        if missing:
            raise InputError(_damaged(path, f"its header ends before {missing[0]}"))
        if n_left < n_bytes:
            raise InputError(_damaged(path, f"{n_left} bytes of pixels, the header promises {n_bytes}"))
    return header


def _damaged(path: Path, what: str) -> str:
    return f"{path}: truncated or damaged ({what}). Usual cause: an interrupted copy. Remedy: copy or export it again."


def _native_bytes(header: Dataset) -> int:
    """The number of bytes of the pixels in the file; 0 if only decoding can tell."""
    syntax = header.file_meta.get("TransferSyntaxUID") if hasattr(header, "file_meta") else None
    if syntax is not None and (syntax.is_compressed or syntax == DeflatedExplicitVRLittleEndian):
        return 0
    pixels = int(header.get("Rows") or 0) * int(header.get("Columns") or 0) * int(header.get("NumberOfFrames") or 1)
    return pixels * int(header.get("BitsAllocated") or 0) // 8


def slices_of(path: Path, header: Dataset) -> list[Slice]:
    """One record per frame.

    Raises:
        InputError: a needed value is not a number, or the frames do not each have a geometry.
    """
    try:
        if header.SOPClassUID in SINGLE_FRAME:
            return [_slice(path, None, header, [header])]
        n_frames = int(header.get("NumberOfFrames") or 1)
        if len(header.get("PerFrameFunctionalGroupsSequence") or []) != n_frames:
            raise InputError(f"{n_frames} frames, but another number of items in PerFrameFunctionalGroupsSequence")
        return [_slice(path, frame, header, functional_groups(header, frame)) for frame in range(n_frames)]
    except (ValueError, TypeError, AttributeError, ArithmeticError) as error:
        raise InputError(
            f"{path}: its header makes no sense ({error}). Usual cause: a converter or an anonymiser. Remedy: "
            "export the original."
        ) from error


def functional_groups(header: Dataset, frame: int) -> list[Dataset]:
    """The places of one frame's attributes: its own macros, the shared ones, the dataset itself."""
    groups = [header.PerFrameFunctionalGroupsSequence[frame], *(header.get("SharedFunctionalGroupsSequence") or [])]
    macros = [element.value[0] for group in groups for element in group if element.VR == "SQ" and element.value]
    return [*macros, header]


def _slice(path: Path, frame: int | None, header: Dataset, places: Sequence[Dataset]) -> Slice:
    def first(*tags: str) -> Any:
        values = (place.get(tag) for tag in tags for place in places)
        return next((value for value in values if value not in (None, "")), None)

    def number(tag: str) -> float | None:
        value = first(tag)
        return None if value is None else float(value)

    def numbers(tag: str) -> tuple[float, ...] | None:
        value = first(tag)
        return None if value is None else tuple(float(part) for part in value)

    def whole(tag: str) -> int | None:
        value = first(tag)
        return None if value is None else int(value)

    signed = int(header.get("PixelRepresentation") or 0) == 1
    bits = int(header.get("BitsAllocated") or 16), int(header.get("BitsStored") or 16)
    low, high = whole("PixelPaddingValue"), whole("PixelPaddingRangeLimit")
    padding = None
    if low is not None:
        # -2000 is often written as its unsigned twin 63536
        ends = [v - 2**16 if signed and v >= 2**15 else v for v in (low, low if high is None else high)]
        padding = min(ends), max(ends)
    spacing = numbers("PixelSpacing")
    syntax = header.file_meta.get("TransferSyntaxUID", "") if hasattr(header, "file_meta") else ""
    image_type = first("FrameType", "ImageType") or ()
    return Slice(
        path=path,
        frame=frame,
        series_uid=str(header.SeriesInstanceUID),
        instance_uid=str(header.SOPInstanceUID),
        sop_class=str(header.SOPClassUID),
        syntax=str(syntax),
        modality=MODALITY_OF[header.SOPClassUID],
        description=str(header.get("SeriesDescription", "")),
        number=whole("SeriesNumber"),
        image_type=(image_type,) if isinstance(image_type, str) else tuple(str(part) for part in image_type),
        shape=(int(header.Rows), int(header.Columns)),
        grey=int(header.get("SamplesPerPixel") or 1) == 1
        and str(header.get("PhotometricInterpretation", "MONOCHROME2")).startswith("MONOCHROME"),
        bits=bits,
        signed=signed,
        spacing_mm=None if spacing is None or len(spacing) != 2 else (spacing[0], spacing[1]),
        orientation=numbers("ImageOrientationPatient"),
        position_mm=numbers("ImagePositionPatient"),
        thickness_mm=number("SliceThickness"),
        slope=math.nan if (slope := number("RescaleSlope")) is None else slope,
        intercept=math.nan if (intercept := number("RescaleIntercept")) is None else intercept,
        rescale_type=str(first("RescaleType") or ""),
        units=str(first("Units") or ""),
        padding=padding,
        n_slices=whole("NumberOfSlices"),
    )
