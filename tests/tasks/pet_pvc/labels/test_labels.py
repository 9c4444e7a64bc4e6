"""Training labels from PET and MRI: right, whole, resumed, never mixed, and every fault named."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from ctrestore.errors import CTRestoreError
from ctrestore.tasks.pet_pvc.labels import find_sources, make_labels, read_fwhm_table
from ctrestore.tasks.pet_pvc.labels.making import NO_CSF, NO_PARCELS, RESAMPLED
from ctrestore.tasks.pet_pvc.scans import entries
from tests.conftest import write_nifti
from tests.tasks.pet_pvc.labels.conftest import FWHM_MM, GREY, head, voxels, write_subject

MAPS = "derivatives/segmented/{0}/anat/{0}_"


def make(root: Path, out: Path, **settings) -> None:
    make_labels(str(root), str(out), **{"split": (1, 1, 1), **settings})


def label(out: Path, name: str, method: str = "mMG") -> Path:
    return out / name / "pet" / f"{name}_trc-FDG_desc-pvc{method}_pet.nii.gz"


def sidecar(path: Path) -> dict:
    return json.loads(path.with_name(path.name.replace(".nii.gz", ".json")).read_text())


def written(out: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in out.rglob("*_pet.nii.gz")}


def test_the_label_of_a_head_of_uniform_regions_is_its_true_concentration(bids, tmp_path):
    make(bids, tmp_path / "out")
    maps, activity = head(0.3)
    made = voxels(label(tmp_path / "out", "sub-01"))
    grey = maps["GM"] > 0.5
    # Exact but for float32: mMG takes away the true values of white matter, CSF and air; what is left of a parcel's
    # edge is the other parcel, whose activity differs by a fifth.
    np.testing.assert_allclose(made[grey].mean(), activity[grey].mean(), rtol=1e-3)
    inner = (np.arange(24) < 7)[:, None, None] & grey
    np.testing.assert_allclose(made[inner], GREY[1], rtol=0.02)
    assert not made[~grey].any()


def test_rbv_gives_the_activity_of_the_whole_head(bids, tmp_path):
    make(bids, tmp_path / "out", method="RBV")
    _, activity = head(0.3)
    made = voxels(label(tmp_path / "out", "sub-01", "RBV"))
    np.testing.assert_allclose(made[activity > 0], activity[activity > 0], rtol=2e-3)
    assert sidecar(label(tmp_path / "out", "sub-01", "RBV"))["SkullStripped"] is False


def test_a_label_keeps_grid_and_unit_and_says_how_it_was_made(bids, tmp_path):
    make(bids, tmp_path / "out")
    path = label(tmp_path / "out", "sub-00")
    pet = nib.load(bids / "sub-00" / "pet" / "sub-00_trc-FDG_pet.nii.gz")
    made = nib.load(path)
    assert made.shape == pet.shape
    assert np.array_equal(made.affine, pet.affine)
    said = sidecar(path)
    assert (said["PVCMethod"], said["Units"], said["SkullStripped"]) == ("mMG", "Bq/mL", True)
    assert [said[f"FWHM_{axis}"] for axis in "xyz"] == list(FWHM_MM)
    assert said["SoftwareName"] == "ctrestore"
    assert said["Sources"][0] == "bids:raw:sub-00/pet/sub-00_trc-FDG_pet.nii.gz"
    assert any(source.endswith("sub-00_label-GM_probseg.nii.gz") for source in said["Sources"])
    description = json.loads((tmp_path / "out" / "dataset_description.json").read_text())
    assert description["DatasetType"] == "derivative"


def test_the_fwhm_follows_the_patients_axes_into_another_orientation(tmp_path):
    write_subject(tmp_path / "ras", "sub-00")
    for file in (tmp_path / "ras").rglob("*"):
        target = tmp_path / "psr" / file.relative_to(tmp_path / "ras")
        if file.name.endswith(".nii.gz"):
            image = nib.load(file)
            to_psr = nib.orientations.ornt_transform(
                nib.io_orientation(image.affine), nib.orientations.axcodes2ornt("PSR")
            )
            target.parent.mkdir(parents=True, exist_ok=True)
            nib.save(image.as_reoriented(to_psr), target)
        elif file.suffix == ".json":
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, target)
    for name in ("ras", "psr"):
        make(tmp_path / name, tmp_path / f"out_{name}", split=(1, 0, 0))
    here = nib.load(label(tmp_path / "out_ras", "sub-00"))
    there = nib.as_closest_canonical(nib.load(label(tmp_path / "out_psr", "sub-00")))
    # The matrix products round differently along the other axes.
    np.testing.assert_allclose(here.get_fdata(), there.get_fdata(), rtol=1e-3, atol=1)


class TestResuming:
    def test_a_finished_label_is_not_made_again(self, bids, tmp_path, capsys):
        out = tmp_path / "out"
        make(bids, out)
        before = written(out)
        label(out, "sub-01").unlink()  # as if the run had been stopped before it
        make(bids, out)
        after = written(out)
        assert {path for path in before if before[path] != after[path]} == {label(out, "sub-01")}
        assert "1 labels made, 2 were there already" in capsys.readouterr().out

    @pytest.mark.parametrize("change", ["fwhm", "map", "no sidecar", "truncated", "other maps"])
    def test_a_label_made_otherwise_is_made_again_and_said(self, bids, tmp_path, capsys, change):
        out = tmp_path / "out"
        make(bids, out)
        before, settings = written(out), {}
        if change == "fwhm":
            settings = {"fwhm_mm": 8.0}
        elif change == "map":
            path = bids / (MAPS.format("sub-00") + "label-GM_probseg.nii.gz")
            os.utime(path, ns=(2 * max(before.values()),) * 2)
        elif change == "no sidecar":
            path = label(out, "sub-00")
            path.with_name(path.name.replace(".nii.gz", ".json")).unlink()
        elif change == "truncated":
            path = label(out, "sub-00")
            path.write_bytes(path.read_bytes()[:-200])
        else:
            settings = {"parcels": "none"}
        make(bids, out, **settings)
        changed = {path for path, time in written(out).items() if before[path] != time}
        assert changed == (set(before) if settings else {label(out, "sub-00")})
        assert "made with other settings or from other files; made again" in capsys.readouterr().out
        if change == "fwhm":
            assert sidecar(label(out, "sub-00"))["FWHM_x"] == 8.0

    def test_two_methods_lie_side_by_side_each_with_its_list(self, bids, tmp_path):
        for method in ("mMG", "RBV"):
            make(bids, tmp_path / "out", method=method)
        for method in ("mMG", "RBV"):
            listed = json.loads((tmp_path / "out" / f"pet_pvc_{method}.json").read_text())
            assert all(f"pvc{method}" in entry["label"] for entry in listed["training"])

    def test_a_kill_between_image_and_sidecar_never_leaves_a_label_that_passes_for_finished(
        self, bids, tmp_path, monkeypatch
    ):
        out = tmp_path / "out"
        make(bids, out)

        def killed(content, path):
            raise KeyboardInterrupt

        with monkeypatch.context() as patched:
            patched.setattr("ctrestore.tasks.pet_pvc.labels.making.write_json", killed)
            with pytest.raises(KeyboardInterrupt):
                make(bids, out, fwhm_mm=8.0)
        before = written(out)
        make(bids, out, fwhm_mm=8.0)
        assert all(before[path] != time for path, time in written(out).items())


class TestFwhm:
    def test_a_table_gives_each_subject_its_own(self, bids, tmp_path):
        rows = "".join(f"{name}\t{x}\t6\t7\n" for name, x in (("sub-00", 9), ("01", 8.5), ("sub-02", 8)))
        (tmp_path / "fwhm.tsv").write_text("participant_id\tFWHM_x\tFWHM_y\tFWHM_z\n" + rows)
        make(bids, tmp_path / "out", fwhm_table=str(tmp_path / "fwhm.tsv"))
        assert [sidecar(label(tmp_path / "out", f"sub-0{i}"))["FWHM_x"] for i in range(3)] == [9, 8.5, 8]

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("participant_id,FWHM_x,FWHM_y,FWHM_z\nsub-00,6,6,6\n", "no column .*commas instead of tabs"),
            ("participant_id\tFWHM_x\tFWHM_y\tFWHM_z\nsub-00\t6\t0\t6\n", "sub-00 has no positive FWHM"),
            ("participant_id\tFWHM_x\tFWHM_y\tFWHM_z\nsub-00\t6\t\t6\n", "sub-00 has no positive FWHM"),
            ("participant_id\tFWHM_x\tFWHM_y\tFWHM_z\nsub-00\t6\t6\t6\n00\t6\t6\t6\n", "stands there twice"),
        ],
    )
    def test_a_table_that_cannot_be_meant_is_refused(self, tmp_path, text, message):
        (tmp_path / "fwhm.tsv").write_text(text)
        with pytest.raises(ValueError, match=message):
            read_fwhm_table(tmp_path / "fwhm.tsv")

    def test_a_subject_of_unknown_fwhm_is_named_with_the_remedies(self, bids, tmp_path):
        (bids / "sub-01" / "pet" / "sub-01_trc-FDG_pet.json").unlink()
        with pytest.raises(CTRestoreError, match=r"sub-01.*no such sidecar.*--fwhm_mm 6, or --fwhm_table"):
            make(bids, tmp_path / "out", split=(0.5, 0.5, 0))
        (tmp_path / "fwhm.tsv").write_text("participant_id\tFWHM_x\tFWHM_y\tFWHM_z\nsub-00\t6\t6\t6\n")
        with pytest.raises(CTRestoreError, match=r"sub-01 is not in the FWHM table"):
            make(bids, tmp_path / "out", fwhm_table=str(tmp_path / "fwhm.tsv"), split=(1, 0, 0))

    def test_an_fwhm_in_voxels_is_found_out(self, bids, tmp_path):
        with pytest.raises(CTRestoreError, match="smaller than the voxels.*given in voxels"):
            make(bids, tmp_path / "out", fwhm_mm=2.5)

    def test_training_is_told_the_fwhm_that_the_label_was_made_with(self, bids, tmp_path):
        make(bids, tmp_path / "out", fwhm_mm=[7.0, 8.0, 9.0])
        listed = entries("training", str(tmp_path / "out" / "pet_pvc_mMG.json"), str(tmp_path))
        assert [entry["fwhm_mm"] for entry in listed] == [[7.0, 8.0, 9.0]]


class TestFinding:
    def test_one_bad_subject_is_named_and_the_others_finish(self, bids, tmp_path):
        (bids / (MAPS.format("sub-01") + "label-WM_probseg.nii.gz")).unlink()
        broken = bids / (MAPS.format("sub-02") + "label-GM_probseg.nii.gz")
        broken.write_bytes(broken.read_bytes()[:100])
        with pytest.raises(CTRestoreError) as stop:
            make(bids, tmp_path / "out", split=(1, 0, 0))
        message = str(stop.value)
        assert "no white_matter of sub-01 found" in message
        assert "sub-02_label-GM_probseg.nii.gz" in message
        assert list(written(tmp_path / "out")) == [label(tmp_path / "out", "sub-00")]
        listed = json.loads((tmp_path / "out" / "pet_pvc_mMG.json").read_text())
        assert [entry["subject"] for entry in listed["training"]] == ["sub-00"]

    def test_maps_may_be_anywhere_with_patterns(self, bids, tmp_path):
        for name in ("sub-00", "sub-01", "sub-02"):
            folder = tmp_path / "plain" / name.replace("sub-0", "p")
            folder.mkdir(parents=True)
            shutil.copy(bids / name / "pet" / f"{name}_trc-FDG_pet.nii.gz", folder / "pet.nii.gz")
            for tissue in ("GM", "WM", "CSF"):
                source = bids / (MAPS.format(name) + f"label-{tissue}_probseg.nii.gz")
                shutil.copy(source, folder / f"{tissue}.nii.gz")
        make(
            tmp_path / "plain", tmp_path / "out", fwhm_mm=list(FWHM_MM), pet="{subject}/pet.nii.gz",
            grey_matter="{subject}/GM.nii.gz", white_matter="{subject}/WM.nii.gz", csf="{subject}/CSF.nii.gz",
            parcels="none",
        )  # fmt: skip
        made = sorted(path.name for path in written(tmp_path / "out"))
        assert made == [f"sub-p{i}_acq-pet_desc-pvcmMG_pet.nii.gz" for i in range(3)]

    def test_maps_in_a_templates_space_are_no_maps_of_the_subject(self, bids):
        here = bids / (MAPS.format("sub-00") + "label-GM_probseg.nii.gz")
        here.rename(here.with_name("sub-00_space-MNI152NLin2009cAsym_label-GM_probseg.nii.gz"))
        found, faults = find_sources(bids, {})
        assert [scan.subject for scan in found] == ["sub-01", "sub-02"]
        assert "no grey_matter of sub-00 found" in next(iter(faults.values()))

    def test_of_several_maps_that_of_the_pet_is_taken_and_anything_else_must_be_chosen(self, bids):
        here = bids / (MAPS.format("sub-00") + "label-GM_probseg.nii.gz")
        in_pet = here.with_name("sub-00_space-pet_label-GM_probseg.nii.gz")
        shutil.copy(here, in_pet)
        found, _ = find_sources(bids, {})
        assert found[0].maps["grey_matter"] == in_pet
        other = bids / "derivatives" / "another" / "sub-00" / "anat" / in_pet.name
        other.parent.mkdir(parents=True)
        shutil.copy(here, other)
        _, faults = find_sources(bids, {})
        assert "2 files could be its grey_matter" in next(iter(faults.values()))
        found, faults = find_sources(bids, {"grey_matter": "derivatives/segmented/*/anat/sub-??_label-GM_*"})
        assert (len(found), faults) == (3, {})

    def test_sessions_keep_their_own_maps(self, bids, tmp_path):
        for session in ("a", "b"):
            for file in [*bids.glob("sub-00/**/*.*"), *bids.glob("derivatives/segmented/sub-00/**/*.*")]:
                target = Path(
                    str(file)
                    .replace("/sub-00/", f"/sub-00/ses-{session}/")
                    .replace("sub-00_", f"sub-00_ses-{session}_")
                )
                target = tmp_path / "two" / target.relative_to(bids)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file, target)
        found, faults = find_sources(tmp_path / "two", {})
        assert not faults
        for scan, session in zip(found, "ab"):
            assert all(f"ses-{session}" in path.name for path in (scan.image, *scan.maps.values()))

    def test_a_folder_without_pet_says_how_to_name_the_files(self, tmp_path):
        (tmp_path / "empty").mkdir()
        with pytest.raises(CTRestoreError, match=r"holds no BIDS PET.*--pet.*--grey_matter"):
            make(tmp_path / "empty", tmp_path / "out")


class TestGrids:
    def test_maps_of_a_coregistered_mri_are_brought_to_the_grid_of_the_pet(self, bids, tmp_path, capsys):
        """On a grid of 2 mm, voxel centres between those of the PET: each PET voxel is the mean of equal neighbours."""
        affine = np.diag([2.0, 2.0, 2.0, 1.0])
        affine[:3, 3] = -1.0
        for kind in ("label-GM_probseg", "label-WM_probseg", "label-CSF_probseg", "desc-parcels_dseg"):
            path = bids / (MAPS.format("sub-00") + f"{kind}.nii.gz")
            fine = voxels(path).repeat(2, 0).repeat(2, 1).repeat(2, 2)
            write_nifti(path, fine, affine)
        make(bids, tmp_path / "out")
        assert f"{RESAMPLED} (grey_matter, white_matter, csf, parcels): 1 of 3 scans" in capsys.readouterr().out
        make(bids, tmp_path / "again", parcels="none")
        grey = head()[0]["GM"] > 0.5
        np.testing.assert_allclose(voxels(label(tmp_path / "out", "sub-00"))[grey].mean(), 3300, rtol=5e-3)
        listed = json.loads((tmp_path / "out" / "pet_pvc_mMG.json").read_text())
        by_subject = {entry["subject"]: entry for part in listed.values() if isinstance(part, list) for entry in part}
        assert "grey_matter" not in by_subject["sub-00"]  # off the grid of the PET: of no use to the evaluation
        assert "grey_matter" in by_subject["sub-01"]

    def test_maps_that_lie_elsewhere_are_refused(self, bids, tmp_path):
        for tissue in ("GM", "WM", "CSF"):
            path = bids / (MAPS.format("sub-00") + f"label-{tissue}_probseg.nii.gz")
            write_nifti(path, voxels(path), np.diag([4.0, 4.0, 4.0, 1.0]) + 60 * np.eye(4, k=3))
        with pytest.raises(CTRestoreError, match=r"sub-00_label-GM.*lies outside the PET.*coregister"):
            make(bids, tmp_path / "out", split=(0.5, 0.5, 0))

    def test_a_pet_that_is_not_where_its_maps_are_is_refused(self, bids, tmp_path):
        path = bids / "sub-00" / "pet" / "sub-00_trc-FDG_pet.nii.gz"
        write_nifti(path, voxels(path).max() - voxels(path))
        with pytest.raises(CTRestoreError, match=r"no brighter inside the brain.*not coregistered"):
            make(bids, tmp_path / "out", split=(0.5, 0.5, 0))

    def test_without_csf_and_parcels_the_log_says_what_stands_in(self, bids, tmp_path, capsys):
        make(bids, tmp_path / "out", csf="none", parcels="none")
        said = capsys.readouterr().out
        assert f"{NO_CSF}: 3 of 3 scans" in said
        assert f"{NO_PARCELS}: 3 of 3 scans" in said
        assert sidecar(label(tmp_path / "out", "sub-00"))["PVCNotes"] == [NO_CSF, NO_PARCELS]

    def test_a_dynamic_pet_is_refused_with_the_remedy(self, bids, tmp_path):
        path = bids / "sub-00" / "pet" / "sub-00_trc-FDG_pet.nii.gz"
        write_nifti(path, np.stack([voxels(path)] * 2, axis=-1))
        with pytest.raises(CTRestoreError, match="average its frames"):
            make(bids, tmp_path / "out", split=(0.5, 0.5, 0))

    def test_parcels_that_were_interpolated_are_refused(self, bids, tmp_path):
        path = bids / (MAPS.format("sub-00") + "desc-parcels_dseg.nii.gz")
        write_nifti(path, 0.5 * voxels(path))
        with pytest.raises(CTRestoreError, match=r"dseg\.nii\.gz: expected parcel numbers.*nearest"):
            make(bids, tmp_path / "out", split=(0.5, 0.5, 0))


class TestDataList:
    def test_its_paths_start_from_its_own_folder_wherever_training_looks(self, bids, tmp_path):
        make(bids, tmp_path / "out")
        listed = json.loads((tmp_path / "out" / "pet_pvc_mMG.json").read_text())
        assert not any(Path(entry["image"]).is_absolute() for entry in listed["training"])
        for folder in (tmp_path / "elsewhere", bids):
            found = [e for part in ("training", "validation", "test")
                     for e in entries(part, str(tmp_path / "out" / "pet_pvc_mMG.json"), str(folder))]  # fmt: skip
            assert {Path(e["label"]) for e in found} == set(written(tmp_path / "out"))
            assert all(Path(e["image"]).is_relative_to(bids) for e in found)

    def test_a_split_that_cannot_be_is_said_before_any_work(self, bids, tmp_path):
        with pytest.raises(CTRestoreError, match="--split 5 1 1 adds up to 7, but there are 3 subjects"):
            make(bids, tmp_path / "out", split=(5, 1, 1))
        assert not (tmp_path / "out").exists()

    def test_a_list_that_changes_is_kept_aside(self, bids, tmp_path, capsys):
        make(bids, tmp_path / "out", split_seed=1)
        first = (tmp_path / "out" / "pet_pvc_mMG.json").read_bytes()
        make(bids, tmp_path / "out", split_seed=1)
        assert (tmp_path / "out" / "pet_pvc_mMG.json").read_bytes() == first
        assert not list((tmp_path / "out").glob("*previous*"))
        make(bids, tmp_path / "out", split=(2, 1, 0), split_seed=1)
        assert (tmp_path / "out" / "pet_pvc_mMG_previous_1.json").read_bytes() == first
        assert "subjects may have moved" in capsys.readouterr().out

    def test_one_scan_under_two_names_makes_no_list(self, bids, tmp_path):
        shutil.copy(
            bids / "sub-00" / "pet" / "sub-00_trc-FDG_pet.nii.gz", bids / "sub-01" / "pet" / "sub-01_trc-FDG_pet.nii.gz"
        )
        with pytest.raises(CTRestoreError, match=r"no data list: .*the same content"):
            make(bids, tmp_path / "out")


def test_an_unknown_method_and_two_kinds_of_fwhm_are_refused(bids, tmp_path):
    with pytest.raises(CTRestoreError, match="mMG or RBV"):
        make(bids, tmp_path / "out", method="GTM")
    with pytest.raises(CTRestoreError, match="not both"):
        make(bids, tmp_path / "out", fwhm_mm=6, fwhm_table="x.tsv")
