"""The console script: one clean line for every error, and no waiting for ``--help``."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest

from ctrestore import __version__
from ctrestore.commands.main import main
from ctrestore.commands.phantoms import PHANTOM_KINDS, PHANTOMS
from ctrestore.data_lists import read_data_list
from tests.conftest import image_in

PATTERNS = ["--image", "{subject}/pet.nii.gz", "--label", "{subject}/pvc.nii.gz"]


@pytest.fixture
def scans(tmp_path):
    """Four subjects with an image and a label each."""
    generator = np.random.default_rng(0)
    for number in range(4):
        (tmp_path / f"p{number}").mkdir()
        for name in ("pet", "pvc"):
            volume = nib.Nifti1Image(generator.random((3, 4, 5), dtype=np.float32), np.eye(4))
            nib.save(volume, tmp_path / f"p{number}" / f"{name}.nii.gz")
    return tmp_path


def run(*arguments):
    """Exit status of the command; argparse leaves by SystemExit."""
    try:
        return main([str(argument) for argument in arguments])
    except SystemExit as stopped:
        return stopped.code


def test_a_data_list_is_written_and_summed_up(scans, capsys):
    output = scans / "list.json"
    assert run("data-list", "pet_pvc", "--root", scans, *PATTERNS, "--split", 2, 1, 1, "--seed", 3, "-o", output) == 0
    assert capsys.readouterr().out.split("\n")[0].split() == ["training", "2", "subjects", "2", "scans"]
    assert json.loads(output.read_text())["seed"] == 3
    assert len(read_data_list(output, "training")) == 2


def test_an_existing_list_is_replaced_only_by_force(scans, capsys):
    output = scans / "list.json"
    command = ["data-list", "pet_pvc", "--root", scans, *PATTERNS, "-o", output]
    assert [run(*command), run(*command), run(*command, "--force")] == [0, 2, 0]
    assert "exists already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["data-list", "pet_pvc", "--root", "ROOT", *PATTERNS, "--split", "550", "50", "94"], "there are 4 subjects"),
        (["data-list", "pet_pvc", "--root", "ROOT/none"], "not a folder"),
        (["data-list", "no_task", "--root", "ROOT"], "invalid choice: 'no_task'"),
        (["data-list", "pet_pvc"], "--root"),
        (["data-list", "pet_pvc", "--root", "ROOT", *PATTERNS, "-o", "ROOT/p0/pet.nii.gz/list.json"], "pet.nii.gz"),
        (["phantoms"], "-o DIR"),
        (["phantoms", "--list", "ROOT/list.json", "--test", "-1"], "--test: expected a whole number"),
        (["phantoms", "-o", "ROOT/phantoms", "--processes", "0"], "n_processes must be at least 1"),
        (["phantoms", "-o", "ROOT/p0/pet.nii.gz", "--processes", "1"], "p0/pet.nii.gz"),
        (["phantoms", "--list", "ROOT"], "expected the name of a JSON file"),
        (["phantoms", "ct-chest", "--list", "ROOT/list.json"], "name a folder for them"),
        (["phantoms", "ct-chest", "-o", "ROOT"], "holds other data"),
        (["phantoms", "ct-head", "-o", "ROOT/new"], "invalid choice: 'ct-head'"),
        (["no-command"], "no-command"),
        ([], "COMMAND"),
    ],
)
def test_an_error_is_one_line_with_exit_status_two(scans, capsys, arguments, words):
    arguments = [text.replace("ROOT", str(scans)) for text in arguments]
    if "--root" in arguments and "-o" not in arguments:
        arguments += ["-o", str(scans / "list.json")]
    assert run(*arguments) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("ctrestore: error: ") and printed.err.count("\n") == 1
    assert words in printed.err
    assert not (scans / "list.json").exists()


def test_the_version_is_the_packages(capsys):
    assert run("--version") == 0
    assert capsys.readouterr().out == f"ctrestore {__version__}\n"


@pytest.fixture
def written(monkeypatch):
    """What `write_cohort` was called with, instead of minutes of work."""
    from ctrestore import phantoms

    calls = []
    monkeypatch.setattr(phantoms, "write_cohort", lambda *args, **kwargs: calls.append((*args, kwargs)))
    return calls


def test_phantoms_are_written_with_a_list_of_their_files(written, tmp_path):
    from ctrestore.phantoms import cohort, data_list

    output = tmp_path / "list.json"
    counts = ["--training", 3, "--validation", 0, "--test", 1]
    assert run("phantoms", "-o", tmp_path / "there", *counts, "--processes", 2, "--list", output) == 0
    assert written == [(tmp_path / "there", cohort(3, 0, 1), {"n_processes": 2})]
    assert json.loads(output.read_text(encoding="utf-8")) == data_list(cohort(3, 0, 1))
    # The same command again goes on or does nothing; another list is not lost to it.
    assert run("phantoms", *counts, "--list", output) == 0
    assert run("phantoms", "--list", output) == 2
    assert run("phantoms", "--list", output, "--force") == 0
    assert json.loads(output.read_text(encoding="utf-8")) == data_list(cohort())
    assert len(written) == 1  # without --output: the list alone


def test_phantoms_are_by_default_the_embedded_cohort():
    from ctrestore.phantoms import cohort

    defaults = {name: parameter.default for name, parameter in inspect.signature(cohort).parameters.items()}
    assert defaults == {f"n_{section}": subjects for section, (subjects, _) in PHANTOMS.items()}


def test_ct_phantoms_are_written_with_their_list_and_kept(tmp_path):
    output = tmp_path / "list.json"
    counts = ["--training", 1, "--validation", 1, "--test", 0, "--processes", 1]
    command = ["phantoms", "ct-abdomen", "-o", tmp_path / "ct", *counts]
    assert run(*command, "--slices", 1, "--list", output) == 0
    (entry,) = read_data_list(output, "validation", tmp_path / "ct")
    assert nib.load(entry["image"]).shape == (512, 512, 1)
    assert run(*command, "--slices", 1, "--list", output) == 0  # the same again
    assert run(*command, "--slices", 2) == 2  # another size is not mixed in


def test_ct_phantoms_as_dicom_load_as_the_series_they_are(tmp_path):
    from ctrestore.io.dicom import load_series

    command = ["phantoms", "ct-chest", "-o", tmp_path / "ct", "--training", 0, "--validation", 0, "--test", 1]
    assert run(*command, "--slices", 2, "--dicom", "--list", tmp_path / "list.json") == 0
    (entry,) = read_data_list(tmp_path / "list.json", "test", tmp_path / "ct")
    assert load_series(entry["image"]).volume.shape == (512, 512, 2)


def test_lung_phantoms_are_listed_with_their_classes_and_are_no_dicom(tmp_path):
    counts = ["--training", 2, "--validation", 0, "--test", 0, "--processes", 1]
    assert run("phantoms", "ct-lung", "-o", tmp_path / "lung", *counts, "--list", tmp_path / "list.json") == 0
    entries = read_data_list(tmp_path / "list.json", "training", tmp_path / "lung")
    assert [entry["class"] for entry in entries] == ["adenocarcinoma", "large.cell.carcinoma"]
    assert run("phantoms", "ct-lung", "-o", tmp_path / "lung", "--dicom") == 2


def test_the_kinds_of_phantoms_are_those_that_there_are():
    from ctrestore.phantoms.ct import KINDS

    assert (*PHANTOM_KINDS,) == ("brain-pet", *(f"ct-{kind}" for kind in KINDS), "ct-lung")


@pytest.mark.parametrize(
    "arguments", [["--help"], ["data-list", "--help"], ["phantoms", "--help"], ["pvc", "--help"], ["--version"]]
)
def test_help_imports_neither_torch_nor_monai(arguments):
    program = (
        "import atexit, sys; from ctrestore.commands.main import main; "
        "atexit.register(lambda: print('heavy:', sorted({'torch', 'monai'} & set(sys.modules)))); "
        f"main({arguments!r})"
    )
    printed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert printed.endswith("heavy: []\n")


def test_the_demo_ends_with_a_table_a_picture_and_where_they_lie(tiny_heads, tmp_path, monkeypatch, capsys, drawings):
    from ctrestore import phantoms

    listed = json.loads((tiny_heads / "list.json").read_text())["test"]
    heads = [{k: v if k == "subject" else str(tiny_heads / v) for k, v in e.items()} for e in listed]
    heads = [{**head, "truth": head["label"]} for head in heads]
    monkeypatch.setattr(phantoms, "phantom_entries", lambda folder, section, n=None: heads[:n])
    assert main(["demo", "--scans", "1", "-o", str(tmp_path / "demo")]) == 0
    printed = capsys.readouterr().out
    for row in ("input", "sharpened", "Richardson-Lucy", "Van Cittert", "network"):
        assert row in printed
    for name in ("metrics.csv", "pet_pvc.png"):
        assert (tmp_path / "demo" / name).is_file()
        assert str(tmp_path / "demo" / name) in printed
    (figure,) = drawings
    scan, _, truth, difference = figure.axes[:4]
    assert [axes.get_title() for axes in figure.axes[:4]] == ["input", "corrected", "truth", "corrected - truth"]
    error = np.abs(image_in(difference)).mean()
    assert 0 < error < np.abs(image_in(scan) - image_in(truth)).mean()


def test_a_demo_without_its_bundle_says_where_it_looked(tmp_path, capsys):
    assert main(["demo", "--bundle", str(tmp_path)]) == 2
    assert str(tmp_path) in capsys.readouterr().err


def test_release_weights_says_what_it_wrote(tmp_path, capsys):
    import torch

    torch.save({"weight": torch.ones(10)}, tmp_path / "trained.pt")
    assert main(["release-weights", str(tmp_path / "trained.pt"), str(tmp_path / "model.pt")]) == 0
    assert "10 values" in capsys.readouterr().out
