"""Inference takes what a user has, corrects every sound scan, loses none, and says what was wrong with the others."""

import errno
import gzip
import json
import re
import struct
from functools import partial
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import create_workflow
from monai.data import Dataset

from ctrestore import phantoms
from ctrestore.errors import CTRestoreError, InputError
from ctrestore.networks import HomogeneousUNet
from ctrestore.psf import per_axis
from ctrestore.tasks.pet_pvc.correction import ScanWriter, TissueWriter, evaluate_each, output_name, saves_tissue
from ctrestore.tasks.pet_pvc.output_names import output_stem, outputs_of
from ctrestore.tasks.pet_pvc.scans import entries, scans, stem
from ctrestore.tasks.runtime import (
    embedded_data_dir,
    error_inside,
    of_method,
    on_device,
    slices_at_a_time,
    use_bfloat16,
)
from tests.conftest import ROOT

CONFIG = ROOT / "bundles" / "pet_pvc" / "configs" / "inference.json"

AFFINE = np.array([[-4.0, 0, 0, 60], [0, 4.0, 0, -70], [0, 0, 5.0, -60], [0, 0, 0, 1]])


def touch(*paths):
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def found(folder, **kwargs):
    return [str(Path(scan["image"]).relative_to(folder)) for scan in scans(str(folder), **kwargs)]


def head(*, shape=(30, 34, 26), noise=20.0, seed=0):
    """A smooth ball of 10,000 Bq/ml in noise around zero."""
    grid = np.stack(np.meshgrid(*(np.arange(n) - (n - 1) / 2 for n in shape), indexing="ij"))
    smooth = 10_000 * np.exp(-(grid**2).sum(0) / 60)
    return (smooth + np.random.default_rng(seed).normal(0, noise, shape)).astype(np.float32)


def save(path, data=None, affine=AFFINE):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(head() if data is None else data, affine), path)
    return path


# Which scans


def test_a_file_is_itself(tmp_path):
    path = tmp_path / "a.nii"
    touch(path)
    assert [scan["image"] for scan in scans(str(path))] == [str(path)]


def test_a_folder_is_its_nifti_files_sorted_without_hidden_and_other_ones(tmp_path):
    touch(*(tmp_path / name for name in ("b.nii", "a.nii.gz", ".hidden.nii", "c.txt", "d.nii.json", "sub/e.nii")))
    assert found(tmp_path) == ["a.nii.gz", "b.nii"]


def test_a_folder_of_folders_is_searched(tmp_path):
    touch(tmp_path / "one" / "pet.nii", tmp_path / "two" / "deep" / "pet.nii")
    assert found(tmp_path) == ["one/pet.nii", "two/deep/pet.nii"]


BIDS = [
    "sub-1/pet/sub-1_trc-FDG_pet.nii.gz",
    "sub-1/anat/sub-1_T1w.nii.gz",
    "sub-2/ses-b/pet/sub-2_ses-b_pet.nii",
    "derivatives/x/sub-1/pet/sub-1_desc-truth_pet.nii.gz",
    "sub-1/pet/sub-1_trc-FDG_pet.json",
]


def test_of_a_bids_data_set_only_the_pet_images_are_taken_and_no_derivatives(tmp_path):
    touch(*(tmp_path / name for name in BIDS))
    assert found(tmp_path) == [BIDS[0], BIDS[2]]


@pytest.mark.parametrize(
    ("part", "expected"),
    [("sub-1", "pet/sub-1_trc-FDG_pet.nii.gz"), ("sub-2", "ses-b/pet/sub-2_ses-b_pet.nii")]
    + [("sub-2/ses-b", "pet/sub-2_ses-b_pet.nii")],
)
def test_of_one_bids_subject_or_session_its_pet_images_are_taken_and_not_its_mri(tmp_path, part, expected):
    touch(*(tmp_path / name for name in BIDS))
    assert found(tmp_path / part) == [expected]


