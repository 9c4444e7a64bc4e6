"""The output of a scan has its form, and holds what it is given: nothing changed, nothing changes."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from ctrestore.ct import pixels_as_blocks
from ctrestore.io.ct_scan import DicomScan, NiftiAsShown, NiftiScan, Scan, open_scan
from ctrestore.io.dicom import load_series, open_series, write_phantom_series
from ctrestore.tasks.ct_restoration.outputs import How, Restorable

AFFINE = np.diag([-0.8, -0.8, 2.5, 1.0])
HOW = How("denoised", "ldct_denoising", "1.2.3")


@pytest.fixture
def volume() -> np.ndarray:
    """``(x, y, z)`` in whole HU."""
    return np.rint(np.random.default_rng(0).uniform(-1000, 1500, (12, 10, 3)))


def scan_of(kind: str, folder: Path, volume: np.ndarray) -> Scan:
    if kind == "series":
        write_phantom_series(volume, AFFINE, folder / "series")
        return DicomScan(folder / "series", open_series(folder / "series"))
    if kind == "nifti":
        nib.save(nib.Nifti1Image(volume.astype(np.int16), AFFINE), folder / "scan.nii")
        return NiftiAsShown(folder / "scan.nii")
    Image.fromarray(np.arange(120, dtype=np.uint8).reshape(10, 12)).save(folder / "scan.png")
    return open_scan(folder / "scan.png", range_hu=(-160, 240))


def written(restorable: Restorable, how: How = HOW) -> Path:
    with restorable.output(how) as output:
        for k in range(restorable.scan.shape[2]):
            output.add(pixels_as_blocks(restorable.scan.slice_hu(k), factors=how.factors))
    return restorable.target


def voxels_of(path: Path) -> np.ndarray:
    if path.is_dir():
        return load_series(path).volume
    return np.asarray(Image.open(path)) if path.suffix == ".png" else nib.load(path).get_fdata()


@pytest.mark.parametrize("kind", ["series", "nifti", "picture"])
def test_what_nobody_changed_comes_out_as_it_was(kind, tmp_path, volume):
    scan = scan_of(kind, tmp_path, volume)
    target = written(Restorable(scan, tmp_path / "out" / scan.path.name))
    np.testing.assert_array_equal(voxels_of(target), voxels_of(scan.path))


@pytest.mark.parametrize("kind", ["series", "nifti"])
def test_the_output_is_marked_and_finer_within_the_same_outline(kind, tmp_path, volume):
    scan = scan_of(kind, tmp_path, volume)
    how = How("upscaled x2", "ct_super_resolution", "1.2.3", scale=2)
    target = written(Restorable(scan, tmp_path / "out" / scan.path.name), how)
    again = open_scan(target) if kind == "series" else NiftiAsShown(target)
    assert again.shape == (24, 20, 3)
    corner = [-0.5, -0.5, 0, 1]  # of the first pixel, not its centre
    np.testing.assert_allclose(again.affine @ corner, scan.affine @ corner, atol=1e-4)
    assert again.restored_by == (how.in_dicom if kind == "series" else how.in_nifti)


def test_a_scan_that_has_no_output_of_its_kind_is_a_fault_of_the_program(tmp_path, volume):
    stored = NiftiScan(tmp_path / "scan.nii", AFFINE, volume, slope=1.0, intercept=0.0)
    with pytest.raises(TypeError, match="NiftiScan"):
        Restorable(stored, tmp_path / "out.nii").output(HOW)
