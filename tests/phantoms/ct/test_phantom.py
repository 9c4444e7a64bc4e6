"""The CT phantoms: HU of the organs, a person per seed, positions of the findings."""

from __future__ import annotations

import time

import numpy as np
import pytest

from ctrestore.phantoms.ct import Tissue, abdomen, chest
from ctrestore.phantoms.ct.torso import branching

MATRIX = 192  # a quarter of the work; geometry is in mm


def median(phantom, tissue):
    from scipy.ndimage import binary_erosion

    inside = binary_erosion(phantom.labels == tissue, np.ones((3, 3, 1)))  # without the pixels shared at edges
    assert inside.sum() > 3, f"{tissue.name} is hardly there"
    return float(np.median(phantom.hu[inside]))


@pytest.mark.parametrize("seed", range(4))
def test_tissues_of_the_chest_have_their_hu(seed):
    phantom = chest(seed, matrix=MATRIX, z_mm=45)
    assert -960 < median(phantom, Tissue.LUNG) < -780
    assert -120 < median(phantom, Tissue.FAT) < -80
    assert 40 < median(phantom, Tissue.MUSCLE) < 75
    assert 80 < median(phantom, Tissue.BONE) < 900
    assert 35 < median(phantom, Tissue.BLOOD) < 330
    assert phantom.hu[phantom.labels == Tissue.OUTSIDE].mean() == pytest.approx(-1000, abs=15)


@pytest.mark.parametrize("seed", range(4))
def test_tissues_of_the_abdomen_have_their_hu(seed):
    phantom = abdomen(seed, matrix=MATRIX, z_mm=-80, n_lesions=0)
    liver = median(phantom, Tissue.LIVER)
    assert 20 < liver < 120
    assert 28 < median(phantom, Tissue.KIDNEY) < 200
    assert 40 < median(phantom, Tissue.SPLEEN) < 160
    if phantom.phase == "native":
        assert liver < 70


def test_gas_in_the_belly_floats_in_front_of_the_fluid():
    found = 0
    for seed in range(6):
        phantom = abdomen(seed, matrix=MATRIX, z_mm=-70)
        gas = phantom.label_slices[0] == Tissue.GAS
        if gas.sum() > 40:
            found += 1
            assert np.median(phantom.slices[0][gas]) < -800
            assert np.argwhere(gas)[:, 0].mean() < MATRIX * 0.5  # rows go to the back
    assert found


@pytest.mark.parametrize("make", [chest, abdomen])
def test_a_seed_always_gives_the_same_voxels_and_another_seed_another_person(make):
    first, again, other = make(3, matrix=96), make(3, matrix=96), make(4, matrix=96)
    np.testing.assert_array_equal(first.hu, again.hu)
    np.testing.assert_array_equal(first.labels, again.labels)
    assert first.findings == again.findings
    assert np.corrcoef(first.hu.ravel(), other.hu.ravel())[0, 1] < 0.97
    assert not np.array_equal(first.affine, other.affine)


def test_persons_differ_in_build_level_and_contrast():
    phantoms = [chest(seed, matrix=64) for seed in range(14)]
    body = [float((p.hu > -400).sum()) * p.spacing_mm[0] ** 2 for p in phantoms]
    assert np.std(body) > 0.1 * np.mean(body)
    assert {p.phase for p in phantoms} == {"native", "arterial", "portal venous"}
    assert np.ptp([p.affine[2, 3] for p in phantoms]) > 80


@pytest.mark.parametrize("make", [chest, abdomen])
def test_a_slice_of_a_volume_equals_the_slice_made_separately(make):
    volume = make(5, n_slices=3, slice_mm=4.0, matrix=96, z_mm=-40, **no_findings(make))
    alone = make(5, n_slices=1, slice_mm=4.0, matrix=96, z_mm=-36, **no_findings(make))
    np.testing.assert_array_equal(volume.hu[..., 2], alone.hu[..., 0])
    assert (volume.affine @ [0, 0, 2, 1])[2] == pytest.approx((alone.affine @ [0, 0, 0, 1])[2])


def no_findings(make):
    return {"n_nodules": 0} if make is chest else {"n_lesions": 0}


def test_neighbouring_slices_are_more_alike_than_distant_ones():
    slices = chest(8, n_slices=11, slice_mm=3.0, matrix=96, z_mm=90, n_nodules=0).slices
    steps = [np.abs(slices[0] - slices[k]).mean() for k in (1, 4, 10)]
    assert steps[0] < steps[1] < steps[2]


def test_a_picture_shows_the_liver_at_its_left_and_the_spine_below():
    phantom = abdomen(2, matrix=MATRIX, z_mm=-70)
    rows, columns = np.nonzero(phantom.label_slices[0] == Tissue.LIVER)
    assert columns.mean() < MATRIX / 2
    rows, columns = np.nonzero(phantom.label_slices[0] == Tissue.SPINAL_CANAL)
    assert rows.mean() > MATRIX / 2
    assert columns.mean() == pytest.approx(MATRIX / 2, abs=8)


