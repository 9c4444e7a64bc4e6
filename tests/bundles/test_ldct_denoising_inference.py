"""Inference of the low-dose CT bundle as its users run it: from every folder, by every way MONAI knows."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser, ConfigWorkflow, load

from ctrestore.commands import main as cli
from ctrestore.io.dicom import load_series, write_phantom_series
from ctrestore.networks import UnshuffledUNet
from ctrestore.phantoms import ct as ct_phantoms
from ctrestore.tasks.ct_restoration import embedded
from tests.conftest import ROOT, refused

BUNDLE = ROOT / "bundles" / "ldct_denoising"
AFFINE = np.diag([-0.7, -0.7, 2.5, 1.0])


def config(name: str) -> dict:
    return json.loads((BUNDLE / "configs" / f"{name}.json").read_text())


@pytest.fixture
def bundle(tmp_path) -> Path:
    """The bundle's inference with untrained weights, whose network is the identity."""
    folder = tmp_path / "bundles" / "ldct_denoising"
    (folder / "models").mkdir(parents=True)
    (folder / "configs").mkdir()
    for name in ("inference.json", "logging.conf", "metadata.json"):
        shutil.copy(BUNDLE / "configs" / name, folder / "configs")
    parser = ConfigParser()
    parser.read_config(str(BUNDLE / "configs" / "inference.json"))
    network = parser.get_parsed_content("network_def")
    assert isinstance(network, UnshuffledUNet)
    state = {name: value.half() for name, value in network.state_dict().items()}
    torch.save(state, folder / "models" / "model.pt")
    return folder


@pytest.fixture
def volume() -> np.ndarray:
    x, y, z = np.mgrid[:45, :37, :6]
    hu = np.where(((x - 22) / 20) ** 2 + ((y - 18) / 16) ** 2 < 1, 40.0 + z, -1000.0)
    return np.rint(hu + np.random.default_rng(0).normal(0, 20, hu.shape)).clip(-1024, 3000)


@pytest.fixture
def series(tmp_path, volume) -> Path:
    write_phantom_series(volume, AFFINE, tmp_path / "series")
    return tmp_path / "series"


def workflow(bundle: Path, **overrides) -> ConfigWorkflow:
    return ConfigWorkflow(
        str(bundle / "configs" / "inference.json"),
        workflow_type="inference",
        logging_file=False,
        bundle_root=str(bundle),
        **overrides,
    )


