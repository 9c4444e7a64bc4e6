"""What we write of ourselves is found again; what is not ours, or made a scan worse, restored nothing."""

from __future__ import annotations

from datetime import datetime

import nibabel as nib
import numpy as np
import pytest
from pydicom.dataset import Dataset

from ctrestore import __version__
from ctrestore.io import marks

SHA256 = "0123456789abcdef" * 4
DENOISED = marks.Contribution("denoised", "ldct_denoising", "1.2.3", SHA256)


def header_with(line: str) -> nib.Nifti1Header:
    header = nib.Nifti1Image(np.zeros((2, 2, 2), np.float32), np.eye(4)).header
    marks.mark_nifti(header, line)
    return header


def object_with(*contributions: marks.Contribution) -> Dataset:
    header = Dataset()
    header.ContributingEquipmentSequence = [
        marks.contributing_equipment(contribution, datetime(2000, 1, 1)) for contribution in contributions
    ]
    return header


def test_files_of_every_version_hold_the_same_words():
    """Golden: other programs, and our own of another version, look for these texts."""
    ours, weights = f"ctrestore {__version__}", f"weights sha256 {SHA256}"
    assert DENOISED.in_nifti == "denoised by ctrestore ldct_denoising 1.2.3, weights 0123456789ab"
    assert DENOISED.in_dicom == f"denoised: ldct_denoising 1.2.3, {weights}; {ours}; for research use only"
    assert marks.CORRECTED_PET == "partial volume corrected by ctrestore"
    assert marks.TISSUE_FRACTIONS == "tissue fractions seen in the PET by ctrestore"
    assert marks.corrected_by("RBV") == f"RBV by {ours}"
    assert marks.simulated_dose(0.25) == "ctrestore simulate-dose, dose 0.25"
    assert marks.phantom("chest phantom, seed 3") == "ctrestore chest phantom, seed 3"
    assert marks.degraded_phantom("a quarter of the dose") == "ctrestore phantom at a quarter of the dose"
    assert marks.converted("mha") == "from mha"
    assert marks.pet_in("Bq/ml") == "PET in Bq/ml"
    low = marks.simulated_dose_series(0.25)
    assert low.in_dicom == (
        f"simulated at 0.25 of the dose: ctrestore simulate-dose {__version__}; {ours}; for research use only"
    )


@pytest.mark.parametrize(
    "contribution", [DENOISED, marks.Contribution("upscaled x2", "ct_super_resolution", "0.1")], ids=lambda c: c.model
)
def test_a_restoration_is_found_again_in_either_format(contribution):
    assert marks.restored_by_nifti(header_with(contribution.in_nifti)) == contribution.in_nifti[: marks.NIFTI_LETTERS]
    assert marks.restored_by_series(object_with(contribution)) == contribution.in_dicom


@pytest.mark.parametrize(
    "line",
    ["", "TE=30; by hand", marks.simulated_dose(0.1), marks.phantom("chest phantom, seed 3"), marks.pet_in("SUV")],
)
def test_other_lines_of_a_nifti_restored_nothing(line):
    header = header_with(line)
    assert marks.nifti_mark(header) == line
    assert marks.restored_by_nifti(header) == ""


def test_a_lower_dose_and_other_software_restored_no_series():
    workstation = object_with(DENOISED).ContributingEquipmentSequence[0]
    workstation.Manufacturer = "another"
    header = object_with(marks.simulated_dose_series(0.5))
    header.ContributingEquipmentSequence.append(workstation)
    assert marks.restored_by_series(header) == ""
    assert marks.restored_by_series(Dataset()) == ""
    header.ContributingEquipmentSequence.extend(object_with(DENOISED).ContributingEquipmentSequence)
    assert marks.restored_by_series(header) == DENOISED.in_dicom


def test_marks_fit_their_place():
    long = marks.Contribution("d\u00e9noised \\ " * 100, "m\u00f6del" * 20, "v" * 80)
    assert len(marks.nifti_mark(header_with(long.in_nifti))) == marks.NIFTI_LETTERS
    assert len(long.in_dicom) == 1024
    assert long.in_dicom.isascii()
    assert "\\" not in long.in_dicom
    [equipment] = object_with(long).ContributingEquipmentSequence
    assert len(equipment.ManufacturerModelName) == len(equipment.SoftwareVersions[1]) == 64


def test_a_header_without_a_line_has_no_mark():
    assert marks.nifti_mark(nib.MGHImage(np.zeros((2, 2, 2), np.float32), np.eye(4)).header) == ""


@pytest.mark.parametrize(
    ("source", "derived"),
    [
        (("ORIGINAL", "PRIMARY", "AXIAL"), ["DERIVED", "SECONDARY", "AXIAL"]),
        (("ORIGINAL", "PRIMARY", "LOCALIZER", "CT_SOM5"), ["DERIVED", "SECONDARY", "LOCALIZER", "CT_SOM5"]),
        ((), ["DERIVED", "SECONDARY", "AXIAL"]),
    ],
)
def test_a_derived_image_keeps_what_kind_of_image_it_is(source, derived):
    assert marks.derived_image_type(source) == derived
