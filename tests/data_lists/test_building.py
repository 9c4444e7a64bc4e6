"""Data lists: pairing, assignment of subjects to sections, and refusals."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from ctrestore.data_lists import SECTIONS, build_data_list, check_data_list, read_data_list, write_data_list
from ctrestore.data_lists.pairing import find_pairs
from ctrestore.data_lists.splitting import split_sizes, split_subjects
from ctrestore.io.grid import find_duplicates, read_grid

SPACING_MM = 2.0
AFFINE = np.diag([SPACING_MM, SPACING_MM, SPACING_MM, 1.0])
FOLDERS = {"image": "{subject}/pet.nii.gz", "label": "{subject}/pvc.nii.gz"}


def write_scan(path: Path, *, shape=(4, 5, 6), affine=AFFINE) -> Path:
    """A NIfTI with content that depends on its path, so that no two are equal."""
    values = np.random.default_rng(list(path.as_posix().encode())).random(shape, dtype=np.float32)
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(values, affine), path)
    return path


@pytest.fixture
def folders(tmp_path):
    """Five subjects, each a folder with pet.nii.gz and pvc.nii.gz."""
    for number in range(5):
        for name in ("pet", "pvc"):
            write_scan(tmp_path / f"p{number}" / f"{name}.nii.gz")
    return tmp_path


def write_bids_subject(root: Path, subject: str, scan: str, *, label: str = "desc-pvcGTM", pipeline: str = "pvc"):
    """One PET and its corrected PET; ``scan`` is its folder and entities, such as "ses-1/trc-FDG"."""
    session, _, rest = scan.rpartition("/")
    name = "_".join(part for part in (subject, session, rest) if part)
    write_scan(root / subject / session / "pet" / f"{name}_pet.nii.gz")
    write_scan(root / "derivatives" / pipeline / subject / session / "pet" / f"{name}_{label}_pet.nii.gz")


@pytest.fixture
def phantom(tmp_path):
    """Three subjects in the phantoms' layout."""
    for number in range(3):
        subject = f"sub-{number:03d}"
        write_bids_subject(tmp_path, subject, "trc-FDG", label="desc-truth", pipeline="phantom")
        derived = tmp_path / "derivatives" / "phantom" / subject
        write_scan(derived / "pet" / f"{subject}_trc-FDG_desc-greymatter_pet.nii.gz")
        for name in ("label-GM_probseg", "label-WM_probseg", "label-CSF_probseg", "desc-parcels_dseg"):
            write_scan(derived / "anat" / f"{subject}_{name}.nii.gz")
        write_scan(derived / "anat" / f"{subject}_desc-lesions_dseg.nii.gz")
        write_scan(tmp_path / subject / "anat" / f"{subject}_T1w.nii.gz", shape=(8, 8, 8))
    return tmp_path


def entries_of(data_list):
    return [entry for section in SECTIONS for entry in data_list.get(section, [])]


# --- Splitting -------------------------------------------------------------------------------------------------------


def test_the_same_seed_draws_the_same_subjects_and_another_seed_draws_others():
    subjects = [f"sub-{number:03d}" for number in range(694)]
    first = split_subjects(subjects, (550, 50, 94), seed=0)
    assert [len(first[section]) for section in SECTIONS] == [550, 50, 94]
    assert sorted(sum(first.values(), [])) == subjects  # everyone once
    assert split_subjects(reversed(subjects), (550, 50, 94), seed=0) == first
    assert split_subjects(subjects, (550, 50, 94), seed=1) != first


def test_the_draw_is_frozen_across_releases():
    # `printf 0/a | sha256sum` and so on sort the letters to f c b e d a; another draw would move published splits.
    drawn = {"training": ["b", "c", "f"], "validation": ["e"], "test": ["a", "d"]}
    assert split_subjects("abcdef", (3, 1, 2), seed=0) == drawn


@pytest.mark.parametrize(
    ("n_subjects", "split", "sizes"),
    [
        (10, (0.8, 0.1, 0.1), [8, 1, 1]),
        (3, (0.8, 0.1, 0.1), [1, 1, 1]),  # every share above zero gets a subject
        (7, (0.5, 0.25, 0.25), [3, 2, 2]),
        (4, (1, 0, 0), [4, 0, 0]),  # adds up to 1: shares
        (1, (0, 0, 1), [0, 0, 1]),
        (4, (3, 0, 1), [3, 0, 1]),
    ],
)
def test_counts_are_used_unchanged_and_fractions_are_rounded(n_subjects, split, sizes):
    assert split_sizes(n_subjects, split) == sizes


