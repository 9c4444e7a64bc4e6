"""The dose study in little: its table and figure, what it compares, and that it goes on where it stopped."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from ctrestore.metrics import mcnemar
from ctrestore.phantoms.ct import write_lung_cohort
from tests.benchmarks.test_ldct_study import script

study = script("dose_study")


@pytest.fixture(scope="module")
def cohort(tmp_path_factory) -> Path:
    """Lung phantoms of few pixels, listed."""
    folder = tmp_path_factory.mktemp("lung")
    listed = write_lung_cohort(folder, n_training=4, n_validation=4, n_test=4, matrix=64, n_processes=1)
    (folder / "list.json").write_text(json.dumps(listed))
    return folder


def predictions(n: int = 40) -> pd.DataFrame:
    """Of two trainings on two classes: right at full dose nine times of ten, at a tenth of it by chance."""
    rng, tables = np.random.default_rng(0), []
    labels = np.arange(n) % 2
    for training in study.TRAININGS:
        for dose, restoration in study.wanted([study.NLM] if training == study.FULL_DOSE else []):
            right = rng.random(n) < (0.9 if dose.fraction == 1 else 0.5)
            p = np.where(right == (labels == 1), 0.8, 0.2)
            tables.append(
                pd.DataFrame({"p0": 1 - p, "p1": p, "label": labels, "subject": [f"s{i}" for i in range(n)]}).assign(
                    training=training, dose=str(dose), fraction=dose.fraction, noise=dose.noise, restoration=restoration
                )
            )
    return pd.concat(tables, ignore_index=True)


def test_every_row_is_compared_with_full_dose_of_the_network_trained_on_it():
    given = predictions()
    found = study.scores(given).set_index(["training", "dose", "restoration"])
    given["right"] = (given["p1"] > 0.5) == (given["label"] == 1)
    of = {names: rows["right"].to_numpy() for names, rows in given.groupby(["training", "dose", "restoration"])}
    full = (study.FULL_DOSE, str(study.FULL), study.AS_IT_IS)
    assert len(found) == len(of) == 1 + 2 * 4 + 1 + 4
    for names, row in found.iterrows():
        assert row["accuracy"] == of[names].mean()
        assert row["accuracy low"] <= row["accuracy"] <= row["accuracy high"]
        assert (row["n_lost"], row["n_gained"], row["p_value"]) == mcnemar(of[full], of[names])
    assert found.loc[full, "p_value"] == 1


def test_the_table_has_a_line_for_each_row_and_lists_what_was_not_run(tmp_path):
    found = study.scores(predictions())
    text = study.table(found, {"RED-CNN": "not run: no weights"})
    assert text.count("\n| ") == len(found)
    assert "| full dose | projections, 0.1 | NLM |" in text
    assert "- RED-CNN: not run: no weights" in text


def test_the_figure_draws_the_accuracy_of_every_restoration_against_the_dose(tmp_path, drawings):
    found = study.scores(predictions())
    study.figure(found, tmp_path / "figure.png")
    (axes,) = drawings[0].axes
    names = [study.AS_IT_IS, study.NLM, f"trained on {study.LOW_DOSE}, {study.AS_IT_IS}"]
    assert [bars.get_label() for bars in axes.containers] == names
    assert [text.get_text() for text in axes.get_legend().get_texts()] == names
    shown = found[(found["fraction"] == 1) | (found["noise"] == study.PROJECTIONS)]
    full = shown[shown["training"] == study.FULL_DOSE]
    lines = [full[full["restoration"] == study.AS_IT_IS]]
    lines.append(full[(full["restoration"] == study.NLM) | (full["fraction"] == 1)])  # where nothing is to be restored
    lines.append(shown[(shown["training"] == study.LOW_DOSE) & (shown["restoration"] == study.AS_IT_IS)])
    for bars, line in zip(axes.containers, lines):
        line = line.sort_values("fraction")
        points, _, (intervals,) = bars.lines
        np.testing.assert_allclose(points.get_xdata(), line["fraction"], rtol=0.05)  # they stand beside each other
        np.testing.assert_allclose(points.get_ydata(), 100 * line["accuracy"])
        drawn = np.array([segment[:, 1] for segment in intervals.get_segments()])
        np.testing.assert_allclose(drawn, 100 * line[["accuracy low", "accuracy high"]])
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["0.1", "0.25", "0.5", "1"]
    assert axes.get_xscale() == "log"


def test_the_noise_of_doses_in_the_projections_is_one_realisation_and_grows_as_the_dose_falls():
    hu = np.full((48, 48), -1000.0, dtype=np.float32)
    hu[12:36, 12:36] = 40
    found = study.lowered(hu, study.LOWERED, spacing_mm=6.0, seed=(0, 1))
    noise = [(found[dose] - hu)[12:36, 12:36] for dose in study.IN_PROJECTIONS]
    assert noise[0].std() < noise[1].std() < noise[2].std()
    assert np.corrcoef(noise[0].ravel(), noise[2].ravel())[0, 1] > 0.99
    again = study.lowered(hu, study.LOWERED[:1], spacing_mm=6.0, seed=(0, 1))
    np.testing.assert_array_equal(again[study.LOWERED[0]], found[study.LOWERED[0]])


def test_a_study_ends_with_a_table_and_repeats_no_work(cohort, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(study, "NETWORKS", ())
    given = ["--data_list", str(cohort / "list.json"), "--out", str(tmp_path), "--threads", "1", "--device", "cpu"]
    given += ["--image_size", "64", "--epochs", "1"]
    study.main(given)
    assert capsys.readouterr().out.count("training on") == 3  # full dose in two stages, and on from there
    table = (tmp_path / "dose_study.md").read_text()
    assert "| low dose | projections, 0.1 | as it is |" in table
    times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.pt")}
    study.main(given)
    assert "training on" not in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in times} == times
    assert (tmp_path / "dose_study.md").read_text() == table
    # Released weights in the place of that training; the control goes on from them.
    [released] = tmp_path.glob("full_dose_64_release_*/model.pt")
    monkeypatch.setattr(study, "RELEASED", released)
    monkeypatch.setattr(study, "takes_released", lambda args: True)
    given[given.index(str(tmp_path))] = str(tmp_path / "again")
    study.main(given)
    assert capsys.readouterr().out.count("training on") == 1
    assert (tmp_path / "again" / "dose_study.md").read_text() == table


def test_the_classifier_gets_the_bundles_preprocessing(cohort, tmp_path):
    """The same slice from a file, by the bundle, and from an array, by the study."""
    args = study.arguments(["--data_list", str(cohort / "list.json"), "--out", str(tmp_path), "--image_size", "64"])
    [entry] = study.entries(args, "test")[:1]
    steps = study.config_of(args).get_parsed_content("validate#preprocessing")
    bundles = steps({"image": entry["image"]})["image"].numpy()
    np.testing.assert_array_equal(study.prepared(study.slice_of(entry, args)[0], args).numpy(), bundles)
    scan = nib.load(entry["image"])
    other = scan.as_reoriented([[0, -1], [1, -1], [2, 1]])  # as DICOM stores it
    nib.save(other, tmp_path / "lps.nii.gz")
    shown = study.prepared(study.slice_of({"image": tmp_path / "lps.nii.gz"}, args)[0], args)
    np.testing.assert_allclose(shown.numpy(), bundles, atol=1e-5)


def test_a_list_of_low_dose_has_every_person_at_one_of_the_doses(cohort, tmp_path):
    given = ["--data_list", str(cohort / "list.json"), "--out", str(tmp_path), "--threads", "1"]
    args = study.arguments(given)
    low, full = (json.loads(study.list_of(args, name).read_text()) for name in (study.LOW_DOSE, study.FULL_DOSE))
    assert low["classes"] == full["classes"]
    spread = []
    for before, after in zip(full["training"], low["training"]):
        assert (before["subject"], before["label"]) == (after["subject"], after["label"])
        lowered = {**after, "image": tmp_path / "low_dose" / after["image"]}
        assert nib.aff2axcodes(nib.load(lowered["image"]).affine) == nib.aff2axcodes(nib.load(before["image"]).affine)
        spread.append(float((study.slice_of(lowered, args)[0] - study.slice_of(before, args)[0]).std()))
    assert spread[0] < spread[1] < spread[2]  # half, a quarter, a tenth


def test_released_weights_replace_a_training_only_on_the_embedded_phantoms(cohort, tmp_path):
    given = ["--out", str(tmp_path)]
    assert study.takes_released(study.arguments(given))
    other = (["--retrain"], ["--quick"], ["--image_size", "128"], ["--data_list", str(cohort / "list.json")])
    assert not any(study.takes_released(study.arguments([*given, *more])) for more in other)


def test_versions_restored_by_old_weights_or_settings_are_not_used_for_new_ones(tmp_path, monkeypatch):
    shutil.copytree(study.LDCT / "configs", tmp_path / "configs")
    (tmp_path / "models").mkdir()
    monkeypatch.setattr(study, "LDCT", tmp_path)

    def keys(weights: bytes, strength: float) -> list[str]:
        (tmp_path / "models" / "model.pt").write_bytes(weights)
        inference = tmp_path / "configs" / "inference.json"
        inference.write_text(json.dumps(json.loads(inference.read_text()) | {"strength": strength}))
        for remembered in (study.mark_of, study.mark_of_restoration):
            remembered.cache_clear()
        return [study.key_of(study.FULL, name) for name in ("UnshuffledUNet", study.NLM)]

    first, other_weights, weaker = keys(b"old", 1.0), keys(b"new", 1.0), keys(b"new", 0.5)
    assert len({first[0], other_weights[0], weaker[0]}) == 3
    assert first[1] == other_weights[1] == weaker[1]
    monkeypatch.setattr(study, "TUNED", {})
    assert keys(b"new", 0.5)[1] != weaker[1]


def test_networks_without_weights_and_slow_ones_are_left_out_and_named(tmp_path, monkeypatch):
    (tmp_path / "models").mkdir()
    monkeypatch.setattr(study, "LDCT", tmp_path)
    assert "no weights" in study.remarks(study.arguments(["--slow"]))["RED-CNN"]
    (tmp_path / "models" / "redcnn.pt").touch()
    assert "--slow" in study.remarks(study.arguments([]))["RED-CNN"]
    assert "RED-CNN" not in study.remarks(study.arguments(["--slow"]))


def test_an_empty_table_says_what_to_do(tmp_path):
    with pytest.raises(SystemExit, match="without --table"):
        study.main(["--table", "--out", str(tmp_path)])
