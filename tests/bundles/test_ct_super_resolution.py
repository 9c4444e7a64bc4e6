"""The super-resolution bundle as its users run it: every config and overlay, on tiny bodies."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
from monai.bundle import ConfigParser, ConfigWorkflow

from ctrestore.ct import finer_affine, lower_resolution
from ctrestore.phantoms import ct as ct_phantoms
from ctrestore.tasks.ct_restoration import embedded
from tests.conftest import ROOT, cases, image_in, refused

BUNDLE = ROOT / "bundles" / "ct_super_resolution"
MODELS = BUNDLE / "models"
CONFIGS = BUNDLE / "configs"
COMPLETE = {"train", "inference", "metadata"}
ON_TRAIN = cases(
    sorted(path.stem for path in CONFIGS.glob("*.json") if path.stem not in COMPLETE | {"evaluate"}), at_least=11
)
SMALL = {  # what makes a network of an overlay small
    "srcnn": {"network_def#features": [6, 4]},
    "fsrcnn": {"network_def#d": 6, "network_def#s": 4, "network_def#m": 1},
    "espcn": {"network_def#features": [6, 4]},
    "vdsr": {"network_def#depth": 4, "network_def#features": 6},
    "unet": {"network_def#network#features": [2, 4, 4, 4, 4]},
    "gan_circle": {"network_def#features": [4, 4]},
}
TINY_NETWORK = {
    "network_def#features": [8, 8],
    "network_def#encoder_blocks": [1, 1],
    "network_def#decoder_blocks": [1],
}


def stack(*names: str) -> list[str]:
    return [str(CONFIGS / f"{name}.json") for name in names]


def tiny(folder: Path, tmp_path: Path, overlay: str = "", **more) -> dict:
    """Overrides that shrink a training to seconds."""
    return {
        "bundle_root": str(BUNDLE),
        "data_list": str(folder / "list.json"),
        "dataset_dir": str(folder),
        "ckpt_dir": str(tmp_path / "runs"),
        "patch_size": [16, 16],
        "batch_size": 4,
        "patches_per_slice": 8,  # OneCycleLR wants 20 steps or more
        "max_epochs": 2,
        "val_interval": 1,
        **SMALL.get(overlay.removeprefix("published_"), TINY_NETWORK),
        **more,
    }


def run(*names: str, **overrides) -> ConfigWorkflow:
    workflow = ConfigWorkflow(stack(*names), workflow_type="train", logging_file=False, **overrides)
    workflow.initialize()
    assert not workflow.check_properties()
    workflow.run()
    workflow.finalize()
    return workflow


def parsed(*names: str, **overrides) -> ConfigParser:
    parser = ConfigParser()
    parser.read_config(stack(*names))
    parser.update(overrides)
    return parser


@pytest.mark.parametrize("overlay", ["", "evaluate", *ON_TRAIN])
def test_every_reference_of_every_training_stack_resolves(overlay):
    parser = parsed("train", *filter(None, [overlay]))
    for reference in set(re.findall(r"@(\w+(?:#\w+)*)", json.dumps(parser.get()))):
        assert reference in parser, f"{overlay} refers to @{reference}, which nothing defines"


@pytest.mark.parametrize("overlay", ["", *sorted(set(ON_TRAIN) - {"multi_gpu_train"})])
@pytest.mark.parametrize("scale", [1, 3])
def test_the_network_of_every_overlay_gives_scale_times_its_input(overlay, scale, tiny_bodies, tmp_path):
    if overlay == "gan_circle" and scale > 2:
        pytest.skip("GAN-CIRCLE keeps the size or doubles it")
    options = tiny(tiny_bodies, tmp_path, overlay, scale=scale)
    network = parsed("train", *filter(None, [overlay]), **options).get_parsed_content("network_def")
    assert network(torch.zeros(1, 1, 20, 16)).shape == (1, 1, 20 * scale, 16 * scale)


def test_training_learns_and_goes_on_where_it_stopped(tiny_bodies, tmp_path):
    options = tiny(tiny_bodies, tmp_path, max_epochs=6, patches_per_slice=16, val_interval=3, learning_rate=0.01)
    workflow = run("train", **options)
    best = workflow.parser.get_parsed_content("validate#evaluator").state.best_metric
    untrained = {**options, "ckpt_dir": str(tmp_path / "untrained"), "learning_rate": 1e-12, "max_epochs": 1}
    first = run("train", **{**untrained, "val_interval": 1})
    assert best - first.parser.get_parsed_content("validate#evaluator").state.best_metric > 0.5  # dB over Lanczos
    state = torch.load(tmp_path / "runs" / "model.pt", weights_only=True)
    assert all(isinstance(value, torch.Tensor) for value in state.values())
    again = run("train", **options, resume=True)
    assert again.parser.get_parsed_content("train#trainer").state.epoch == 6


@pytest.mark.parametrize("overlay", cases(name for name in ON_TRAIN if name in SMALL))
def test_every_network_trains_an_epoch(overlay, tiny_bodies, tmp_path):
    run("train", overlay, **tiny(tiny_bodies, tmp_path, overlay, max_epochs=1, patches_per_slice=14))
    assert (tmp_path / "runs" / "model.pt").is_file()


@pytest.mark.parametrize("overlay", cases(name for name in ON_TRAIN if name.startswith("published_")))
def test_the_published_recipes_train_at_scale_one_with_its_noise(overlay, tiny_bodies, tmp_path):
    options = tiny(tiny_bodies, tmp_path, overlay, max_epochs=1, patches_per_slice=14)
    workflow = run("train", overlay, **options)
    assert workflow.parser["scale"] == 1
    assert workflow.parser["noises"] == ["published-gaussian"]
    state = torch.load(tmp_path / "runs" / "model.pt", weights_only=True)
    assert all(torch.isfinite(value).all() for value in state.values())


def test_patches_are_the_means_of_their_label_where_there_is_no_noise(tiny_bodies, tmp_path):
    parser = parsed("train", **tiny(tiny_bodies, tmp_path, noises=["clean"], scale=3))
    sample = parser.get_parsed_content("train#dataset")[0]
    assert sample["image"].shape == (1, 16, 16)
    assert sample["label"].shape == (1, 48, 48)
    means = sample["label"].reshape(1, 16, 3, 16, 3).mean(dim=(2, 4))
    torch.testing.assert_close(sample["image"], means, atol=1e-5, rtol=0)


def test_every_slice_is_validated_with_each_noise_at_its_own_level(tiny_bodies, tmp_path):
    options = tiny(tiny_bodies, tmp_path, validation_noises=["clean", "gaussian"])
    dataset = parsed("train", **options).get_parsed_content("validate#dataset")
    assert len(dataset) == 4  # two slices
    clean, noisy = dataset[0], dataset[1]
    assert torch.equal(clean["label"], noisy["label"])
    body = clean["image"] > -0.15  # in air noise is clipped at -1024 HU
    assert float((noisy["image"] - clean["image"])[body].std()) == pytest.approx(0.028, rel=0.15)


def test_the_last_layer_learns_more_slowly_where_the_paper_says_so(tiny_bodies, tmp_path):
    parser = parsed("train", "fsrcnn", **tiny(tiny_bodies, tmp_path, "fsrcnn", learning_rate=0.01))
    optimizer = parser.get_parsed_content("optimizer")
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.01, 0.001])
    last = {id(p) for p in parser.get_parsed_content("network").upscale.parameters()}
    assert {id(p) for p in optimizer.param_groups[1]["params"]} == last
    assert parser.get_parsed_content("lr_scheduler").total_steps > 0
    assert optimizer.param_groups[0]["max_lr"] == pytest.approx(10 * optimizer.param_groups[1]["max_lr"])


def test_training_runs_on_two_processes(tiny_bodies, tmp_path):
    options = tiny(tiny_bodies, tmp_path, max_epochs=1, patches_per_slice=28)
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
    assert (result.stderr + result.stdout).count("epoch 1/1:") == 1  # the first process alone logs


def test_a_noise_and_a_scale_that_cannot_be_are_named(tiny_bodies, tmp_path):
    with pytest.raises(Exception, match="Failed to instantiate") as caught:
        run("train", **tiny(tiny_bodies, tmp_path, noises=["snow"]))
    assert "noise is one of clean, gaussian" in causes(caught.value)
    with pytest.raises(Exception, match="Failed to instantiate") as caught:
        run("train", **tiny(tiny_bodies, tmp_path, scale=0))
    assert "scale is a whole number" in causes(caught.value)


def causes(error: BaseException | None) -> str:
    messages = []
    while error is not None:
        messages.append(str(error))
        error = error.__cause__
    return "\n".join(messages)


def test_a_picture_of_known_range_teaches_nothing_where_it_is_saturated(tiny_bodies, tmp_path):
    listed = json.loads((tiny_bodies / "list.json").read_text())
    for entry in listed["training"]:
        entry["known_hu"] = [-1000, 300]
    (tmp_path / "list.json").write_text(json.dumps(listed))
    options = tiny(tiny_bodies, tmp_path, data_list=str(tmp_path / "list.json"), patch_size=[24, 24])
    dataset = parsed("train", **options).get_parsed_content("train#dataset")
    labels = np.concatenate([dataset[i % len(dataset)]["label"].numpy().ravel() for i in range(12)])
    assert np.isnan(labels).any()
    assert np.nanmax(labels) <= 0.3


# ---- Evaluation


@pytest.fixture
def untrained(tiny_bodies, tmp_path) -> dict:
    """Overrides of an evaluation with the weights of a network that nobody trained: the Lanczos interpolation."""
    options = tiny(tiny_bodies, tmp_path, output_dir=str(tmp_path / "out"), weights=str(tmp_path / "model.pt"))
    network = parsed("train", **options).get_parsed_content("network_def")
    torch.save({name: value.half() for name, value in network.state_dict().items()}, tmp_path / "model.pt")
    return options


def test_evaluation_writes_its_tables_and_an_untrained_network_is_lanczos(untrained, tmp_path, drawings):
    run("train", "evaluate", **untrained, panels=4, disc_slices=1)
    out = tmp_path / "out"
    assert len(list(out.glob("panel_*_scanner.png"))) == len(drawings) == 2
    for panel in drawings:
        assert panel.get_suptitle().endswith(", x2, scanner")
        titles = [axes.get_title().split("\n")[0] for axes in panel.axes if axes.get_title()]
        shown = dict(zip(titles, map(image_in, panel.axes)))
        assert titles[:3] == ["input", "Lanczos", "network"]
        np.testing.assert_allclose(shown["network"], shown["Lanczos"], atol=1.0)  # HU; the weights are float16
        assert not np.array_equal(shown["input"], shown["Lanczos"])
    metrics = pd.read_csv(out / "metrics.csv")
    released = [name for name in ("SRCNN", "FSRCNN", "ESPCN", "VDSR") if (MODELS / f"{name.lower()}.pt").is_file()]
    rows = ["input", "bicubic", "Lanczos", "network", *released]
    assert list(metrics["row"].unique()) == rows
    assert list(metrics["noise"].unique()) == ["clean", "gaussian", "scanner"]
    assert len(metrics) == 2 * 2 * 3 * len(rows)  # patients, slices, noises
    scores = [column for column in metrics if "psnr" in column or "ssim" in column]
    by_row = {row: lines[scores].to_numpy() for row, lines in metrics.groupby("row")}
    # it is shown nothing below -1024 HU, where the noise of air is
    np.testing.assert_allclose(by_row["network"], by_row["Lanczos"], rtol=0.005)
    summary = json.loads((out / "summary.json").read_text())
    for name in {"SRCNN", "FSRCNN", "ESPCN", "VDSR"} - set(released):
        assert f"{name}: not run, there is no {name.lower()}.pt." in summary["remarks"]
    record = next(r for r in summary["slices"] if r["row"] == "network" and r["noise"] == "clean")
    assert record["gain_db"]["Lanczos"]["low"] == pytest.approx(0, abs=0.01)
    table = (out / "table.md").read_text()
    assert table.startswith("# Super-resolution x2: evaluation")
    assert "## Noise clean, all: 4 slices of 2 patients" in table


def test_evaluation_of_an_overlay_wants_the_weights_of_its_scale(untrained, tmp_path):
    options = {key: value for key, value in untrained.items() if not key.startswith(("network_def", "weights"))}
    with refused(match=r"no weights for scale 3: no .*espcn_x3.pt"):
        run("train", "evaluate", "espcn", **options, scale=3)


# ---- Inference


def config(name: str) -> dict:
    return json.loads((CONFIGS / f"{name}.json").read_text())


def test_training_and_inference_share_network_and_range():
    train, inference = config("train"), config("inference")
    for knob in ("bundle_root", "device", "amp", "scale", "clip_hu", "network_def", "network"):
        assert inference[knob] == train[knob], knob
    scale, back = (
        next(step for step in inference[chain]["transforms"] if step["_target_"] == "ScaleIntensityRanged")
        for chain in ("preprocessing", "postprocessing")
    )
    of_training = next(step for step in train["preprocessing_steps"] if step["_target_"] == "ScaleIntensityRanged")
    assert {**scale, "keys": 0} == {**of_training, "keys": 0}
    assert [back[end] for end in ("b_min", "b_max", "a_min", "a_max")] == [
        scale[end] for end in ("a_min", "a_max", "b_min", "b_max")
    ]


@pytest.mark.parametrize("overlay", ["", *cases(name for name in ON_TRAIN if name in SMALL)])
def test_every_network_of_the_bundle_upscales_a_scan(overlay, tiny_bodies, tmp_path):
    options = {**SMALL.get(overlay, TINY_NETWORK)}
    stacked = stack("inference", *filter(None, [overlay]))
    parser = ConfigParser()
    parser.read_config(stacked)
    parser.update({**options, "bundle_root": str(BUNDLE)})
    torch.save(parser.get_parsed_content("network_def").state_dict(), tmp_path / "w.pt")
    workflow = ConfigWorkflow(
        stacked, workflow_type="inference", logging_file=False, bundle_root=str(BUNDLE), **options, device="cpu",
        dataset_dir=str(tiny_bodies / "body-0.nii.gz"), output_dir=str(tmp_path), weights=str(tmp_path / "w.pt"),
    )  # fmt: skip
    workflow.initialize()
    assert not workflow.check_properties()
    workflow.run()
    workflow.finalize()
    image = nib.load(tmp_path / "body-0.nii.gz")
    assert image.shape == (128, 96, 2)
    np.testing.assert_allclose(image.header.get_zooms(), (2.5, 2.5, 3.0))


def test_the_default_data_are_phantoms_of_half_the_resolution(tmp_path, monkeypatch):
    def small(folder, kind, **size):
        return write(folder, kind, **{**size, "n_slices": 2, "matrix": 64}, n_processes=1)

    write = ct_phantoms.write_ct_cohort
    monkeypatch.setattr(ct_phantoms, "write_ct_cohort", small)
    folder = embedded.coarse_phantoms(tmp_path / "data")
    made = sorted(folder.glob("*.nii.gz"))
    assert len(made) == 4
    for path in made:
        (source,) = (folder / "fine").rglob(path.name)
        fine, coarse = nib.load(source), nib.load(path)
        np.testing.assert_allclose(finer_affine(coarse.affine, factors=(2, 2)), fine.affine, atol=1e-5)
        means = lower_resolution(fine.get_fdata(), factors=(2, 2, 1))
        added = (coarse.get_fdata() - means)[means > -900]  # in air noise is clipped at -1024 HU
        assert added.std() == pytest.approx(28, rel=0.1)
