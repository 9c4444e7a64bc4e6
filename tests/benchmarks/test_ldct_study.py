"""The study of RED-CNN, U-Net and attention in little: overlays, ablation, feature similarity, attention analysis."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser

from ctrestore.losses import FeatureLoss
from ctrestore.networks import REDCNN, ClassicUNet, VGG16Features
from tests.conftest import ROOT, cases, image_in, write_nifti

CONFIGS = ROOT / "bundles" / "ldct_denoising" / "configs"


def script(name: str) -> ModuleType:
    """A benchmark as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "benchmarks" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # the scripts import each other
    spec.loader.exec_module(module)
    return module


ablation = script("ldct_ablation")
similarity = script("feature_similarity")
attention = script("attention_analysis")
BASES = [["inference"], ["train", "evaluate"]]
OVERLAYS = cases((name for name in ablation.VARIANTS if name != "own"), at_least=10)


@pytest.fixture(scope="module")
def patients(tmp_path_factory) -> Path:
    """A data list of eight small patients, round and of one slice; the last has two."""
    folder, generator = tmp_path_factory.mktemp("patients"), np.random.default_rng(0)
    x, y = np.meshgrid(np.arange(-24, 24), np.arange(-24, 24), indexing="ij")
    sections: dict[str, list] = {"training": [], "validation": [], "test": []}
    for i, section in enumerate(["training"] * 3 + ["validation"] * 3 + ["test"] * 3):
        hu = np.where(np.hypot(x, y) < 16 + i, 40.0, -1000.0)
        hu[20:26, 20 + i : 28 + i] = 300.0
        hu += generator.normal(0, 3, hu.shape)
        write_nifti(folder / f"{i}.nii", hu.astype(np.int16)[..., None], np.diag([-4.0, -4.0, 1.0, 1.0]))
        sections[section].append({"subject": f"patient-{min(i, 7)}", "image": f"{i}.nii"})
    (folder / "list.json").write_text(json.dumps(sections))
    return folder


def arguments(patients: Path, out: Path, *more: str):
    common = ["--data_list", str(patients / "list.json"), "--dataset_dir", str(patients), "--out", str(out)]
    sizes = ["--n_patches", "8", "--batch_size", "2", "--patch_size", "24", "--seeds", "1"]
    return ablation.arguments([*common, *sizes, "--cache_dir", str(patients / "cache"), "--device", "cpu", *more])


@pytest.fixture
def vgg16_file(tmp_path) -> Path:
    """torchvision's layout, with weights drawn at random."""
    path = tmp_path / "vgg16-397923af.pth"
    torch.save({f"features.{key}": value for key, value in VGG16Features().state_dict().items()}, path)
    return path


@pytest.mark.parametrize("name", OVERLAYS)
def test_an_overlay_replaces_the_network_its_folder_and_its_loss_and_adds_nothing_else_to_train_json(
    name, patients, tmp_path, vgg16_file
):
    args = arguments(patients, tmp_path, "--vgg_weights", str(vgg16_file))
    parser = ablation.config_of(args.data, name)
    plain = json.loads((CONFIGS / "train.json").read_text())
    overlay = json.loads((CONFIGS / f"{name}.json").read_text())
    new = {key for key in overlay if not key.startswith("_desc")} - set(plain)
    assert new <= {"weights", "vgg_weights", "strength"}  # what evaluation and inference want to know
    assert parser.get_parsed_content("ckpt_dir").endswith(f"runs_{name}")
    assert parser.get_parsed_content("weights").endswith((f"runs_{name}/model.pt", "redcnn.pt"))
    network, loss = parser.get_parsed_content("network"), parser.get_parsed_content("loss")
    assert isinstance(network, ClassicUNet if name.startswith("unet") else REDCNN)
    assert isinstance(loss, FeatureLoss) == (name == "redcnn_vgg")
    x, label = torch.rand(1, 1, 32, 32), torch.rand(1, 1, 32, 32)
    label[..., :4] = torch.nan  # of unknown HU
    value = loss(network(x), label)
    assert torch.isfinite(value)
    if name != "redcnn_vgg":
        torch.testing.assert_close(value, (network(x) - label)[..., 4:].square().mean())


@pytest.mark.parametrize("name", OVERLAYS)
@pytest.mark.parametrize("base", BASES, ids="+".join)
def test_an_overlay_gives_its_network_and_its_weights_to_inference_and_evaluation_too(name, base):
    parser = ConfigParser()
    parser.read_config([str(CONFIGS / f"{file}.json") for file in (*base, name)])
    parser["bundle_root"] = "somewhere"
    overlay = json.loads((CONFIGS / f"{name}.json").read_text())
    assert parser["network_def"] == overlay["network_def"]
    released = "somewhere/models/redcnn.pt" if name == "redcnn" else f"somewhere/runs_{name}/model.pt"
    assert parser.get_parsed_content("weights") == released
    assert '"@weights"' in json.dumps(parser.get()), "somebody reads them"


