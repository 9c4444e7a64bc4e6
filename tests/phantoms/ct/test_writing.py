"""CT phantoms on disk equal those in memory, and are made once."""

from __future__ import annotations

import json

import nibabel as nib
import numpy as np
import pytest

from ctrestore.data_lists import check_data_list, read_data_list, write_data_list
from ctrestore.io.dicom import load_series
from ctrestore.phantoms.ct import CLASSES, Tissue, chest, write_ct_cohort, write_dicom

SMALL = {"n_training": 2, "n_validation": 1, "n_test": 1, "n_slices": 2, "matrix": 64, "n_processes": 1}


def test_a_cohort_is_listed_written_once_and_read_back(tmp_path):
    folder = tmp_path / "ct"
    listed = write_ct_cohort(folder, "chest", **SMALL)
    assert [len(listed[section]) for section in ("training", "validation", "test")] == [2, 1, 1]
    write_data_list(listed, folder / "list.json")
    entries = read_data_list(folder / "list.json", "training")
    image = nib.load(entries[0]["image"])
    made = chest(0, n_slices=2, matrix=64, n_nodules=0)
    np.testing.assert_array_equal(np.asarray(image.dataobj), np.rint(made.hu))
    np.testing.assert_allclose(image.affine, made.affine, atol=1e-6)
    regions = np.asarray(nib.load(entries[0]["regions"]).dataobj)
    np.testing.assert_array_equal(regions, made.labels)
    assert entries[0]["n_findings"] == len(made.findings)
    times = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    assert write_ct_cohort(folder, "chest", **SMALL) == listed
    assert {path: path.stat().st_mtime_ns for path in times} == times


def test_two_processes_write_what_one_writes(tmp_path):
    one, two = (write_ct_cohort(tmp_path / str(n), "abdomen", **{**SMALL, "n_processes": n}) for n in (1, 2))
    assert one == two
    for entry in one["training"]:
        voxels = [np.asarray(nib.load(tmp_path / n / entry["image"]).dataobj) for n in "12"]
        np.testing.assert_array_equal(*voxels)


def test_chests_alternate_between_four_classes_by_the_kind_of_their_nodules(tmp_path):
    listed = write_ct_cohort(tmp_path, "chest", **{**SMALL, "n_training": 5})
    assert listed["classes"] == list(CLASSES)
    assert [entry["class"] for entry in listed["training"]] == [*CLASSES, "normal"]
    for entry in listed["training"]:
        (sidecar,) = (tmp_path / entry["subject"] / "ct").glob("*.json")
        kinds = {finding["kind"] for finding in json.loads(sidecar.read_text(encoding="utf-8"))["findings"]}
        assert kinds == ({entry["class"]} if entry["class"] != "normal" else set())


def test_the_sidecar_holds_the_findings_and_the_meaning_of_the_labels(tmp_path):
    write_ct_cohort(tmp_path, "abdomen", n_training=1, n_validation=0, n_test=0, n_slices=1, matrix=64, n_processes=1)
    (sidecar,) = tmp_path.glob("sub-*/ct/*.json")
    truth = json.loads(sidecar.read_text(encoding="utf-8"))
    assert truth["labels"]["liver_lesion"] == Tissue.LIVER_LESION
    assert truth["kind"] == "abdomen" and truth["seed"] == 0
    assert all(finding["what"] == "liver lesion" for finding in truth["findings"])


def test_both_kinds_share_a_folder_but_no_subject(tmp_path):
    both = [write_ct_cohort(tmp_path, kind, **SMALL) for kind in ("chest", "abdomen")]
    joined = {section: both[0][section] + both[1][section] for section in ("training", "validation", "test")}
    check_data_list(joined)
    assert len({entry["subject"] for entries in joined.values() for entry in entries}) == 8


def test_other_data_other_versions_and_other_sizes_are_not_mixed_in(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "scan.txt").write_text("mine")
    with pytest.raises(ValueError, match="holds other data"):
        write_ct_cohort(tmp_path / "mine", "chest", **SMALL)
    write_ct_cohort(tmp_path / "ct", "chest", **SMALL)
    with pytest.raises(ValueError, match="2 slices of 64 pixels"):
        write_ct_cohort(tmp_path / "ct", "chest", **{**SMALL, "matrix": 96})
    description = tmp_path / "ct" / "dataset_description.json"
    description.write_text(description.read_text().replace('"Version": "1"', '"Version": "0"'))
    with pytest.raises(ValueError, match="of version 0; expected"):
        write_ct_cohort(tmp_path / "ct", "chest", **SMALL)
    with pytest.raises(ValueError, match="cannot be negative"):
        write_ct_cohort(tmp_path / "new", "chest", n_test=-1)
    with pytest.raises(ValueError, match="n_processes must be at least 1"):
        write_ct_cohort(tmp_path / "new", "chest", n_processes=0)
    with pytest.raises(ValueError, match="got 'head'"):
        write_ct_cohort(tmp_path / "new", "head")


def test_dicom_comes_back_as_the_same_volume(tmp_path):
    phantom = chest(1, n_slices=3, matrix=64)
    write_dicom(phantom, tmp_path / "series", name="sub-1")
    series = load_series(tmp_path / "series")
    to_ras = nib.as_closest_canonical(nib.Nifti1Image(series.volume, series.affine))
    np.testing.assert_allclose(to_ras.affine, phantom.affine, atol=1e-4)
    np.testing.assert_array_equal(to_ras.get_fdata(), np.rint(phantom.hu))