def test_the_embedded_folder_stands_for_the_test_phantoms(tmp_path, monkeypatch):
    monkeypatch.setattr(
        phantoms, "phantom_entries", lambda folder, section: [{"image": f"{section}.nii.gz", "label": "x"}]
    )
    assert [scan["image"] for scan in scans(str(tmp_path), embedded_dir=str(tmp_path))] == ["test.nii.gz"]


def test_a_folder_without_scans_gives_no_scans_so_that_the_evaluator_can_be_built(tmp_path):
    touch(tmp_path / "slices" / "1.png")
    assert scans(str(tmp_path)) == []


def test_mha_and_nrrd_volumes_become_niftis(tmp_path):
    sitk = pytest.importorskip("SimpleITK")
    image = sitk.Image([5, 4, 3], sitk.sitkInt16)
    image.SetSpacing((2.0, 2.5, 3.0))
    for name in ("a.mha", "b.nrrd"):
        sitk.WriteImage(image, str(tmp_path / name))
    assert [Path(scan["image"]).name for scan in scans(str(tmp_path))] == ["a.nii", "b.nii"]
    [alone] = scans(str(tmp_path / "a.mha"))
    np.testing.assert_allclose(nib.load(alone["image"]).header.get_zooms(), (2.0, 2.5, 3.0))


def test_a_path_that_is_not_there_is_named(tmp_path):
    with pytest.raises(CTRestoreError, match=r"nowhere does not exist.*--dataset_dir"):
        scans(str(tmp_path / "nowhere"))


@pytest.mark.parametrize("names", [("a.nii", "a.nii.gz"), ("x/y_z.nii", "x_y/z.nii")])
def test_scans_whose_outputs_would_overwrite_each_other_are_refused(tmp_path, names):
    touch(*(tmp_path / name for name in names))
    with pytest.raises(CTRestoreError, match=r"would both be written to.*rename"):
        scans(str(tmp_path))


# Names


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("p/a.nii", "a"),
        ("p/a.nii.gz", "a"),
        ("p/scan.v2.nii.gz", "scan.v2"),
        ("p/a.nii.nii", "a.nii"),
        ("p/a.img", "a.img"),
    ],
)
def test_a_stem_is_the_name_without_its_nifti_ending_alone(path, expected):
    assert stem(path) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.nii.gz", "a"),
        ("one/two/a.nii", "one_two_a"),
        ("sub-1/pet/sub-1_pet.nii.gz", "sub-1_pet"),
        ("scan.v2.nii.gz", "scan.v2"),
    ],
)
def test_an_output_keeps_the_stem_of_its_scan_in_one_folder_level(tmp_path, name, expected):
    path = tmp_path / name
    assert output_stem(path, str(tmp_path)) == expected
    assert outputs_of([{"image": str(path)}], "out", str(tmp_path)) == [str(Path("out") / f"{expected}_pvc.nii.gz")]
    assert output_name({"filename_or_obj": str(path)}, dataset_dir=str(tmp_path))["idx"] is None


def test_a_single_file_given_by_its_path_keeps_its_stem(tmp_path):
    assert output_stem(tmp_path / "deep" / "a.nii", str(tmp_path / "deep" / "a.nii")) == "a"


# Data lists and devices


@pytest.fixture
def data_list(tmp_path):
    entry = {"subject": "one", "image": "one.nii", "label": "one_label.nii", "grey_matter_concentration": "one_gm.nii"}
    for name in ("one.nii", "one_label.nii", "one_gm.nii"):
        save(tmp_path / name)
    path = tmp_path / "list.json"
    path.write_text(json.dumps({"training": [entry], "validation": [], "test": []}))
    return path


def test_the_target_becomes_the_label(data_list):
    root = str(data_list.parent)
    assert Path(entries("training", str(data_list), root)[0]["label"]).name == "one_label.nii"
    other = entries("training", str(data_list), root, target="grey_matter_concentration")
    assert Path(other[0]["label"]).name == "one_gm.nii"
    assert Path(other[0]["image"]).is_absolute()


