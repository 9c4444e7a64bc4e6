"""HU from any source as a CT series with the headers of an invented patient."""

from __future__ import annotations

import uuid
from datetime import datetime
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian

from ctrestore.errors import InputError
from ctrestore.io import marks
from ctrestore.io.dicom.geometry import LPS_TO_RAS
from ctrestore.io.whole import writable_folder

SLOPE, INTERCEPT = 1.0, -1024.0


def write_phantom_series(
    hu: np.ndarray, affine: np.ndarray, folder: str | Path, *, name: str = "phantom", description: str = "CT phantom"
) -> list[Path]:
    """Write a volume in HU as an axial CT series of an invented patient, one file per slice.

    The same name gives the same UIDs. Values are rounded to whole HU; they may lie between -1024 and 31743.

    Args:
        hu: ``(x, y, z)``.
        affine: voxel to mm, RAS, without shear; its third column is a multiple of the cross product of the others.
        folder: created if necessary.
        name: of the patient.
        description: of the series.

    Raises:
        InputError: the values do not fit, or the grid is not a stack of slices.
    """
    hu, lps = np.asarray(hu), LPS_TO_RAS @ np.asarray(affine, dtype=float)
    if hu.ndim != 3 or not np.isfinite(hu).all() or hu.min() < INTERCEPT or hu.max() > INTERCEPT + 2**15 - 1:
        raise InputError(f"expected a volume (x, y, z) of finite HU from -1024 to 31743, got shape {hu.shape}.")
    sizes = np.linalg.norm(lps[:3, :3], axis=0)
    along_row, along_column, along_stack = (lps[:3, :3] / sizes).T
    if not np.allclose(np.abs(np.cross(along_row, along_column) @ along_stack), 1, atol=1e-4):
        raise InputError(f"expected an affine without shear, got {affine!r}. Remedy: resample the volume.")
    folder = writable_folder(folder)
    now = datetime(2000, 1, 1, 12)  # a phantom has no date; equal phantoms give equal files
    paths = []
    for k in range(hu.shape[2]):
        image = _header(name, description, now)
        image.SOPInstanceUID = _uid(name, description, str(k))
        image.InstanceNumber = k + 1
        image.ImagePositionPatient = [round(float(v), 6) for v in (lps @ [0, 0, k, 1])[:3]]
        image.ImageOrientationPatient = [round(float(v), 9) for v in (*along_row, *along_column)]
        image.PixelSpacing = [round(float(sizes[1]), 9), round(float(sizes[0]), 9)]
        image.SliceThickness = round(float(sizes[2]), 6)
        image.Rows, image.Columns = hu.shape[1], hu.shape[0]
        image.PixelData = np.rint((hu[..., k].T - INTERCEPT) / SLOPE).astype("<i2").tobytes()
        image["PixelData"].VR = "OW"
        image.file_meta = FileMetaDataset()
        image.file_meta.MediaStorageSOPClassUID = CTImageStorage
        image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
        image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        paths.append(folder / f"{k + 1:05d}.dcm")
        image.save_as(paths[-1], enforce_file_format=True)
    return paths


def _header(name: str, description: str, now: datetime) -> Dataset:
    """What all slices share."""
    image = Dataset()
    image.SOPClassUID = CTImageStorage
    image.Modality = "CT"
    for keyword, value in marks.phantom_object().items():
        setattr(image, keyword, value)
    image.PatientName, image.PatientID = name, name
    image.PatientBirthDate, image.PatientSex, image.Laterality = "", "", ""
    for what in ("Study", "Series", "Acquisition", "Content"):
        setattr(image, f"{what}Date", f"{now:%Y%m%d}")
        setattr(image, f"{what}Time", f"{now:%H%M%S}")
    image.AccessionNumber, image.ReferringPhysicianName, image.StudyID = "", "", "1"
    image.StudyInstanceUID = _uid(name, "study")
    image.SeriesInstanceUID = _uid(name, description, "series")
    image.FrameOfReferenceUID = _uid(name, "frame")
    image.PositionReferenceIndicator = ""
    image.SeriesNumber, image.AcquisitionNumber = 1, 1
    image.SeriesDescription = description[:64]
    image.PatientPosition, image.KVP = "HFS", "120"
    image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
    image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 16, 16, 15, 1
    image.RescaleSlope, image.RescaleIntercept, image.RescaleType = SLOPE, INTERCEPT, "HU"
    return image


def _uid(*words: str) -> UID:
    """The same UID for the same words (PS3.5 B.2: a UUID under the root 2.25)."""
    return UID(f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, '/'.join(words)).int}")
