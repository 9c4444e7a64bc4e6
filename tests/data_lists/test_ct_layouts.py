"""Data lists of the CT tasks: the layouts of public sets, their splits, and copies among their scans."""

from __future__ import annotations

import json
import shutil

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from ctrestore.commands.main import main
from ctrestore.data_lists import SECTIONS, build_data_list, read_data_list, write_data_list
from ctrestore.data_lists.audit import Copies, find_copies, without_copies
from ctrestore.io.dicom import write_phantom_series


def write_series(folder, n=2):
    """DICOM files with content that depends on their path; the list only reads the preamble and the bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(n):
        seed = list(f"{folder.as_posix()}/{number}".encode())
        body = np.random.default_rng(seed).integers(0, 256, 4000, dtype=np.uint8).tobytes()
        (folder / f"{folder.parent.name}_{number:04d}.IMA").write_bytes(b"\0" * 128 + b"DICM" + body)


def slice_of(seed, shape=(90, 110)):
    """A smooth picture, different for each number, like a slice."""
    from scipy.ndimage import gaussian_filter

    noise = gaussian_filter(np.random.default_rng(seed).standard_normal(shape), 8)
    return Image.fromarray(np.uint8(255 * (noise - noise.min()) / np.ptp(noise)))


def write_picture(path, seed, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    slice_of(seed).save(path, **options)
    return path


def entries_of(data_list):
    return [entry for section in SECTIONS for entry in data_list.get(section, [])]


def leaks(data_list, key="subject"):
    sections = [{entry[key] for entry in data_list.get(section, [])} for section in SECTIONS]
    return sum(map(len, sections)) - len(set.union(*sections))


# --- Low and full dose in pairs ---------------------------------------------------------------------------------------


@pytest.fixture
def mayo(tmp_path):
    """The Low Dose CT Grand Challenge as its users arrange it."""
    for patient in ("L067", "L096", "L109", "L143", "L506"):
        for dose in ("full_3mm", "quarter_3mm"):
            write_series(tmp_path / patient / dose)
    return tmp_path


def test_grand_challenge_pairs_quarter_dose_with_full_dose_of_the_same_patient(mayo):
    data_list = build_data_list("ldct_denoising", mayo, split=(3, 1, 1))
    assert [len(data_list[section]) for section in SECTIONS] == [3, 1, 1]
    for entry in entries_of(data_list):
        patient = entry["subject"]
        assert (entry["image"], entry["label"]) == (f"{patient}/quarter_3mm", f"{patient}/full_3mm")
    assert leaks(data_list) == 0


def test_the_downloads_own_folders_are_also_supported(tmp_path):
    for patient in ("L067", "L096", "L109"):
        for dose in ("full_1mm", "quarter_1mm"):
            write_series(tmp_path / dose / patient / dose)
    data_list = build_data_list("ldct_denoising", tmp_path, split=(1, 1, 1))
    entry = next(entry for entry in entries_of(data_list) if entry["subject"] == "L096")
    assert (entry["image"], entry["label"]) == ("quarter_1mm/L096/quarter_1mm", "full_1mm/L096/full_1mm")


def test_tcia_pairs_images_and_leaves_projections_out(tmp_path):
    for patient in ("C002", "L123", "N005"):
        study = tmp_path / "LDCT-and-Projection-data" / patient / "12-23-2021-NA-NA-62464"
        full = "Full dose images-67226" if patient == "L123" else "Full Dose Images-95998"
        for series in (full, "Low Dose Images-39882", "Full Dose Projections-1", "Low Dose Projections-2"):
            write_series(study / f"1.000000-{series}")
    data_list = build_data_list("ldct_denoising", tmp_path, split=(1, 1, 1))
    entries = entries_of(data_list)
    assert sorted(entry["subject"] for entry in entries) == ["C002", "L123", "N005"]
    for entry in entries:
        assert "/1.000000-Low Dose Images-" in entry["image"]
        assert "/1.000000-full dose images-" in entry["label"].lower()


def test_super_resolution_uses_only_full_dose(mayo):
    entries = entries_of(build_data_list("ct_super_resolution", mayo, split=(3, 1, 1)))
    assert [entry["image"].split("/")[1] for entry in entries] == ["full_3mm"] * 5
    assert all("label" not in entry for entry in entries)


def test_a_missing_dose_and_two_kinds_are_refused_by_name(mayo):
    write_series(mayo / "L310" / "full_3mm")
    with pytest.raises(ValueError, match="L310 has 0 low-dose and 1 full-dose scans"):
        build_data_list("ldct_denoising", mayo)
    for dose in ("full_1mm", "quarter_1mm"):
        write_series(mayo / "L067" / dose)
    with pytest.raises(ValueError, match=r"2 kinds of reconstruction \(1mm, 3mm\)"):
        build_data_list("ldct_denoising", mayo)


def test_patterns_choose_among_kinds_and_may_name_folders(mayo):
    for patient in ("L067", "L096", "L109", "L143", "L506"):
        for dose in ("full_1mm", "quarter_1mm"):
            write_series(mayo / patient / dose)
    patterns = {"image": "{subject}/quarter_1mm", "label": "{subject}/full_1mm"}
    entries = entries_of(build_data_list("ldct_denoising", mayo, **patterns))
    assert len(entries) == 5
    assert all(entry["label"] == f"{entry['subject']}/full_1mm" for entry in entries)


# --- Patients without pairs -------------------------------------------------------------------------------------------


def test_folders_of_patients_stay_together_and_need_no_label(tmp_path):
    for patient in ("p1", "p2", "p3", "p4"):
        for series in ("axial", "coronal"):
            write_series(tmp_path / patient / "study" / series)
    data_list = build_data_list("ldct_denoising", tmp_path, split=(2, 1, 1))
    assert [len(data_list[section]) for section in SECTIONS] == [4, 2, 2]
    assert leaks(data_list) == 0
    assert all(set(entry) == {"subject", "image"} for entry in entries_of(data_list))


def test_studies_of_one_patient_in_several_folders_stay_together(tmp_path):
    # Like a flat download: one folder per series, and only the header names the patient.
    for number, patient in enumerate(("A", "B", "C", "A", "B", "A")):
        hu = np.random.default_rng(number).integers(-1000, 1000, (8, 8, 2)).astype(np.float32)
        write_phantom_series(hu, np.diag([-1.0, -1.0, 2.0, 1.0]), tmp_path / f"series{number}", name=patient)
    data_list = build_data_list("ldct_denoising", tmp_path, split=(1, 1, 1))
    assert {entry["subject"] for entry in entries_of(data_list)} == {"A", "B", "C"}
    assert leaks(data_list) == 0


def test_one_name_for_everybody_does_not_separate_patients(tmp_path):
    for number in range(3):
        hu = np.random.default_rng(number).integers(-1000, 1000, (8, 8, 2)).astype(np.float32)
        write_phantom_series(hu, np.diag([-1.0, -1.0, 2.0, 1.0]), tmp_path / f"p{number}" / "ct", name="anonymous")
    data_list = build_data_list("ldct_denoising", tmp_path, split=(1, 1, 1))
    assert {entry["subject"] for entry in entries_of(data_list)} == {"p0", "p1", "p2"}


def test_a_series_copied_to_another_patient_is_an_exact_copy_and_stays_in_one_section(tmp_path, caplog):
    for number in range(6):
        write_series(tmp_path / f"p{number}" / "ct")
    shutil.copytree(tmp_path / "p0", tmp_path / "p6")
    for seed in range(5):
        data_list = build_data_list("ldct_denoising", tmp_path, split=(0.4, 0.3, 0.3), seed=seed)
        assert data_list["audit"]["exact"]["groups"] == 1
        assert data_list["audit"]["exact"]["groups_across_sections"] == 0
    assert "1 subjects share a copy" in caplog.text
    dropped = build_data_list("ldct_denoising", tmp_path, drop_duplicates=True)
    assert dropped["audit"]["dropped"] == ["p6/ct"]
    assert len(entries_of(dropped)) == 6


def test_picture_slices_are_grouped_by_their_scan(tmp_path):
    for scan in range(4):
        for z in (11, 42):
            write_picture(tmp_path / f"13.{scan}_z{z}.png", 10 * scan + z)
    data_list = build_data_list("ct_super_resolution", tmp_path, split=(2, 1, 1))
    assert [len(data_list[section]) for section in SECTIONS] == [4, 2, 2]
    assert leaks(data_list) == 0


def test_folders_named_train_and_val_are_the_split_unless_another_is_given(tmp_path):
    for scan in range(6):
        write_picture(tmp_path / ("train" if scan < 4 else "val") / f"s{scan}_z1.png", scan)
    given = build_data_list("ldct_denoising", tmp_path)
    assert [len(given.get(section, [])) for section in SECTIONS] == [4, 2, 0]
    assert "seed" not in given
    drawn = build_data_list("ldct_denoising", tmp_path, split=(2, 2, 2))
    assert [len(drawn[section]) for section in SECTIONS] == [2, 2, 2]


def test_a_patient_in_two_given_sections_is_refused(tmp_path):
    write_picture(tmp_path / "train" / "s1_z1.png", 1)
    write_picture(tmp_path / "test" / "s1_z9.png", 2)
    with pytest.raises(ValueError, match="s1 stands in 'training' and in 'test'"):
        build_data_list("ldct_denoising", tmp_path)


def test_nifti_pairs_on_different_grids_are_refused(tmp_path):
    for number in range(3):
        for name, n in (("low", 4), ("full", 4 if number else 5)):
            path = tmp_path / f"p{number}" / f"{name}.nii.gz"
            path.parent.mkdir(exist_ok=True)
            nib.save(nib.Nifti1Image(np.random.default_rng(number + n).random((4, 4, n)), np.eye(4)), path)
    with pytest.raises(ValueError, match=r"p0.full.nii.gz: \(4, 4, 5\) voxels"):
        build_data_list("ldct_denoising", tmp_path, image="{subject}/low.nii.gz", label="{subject}/full.nii.gz")


def test_the_list_reads_back_with_folders_as_images(mayo):
    write_data_list(build_data_list("ldct_denoising", mayo, split=(3, 1, 1)), mayo / "list.json")
    entry = read_data_list(mayo / "list.json", "test")[0]
    assert entry["image"] == str(mayo / entry["subject"] / "quarter_3mm")


@pytest.mark.parametrize(
    ("task", "options", "words"),
    [
        ("ldct_denoising", {}, "holds no CT"),
        ("lung_ct_classification", {}, "holds no pictures"),
        ("lung_ct_classification", {"image": "*"}, "leave out --image"),
        ("ldct_denoising", {"label": "*"}, "--label needs --image"),
        ("pet_pvc", {"drop_duplicates": True}, "--drop-duplicates is for CT tasks"),
    ],
)
def test_what_cannot_be_listed_is_refused_with_a_remedy(tmp_path, task, options, words):
    with pytest.raises(ValueError, match=words):
        build_data_list(task, tmp_path, **options)


# --- One folder per class ---------------------------------------------------------------------------------------------

STAGES = {
    "adenocarcinoma": "adenocarcinoma_left.lower.lobe_T2_N0_M0_Ib",
    "normal": "normal",
    "squamous.cell.carcinoma": "squamous.cell.carcinoma_left.hilum_T1_N2_M0_IIIa",
}


@pytest.fixture
def kaggle(tmp_path):
    """The Kaggle set in small: stages in some folders' names, and two of three normal test pictures in train."""
    for label, (name, staged) in enumerate(STAGES.items()):
        for number in range(4):
            write_picture(tmp_path / "Data" / "train" / staged / f"{number:06d} (3).png", 100 * label + number)
        for section, folder in (("valid", staged), ("test", name)):
            for number in range(3):
                seed = 100 * label + 50 + number + (20 if section == "test" else 0)
                write_picture(tmp_path / "Data" / section / folder / f"{number:06d}.png", seed)
    for number in range(2):
        write_picture(tmp_path / "Data" / "test" / "normal" / f"{number:06d}.png", 100 + number)
    return tmp_path / "Data"


