"""What holds for every bundle of this repository, found by its folder."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from monai.bundle import ConfigParser
from monai.bundle.properties import InferProperties, TrainProperties
from monai.utils import BundleProperty, BundlePropertyConfig

from tests.conftest import ROOT

BUNDLES = sorted(path.parent.parent for path in ROOT.glob("bundles/*/configs/metadata.json"))
COMPLETE = ("train", "inference")
FILES = [
    "LICENSE", "configs/logging.conf", "configs/train.json", "configs/inference.json", "configs/evaluate.json",
    "configs/multi_gpu_train.json", "docs/README.md", "docs/data_license.txt", "models/model.pt",
]  # fmt: skip


@pytest.fixture(params=BUNDLES, ids=lambda path: path.name)
def bundle(request) -> Path:
    return request.param


def metadata(bundle: Path) -> dict:
    return json.loads((bundle / "configs" / "metadata.json").read_text())


def parser_of(bundle: Path, name: str) -> ConfigParser:
    parser = ConfigParser()
    parser.read_config(str(bundle / "configs" / f"{name}.json"))
    parser["bundle_root"] = str(bundle)
    return parser


def test_a_bundle_is_whole(bundle):
    assert not [file for file in FILES if not (bundle / file).is_file()]


@pytest.mark.parametrize("name", COMPLETE)
def test_a_complete_config_defines_what_it_refers_to(bundle, name):
    parser = parser_of(bundle, name)
    for reference in set(re.findall(r"@(\w+(?:#\w+)*)", json.dumps(parser.get()))):
        assert reference in parser, f"@{reference} is not defined"


@pytest.mark.parametrize(("name", "properties"), [("train", TrainProperties), ("inference", InferProperties)])
def test_the_ids_that_monai_requires_are_there(bundle, name, properties):
    """By name alone: MONAI's own check builds the data set, which the tests of each bundle do on tiny data."""
    parser = parser_of(bundle, name)
    required = [p[BundlePropertyConfig.ID] for p in properties.values() if p[BundleProperty.REQUIRED]]
    assert not [identifier for identifier in required if identifier not in parser]


def test_the_weights_are_plain_tensors_that_fit_the_network(bundle):
    state = torch.load(bundle / "models" / "model.pt", map_location="cpu", weights_only=True)
    assert all(isinstance(value, torch.Tensor) and torch.isfinite(value).all() for value in state.values())
    network = parser_of(bundle, "inference").get_parsed_content("network_def")
    network.load_state_dict(state, strict=True)
    assert (bundle / "models" / "model.pt").stat().st_size < 15e6


def test_the_network_takes_and_gives_what_the_metadata_say(bundle):
    network = parser_of(bundle, "inference").get_parsed_content("network_def").eval()
    form = metadata(bundle)["network_data_format"]
    for n in (1, 2):
        sides = {
            key: [eval(side, {"n": n}) for side in form[group][key]["spatial_shape"]]
            for group, key in (("inputs", "image"), ("outputs", "pred"))
        }
        with torch.no_grad():
            out = network(torch.rand(1, form["inputs"]["image"]["num_channels"], *sides["image"]))
        assert list(out.shape) == [1, form["outputs"]["pred"]["num_channels"], *sides["pred"]]


def test_every_metric_of_the_metadata_stands_in_the_model_card(bundle):
    card = (bundle / "docs" / "README.md").read_text()
    metrics = metadata(bundle)["eval_metrics"]
    assert metrics
    for name, value in metrics.items():
        assert str(value) in card, f"{name} = {value} is not in the model card"
