"""The LDCT denoising bundle as its users run it: every config and overlay, on tiny bodies."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser, ConfigWorkflow

from tests.conftest import ROOT, cases, refused, small_ct

BUNDLE = ROOT / "bundles" / "ldct_denoising"
CONFIGS = BUNDLE / "configs"
BASES = {"train", "inference"}
ON_TRAIN_AND_EVALUATE: set[str] = set()


def stack(*names: str) -> list[str]:
    return [str(CONFIGS / f"{name}.json") for name in names]


def overlays() -> list[str]:
    found = sorted(path.stem for path in CONFIGS.glob("*.json") if path.stem not in BASES | {"metadata"})
    return cases(found, at_least=20)


def run(*names: str, **overrides) -> ConfigWorkflow:
    workflow = ConfigWorkflow(stack(*names), workflow_type="train", logging_file=False, **overrides)
    workflow.initialize()
    assert not workflow.check_properties()
    workflow.run()
    workflow.finalize()
    return workflow


@pytest.mark.parametrize("overlay", ["", *overlays()])
def test_every_reference_of_every_training_stack_resolves(overlay):
    parser = ConfigParser()
    parser.read_config(stack("train", *filter(None, [overlay])))
    for reference in set(re.findall(r"@(\w+(?:#\w+)*)", json.dumps(parser.get()))):
        assert reference in parser, f"{overlay} refers to @{reference}, which nothing defines"


def test_the_hounsfield_range_is_that_of_the_package():
    """-1000..2000 HU becomes -1..2 wherever the clip lies."""
    parser = ConfigParser()
    parser.read_config(stack("train"))
    scale = parser.get_parsed_content("preprocessing_steps")[3]
    data = {key: torch.tensor([[-1000.0, 0.0, 2000.0, -3024.0, 3000.0]]) for key in ("image", "label")}
    expected = torch.tensor([[-1.0, 0.0, 2.0, -1.2, 2.0]])
    torch.testing.assert_close(torch.as_tensor(scale(data)["image"]), expected)


def test_training_on_full_dose_alone_learns_and_goes_on_where_it_stopped(tiny_bodies, tmp_path):
    options = small_ct(tiny_bodies, tmp_path, max_epochs=8, patches_per_slice=24, val_interval=4, learning_rate=0.003)
    workflow = run("train", **options)
    evaluator = workflow.parser.get_parsed_content("validate#evaluator")
    untrained = tmp_path / "untrained"
    first = run(
        "train", **{**options, "ckpt_dir": str(untrained), "learning_rate": 1e-12, "max_epochs": 1, "val_interval": 1}
    )
    gained = evaluator.state.best_metric - first.parser.get_parsed_content("validate#evaluator").state.best_metric
    assert gained > 0.3  # dB over the input, which an untrained network returns
    state = torch.load(tmp_path / "runs" / "model.pt", weights_only=True)
    assert all(isinstance(value, torch.Tensor) for value in state.values())
    last = torch.load(tmp_path / "runs" / "last.pt", weights_only=True)
    again = run("train", **options, resume=True)
    assert again.parser.get_parsed_content("train#trainer").state.epoch == last["epoch"] == 8


def test_the_second_stage_goes_on_from_the_weights_of_the_first(tiny_bodies, tmp_path):
    options = small_ct(tiny_bodies, tmp_path, max_epochs=1)
    run("train", **options)
    start = tmp_path / "runs" / "model.pt"
    options |= {"ckpt_dir": str(tmp_path / "second"), "learning_rate": 1e-12}
    run("train", "release_means", **options, start_from=str(start))
    first, second = (torch.load(path, weights_only=True) for path in (start, tmp_path / "second" / "model.pt"))
    for name, weights in first.items():
        torch.testing.assert_close(second[name].float(), weights.float(), atol=1e-6, rtol=0)
    with refused(match="there is no .*none.pt. Remedy: train the first stage"):
        run("train", "release_means", **options, start_from=str(tmp_path / "none.pt"))
    run("train", "release_means", **options, start_from=str(tmp_path / "none.pt"), resume=True)  # needs it no more


def test_training_on_pairs_simulates_nothing(tiny_bodies, tmp_path):
    listed = json.loads((tiny_bodies / "list.json").read_text())
    for section in listed.values():
        for entry in section:  # the same scan as its own low dose: nothing to learn, if nothing is simulated
            entry["label"] = entry["image"]
    (tmp_path / "pairs.json").write_text(json.dumps(listed))
    options = small_ct(tiny_bodies, tmp_path, data_list=str(tmp_path / "pairs.json"), max_epochs=1)
    workflow = run("train", **options)
    sample = workflow.parser.get_parsed_content("train#dataset")[0]
    assert torch.equal(sample["image"][:1], sample["label"])
    assert set(sample) == {"image", "label"}


@pytest.mark.parametrize("simulated_dose", [0.25, None])
def test_training_without_full_dose_validates_without_it(tiny_bodies, tmp_path, simulated_dose):
    options = small_ct(tiny_bodies, tmp_path, max_epochs=1, simulated_dose=simulated_dose)
    options["network_def"] |= {"in_channels": 1}  # a dose that nobody knows cannot be told
    workflow = run("train", "self_supervised", **options)
    for dataset in ("train#dataset", "validate#dataset"):
        sample = workflow.parser.get_parsed_content(dataset)[0]
        assert set(sample) == {"image", "label"}
        difference = (sample["image"] - sample["label"])[torch.isfinite(sample["label"])]
        if simulated_dose:
            assert difference.std() > 0.01  # two scans of other noise, neither of them the full dose
        else:
            assert not difference.any()  # these bodies hold no noise of their own that could be imitated
    assert (tmp_path / "runs" / "model.pt").is_file()


def test_the_network_is_told_the_dose_and_now_and_then_it_is_not(tiny_bodies, tmp_path):
    parser = ConfigParser()
    parser.read_config(stack("train"))
    parser.update(small_ct(tiny_bodies, tmp_path))
    dataset, transform = (parser.get_parsed_content(f"train#{name}") for name in ("dataset", "preprocessing"))
    transform.set_random_state(0)
    told = torch.stack([dataset[0]["image"][1] for _ in range(60)])
    assert torch.equal(told, told[:, :1, :1].expand_as(told))  # one number a patch
    unknown = told[:, 0, 0] == 0.5
    assert 5 < unknown.sum() < 30
    assert ((told[~unknown] >= -1) & (told[~unknown] <= -0.301)).all()  # log10 of 0.1 to 0.5
    validation = parser.get_parsed_content("validate#dataset")[0]["image"]
    torch.testing.assert_close(validation[1], torch.full_like(validation[1], -1.0))


def test_noise_is_new_in_every_epoch_and_the_same_in_every_run(tiny_bodies, tmp_path):
    parser = ConfigParser()
    parser.read_config(stack("train"))
    parser.update(small_ct(tiny_bodies, tmp_path))
    dataset = parser.get_parsed_content("train#dataset")
    transform = parser.get_parsed_content("train#preprocessing")

    def sample(seed):
        transform.set_random_state(seed)
        return dataset[0]["image"][0] - dataset[0]["label"].nan_to_num()

    assert torch.equal(sample(1), sample(1))
    assert not torch.equal(sample(1), sample(2))


def test_training_runs_on_two_processes(tiny_bodies, tmp_path):
    options = small_ct(tiny_bodies, tmp_path, max_epochs=1)
    files = "[" + ",".join(f"'{path}'" for path in stack("train", "multi_gpu_train")) + "]"
    arguments = [
        f"--{key}={json.dumps(value) if not isinstance(value, str) else value}" for key, value in options.items()
    ]
    result = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m", "monai.bundle",
         "run", "--config_file", files, *arguments],
        cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-3000:]
    assert (tmp_path / "runs" / "model.pt").is_file()
    assert result.stderr.count("epoch 1/1") + result.stdout.count("epoch 1/1") == 1  # the first process alone logs


def test_a_missing_list_and_a_scan_that_is_no_ct_end_with_one_line(tiny_bodies, tmp_path):
    with refused(match=r"nowhere\.json") as caught:
        run("train", **small_ct(tiny_bodies, tmp_path, data_list=str(tmp_path / "nowhere.json")))
    assert "Make one with" in str(caught.value)
    pet = tmp_path / "pet.nii"
    nib.save(nib.Nifti1Image(np.full((32, 32, 2), 5000, np.int16), np.eye(4)), pet)
    (tmp_path / "list.json").write_text(json.dumps({"training": [{"subject": "a", "image": "pet.nii"}]}))
    with refused(match=r"pet\.nii: expected Hounsfield units"):
        run("train", **small_ct(tmp_path, tmp_path, data_list=str(tmp_path / "list.json")))
