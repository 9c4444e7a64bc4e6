"""evaluate.json of the LDCT denoising bundle, on tiny bodies."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import torch
from monai.inferers import SimpleInferer
from torch import nn

from ctrestore.networks import REDCNN, UnshuffledUNet
from ctrestore.tasks.ct_restoration.restored_slice import restored_slice
from tests.bundles.test_ldct_denoising import run
from tests.conftest import image_in, refused, small_ct

CLASSICAL = ["NLM", "NLM in part", "TV", "bilateral"]


@pytest.fixture
def weights(tmp_path):
    """Of an untrained network, which returns its input."""
    path = tmp_path / "model.pt"
    network = small_ct(tmp_path, tmp_path)["network_def"]
    sizes = {key: value for key, value in network.items() if not key.startswith("_")}
    torch.save(UnshuffledUNet(spatial_dims=2, **sizes).state_dict(), path)
    return path


def options(tiny_bodies, tmp_path, **more):
    nowhere = str(tmp_path / "nowhere" / "redcnn.pt")
    return small_ct(
        tiny_bodies, tmp_path, **{"panels": 0, "disc_slices": 0, "amp": False, "redcnn_weights": nowhere, **more}
    )


def test_an_untrained_network_stands_between_its_input_and_the_classical_rows(tiny_bodies, tmp_path, weights, drawings):
    run("train", "evaluate", **options(tiny_bodies, tmp_path, weights=str(weights), doses=[0.5, 0.1], panels=2))
    metrics = pd.read_csv(tmp_path / "out" / "metrics.csv")
    assert metrics.groupby("row").size().to_dict() == {
        row: 8 for row in ["input", *CLASSICAL, "network", "network in full"]
    }
    by_row = {row: lines["psnr_db[hu400_soft_tissue]"].to_numpy() for row, lines in metrics.groupby("row")}
    assert by_row["network"] == pytest.approx(by_row["input"], abs=1e-3)
    text = (tmp_path / "out" / "table.md").read_text()
    assert "RED-CNN: not run, there is no redcnn.pt." in text
    assert "## Dose 0.1, all: 4 slices of 2 patients" in text
    assert drawings and all(panel.get_suptitle().endswith(", 10% of the dose") for panel in drawings)
    assert len(list((tmp_path / "out").glob("panel_*_0.1.png"))) == len(drawings)  # the dose nearest to a quarter
    for panel in drawings:  # an untrained network changes nothing
        shown = {axes.get_title().split("\n")[0]: axes for axes in panel.axes if axes.get_title()}
        np.testing.assert_allclose(image_in(shown["network"]), image_in(shown["input"]), atol=0.1)


def test_a_network_that_makes_a_share_of_its_change_leaves_the_rest():
    hu = np.random.default_rng(0).normal(40, 20, (24, 24)).astype(np.float32)
    nothing = {"network": nn.Conv2d(1, 1, 1), "inferer": SimpleInferer()}
    for weights in nothing["network"].parameters():
        nn.init.zeros_(weights)  # 0 HU everywhere
    np.testing.assert_allclose(restored_slice(hu, **nothing, strength=0.8), 0.2 * hu, atol=1e-4)


def test_pairs_are_evaluated_as_they_are(tiny_bodies, tmp_path, weights):
    listed = json.loads((tiny_bodies / "list.json").read_text())
    for section in listed.values():
        for entry in section:
            entry["label"] = entry["image"]
    (tmp_path / "pairs.json").write_text(json.dumps(listed))
    run(
        "train", "evaluate",
        **options(
            tiny_bodies, tmp_path, weights=str(weights), data_list=str(tmp_path / "pairs.json"), classical_rows=False
        ),
    )  # fmt: skip
    metrics = pd.read_csv(tmp_path / "out" / "metrics.csv")
    assert (metrics["rmse[full4096]"] < 1e-3).all() and len(metrics) == 3 * 4
    assert metrics["dose_fraction"].isna().all()


def test_red_cnn_is_a_row_where_its_weights_are(tiny_bodies, tmp_path, weights):
    torch.manual_seed(0)
    torch.save({name: value.half() for name, value in REDCNN().state_dict().items()}, tmp_path / "redcnn.pt")
    run(
        "train", "evaluate",
        **options(
            tiny_bodies, tmp_path, weights=str(weights), redcnn_weights=str(tmp_path / "redcnn.pt"), doses=[0.1],
            classical_rows="false", test_subjects=1,
        ),
    )  # fmt: skip
    assert set(pd.read_csv(tmp_path / "out" / "metrics.csv")["row"]) == {
        "input",
        "network",
        "network in full",
        "RED-CNN",
    }


def test_missing_weights_end_with_one_line(tiny_bodies, tmp_path):
    with refused(match=r"there are no weights at .*model\.pt"):
        run("train", "evaluate", **options(tiny_bodies, tmp_path, weights=str(tmp_path / "model.pt")))
