"""CT and PET series written only by pydicom, so that our code is not tested against itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import (
    CTImageStorage,
    EnhancedCTImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    PositronEmissionTomographyImageStorage,
    generate_uid,
)

ROWS, COLUMNS = 24, 32
SPACING_MM = (0.8, 0.7)  # between rows, between columns
GAP_MM = 2.5
ORIGIN_MM = (-11.0, -12.0, 30.0)


def stored_pixels(k: int, *, signed: bool = True, bits: int = 16) -> np.ndarray:
    """A head of soft tissue in air with a bone and the number of the slice in it; asymmetric in every direction."""
    y, x = np.mgrid[:ROWS, :COLUMNS].astype(float)
    hu = np.where(((y - 11) / 9) ** 2 + ((x - 14) / 12) ** 2 < 1, 40.0 + y + 2 * x, -1000.0)
    hu[5:8, 18:22] = 900.0 + 10 * k
    stored = np.clip(np.rint(hu + 1024), 0, 2**bits - 1)
    return stored.astype(np.int16 if signed else np.uint16)


def header(sop_class: str = CTImageStorage, modality: str = "CT") -> FileDataset:
    """The elements that all slices of the invented series share."""
    image = FileDataset("", {}, file_meta=FileMetaDataset(), preamble=b"\0" * 128)
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image.SOPClassUID, image.Modality = sop_class, modality
    image.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    image.SpecificCharacterSet = "ISO_IR 100"
    image.PatientName, image.PatientID, image.PatientBirthDate, image.PatientSex = "Müller^Anna", "42", "19500101", "F"
    image.StudyInstanceUID, image.SeriesInstanceUID = "1.2.826.0.1.1", "1.2.826.0.1.1.1"
    image.FrameOfReferenceUID, image.PositionReferenceIndicator = "1.2.826.0.1.1.2", ""
    image.StudyID, image.AccessionNumber, image.ReferringPhysicianName = "1", "", ""
    for what in ("Study", "Series", "Acquisition", "Content"):
        setattr(image, f"{what}Date", "20240229")
        setattr(image, f"{what}Time", "101500")
    image.SeriesNumber, image.SeriesDescription, image.AcquisitionNumber = 3, "Thorax 1.0 B30f", 1
    image.Manufacturer, image.ConvolutionKernel, image.KVP, image.PatientPosition = "ACME", "B30f", "120", "HFS"
    image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
    image.Rows, image.Columns, image.PixelSpacing = ROWS, COLUMNS, list(SPACING_MM)
    image.ImageOrientationPatient, image.SliceThickness = [1, 0, 0, 0, 1, 0], GAP_MM
    return image


def with_pixels(image: FileDataset, stored: np.ndarray, bits: int = 16) -> FileDataset:
    image.BitsAllocated, image.BitsStored, image.HighBit = 16, bits, bits - 1
    image.PixelRepresentation = int(stored.dtype.kind == "i")
    image.PixelData = stored.astype(stored.dtype.newbyteorder("<")).tobytes()
    image["PixelData"].VR = "OW"
    return image


def save(image: Dataset, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.file_meta.MediaStorageSOPClassUID = image.SOPClassUID
    image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
    if image.file_meta.TransferSyntaxUID == ExplicitVRBigEndian:  # pydicom does not swap the bytes of the pixels
        image.PixelData = np.frombuffer(image.PixelData, "<i2").astype(">i2").tobytes()
        pydicom.dcmwrite(path, image, implicit_vr=False, little_endian=False, force_encoding=True)
    else:
        image.save_as(path, enforce_file_format=True)
    return path


def ct_slice(k: int, *, signed: bool = True, bits: int = 16) -> FileDataset:
    image = header()
    image.SOPInstanceUID, image.InstanceNumber = f"1.2.826.0.1.1.1.{k + 1}", k + 1
    image.ImagePositionPatient = [ORIGIN_MM[0], ORIGIN_MM[1], ORIGIN_MM[2] + k * GAP_MM]
    image.RescaleSlope, image.RescaleIntercept, image.RescaleType = 1, -1024, "HU"
    return with_pixels(image, stored_pixels(k, signed=signed, bits=bits), bits)


Edit = Callable[[int, FileDataset], Any]


@pytest.fixture
def write_ct(tmp_path):
    """Write a CT series into a folder; ``edit(k, image)`` changes each slice first, and drops it by returning False."""

    def write(name: str = "ct", n: int = 5, edit: Edit = lambda k, image: None, **kind: Any) -> Path:
        folder = tmp_path / name
        for k in range(n):
            image = ct_slice(k, **kind)
            if edit(k, image) is not False:
                # File names are shuffled: their order means nothing.
                save(image, folder / f"IM{(7 * k + 3) % 101:04d}{(k // 101) or ''}.dcm")
        return folder

    return write


@pytest.fixture
def write_pet(tmp_path):
    """Write a PET series: each slice has its own slope, as scanners write it."""

    def write(name: str = "pet", n: int = 4, edit: Edit = lambda k, image: None) -> Path:
        folder = tmp_path / name
        for k in range(n):
            image = header(PositronEmissionTomographyImageStorage, "PT")
            del image.KVP
            image.SOPInstanceUID, image.InstanceNumber = f"1.2.826.0.1.1.1.{k + 1}", k + 1
            image.ImagePositionPatient = [ORIGIN_MM[0], ORIGIN_MM[1], ORIGIN_MM[2] + k * GAP_MM]
            image.RescaleSlope, image.RescaleIntercept, image.Units = 0.5 + 0.25 * k, 0, "BQML"
            image.NumberOfSlices, image.DecayCorrection, image.CorrectedImage = n, "START", ["ATTN", "DECY"]
            image.PatientWeight = 70
            drug = Dataset()
            drug.RadionuclideTotalDose, drug.RadionuclideHalfLife = 370e6, 6586.2
            drug.RadiopharmaceuticalStartDateTime = "20240229091500"
            image.RadiopharmaceuticalInformationSequence = [drug]
            edit(k, with_pixels(image, stored_pixels(k)))
            save(image, folder / f"{n - k}.dcm")
        return folder

    return write


@pytest.fixture
def write_enhanced(tmp_path):
    """Write one multi-frame CT whose frames are not in the order of their positions."""

    def write(name: str = "enhanced.dcm", order: tuple[int, ...] = (2, 0, 3, 1)) -> Path:
        image = header(EnhancedCTImageStorage)
        for keyword in ("PixelSpacing", "ImageOrientationPatient", "SliceThickness", "KVP", "ConvolutionKernel"):
            del image[keyword]
        image.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
        image.SOPInstanceUID, image.InstanceNumber, image.NumberOfFrames = "1.2.826.0.1.1.1.9", 1, len(order)
        shared, measures, plane, scale = Dataset(), Dataset(), Dataset(), Dataset()
        measures.PixelSpacing, measures.SliceThickness = list(SPACING_MM), GAP_MM
        plane.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        scale.RescaleSlope, scale.RescaleIntercept, scale.RescaleType = 1, -1024, "HU"
        shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [plane]
        shared.PixelValueTransformationSequence = [scale]
        image.SharedFunctionalGroupsSequence, frames = [shared], []
        for k in order:
            frame, position = Dataset(), Dataset()
            position.ImagePositionPatient = [ORIGIN_MM[0], ORIGIN_MM[1], ORIGIN_MM[2] + k * GAP_MM]
            frame.PlanePositionSequence = [position]
            frames.append(frame)
        image.PerFrameFunctionalGroupsSequence = frames
        return save(with_pixels(image, np.stack([stored_pixels(k) for k in order])), tmp_path / name)

    return write


@pytest.fixture
def expected_hu() -> Callable[..., np.ndarray]:
    """The volume ``(x, y, z)`` of the invented CT."""
    return lambda n=5: np.stack([stored_pixels(k) - 1024.0 for k in range(n)]).T.astype(np.float32)


@pytest.fixture
def new_uid() -> Callable[[], str]:
    return lambda: generate_uid(prefix=None)
