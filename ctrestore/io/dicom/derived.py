"""A derived CT series: new pixels in HU with the headers of the source series."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.config import disable_value_validation
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRBigEndian, ExplicitVRLittleEndian, generate_uid

from ctrestore.ct.hounsfield import hu_to_stored
from ctrestore.ct.resolution import finer_affine, pixels_as_blocks
from ctrestore.errors import InputError
from ctrestore.io import marks
from ctrestore.io.dicom.geometry import LPS_TO_RAS
from ctrestore.io.dicom.loading import SeriesOnDisk, padding_of, stored_values
from ctrestore.io.dicom.series import SINGLE_FRAME, Slice, functional_groups
from ctrestore.io.whole import draft_folder, writable_folder

# Elements about the old pixels, or about the old file.
OUTDATED = [
    "PixelData", "SmallestImagePixelValue", "LargestImagePixelValue", "SmallestPixelValueInSeries",
    "LargestPixelValueInSeries", "IconImageSequence", "DigitalSignaturesSequence", "MACParametersSequence",
    "DerivationCodeSequence", "SourceImageSequence", "SourceInstanceSequence", "DataSetTrailingPadding",
    "EncryptedAttributesSequence", "PixelDataProviderURL", "ExtendedOffsetTable", "ExtendedOffsetTableLengths",
    "RescaleType",
]  # fmt: skip
# Elements of multi-frame files only, and those of their macros that a single image also has.
OF_FRAMES = [
    "NumberOfFrames", "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence", "FrameType",
    "DimensionOrganizationSequence", "DimensionIndexSequence", "DimensionOrganizationType", "PixelPresentation",
    "VolumetricProperties", "VolumeBasedCalculationTechnique", "RepresentativeFrameNumber", "FrameIncrementPointer",
    "ConcatenationUID", "ConcatenationFrameOffsetNumber", "InConcatenationNumber", "InConcatenationTotalNumber",
    "SOPInstanceUIDOfConcatenationSource", "PresentationLUTShape", "ContentQualification", "MultienergyCTAcquisition",
]  # fmt: skip
OF_MACROS = [
    "PixelSpacing", "SliceThickness", "SpacingBetweenSlices", "ImagePositionPatient", "ImageOrientationPatient",
    "RescaleSlope", "RescaleIntercept", "WindowCenter", "WindowWidth", "KVP", "ConvolutionKernel",
    "ReconstructionDiameter", "XRayTubeCurrent", "ExposureTime", "Exposure", "GantryDetectorTilt",
]  # fmt: skip
REQUIRED_EMPTY = [  # type 2 of CT Image Storage: present, perhaps without a value (PS3.3 A.3)
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "ReferringPhysicianName",
    "StudyID", "AccessionNumber", "Manufacturer", "PositionReferenceIndicator", "SliceThickness", "KVP",
    "AcquisitionNumber", "PatientPosition",
]  # fmt: skip


@dataclass(frozen=True)
class Written:
    """The result of writing.

    Args:
        paths: the files, in the order of the slices.
        n_clipped: values that did not fit into the source's stored type and became the nearest value that does.
        series_uid: of the new series.
    """

    paths: tuple[Path, ...]
    n_clipped: int
    series_uid: str


def write_derived_series(
    volume: np.ndarray | Iterable[np.ndarray],
    source: SeriesOnDisk,
    folder: str | Path,
    *,
    description: str,
    model: str,
    version: str,
    weights_sha256: str | None = None,
    affine: np.ndarray | None = None,
    series_number: int | None = None,
    now: datetime | None = None,
) -> Written:
    """Write HU as a new CT series of the same study, one file per slice, atomically.

    Values are rounded to the source's rescale slope and intercept. The source's padding is copied,
    so an unchanged volume is written bit by bit as it was.

    Args:
        volume: ``(x, y, z)`` in HU, or its slices ``(y, x)`` one after the other in the source's order.
        source: the series that the volume was made from; its files must still be there.
        folder: new or empty.
        description: what was done, for example ``"denoised"``; it ends the SeriesDescription.
        model: name of the method, for example ``"ldct_denoising"``.
        version: of the model.
        weights_sha256: of its weights.
        affine: RAS, of the volume, if its grid in the plane differs from the source's; the number of slices is the
            same.
        series_number: by default the source's + 1000.
        now: date and time of the new objects; by default the clock's.

    Returns:
        The files, and how many values were clipped.

    Raises:
        InputError: the volume does not fit the source, holds NaN, or the folder is not empty.
    """
    if hasattr(volume, "__array__"):  # also a tensor
        volume = np.asarray(volume)
    derived = DerivedSeries(
        source, folder, description=description, model=model, version=version, weights_sha256=weights_sha256,
        affine=affine, series_number=series_number, now=now,
    )  # fmt: skip
    if isinstance(volume, np.ndarray) and affine is None and volume.shape != source.shape:
        raise InputError(
            f"expected a volume of shape {source.shape} (x, y, z), got {volume.shape}. Usual cause: swapped axes, or a "
            "network that pads. Remedy: resample it to the source's grid, or give its affine."
        )
    with derived:
        for values in _slices_of(volume):
            derived.add(values)
    return derived.written


class DerivedSeries:
    """Writes a derived CT series: slices are added one by one, and all files appear together at the end, or none.

    Use it as a context manager; the arguments are those of :func:`write_derived_series`, which is simpler if the slices
    can be iterated over. Instead of an affine it accepts ``finer``: the numbers of pixels along rows and columns that
    replace one, and ``through_plane``, the number of slices that replace one, within the same outline; the source's
    padding is padding in all of them. The thickness of slices stays: interpolated slices are not thinner.

    Raises:
        InputError: the source is not a CT series, or the folder is not empty.
    """

    def __init__(
        self,
        source: SeriesOnDisk,
        folder: str | Path,
        *,
        description: str,
        model: str,
        version: str,
        weights_sha256: str | None = None,
        affine: np.ndarray | None = None,
        finer: int = 1,
        through_plane: int = 1,
        series_number: int | None = None,
        now: datetime | None = None,
    ) -> None:
        if (affine is not None or source.geometry.resampled) and (finer, through_plane) != (1, 1):
            raise InputError("expected factors finer of the source's own grid, got another grid. Remedy: one of both.")
        if source.modality != "CT":
            raise InputError(
                f"expected a CT series to derive from, got {source.modality}. Remedy: write PET as NIfTI "
                "(ctrestore.io.nifti.write_nifti), which keeps float32."
            )
        self.source, self.folder = source, Path(folder)
        if self.folder.exists() and (not self.folder.is_dir() or any(self.folder.iterdir())):
            raise InputError(
                f"{self.folder}: expected a new or empty folder, so that no two series mix. Remedy: another one."
            )
        self.new = _New(
            series_uid=generate_uid(prefix=None),
            number=(source.slices[0].number or 0) + 1000 if series_number is None else series_number,
            contribution=marks.Contribution(description, model, version, weights_sha256),
            now=now or datetime.now(),
        )
        self.finer, self.through_plane = finer, through_plane
        self.n_slices = through_plane * len(source)
        self.aligned = affine is None and not source.geometry.resampled
        self.grid = finer_affine(source.affine, factors=(finer, finer)) if affine is None else np.asarray(affine, float)
        self.shape = (finer * source.shape[1], finer * source.shape[0]) if affine is None else None
        self.draft = draft_folder(self.folder)
        self.names: list[str] = []
        self.n_clipped = 0
        self.headers, self.stored = source.datasets, stored_values(source.slices)

    @property
    def written(self) -> Written:
        """The result, after everything is written."""
        return Written(tuple(self.folder / name for name in self.names), self.n_clipped, self.new.series_uid)

    def __enter__(self) -> DerivedSeries:
        writable_folder(self.folder.parent)
        self.draft.mkdir()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        try:
            if kind is not None:
                return
            if len(self.names) < self.n_slices:
                raise InputError(
                    f"expected {self.n_slices} slices, got {len(self.names)}. Remedy: as many as the source has."
                )
            if self.folder.exists():
                self.folder.rmdir()  # it is empty; Windows does not rename onto a folder
            self.draft.rename(self.folder)
        finally:
            shutil.rmtree(self.draft, ignore_errors=True)

    def add(self, values: np.ndarray) -> np.ndarray:
        """Write the next slice, ``(y, x)`` in HU, and return the mask of its padding, which is copied from the source.

        Raises:
            InputError: there are too many slices, or this one does not fit the source or holds NaN.
        """
        n = len(self.names)
        if n == self.n_slices:
            raise InputError(f"expected {self.n_slices} slices, got more. Remedy: as many as the source has.")
        k, part = divmod(n, self.through_plane)
        values = np.ascontiguousarray(values)  # a transposed slice takes twice as long with the source's pixels
        self.shape = self.shape or values.shape
        if values.ndim != 2 or values.shape != self.shape:
            raise InputError(
                f"slice {n}: expected shape {self.shape} (y, x), got {values.shape}. Usual cause: swapped axes."
            )
        if not np.isfinite(values).all():
            raise InputError(f"slice {n}: NaN or infinity among its values. Usual cause: a network that diverged.")
        if part == 0:
            self.source_pixels = next(self.stored)
        item, stored = self.source.slices[k], self.source_pixels
        original, padding = None, np.zeros(values.shape, dtype=bool)
        if self.aligned:
            factors = (self.finer, self.finer)
            original = pixels_as_blocks(stored, factors=factors)
            padding = pixels_as_blocks(padding_of(item, stored), factors=factors)
        pixels, clipped = to_stored(values, item, padding, original)
        self.n_clipped += clipped
        name = f"{n + 1:05d}.dcm"
        with disable_value_validation():  # the scanner's values are copied, not judged
            place: dict[str, Any] = {}
            if not self.aligned:
                place = _placed(self.grid, k)
            elif self.finer > 1:
                place = _finer_place(item, self.finer)
            if self.through_plane > 1:
                place = self._between(item, place, n)
            dataset = _derived(self.headers[k], item, pixels, self.new, place, k)
            dataset.save_as(self.draft / name, enforce_file_format=True)
        self.names.append(name)
        return padding

    def _between(self, item: Slice, place: dict[str, Any], n: int) -> dict[str, Any]:
        """The position of the n-th slice if slices are closer together than the source's."""
        position = np.array(place.get("ImagePositionPatient", item.position_mm), dtype=float)
        step = (LPS_TO_RAS @ self.source.affine)[:3, 2]
        within = (n % self.through_plane + 0.5) / self.through_plane - 0.5
        return {
            **place,
            "ImagePositionPatient": [round(float(v), 6) for v in position + within * step],
            "SpacingBetweenSlices": round(float(np.linalg.norm(step)) / self.through_plane, 9),
            "SliceLocation": None,
            "InstanceNumber": n + 1,
        }