def test_stages_in_folder_names_do_not_make_classes(kaggle):
    data_list = build_data_list("lung_ct_classification", kaggle)
    assert data_list["classes"] == sorted(STAGES)
    assert [len(data_list[section]) for section in SECTIONS] == [12, 9, 9]
    assert {(entry["label"], entry["class"]) for entry in entries_of(data_list)} == set(enumerate(sorted(STAGES)))


def test_the_audit_counts_test_pictures_that_are_in_training(kaggle):
    report = build_data_list("lung_ct_classification", kaggle)["audit"]
    assert report["exact"]["groups_across_sections"] == 2
    assert report["exact"]["scans_that_are_in_training_too"] == {"validation": 0, "test": 2}
    assert report["exact"]["across_sections"][0] == ["test/normal/000000.png", "train/normal/000000 (3).png"]
    assert report["dropped"] == []


def test_dropping_duplicates_leaves_them_in_training(kaggle):
    data_list = build_data_list("lung_ct_classification", kaggle, drop_duplicates=True)
    assert [len(data_list[section]) for section in SECTIONS] == [12, 9, 7]
    assert data_list["audit"]["dropped"] == ["test/normal/000000.png", "test/normal/000001.png"]
    left = build_data_list("lung_ct_classification", kaggle)
    assert data_list["training"] == left["training"]