def test_a_target_that_the_list_does_not_have_is_refused_with_those_it_has(data_list):
    with pytest.raises(
        CTRestoreError, match=r"one has no 'truth' in the training list; it has .*label.*Remedy: --target"
    ):
        entries("training", str(data_list), str(data_list.parent), target="truth")


def test_several_targets_must_all_be_there_and_are_left_to_the_config(data_list):
    root = str(data_list.parent)
    wanted = ["label", "grey_matter_concentration"]
    [entry] = entries("training", str(data_list), root, target=wanted)
    assert Path(entry["label"]).name == "one_label.nii"
    with pytest.raises(CTRestoreError, match=r"one has no 'csf' in the training list.*Remedy: --target"):
        entries("training", str(data_list), root, target=[*wanted, "csf"])


def test_only_the_first_subjects_are_taken_on_request(data_list):
    listed = json.loads(data_list.read_text())
    listed["training"] *= 3
    data_list.write_text(json.dumps(listed))
    assert len(entries("training", str(data_list), str(data_list.parent))) == 3
    assert len(entries("training", str(data_list), str(data_list.parent), n=2)) == 2


@pytest.mark.parametrize("n", [0, -1])
def test_no_subjects_at_all_are_not_taken_for_an_answer(data_list, n):
    with pytest.raises(CTRestoreError, match="training scans must be at least 1"):
        entries("training", str(data_list), str(data_list.parent), n=n)


def test_a_missing_list_ends_with_one_message(tmp_path):
    with pytest.raises(CTRestoreError, match="no such data list"):
        entries("training", str(tmp_path / "none.json"), str(tmp_path))


def test_embedded_data_lie_in_the_checkout_or_else_in_the_copied_bundle(tmp_path):
    inside = tmp_path / "checkout" / "bundles" / "pet_pvc"
    inside.mkdir(parents=True)
    assert embedded_data_dir(str(inside), "x") == str(inside / ".data" / "x")
    touch(tmp_path / "checkout" / "pyproject.toml")  # of somebody's project
    assert embedded_data_dir(str(inside), "x") == str(inside / ".data" / "x")
    (tmp_path / "checkout" / "ctrestore").mkdir()
    assert embedded_data_dir(str(inside), "x") == str(tmp_path / "checkout" / ".data" / "x")


@pytest.mark.parametrize("device", ["cuda:99", "no-such-thing"])
def test_a_device_that_is_not_there_is_refused_with_those_that_are(device):
    with pytest.raises(CTRestoreError, match=rf"device '{device}' is not available; there is cpu.*--device cpu"):
        on_device(torch.nn.Identity(), device)
    for ask in (slices_at_a_time, partial(use_bfloat16, "auto")):  # whichever a config asks first
        with pytest.raises(CTRestoreError, match=rf"device '{device}' is not available; there is cpu"):
            ask(device)


def test_the_network_lands_on_its_device():
    assert next(on_device(torch.nn.Linear(1, 1), "cpu").parameters()).device.type == "cpu"


def test_the_method_chooses_and_an_unknown_one_is_refused_with_those_there_are():
    assert of_method("b", a=1, b=2) == 2
    with pytest.raises(CTRestoreError, match=r"method 'c' is unknown. Remedy: --method with one of a, b"):
        of_method("c", a=1, b=2)


def test_tissue_maps_are_saved_on_request_and_only_of_the_method_that_makes_them():
    assert all(saves_tissue("hybrid", asked) for asked in (True, "True", "true"))
    assert not any(saves_tissue("hybrid", asked) for asked in (False, "False", "false"))
    assert not saves_tissue("network", False)
    with pytest.raises(CTRestoreError, match=r"'network' makes no tissue maps. Remedy: --method hybrid"):
        saves_tissue("network", True)