@dataclass(frozen=True)
class _New:
    """The elements that are the same in all files of the new series."""

    series_uid: str
    number: int
    contribution: marks.Contribution
    now: datetime


def _slices_of(volume: np.ndarray | Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Slices ``(y, x)`` of a volume ``(x, y, z)``, or of an iterable of slices."""
    if isinstance(volume, np.ndarray):
        if volume.ndim != 3:
            raise InputError(f"expected a volume of shape (x, y, z), got {volume.shape}.")
        return (volume[..., k].T for k in range(volume.shape[2]))
    return iter(volume)


def to_stored(
    values: np.ndarray, item: Slice, padding: np.ndarray, original: np.ndarray | None
) -> tuple[np.ndarray, int]:
    """Pixels of the source's type, and the number of values that did not fit.

    A measured value must not round to one that means padding: it becomes the nearest other one.
    """
    allocated, bits = item.bits
    dtype = np.dtype(f"{'i' if item.signed else 'u'}{allocated // 8}")
    wanted = np.where(padding, 0.0, values) if padding.any() else values
    pixels, n_clipped = hu_to_stored(wanted, slope=item.slope, intercept=item.intercept, dtype=dtype, bits_stored=bits)
    if item.padding is not None:
        first, last = item.padding
        means_padding = (pixels >= first) & (pixels <= last) & ~padding
        # Values that were clipped to a padding value are counted already.
        exact = (wanted[means_padding] - item.intercept) / item.slope
        n_clipped += int((np.abs(exact - pixels[means_padding]) <= 0.5).sum())
        pixels[means_padding] = last + 1 if last < 2 ** (bits - item.signed) - 1 else first - 1
    if original is not None:
        pixels[padding] = original[padding]
    return pixels, n_clipped


def _derived(header: Dataset, item: Slice, pixels: np.ndarray, new: _New, place: dict[str, Any], k: int) -> Dataset:
    """The new object of one slice; ``place`` is its position if it differs from the source's."""
    if item.sop_class not in SINGLE_FRAME:
        header = _single_frame(header, item)
    elif item.syntax == ExplicitVRBigEndian:  # pydicom writes undecoded elements in their original byte order
        header = _copied(header)
    _remove_private_tags(header)  # vendors describe the old pixels there
    for keyword in OUTDATED:
        header.pop(keyword, None)
    for tag in [tag for tag in header.keys() if 0x6000 <= tag.group <= 0x60FF]:  # noqa: SIM118  (elements are decoded)
        del header[tag]  # overlays
    for keyword in REQUIRED_EMPTY:
        if keyword not in header:
            setattr(header, keyword, None)

    if "BodyPartExamined" not in header and "Laterality" not in header:
        header.Laterality = None  # type 2C: for an unknown body part nobody knows whether it is one of a pair

    date, time = f"{new.now:%Y%m%d}", f"{new.now:%H%M%S}"
    before, done = str(header.get("SeriesDescription") or ""), marks.dicom_text(new.contribution.description)
    changes: dict[str, Any] = {
        "SOPClassUID": CTImageStorage,
        "SOPInstanceUID": generate_uid(prefix=None),
        "SeriesInstanceUID": new.series_uid,
        "SeriesNumber": new.number,
        "SeriesDescription": f"{before[: max(0, 63 - len(done))]} {done}".strip()[:64],
        "ImageType": marks.derived_image_type(item.image_type),
        "InstanceNumber": header.get("InstanceNumber") or k + 1,
        **{f"{what}Date": date for what in ("Series", "Content", "InstanceCreation")},
        **{f"{what}Time": time for what in ("Series", "Content", "InstanceCreation")},
        "DerivationDescription": new.contribution.in_dicom,
        "SourceImageSequence": [_reference(item, same_place=not place)],
        "ContributingEquipmentSequence": [*(header.get("ContributingEquipmentSequence") or []), _equipment(new)],
        "RescaleSlope": header.get("RescaleSlope", item.slope),
        "RescaleIntercept": header.get("RescaleIntercept", item.intercept),
        "RescaleType": "HU",
        "BurnedInAnnotation": header.get("BurnedInAnnotation") or "NO",
        "Rows": pixels.shape[0],
        "Columns": pixels.shape[1],
        "BitsAllocated": item.bits[0],
        "BitsStored": item.bits[1],
        "HighBit": item.bits[1] - 1,
        "PixelRepresentation": int(item.signed),
        "SamplesPerPixel": 1,
    }
    for keyword, value in (changes | place).items():
        setattr(header, keyword, value)
    _rewrite_padding(header, item)
    header.PixelData = pixels.astype(pixels.dtype.newbyteorder("<")).tobytes()
    header["PixelData"].VR = "OW" if item.bits[0] > 8 else "OB"

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = header.SOPClassUID, header.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    header.file_meta = meta
    return header


def _remove_private_tags(header: Dataset) -> None:
    """Like pydicom's method, which decodes every element and so takes half of the time per file.

    Undecoded elements are written as they were, byte by byte.
    """
    if header.original_encoding != (False, True):  # differs from the output: explicit, little endian
        header.remove_private_tags()
        return
    for tag in list(header.keys()):
        if tag.is_private:
            del header[tag]
        elif header.get_item(tag).VR in ("SQ", "UN"):  # an unknown one may be a sequence
            element = header[tag]
            for item in element.value if element.VR == "SQ" else ():
                _remove_private_tags(item)


def _rewrite_padding(header: Dataset, item: Slice) -> None:
    """The padding value with the sign of the pixels: -2000 for a source that writes 63536."""
    kind = "SS" if item.signed else "US"
    for keyword, value in zip(("PixelPaddingValue", "PixelPaddingRangeLimit"), item.padding or ()):
        if keyword in header:
            header.add_new(keyword, kind, value)


def _finer_place(item: Slice, finer: int) -> dict[str, Any]:
    """Position and pixel spacing of a slice with divided pixels, from its own place: a tilted gantry stays tilted."""
    assert item.position_mm is not None and item.orientation is not None and item.spacing_mm is not None
    between_rows, between_columns = item.spacing_mm
    along_row, along_column = np.reshape(item.orientation, (2, 3))
    # The first fine pixel's centre is half a coarse pixel minus half a fine one before that of the first coarse one.
    backwards = (1 - 1 / finer) / 2 * (between_columns * along_row + between_rows * along_column)
    return {
        "ImagePositionPatient": [round(float(v), 6) for v in np.array(item.position_mm) - backwards],
        "PixelSpacing": [round(between_rows / finer, 9), round(between_columns / finer, 9)],
    }


def _placed(grid: np.ndarray, k: int) -> dict[str, Any]:
    """Position, orientation and pixel spacing of slice k of a RAS grid."""
    lps = LPS_TO_RAS @ grid
    sizes = np.linalg.norm(lps[:3, :3], axis=0)
    directions = lps[:3, :2] / sizes[:2]
    position = lps @ [0, 0, k, 1]
    return {
        "ImagePositionPatient": [round(float(v), 6) for v in position[:3]],
        "ImageOrientationPatient": [round(float(v), 9) for v in directions.T.ravel()],
        "PixelSpacing": [round(float(sizes[1]), 9), round(float(sizes[0]), 9)],
        "GantryDetectorTilt": None,
    }


def _reference(item: Slice, *, same_place: bool) -> Dataset:
    """The source image of one slice (PS3.3 C.12.4.1)."""
    reference = Dataset()
    reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = item.sop_class, item.instance_uid
    if item.frame is not None:
        reference.ReferencedFrameNumber = item.frame + 1
    reference.PurposeOfReferenceCodeSequence = [_dicom_code("SourceImageForImageProcessingOperation")]
    reference.SpatialLocationsPreserved = "YES" if same_place else "NO"
    return reference


def _equipment(new: _New) -> Dataset:
    """This software among those that contributed, and for what."""
    equipment = marks.contributing_equipment(new.contribution, new.now)
    equipment.PurposeOfReferenceCodeSequence = [_dicom_code("ProcessingEquipment")]
    return equipment


def _dicom_code(keyword: str) -> Dataset:
    """A code of DICOM's own scheme (PS3.16, DCM)."""
    from pydicom.sr.codedict import codes  # 0.2 s; imported here because reading a series needs none

    item, code = Dataset(), getattr(codes.DCM, keyword)
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code.value, code.scheme_designator, code.meaning
    return item


def _copied(header: Dataset, *, without: Sequence[str] = ()) -> Dataset:
    """The decoded elements in a separate dataset."""
    image = Dataset()
    for element in header:
        if element.keyword not in without:
            image.add(element)
    return image


def _single_frame(header: Dataset, item: Slice) -> Dataset:
    """One frame of a multi-frame object, with its macros' attributes at the places of a single image."""
    image = _copied(header, without=OF_FRAMES)  # the header also serves the other frames, and is not changed
    for group in reversed(functional_groups(header, item.frame or 0)[:-1]):  # the frame's own come last and stay
        for keyword in OF_MACROS:
            if keyword in group:
                image.add(group[keyword])
    image.InstanceNumber = (item.frame or 0) + 1
    return image
