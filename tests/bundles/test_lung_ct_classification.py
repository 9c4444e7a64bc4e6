"""The classification bundle as its users run it: every config and overlay, on tiny images."""

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
from PIL import Image

from ctrestore.commands import main as cli
from ctrestore.tasks.lung_ct_classification import read_card
from tests.conftest import CHESTS, CLASSES, ROOT, cases, chest_slice, image_in, refused, write_nifti

BUNDLE = ROOT / "bundles" / "lung_ct_classification"
CONFIGS = BUNDLE / "configs"
COMPLETE = {"train", "inference", "metadata"}
ON_TRAIN = cases(
    sorted(path.stem for path in CONFIGS.glob("*.json") if path.stem not in COMPLETE | {"evaluate"}), at_least=7
)
KAGGLE = {  # its folders, and the name of the class in each
    "adenocarcinoma_left.lower.lobe_T2_N0_M0_Ib": "adenocarcinoma",
    "large.cell.carcinoma_left.hilum_T2_N2_M0_IIIa": "large.cell.carcinoma",
    "normal": "normal",
    "squamous.cell.carcinoma_left.hilum_T1_N2_M0_IIIa": "squamous.cell.carcinoma",
}
TINY_NETWORK = {
    "_target_": "DenseNet", "spatial_dims": 2, "in_channels": 1, "out_channels": "$len(@classes)",
    "init_features": 8, "growth_rate": 4, "block_config": [1, 1],
}  # fmt: skip


def stack(*names: str) -> list[str]:
    return [str(CONFIGS / f"{name}.json") for name in names]


def tiny(folder: Path, tmp_path: Path, **more) -> dict:
    """Overrides that shrink a training to seconds."""
    return {
        "bundle_root": str(BUNDLE),
        "data_list": str(folder / "list.json"),
        "dataset_dir": str(folder),
        "ckpt_dir": str(tmp_path / "runs"),
        "output_dir": str(tmp_path / "eval"),
        "network_def": TINY_NETWORK,
        "image_size": 32,
        "batch_size": 4,
        "max_epochs": 10,  # OneCycleLR wants 20 steps
        "val_interval": 5,
        **more,
    }


def run(*names: str, workflow_type: str = "train", **overrides) -> ConfigWorkflow:
    workflow = ConfigWorkflow(stack(*names), workflow_type=workflow_type, logging_file=False, **overrides)
    workflow.initialize()
    assert not workflow.check_properties()
    workflow.run()
    workflow.finalize()
    return workflow


def causes(error: BaseException) -> str:
    said = []
    while error is not None:
        said.append(str(error))
        error = error.__cause__ or error.__context__
    return " ".join(said)


def parsed(*names: str, **overrides) -> ConfigParser:
    parser = ConfigParser()
    parser.read_config(stack(*names))
    parser.update(overrides)
    return parser


@pytest.fixture(scope="session")
def trained(tiny_chests, tmp_path_factory) -> Path:
    """A folder with the weights of a tiny training."""
    folder = tmp_path_factory.mktemp("trained")
    run("train", **tiny(tiny_chests, folder, max_epochs=30, val_interval=10, learning_rate=0.01))
    return folder


@pytest.mark.parametrize("overlay", ["", "evaluate", *ON_TRAIN])
def test_every_reference_of_every_training_stack_resolves(overlay):
    parser = parsed("train", *filter(None, [overlay]))
    for reference in set(re.findall(r"@(\w+(?:#\w+)*)", json.dumps(parser.get()))):
        assert reference in parser, f"{overlay} refers to @{reference}, which nothing defines"


def test_training_and_inference_prepare_images_alike():
    train, infer = parsed("train"), parsed("inference")
    assert train["preprocessing_steps"] == infer["preprocessing#transforms"]
    assert train["network_def"] == infer["network_def"]


