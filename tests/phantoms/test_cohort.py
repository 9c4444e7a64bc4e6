"""The embedded subjects: fixed by their number, and test subjects unlike all others."""

from __future__ import annotations

import dataclasses
import json
import sys
from itertools import product

import nibabel as nib
import numpy as np
import pytest

from ctrestore.data_lists import check_data_list
from ctrestore.phantoms import Grid, cohort, data_list, files_of, render, sidecar_of, writing
from tests.conftest import ROOT

COHORT_MODULE = sys.modules[render.__module__]  # the package's name for it is the function's
SUBJECTS = cohort()
SEEN = [subject for subject in SUBJECTS if subject.split != "test"]  # by training or when choosing its checkpoint
TEST = [subject for subject in SUBJECTS if subject.split == "test"]


def test_the_committed_data_list_is_that_of_the_cohort():
    listed = json.loads((ROOT / "data_lists" / "pet_pvc_phantom.json").read_text(encoding="utf-8"))
    assert listed == data_list(SUBJECTS), "remedy: ctrestore phantoms --list data_lists/pet_pvc_phantom.json --force"
    check_data_list(listed)


@pytest.mark.parametrize("property_", ["family", "tracer", "grid", "fwhm_mm", "seed", "name"])
def test_test_subjects_share_nothing_with_the_others(property_):
    assert not {getattr(s, property_) for s in TEST} & {getattr(s, property_) for s in SEEN}


def test_most_test_widths_are_outside_the_training_range():
    def inside(subject):
        transaxial, _, axial = subject.fwhm_mm
        return min(transaxial, axial) >= 4.5 and max(transaxial, axial) <= 7.5 and abs(transaxial - axial) <= 0.81

    assert all(inside(subject) for subject in SEEN)
    assert not any(inside(subject) for subject in TEST)


def test_every_test_grid_is_turned_or_tilted_as_none_in_training():
    laid = {(subject.grid.axes, subject.grid.tilt_deg) for subject in SEEN}
    assert all((s.grid.axes, s.grid.tilt_deg) not in laid for s in TEST)


def test_training_has_every_tracer_and_grid_in_every_family():
    training = [subject for subject in SEEN if subject.split == "training"]
    families, tracers, grids = ({getattr(s, p) for s in training} for p in ("family", "tracer", "grid"))
    assert {(s.family, s.tracer) for s in training} == set(product(families, tracers))
    assert {(s.family, s.grid) for s in training} == set(product(families, grids))


def test_a_smaller_cohort_is_the_beginning_of_a_larger_one():
    large = [subject for subject in cohort(100, 0, 0) if subject.split == "training"]
    assert cohort(40, 0, 0) == large[:40]
    assert len({subject.name for subject in large}) == len({subject.seed for subject in large}) == 100


def test_a_negative_count_is_refused():
    with pytest.raises(ValueError, match="got 40, -1 and 8"):
        cohort(n_validation=-1)


@pytest.mark.parametrize("subject", [SEEN[0], TEST[1]], ids=lambda s: s.name)
def test_the_sidecar_holds_tracer_units_and_width(subject):
    sidecar = sidecar_of(subject)
    assert sidecar["Units"] == "Bq/mL"
    assert f"_trc-{sidecar['TracerName']}_pet.nii.gz" in files_of(subject)["image"]
    assert sidecar["TracerRadionuclide"] == {"AV45neg": "F18", "PIBpos": "C11"}[subject.tracer]
    assert tuple(sidecar[f"FWHM_{axis}"] for axis in "xyz") == subject.fwhm_mm
    json.dumps(sidecar)


@pytest.fixture(scope="module")
def small_subject():
    """A test subject on a coarse, rotated grid that holds the whole head."""
    return dataclasses.replace(TEST[0], grid=Grid((116, 92, 104), (2.0, 2.0, 2.0), "PLI"))


@pytest.fixture(scope="module")
def images(small_subject, anatomies):
    """Its images, in the head of the other tests: making another takes seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(COHORT_MODULE, "build_anatomy", lambda family, *, seed: anatomies[family])
        return render(small_subject)


def test_every_image_lies_on_the_subjects_grid(images, small_subject):
    assert images.keys() | {"label"} == files_of(small_subject).keys()
    for key, image in images.items():
        assert image.shape == small_subject.grid.matrix
        assert "".join(nib.aff2axcodes(image.affine)) == "PLI"
        np.testing.assert_array_equal(image.affine, images["image"].affine)
        assert image.get_data_dtype() == (np.uint8 if key in ("parcels", "lesions") else np.float32)
        assert image.header.get_xyzt_units()[0] == "mm"


def test_grey_matter_holds_the_activity_asked_in_bq_per_ml(images, small_subject):
    grey = images["grey_matter"].get_fdata() > 0.5
    mean = images["truth"].get_fdata()[grey].mean()
    assert mean == pytest.approx(small_subject.scale_bq_per_ml, rel=0.06)  # interpolation to 2 mm dilutes the ribbon


def test_the_pet_is_the_truth_blurred(images):
    truth, pet, grey = (images[key].get_fdata() for key in ("truth", "image", "grey_matter"))
    assert pet.sum() == pytest.approx(truth.sum(), rel=0.005)  # 2 mm samples of 1 mm volumes
    assert pet[grey > 0.5].mean() < 0.95 * truth[grey > 0.5].mean()  # spill-out, the effect to correct


def test_the_t1_separates_the_tissues(images):
    t1, grey, white, csf = (images[k].get_fdata() for k in ("t1", "grey_matter", "white_matter", "csf"))
    # 850, 600 and 250, times a bias field of at most 24 % that is about 1 in the mean.
    for fraction, intensity in ((white, 850), (grey, 600), (csf, 250)):
        assert t1[fraction > 0.95].mean() == pytest.approx(intensity, rel=0.15)


def test_a_subject_survives_being_written(images, small_subject, tmp_path, monkeypatch):
    """Writing only rounds: 1/65536 of the range of activities, 1/510 of a fraction, nothing of labels."""
    monkeypatch.setattr(writing, "render", lambda subject: images)
    writing.write_subject(small_subject, tmp_path)
    assert writing.is_written(small_subject, tmp_path)
    for key, file in files_of(small_subject).items():
        stored = nib.load(tmp_path / file)
        expected = images["truth" if key == "label" else key]
        np.testing.assert_allclose(stored.affine, expected.affine, atol=1e-4)  # headers hold float32
        values = expected.get_fdata()
        step = {np.uint8: 0}.get(expected.get_data_dtype().type, values.max() / 65000)
        tolerance = 1 / 500 if key in writing.FRACTIONS else step
        np.testing.assert_allclose(stored.get_fdata(), values, rtol=0, atol=tolerance, err_msg=key)
        if key in writing.FRACTIONS:
            assert stored.get_data_dtype() == np.uint8
    sidecar = tmp_path / files_of(small_subject)["image"].replace(".nii.gz", ".json")
    assert json.loads(sidecar.read_text(encoding="utf-8")) == sidecar_of(small_subject)