def test_only_a_users_errors_are_turned_into_a_message():
    wrapped = RuntimeError("MONAI's")
    wrapped.__cause__ = KeyError("ours")
    assert error_inside(wrapped) is None
    wrapped.__cause__ = InputError("scan.nii: no PET")
    assert error_inside(wrapped) is wrapped.__cause__
    wrapped.__cause__ = OSError("disk full")
    found = error_inside(wrapped)
    assert isinstance(found, InputError)
    assert str(found) == "OSError: disk full (the log of ctrestore at level DEBUG has the traceback)"
    with pytest.raises(ValueError, match="must be one number or 3 numbers in mm") as ours:
        per_axis("six", name="fwhm_mm")
    wrapped.__cause__ = ours.value
    assert str(error_inside(wrapped)) == str(ours.value)  # a message for users, wherever it was raised


# Writing


def dynamic_source(path, *, form="sform", dtype=np.int16):
    """A dynamic PET as a scanner writes it: oblique, scaled integers, frames of 300,000 ms."""
    image = nib.Nifti1Image(np.ones((6, 7, 8, 3), dtype=dtype), AFFINE)
    image.header.set_xyzt_units("mm", "msec")
    image.header["pixdim"][4] = 300_000.0
    image.set_sform(AFFINE, code=2 if form == "sform" else 0)
    image.set_qform(AFFINE, code=1 if form == "qform" else 0)
    image.header.set_slope_inter(2.0, 0.0)
    image.header["cal_max"] = 5.0
    nib.save(image, path)
    return path


def write(target, source, data, *, writer=ScanWriter):
    writer = writer(output_dtype=np.float32)
    frames_first = np.moveaxis(data, -1, 0) if data.ndim == 4 else data[None]  # as SaveImage hands them over
    writer.set_data_array(frames_first, channel_dim=0)
    writer.set_metadata({"filename_or_obj": str(source), "affine": AFFINE}, resample=False)
    writer.write(str(target))


@pytest.mark.parametrize("form", ["sform", "qform", "neither"])
def test_a_written_scan_has_the_header_of_the_scan_it_came_from(tmp_path, form):
    source = nib.load(dynamic_source(tmp_path / "in.nii.gz", form=form))
    data = np.random.default_rng(0).normal(0, 1e4, source.shape).astype(np.float32)
    write(tmp_path / "out.nii.gz", tmp_path / "in.nii.gz", data)
    out = nib.load(tmp_path / "out.nii.gz")
    np.testing.assert_array_equal(out.affine, source.affine)
    for field in ("sform_code", "qform_code", "xyzt_units", "pixdim", "dim"):
        np.testing.assert_array_equal(out.header[field], source.header[field], err_msg=field)
    assert out.header.get_xyzt_units() == ("mm", "msec")
    assert out.header["pixdim"][4] == 300_000.0
    assert out.get_data_dtype() == np.float32
    np.testing.assert_array_equal(np.asarray(out.dataobj), data)  # no slope of the source left
    assert out.header["cal_max"] == 0.0


def test_a_single_frame_kept_as_a_fourth_axis_stays_one(tmp_path):
    save(tmp_path / "in.nii", np.ones((5, 6, 7, 1), dtype=np.float32))
    write(tmp_path / "out.nii.gz", tmp_path / "in.nii", np.ones((5, 6, 7), dtype=np.float32))
    assert nib.load(tmp_path / "out.nii.gz").shape == (5, 6, 7, 1)


def test_tissue_maps_of_a_dynamic_scan_are_written_one_a_tissue_in_the_place_of_the_scan(tmp_path):
    source = nib.load(dynamic_source(tmp_path / "in.nii.gz"))
    maps = np.random.default_rng(0).random((6, 7, 8, 4), dtype=np.float32)
    write(tmp_path / "out.nii.gz", tmp_path / "in.nii.gz", maps, writer=TissueWriter)
    out = nib.load(tmp_path / "out.nii.gz")
    np.testing.assert_array_equal(out.affine, source.affine)
    np.testing.assert_array_equal(np.asarray(out.dataobj), maps)
    assert out.header["pixdim"][4] != 300_000.0, "the fourth axis is no time"