def test_training_learns_and_leaves_a_card_of_what_the_weights_know(trained, tiny_chests, drawings):
    card = read_card(trained / "runs" / "model.pt")
    assert card["classes"] == CLASSES
    assert (card["input_kind"], card["image_size"], card["window"]) == ("hu", 32, [-1000.0, 400.0])
    assert card["temperature"] > 0 and card["calibrated_on"] == f"{CHESTS['validation']} images of validation"
    run("train", "evaluate", **tiny(tiny_chests, trained))
    metrics = pd.read_csv(trained / "eval" / "metrics.csv").set_index(["row", "measure"])["value"]
    assert metrics["network", "AUC"] > 0.8 > metrics["majority class", "accuracy"]  # chance is 0.5, and 0.25
    predictions = pd.read_csv(trained / "eval" / "predictions.csv")
    np.testing.assert_allclose(predictions[CLASSES].sum(axis=1), 1, atol=1e-6)
    confusion, calibration = drawings[-1].axes
    said, true = (predictions[column].map(CLASSES.index).to_numpy() for column in ("predicted", "class"))
    counted = np.zeros((4, 4), dtype=int)
    np.add.at(counted, (true, said), 1)
    np.testing.assert_allclose(image_in(confusion), counted / counted.sum(axis=1, keepdims=True))
    assert [int(text.get_text()) for text in confusion.texts] == counted.ravel().tolist()
    assert [tick.get_text() for tick in confusion.get_yticklabels()] == [name.replace(".", " ") for name in CLASSES]
    (points,) = calibration.collections
    confidence, right = np.asarray(points.get_offsets()).T
    share = (np.asarray(points.get_sizes()) - 12) / 200  # the area of a point tells how many images it stands for
    assert share.sum() == pytest.approx(1)
    assert share @ confidence == pytest.approx(predictions[CLASSES].max(axis=1).mean(), abs=1e-4)
    assert share @ right == pytest.approx((said == true).mean())
    assert (trained / "eval" / "confusion.png").is_file()


def test_the_temperature_is_fitted_to_the_calibration_images_where_a_list_has_them(trained, tiny_chests, tmp_path):
    listed = json.loads((tiny_chests / "list.json").read_text())
    listed["calibration"] = [listed["test"].pop()]
    (tmp_path / "list.json").write_text(json.dumps(listed))
    options = {**tiny(tiny_chests, tmp_path), "data_list": str(tmp_path / "list.json")}
    run("train", **options)
    assert read_card(tmp_path / "runs" / "model.pt")["calibrated_on"] == "1 images of calibration"


def test_a_training_goes_on_where_it_stopped(trained, tiny_chests):
    options = tiny(tiny_chests, trained, max_epochs=30, val_interval=10, learning_rate=0.01)
    again = run("train", **options, resume=True)
    assert again.parser.get_parsed_content("train#trainer").state.epoch == 30


def test_every_class_counts_alike_in_the_loss(tiny_chests, tmp_path):
    weights = parsed("train", **tiny(tiny_chests, tmp_path)).get_parsed_content("class_weights")
    torch.testing.assert_close(weights, torch.ones(4))


def test_inference_writes_a_line_an_image_and_where_the_network_looked(trained, tiny_chests, tmp_path):
    weights = str(trained / "runs" / "model.pt")
    options = {"bundle_root": str(BUNDLE), "weights": weights, "network_def": TINY_NETWORK, "save_cam": True,
               "cam_layer": "class_layers.relu", "output_dir": str(tmp_path / "out")}  # fmt: skip
    volume = np.stack([chest_slice(i, np.random.default_rng(9)) for i in range(3)], axis=-1).astype(np.int16)
    scans = tmp_path / "scans"
    write_nifti(scans / "volume.nii.gz", volume, np.diag([7.0, 7.0, 3.0, 1.0]))
    (scans / "broken.nii.gz").write_bytes(b"nothing")
    with refused() as caught:
        run("inference", workflow_type="infer", dataset_dir=str(scans), **options)
    assert "broken.nii.gz" in causes(caught.value)
    found = pd.read_csv(tmp_path / "out" / "predictions.csv")
    assert list(found["slice"].astype(str)) == ["0", "1", "2", "all"]
    np.testing.assert_allclose(found[CLASSES].iloc[3], found[CLASSES].iloc[:3].mean(), atol=2e-4)  # four digits
    pictures = list((tmp_path / "out" / "cam").glob("*.png"))
    assert len(pictures) == 1
    drawn = np.asarray(Image.open(pictures[0]).convert("RGB")).astype(float)
    assert drawn.shape == (32, 32, 3)
    assert np.ptp(drawn, axis=2).max() > 50 and np.ptp(drawn.mean(axis=2)) > 50  # colours over a body in grey


