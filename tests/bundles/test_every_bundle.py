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

from tests.conftest import ROOT, cases

BUNDLES = cases(sorted(path.parent.parent for path in ROOT.glob("bundles/*/configs/metadata.json")), at_least=4)
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


def markdown_cell(card: str, table: str, row: str, column: str) -> str:
    """A cell of the first table below the line that starts with ``table``; of columns with one name, the first."""
    below = re.search(rf"^{re.escape(table)}.*?^(\|.*?)\n\n", card, re.DOTALL | re.MULTILINE)
    assert below is not None, f"no table below {table!r}"
    head, _, *lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in below[1].splitlines()]
    (cells,) = [line for line in lines if line[0] == row]
    return cells[head.index(column)]


def printed_cell(card: str, table: str, row: str, column: str) -> str:
    """A cell of a table as the evaluation of pet_pvc prints it: two lines of headings, then a line a row."""
    block = card[card.index(table) :].splitlines()
    upper, lower = (re.split(r" {2,}", line.strip()) for line in block[1:3])
    (line,) = [line for line in block[3:20] if line.startswith(f"{row}  ")]
    return line.removeprefix(row).split()[[f"{a} {b}" for a, b in zip(upper, lower)].index(column)]


# Where the model card shows each metric of the metadata: the line above its table, the row, the column.
PET, DOSE, LUNG = "Against truth, 8 scans", "**Dose 0.25, all: 20 slices", "**240 test images"
NOISE = "**Noise {}, all: 20 slices"
CELLS = {
    "pet_pvc": {
        "gm_nrmse_over_van_cittert": (PET, "network", "GM NRMSE / V.C."),
        "gm_nrmse": (PET, "network", "NRMSE GM"),
        "brain_nrmse": (PET, "network", "NRMSE brain"),
        "ssim_brain": (PET, "network", "SSIM brain"),
        "gm_bias_mean_abs": (PET, "network", "GM bias mean"),
        "hot_recovery": (PET, "network", "hot lesions"),
        "total_activity_ratio": (PET, "network", "total activity"),
    },
    "ldct_denoising": {
        "rmse_hu_window": (DOSE, "network", "RMSE HU, window"),
        "psnr_db_window": (DOSE, "network", "PSNR"),
        "ssim_window": (DOSE, "network", "SSIM"),
        "gain_over_nlm_db": (DOSE, "network", "dB over NLM"),
    },
    "ct_super_resolution": {
        "psnr_db_window": (NOISE.format("clean"), "network", "PSNR"),
        "ssim_window": (NOISE.format("clean"), "network", "SSIM"),
        "gain_over_lanczos_db": (NOISE.format("clean"), "network", "dB over Lanczos"),
        "gain_over_lanczos_white_noise_db": (NOISE.format("gaussian"), "network", "dB over Lanczos"),
        "gain_over_lanczos_scanner_noise_db": (NOISE.format("scanner"), "network", "dB over Lanczos"),
    },
    "lung_ct_classification": {
        "accuracy": (LUNG, "network", "accuracy"),
        "macro_f1": (LUNG, "network", "macro F1"),
        "auc": (LUNG, "network", "AUC"),
        "calibration_error": (LUNG, "network", "calibration error"),
    },
}


def test_every_metric_of_the_metadata_is_the_cell_of_the_model_card_that_shows_it(bundle):
    card = (bundle / "docs" / "README.md").read_text()
    assert bundle.name in CELLS, "say in CELLS where its model card shows each metric"
    metrics, cells = metadata(bundle)["eval_metrics"], CELLS[bundle.name]
    assert metrics.keys() == cells.keys()
    cell_of = printed_cell if bundle.name == "pet_pvc" else markdown_cell
    for name, place in cells.items():
        number = cell_of(card, *place).split()[0]  # before its interval
        shown = float(number.rstrip("%")) / (100 if number.endswith("%") else 1)
        assert metrics[name] == pytest.approx(shown, rel=1e-12), f"{name}: {place}"