def test_without_its_source_a_scan_is_written_with_its_affine_in_millimetres(tmp_path):
    write(tmp_path / "out.nii.gz", tmp_path / "gone.nii", np.ones((5, 6, 7), dtype=np.float32))
    out = nib.load(tmp_path / "out.nii.gz")
    np.testing.assert_array_equal(out.affine, AFFINE)
    assert out.header.get_xyzt_units()[0] == "mm"


def test_a_full_disk_leaves_no_half_file_and_keeps_the_old_one(tmp_path, monkeypatch):
    save(tmp_path / "in.nii.gz", np.ones((5, 6, 7), dtype=np.float32))
    (tmp_path / "out.nii.gz").write_bytes(b"the old one")

    def full(image, stream):
        stream.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(nib.Nifti1Image, "to_stream", full)
    with pytest.raises(OSError, match="No space left"):
        write(tmp_path / "out.nii.gz", tmp_path / "in.nii.gz", np.ones((5, 6, 7), dtype=np.float32))
    assert (tmp_path / "out.nii.gz").read_bytes() == b"the old one"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.nii.gz", "out.nii.gz"]


# Inference, as configured


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Of an untrained network, which is the identity if only the two channels of the scan count as the image."""
    path = tmp_path_factory.mktemp("weights") / "model.pt"
    torch.save({k: v.half() for k, v in HomogeneousUNet(in_channels=3).state_dict().items()}, path)
    return path


def correct(dataset_dir, output_dir, weights, **overrides):
    """The bundle's inference on a cube of 48 voxels of 4 mm."""
    paths = {"dataset_dir": dataset_dir, "output_dir": output_dir, "weights": weights, "embedded_dir": "none"}
    settings = {"spacing_mm": 4.0, "cube_size": 48, "network_def#image_channels": 2, "yang_steps": 0, "device": "cpu"}
    settings |= {key: str(path) for key, path in paths.items()} | overrides
    create_workflow(config_file=str(CONFIG), logging_file=False, **settings).run()


def names(folder):
    return sorted(p.name for p in Path(folder).iterdir())


def test_an_identity_network_gives_every_scan_back_on_its_own_grid(tmp_path, weights):
    save(tmp_path / "in" / "static.nii.gz")
    save(tmp_path / "in" / "scan.v2.nii", 3 * head(seed=1))
    frames = np.stack([head(seed=2), 0.1 * head(seed=3)], axis=-1)
    save(tmp_path / "in" / "dynamic.nii", frames)
    correct(tmp_path / "in", tmp_path / "out", weights)
    assert names(tmp_path / "out") == ["dynamic_pvc.nii.gz", "scan.v2_pvc.nii.gz", "static_pvc.nii.gz"]
    for name, source in [("static", "static.nii.gz"), ("scan.v2", "scan.v2.nii"), ("dynamic", "dynamic.nii")]:
        out, scan = nib.load(tmp_path / "out" / f"{name}_pvc.nii.gz"), nib.load(tmp_path / "in" / source)
        assert out.shape == scan.shape
        assert out.get_data_dtype() == np.float32
        np.testing.assert_array_equal(out.affine, scan.affine)
        values = np.asarray(scan.dataobj)
        # the Gaussian weights of the windows sum to one but for float32 rounding
        np.testing.assert_allclose(np.asarray(out.dataobj), values, atol=1e-6 * values.max())
        assert (values < 0).any(), "negative voxels come back too"


def test_correcting_an_empty_folder_is_refused_with_the_remedy(tmp_path, weights):
    touch(tmp_path / "in" / "slices" / "1.png")
    with pytest.raises(CTRestoreError, match=r"in holds no NIfTI file.*dcm2niix"):
        correct(tmp_path / "in", tmp_path / "out", weights)
    assert not (tmp_path / "out").exists()