@pytest.mark.parametrize("how", ["jpeg", "smaller", "brighter", "four channels"])
def test_a_copy_that_was_saved_again_is_a_near_copy_and_not_an_exact_one(kaggle, how):
    original = slice_of(1)  # adenocarcinoma 000001 of the training
    anew = {
        "jpeg": original,
        "smaller": original.resize((70, 50)),
        "brighter": original.point(lambda grey: min(255, int(grey * 1.1))),
        "four channels": original.convert("RGBA"),
    }[how]
    anew.save(kaggle / "test" / "adenocarcinoma" / f"new.{'jpg' if how == 'jpeg' else 'png'}")
    report = build_data_list("lung_ct_classification", kaggle)["audit"]
    assert report["exact"]["scans_that_are_in_training_too"]["test"] == 2
    assert report["near"]["scans_that_are_in_training_too"]["test"] == 3
    dropped = build_data_list("lung_ct_classification", kaggle, drop_duplicates=True)["audit"]["dropped"]
    assert len(dropped) == 3


def test_different_slices_are_not_near_copies(tmp_path):
    entries = [{"image": write_picture(tmp_path / f"{seed}.png", seed).name} for seed in range(60)]
    assert find_copies(tmp_path, entries) == Copies([], [])


def test_equal_pictures_with_two_classes_are_all_dropped():
    entries = [{"section": "training", "class": name} for name in ("normal", "cancer", "normal", "normal")]
    kept, dropped = without_copies(entries, Copies(exact=[[0, 1], [2, 3]], near=[[0, 1], [2, 3]]))
    assert (kept, dropped) == ([2], [0, 1, 3])