def test_the_overlays_differ_in_nothing_but_the_network_and_the_loss():
    recipes = set()
    for name in OVERLAYS:
        overlay = json.loads((CONFIGS / f"{name}.json").read_text())
        recipes.add(json.dumps({key: overlay[key] for key in ("learning_rate", "batch_size", "patch_size")}))
        arguments = {k: v for k, v in overlay["network_def"].items() if k not in ("_target_", "spatial_dims")}
        assert len(arguments) <= 1
    assert len(recipes) == 1


def test_finished_runs_are_kept_and_the_report_lists_what_is_missing(patients, tmp_path, monkeypatch, drawings):
    no_weights = ["--vgg_weights", str(tmp_path / "nothing.pth")]
    args = arguments(patients, tmp_path, "--variants", "own", "redcnn_kaiming", "redcnn_vgg", *no_weights)
    ablation.run(args)
    assert {path.name for path in tmp_path.glob("*-0.*")} == {
        "input-0.json", "own-0.json", "own-0.pt", "redcnn_kaiming-0.json", "redcnn_kaiming-0.pt",
    }  # fmt: skip
    result = json.loads((tmp_path / "own-0.json").read_text())
    assert [point["n_patches"] for point in result["curve"]] == [2, 4, 6, 8]
    assert [row["subject"] for row in result["scores"]] == [f"patient-{i}" for i in (3, 4, 5, 6, 7)]
    table = ablation.table(tmp_path, args.variants, args.vgg_weights)
    assert "| RED-CNN, VGG loss | not run: weights missing |" in table
    assert "| RED-CNN, Kaiming | 1,848,865 | 1 |" in table
    assert "5 slices of 5 patients" in table
    assert "UnshuffledUNet (own) > RED-CNN: not run" in ablation.ranking(tmp_path)
    ablation.figure(tmp_path, tmp_path / "curves.png")
    rmse, psnr, ssim = drawings[0].axes
    assert [axes.get_ylabel().split(" [")[0] for axes in (rmse, psnr, ssim)] == ["RMSE / HU", "PSNR / dB", "SSIM"]
    low_dose = json.loads((tmp_path / "input-0.json").read_text())["curve"][0]
    keys = (f"rmse_hu[{ablation.THEIRS}]", f"psnr_db[{ablation.USUAL}]", f"ssim[{ablation.USUAL}]")
    for axes, key in zip((rmse, psnr, ssim), keys):
        own, kaiming, reference = axes.get_lines()
        assert [line.get_label() for line in (own, kaiming)] == ["UnshuffledUNet (own)", "RED-CNN, Kaiming"]
        np.testing.assert_array_equal(own.get_xdata(), [2, 4, 6, 8])
        np.testing.assert_allclose(own.get_ydata(), [point[key] for point in result["curve"]])
        assert set(reference.get_ydata()) == {low_dose[key]}
    assert (tmp_path / "curves.png").is_file()

    monkeypatch.setattr(ablation, "train", None)  # calling it again would fail
    ablation.run(args)
    with pytest.raises(SystemExit, match=r"own-0\.json is of a run with n_patches 8.*another --out"):
        ablation.run(arguments(patients, tmp_path, "--variants", "own", "--n_patches", "16"))


def test_the_scores_of_the_input_are_those_of_its_noise(patients, tmp_path):
    args = arguments(patients, tmp_path)
    for scan in ablation.scans_to_score(args.data, "test", per_patient=1):
        noise = 1000 * (scan["image"] - scan["label"])[0]
        found = ablation.score(scan, scan["image"])
        assert found["rmse_hu[hu500_notebook]"] == pytest.approx(float(noise.square().mean().sqrt()), rel=1e-4)
        limited = ablation.score({**scan, "known_hu": [0.0, 50.0]}, scan["image"])
        assert limited["rmse_hu[hu500_notebook]"] < found["rmse_hu[hu500_notebook]"]


def test_every_variant_of_a_seed_sees_the_same_patches_and_the_next_seed_others(patients, tmp_path):
    args = arguments(patients, tmp_path)
    one, again, other = (ablation.draw_patches(args.data, 8, seed) for seed in (0, 0, 1))
    assert all(torch.equal(a, b) for a, b in zip(one, again))
    assert not torch.equal(one[0], other[0])
    assert (one[0] != one[1]).float().mean() > 0.5, "low dose differs from full dose"