def test_one_bad_scan_is_skipped_the_others_are_written_and_the_exit_status_says_so(tmp_path, weights, capsys):
    """The scan after a bad one too: an engine may take its run for the rest of the failed one."""
    bad = head()
    bad[3, 4, 5] = np.nan
    save(tmp_path / "in" / "a.nii.gz")
    save(tmp_path / "in" / "b_bad.nii.gz", bad)
    save(tmp_path / "in" / "c.nii.gz")
    with pytest.raises(
        CTRestoreError, match=r"(?s)not corrected:\n.*b_bad\.nii\.gz: 1 voxels are NaN.*nan_to_num"
    ) as ended:
        correct(tmp_path / "in", tmp_path / "out", weights)
    assert "a.nii.gz" not in str(ended.value)
    assert names(tmp_path / "out") == ["a_pvc.nii.gz", "c_pvc.nii.gz"]
    assert "2 of 3 scans corrected" in capsys.readouterr().out


def patch_header(path, sform_code, offset, layout, *values):
    """A NIfTI whose header holds what nibabel would not write."""
    image = nib.Nifti1Image(head(), AFFINE)
    image.set_sform(AFFINE, code=sform_code)
    raw = bytearray(image.to_bytes())
    struct.pack_into(layout, raw, offset, *values)
    path.write_bytes(gzip.compress(bytes(raw), 1))


def broken(path, fault):
    if fault == "not a NIfTI":
        path.write_bytes(b"hello")
    elif fault == "another format inside":
        path.write_bytes(b"\x1f\x8b not gzip")
    elif fault == "truncated":
        save(path)
        path.write_bytes(path.read_bytes()[:20_000])
    elif fault == "all zero":
        save(path, np.zeros((20, 20, 20), dtype=np.float32))
    elif fault == "2-D":
        save(path, np.ones((20, 20), dtype=np.float32))
    elif fault == "zero voxel size":
        patch_header(path, 0, 80, "<f", 0.0)  # pixdim[1]
    elif fault == "sform of zeros":
        patch_header(path, 1, 280, "<12f", *[0.0] * 12)
    elif fault == "sform without numbers":
        patch_header(path, 1, 280, "<f", np.nan)
    elif fault == "qform that is no rotation":
        patch_header(path, 0, 252, "<2hf", 1, 0, 5.0)  # qform_code, sform_code, quatern_b: at most 1
    elif fault == "metres":
        patch_header(path, 0, 80, "<3f", 0.004, 0.004, 0.005)
    elif fault == "colours":
        save(path, np.zeros((20, 20, 20), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")]))
    elif fault == "complex":
        save(path, head() * (1 + 1j))
    elif fault == "one empty frame":
        save(path, np.stack([head(), 0 * head()], axis=-1))


def test_weights_are_read_once_for_all_scans(tmp_path, weights, monkeypatch):
    for name in "ab":
        save(tmp_path / "in" / f"{name}.nii.gz")
    read, original = [], torch.load
    monkeypatch.setattr(torch, "load", lambda path, **options: read.append(Path(path)) or original(path, **options))
    correct(tmp_path / "in", tmp_path / "out", weights)
    assert read == [weights]


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("not a NIfTI", "cannot be read as NIfTI"),
        ("another format inside", "cannot be read as NIfTI"),
        ("truncated", "cannot be read as NIfTI"),
        ("all zero", "no voxel is above zero"),
        ("2-D", "3 spatial axes"),
        ("zero voxel size", r"its header gives voxels of \[0\.0, 4\.0, 5\.0\] mm"),
        ("sform of zeros", r"its header gives voxels of \[0\.0, 0\.0, 0\.0\] mm"),
        ("sform without numbers", "its header gives voxels of"),
        ("qform that is no rotation", "its header gives no affine.*Remedy"),
        ("metres", "in metres"),
        ("colours", "not real numbers"),
        ("complex", "not real numbers"),
        ("one empty frame", r"frames \[1\] hold no voxel above zero"),
    ],
)
def test_a_scan_that_cannot_be_read_or_corrected_is_named_with_its_fault_on_one_line(tmp_path, weights, fault, message):
    path = tmp_path / "scan.nii.gz"
    broken(path, fault)
    with pytest.raises(CTRestoreError) as ended:
        correct(path, tmp_path / "out", weights)
    _, line = str(ended.value).split("\n")
    assert line.strip().startswith(f"{path}: ")
    assert "Traceback" not in line
    assert len(line) < 600
    assert re.search(message, line)
    assert names(tmp_path / "out") == []


