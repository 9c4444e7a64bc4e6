"""A phantom as DICOM is read back as it was written."""

from __future__ import annotations

import shutil
import subprocess

import numpy as np
import pytest

from ctrestore.io.dicom import load_series, write_derived_series, write_phantom_series

AFFINE = np.array([[-0.7, 0, 0, 11], [0, -0.8, 0, 12], [0, 0, 2.5, -30], [0, 0, 0, 1.0]])


@pytest.fixture
def hu():
    return np.random.default_rng(0).integers(-1024, 2000, (10, 12, 4)).astype(np.float32)


def test_volume_and_affine_come_back(hu, tmp_path):
    write_phantom_series(hu, AFFINE, tmp_path)
    series = load_series(tmp_path)
    np.testing.assert_array_equal(series.volume, hu)
    np.testing.assert_allclose(series.affine, AFFINE)


def test_nifti_axes_of_any_direction_come_back_at_the_same_place(hu, tmp_path):
    """Slices stacked against the normal are read from the other end; every voxel stays where it was."""
    ras = np.diag([0.7, 0.8, 2.5, 1])  # x to the right, y to the front, z up
    affine = ras.copy()
    affine[2] = [0, 0, -2.5, 60]
    write_phantom_series(hu, affine, tmp_path)
    series = load_series(tmp_path)
    np.testing.assert_array_equal(series.volume[..., ::-1], hu)
    np.testing.assert_allclose(series.affine @ [0, 0, 3, 1], affine @ [0, 0, 0, 1])


def test_equal_phantoms_are_equal_files(hu, tmp_path):
    first, second = (write_phantom_series(hu, AFFINE, tmp_path / name) for name in ("a", "b"))
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


@pytest.mark.parametrize("value", [-1025.0, 40000.0, np.nan])
def test_values_that_dicom_cannot_hold_are_refused(hu, tmp_path, value):
    hu[0, 0, 0] = value
    with pytest.raises(ValueError, match="finite HU from -1024 to 31743"):
        write_phantom_series(hu, AFFINE, tmp_path)


def test_a_sheared_grid_is_refused(hu, tmp_path):
    sheared = AFFINE.copy()
    sheared[1, 2] = 1.0
    with pytest.raises(ValueError, match="without shear"):
        write_phantom_series(hu, sheared, tmp_path)


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="needs dciodvfy (Debian: dicom3tools)")
def test_dciodvfy_finds_no_error_in_the_phantom_or_its_derived_series(hu, tmp_path):
    [first, *_] = write_phantom_series(hu, AFFINE, tmp_path / "a")
    series = load_series(tmp_path / "a")
    derived = write_derived_series(series.volume, series, tmp_path / "b", description="d", model="m", version="1")
    for path in (first, derived.paths[0]):
        said = subprocess.run(["dciodvfy", path], capture_output=True, text=True, check=False)
        assert [line for line in (said.stdout + said.stderr).splitlines() if line.startswith("Error")] == []
