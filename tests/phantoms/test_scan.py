"""The scanner: grids with the requested axes, markers that keep their position, noise of the requested size."""

from __future__ import annotations

from itertools import permutations, product

import nibabel as nib
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from ctrestore.phantoms import TRACERS, Grid, acquire, draw_uptake, resample_to_grid

CODES = ["".join(code) for pairs in permutations(("RL", "AP", "SI")) for code in product(*pairs)]
CENTRE_MM = np.array([3.0, -18.0, 11.0])


def head_with_marker():
    """A soft point at (8, -25, 17) mm on a 1 mm grid about `CENTRE_MM`: volume, affine, position."""
    shape, marker_mm = (40, 48, 44), np.array([8.0, -25.0, 17.0])
    affine = np.eye(4)
    affine[:3, 3] = CENTRE_MM - (np.array(shape) - 1) / 2
    volume = np.zeros(shape, dtype=np.float32)
    index = np.linalg.solve(affine, np.append(marker_mm, 1))[:3]
    volume[tuple(np.round(index).astype(int))] = 1000.0
    marker_mm = (affine @ np.append(np.round(index), 1))[:3]
    return gaussian_filter(volume, 2.0), affine, marker_mm


def centroid_mm(image):
    values = image.get_fdata()
    indices = np.indices(values.shape).reshape(3, -1)
    return nib.affines.apply_affine(image.affine, indices @ values.ravel() / values.sum())


def test_axes_have_48_orientations():
    assert len(set(CODES)) == 48


@pytest.mark.parametrize("axes", CODES)
def test_a_grid_has_the_axes_voxels_and_centre_asked(axes):
    grid = Grid((20, 24, 30), (1.5, 1.0, 2.0), axes)
    affine = grid.affine(CENTRE_MM)
    assert "".join(nib.aff2axcodes(affine)) == axes
    np.testing.assert_allclose(nib.affines.voxel_sizes(affine), grid.spacing_mm)
    np.testing.assert_allclose(nib.affines.apply_affine(affine, (np.array(grid.matrix) - 1) / 2), CENTRE_MM, atol=1e-9)


@pytest.mark.parametrize("axes", CODES)
@pytest.mark.parametrize("tilt_deg", [(0.0, 0.0), (5.0, -4.0)])
def test_a_marker_stays_where_it_is_in_the_world(axes, tilt_deg):
    volume, affine, marker_mm = head_with_marker()
    image = resample_to_grid(volume, affine, Grid((40, 44, 42), (1.2, 1.2, 1.3), axes, tilt_deg))
    assert image.shape == (40, 44, 42)
    np.testing.assert_allclose(centroid_mm(image), marker_mm, atol=0.02)  # a fiftieth of a voxel


@pytest.mark.parametrize("axes", ["RAS", "LPS", "PIR", "ASR"])
def test_a_grid_of_one_millimetre_copies_values(axes):
    rng = np.random.default_rng(0)
    volume, affine = rng.random((8, 9, 10), dtype=np.float32), np.eye(4)
    image = resample_to_grid(volume, affine, Grid((16, 16, 16), (1.0, 1.0, 1.0), axes))
    values = np.asarray(image.dataobj)
    assert values.dtype == np.float32
    np.testing.assert_array_equal(np.sort(values[values > 0]), np.sort(volume.ravel()))
    np.testing.assert_allclose(image.affine[:3, 3] % 1, 0, atol=1e-9)  # on the voxels of the source


def test_labels_stay_labels_on_a_tilted_grid():
    labels = np.zeros((24, 24, 24), dtype=np.uint8)
    labels[6:18, 6:18, 6:18], labels[9:14, 9:14, 9:14] = 7, 101
    image = resample_to_grid(labels, np.eye(4), Grid((30, 30, 30), (0.9, 1.1, 1.0), "PIR", (10.0, 5.0)), order=0)
    assert image.get_data_dtype() == np.uint8
    assert set(np.unique(image.dataobj)) == {0, 7, 101}


def test_tilts_turn_about_the_axes_named():
    affine = Grid((9, 9, 9), (1.0, 1.0, 1.0), "RAS", (30.0, 0.0)).affine(np.zeros(3))
    np.testing.assert_allclose(affine[:3, 0], [1, 0, 0])  # about x: x stays
    np.testing.assert_allclose(affine[:3, 1], [0, np.cos(np.pi / 6), 0.5])
    affine = Grid((9, 9, 9), (1.0, 1.0, 1.0), "RAS", (0.0, 30.0)).affine(np.zeros(3))
    np.testing.assert_allclose(affine[:3, 2], [0, 0, 1])  # about z: z stays


def test_the_scanner_conserves_the_total_activity(anatomies):
    activity = draw_uptake(anatomies["ribbon"], TRACERS["FDGAD"], seed=5).activity
    total = activity.sum(dtype=float)
    clean, noisy = (acquire(activity, fwhm_mm=(6, 6, 7.5), noise=noise, seed=5) for noise in (0.0, 0.07))
    assert clean.sum(dtype=float) == pytest.approx(total, rel=1e-6)  # float32
    # Noise that is correlated over 4 mm FWHM averages out as (2 sqrt(pi) sigma)^3 = 220 voxels do together: 7 % over
    # the 13,000 such volumes of a head is 0.06 %, here three times.
    assert noisy.sum(dtype=float) == pytest.approx(total, rel=2e-3)
    assert noisy.min() >= 0


def test_the_variance_of_the_noise_follows_the_activity():
    activity = np.ones((96, 96, 96), dtype=np.float32)
    activity[48:] = 4.0
    clean, noisy = (acquire(activity, fwhm_mm=5.0, noise=noise, seed=1) for noise in (0.0, 0.05))
    low, high = (slice(8, 40),), (slice(56, 88),)  # away from the border between them
    # noise * sqrt(activity * head_mean), the mean being 2.5; so many voxels of correlated noise tell it to 1 %.
    assert (noisy - clean)[low].std() == pytest.approx(0.05 * np.sqrt(1 * 2.5), rel=0.05)
    assert (noisy - clean)[high].std() == pytest.approx(0.05 * np.sqrt(4 * 2.5), rel=0.05)


def test_the_same_seed_gives_the_same_noise_and_another_seed_another():
    activity = np.ones((24, 24, 24), dtype=np.float32)
    first, again, other = (acquire(activity, fwhm_mm=5.0, noise=0.05, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert abs(np.corrcoef((first - 1).ravel(), (other - 1).ravel())[0, 1]) < 0.2