def test_counts_that_do_not_add_up_say_how_many_subjects_there_are():
    with pytest.raises(ValueError, match=r"550 50 94 adds up to 694, but there are 12 subjects"):
        split_sizes(12, (550, 50, 94))
    with pytest.raises(ValueError, match="2 subjects cannot fill 3 sections"):
        split_sizes(2, (0.8, 0.1, 0.1))
    with pytest.raises(ValueError, match="none negative"):
        split_sizes(2, (3, -1, 0))
    with pytest.raises(ValueError, match="none negative"):
        split_sizes(2, (float("nan"), 1, 0))


def test_a_subject_keeps_its_sessions_runs_and_tracers_together(tmp_path):
    for number in range(6):
        for scan in ("ses-1/trc-FDG", "ses-1/trc-AV45", "ses-2/trc-FDG_run-1", "ses-2/trc-FDG_run-2"):
            write_bids_subject(tmp_path, f"sub-{number}", scan)
    data_list = build_data_list("pet_pvc", tmp_path, split=(4, 1, 1))
    assert [len(data_list[section]) for section in SECTIONS] == [16, 4, 4]
    sections = [{entry["subject"] for entry in data_list[section]} for section in SECTIONS]
    assert sum(len(subjects) for subjects in sections) == len(set.union(*sections)) == 6


# --- Finding and pairing ---------------------------------------------------------------------------------------------


def test_the_phantom_layout_needs_no_patterns_and_includes_its_maps(phantom):
    data_list = build_data_list("pet_pvc", phantom, split=(1, 1, 1))
    derived = "derivatives/phantom/sub-000"
    assert next(entry for entry in entries_of(data_list) if entry["subject"] == "sub-000") == {
        "subject": "sub-000",
        "image": "sub-000/pet/sub-000_trc-FDG_pet.nii.gz",
        "label": f"{derived}/pet/sub-000_trc-FDG_desc-truth_pet.nii.gz",
        "truth": f"{derived}/pet/sub-000_trc-FDG_desc-truth_pet.nii.gz",
        "grey_matter": f"{derived}/anat/sub-000_label-GM_probseg.nii.gz",
        "white_matter": f"{derived}/anat/sub-000_label-WM_probseg.nii.gz",
        "csf": f"{derived}/anat/sub-000_label-CSF_probseg.nii.gz",
        "parcels": f"{derived}/anat/sub-000_desc-parcels_dseg.nii.gz",
        "lesions": f"{derived}/anat/sub-000_desc-lesions_dseg.nii.gz",
        "t1": "sub-000/anat/sub-000_T1w.nii.gz",
    }


def test_a_label_pattern_alone_chooses_another_label_in_a_bids_folder(phantom):
    data_list = build_data_list("pet_pvc", phantom, label="derivatives/**/*_desc-greymatter_pet.nii.gz")
    for entry in entries_of(data_list):
        assert entry["label"].endswith("_desc-greymatter_pet.nii.gz")
        assert entry["truth"].endswith("_desc-truth_pet.nii.gz")


def test_two_kinds_of_label_are_refused_and_either_printed_pattern_then_works(tmp_path):
    for number in range(3):
        write_bids_subject(tmp_path, f"sub-{number}", "trc-FDG", label="desc-pvcGTM", pipeline="petprep")
        write_bids_subject(tmp_path, f"sub-{number}", "trc-FDG", label="pvc-MG", pipeline="petprep")
    with pytest.raises(ValueError, match="2 kinds of label") as refusal:
        build_data_list("pet_pvc", tmp_path)
    patterns = [text.split('"')[1] for text in str(refusal.value).split("--label")[1:]]
    kinds = [build_data_list("pet_pvc", tmp_path, label=pattern)["training"][0]["label"] for pattern in patterns]
    assert kinds[0].endswith("desc-pvcGTM_pet.nii.gz") and kinds[1].endswith("pvc-MG_pet.nii.gz")


def test_a_map_on_another_grid_is_left_out_with_a_warning(phantom, caplog):
    write_scan(phantom / "derivatives/phantom/sub-001/anat/sub-001_label-GM_probseg.nii.gz", shape=(9, 9, 9))
    entries = {entry["subject"]: entry for entry in entries_of(build_data_list("pet_pvc", phantom))}
    assert "grey_matter" not in entries["sub-001"] and "grey_matter" in entries["sub-002"]
    assert "grey_matter left out for 1 of 3 scans" in caplog.text and "sub-001" in caplog.text