def test_near_copies_inside_a_section_are_neighbouring_slices_and_stay():
    sections = ["training", "training", "validation", "test", "validation"]
    entries = [{"section": section, "class": "a"} for section in sections]
    assert without_copies(entries, Copies([], [[0, 1]]))[1] == []
    assert without_copies(entries, Copies([], [[0, 2, 3]]))[1] == [2, 3]
    assert without_copies(entries, Copies([], [[3, 4]]))[1] == [3]


def test_a_drawn_split_keeps_copies_of_two_names_together(tmp_path):
    for number in range(12):
        write_picture(tmp_path / "a" / f"x{number}.png", number)
        write_picture(tmp_path / "b" / f"y{number}.png", 100 + number)
    for seed in range(6):
        first = 30 + seed
        write_picture(tmp_path / "a" / f"one{first}q.png", first)
        write_picture(tmp_path / "a" / f"two{first}q.png", first)
        data_list = build_data_list("lung_ct_classification", tmp_path, split=(0.4, 0.3, 0.3), seed=seed)
        assert data_list["audit"]["exact"]["groups"] == seed + 1
        assert data_list["audit"]["near"]["groups_across_sections"] == 0
        assert leaks(data_list) == 0


def test_covid_ct_is_split_by_its_text_files(tmp_path):
    names = {
        "COVID": ["2020.03.01.20029769-p21-73_1%1.png", "b-p3-1.png", "c-12.png"],
        "NonCOVID": ["1.jpg", "2.jpg", "7%0.jpg"],
    }
    for k, (kind, files) in enumerate(names.items()):
        for number, (name, section) in enumerate(zip(files, ("train", "val", "test"))):
            write_picture(tmp_path / "Images-processed" / f"CT_{kind}" / name, 10 * k + number)
            split = tmp_path / "Data-split" / kind / f"{section}CT_{kind}.txt"
            split.parent.mkdir(parents=True, exist_ok=True)
            split.write_text(name + "\n", encoding="utf-8")
    data_list = build_data_list("lung_ct_classification", tmp_path)
    assert data_list["classes"] == ["CT_COVID", "CT_NonCOVID"]
    assert [len(data_list[section]) for section in SECTIONS] == [2, 2, 2]
    assert [entry["image"].rpartition("/")[2] for entry in data_list["test"]] == ["c-12.png", "7%0.jpg"]
    (tmp_path / "Images-processed" / "CT_COVID" / "new.png").write_bytes(
        (tmp_path / "Images-processed" / "CT_COVID" / "c-12.png").read_bytes()
    )
    with pytest.raises(ValueError, match="new.png: in no section, but 6 of 7 scans are"):
        build_data_list("lung_ct_classification", tmp_path)


