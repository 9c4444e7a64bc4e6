"""The PET PVC bundle as its users run it: every config and overlay, from every folder, on tiny heads."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
from monai.bundle import ConfigParser, ConfigWorkflow, load

from ctrestore.networks import TissueUNet
from ctrestore.phantoms import TRACERS, acquire, build_anatomy, draw_uptake
from tests.conftest import ROOT, refused, small, write_nifti
from tests.tasks.pet_pvc.labels.conftest import write_subject

BUNDLE = ROOT / "bundles" / "pet_pvc"
CONFIGS = BUNDLE / "configs"
RELEASED = BUNDLE / "models" / "model.pt"
RELEASED_TISSUE = BUNDLE / "models" / "tissue.pt"
BASES = {"train", "inference"}
STACKS = {
    "train": ["train"],
    "two_cores": ["train", "two_cores"],
    "tissue": ["train", "tissue"],
    "tissue_two_cores": ["train", "two_cores", "tissue"],
    "published_resunet": ["train", "published_resunet"],
    "evaluate": ["train", "evaluate"],
    "published_evaluate": ["train", "evaluate", "published_resunet"],
    "multi_gpu_train": ["train", "multi_gpu_train"],
    "make_labels": ["make_labels"],
    "inference": ["inference"],
    "published_inference": ["inference", "published_resunet"],
}


def stack(name: str, folder: Path = CONFIGS) -> list[str]:
    return [str(folder / f"{part}.json") for part in STACKS[name]]


def run(name: str, workflow_type: str | None, **overrides) -> ConfigWorkflow:
    workflow = ConfigWorkflow(stack(name), workflow_type=workflow_type, logging_file=False, **overrides)
    workflow.initialize()
    assert not workflow.check_properties()
    workflow.run()
    workflow.finalize()
    return workflow


def config(name: str) -> dict:
    return json.loads((CONFIGS / f"{name}.json").read_text())


def test_every_config_is_covered_here():
    used = {part for parts in STACKS.values() for part in parts}
    assert used == {path.stem for path in CONFIGS.glob("*.json")} - {"metadata"}


@pytest.mark.parametrize("name", STACKS)
def test_every_reference_of_every_stack_resolves(name):
    parser = ConfigParser()
    parser.read_config(stack(name))
    text = json.dumps(parser.get())
    for reference in set(re.findall(r"@(\w+(?:#\w+)*)", text)):
        if name == "published_inference" and reference in PUBLISHED_TRAINING_ONLY:
            continue
        assert reference in parser, f"{name} refers to @{reference}, which nothing defines"


# published_resunet.json serves both bases; what inference.json never evaluates may refer to training's ids.
PUBLISHED_TRAINING_ONLY = {"optimizer", "validate#preprocessing"}


def test_training_and_inference_share_network_and_preprocessing():
    train, inference, evaluate = config("train"), config("inference"), config("evaluate")
    assert train["network_def"] == inference["network_def"]

    def chain(steps: list[dict]) -> list[dict]:
        return [
            {**step, "keys": "image"} if step.get("keys") == ["image", "label"] else step
            for step in steps
            if step["_target_"] != "CopyItemsd"  # the scan that inference adds the correction to
        ]

    steps = inference["preprocessing"]["transforms"]
    assert chain(train["preprocessing_steps"]) == chain(steps)
    assert evaluate["validation_steps"] == steps
    assert train["validation_steps"] == "@preprocessing_steps"
    assert train["validate"]["inferer"] == inference["inferer"]
    knobs = ("bundle_root", "spacing_mm", "cube_size", "amp", "window_overlap", "channels_per_frame", "fwhm_mm")
    assert [train[knob] for knob in knobs] == [inference[knob] for knob in knobs]

    def undoing(steps: list[dict]) -> list[dict]:
        return [{k: v for k, v in step.items() if k != "transform"} for step in steps]

    of_the_network = [
        {k: v for k, v in step.items() if k != "_disabled_"}
        for step in inference["postprocessing"]["transforms"]
        if step.get("_disabled_") in (None, "$@method != 'network'")
    ]
    assert undoing(evaluate["restoring_steps"]) == undoing(of_the_network)


def test_the_tissue_network_sees_what_inference_shows_it():
    tissue, inference = config("tissue"), config("inference")
    assert tissue["network_def"] == inference["tissue_network_def"]

    def of_the_image(steps: list[dict]) -> list[dict]:
        seen = [step for step in steps if "image" in step["keys"] and step["_target_"] != "CopyItemsd"]
        return [{k: v for k, v in step.items() if k not in ("keys", "_desc_")} for step in seen]

    assert of_the_image(tissue["preprocessing_steps"]) == of_the_image(inference["preprocessing"]["transforms"])


def test_training_learns_saves_and_then_evaluates_and_corrects(tiny_heads, tmp_path):
    options = small(tiny_heads, tmp_path, max_epochs=20)
    run("train", "train", **options)
    options["yang_steps"] = 0
    weights = tmp_path / "runs" / "model.pt"
    assert all(isinstance(v, torch.Tensor) for v in torch.load(weights, weights_only=True).values())

    run("evaluate", "train", **options)
    table = pd.read_csv(tmp_path / "out" / "metrics.csv").set_index(["subject", "row"])
    for subject in ("sub-6", "sub-7"):
        error = table.loc[subject]["gm_nrmse"]
        assert error["network"] < error["Van Cittert"]  # which an untrained network equals
        # Binary masks and uniform tissue: with an MRI the truth comes back.
        assert error["RBV, exact masks"] < 1e-3 < error["RBV, imperfect masks"]

    corrects = {k: options[k] for k in ("bundle_root", "spacing_mm", "cube_size", "yang_steps")}
    only = tmp_path / "scans"
    only.mkdir()
    for subject in ("sub-6", "sub-7"):
        for ending in (".nii.gz", ".json"):  # the sidecar holds the FWHM
            shutil.copy(tiny_heads / subject / f"{subject}_pet{ending}", only)
    run(
        "inference",
        "inference",
        dataset_dir=str(only),
        weights=str(weights),
        output_dir=str(tmp_path / "inf"),
        **corrects,
    )
    for subject in ("sub-6", "sub-7"):
        one, other = (
            nib.load(tmp_path / folder / f"{subject}_pet_pvc.nii.gz").get_fdata() for folder in ("out", "inf")
        )
        # Convolutions add in an order that depends on where their memory lies: the last bits of float32 may differ.
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-5 * one.max())


@pytest.fixture
def scans_with_mri(tmp_path) -> Path:
    """A BIDS data set of three subjects with segmented MRI."""
    for i in range(3):
        write_subject(tmp_path / "bids", f"sub-0{i}", shift=0.3 * i)
    return tmp_path / "bids"


def test_labels_made_from_pet_and_mri_train_the_network(scans_with_mri, tiny_heads, tmp_path):
    split = {"split": [1, 1, 1], "bundle_root": str(BUNDLE)}
    run("make_labels", None, dataset_dir=str(scans_with_mri), output_dir=str(tmp_path / "labels"), **split)
    options = small(tiny_heads, tmp_path, max_epochs=1, data_list=str(tmp_path / "labels" / "pet_pvc_mMG.json"))
    run("train", "train", **options)  # its dataset_dir is another one: the list knows where its scans are
    assert (tmp_path / "runs" / "model.pt").is_file()
    run("evaluate", "train", **options)
    table = pd.read_csv(tmp_path / "out" / "metrics.csv")
    assert set(table["reference"]) == {"label"}


def test_labels_by_the_command_line_name_a_bad_subject_and_end_with_an_error(scans_with_mri, tmp_path):
    (scans_with_mri / "sub-01" / "pet" / "sub-01_trc-FDG_pet.json").unlink()
    options = {"dataset_dir": scans_with_mri, "output_dir": tmp_path / "labels", "method": "RBV", "csf": "none"}
    options["split"] = "[0.5,0.5,0]"
    file = "bundles/pet_pvc/configs/make_labels.json"
    result = command("monai.bundle", "run", "--config_file", file, *as_arguments(options))
    assert result.returncode == 1
    assert "sub-01_trc-FDG_pet.json: no such sidecar" in result.stderr.splitlines()[-1]
    assert "2 labels made, 0 were there already, 1 scans skipped" in result.stdout
    again = command("monai.bundle", "run", "--config_file", file, *as_arguments({**options, "fwhm_mm": "[9,10,11]"}))
    assert again.returncode == 0, again.stderr[-2000:]
    assert "1 labels made, 2 were there already" in again.stdout
    assert len(list((tmp_path / "labels").rglob("*desc-pvcRBV_pet.nii.gz"))) == 3


@pytest.mark.skipif(not RELEASED_TISSUE.is_file(), reason="no released weights")
def test_the_released_tissue_weights_are_plain_tensors_under_4_mb_that_fit_the_network():
    state = torch.load(RELEASED_TISSUE, map_location="cpu", weights_only=True)
    arguments = {k: v for k, v in config("inference")["tissue_network_def"].items() if k != "_target_"}
    TissueUNet(**arguments).load_state_dict(state)
    assert RELEASED_TISSUE.stat().st_size < 4e6


@pytest.fixture(scope="module")
def tissue_weights(tiny_heads, tmp_path_factory) -> Path:
    """Of a tissue network that has seen the tiny heads for twenty epochs."""
    folder = tmp_path_factory.mktemp("tissue")
    run("tissue_two_cores", "train", **small(tiny_heads, folder, max_epochs=20, learning_rate=0.003))
    return folder / "runs" / "model.pt"


def hybrid(dataset_dir: Path, output_dir: Path, weights: Path, **more) -> None:
    options = {"bundle_root": str(BUNDLE), "spacing_mm": 4.0, "cube_size": 48, "method": "hybrid", **more}
    places = {"dataset_dir": str(dataset_dir), "output_dir": str(output_dir), "weights": str(weights)}
    run("inference", "inference", **places, **options)


def test_tissues_are_learned_and_the_classical_correction_by_them_comes_closer_to_the_truth(
    tiny_heads, tissue_weights, tmp_path
):
    hybrid(tiny_heads, tmp_path / "hybrid", tissue_weights, save_tissue=True)
    scan = nib.load(tiny_heads / "sub-6" / "sub-6_pet.nii.gz")
    maps = nib.load(tmp_path / "hybrid" / "sub-6_pet_tissue.nii.gz")
    assert maps.shape == (*scan.shape, 3)
    np.testing.assert_array_equal(maps.affine, scan.affine)

    options = small(tiny_heads, tmp_path, weights=str(RELEASED), hybrid_dir=str(tmp_path / "hybrid"))
    run("evaluate", "train", **options)
    error = pd.read_csv(tmp_path / "out" / "metrics.csv").set_index(["subject", "row"])["gm_nrmse"]
    dice = pd.read_csv(tmp_path / "out" / "tissue.csv").set_index("subject")
    for subject in ("sub-6", "sub-7"):
        assert dice.loc[subject, "grey_matter"] > 0.8
        assert dice.loc[subject, "white_matter"] > 0.8
        assert error[subject, "hybrid"] < error[subject, "input"]


def test_the_tissues_do_not_depend_on_the_unit_and_the_correction_scales_with_it(tiny_heads, tissue_weights, tmp_path):
    scan = nib.load(tiny_heads / "sub-6" / "sub-6_pet.nii.gz")
    for name, factor in (("becquerel", 1.0), ("suv", 2.0**-9)):
        write_nifti(tmp_path / "in" / f"{name}.nii.gz", factor * scan.get_fdata(dtype=np.float32), scan.affine)
    hybrid(tmp_path / "in", tmp_path / "out", tissue_weights, save_tissue=True, amp=False, fwhm_mm=10.0)
    out = {path.name: nib.load(path).get_fdata() for path in (tmp_path / "out").iterdir()}
    np.testing.assert_allclose(out["suv_tissue.nii.gz"], out["becquerel_tissue.nii.gz"], atol=1e-4)
    becquerel = out["becquerel_pvc.nii.gz"]
    np.testing.assert_allclose(2.0**9 * out["suv_pvc.nii.gz"], becquerel, atol=1e-3 * becquerel.max())


def test_a_dynamic_scan_is_corrected_by_one_set_of_tissue_maps(tiny_heads, tissue_weights, tmp_path):
    static = nib.load(tiny_heads / "sub-6" / "sub-6_pet.nii.gz")
    frames = np.stack([static.get_fdata(dtype=np.float32) * factor for factor in (1.0, 0.3)], axis=-1)
    path = write_nifti(tmp_path / "in" / "dynamic.nii.gz", frames, static.affine)
    hybrid(path, tmp_path / "out", tissue_weights, save_tissue=True, amp=False, fwhm_mm=10.0)
    values = nib.load(tmp_path / "out" / "dynamic_pvc.nii.gz").get_fdata()
    assert values.shape == frames.shape
    np.testing.assert_allclose(values[..., 1], 0.3 * values[..., 0], atol=1e-3 * values.max())
    assert nib.load(tmp_path / "out" / "dynamic_tissue.nii.gz").shape == (*static.shape, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "magic"}, r"method 'magic' is unknown. Remedy: --method with one of network, hybrid"),
        ({"method": "hybrid", "weights": "none.pt"}, r"there are no weights at none.pt"),
        ({"method": "network", "save_tissue": True}, r"'network' makes no tissue maps"),
        ({"method": "hybrid", "classical_method": "GTM"}, r"GTM gives regional means and no image"),
        ({"method": "hybrid", "classical_method": "best"}, r"no method 'best'"),
    ],
)
def test_a_method_that_cannot_be_ends_with_one_message(options, message, tiny_heads, tissue_weights, tmp_path):
    weights = str(tissue_weights if options["method"] == "hybrid" else RELEASED)
    places = {"dataset_dir": str(tiny_heads / "sub-6"), "output_dir": str(tmp_path / "out"), "weights": weights}
    with refused(match=message):
        run("inference", "inference", bundle_root=str(BUNDLE), spacing_mm=4.0, cube_size=48, **{**places, **options})


def test_a_subject_without_one_of_the_tissue_maps_is_named_before_training(tiny_heads, tmp_path):
    lists = json.loads((tiny_heads / "list.json").read_text())
    del lists["training"][0]["csf"]
    (tmp_path / "uneven.json").write_text(json.dumps(lists))
    with refused(match=r"sub-0 has no 'csf' in the training list"):
        run("tissue", "train", **small(tiny_heads, tmp_path, data_list=str(tmp_path / "uneven.json")))


@pytest.mark.parametrize("overlay", ["two_cores", "published_resunet"])
def test_every_overlay_trains_an_epoch(overlay, tiny_heads, tmp_path):
    options = small(tiny_heads, tmp_path, max_epochs=1, target="label")
    if overlay == "published_resunet":
        options["network_def#features"] = [4, 8]
    run(overlay, "train", **options)
    assert (tmp_path / "runs" / "model.pt").is_file()


def test_the_published_network_trains_on_the_same_octant_of_image_and_label(tiny_heads, tmp_path):
    lists = json.loads((tiny_heads / "list.json").read_text())
    for entry in lists["training"]:
        entry["label"] = entry["image"]
    (tmp_path / "same.json").write_text(json.dumps(lists))
    parser = ConfigParser()
    parser.read_config(stack("published_resunet"))
    for key, value in small(tiny_heads, tmp_path, target="label", data_list=str(tmp_path / "same.json")).items():
        parser[key] = value
    dataset = parser.get_parsed_content("train#dataset")
    corners = set()
    for _ in range(12):
        item = dataset[0]
        assert set(item) == {"image", "label"}
        torch.testing.assert_close(item["image"] / item["image"].max(), item["label"] / item["label"].max())
        corners.add(float(item["label"].sum()))
    assert len(corners) > 3  # octants differ


def test_training_does_not_mind_optional_maps_that_only_some_subjects_have(tiny_heads, tmp_path):
    lists = json.loads((tiny_heads / "list.json").read_text())
    del lists["training"][0]["csf"]
    (tmp_path / "uneven.json").write_text(json.dumps(lists))
    options = small(tiny_heads, tmp_path, max_epochs=1, data_list=str(tmp_path / "uneven.json"))
    run("train", "train", **options, cache_dir=str(tmp_path / "cache"))
    assert any((tmp_path / "cache").iterdir())


def test_a_new_training_keeps_the_files_of_the_one_before(tiny_heads, tmp_path):
    options = small(tiny_heads, tmp_path, max_epochs=1)
    run("train", "train", **options)
    before = torch.load(tmp_path / "runs" / "last.pt", weights_only=True)
    run("train", "train", **options, seed=5)
    kept = torch.load(tmp_path / "runs" / "previous_1" / "last.pt", weights_only=True)
    assert torch.equal(kept["network"]["head.weight"], before["network"]["head.weight"])


def test_a_killed_training_goes_on_to_the_same_weights(tiny_heads, tmp_path):
    whole = small(tiny_heads, tmp_path / "whole", max_epochs=3)
    run("train", "train", **whole)
    halted = small(tiny_heads, tmp_path / "halted", max_epochs=3)
    workflow = ConfigWorkflow(stack("train"), workflow_type="train", logging_file=False, **halted)
    workflow.initialize()
    trainer = workflow.parser.get_parsed_content("train#trainer")

    from ignite.engine import Events

    @trainer.on(Events.ITERATION_COMPLETED)
    def _kill(engine):
        if engine.state.epoch == 2:
            raise KeyboardInterrupt  # in the middle of the second epoch

    with pytest.raises(KeyboardInterrupt):
        workflow.run()
    run("train", "train", **halted, resume=True)
    first, second = (torch.load(tmp_path / d / "runs" / "last.pt", weights_only=True) for d in ("whole", "halted"))
    assert first["epoch"] == second["epoch"] == 3
    for name, value in first["network"].items():
        assert torch.equal(value, second["network"][name]), name


def command(*args: str, cwd: Path = ROOT, **environment: str) -> subprocess.CompletedProcess:
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    return subprocess.run(
        [sys.executable, "-m", *args], cwd=cwd, capture_output=True, text=True, timeout=600,
        env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", **environment},
    )  # fmt: skip


def as_arguments(options: dict) -> list[str]:
    return [text for key, value in options.items() for text in (f"--{key}", str(value))]


def test_two_processes_train_together(tiny_heads, tmp_path):
    options = small(tiny_heads, tmp_path, max_epochs=1)
    configs = str(stack("multi_gpu_train"))
    result = command(
        "torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m", "monai.bundle", "run",
        "--config_file", configs, *as_arguments(options),
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-2000:]
    assert result.stdout.count("best validation so far") == 1  # one process writes
    assert result.stdout.count("Epoch[1] Metrics") == 1
    logs = [path.name.split(".") for path in (tmp_path / "runs").glob("events.*")]
    assert len({process for *_, process, _ in logs}) == 1, logs
    weights = torch.load(tmp_path / "runs" / "model.pt", weights_only=True)
    assert all(torch.isfinite(value).all() for value in weights.values())
    assert weights["head.weight"].abs().max() > 0  # zero before training


@pytest.mark.parametrize("place", ["repository", "bundle", "copy"])
def test_inference_runs_from_the_repository_from_the_bundle_and_from_a_copy(place, tiny_heads, tmp_path):
    cwd, file = ROOT, "bundles/pet_pvc/configs/inference.json"
    if place == "bundle":
        cwd, file = BUNDLE, "configs/inference.json"
    elif place == "copy":  # named from a third folder
        copied = tmp_path / "elsewhere" / "renamed"
        shutil.copytree(BUNDLE, copied, ignore=shutil.ignore_patterns(".data", "runs*", "eval"))
        cwd, file = tmp_path, str(copied / "configs" / "inference.json")
    scan = tiny_heads / "sub-6" / "sub-6_pet.nii.gz"
    options = {"dataset_dir": scan, "output_dir": tmp_path / "out", "spacing_mm": 4.0, "cube_size": 48}
    result = command("monai.bundle", "run", "--config_file", file, *as_arguments(options), cwd=cwd)
    assert result.returncode == 0, result.stderr[-2000:]
    before, after = nib.load(scan), nib.load(tmp_path / "out" / "sub-6_pet_pvc.nii.gz")
    assert before.shape == after.shape
    assert np.array_equal(before.affine, after.affine)
    assert after.get_data_dtype() == np.float32


WITHOUT_REPORTS = """
import runpy, sys
for name in {absent}:
    sys.modules[name] = None  # any import of it fails as where it is not installed
