"""GAN-CIRCLE and its two lesser forms as overlays of the LDCT bundle, on tiny bodies."""

from __future__ import annotations

import json
import math

import pandas as pd
import pytest
import torch
from monai.bundle import ConfigParser

from ctrestore.networks import GANCircleGenerator
from tests.benchmarks.test_ldct_study import script
from tests.bundles.test_ldct_denoising import CONFIGS, run, stack
from tests.conftest import ROOT, small_ct

benchmark = script("unpaired")
STACKS = {
    "gan_circle": ("train", "gan_circle"),
    "gan_circle_means": ("train", "gan_circle", "gan_circle_means"),
    "identitygan": ("train", "gan_circle", "identitygan"),
    "cyclegan": ("train", "gan_circle", "cyclegan"),
}
GENERATOR = {"features": [6, 6], "dropout": 0.0}
CRITIC = {"features": [4, 4, 4, 4], "hidden": 8, "instance_norm": False, "seen": [-0.95, 0.3]}


def smallest(tiny_bodies, tmp_path, **more):
    generator = {"_target_": "ctrestore.networks.GANCircleGenerator", **GENERATOR}
    critic = {"_target_": "ctrestore.networks.GANCircleCritic", **CRITIC}
    return small_ct(
        tiny_bodies, tmp_path, **{
            "network_def": generator, "backward_network_def": generator,
            "critic_def": critic, "backward_critic_def": critic, "validation_doses": [0.25], **more,
        },
    )  # fmt: skip


def parser_of(name, folder, tmp_path) -> ConfigParser:
    parser = ConfigParser()
    parser.read_config(stack(*STACKS[name]))
    parser.update(smallest(folder, tmp_path))
    return parser


@pytest.mark.parametrize(
    ("name", "weights"),
    [
        ("gan_circle", (True, True, True, False)),
        ("gan_circle_means", (True, True, True, True)),
        ("identitygan", (True, True, False, False)),
        ("cyclegan", (True, False, False, False)),
    ],
)
def test_they_differ_in_the_parts_of_their_loss_alone(name, weights, tiny_bodies, tmp_path):
    parser = parser_of(name, tiny_bodies, tmp_path)
    loss = parser.get_parsed_content("loss")
    assert tuple(weight > 0 for weight in tuple(loss.weights)[1:]) == weights
    differs = {key for key in json.loads((CONFIGS / f"{name}.json").read_text()) if "weight" not in key}
    assert name.startswith("gan_circle") or differs == {"_desc_", "_desc_loss", "ckpt_dir", "loss#_target_"}


def test_the_second_stage_goes_on_from_all_networks_of_the_first(tiny_bodies, tmp_path):
    first = parser_of("gan_circle", tiny_bodies, tmp_path)
    first["max_epochs"] = 1
    for part in ("initialize", "run"):
        first.get_parsed_content(part)
    second = parser_of("gan_circle_means", tiny_bodies, tmp_path)
    second.update({"start_from": str(tmp_path / "runs" / "last.pt"), "ckpt_dir": str(tmp_path / "second")})
    second.update({"max_epochs": 1, "learning_rate": 1e-12, "critic_learning_rate": 1e-12})
    for part in ("initialize", "run"):
        second.get_parsed_content(part)
    for name in ("network", "backward_network", "critic", "backward_critic"):
        found, trained = (parser.get_parsed_content(name).state_dict() for parser in (second, first))
        torch.testing.assert_close(found, trained, atol=1e-6, rtol=0)


def test_a_second_stage_wants_the_state_of_the_first(tiny_bodies, tmp_path):
    parser = parser_of("gan_circle_means", tiny_bodies, tmp_path)
    weights = tmp_path / "model.pt"
    torch.save(parser.get_parsed_content("network").state_dict(), weights)
    parser.update({"start_from": str(weights)})
    parser.get_parsed_content("initialize")
    with pytest.raises(
        ValueError, match="holds no backward_network that fits.*--start_from the last.pt of the first stage"
    ):
        parser.get_parsed_content("train#trainer").run()


def test_a_lesser_form_without_gan_circle_below_it_is_no_training():
    parser = ConfigParser()
    parser.read_config(stack("train", "cyclegan"))
    with pytest.raises(TypeError, match="forward"):
        parser.get_parsed_content("loss")(torch.zeros(1, 1, 8, 8), torch.zeros(1, 1, 8, 8))


