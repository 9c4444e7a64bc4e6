"""MHA, MHD and NRRD are read with the same voxels and millimetres as NIfTI."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest

from ctrestore.io import itk as itk_files
from ctrestore.io.itk import ITK_ENDINGS, read_itk

AFFINE = np.array([[0.0, -0.8, 0, 20], [-0.7, 0, 0, 11], [0, 0, 2.5, -30], [0, 0, 0, 1]])  # rotated by 90 degrees


@pytest.fixture
def sitk():
    return pytest.importorskip("SimpleITK")


@pytest.mark.parametrize("ending", ITK_ENDINGS)
def test_voxels_and_affine_are_those_of_the_same_volume_as_nifti(sitk, tmp_path, ending):
    voxels = np.random.default_rng(0).normal(0, 500, (6, 5, 4)).astype(np.float32)
    nib.save(nib.Nifti1Image(voxels, AFFINE), tmp_path / "volume.nii")
    sitk.WriteImage(sitk.ReadImage(str(tmp_path / "volume.nii")), str(tmp_path / f"volume{ending}"))
    read, affine = read_itk(tmp_path / f"volume{ending}")
    np.testing.assert_array_equal(read, voxels)
    np.testing.assert_allclose(affine, AFFINE, atol=1e-5)


def test_a_volume_without_spacing_is_refused(sitk, tmp_path):
    header = "ObjectType = Image\nNDims = 3\nDimSize = 2 2 2\nElementType = MET_SHORT\nElementDataFile = LOCAL\n"
    (tmp_path / "bare.mha").write_bytes(header.encode() + bytes(16))
    with pytest.raises(ValueError, match=r"bare\.mha: its header states no voxel size.*ElementSpacing"):
        read_itk(tmp_path / "bare.mha")


def test_colour_and_slices_are_refused(sitk, tmp_path):
    sitk.WriteImage(sitk.Image([4, 4, 4], sitk.sitkVectorUInt8, 3), str(tmp_path / "rgb.mha"))
    sitk.WriteImage(sitk.Image([4, 4], sitk.sitkInt16), str(tmp_path / "slice.mha"))
    with pytest.raises(ValueError, match="got 3 dimensions and 3 channels"):
        read_itk(tmp_path / "rgb.mha")
    with pytest.raises(ValueError, match="got 2 dimensions and 1 channels"):
        read_itk(tmp_path / "slice.mha")


def test_a_header_without_its_data_is_refused(sitk, tmp_path):
    sitk.WriteImage(sitk.Image([4, 4, 4], sitk.sitkInt16), str(tmp_path / "volume.mhd"))
    (tmp_path / "volume.raw").unlink()
    with pytest.raises(ValueError, match=r"volume\.mhd: cannot be read.*together with its data file"):
        read_itk(tmp_path / "volume.mhd")


def test_without_simpleitk_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setattr(itk_files, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r'need SimpleITK. Remedy: pip install "ctrestore\[itk\]"'):
        read_itk("volume.mha")
