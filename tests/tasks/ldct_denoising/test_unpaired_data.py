"""Nobody is in both domains, wherever they come from, and validation holds low dose alone."""

from __future__ import annotations

import json

import nibabel as nib
import numpy as np
import pytest

from ctrestore.errors import CTRestoreError
from ctrestore.tasks.ldct_denoising.unpaired_data import (
    UnpairedDataset,
    has_low_dose,
    low_dose_half,
    noise_of,
    unpaired_slices,
)


def scan(folder, name, n_slices=3):
    nib.save(nib.Nifti1Image(np.zeros((8, 8, n_slices), np.int16), np.eye(4)), folder / name)
    return name


def patients(folder, names, n_slices=3, pair=False):
    found = [{"subject": name, "image": scan(folder, f"{name}.nii", n_slices)} for name in names]
    return [{**one, "label": scan(folder, f"{one['subject']}_full.nii", n_slices)} for one in found] if pair else found


def listed(folder, name="list.json", **sections):
    (folder / name).write_text(json.dumps(sections))
    return str(folder / name)


def domains(folder, data, **options):
    return [
        unpaired_slices(domain, data, str(folder), **options)  # type: ignore[arg-type]
        for domain in ("low", "full", "validation")
    ]


def subjects(entries):
    return {entry["subject"] for entry in entries}


@pytest.fixture(params=["full dose alone", "pairs", "two sections", "two lists"])
def scheme(request, tmp_path):
    """Low dose, full dose and validation of each source of data."""
    pair = request.param == "pairs"
    training = patients(tmp_path, [f"p{i}" for i in range(7)], pair=pair)
    validation = patients(tmp_path, ["v0", "v1"], pair=pair)
    if request.param == "two sections":
        data = listed(tmp_path, training_low_dose=training[:2], training_full_dose=training[2:], validation=validation)
        return domains(tmp_path, data)
    if request.param == "two lists":
        low = listed(tmp_path, "low.json", training=training[:2], validation=validation)
        return domains(tmp_path, listed(tmp_path, training=training[2:]), low_dose_list=low)
    return domains(tmp_path, listed(tmp_path, training=training, validation=validation))


def test_the_two_domains_and_validation_have_no_subject_in_common(scheme):
    low, full, validation = (subjects(entries) for entries in scheme)
    assert low
    assert full
    assert not low & full
    assert not (low | full) & validation
    assert len(low | full) == 7
    assert validation == {"v0", "v1"}


def test_an_entry_has_one_image_and_nothing_to_compare_it_with(scheme):
    for entries in scheme:
        assert not any("label" in entry for entry in entries)


def test_of_pairs_one_half_gives_its_low_dose_and_the_other_its_full_dose(tmp_path):
    data = listed(
        tmp_path, training=patients(tmp_path, list("abcd"), pair=True), validation=patients(tmp_path, ["v"], pair=True)
    )
    low, full, validation = domains(tmp_path, data)
    assert not any(entry["image"].endswith("_full.nii") for entry in low + validation)
    assert all(entry["image"].endswith("_full.nii") for entry in full)
    assert has_low_dose(data)


def test_of_full_dose_alone_validation_is_simulated_at_every_dose(tmp_path):
    data = listed(tmp_path, training=patients(tmp_path, "ab"), validation=patients(tmp_path, ["v"], n_slices=2))
    found = unpaired_slices("validation", data, str(tmp_path), dose_fractions=[0.5, 0.25])
    assert sorted(entry["dose_fraction"] for entry in found) == [0.25, 0.25, 0.5, 0.5]
    assert not any("dose_fraction" in entry for entry in unpaired_slices("low", data, str(tmp_path)))
    assert not has_low_dose(data)


def test_the_halves_differ_by_one_at_most_and_do_not_depend_on_the_order():
    names = [f"p{i}" for i in range(9)]
    assert low_dose_half(names) == low_dose_half(names[::-1] + names)
    assert len(low_dose_half(names)) == 4


def test_somebody_in_both_lists_is_refused_by_name(tmp_path):
    both = patients(tmp_path, ["anna", "ben"])
    low = listed(tmp_path, "low.json", training=both[:1])
    with pytest.raises(CTRestoreError, match="anna is in the low-dose and in the full-dose list"):
        unpaired_slices("low", listed(tmp_path, training=both), str(tmp_path), low_dose_list=low)


def test_one_subject_makes_no_two_domains(tmp_path):
    with pytest.raises(CTRestoreError, match="two subjects or more"):
        unpaired_slices("full", listed(tmp_path, training=patients(tmp_path, ["a"])), str(tmp_path))


def test_nobody_gives_more_slices_than_allowed(tmp_path):
    data = listed(tmp_path, training=[*patients(tmp_path, ["a"], 9), *patients(tmp_path, ["b"], 2)])
    counts = [len(unpaired_slices(d, data, str(tmp_path), slices_per_subject=3)) for d in ("low", "full")]
    assert sorted(counts) == [2, 3]


def test_a_batch_item_has_a_patch_of_either_domain_and_the_shorter_one_is_repeated():
    low, full = ([{"image": (name, i)} for i in range(n)] for name, n in (("low", 2), ("full", 3)))
    dataset = UnpairedDataset(low, full)
    assert [dataset[i] for i in range(len(dataset))] == [
        {"image": ("low", i % 2), "label": ("full", i)} for i in range(3)
    ]


def test_the_noise_to_match_is_that_of_full_dose_slices(tmp_path):
    rng = np.random.default_rng(0)
    hu = np.round(50 + rng.normal(0, 16, (64, 64, 1))).astype(np.int16)
    nib.save(nib.Nifti1Image(hu, np.eye(4)), tmp_path / "a.nii")
    [(fine, coarse)] = noise_of([{"image": str(tmp_path / "a.nii"), "slice": 0}])
    assert fine == pytest.approx(4, abs=0.2)
    assert coarse < fine