def test_figures_of_one_paper_in_two_sections_are_counted(tmp_path):
    for number, section in enumerate(("train", "train", "test", "test")):
        write_picture(tmp_path / section / "covid" / f"Comparison-of-different-samples-{number}.png", number)
        write_picture(tmp_path / section / "other" / f"s{number}x.png", 10 + number)
    assert build_data_list("lung_ct_classification", tmp_path)["audit"]["names_across_sections"] == 1


def test_a_picture_outside_the_classes_one_class_and_a_damaged_file_are_refused(tmp_path):
    for number in range(3):
        write_picture(tmp_path / "normal" / f"{number}.png", number)
    with pytest.raises(ValueError, match="one class only, 'normal'"):
        build_data_list("lung_ct_classification", tmp_path)
    for number in range(3):
        write_picture(tmp_path / "cancer" / f"{number}.png", 5 + number)
    (tmp_path / "cancer" / "broken.png").write_bytes((tmp_path / "cancer" / "0.png").read_bytes()[:60])
    with pytest.raises(ValueError, match=r"broken.png: not a readable picture"):
        build_data_list("lung_ct_classification", tmp_path)
    (tmp_path / "cancer" / "broken.png").unlink()
    write_picture(tmp_path / "loose.png", 9)
    with pytest.raises(ValueError, match="loose.png: not in the folder of a class"):
        build_data_list("lung_ct_classification", tmp_path)


# --- The command ------------------------------------------------------------------------------------------------------


def test_the_command_prints_the_audit_and_drops_on_request(kaggle, capsys):
    command = ["data-list", "lung_ct_classification", "--root", str(kaggle), "-o", str(kaggle / "list.json")]
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert "the same bytes: 2 groups, 2 across sections (2 of test in training too), 0 across classes" in printed
    assert "--drop-duplicates" in printed
    assert main([*command, "--drop-duplicates", "--force"]) == 0
    assert "left out: 2 copies" in capsys.readouterr().out
    assert len(json.loads((kaggle / "list.json").read_text())["test"]) == 7