def test_maps_and_t1_of_another_session_are_not_taken(tmp_path):
    for number in range(3):
        subject = f"sub-{number}"
        for session in ("ses-1", "ses-2"):
            write_bids_subject(tmp_path, subject, f"{session}/trc-FDG")
            write_scan(tmp_path / subject / session / "anat" / f"{subject}_{session}_T1w.nii.gz")
    for entry in entries_of(build_data_list("pet_pvc", tmp_path)):
        assert entry["image"].split("/")[1] == entry["label"].split("/")[3] == entry["t1"].split("/")[1]


@pytest.mark.parametrize("patterns", [FOLDERS, {"image": "*/pet.nii.gz", "label": "*/pvc.nii.gz"}])
def test_folders_without_bids_names_are_found_by_patterns(folders, patterns):
    data_list = build_data_list("pet_pvc", folders, **patterns)
    assert sorted(entries_of(data_list), key=lambda entry: entry["subject"]) == [
        {"subject": f"p{n}", "image": f"p{n}/pet.nii.gz", "label": f"p{n}/pvc.nii.gz"} for n in range(5)
    ]


def test_one_wildcard_in_both_patterns_pairs_the_visits_of_a_subject(tmp_path):
    for visit in ("2010-05-12", "2012-06-01"):
        write_scan(tmp_path / "pet" / "011_S_0003" / f"{visit}.nii")
        write_scan(tmp_path / "pvc" / f"011_S_0003_{visit}.nii")
    pairs = find_pairs("pet_pvc", tmp_path, image="pet/{subject}/20*.nii", label="pvc/{subject}_20*.nii")
    assert [(pair["subject"], pair["label"]) for pair in pairs] == [
        ("011_S_0003", "pvc/011_S_0003_2010-05-12.nii"),
        ("011_S_0003", "pvc/011_S_0003_2012-06-01.nii"),
    ]


def test_a_label_of_another_visit_never_replaces_the_missing_one(tmp_path):
    write_scan(tmp_path / "p1/baseline/pet.nii.gz")
    write_scan(tmp_path / "p1/followup/pvc.nii.gz")
    with pytest.raises(ValueError, match=r"baseline/pet\.nii\.gz: no label belongs to this image of p1"):
        find_pairs("pet_pvc", tmp_path, image="{subject}/*/pet.nii.gz", label="{subject}/*/pvc.nii.gz")


def test_bids_names_pair_files_whose_patterns_differ(phantom):
    pairs = find_pairs(
        "pet_pvc", phantom, image="sub-*/pet/*_pet.nii.gz", label="derivatives/*/*/pet/*_desc-truth_pet.nii.gz"
    )
    assert [pair["subject"] for pair in pairs] == ["sub-000", "sub-001", "sub-002"]


# --- Refusals --------------------------------------------------------------------------------------------------------


def refused(root, **arguments):
    with pytest.raises(ValueError) as refusal:
        build_data_list("pet_pvc", root, **arguments)
    assert "\n" not in str(refusal.value)
    return str(refusal.value)


def test_an_image_without_a_label_and_a_label_without_an_image_are_named(folders):
    label = folders / "p3/pvc.nii.gz"
    label.unlink()
    assert str(folders / "p3/pet.nii.gz") in refused(folders, **FOLDERS)
    write_scan(label)
    (folders / "p4/pet.nii.gz").unlink()
    assert str(folders / "p4/pvc.nii.gz") in refused(folders, **FOLDERS)


def test_two_labels_for_one_image_are_named(folders):
    write_scan(folders / "p2/pvc_again.nii.gz")
    message = refused(folders, image="{subject}/pet.nii.gz", label="{subject}/pvc*.nii.gz")
    assert "2 labels for one scan of p2" in message and "pvc_again.nii.gz" in message


def test_one_scan_under_two_subjects_is_refused_even_if_compressed_again(folders):
    content = gzip.decompress((folders / "p1/pet.nii.gz").read_bytes())
    (folders / "p4/pet.nii.gz").write_bytes(gzip.compress(content, compresslevel=1, mtime=7))
    message = refused(folders, **FOLDERS)
    assert str(folders / "p1/pet.nii.gz") in message and str(folders / "p4/pet.nii.gz") in message


def test_a_copied_label_and_a_label_that_is_its_image_are_refused(folders):
    shutil.copy(folders / "p1/pvc.nii.gz", folders / "p2/pvc.nii.gz")
    assert "label of p1" in refused(folders, **FOLDERS)
    shutil.copy(folders / "p2/pet.nii.gz", folders / "p2/pvc.nii.gz")
    assert "label of p2" in refused(folders, **FOLDERS)
    assert "one file" in refused(folders, image=FOLDERS["image"], label=FOLDERS["image"])