def test_training_validates_without_a_reference_and_goes_on_where_it_stopped(tiny_bodies, tmp_path):
    options = smallest(tiny_bodies, tmp_path)
    workflow = run(*STACKS["gan_circle"], **options)
    low, full = (workflow.parser.get_parsed_content(f"train#{domain}#data") for domain in ("low", "full"))
    assert not {entry["subject"] for entry in low} & {entry["subject"] for entry in full}
    metrics = workflow.parser.get_parsed_content("validate#evaluator").state.metrics
    assert math.isfinite(metrics["val_no_reference_score"])
    assert abs(metrics["val_soft_tissue_drift_hu"]) < 20
    assert set(workflow.parser.get_parsed_content("validate#dataset")[0]) == {"image"}
    last = torch.load(tmp_path / "runs" / "last.pt", weights_only=True)
    assert {"backward_network", "critic", "backward_critic", "critic_optimizer"} < set(last["companions"])
    best = torch.load(tmp_path / "runs" / "model.pt", weights_only=True)
    workflow.parser.get_parsed_content("network_def").load_state_dict(best)
    again = run(*STACKS["gan_circle"], **options, resume=True)
    assert again.parser.get_parsed_content("train#trainer").state.epoch == last["epoch"] == 2


def test_the_generator_is_the_bundle_s_network_for_inference(tiny_bodies, tmp_path):
    parser = ConfigParser()
    parser.read_config(stack("inference", "gan_circle", "cyclegan"))
    parser.update({"bundle_root": str(ROOT / "bundles" / "ldct_denoising"), "device": "cpu"})
    network = parser.get_parsed_content("network").eval()
    assert sum(p.numel() for p in network.parameters()) == 164_536
    assert parser.get_parsed_content("weights").endswith("cyclegan.pt")


def test_a_generator_is_evaluated_with_its_overlay_last(tiny_bodies, tmp_path):
    """Its own validation, without a reference, does not get into the way of the test slices."""
    options = smallest(tiny_bodies, tmp_path, doses=[0.25], classical_rows=False, disc_slices=0, panels=0, amp=False)
    (tmp_path / "runs").mkdir()
    weights = GANCircleGenerator(dropout=0.0, features=GENERATOR["features"]).state_dict()  # untrained: the identity
    torch.save(weights, tmp_path / "runs" / "model.pt")
    run("train", "evaluate", "gan_circle", **options)
    scores = pd.read_csv(tmp_path / "out" / "metrics.csv").set_index("row")["psnr_db[hu400_soft_tissue]"]
    assert scores["network"].to_numpy() == pytest.approx(scores["input"].to_numpy(), abs=1e-3)


def test_the_benchmark_trains_what_is_missing_scores_every_row_under_both_noises_and_prints_again(
    tiny_bodies, tmp_path, capsys
):
    common = ["--quick", "--data_list", str(tiny_bodies / "list.json"), "--dataset_dir", str(tiny_bodies)]
    given = [*common, "--cache_dir", str(tiny_bodies / "cache"), "--out", str(tmp_path), "--steps", "2"]
    given += ["--models", "gan_circle", "--device", "cpu", "--threads", "1"]
    benchmark.main(given)
    printed = capsys.readouterr().out
    first = (tmp_path / "gan_circle" / "last.pt").stat().st_mtime_ns
    for row in ("input", benchmark.SVD, "NLM", "GAN-CIRCLE"):
        assert printed.count(f"\n| {row} |") == 2  # under either noise
    assert "12.08 dB" in printed
    assert "36.46 dB" in printed
    assert "hu400_soft_tissue: HU clipped to -160..240" in printed
    benchmark.train(benchmark.arguments(given), "gan_circle")  # finished: nothing happens
    assert (tmp_path / "gan_circle" / "last.pt").stat().st_mtime_ns == first
    second = [*given, "--models", "gan_circle_means", "--train_only"]
    benchmark.main([*second, "--steps", "200"])
    assert "means kept: waits for GAN-CIRCLE" in capsys.readouterr().out
    benchmark.main(second)
    assert capsys.readouterr().out.startswith("GAN-CIRCLE, means kept: 1 epochs of ")
    benchmark.main(["--table", "--out", str(tmp_path)])
    assert capsys.readouterr().out.strip() in printed
    elsewhere = ["--trained", f"gan_circle={tmp_path / 'gan_circle'}", "--out", str(tmp_path / "other")]
    benchmark.main([*given, *elsewhere])
    printed = capsys.readouterr().out
    assert "- GAN-CIRCLE, trained before: " in printed
    assert not (tmp_path / "other" / "gan_circle").exists()


@pytest.mark.parametrize(("given", "said"), [("gan=x", "MODEL=PATH"), ("gan_circle=nowhere", "there is no nowhere")])
def test_weights_that_are_not_there_are_refused(given, said, tmp_path, capsys):
    with pytest.raises(SystemExit) as error:
        benchmark.main(["--quick", "--models", "--out", str(tmp_path), "--trained", given])
    assert said in str(error.value) + capsys.readouterr().err


def test_without_anything_finished_there_is_no_table(tmp_path):
    with pytest.raises(SystemExit, match="nothing finished yet"):
        benchmark.main(["--table", "--out", str(tmp_path)])