def command(file: str, *, cwd: Path, **options) -> subprocess.CompletedProcess:
    """``python -m monai.bundle run``."""
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    said = [text for key, value in options.items() for text in (f"--{key}", str(value))]
    return subprocess.run(
        [sys.executable, "-m", "monai.bundle", "run", "--config_file", file, *said],
        cwd=cwd, capture_output=True, text=True, timeout=600,
        env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def test_training_and_inference_share_network_and_preprocessing():
    train, inference = config("train"), config("inference")
    for knob in ("bundle_root", "device", "amp", "clip_hu", "told_dose", "network_def", "network"):
        assert inference[knob] == train[knob], knob
    assert inference["strength"] == config("evaluate")["strength"]
    own = {"CopyItemsd"}  # the slice that inference takes over what the network cannot see from

    def chain(steps: list[dict]) -> list[dict]:
        shared = ("ctrestore.transforms.slices.LoadSliced", "ScaleIntensityRanged", *own)
        kept = ({k: v for k, v in step.items() if k not in ("keys", "allow_missing_keys")} for step in steps)
        return [step for step in kept if step["_target_"] in shared and step["_target_"] not in own]

    assert chain(inference["preprocessing"]["transforms"]) == chain(train["preprocessing_steps"])
    assert [step["_target_"] for step in inference["preprocessing"]["transforms"]][3:] == [
        "ctrestore.transforms.low_dose.AppendDosed"
    ]


def test_the_range_that_the_network_sees_is_undone_behind_it():
    scale, back = (
        next(step for step in config("inference")[chain]["transforms"] if step["_target_"] == "ScaleIntensityRanged")
        for chain in ("preprocessing", "postprocessing")
    )
    assert [back[end] for end in ("b_min", "b_max", "a_min", "a_max")] == [
        scale[end] for end in ("a_min", "a_max", "b_min", "b_max")
    ]


def test_all_properties_of_monai_are_there_and_an_untrained_network_changes_nothing(bundle, series, tmp_path):
    run = workflow(bundle, dataset_dir=str(series), output_dir=str(tmp_path / "out"), device="cpu")
    run.initialize()
    assert not run.check_properties()
    run.run()
    run.finalize()
    np.testing.assert_array_equal(load_series(tmp_path / "out").volume, load_series(series).volume)


def test_a_program_may_run_the_evaluator_itself(bundle, tmp_path, volume):
    for name in ("a", "b"):
        write_phantom_series(volume, AFFINE, tmp_path / "in" / name, name=name)
    run = workflow(bundle, dataset_dir=str(tmp_path / "in"), output_dir=str(tmp_path / "out"), device="cpu")
    run.initialize()
    run.evaluator.run()  # both series in one run, and batches that hold slices of both
    for name in ("a", "b"):
        np.testing.assert_array_equal(load_series(tmp_path / "out" / name).volume, volume)


@pytest.mark.parametrize("place", ["the bundle", "elsewhere"])
def test_the_command_finds_its_bundle_from_every_folder(bundle, series, tmp_path, place):
    cwd = bundle if place == "the bundle" else tmp_path
    file = "configs/inference.json" if place == "the bundle" else str(bundle / "configs" / "inference.json")
    result = command(file, cwd=cwd, dataset_dir=series, output_dir=tmp_path / "out", device="cpu")
    assert result.returncode == 0, result.stderr[-2000:]
    assert len(list((tmp_path / "out").glob("*.dcm"))) == 6
    assert "noise in soft tissue" in result.stdout


def test_a_bad_scan_ends_the_command_with_one_clean_message_and_status_1(bundle, series, tmp_path):
    bad = series / "00002.dcm"
    bad.write_bytes(bad.read_bytes()[:-50])
    file = str(bundle / "configs" / "inference.json")
    result = command(file, cwd=tmp_path, dataset_dir=series, output_dir=tmp_path / "out", device="cpu")
    assert result.returncode == 1
    assert "00002.dcm: truncated or damaged" in result.stderr.splitlines()[-1]
    assert not (tmp_path / "out").exists()


def test_monai_loads_the_network_from_any_folder(bundle, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    network = load("ldct_denoising", bundle_dir=str(bundle.parent), workflow_type="inference")
    assert network.state_dict().keys() == UnshuffledUNet(in_channels=2).state_dict().keys()


def test_missing_weights_and_devices_are_named(bundle, series, tmp_path):
    options = {"dataset_dir": str(series), "output_dir": str(tmp_path / "out")}
    with refused(match="device 'cuda:99' is not available"):
        workflow(bundle, **options, device="cuda:99").run()
    (bundle / "models" / "model.pt").unlink()
    run = workflow(bundle, **options, device="cpu")
    run.initialize()
    with refused(match="there are no weights at"):
        run.run()
    assert not (tmp_path / "out").exists()


def test_the_default_data_are_phantoms_at_a_quarter_of_their_dose(monkeypatch, tmp_path):
    def small(folder, kind, **size):
        return write(folder, kind, **{**size, "n_slices": 2, "matrix": 64}, n_processes=1)

    write = ct_phantoms.write_ct_cohort
    monkeypatch.setattr(ct_phantoms, "write_ct_cohort", small)
    folder = embedded.quarter_dose_phantoms(tmp_path / "data")
    low = sorted(folder.glob("*.nii.gz"))
    assert len(low) == 4
    before = [path.stat().st_mtime_ns for path in low]
    assert [
        path.stat().st_mtime_ns for path in sorted(embedded.quarter_dose_phantoms(folder).glob("*.nii.gz"))
    ] == before
    for path in low:
        (full,) = (folder / "full_dose").rglob(path.name)
        added = nib.load(path).get_fdata() - nib.load(full).get_fdata()
        assert 5 < added.std() < 200
        assert abs(added.mean()) < 0.2 * added.std()


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL on this system")
def test_a_killed_run_leaves_no_series_and_the_next_one_cleans_up(bundle, tmp_path):
    """A process that is killed half way; pixels are read while it runs, so the folder is there before it ends."""
    volume = np.full((48, 48, 200), 40.0)
    volume[:4] = -1000
    write_phantom_series(volume, AFFINE, tmp_path / "long")
    script = (
        "import sys; from ctrestore.commands import main as cli; "
        f"cli.main(['denoise', {str(tmp_path / 'long')!r}, {str(tmp_path / 'out')!r}, '--bundle', {str(bundle)!r},"
        " '--batch-slices', '1'])"
    )
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 300
    while not list(tmp_path.glob(".*.out/*.dcm")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.kill()
    process.wait()
    assert not (tmp_path / "out").exists()
    assert list(tmp_path.glob(".*.out"))  # what the killed process could not take away
    assert cli.main(["denoise", str(tmp_path / "long"), str(tmp_path / "out"), "--bundle", str(bundle)]) == 0
    assert len(list((tmp_path / "out").iterdir())) == 200
    assert not list(tmp_path.glob(".*.out"))