def test_files_of_one_size_that_differ_in_a_single_voxel_are_not_duplicates(tmp_path):
    scan = write_scan(tmp_path / "a.nii", shape=(64, 64, 64))
    content = bytearray(scan.read_bytes())
    content[-1] ^= 1  # outside the bytes that the quick comparison looks at
    (tmp_path / "b.nii").write_bytes(content)
    shutil.copy(scan, tmp_path / "c.nii")
    assert find_duplicates(tmp_path.iterdir()) == [[scan, tmp_path / "c.nii"]]


def test_two_reconstructions_of_one_subject_may_share_the_content_of_their_label(tmp_path):
    for number in range(3):
        for scan in ("rec-A", "rec-B"):
            write_bids_subject(tmp_path, f"sub-{number}", scan, label="desc-truth")
        labels = tmp_path / f"derivatives/pvc/sub-{number}/pet"
        shutil.copy(*(labels / f"sub-{number}_rec-{name}_desc-truth_pet.nii.gz" for name in "AB"))
    assert len(entries_of(build_data_list("pet_pvc", tmp_path))) == 6


def test_a_label_of_another_shape_is_named_with_both_shapes(folders):
    label = write_scan(folders / "p1/pvc.nii.gz", shape=(4, 5, 7))
    message = refused(folders, **FOLDERS)
    assert message.startswith(str(label)) and "(4, 5, 7)" in message and "(4, 5, 6)" in message


def test_a_label_is_refused_when_its_far_corner_lies_more_than_a_hundredth_of_a_mm_away(folders):
    shifted = AFFINE.copy()
    shifted[0, 3] = 0.009
    write_scan(folders / "p1/pvc.nii.gz", affine=shifted)
    build_data_list("pet_pvc", folders, **FOLDERS)
    wider = AFFINE.copy()
    wider[2, 2] += 0.004  # five voxels on: 0.02 mm
    write_scan(folders / "p1/pvc.nii.gz", affine=wider)
    assert "up to 0.02 mm" in refused(folders, **FOLDERS)


def test_a_trailing_axis_of_length_one_is_the_same_shape(folders):
    write_scan(folders / "p1/pvc.nii.gz", shape=(4, 5, 6, 1))
    build_data_list("pet_pvc", folders, **FOLDERS)


def test_an_incomplete_nifti_is_named(tmp_path):
    whole = write_scan(tmp_path / "whole.nii.gz", shape=(16, 16, 16)).read_bytes()
    plain = gzip.decompress(whole)
    broken = {
        "empty.nii.gz": b"",
        "text.nii": b"not an image " * 100,
        "text.nii.gz": b"not an image " * 100,
        "header_cut.nii": plain[:200],
        "header_cut.nii.gz": gzip.compress(plain[:200]),
        "copy_cut.nii.gz": whole[: len(whole) // 2],
        "data_cut.nii": plain[:-1],
        "data_cut.nii.gz": gzip.compress(plain[:-1]),
    }
    for name, content in broken.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=f"{name}: (not a readable NIfTI|truncated)"):
            read_grid(tmp_path / name)
    (tmp_path / "members.nii.gz").write_bytes(gzip.compress(plain[:5000]) + gzip.compress(plain[5000:]))
    assert read_grid(tmp_path / "members.nii.gz").shape == (16, 16, 16)  # written in blocks, and whole


def test_a_scan_without_voxel_size_is_named(tmp_path):
    scan = write_scan(tmp_path / "flat.nii")
    content = bytearray(scan.read_bytes())
    content[312:328] = bytes(16)  # srow_z of the NIfTI-1 header
    scan.write_bytes(content)
    with pytest.raises(ValueError, match="flat.nii: the affine gives no voxel size"):
        read_grid(scan)


def test_roots_and_patterns_that_lead_nowhere_are_explained(tmp_path, folders):
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "is empty" in refused(empty)
    assert "is not a folder" in refused(tmp_path / "nowhere")
    assert "holds no BIDS image" in refused(folders)
    assert "matches the pattern 'x*'" in refused(folders, image="x*", label="y*")
    assert "--image needs --label" in refused(folders, image="x*")
    assert "must be relative" in refused(folders, image="/x*", label="y*")
    assert "only placeholder" in refused(folders, image="{patient}/x*", label="y*")
    (folders / "p1/pet.json").write_text("{}")
    assert str(folders / "p1/pet.json") in refused(folders, image="{subject}/pet*", label="{subject}/pvc*")
    write_scan(empty / "sub-1/pet/sub-1_pet.nii.gz")
    assert "no label for this image" in refused(empty)


