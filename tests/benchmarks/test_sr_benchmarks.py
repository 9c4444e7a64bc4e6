"""The benchmarks of super-resolution on tiny data: what their tables say, and that a study goes on where it stopped."""

from __future__ import annotations

import json
import sys

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from tests.conftest import ROOT, image_in

FOLDER = ROOT / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch):
    """Runs a script of benchmarks/ with arguments, in this process."""
    monkeypatch.syspath_prepend(str(FOLDER))

    def run(name: str, *arguments) -> None:
        module = __import__(name)
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        module.main()

    return run


def test_a_picture_is_letterboxed_and_not_squeezed(benchmark, monkeypatch):
    import noise_study

    disc = np.full((200, 100), -1000.0, dtype=np.float32)
    x, y = np.ogrid[:200, :100]
    disc[np.hypot(x - 99.5, y - 49.5) < 40] = 0
    made = noise_study.letterbox(disc)[0].numpy()
    assert made.shape == (299, 299)
    inside = made > -500
    width, height = np.ptp(np.flatnonzero(inside.any(axis=1))), np.ptp(np.flatnonzero(inside.any(axis=0)))
    assert abs(width - height) <= 2  # still round
    assert width == pytest.approx(80 * 299 / 200, abs=3)
    assert (made[:, :70] == -1000).all()


def test_the_study_measures_its_input_and_repeats_no_work(benchmark, tmp_path, capsys, drawings):
    rng = np.random.default_rng(0)
    for i in range(60):  # names decide the section: enough for two of each
        picture = np.kron(rng.integers(0, 255, (10, 8)), np.ones((30, 30))).astype(np.uint8)
        Image.fromarray(picture).save(tmp_path / f"scan{i}.png")
    few = ["--steps", 3, "--n_training", 4, "--n_test", 3, "--noises", "gaussian", "--networks", "ESPCN"]
    arguments = ["--dataset_dir", tmp_path, "--out", tmp_path / "out", "--device", "cpu", *few]
    benchmark("noise_study", *arguments)
    results = json.loads((tmp_path / "out" / "results.json").read_text())["runs"]
    assert set(results) == {"gaussian|input", "gaussian|ESPCN"}
    # 28 HU of 1400 are 2 %: 34 dB, a little more where black and white clip the noise
    assert np.mean(results["gaussian|input"]["psnr_db"]) == pytest.approx(34.0, abs=0.7)
    (figure,) = drawings
    assert [axes.get_title() for axes in figure.axes] == ["input", "ESPCN", "truth"]
    assert figure.axes[0].get_ylabel() == "gaussian"
    noisy, restored, truth = (image_in(axes) for axes in figure.axes)
    assert truth.shape == (96, 96)
    steps = np.abs(np.diff(truth, axis=0)).max(axis=1)
    assert (steps < 0.01).mean() > 0.9 and steps.max() > 0.1  # blocks of one grey
    assert np.std(noisy - truth) == pytest.approx(0.02, rel=0.15)  # 28 HU of 1400
    assert not np.array_equal(restored, noisy)
    assert (tmp_path / "out" / "figure.png").is_file()
    weights = tmp_path / "out" / "gaussian-ESPCN.pt"
    trained_at = weights.stat().st_mtime_ns
    capsys.readouterr()
    benchmark("noise_study", *arguments)
    assert weights.stat().st_mtime_ns == trained_at
    assert "input" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="was made with"):
        benchmark("noise_study", *arguments, "--patch", 16)


def test_the_table_compares_with_lanczos_by_patient_and_lists_missing_weights(
    benchmark, tiny_bodies, tmp_path, capsys, drawings
):
    import sr_table

    runs = tmp_path / "runs" / "espcn_x2"
    runs.mkdir(parents=True)
    torch.save(sr_table.parser_of("espcn", 2).get_parsed_content("network_def").state_dict(), runs / "model.pt")
    benchmark(
        "sr_table", "--data_list", tiny_bodies / "list.json", "--dataset_dir", tiny_bodies, "--section", "test",
        "--scales", 2, "--noises", "clean", "--runs", tmp_path / "runs", "--out", tmp_path / "out", "--device", "cpu",
    )  # fmt: skip
    said = capsys.readouterr().out
    assert "x2: no weights of U-Net. To train it: python -m monai.bundle run" in said
    assert "2 patients" in said
    rows = pd.read_csv(tmp_path / "out" / "rows.csv")
    assert {"bicubic", "Lanczos", "ESPCN"} <= set(rows.method)
    mean = rows.groupby("method").psnr_db.mean()
    assert mean["ESPCN"] < mean["Lanczos"]  # untrained
    (figure,) = drawings
    *methods, last = (axes.get_title() for axes in figure.axes)
    assert methods == [f"{name}, clean" for name in dict.fromkeys(rows.method)] and last == "fine"
    pictures = dict(zip(dict.fromkeys([*rows.method, "fine"]), map(image_in, figure.axes)))
    first = json.loads((tiny_bodies / "list.json").read_text())["test"][0]["image"]
    middle = nib.load(tiny_bodies / first).get_fdata()[8:56]  # 48 x 48 pixels
    assert any(np.array_equal(pictures["fine"], hu) for hu in middle.T)
    errors = {name: np.square(picture - pictures["fine"]).mean() for name, picture in pictures.items()}
    assert errors["fine"] == 0 < errors["Lanczos"] < errors["ESPCN"]
    assert (tmp_path / "out" / "figure_x2.png").is_file()