sys.argv[0] = "monai.bundle"
runpy.run_module("monai.bundle", run_name="__main__")
"""


def test_inference_needs_nothing_that_only_reports_and_training_use(tiny_heads, tmp_path):
    """MONAI's own `import monai` loads most of these where they are installed, and does without where they are not.

    In MONAI 1.6: matplotlib by monai.utils.jupyter_utils, pandas by monai.utils.profiling and monai.data, sklearn by
    monai.metrics.embedding_collapse, skimage by monai.transforms.utils, tensorboard by monai.visualize.img2tensorboard.
    So their absence from sys.modules cannot be asked for; that inference runs without them can.
    """
    absent = ["matplotlib", "nilearn", "pandas", "skimage", "sklearn", "tensorboard", "tensorboardX"]
    options = {
        "config_file": str(CONFIGS / "inference.json"),
        "bundle_root": str(BUNDLE),
        "dataset_dir": str(tiny_heads / "sub-6" / "sub-6_pet.nii.gz"),
        "output_dir": str(tmp_path / "out"),
        "spacing_mm": "4.0",
        "cube_size": "48",
    }
    code = WITHOUT_REPORTS.format(absent=absent)
    ran = subprocess.run(
        [sys.executable, "-c", code, "run", *as_arguments(options)],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr[-2000:]
    assert (tmp_path / "out" / "sub-6_pet_pvc.nii.gz").is_file()


@pytest.mark.parametrize("workflow_type", ["train", "inference"])
def test_monai_loads_the_network_from_any_folder(workflow_type, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    network = load("pet_pvc", bundle_dir=str(BUNDLE.parent), workflow_type=workflow_type)
    released = torch.load(RELEASED, weights_only=True)
    loaded = network.state_dict()
    assert loaded.keys() == released.keys()
    assert all(torch.equal(loaded[name].half().cpu(), value) for name, value in released.items())


def test_one_bad_scan_is_reported_and_the_others_are_corrected(tiny_heads, tmp_path):
    folder = tmp_path / "scans"
    folder.mkdir()
    for i in (6, 7):
        shutil.copy(tiny_heads / f"sub-{i}" / f"sub-{i}_pet.nii.gz", folder)
    (folder / "broken.nii.gz").write_bytes((folder / "sub-6_pet.nii.gz").read_bytes()[:2000])
    write_nifti(folder / "hollow.nii.gz", np.zeros((24, 24, 24), dtype=np.float32))
    with refused() as stop:
        run(
            "inference", "inference", bundle_root=str(BUNDLE), dataset_dir=str(folder),
            output_dir=str(tmp_path / "out"), spacing_mm=4.0, cube_size=48,
        )  # fmt: skip
    message = str(stop.value)
    assert "broken.nii.gz: cannot be read as NIfTI" in message
    assert "hollow.nii.gz: no voxel is above zero" in message
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["sub-6_pet_pvc.nii.gz", "sub-7_pet_pvc.nii.gz"]


def test_a_dynamic_scan_is_corrected_frame_by_frame(tiny_heads, tmp_path):
    static = nib.load(tiny_heads / "sub-6" / "sub-6_pet.nii.gz")
    frames = np.stack([static.get_fdata(dtype=np.float32) * factor for factor in (1.0, 0.3)], axis=-1)
    path = write_nifti(tmp_path / "in" / "dynamic.nii.gz", frames, static.affine)
    options = {"bundle_root": str(BUNDLE), "spacing_mm": 4.0, "cube_size": 48, "amp": False}
    run("inference", "inference", dataset_dir=str(path), output_dir=str(tmp_path / "out"), **options)
    corrected = nib.load(tmp_path / "out" / "dynamic_pvc.nii.gz")
    assert corrected.shape == frames.shape
    values = corrected.get_fdata()
    np.testing.assert_allclose(values[..., 1], 0.3 * values[..., 0], atol=1e-3 * values.max())


@pytest.fixture(scope="module")
def lesion_scan(tmp_path_factory) -> tuple[Path, np.ndarray, np.ndarray]:
    """A test head with one lesion three times the cortex, seen with a 6 mm PSF: file, truth, lesion mask."""
    anatomy = build_anatomy("ribbon", seed=77)
    uptake = draw_uptake(anatomy, TRACERS["FDGAD"], seed=77, n_hot=0, n_cold=0)
    truth = uptake.activity.copy()
    cortex = float(uptake.grey_matter_concentration[anatomy.grey_matter > 0.9].mean())
    candidates = np.argwhere((anatomy.grey_matter > 0.6) & (anatomy.depth_mm > 10))
    centre = candidates[len(candidates) // 2]
    distance = np.sqrt(sum((g - c) ** 2 for g, c in zip(np.ogrid[tuple(map(slice, truth.shape))], centre)))
    lesion = distance <= 7.0
    truth[lesion] = 3.0 * cortex
    pet = 1000 * acquire(truth, fwhm_mm=(6.0, 6.0, 6.0), noise=0.03, seed=77)
    path = write_nifti(tmp_path_factory.mktemp("lesion") / "lesion.nii.gz", pet.astype(np.float32), anatomy.affine)
    return path, 1000 * truth, lesion


def test_a_lesion_three_times_the_cortex_is_recovered_above_the_clip(lesion_scan, tmp_path):
    path, truth, lesion = lesion_scan
    pet = nib.load(path).get_fdata()
    assert pet[lesion].max() > 1.5 * np.percentile(pet[pet > 0], 99)  # far above the clip
    run("inference", "inference", bundle_root=str(BUNDLE), dataset_dir=str(path), output_dir=str(tmp_path))
    corrected = nib.load(tmp_path / "lesion_pvc.nii.gz").get_fdata()
    before, after = (image[lesion].mean() / truth[lesion].mean() for image in (pet, corrected))
    assert before < 0.75
    assert 0.80 <= after <= 1.1
    assert corrected.sum() == pytest.approx(pet.sum(), rel=0.02)