def test_probabilities_do_not_depend_on_how_a_file_stores_its_axes_nor_on_who_reads_it(trained, tiny_chests, tmp_path):
    """The same person in three orientations: a table of inference says of each what the evaluation says."""
    weights = str(trained / "runs" / "model.pt")
    [entry, *_] = json.loads((tiny_chests / "list.json").read_text())["test"]
    ras = nib.load(tiny_chests / entry["image"])
    for name, axes in {"ras": "RAS", "lps": "LPS", "turned": "AIR"}.items():
        orientation = nib.orientations.axcodes2ornt(axes)
        nib.save(ras.as_reoriented(nib.orientations.ornt_transform(nib.io_orientation(ras.affine), orientation)),
                 tmp_path / f"{name}.nii.gz")  # fmt: skip
    options = {"bundle_root": str(BUNDLE), "weights": weights, "network_def": TINY_NETWORK, "save_cam": True,
               "output_dir": str(tmp_path / "out")}  # fmt: skip
    run("inference", workflow_type="infer", dataset_dir=str(tmp_path), **options)
    found = pd.read_csv(tmp_path / "out" / "predictions.csv")[CLASSES]
    np.testing.assert_allclose(found, found.iloc[[0] * 3], atol=2e-4)
    run("train", "evaluate", **tiny(tiny_chests, trained, ckpt_dir=str(trained / "runs"), output_dir=str(tmp_path)))
    evaluated = pd.read_csv(tmp_path / "predictions.csv")[CLASSES]
    np.testing.assert_allclose(found.iloc[0], evaluated.iloc[0], atol=2e-4)
    first, *others = (np.asarray(Image.open(path)) for path in sorted((tmp_path / "out" / "cam").glob("*.png")))
    for other in others:
        assert np.abs(first.astype(int) - other).mean() < 2


def test_classes_in_another_order_are_refused_and_never_permuted(trained, tiny_chests, tmp_path):
    content = json.loads((tiny_chests / "list.json").read_text())
    content["classes"] = CLASSES[::-1]
    for section in CHESTS:
        content[section] = [{**entry, "label": 3 - entry["label"]} for entry in content[section]]
    other = tmp_path / "reversed.json"
    other.write_text(json.dumps(content))
    with refused() as caught:
        run("train", "evaluate", **{**tiny(tiny_chests, trained), "data_list": str(other)})
    assert "the same classes in another order" in causes(caught.value)


def test_images_prepared_otherwise_are_refused(trained, tiny_chests):
    with refused() as caught:
        run("train", "evaluate", **tiny(tiny_chests, trained, image_size=40))
    assert "trained with image_size 32; here it is 40" in causes(caught.value)


@pytest.mark.parametrize(
    ("section", "change", "fault"),
    [
        ("training", {"label": 7}, "expected the place of its class"),
        ("training", {"class": "normal"}, "its class is 'normal'"),
        ("validation", None, "no image of large.cell.carcinoma in validation"),
    ],
)
def test_a_list_that_cannot_be_is_named(section, change, fault, tiny_chests, tmp_path):
    content = json.loads((tiny_chests / "list.json").read_text())
    if change is None:
        content[section] = [entry for entry in content[section] if entry["label"] != 1]
    else:
        content[section][1].update(change)
    (tmp_path / "bad.json").write_text(json.dumps(content))
    with refused() as caught:
        run("train", **tiny(tiny_chests, tmp_path, data_list=str(tmp_path / "bad.json")))
    assert fault in causes(caught.value)


@pytest.fixture(scope="session")
def kaggle(tmp_path_factory) -> Path:
    """A folder as Kaggle lays it out: long names, train, valid and test, PNG and JPEG in mixed modes and sizes."""
    root = tmp_path_factory.mktemp("kaggle")
    rng = np.random.default_rng(1)
    for section, n in (("train", 4), ("valid", 2), ("test", 2)):
        for label, folder in enumerate(KAGGLE):
            (root / "Data" / section / folder).mkdir(parents=True)
            for i in range(n):
                hu = chest_slice(label, rng, side=40 + 4 * i)
                picture = Image.fromarray(np.clip((hu.T + 1000) / 1400 * 255, 0, 255).astype(np.uint8))
                picture = picture.convert(("L", "RGB", "RGBA", "RGB")[i])
                name = f"{section}{label}{i}" + (".jpg" if i == 3 else ".png")
                picture.save(root / "Data" / section / folder / name)
    return root


