"""The lung phantoms of a classifier: traits of the classes, and files."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest

from ctrestore.ct import simulate_scan
from ctrestore.data_lists import read_data_list, write_data_list
from ctrestore.data_lists.ct_layouts import class_name
from ctrestore.phantoms.ct import LUNG_CLASSES, Tissue, chest, lung_slice, write_lung_cohort
from ctrestore.phantoms.ct.lung_classes import water_equivalent_mm

SMALL = {"n_training": 4, "n_validation": 1, "n_test": 2, "matrix": 64, "n_processes": 1}
KAGGLE = (
    "adenocarcinoma_left.lower.lobe_T2_N0_M0_Ib",
    "large.cell.carcinoma_left.hilum_T2_N2_M0_IIIa",
    "normal",
    "squamous.cell.carcinoma_left.hilum_T1_N2_M0_IIIa",
)


@pytest.fixture(scope="module")
def slices():
    """Three persons of each class."""
    return {
        name: [lung_slice(10 * i + place, name, matrix=192) for i in range(3)]
        for place, name in enumerate(LUNG_CLASSES)
    }


def test_the_classes_have_the_names_of_the_public_folders_in_order():
    assert list(LUNG_CLASSES) == sorted(class_name(folder) for folder in KAGGLE)


def test_a_normal_chest_has_no_tumour_and_every_other_has_one(slices):
    for name, phantoms in slices.items():
        for phantom in phantoms:
            assert (phantom.tumour is None) == (name == "normal")
            assert (phantom.labels == Tissue.NODULE).any() == (name != "normal")


def test_a_cavity_is_gas_inside_a_wall_of_tissue(slices):
    for phantom in slices["squamous.cell.carcinoma"]:
        gas = phantom.labels == Tissue.GAS
        assert gas.any()
        assert phantom.noise_free_hu[gas].mean() < -100
        x, y, _ = (phantom.affine[:3, :3] @ np.indices(gas.shape).reshape(3, -1) + phantom.affine[:3, 3:]).reshape(
            3, *gas.shape
        )
        cx, cy = x[gas].mean(), y[gas].mean()
        around = np.hypot(x - cx, y - cy) < phantom.tumour.body.diameter_mm
        assert phantom.noise_free_hu[around & (phantom.labels == Tissue.NODULE)].mean() > -150


def test_an_adenocarcinoma_has_more_spikes_and_is_smaller_than_a_large_cell_carcinoma(slices):
    adeno, large = ([p.tumour for p in slices[name]] for name in ("adenocarcinoma", "large.cell.carcinoma"))
    assert min(len(tumour.spikes) for tumour in adeno) > max(len(tumour.spikes) for tumour in large)
    sizes = [np.mean([tumour.body.diameter_mm for tumour in tumours]) for tumours in (adeno, large)]
    assert sizes[0] < sizes[1]


def test_the_person_and_the_level_do_not_depend_on_the_class():
    ill, well = (lung_slice(3, name, matrix=64) for name in ("adenocarcinoma", "normal"))
    np.testing.assert_array_equal(ill.affine, well.affine)
    elsewhere = ill.labels == well.labels
    assert 0.8 < elsewhere.mean() < 1


def test_the_noise_of_full_dose_has_the_variance_of_a_scan():
    """A scan of the same photons, measured and reconstructed from all views, is as noisy."""
    ours = lung_slice(5, "normal", matrix=128)
    free = np.ascontiguousarray(ours.noise_free_hu[..., 0])
    scan = simulate_scan(free, spacing_mm=float(ours.affine[0, 0]), seed=1, photons_per_ray=ours.photons_per_ray)
    exact = simulate_scan(free, spacing_mm=float(ours.affine[0, 0]), seed=1, photons_per_ray=1e12, electronic_noise=0)
    body = free > -100
    noise = (ours.hu[..., 0] - free)[body].std(), (scan - exact)[body].std()
    assert noise[0] == pytest.approx(noise[1], rel=0.1)


def test_the_tube_current_follows_the_patient_so_that_all_are_equally_noisy():
    noise = []
    for seed in range(4):
        phantom = lung_slice(seed, "normal", matrix=128)
        lung = phantom.labels == Tissue.LUNG
        noise.append((phantom.hu - phantom.noise_free_hu)[lung].std())
    assert max(noise) < 1.4 * min(noise)


def test_a_disc_of_water_is_equivalent_to_itself():
    x = np.arange(-100, 100) + 0.5
    disc = np.where(np.hypot(x, x[:, None]) < 60, 0.0, -1000.0)
    assert water_equivalent_mm(disc, 2.0) == pytest.approx(240, rel=0.01)


def test_a_cohort_is_written_once_and_read_back(tmp_path):
    folder = tmp_path / "lung"
    listed = write_lung_cohort(folder, **SMALL)
    assert [len(listed[section]) for section in ("training", "validation", "test", "calibration")] == [4, 1, 2, 1]
    assert [entry["class"] for entry in listed["training"]] == listed["classes"] == list(LUNG_CLASSES)
    assert [entry["label"] for entry in listed["training"]] == [0, 1, 2, 3]
    write_data_list(listed, folder / "list.json")
    entry = read_data_list(folder / "list.json", "test")[1]
    image = nib.load(entry["image"])
    made = lung_slice(200_001, entry["class"], matrix=64)
    np.testing.assert_array_equal(np.asarray(image.dataobj), np.rint(made.hu))
    np.testing.assert_allclose(image.affine, made.affine, atol=1e-6)
    assert entry["photons_per_ray"] == round(made.photons_per_ray)
    assert image.shape == (64, 64, 1) and image.get_data_dtype() == np.int16
    times = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    assert write_lung_cohort(folder, **SMALL) == listed
    assert {path: path.stat().st_mtime_ns for path in times} == times
    with pytest.raises(ValueError, match="64 pixels per side, and 32"):
        write_lung_cohort(folder, **{**SMALL, "matrix": 32})


def test_sections_and_cohorts_share_no_person(tmp_path):
    listed = write_lung_cohort(tmp_path / "lung", **SMALL)
    images = [
        np.asarray(nib.load(tmp_path / "lung" / entry["image"]).dataobj)
        for section in ("training", "validation", "test", "calibration")
        for entry in listed[section]
    ]
    assert len({image.tobytes() for image in images}) == len(images)
    assert not np.array_equal(lung_slice(0, "normal", matrix=64).affine, chest(0, matrix=64).affine)


def test_a_class_that_does_not_exist_and_a_negative_count_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"large\.cell\.carcinoma, normal.*got 'carcinoid'"):
        lung_slice(0, "carcinoid")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="negative"):
        write_lung_cohort(tmp_path, n_test=-1)