@pytest.mark.parametrize("seed", range(5))
def test_nodules_are_at_the_true_positions_and_nowhere_else(seed):
    phantom = chest(seed, n_slices=21, slice_mm=1.5, matrix=224, z_mm=60, n_nodules=2)
    labelled = np.argwhere(phantom.labels == Tissue.NODULE)
    points = labelled @ phantom.affine[:3, :3].T + phantom.affine[:3, 3]
    assert len(phantom.findings) == 2
    gaps = np.array([np.linalg.norm(points - finding.centre_mm, axis=1) for finding in phantom.findings])
    reach = np.array([finding.diameter_mm / 2 for finding in phantom.findings])[:, None]
    nearest = (gaps / reach).min(axis=0)
    assert nearest.max() < 1.6  # lobes and spikes: three deviations of 13 % and a voxel
    assert all((gap < 0.7 * r).any() for gap, r in zip(gaps, reach[:, 0]))


def test_the_area_of_a_smooth_nodule_is_that_of_its_disc():
    from ctrestore.phantoms.ct.shapes import Canvas, Waves
    from ctrestore.phantoms.ct.thorax import Nodule

    rng = np.random.default_rng(0)
    ball = Nodule((3.0, -4.0, 10.0), 20.0, "solid", 0.0, Waves(rng, wavelength_mm=(5, 9)))
    axis = np.linspace(-30, 30, 301, dtype=np.float32)
    canvas = Canvas(axis[None, :], axis[:, None], 4.0)
    canvas.paint(ball.distance(canvas.x, canvas.y, canvas.z), 35.0, 1)
    assert canvas.labels.sum() * canvas.pixel_mm**2 == pytest.approx(np.pi * 8**2, rel=0.01)  # 10² - 6² = 8²


def test_lesions_differ_from_the_liver_by_the_contrast_that_the_truth_states():
    seen = 0
    for seed in range(5):
        phantom = abdomen(seed, n_slices=4, matrix=160, z_mm=-60, n_lesions=2)
        without = abdomen(seed, n_slices=4, matrix=160, z_mm=-60, n_lesions=0)
        grid = np.indices(phantom.hu.shape).reshape(3, -1).T @ phantom.affine[:3, :3].T + phantom.affine[:3, 3]
        for finding in phantom.findings:
            inner = np.linalg.norm(grid - finding.centre_mm, axis=1) < finding.diameter_mm / 2 - 2
            inner &= (without.labels.ravel() == Tissue.LIVER) & (phantom.labels.ravel() == Tissue.LIVER_LESION)
            if inner.sum() > 20:
                seen += 1
                change = np.median(phantom.hu.ravel()[inner]) - np.median(without.hu.ravel()[inner])
                assert change == pytest.approx(finding.contrast_hu, abs=6)  # texture of the liver: 4 HU
                assert abs(finding.contrast_hu) <= 60
    assert seen >= 4


def test_another_number_of_nodules_does_not_change_the_person():
    bare, ill = chest(6, matrix=96, z_mm=60, n_nodules=0), chest(6, matrix=96, z_mm=60, n_nodules=3)
    changed = np.abs(bare.hu - ill.hu) > 1
    assert 0 < changed.mean() < 0.05


def test_vessels_fork_by_murrays_law():
    rng = np.random.default_rng(0)
    targets = rng.uniform(-40, 40, (50, 3)).astype(np.float32)
    tree = branching(rng, root=[(0, 0, 0), (2, 0, 0)], targets=targets, leaf_mm=0.5)
    assert tree.end_radius.min() == pytest.approx(0.5)
    n_forks = 0
    for point, radius in zip(tree.end, tree.end_radius):
        onward = tree.end_radius[(tree.start == point).all(axis=1)]
        n_forks += len(onward) > 1
        if len(onward):
            assert radius**3 == pytest.approx((onward**3).sum(), rel=1e-4)
    assert n_forks > 15
    reached = np.linalg.norm(tree.end[:, None] - targets, axis=2).min(axis=0)
    np.testing.assert_allclose(reached, 0, atol=1e-4)


def test_a_slice_of_512_takes_well_under_seconds():
    times = []
    for seed in range(3):
        started = time.process_time()
        chest(seed)
        times.append(time.process_time() - started)
    assert min(times) < 1.5  # 0.4 s on one core; the rest is for slower machines


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"n_slices": 0}, "n_slices=0"),
        ({"matrix": 8}, "matrix=8"),
        ({"slice_mm": 0.0}, "slice_mm=0.0"),
        ({"n_nodules": -1}, "cannot be negative"),
        ({"n_nodules": 200, "z_mm": 60.0}, "No room for 200 nodules"),
        ({"nodule_kind": "round"}, "must be one of solid, part-solid, ground-glass"),
    ],
)
def test_impossible_chests_are_refused_by_name(arguments, words):
    with pytest.raises(ValueError, match=words):
        chest(0, **{"matrix": 64, **arguments})