def test_a_folder_of_one_subject_is_refused_by_the_split(tmp_path):
    for number in range(4):
        for name in ("pet", "pvc"):
            write_scan(tmp_path / "scans" / f"{number}_{name}.nii.gz")
    assert "{subject}" in refused(tmp_path, image="scans/*_pet.nii.gz", label="scans/*_pvc.nii.gz")
    build_data_list("pet_pvc", tmp_path, image="scans/{subject}_pet.nii.gz", label="scans/{subject}_pvc.nii.gz")


# --- Writing, checking, reading --------------------------------------------------------------------------------------


def test_a_list_comes_back_with_absolute_paths_and_its_subjects_unchanged(phantom, tmp_path, monkeypatch):
    data_list = build_data_list("pet_pvc", phantom, split=(1, 1, 1))
    write_data_list(data_list, phantom / "lists/pet.json")
    monkeypatch.chdir(phantom)
    for section in SECTIONS:
        (entry,) = read_data_list(phantom / "lists/pet.json", section, base_dir=Path())
        (written,) = data_list[section]
        assert entry["subject"] == written["subject"]  # although a folder of that name exists under the root
        assert {key: str(phantom / path) for key, path in written.items() if key != "subject"} == {
            key: path for key, path in entry.items() if key != "subject"
        }


def test_paths_are_relative_to_the_list_itself_without_a_base_dir(folders):
    write_data_list(build_data_list("pet_pvc", folders, **FOLDERS), folders / "list.json")
    assert all(Path(entry["image"]).is_file() for entry in read_data_list(folders / "list.json"))


def test_values_that_are_not_paths_do_not_change(folders):
    entry = {"image": "p1/pet.nii.gz", "label": 3, "subject": "p1", "age": 71, "tracer": "FDG", "visits": ["p1", "m12"]}
    (folders / "list.json").write_text(json.dumps({"training": [entry]}))
    (read,) = read_data_list(folders / "list.json")
    assert {**read, "image": entry["image"], "visits": entry["visits"]} == entry


def test_a_missing_file_section_or_list_is_named(phantom):
    data_list = build_data_list("pet_pvc", phantom, split=(2, 0, 1))
    path = phantom / "list.json"
    write_data_list(data_list, path)
    with pytest.raises(ValueError, match=r"no section 'validation' with entries.*training, test"):
        read_data_list(path, "validation")
    with pytest.raises(ValueError, match="no such data list"):
        read_data_list(phantom / "other.json")
    (phantom / "torn.json").write_text('{"training": [')
    with pytest.raises(ValueError, match="torn.json: not a JSON file"):
        read_data_list(phantom / "torn.json")
    for key in ("csf", "label", "image"):
        gone = phantom / data_list["test"][0][key]
        gone.unlink()
        with pytest.raises(ValueError, match=f"{gone}: listed in .*list.json"):
            read_data_list(path, "test")


def test_a_list_that_leaks_a_subject_is_refused_when_checked_and_when_read(folders):
    def entry(subject, image):
        return {"subject": subject, "image": image}

    leaking = {"training": [entry("p1", "p1/a.nii")], "validation": [], "test": [entry("p1", "p1/b.nii")]}
    with pytest.raises(ValueError, match="p1 stands in 'training' and in 'test'"):
        check_data_list(leaking)
    (folders / "leaking.json").write_text(json.dumps(leaking))
    with pytest.raises(ValueError, match="leaking.json: p1 stands in"):
        read_data_list(folders / "leaking.json")
    with pytest.raises(ValueError, match="sub-1 stands in"):  # Decathlon style: no subject, bare test paths
        check_data_list({"training": [{"image": "sub-1/ses-1/a.nii"}], "test": ["sub-1/ses-2/a.nii"]})
    check_data_list({"training": [{"image": "imagesTr/a.nii"}], "test": ["imagesTs/b.nii"], "modality": {"0": "PET"}})


def test_an_existing_list_is_kept_without_force_and_a_failed_write_leaves_nothing(tmp_path):
    path = tmp_path / "list.json"
    write_data_list({"training": []}, path)
    with pytest.raises(ValueError, match="--force"):
        write_data_list({"test": []}, path)
    assert json.loads(path.read_text()) == {"training": []}
    with pytest.raises(TypeError):
        write_data_list({"test": [object()]}, path, overwrite=True)
    assert json.loads(path.read_text()) == {"training": []} and list(tmp_path.iterdir()) == [path]
    write_data_list({"test": []}, path, overwrite=True)
    assert json.loads(path.read_text()) == {"test": []}