def test_a_folder_in_the_layout_of_kaggle_works_from_list_to_table(kaggle, tmp_path):
    listed = tmp_path / "kaggle.json"
    cli.main(["data-list", "lung_ct_classification", "--root", str(kaggle), "-o", str(listed)])
    assert json.loads(listed.read_text())["classes"] == CLASSES
    options = {**tiny(kaggle, tmp_path), "data_list": str(listed)}
    run("train", "pictures", **options)
    run("train", "pictures", "evaluate", **options)
    text = (tmp_path / "eval" / "table.md").read_text()
    assert all(row in text for row in ("nearest neighbour", "metadata alone", "majority class", "tumours alone"))
    pictures = kaggle / "Data" / "test"
    options = {"bundle_root": str(BUNDLE), "network_def": TINY_NETWORK, "output_dir": str(tmp_path / "out")}
    weights = str(tmp_path / "runs" / "model.pt")
    run("inference", workflow_type="infer", dataset_dir=str(pictures), weights=weights, **options)
    assert len(pd.read_csv(tmp_path / "out" / "predictions.csv")) == 8
    scan = write_nifti(tmp_path / "hu" / "scan.nii.gz", np.full((32, 32, 1), -500, np.int16))
    with refused() as caught:
        run("inference", workflow_type="infer", dataset_dir=str(scan.parent), weights=weights, **options)
    assert "trained on the grey values" in causes(caught.value)


def test_pictures_without_known_hu_are_refused_where_hu_are_learned(kaggle, tmp_path):
    listed = tmp_path / "kaggle.json"
    cli.main(["data-list", "lung_ct_classification", "--root", str(kaggle), "-o", str(listed)])
    with refused() as caught:
        run("train", **{**tiny(kaggle, tmp_path), "data_list": str(listed)})
    assert "--input_kind grey" in causes(caught.value)


def test_covid_or_not_has_one_output_and_keeps_the_official_split(tmp_path):
    rng = np.random.default_rng(0)
    for label, name in enumerate(("COVID", "NonCOVID")):
        (tmp_path / "set" / f"CT_{name}").mkdir(parents=True)
        (tmp_path / "set" / "Data-split" / name).mkdir(parents=True)
        files = [f"{name}{letter}.png" for letter in "abcdefghij"]
        for file in files:
            picture = Image.fromarray(rng.integers(0, 100 + 100 * label, (30, 40), dtype=np.uint8))
            picture.save(tmp_path / "set" / f"CT_{name}" / file)
        for section, some in (("train", files[:6]), ("val", files[6:8]), ("test", files[8:])):
            path = tmp_path / "set" / "Data-split" / name / f"{section}CT_{name}.txt"
            path.write_text("\n".join(some) + "\n")
    listed = tmp_path / "covid.json"
    cli.main(["data-list", "lung_ct_classification", "--root", str(tmp_path / "set"), "-o", str(listed)])
    assert len(json.loads(listed.read_text())["validation"]) == 4
    network = {**TINY_NETWORK, "out_channels": 1}
    options = tiny(tmp_path / "set", tmp_path, network_def=network, max_epochs=20, data_list=str(listed))
    run("train", "covid", **options)
    run("train", "covid", "evaluate", **options)
    predictions = pd.read_csv(tmp_path / "eval" / "predictions.csv")
    np.testing.assert_allclose(predictions[["CT_COVID", "CT_NonCOVID"]].sum(axis=1), 1, atol=1e-6)


def test_resnet18_and_volumes_train(tiny_chests, tmp_path):
    options = tiny(tiny_chests, tmp_path, max_epochs=10)
    del options["network_def"]
    run("train", "resnet18", **options)
    rng = np.random.default_rng(0)
    listed: dict = {"classes": CLASSES[:2]}
    for section in CHESTS:
        listed[section] = []
        for i in range(4):
            volume = np.stack([chest_slice(3 * (i % 2), rng)] * 6, axis=-1).astype(np.int16)
            write_nifti(tmp_path / f"{section}{i}.nii.gz", volume, np.diag([7.0, 7.0, 3.0, 1.0]))
            listed[section].append({"subject": f"{section}{i}", "image": f"{section}{i}.nii.gz", "label": i % 2})
    (tmp_path / "list.json").write_text(json.dumps(listed))
    network = {**TINY_NETWORK, "spatial_dims": 3}
    more = {"network_def": network, "image_size": [16, 16, 8], "max_epochs": 25}
    run("train", "densenet121_3d", **tiny(tmp_path, tmp_path / "3d", **more))
    assert read_card(tmp_path / "3d" / "runs" / "model.pt")["image_size"] == [16, 16, 8]


def test_training_runs_on_two_processes(tiny_chests, tmp_path):
    files = "[" + ",".join(f"'{file}'" for file in stack("train", "multi_gpu_train")) + "]"
    options = tiny(tiny_chests, tmp_path, max_epochs=20)
    arguments = [f"--{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in options.items()]
    result = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m", "monai.bundle",
         "run", "--config_file", files, *arguments],
        cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-3000:]
    assert read_card(tmp_path / "runs" / "model.pt")["classes"] == CLASSES
    assert result.stdout.count("temperature") == 1  # the first process alone calibrates