def test_a_disk_that_fills_up_is_said_and_leaves_no_file(tmp_path, weights, monkeypatch):
    save(tmp_path / "scan.nii.gz")

    def full(image, stream):
        stream.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(nib.Nifti1Image, "to_stream", full)
    with pytest.raises(CTRestoreError, match=r"scan\.nii\.gz: the disk is full; nothing of this scan was written"):
        correct(tmp_path / "scan.nii.gz", tmp_path / "out", weights)
    assert names(tmp_path / "out") == []


def test_an_output_folder_that_cannot_be_made_is_refused_before_any_work(tmp_path, weights):
    save(tmp_path / "scan.nii.gz")
    with pytest.raises(CTRestoreError, match=r"cannot write into .*--output_dir"):
        correct(tmp_path / "scan.nii.gz", tmp_path / "scan.nii.gz" / "out", weights)


def test_weights_of_another_network_are_refused_before_any_work(tmp_path):
    save(tmp_path / "scan.nii.gz")
    torch.save(torch.nn.Conv3d(1, 1, 3).state_dict(), tmp_path / "other.pt")
    with pytest.raises(CTRestoreError, match=r"other\.pt does not fit HomogeneousUNet.*--weights"):
        correct(tmp_path / "scan.nii.gz", tmp_path / "out", tmp_path / "other.pt")
    assert not (tmp_path / "out").exists()


def test_a_wrong_device_is_refused(tmp_path, weights):
    save(tmp_path / "scan.nii.gz")
    with pytest.raises(CTRestoreError, match="cuda:99"):
        correct(tmp_path / "scan.nii.gz", tmp_path / "out", weights, device="cuda:99")


def test_the_fwhm_comes_from_the_argument_then_the_sidecar_then_is_assumed_aloud(tmp_path, caplog):
    path = tmp_path / "a_pet.nii.gz"
    touch(path)
    assert scans(str(path))[0]["fwhm_mm"] == [6.0, 6.0, 6.0]
    assert "6 mm assumed" in caplog.text
    path.with_name("a_pet.json").write_text('{"FWHM_x": 4, "FWHM_y": 5, "FWHM_z": 7}')
    assert scans(str(path))[0]["fwhm_mm"] == [4.0, 5.0, 7.0]
    assert scans(str(path), fwhm_mm=8)[0]["fwhm_mm"] == [8.0, 8.0, 8.0]
    assert scans(str(path), fwhm_mm=[1, 2, 3])[0]["fwhm_mm"] == [1.0, 2.0, 3.0]


@pytest.mark.parametrize("wrong", [0, -6, "six", [6, 6], float("nan")])
def test_an_fwhm_that_is_no_width_is_refused(wrong, tmp_path):
    path = tmp_path / "a_pet.nii.gz"
    touch(path)
    with pytest.raises(ValueError, match="mm"):
        scans(str(path), fwhm_mm=wrong)


def test_a_sidecar_with_a_broken_fwhm_is_refused_by_name(tmp_path):
    path = tmp_path / "a_pet.nii.gz"
    touch(path)
    path.with_name("a_pet.json").write_text('{"FWHM_x": 0, "FWHM_y": 5, "FWHM_z": 7}')
    with pytest.raises(CTRestoreError, match="a_pet.json"):
        scans(str(path))


