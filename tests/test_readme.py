"""Every command printed in the README, in a model card or about released weights runs, shrunk by overrides."""

from __future__ import annotations

import ast
import re
import shlex
import shutil
from pathlib import Path

import monai.bundle
import pytest
from monai.bundle import ConfigParser

from ctrestore import cli
from tests.conftest import ROOT, small
from tests.training_labels.conftest import write_subject

README = ROOT / "README.md"
PAGES = [
    README,
    ROOT / "data_lists" / "README.md",
    ROOT / "benchmarks" / "release_weights.md",
    *sorted(ROOT.glob("bundles/*/docs/README.md")),
]


def blocks(language: str, pages: list[Path] = PAGES) -> list[str]:
    return [text for page in pages for text in re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.DOTALL)]


COMMANDS = sorted({line for block in blocks("sh") for line in block.splitlines() if line and not line.startswith("#")})
BUNDLE_RUNS = [c for c in COMMANDS if "monai.bundle run" in c]
CONSOLE = [c for c in COMMANDS if c.startswith("ctrestore data-list")]
SLOW_CONSOLE = {"ctrestore phantoms": "run_phantoms", "ctrestore release-weights": "run_release_weights"}


def bundle_arguments(command: str) -> tuple[list[str], dict[str, str]]:
    """Config files and overrides of a ``monai.bundle run`` command."""
    words = shlex.split(command.split("monai.bundle run", 1)[1])
    options = {key.removeprefix("--"): value for key, value in zip(words[::2], words[1::2])}
    files = options.pop("config_file")
    return (ast.literal_eval(files) if files.startswith("[") else [files]), options


def folder_of(files: list[str]) -> Path:
    """Where a command is run: the repository, or the bundle's folder."""
    return ROOT if (ROOT / files[0]).is_file() else ROOT / "bundles" / "pet_pvc"


def test_there_are_commands_to_test():
    assert len(BUNDLE_RUNS) >= 6
    assert CONSOLE


@pytest.mark.parametrize("command", BUNDLE_RUNS)
def test_configs_and_overrides_of_a_printed_command_exist(command):
    files, options = bundle_arguments(command)
    parser = ConfigParser()
    parser.read_config([str(folder_of(files) / file) for file in files])
    for key in options:
        assert key in parser, f"nothing reads --{key}"


@pytest.mark.parametrize("command", [c for c in BUNDLE_RUNS if not c.startswith("torchrun")])  # that: tests/bundles
def test_a_printed_bundle_command_runs(command, tiny_heads, tmp_path, monkeypatch):
    files, options = bundle_arguments(command)
    monkeypatch.chdir(folder_of(files))
    overrides = small(tiny_heads, tmp_path, max_epochs=1, val_interval=1)
    if any("make_labels" in file for file in files):
        for i in range(3):
            write_subject(tmp_path / "bids", f"sub-0{i}", shift=0.3 * i)
        overrides = {"dataset_dir": str(tmp_path / "bids"), "output_dir": str(tmp_path / "out")}
    if any("inference" in file for file in files):
        scans = tmp_path / "scans"
        scans.mkdir()
        shutil.copy(tiny_heads / "sub-6" / "sub-6_pet.nii.gz", scans)
        training = ("data_list", "ckpt_dir", "patch_size", "patches_per_subject", "max_epochs", "val_interval")
        overrides = {k: v for k, v in overrides.items() if k not in training} | {"dataset_dir": str(scans)}
    # Places and sizes are the test's; what the command says beyond them is kept.
    overrides |= {key: value for key, value in options.items() if key not in overrides}
    monai.bundle.run(config_file=files, **overrides)
    written = "out" if re.search("evaluate|inference|make_labels", command) else "runs"
    assert any((tmp_path / written).iterdir())


@pytest.mark.parametrize("command", CONSOLE)
def test_a_printed_data_list_command_runs(command, tmp_path, monkeypatch):
    """On as many subjects as the command splits, in the BIDS layout or in the one its patterns name."""
    import nibabel as nib
    import numpy as np

    words = shlex.split(command)[1:]
    split = [float(word) for word in words[words.index("--split") + 1 :][:3]] if "--split" in words else [8, 1, 1]
    n_subjects = int(sum(split)) if sum(split) > 1 else 10
    patterns = {key: words[words.index(key) + 1] for key in ("--image", "--label") if key in words}
    root = tmp_path / "DIR"
    places = {
        "--image": patterns.get("--image", "{subject}/pet/{subject}_pet.nii.gz"),
        "--label": patterns.get("--label", "derivatives/x/{subject}/pet/{subject}_desc-pvc_pet.nii.gz"),
    }
    rng = np.random.default_rng(0)
    for i in range(n_subjects):
        for pattern in places.values():
            name = pattern.format(subject=f"sub-{i:03d}").replace(".nii*", ".nii.gz").replace("**", "x")
            path = root / name.replace("*", f"sub-{i:03d}")
            path.parent.mkdir(parents=True, exist_ok=True)
            nib.save(nib.Nifti1Image(rng.random((2, 2, 2), dtype=np.float32), np.eye(4)), path)
    monkeypatch.chdir(tmp_path)
    words[words.index("--root") + 1] = str(root)
    assert cli.main(words) == 0


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith(tuple(SLOW_CONSOLE))])
def test_a_printed_command_of_minutes_is_understood(command, monkeypatch):
    """What these do is tested under tests/test_cli.py."""
    words = shlex.split(command, comments=True)
    understood = []
    monkeypatch.setattr(cli, SLOW_CONSOLE[" ".join(words[:2])], understood.append)
    assert cli.main(words[1:]) == 0
    assert len(understood) == 1


def test_the_python_of_the_readme_runs(tiny_heads, tmp_path, monkeypatch):
    (tmp_path / "bundles").symlink_to(ROOT / "bundles")
    shutil.copy(tiny_heads / "sub-6" / "sub-6_pet.nii.gz", tmp_path / "pet.nii.gz")
    monkeypatch.chdir(tmp_path)
    for code in blocks("python", [README]):
        exec(compile(code, "README.md", "exec"), {})


def test_the_make_targets_of_the_readme_exist():
    makefile = (ROOT / "Makefile").read_text()
    for target in {c.split()[1] for c in COMMANDS if c.startswith("make ")}:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
