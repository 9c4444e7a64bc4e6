"""A folder of PET in DICOM works like NIfTI in programs that only read NIfTI."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser

from ctrestore.errors import CTRestoreError
from ctrestore.io.dicom import load_series, pet_as_nifti
from ctrestore.networks import HomogeneousUNet
from ctrestore.tasks.pet_pvc.output_names import outputs_of
from ctrestore.tasks.pet_pvc.scans import scans
from tests.conftest import ROOT

INFERENCE = ROOT / "bundles" / "pet_pvc" / "configs" / "inference.json"


def test_a_pet_series_in_dicom_becomes_a_nifti_named_after_its_folder(write_pet):
    folder = write_pet("study/brain")
    [scan] = scans(str(folder.parent), fwhm_mm=5)
    image, series = nib.load(scan["image"]), load_series(folder)
    assert Path(scan["image"]).name == "brain.nii"
    assert scan["fwhm_mm"] == [5, 5, 5]
    np.testing.assert_array_equal(image.get_fdata(dtype=np.float32), series.volume)
    np.testing.assert_allclose(image.affine, series.affine)
    assert outputs_of([scan], "out", str(folder.parent)) == [str(Path("out") / "brain_pvc.nii.gz")]


def test_a_pet_series_that_is_refused_ends_with_one_line(write_pet):
    def moved(k, image):
        image.ImagePositionPatient = [0, 0, k**2]

    with pytest.raises(CTRestoreError, match=".*(missing|uneven)"):
        scans(str(write_pet(edit=moved)))


def test_a_nifti_next_to_dicom_is_the_scan(write_pet):
    folder = write_pet()
    (folder / "a.nii.gz").touch()
    assert [scan["image"] for scan in scans(str(folder))] == [str(folder / "a.nii.gz")]


def test_from_a_study_with_pet_and_ct_the_pet_is_used(write_pet, write_ct, tmp_path):
    def other(k, image):
        image.SeriesInstanceUID = "1.2.3"

    write_ct("study/ct", edit=other)
    study = write_pet("study/pet").parent
    assert [path.name for path in pet_as_nifti(study, tmp_path / "out")] == ["pet.nii"]


def test_several_series_in_one_folder_are_named_by_their_numbers(write_pet, tmp_path):
    def other(k, image):
        image.SeriesInstanceUID, image.SeriesNumber = "1.2.3", 8

    folder = write_pet("study")
    for path in write_pet("more", edit=other).iterdir():
        path.rename(folder / f"more{path.name}")
    written = pet_as_nifti(folder, tmp_path / "out")
    assert sorted(path.name for path in written) == ["study_series-3.nii", "study_series-8.nii"]


def test_ct_alone_is_refused_and_a_folder_without_dicom_gives_nothing(write_ct, tmp_path):
    with pytest.raises(ValueError, match=r"no PET series; found 5 slices of CT\. Remedy: name the folder of the PET"):
        pet_as_nifti(write_ct(), tmp_path / "out")
    (tmp_path / "empty").mkdir()
    assert pet_as_nifti(tmp_path / "empty", tmp_path / "out") == []


@pytest.mark.skipif(shutil.which("dcm2niix") is None, reason="needs dcm2niix on the PATH")
def test_dcm2niix_makes_the_same_nifti(write_pet, tmp_path):
    folder = write_pet()
    [path] = pet_as_nifti(folder, tmp_path / "ours")
    subprocess.run(["dcm2niix", "-f", "theirs", "-o", tmp_path, folder], check=True, capture_output=True)
    ours, theirs = (nib.as_closest_canonical(nib.load(p)) for p in (path, tmp_path / "theirs.nii"))
    np.testing.assert_allclose(theirs.affine, ours.affine, atol=1e-4)
    np.testing.assert_array_equal(theirs.get_fdata(), ours.get_fdata())


def test_inference_takes_a_folder_of_dicom_and_writes_nifti_on_the_same_grid(write_pet, tmp_path):
    """Run with a network that changes nothing, so that the output is the scan itself."""
    side, n = 30, 26
    position = np.stack(np.meshgrid(*[np.arange(float(size)) for size in (n, side, side)], indexing="ij"), -1)
    activity = 10_000 * np.exp(-((position - [12.5, 14.5, 14.5]) ** 2).sum(-1) / 60)

    def head(k, image):
        image.Rows = image.Columns = side
        image.PixelSpacing, image.ImagePositionPatient = [4, 4], [-60, -60, 4 * k]
        image.RescaleSlope = max(round(activity[k].max() / 32767, 6), 1e-6)
        image.PixelData = np.rint(activity[k] / float(image.RescaleSlope)).clip(0, 32767).astype("<i2").tobytes()

    folder = write_pet("study/head", n=n, edit=head)
    weights = tmp_path / "model.pt"
    torch.save(HomogeneousUNet(in_channels=3).state_dict(), weights)
    parser = ConfigParser()
    parser.read_config(str(INFERENCE))
    parser["network_def"]["image_channels"] = 2  # untrained, it is the identity
    shrunk = {"spacing_mm": 4.0, "cube_size": 48, "yang_steps": 0, "device": "cpu", "embedded_dir": "none"}
    paths = {"dataset_dir": folder.parent, "output_dir": tmp_path / "out", "weights": weights}
    for key, value in {**shrunk, **{name: str(path) for name, path in paths.items()}}.items():
        parser[key] = value
    parser.get_parsed_content("run")

    series, image = load_series(folder), nib.load(tmp_path / "out" / "head_pvc.nii.gz")
    np.testing.assert_allclose(image.affine, series.affine)
    # float32 rounding of the windows' weights
    np.testing.assert_allclose(image.get_fdata(), series.volume, atol=1e-6 * series.volume.max())