def test_an_interrupted_run_ends_with_the_weights_of_one_that_was_not(patients, tmp_path, monkeypatch):
    whole = arguments(patients, tmp_path / "whole")
    patches, scans = ablation.draw_patches(whole.data, 8, 0), ablation.scans_to_score(whole.data, "validation", n=1)
    expected, _ = ablation.train(whole, "own", 0, patches, scans)
    monkeypatch.setattr(ablation, "CHECKPOINT_EVERY_S", -1.0)
    args, seen = arguments(patients, tmp_path / "broken"), []
    args.out.mkdir()

    def break_off(state, path):
        seen.append(state["done"]["step"])
        torch.save(state, path)
        if len(seen) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(ablation, "save_atomically", break_off)
    with pytest.raises(KeyboardInterrupt):
        ablation.train(args, "own", 0, patches, scans)
    network, done = ablation.train(args, "own", 0, patches, scans)
    assert seen == [1, 2, 3]
    assert done["step"] == 4
    for ours, theirs in zip(network.parameters(), expected.parameters()):
        assert torch.equal(ours, theirs)


def test_a_training_that_diverges_is_a_row_and_does_not_stop_the_others(patients, tmp_path, monkeypatch):
    args = arguments(patients, tmp_path, "--variants", "own")
    draw = ablation.draw_patches
    monkeypatch.setattr(ablation, "draw_patches", lambda *a: [part * torch.inf for part in draw(*a)])
    ablation.run(args)
    assert "the loss was nan at step 1 of 4" in ablation.table(tmp_path, args.variants, None)


@pytest.mark.parametrize(
    ("difference", "by_published", "answer"),
    [
        ([-2.0, -2.5, -1.5, -3.0, -2.0], [-2.0, -2.3, -2.2], "holds"),
        ([2.0, 2.5, 1.5, 3.0, 2.0], [2.0, 2.3, 2.2], "the other way round"),
        ([-2.0, 2.5, -1.5, 3.0, 0.1], [0.4, 0.3, 0.2], "no rank, the interval holds 0"),
        ([-2.0, -2.5, -1.5, -3.0, -2.0], [-7.0, 0.5, -0.1], "no rank, the seeds disagree"),
        ([-2.0, -2.5, -1.5, -3.0, -2.0], [-2.2], "no rank, one seed alone, whose luck no interval shows"),
    ],
)
def test_a_rank_needs_two_seeds_of_one_sign_and_an_interval_without_zero(difference, by_published, answer):
    old = [20.0, 21.0, 22.0, 23.0, 24.0]
    new = [a + b for a, b in zip(old, difference)]
    assert ablation.verdict(new, old, list("abcde"), by_published).startswith(f"**{answer}**")


def command(monkeypatch, module: ModuleType, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", [module.__name__, *arguments])
    module.main()


def data(patients: Path) -> list[str]:
    return ["--data_list", str(patients / "list.json"), "--dataset_dir", str(patients), "--device", "cpu"]


def test_the_control_of_the_feature_similarity_are_other_slices_and_other_patients():
    full = np.array([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]])
    low, subjects = full, ["a", "a", "b"]
    found = similarity.similarities(low, full, subjects)
    np.testing.assert_allclose(found["the same slice"][0], 1.0)
    np.testing.assert_allclose(found["another slice of the patient"][0], 0.6)
    np.testing.assert_allclose(found["another patient"][0], [0.0, 0.8, 0.0, 0.8])
    assert found["another patient"][1] == ["a", "a", "b", "b"]
    assert similarity.found_again(low, full) == 1.0
    assert similarity.found_again(low[[1, 1, 2]], full) == pytest.approx(2 / 3)


def test_without_resnet50_the_table_says_not_run_and_names_the_file_to_fetch(monkeypatch, capsys, tmp_path):
    command(monkeypatch, similarity, "--weights", str(tmp_path / "resnet50.pth"))
    printed = capsys.readouterr().out
    assert printed.count("not run: weights missing") == 3
    assert "Expected: resnet50-0676ba61.pth of torchvision" in printed


def test_the_feature_similarity_runs_on_random_features_and_says_so(monkeypatch, capsys, patients, tmp_path):
    more = ["--random_features", "--cache_dir", str(tmp_path), "--sections", "validation", "test"]
    command(monkeypatch, similarity, *data(patients), *more)
    printed = capsys.readouterr().out
    assert "NO MEANING" in printed
    assert "| the same slice | 6 |" in printed
    assert "| another slice of the patient | 2 |" in printed
    assert "| another patient | 28 |" in printed


