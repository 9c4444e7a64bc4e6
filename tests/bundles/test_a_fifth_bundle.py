"""What CONTRIBUTING.md promises: a bundle's folder and a row of the tasks are all that the rest needs to know it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from ctrestore.commands.main import main
from ctrestore.data_lists import TASKS, read_data_list
from ctrestore.data_lists.tasks import Task
from ctrestore.errors import InputError
from ctrestore.tasks.runtime import find_bundle
from tests.bundles import test_every_bundle as every_bundle
from tests.bundles.test_precision_of_bundles import MACHINES, first_dtypes, on
from tests.conftest import write_nifti

NAME = "mr_denoising"
ROW = Task(images=("sub-*/anat/*_T1w.nii*",), labels="derivatives/*/sub-*/**/*_T1w.nii*", label_kind="(desc-clean)")


@pytest.fixture
def fifth(tmp_path, monkeypatch) -> Path:
    """A copy of a bundle under a new name, in the folder that we work in, and its row."""
    folder = tmp_path / "bundles" / NAME
    (example,) = (path for path in every_bundle.BUNDLES if path.name == "ct_super_resolution")
    shutil.copytree(example, folder, ignore=shutil.ignore_patterns("runs*", "eval", "eval_*"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(TASKS, NAME, ROW)
    return folder


def test_the_commands_find_it(fifth):
    assert find_bundle(None, NAME).resolve() == fifth.resolve()
    with pytest.raises(InputError, match="there is no bundle in .*mr_denoising_of_hearts"):
        find_bundle(None, f"{NAME}_of_hearts")


def test_the_tests_of_every_bundle_accept_it(fifth, monkeypatch):
    assert fifth.name in [path.name for path in Path.cwd().glob("bundles/*")]
    every_bundle.test_a_bundle_is_whole(fifth)
    for name in every_bundle.COMPLETE:
        every_bundle.test_a_complete_config_defines_what_it_refers_to(fifth, name)
    every_bundle.test_the_weights_are_plain_tensors_that_fit_the_network(fifth)
    every_bundle.test_the_network_takes_and_gives_what_the_metadata_say(fifth)
    monkeypatch.setitem(every_bundle.CELLS, NAME, every_bundle.CELLS["ct_super_resolution"])
    every_bundle.test_every_metric_of_the_metadata_is_the_cell_of_the_model_card_that_shows_it(fifth)


def test_a_part_that_is_missing_is_seen(fifth):
    (fifth / "docs" / "data_license.txt").unlink()
    with pytest.raises(AssertionError, match="data_license"):
        every_bundle.test_a_bundle_is_whole(fifth)


def test_its_precision_follows_the_machine(fifth, monkeypatch):
    hardware, expected = MACHINES["AMX"]
    on(hardware, monkeypatch)
    assert first_dtypes(every_bundle.parser_of(fifth, "inference"), "inferer") == {expected}


def test_its_data_are_listed_as_its_row_says(fifth, tmp_path, capsys):
    rng = np.random.default_rng(0)
    for i in range(10):
        name = f"sub-{i:02d}"
        for place in (f"{name}/anat/{name}_T1w", f"derivatives/x/{name}/anat/{name}_desc-clean_T1w"):
            write_nifti(tmp_path / "data" / f"{place}.nii.gz", rng.random((4, 4, 4), dtype=np.float32))
    assert main(["data-list", NAME, "--root", str(tmp_path / "data"), "-o", "list.json"]) == 0
    assert [len(read_data_list("list.json", section, "data")) for section in ("training", "test")] == [8, 1]
    assert json.loads(Path("list.json").read_text())["description"].startswith(NAME)
    with pytest.raises(SystemExit):
        main(["data-list", "--help"])
    assert NAME in capsys.readouterr().out