def test_outputs_of_scans_of_one_name_in_many_folders_differ_also_for_a_relative_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    touch(tmp_path / "in" / "a" / "pet.nii.gz", tmp_path / "in" / "b" / "pet.nii.gz")
    listed = [{"image": str(tmp_path / "in" / name / "pet.nii.gz")} for name in "ab"]
    assert outputs_of(listed, "out", "in") == ["out/a_pet_pvc.nii.gz", "out/b_pet_pvc.nii.gz"]
    with pytest.raises(ValueError, match="would both be written"):
        outputs_of(listed, "out", "elsewhere")


def test_what_an_earlier_run_wrote_beside_its_scan_is_no_scan(tmp_path):
    touch(*(tmp_path / f"{name}.nii.gz" for name in ("a", "a_pvc", "a_tissue", "lonely_pvc")))
    assert [Path(scan["image"]).name for scan in scans(str(tmp_path))] == ["a.nii.gz", "lonely_pvc.nii.gz"]


def test_phantoms_are_not_written_into_a_folder_of_other_data(tmp_path):
    touch(tmp_path / "sub-1" / "pet.nii.gz")
    with pytest.raises(CTRestoreError, match=r"holds other data.*--data_list"):
        entries("training", None, str(tmp_path))
    assert names(tmp_path) == ["sub-1"]


@pytest.fixture
def pair(tmp_path):
    """A data list of one scan; the functions below spoil it."""
    for name in ("pet", "label"):
        save(tmp_path / f"sub-1_{name}.nii.gz")
    entry = {"subject": "sub-1", "image": "sub-1_pet.nii.gz", "label": "sub-1_label.nii.gz"}
    (tmp_path / "list.json").write_text(json.dumps({"training": [entry]}))
    return tmp_path


def test_a_listed_scan_that_cannot_be_read_is_named_before_any_work(pair):
    (pair / "sub-1_pet.nii.gz").write_bytes(b"no NIfTI")
    with pytest.raises(CTRestoreError, match=r"sub-1_pet\.nii\.gz: cannot be read as NIfTI"):
        entries("training", str(pair / "list.json"), str(pair))


def test_a_label_of_another_shape_is_named_before_any_work(pair):
    nib.save(nib.Nifti1Image(np.ones((9, 9, 9), dtype=np.float32), np.eye(4)), pair / "sub-1_label.nii.gz")
    with pytest.raises(CTRestoreError, match=r"sub-1_label\.nii\.gz is on another grid.*Remedy"):
        entries("training", str(pair / "list.json"), str(pair))


def test_evaluation_refuses_a_scan_of_unknown_fwhm_before_any_work(pair):
    with pytest.raises(CTRestoreError, match="FWHM_x"):
        entries("training", str(pair / "list.json"), str(pair), fwhm_needed=True)
    assert entries("training", str(pair / "list.json"), str(pair), fwhm_mm=5, fwhm_needed=True)


def test_a_list_may_state_the_fwhm_and_an_error_of_it_may_be_tried(pair):
    listed = json.loads((pair / "list.json").read_text())
    listed["training"][0]["fwhm_mm"] = [4.0, 5.0, 6.0]
    (pair / "list.json").write_text(json.dumps(listed))

    def fwhm_mm(**settings):
        return entries("training", str(pair / "list.json"), str(pair), fwhm_needed=True, **settings)[0]["fwhm_mm"]

    assert fwhm_mm() == [4, 5, 6]
    assert fwhm_mm(fwhm_mm=7) == [7, 7, 7]
    assert fwhm_mm(fwhm_error_mm=-1) == [3, 4, 5]
    with pytest.raises(CTRestoreError, match="fwhm_error_mm"):
        fwhm_mm(fwhm_error_mm=-4)


def test_a_hybrid_folder_without_the_scans_is_refused_before_any_work(pair):
    listed = Dataset([{"image": str(pair / "sub-1_pet.nii.gz")}])
    with pytest.raises(CTRestoreError, match=r"hyb/sub-1_pet_pvc\.nii\.gz: no such file\. Remedy: .*--method hybrid"):
        evaluate_each(None, listed, str(pair / "out"), None, str(pair), hybrid_dir=str(pair / "hyb"))