def test_gates_are_numbered_by_depth():
    network = ClassicUNet(features=(2,) * 5, attention="spatial").eval()
    sides = [weights.shape[-1] for weights in attention.gates_of(network, torch.rand(1, 1, 64, 64))]
    assert [64 >> depth for depth in attention.DEPTH] == sides
    network = REDCNN(features=2, attention="spatial").eval()
    sides = [weights.shape[-1] for weights in attention.gates_of(network, torch.rand(1, 1, 64, 64))]
    assert sides == [60, 56, 52, 48, 44, 48, 52, 56, 60]


def test_the_weights_of_a_gate_are_laid_over_the_pixels_that_they_belong_to():
    image = np.random.default_rng(0).normal(size=(40, 38))
    weights, part = attention.on_image(torch.from_numpy(image[4:-4, 4:-4])[None], image.shape, unpadded=True)
    np.testing.assert_array_equal(weights, image[part])
    padded = np.pad(image, ((4, 4), (5, 5)))  # to 48 x 48
    weights, part = attention.on_image(torch.from_numpy(padded)[None], image.shape, unpadded=False)
    np.testing.assert_allclose(weights, image[part])


def test_a_correlation_ignores_the_sign_and_the_unit():
    a, where = np.arange(12.0).reshape(3, 4), np.ones((3, 4), dtype=bool)
    assert attention.correlation(a, 5 - 3 * a, where) == pytest.approx(1.0)
    assert attention.correlation(a, np.ones_like(a), where) == 0.0


@pytest.mark.parametrize(
    ("shallow", "sign", "answer"),
    [(0.2, 1, "holds"), (0.2, -1, "the other way round"), (0.1, 1, "not shown")],
)
def test_a_claim_about_layers_needs_its_sign_in_every_seed_and_an_interval_without_zero(shallow, sign, answer):
    noise = np.random.default_rng(0).normal(0, 0.01, (2, 6, 9))
    values = 0.1 + noise
    values[..., attention.SHALLOW] += shallow - 0.1
    assert attention.verdict(list(values), list("abcdef"), sign).startswith(f"**{answer}**")


def test_the_middle_of_the_body_still_includes_its_lungs():
    label = torch.full((1, 40, 40), -1.0)
    label[:, 5:35, 5:35] = 0.05
    label[:, 10:30, 10:20] = -0.85  # a lung that the middle cuts through
    scan = {"image": torch.rand(1, 40, 40), "label": label, "subject": "a"}
    whole, middle = attention.with_body(scan, None), attention.with_body(scan, 16)
    assert whole["body"].sum() == 30 * 30
    assert middle["body"].shape == middle["image"].shape == (1, 16, 16)
    assert middle["body"].all()
    assert torch.equal(middle["image"], scan["image"][:, 12:28, 12:28])


def test_the_attention_analysis_reads_the_networks_of_the_ablation(monkeypatch, capsys, patients, tmp_path, drawings):
    torch.manual_seed(0)
    for kind in ("channel", "spatial"):
        torch.save(REDCNN(attention=kind).state_dict(), tmp_path / f"redcnn_{kind}_attention-0.pt")
    command(monkeypatch, attention, *data(patients), "--trained", str(tmp_path), "--n_slices", "3")
    printed = capsys.readouterr().out
    assert "U-Net selects channels in deep layers: not run" in printed
    assert printed.count("shallow minus deep") == 3
    assert "| RED-CNN, channel attention | untrained |" in printed
    layers, maps = drawings
    titles = ["RED-CNN, channel attention", "RED-CNN, spatial attention", "RED-CNN, spatial attention"]
    assert [axes.get_title() for axes in layers.axes if axes.axison] == titles
    for axes in layers.axes[:3]:
        assert [line.get_label() for line in axes.get_lines()] == ["trained", "untrained"]
    for line in layers.axes[0].get_lines():
        (row,) = re.findall(rf"\| RED-CNN, channel attention \| {line.get_label()} \| (.*) \|", printed)
        np.testing.assert_allclose(line.get_ydata(), [float(mean) for mean in row.split(" | ")], atol=5e-4)
    image, *gates = maps.axes
    assert image.get_title().startswith("RED-CNN, spatial attention") and len(gates) == len(attention.LAYERS)
    assert image_in(image).min() < -900 and image_in(image).max() > 200  # air and bone, HU
    for gate in gates:
        weights = image_in(gate)
        assert weights.ndim == 2 and 0 < weights.min() < weights.max() < 1  # after a sigmoid
        low, high = np.quantile(weights, (0.02, 0.98))
        assert gate.get_title().endswith(f"{low:.2f}..{high:.2f}")
    assert all((tmp_path / f"attention_{name}.png").is_file() for name in ("layers", "maps"))
