"""NIfTI, DICOM and a picture give the same slice; a scan that is not CT is refused by name."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
import torch
from PIL import Image

from ctrestore.io import marks
from ctrestore.io.ct_scan import DicomScan, NiftiAsShown, axes_as_shown, open_scan, slice_axis, spread_evenly
from ctrestore.io.dicom import open_series, write_phantom_series
from ctrestore.transforms.slices import LoadSliced

AFFINE = np.array([[-0.8, 0, 0, 100.0], [0, -0.8, 0, 90.0], [0, 0, 2.5, -40.0], [0, 0, 0, 1]])


@pytest.fixture
def volume() -> np.ndarray:
    """``(x, y, z)`` in HU; no two slices are alike."""
    rng = np.random.default_rng(0)
    return np.rint(rng.uniform(-1000, 1500, (12, 10, 5))).astype(np.float32)


def nifti(path, volume, slope=1.0, intercept=0.0):
    image = nib.Nifti1Image(((volume - intercept) / slope).astype(np.int16), AFFINE)
    image.header.set_slope_inter(slope, intercept)
    nib.save(image, path)
    return path


def test_nifti_and_dicom_give_the_same_slices_in_the_same_place(tmp_path, volume):
    write_phantom_series(volume, AFFINE, tmp_path / "series", name="test", description="test")
    scans = [open_scan(nifti(tmp_path / "scan.nii.gz", volume)), open_scan(tmp_path / "series")]
    for scan in scans:
        assert scan.shape == volume.shape
        np.testing.assert_allclose(scan.affine, AFFINE, atol=1e-4)
        for k in range(5):
            assert np.array_equal(scan.slice_hu(k), volume[:, :, k])


def test_slope_and_intercept_of_a_nifti_are_applied(tmp_path, volume):
    scan = open_scan(nifti(tmp_path / "scan.nii", volume, slope=0.5, intercept=-1024.0))
    np.testing.assert_allclose(scan.slice_hu(3), volume[:, :, 3], atol=0.5)


def test_a_nifti_of_one_slice_has_one_slice(tmp_path, volume):
    path = tmp_path / "slice.nii"
    nib.save(nib.Nifti1Image(volume[:, :, 2], AFFINE), path)
    assert open_scan(path).shape == (12, 10, 1)
    assert np.array_equal(open_scan(path).slice_hu(0), volume[:, :, 2])


def test_a_changed_file_is_read_again(tmp_path, volume):
    path = nifti(tmp_path / "scan.nii", volume)
    assert open_scan(path).slice_hu(0)[0, 0] == volume[0, 0, 0]
    path.unlink()
    nifti(path, volume + 7)
    assert open_scan(path).slice_hu(0)[0, 0] == volume[0, 0, 0] + 7


def test_a_picture_needs_its_window(tmp_path):
    grey = np.array([[0, 255], [51, 102]], dtype=np.uint8)  # (y, x)
    Image.fromarray(grey).save(tmp_path / "slice.png")
    hu = open_scan(tmp_path / "slice.png", range_hu=(-160, 240)).slice_hu(0)
    np.testing.assert_allclose(hu, np.array([[-160, -80], [240, 0]]), atol=1e-3)  # (x, y)
    with pytest.raises(ValueError, match="does not say what its grey values mean"):
        open_scan(tmp_path / "slice.png")


def test_16_bit_pictures_keep_their_bits_and_colour_is_refused(tmp_path):
    Image.fromarray(np.array([[0, 65535], [1, 2]], dtype=np.uint16)).save(tmp_path / "deep.png")
    hu = open_scan(tmp_path / "deep.png", range_hu=(-1024, 64511)).slice_hu(0)
    np.testing.assert_allclose(hu, [[-1024, -1023], [64511, -1022]], atol=0.01)
    Image.fromarray(np.array([[[255, 0, 0], [9, 9, 9]]], dtype=np.uint8)).save(tmp_path / "red.png")
    with pytest.raises(ValueError, match=r"red\.png: a picture in colour"):
        open_scan(tmp_path / "red.png", range_hu=(-160, 240))


def test_a_scan_that_is_not_ct_is_refused_by_name(tmp_path, volume):
    with pytest.raises(ValueError, match="nowhere: no such file"):
        open_scan(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"pet\.nii: .*rescale intercept"):
        open_scan(nifti(tmp_path / "pet.nii", np.abs(volume) + 2000))
    nib.save(nib.Nifti1Image(np.zeros((4, 4, 2, 3), np.int16), AFFINE), tmp_path / "dynamic.nii")
    with pytest.raises(ValueError, match=r"dynamic\.nii: expected a volume"):
        open_scan(tmp_path / "dynamic.nii")
    whole = nifti(tmp_path / "cut.nii.gz", volume).read_bytes()
    (tmp_path / "cut.nii.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"cut\.nii\.gz: cannot be read as NIfTI"):
        open_scan(tmp_path / "cut.nii.gz")


def test_load_sliced_gives_a_slice_its_own_position(tmp_path, volume):
    path = str(nifti(tmp_path / "scan.nii", volume))
    loaded = LoadSliced(keys=["image", "label"], allow_missing_keys=True)({"label": path, "slice": 3})["label"]
    assert loaded.shape == (1, 12, 10)
    assert loaded.dtype == torch.float32
    assert np.array_equal(np.asarray(loaded)[0], volume[:, :, 3])
    np.testing.assert_allclose(np.asarray(loaded.affine)[:3, 3], AFFINE[:3, 3] + 3 * AFFINE[:3, 2])


def test_a_few_slices_are_spread_over_the_scan():
    assert spread_evenly(300, 3) == [50, 150, 250]
    assert spread_evenly(4, None) == [0, 1, 2, 3]


# ---- Slices as DICOM shows them

TO_ORIGINAL = {  # voxel of the file -> voxel of the volume, (12, 10, 5)
    "as DICOM has it": np.eye(4),
    "upside down": np.array([[1, 0, 0, 0], [0, -1, 0, 9], [0, 0, 1, 0], [0, 0, 0, 1.0]]),
    "slices first": np.array([[0, 1, 0, 0], [0, 0, 1, 0], [1, 0, 0, 0], [0, 0, 0, 1.0]]),
    "rows and columns swapped": np.array([[0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]]),
}


@pytest.mark.parametrize("layout", TO_ORIGINAL)
def test_a_nifti_is_shown_as_its_dicom_series_however_it_is_stored(tmp_path, volume, layout):
    write_phantom_series(volume, AFFINE, tmp_path / "series")
    to_original = TO_ORIGINAL[layout]
    axes = np.abs(to_original[:3, :3]).argmax(axis=0)
    flips = tuple(slice(None, None, int(to_original[axis, k])) for k, axis in enumerate(axes))
    stored = np.transpose(volume, axes)[flips].astype(np.int16)
    nib.save(nib.Nifti1Image(stored, AFFINE @ to_original), tmp_path / "scan.nii")
    shown = NiftiAsShown(tmp_path / "scan.nii")
    series = DicomScan(tmp_path / "series", open_series(tmp_path / "series"))
    assert shown.shape == series.shape
    np.testing.assert_allclose(shown.affine, series.affine, atol=1e-4)  # float32 in a NIfTI
    for k in range(shown.shape[2]):
        np.testing.assert_array_equal(shown.slice_hu(k), series.slice_hu(k))
        assert not shown.padding_at(k).any()
        assert not series.padding_at(k).any()


def test_what_was_not_measured_is_padding_and_read_as_air(tmp_path, volume):
    outside = np.hypot(*np.mgrid[-6:6, -5:5]) > 6
    volume[outside] = -3024
    shown = NiftiAsShown(nifti(tmp_path / "scan.nii", volume))
    for k in range(5):
        np.testing.assert_array_equal(shown.padding_at(k), outside)
        np.testing.assert_array_equal(shown.slice_hu(k), np.where(outside, -1000, volume[:, :, k]))


def test_the_header_is_enough_until_a_slice_is_asked_for(tmp_path, volume):
    whole = nifti(tmp_path / "scan.nii", volume).read_bytes()
    (tmp_path / "cut.nii").write_bytes(whole[:400])
    shown = NiftiAsShown(tmp_path / "cut.nii")
    assert shown.shape == (12, 10, 5)
    with pytest.raises(ValueError, match=r"cut\.nii: cannot be read as NIfTI"):
        shown.slice_hu(0)


def test_released_voxels_are_read_again(tmp_path, volume):
    shown = NiftiAsShown(nifti(tmp_path / "scan.nii", volume))
    before = shown.slice_hu(1)
    shown.release()
    assert "stored" not in vars(shown)
    np.testing.assert_array_equal(shown.slice_hu(1), before)


def test_a_scan_knows_what_restored_it(tmp_path, volume):
    image = nib.Nifti1Image(volume.astype(np.int16), AFFINE)
    for line in ("", marks.Contribution("denoised", "ldct_denoising", "1").in_nifti):
        marks.mark_nifti(image.header, line)
        nib.save(image, tmp_path / "scan.nii")
        assert NiftiAsShown(tmp_path / "scan.nii").restored_by == line
    write_phantom_series(volume, AFFINE, tmp_path / "series")
    assert open_scan(tmp_path / "series").restored_by == ""


@pytest.mark.parametrize(
    ("spacing", "codes", "along"),
    [
        ((0.7, 0.7, 5), "LPS", 2),
        ((5, 0.7, 0.7), "SPL", 0),
        ((0.7, 3, 0.7), "RAS", 1),  # a coronal reformat in thick slices
        ((1, 1, 1), "PIR", 1),  # cubes: axial
        ((0.6, 0.7, 0.8), "ASR", 1),  # nothing is square: axial
    ],
)
def test_slices_are_the_planes_of_square_pixels_or_else_axial(spacing, codes, along):
    directions = {"R": (1, 0, 0), "L": (-1, 0, 0), "A": (0, 1, 0), "P": (0, -1, 0), "S": (0, 0, 1), "I": (0, 0, -1)}
    affine = np.eye(4)
    affine[:3, :3] = np.array([directions[code] for code in codes]).T * spacing
    assert slice_axis(affine) == along
    shown = affine @ nib.orientations.inv_ornt_aff(axes_as_shown(affine), (10, 10, 10))
    x, y, z = nib.aff2axcodes(shown)
    assert x in "LP"
    assert y in "PI"
    assert z == codes[along]
