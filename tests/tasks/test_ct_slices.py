"""Entries of slices: full dose alone or in pairs; prepared once, drawn from anew."""

from __future__ import annotations

import json

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import get_track_meta
from monai.transforms import Compose, RandSpatialCropd

from ctrestore.errors import CTRestoreError
from ctrestore.tasks.ct_slices import embedded_list, predictions_in_hu, slices
from ctrestore.tasks.ldct_denoising.evaluation import is_paired
from ctrestore.training.prepared_data import prepared_dataset
from ctrestore.transforms.slices import LoadSliced


class Counting(LoadSliced):
    calls = 0

    def __call__(self, item):
        Counting.calls += 1
        return super().__call__(item)


def scan(folder, name, n_slices=4, value=0.0):
    """A gradient along x, other for every slice, in air."""
    volume = np.full((16, 16, n_slices), -1000, np.int16)
    volume[4:12, 4:12] = value + np.arange(8)[:, None, None] + 10 * np.arange(n_slices)
    nib.save(nib.Nifti1Image(volume, np.eye(4)), folder / name)
    return name


def listed(folder, entries, section="training"):
    path = folder / "list.json"
    path.write_text(json.dumps({section: entries}))
    return str(path)


def test_full_dose_alone_is_the_label_of_every_dose(tmp_path):
    data = listed(tmp_path, [{"subject": "a", "image": scan(tmp_path, "a.nii"), "known_hu": [-1000, 394]}])
    found = slices("training", data, str(tmp_path), dose_fractions=[0.5, 0.1])
    assert len(found) == 8
    assert {entry["label"] for entry in found} == {str(tmp_path / "a.nii")}
    assert not any("image" in entry for entry in found)
    assert [(e["slice"], e["dose_fraction"]) for e in found[:3]] == [(0, 0.5), (0, 0.1), (1, 0.5)]
    assert found[0]["known_hu"] == [-1000, 394]
    assert not is_paired(data)


def test_pairs_keep_both_and_are_not_lowered_again(tmp_path):
    pair = {"subject": "a", "image": scan(tmp_path, "low.nii", value=5), "label": scan(tmp_path, "full.nii")}
    data = listed(tmp_path, [pair])
    found = slices("training", data, str(tmp_path), slices_per_scan=2, dose_fractions=[0.5, 0.1])
    assert [(entry["slice"], "dose_fraction" in entry) for entry in found] == [(1, False), (3, False)]
    assert is_paired(data)


def test_a_pair_of_two_shapes_and_a_mixed_list_are_refused(tmp_path):
    files = {"image": scan(tmp_path, "low.nii", n_slices=3), "label": scan(tmp_path, "full.nii")}
    with pytest.raises(CTRestoreError, match=r"low\.nii has shape \(16, 16, 3\)"):
        slices("training", listed(tmp_path, [{"subject": "a", **files}]), str(tmp_path))
    with pytest.raises(CTRestoreError, match="some scans have a label"):
        is_paired(listed(tmp_path, [{"subject": "a", **files}, {"subject": "b", "image": "full.nii"}]))
    with pytest.raises(CTRestoreError, match=r"missing\.json"):
        is_paired(str(tmp_path / "missing.json"))


def test_what_precedes_the_first_random_transform_is_done_once_and_kept(tmp_path, monkeypatch):
    data = listed(tmp_path, [{"subject": "a", "image": scan(tmp_path, "a.nii")}])
    entries = slices("training", data, str(tmp_path))
    monkeypatch.setattr(Counting, "calls", 0)

    def dataset(side=4):
        crop = RandSpatialCropd(keys="label", roi_size=(side, side), random_size=False)
        return prepared_dataset(entries, Compose([Counting(keys="label"), crop]), cache_dir=str(tmp_path / "cache"))

    first = dataset()
    assert Counting.calls == 4
    drawn = torch.stack([first[0]["label"] for _ in range(20)])
    assert drawn.shape == (20, 1, 4, 4)
    assert len({tuple(patch.flatten().tolist()) for patch in drawn}) > 5
    dataset(side=5)  # other random transforms, same files
    assert Counting.calls == 4


def test_patches_are_drawn_without_metadata_and_the_process_keeps_its_own(tmp_path):
    data = listed(tmp_path, [{"subject": "a", "image": scan(tmp_path, "a.nii")}])
    seen = []

    def note_setting(entry):
        seen.append(get_track_meta())
        if len(seen) == 2:
            raise ValueError("broken")
        return entry

    random_part = [RandSpatialCropd(keys="label", roi_size=(4, 4), random_size=False), note_setting]
    chain = Compose([LoadSliced(keys="label"), *random_part])
    dataset = prepared_dataset(slices("training", data, str(tmp_path)), chain)
    dataset.transform.set_random_state(3)
    plain = dataset[0]["label"]
    assert type(plain) is torch.Tensor
    assert get_track_meta()
    with pytest.raises(RuntimeError):
        dataset[0]
    assert seen == [False, False]
    assert get_track_meta()
    dataset.transform.set_random_state(3)
    assert torch.equal(plain, dataset.transform({"label": dataset.data[0]["label"]})["label"])


def test_a_cache_is_not_shared_by_chains_that_prepare_differently(tmp_path):
    data = listed(tmp_path, [{"subject": "a", "image": scan(tmp_path, "a.nii"), "other": 3}])
    entries = [{**entry, "other": 3} for entry in slices("training", data, str(tmp_path))]
    first = prepared_dataset(entries, Compose([LoadSliced(keys="label")]), cache_dir=str(tmp_path / "cache"))
    third = prepared_dataset(
        entries, Compose([LoadSliced(keys="label", slice_key="other")]), cache_dir=str(tmp_path / "cache")
    )
    assert torch.equal(first[3]["label"], third[0]["label"])
    assert not torch.equal(first[0]["label"], third[0]["label"])


def test_metrics_see_hounsfield_units():
    sample = {"pred": torch.tensor([[-1.0, 2.0]]), "label": torch.tensor([[0.04, 0.0]])}
    pred, label = predictions_in_hu([sample])
    torch.testing.assert_close(pred[0], torch.tensor([[-1000.0, 2000.0]]))
    torch.testing.assert_close(label[0], torch.tensor([[40.0, 0.0]]))


def test_the_embedded_list_is_made_once(tmp_path, monkeypatch):
    made = []

    def write(folder, kind, **size):
        made.append(kind)
        return {section: [{"subject": kind, "image": f"{kind}.nii"}] for section in ("training", "validation", "test")}

    monkeypatch.setattr("ctrestore.phantoms.ct.write_ct_cohort", write)
    path = embedded_list(tmp_path / "phantoms")
    assert embedded_list(tmp_path / "phantoms") == path
    assert made == ["chest", "abdomen"]
    assert [e["subject"] for e in json.loads(path.read_text())["test"]] == ["chest", "abdomen"]
