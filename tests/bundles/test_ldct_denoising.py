"""The LDCT denoising bundle as its users run it: every config and overlay, on tiny bodies."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser, ConfigWorkflow

from tests.conftest import ROOT

BUNDLE = ROOT / "bundles" / "ldct_denoising"
CONFIGS = BUNDLE / "configs"
BASES = {"train", "inference"}
ON_TRAIN_AND_EVALUATE: set[str] = set()
TINY_NETWORK = {
    "_target_": "ctrestore.networks.UnshuffledUNet",
    "features": [8, 8, 8],
    "encoder_blocks": [1, 1, 1],
    "decoder_blocks": [1, 1],
}


def stack(*names: str) -> list[str]:
    return [str(CONFIGS / f"{name}.json") for name in names]


def overlays() -> list[str]:
    return sorted(path.stem for path in CONFIGS.glob("*.json") if path.stem not in BASES | {"metadata"})


def tiny(folder: Path, tmp_path: Path, **more) -> dict:
    """Overrides that shrink a training to seconds."""
    return {
        "bundle_root": str(BUNDLE),
        "data_list": str(folder / "list.json"),
        "dataset_dir": str(folder),
        "ckpt_dir": str(tmp_path / "runs"),
        "output_dir": str(tmp_path / "out"),
        "network_def": TINY_NETWORK,
        "patch_size": [32, 32],
        "batch_size": 4,
        "patches_per_slice": 2,
        "max_epochs": 2,
        "val_interval": 1,
        "n_noise": 2,
        "cache_dir": str(folder / "cache"),  # projecting is what takes the time
        "validation_doses": [0.1],
        **more,
    }


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
    expected = torch.tensor([[-1.0, 0.0, 2.0, -1.024, 2.0]])
    torch.testing.assert_close(torch.as_tensor(scale(data)["image"]), expected)


def test_training_on_full_dose_alone_learns_and_goes_on_where_it_stopped(tiny_bodies, tmp_path):
    options = tiny(tiny_bodies, tmp_path, max_epochs=8, patches_per_slice=24, val_interval=4, learning_rate=0.01)
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


def test_training_on_pairs_simulates_nothing(tiny_bodies, tmp_path):
    listed = json.loads((tiny_bodies / "list.json").read_text())
    for section in listed.values():
        for entry in section:  # the same scan as its own low dose: nothing to learn, if nothing is simulated
            entry["label"] = entry["image"]
    (tmp_path / "pairs.json").write_text(json.dumps(listed))
    options = tiny(tiny_bodies, tmp_path, data_list=str(tmp_path / "pairs.json"), max_epochs=1)
    workflow = run("train", **options)
    sample = workflow.parser.get_parsed_content("train#dataset")[0]
    assert torch.equal(sample["image"], sample["label"])
    assert set(sample) == {"image", "label"}


def test_noise_is_new_in_every_epoch_and_the_same_in_every_run(tiny_bodies, tmp_path):
    parser = ConfigParser()
    parser.read_config(stack("train"))
    parser.update(tiny(tiny_bodies, tmp_path))
    dataset = parser.get_parsed_content("train#dataset")
    transform = parser.get_parsed_content("train#preprocessing")

    def sample(seed):
        transform.set_random_state(seed)
        return dataset[0]["image"] - dataset[0]["label"].nan_to_num()

    assert torch.equal(sample(1), sample(1))
    assert not torch.equal(sample(1), sample(2))


def test_training_runs_on_two_processes(tiny_bodies, tmp_path):
    options = tiny(tiny_bodies, tmp_path, max_epochs=1)
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
    with pytest.raises(SystemExit, match=r"nowhere\.json") as caught:
        run("train", **tiny(tiny_bodies, tmp_path, data_list=str(tmp_path / "nowhere.json")))
    assert "Make one with" in str(caught.value)
    pet = tmp_path / "pet.nii"
    nib.save(nib.Nifti1Image(np.full((32, 32, 2), 5000, np.int16), np.eye(4)), pet)
    (tmp_path / "list.json").write_text(json.dumps({"training": [{"subject": "a", "image": "pet.nii"}]}))
    with pytest.raises(SystemExit, match=r"pet\.nii: expected Hounsfield units"):
        run("train", **tiny(tmp_path, tmp_path, data_list=str(tmp_path / "list.json")))
