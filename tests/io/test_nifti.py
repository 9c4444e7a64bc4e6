"""Voxels and headers are kept; FWHM of the array's axes and the patient's are each other's inverse."""

import gzip

import nibabel as nib
import numpy as np
import pytest

from ctrestore.io.nifti import (
    fwhm_of_array_axes,
    fwhm_of_patient_axes,
    read_voxels,
    sidecar_of,
    stem,
    write_like,
    write_nifti,
)


@pytest.mark.parametrize("axes", ["RAS", "LPS", "PIR", "SLA", "IPL"])
def test_fwhm_is_converted_to_the_arrays_axes_and_back(axes):
    affine = nib.orientations.inv_ornt_aff(nib.orientations.axcodes2ornt(axes), (4, 5, 6)) @ np.diag([2, 1, 1, 1])
    affine[:3, :3] = nib.eulerangles.euler2mat(0.1, 0.2, -0.1) @ affine[:3, :3]
    assert fwhm_of_patient_axes(fwhm_of_array_axes((4, 5, 6), affine), affine) == (4, 5, 6)


def test_a_name_keeps_its_dots_except_in_the_ending():
    assert (stem("a/b.v2.nii.gz"), stem("b.nii"), sidecar_of("a/b.v2.nii.gz").name) == ("b.v2", "b", "b.v2.json")


def test_integers_stay_integers_only_when_the_file_does_not_scale_them(tmp_path):
    image = nib.Nifti1Image(np.arange(24, dtype=np.int16).reshape(2, 3, 4, 1), np.eye(4))
    nib.save(image, tmp_path / "a.nii")
    assert read_voxels(tmp_path / "a.nii", keep_integers=True).dtype == np.int16
    assert read_voxels(tmp_path / "a.nii").dtype == np.float32
    assert read_voxels(tmp_path / "a.nii").shape == (2, 3, 4)
    image.header.set_slope_inter(0.5, 1)
    nib.save(image, tmp_path / "a.nii")
    scaled = read_voxels(tmp_path / "a.nii", keep_integers=True)
    assert scaled.dtype == np.float32
    np.testing.assert_array_equal(scaled.ravel(), np.arange(24) * 0.5 + 1)


def test_voxels_are_written_with_the_sources_geometry_and_without_its_scale(tmp_path):
    source = nib.Nifti1Image(np.zeros((3, 4, 5, 2), np.int16), np.diag([-2.0, 3, 4, 1]))
    source.header.set_slope_inter(0.1, 7)
    source.header.set_xyzt_units("mm", "msec")
    source.header["pixdim"][4], source.header["cal_max"] = 60, 9
    nib.save(source, tmp_path / "source.nii.gz")
    voxels = np.random.default_rng(0).normal(size=(3, 4, 5, 2)).astype(np.float32)
    write_like(tmp_path / "source.nii.gz", voxels, tmp_path / "new" / "out.nii.gz", description="by hand")
    out = nib.load(tmp_path / "new" / "out.nii.gz")
    np.testing.assert_array_equal(np.asarray(out.dataobj), voxels)
    np.testing.assert_array_equal(out.affine, source.affine)
    assert out.header.get_xyzt_units() == ("mm", "msec")
    assert out.header.get_zooms()[3] == 60
    assert out.header["descrip"].item() == b"by hand"
    assert float(out.header["cal_max"]) == 0


def test_a_scan_in_which_nothing_repeats_is_read_back_to_the_bit_from_a_file_no_larger(tmp_path):
    noise = np.random.default_rng(0).normal(size=(31, 40, 23)).astype(np.float32)
    noise[:9] = 0
    for name, nothing_repeats in (("usual", False), ("noise", True)):
        image = nib.Nifti1Image(noise, np.diag([-2.0, 3, 4, 1]))
        image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"between header and voxels"))
        write_nifti(image, tmp_path / f"{name}.nii.gz", nothing_repeats=nothing_repeats)
        write_nifti(image, tmp_path / f"{name}.nii", nothing_repeats=nothing_repeats)
    usual, other = (gzip.decompress((tmp_path / f"{name}.nii.gz").read_bytes()) for name in ("usual", "noise"))
    assert other == usual == (tmp_path / "noise.nii").read_bytes()
    assert (tmp_path / "noise.nii.gz").stat().st_size <= 1.01 * (tmp_path / "usual.nii.gz").stat().st_size
