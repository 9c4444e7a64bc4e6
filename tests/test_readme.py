"""Every command printed in the README, in a model card or about released weights runs, shrunk by overrides."""

from __future__ import annotations

import ast
import json
import re
import shlex
import shutil
from pathlib import Path

import monai.bundle
import nibabel as nib
import numpy as np
import pytest
from monai.bundle import ConfigParser
from PIL import Image

from ctrestore.commands import main as cli
from ctrestore.data_lists import TASKS
from ctrestore.io.dicom import write_phantom_series
from ctrestore.psf import blur
from tests.bundles.test_ct_super_resolution import SMALL, tiny
from tests.bundles.test_lung_ct_classification import tiny as tiny_lung
from tests.conftest import ROOT, cases, small, small_ct
from tests.tasks.pet_pvc.labels.conftest import write_subject

PSF = {"fwhm_mm": 6.0, "spacing_mm": 2.0}
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
BUNDLE_RUNS = cases((c for c in COMMANDS if "monai.bundle run" in c), at_least=20)
DATA_LISTS = cases(c for c in COMMANDS if c.startswith("ctrestore data-list"))
SLOW_CONSOLE = {
    "ctrestore phantoms": "ctrestore.commands.phantoms.run_phantoms",
    "ctrestore release-weights": "ctrestore.commands.release_weights.run_release_weights",
}


def bundle_arguments(command: str) -> tuple[list[str], dict[str, str]]:
    """Config files and overrides of a ``monai.bundle run`` command."""
    words = shlex.split(command.split("monai.bundle run", 1)[1])
    options = {key.removeprefix("--"): value for key, value in zip(words[::2], words[1::2])}
    files = options.pop("config_file")
    return (ast.literal_eval(files) if files.startswith("[") else [files]), options


def folder_of(files: list[str]) -> Path:
    """Where a command is run: the repository, or the bundle's folder."""
    if (ROOT / files[0]).is_file():
        return ROOT
    holding = [page.parent.parent for page in PAGES if page.parent.name == "docs" and is_printed(files[0], page)]
    return holding[0] if holding else ROOT / "bundles" / "pet_pvc"


def is_printed(config: str, page: Path) -> bool:
    """Whether a model card has a command with this path, as seen from its bundle's folder."""
    return f"--config_file {config} " in page.read_text()


@pytest.mark.parametrize("command", BUNDLE_RUNS)
def test_configs_and_overrides_of_a_printed_command_exist(command):
    files, options = bundle_arguments(command)
    parser = ConfigParser()
    parser.read_config([str(folder_of(files) / file) for file in files])
    for key in options:
        assert key in parser, f"nothing reads --{key}"


def runs_of(bundle: str) -> list[str]:
    """The printed runs of a bundle, but for those by torchrun; a test of the bundle does them on tiny data."""
    configs = {c: bundle_arguments(c)[0] for c in BUNDLE_RUNS if not c.startswith("torchrun")}
    return [c for c, files in configs.items() if (folder_of(files) / files[0]).parent.parent.name == bundle]


@pytest.mark.parametrize("bundle", TASKS)
def test_every_printed_run_of_a_bundle_is_tested(bundle):
    files = [Path(__file__), *sorted((ROOT / "tests" / "bundles").glob("test_*.py"))]
    tested = any(f'runs_of("{bundle}")' in file.read_text(encoding="utf-8") for file in files)
    assert tested or not runs_of(bundle), f"remedy: in tests/bundles/test_{bundle}.py do what runs_of({bundle!r}) gives"


#: Overlays that go on from a training of the overlays before them: the file.
SECOND_STAGES = {
    "release_means.json": "model.pt",
    "gan_circle_means.json": "last.pt",
}
OTHER_IMAGES = ("pictures", "covid", "densenet121_3d")  # their runs are in tests/bundles/test_lung_ct_classification.py


@pytest.mark.parametrize("command", cases(runs_of("ldct_denoising")))
def test_a_printed_ct_bundle_command_runs(command, tiny_bodies, tmp_path, monkeypatch):
    files, options = bundle_arguments(command)
    monkeypatch.chdir(folder_of(files))
    overrides = small_ct(tiny_bodies, tmp_path, max_epochs=1, panels=0, disc_slices=0, classical_rows=False)
    if any("inference" in file for file in files):
        overrides = {"dataset_dir": str(tiny_bodies / "body-5.nii.gz"), "output_dir": str(tmp_path / "out")}
    else:
        used = ConfigParser()
        used.read_config([str(folder_of(files) / file) for file in files])
        overrides = {key: value for key, value in overrides.items() if key in used}
    if any("self_supervised" in file for file in files):
        overrides["network_def"] |= {"in_channels": 1}
    if any("redcnn" in file for file in files):
        overrides["network_def"] = {"_target_": "ctrestore.networks.REDCNN", "features": 8}
    if any("gan_circle" in file for file in files):
        generator = {"_target_": "ctrestore.networks.GANCircleGenerator", "features": [6, 6], "dropout": 0.0}
        overrides |= {"network_def": generator, "backward_network_def": generator}
        options = {
            k: v for k, v in options.items() if k not in ("low_dose_list", "low_dose_dir")
        }  # test_ct_unpaired.py
    if any("evaluate" in file for file in files):  # of the released weights
        del overrides["network_def"]
    given = {key: None if value == "None" else value for key, value in options.items()}  # as python-fire reads it
    overrides |= {key: value for key, value in given.items() if key not in overrides}
    for second_stage, kept in SECOND_STAGES.items():
        if second_stage in files[-1]:
            first = tmp_path / "first"
            monai.bundle.run(config_file=files[:-1], **overrides | {"ckpt_dir": str(first)})
            overrides["start_from"] = str(first / kept)
    monai.bundle.run(config_file=files, **overrides)
    assert any((tmp_path / ("out" if re.search("evaluate|inference", command) else "runs")).iterdir())


@pytest.mark.parametrize("command", cases(c for c in COMMANDS if c.startswith("ctrestore denoise")))
def test_a_printed_denoising_runs(command, tmp_path, monkeypatch):
    words = shlex.split(command)
    if "--config" in words and not (ROOT / f"bundles/ldct_denoising/models/{words[-1]}.pt").is_file():
        pytest.skip("no released weights of this variant")
    monkeypatch.chdir(tmp_path)
    write_ct(tmp_path / "IN")
    assert cli.main([*words[1:], "--bundle", str(ROOT / "bundles" / "ldct_denoising"), "--device", "cpu"]) == 0
    assert len(list((tmp_path / "OUT").iterdir())) == 3


@pytest.mark.parametrize("command", cases(runs_of("ct_super_resolution")))
def test_a_printed_super_resolution_command_runs(command, tiny_bodies, tmp_path, monkeypatch):
    files, options = bundle_arguments(command)
    monkeypatch.chdir(folder_of(files))
    overlay = next((stem for stem in SMALL if any(file.endswith(f"/{stem}.json") for file in files)), "")
    overrides = tiny(tiny_bodies, tmp_path, overlay, max_epochs=1, patches_per_slice=14)
    if any("inference" in file for file in files):
        overrides = {"dataset_dir": str(tiny_bodies / "body-5.nii.gz"), "output_dir": str(tmp_path / "out")}
    if any("evaluate" in file for file in files):  # of the released weights
        overrides = {key: value for key, value in overrides.items() if not key.startswith("network_def")}
        overrides |= {"output_dir": str(tmp_path / "out"), "panels": 0, "disc_slices": 0}
    overrides |= {key: int(value) for key, value in options.items() if key == "scale"}
    monai.bundle.run(config_file=files, **overrides)
    assert any((tmp_path / ("out" if re.search("evaluate|inference", command) else "runs")).iterdir())


@pytest.mark.parametrize("command", cases(c for c in COMMANDS if c.startswith("ctrestore upscale IN")))
def test_a_printed_upscaling_runs(command, tmp_path, monkeypatch):
    words = shlex.split(command)
    monkeypatch.chdir(tmp_path)
    write_ct(tmp_path / "IN")
    assert cli.main([*words[1:], "--bundle", str(ROOT / "bundles" / "ct_super_resolution"), "--device", "cpu"]) == 0
    assert len(list((tmp_path / "OUT").iterdir())) == 3


@pytest.mark.parametrize(
    "command",
    cases(c for c in runs_of("lung_ct_classification") if not any(f"{name}.json" in c for name in OTHER_IMAGES)),
)
def test_a_printed_classification_command_runs(command, tiny_chests, tmp_path, monkeypatch):
    files, _ = bundle_arguments(command)
    monkeypatch.chdir(folder_of(files))
    overrides = tiny_lung(tiny_chests, tmp_path, output_dir=str(tmp_path / "out"))
    if any("inference" in file for file in files):
        overrides = {"dataset_dir": str(tiny_chests / "test-1.nii.gz"), "output_dir": str(tmp_path / "out")}
    elif any("evaluate" in file for file in files):  # of the released weights
        overrides = {key: value for key, value in overrides.items() if key not in ("network_def", "image_size")}
    elif any("resnet18" in file for file in files):
        del overrides["network_def"]
    elif any("release" in file for file in files):
        overrides["start_from"] = None  # whatever coarse.json left here
    monai.bundle.run(config_file=files, **overrides)
    assert any((tmp_path / ("out" if re.search("evaluate|inference", command) else "runs")).iterdir())


@pytest.mark.parametrize("command", cases(runs_of("pet_pvc")))
def test_a_printed_bundle_command_runs(command, tiny_heads, tmp_path, monkeypatch):
    files, options = bundle_arguments(command)
    monkeypatch.chdir(folder_of(files))
    overrides = small(tiny_heads, tmp_path, max_epochs=1, val_interval=1)
    if any("make_labels" in file for file in files):
        for i in range(3):
            write_subject(tmp_path / "bids", f"sub-0{i}", shift=0.3 * i)
        overrides = {"dataset_dir": str(tmp_path / "bids"), "output_dir": str(tmp_path / "out")}
    if options.get("data_list", "").startswith("LABELS"):
        options = {}  # a list made by another command; that it trains is tested under tests/bundles
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


@pytest.mark.parametrize("command", cases(c for c in DATA_LISTS if not TASKS[c.split()[2]].ct))
def test_a_printed_data_list_command_runs(command, tmp_path, monkeypatch):
    """On as many subjects as the command splits, in the BIDS layout or in the one its patterns name."""
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


def write_mri(folder: Path) -> None:
    """The files that printed commands name: a PET with sidecar, tissue maps, parcels and labels, small."""
    labels = np.zeros((24, 24, 24), dtype=np.int16)
    labels[4:20, 4:20, 4:20], labels[8:16, 8:16, 8:16] = 8, 2
    labels[:12][labels[:12] == 8] = 47
    around = np.zeros(labels.shape, dtype=np.float32)
    around[2:22, 2:22, 2:22] = labels[2:22, 2:22, 2:22] == 0
    grey, white = blur((labels > 2).astype(np.float32), **PSF), blur((labels == 2).astype(np.float32), **PSF)
    pet = blur(np.where(labels > 2, 9e3, np.where(labels == 2, 4e3, 0)).astype(np.float32), **PSF)
    volumes = {
        "pet": pet, "sub-01_pet": pet, "gm": grey, "wm": white, "csf": blur(around, **PSF),
        "parcels": (labels > 2) * labels, "labels": labels, "aparc+aseg": labels,
        "masks": np.stack([grey, white], axis=-1),
    }  # fmt: skip
    for name, volume in volumes.items():
        nib.save(nib.Nifti1Image(volume, np.diag([2.0, 2.0, 2.0, 1.0])), folder / f"{name}.nii.gz")
    (folder / "sub-01_pet.json").write_text(json.dumps({"FWHM_x": 6.0, "FWHM_y": 6.0, "FWHM_z": 6.0}))
    table = "0 Unknown 0 0 0 0\n2 White 1 1 1 0\n8 Left-Cerebellum-Cortex 1 1 1 0\n47 Right-Cerebellum-Cortex 1 1 1 0\n"
    (folder / "FreeSurferColorLUT.txt").write_text(table)


@pytest.mark.parametrize("command", cases(c for c in COMMANDS if c.startswith(("ctrestore pvc", "petpvc"))))
def test_a_printed_correction_with_an_mri_runs(command, tmp_path, monkeypatch):
    write_mri(tmp_path)
    monkeypatch.chdir(tmp_path)
    words = shlex.split(command)
    assert cli.main(words[1:]) == 0
    assert Path(words[words.index("-o") + 1]).exists()


def write_ct(folder: Path, name: str = "phantom") -> None:
    """A DICOM series of three small slices."""
    hu = np.full((32, 32, 3), -1000, dtype=np.float32)
    hu[8:24, 8:24] = 40
    write_phantom_series(hu, np.diag([-8.0, 8.0, 5.0, 1.0]), folder, name=name)


def test_the_printed_simulation_of_a_lower_dose_runs(tmp_path, monkeypatch):
    (command,) = [c for c in COMMANDS if c.startswith("ctrestore simulate-dose")]
    monkeypatch.chdir(tmp_path)
    write_ct(tmp_path / "IN")
    assert cli.main(shlex.split(command)[1:]) == 0
    assert len(list((tmp_path / "OUT").iterdir())) == 3


@pytest.mark.parametrize("command", cases(c for c in DATA_LISTS if TASKS[c.split()[2]].ct))
def test_a_printed_data_list_of_ct_runs(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for i in range(10):
        if TASKS[command.split()[2]].ct == "classes":
            path = tmp_path / "DIR" / ("normal" if i % 2 else "adenocarcinoma") / f"{'abcdefghij'[i]}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 255, (20, 20), dtype=np.uint8)).save(path)
        else:
            write_ct(tmp_path / "DIR" / f"patient-{i}" / "ct", name=f"patient-{i}")
    words = shlex.split(command)
    assert cli.main(words[1:]) == 0
    listed = json.loads(Path(words[words.index("-o") + 1]).read_text())
    assert [len(listed[section]) for section in ("training", "validation", "test")] == [8, 1, 1]


@pytest.mark.parametrize("command", cases(c for c in COMMANDS if c.startswith(tuple(SLOW_CONSOLE))))
def test_a_printed_command_of_minutes_is_understood(command, monkeypatch):
    """What these do is tested under tests/commands/test_main.py."""
    words = shlex.split(command, comments=True)
    understood = []
    monkeypatch.setattr(SLOW_CONSOLE[" ".join(words[:2])], understood.append)
    assert cli.main(words[1:]) == 0
    assert len(understood) == 1


def test_the_python_of_the_readme_runs(tmp_path, monkeypatch):
    (tmp_path / "bundles").symlink_to(ROOT / "bundles")
    write_mri(tmp_path)
    write_ct(tmp_path / "series")
    monkeypatch.chdir(tmp_path)
    for code in blocks("python", [README]):
        exec(compile(code, "README.md", "exec"), {})


def test_the_make_targets_of_the_readme_exist():
    makefile = (ROOT / "Makefile").read_text()
    for target in {c.split()[1] for c in COMMANDS if c.startswith("make ")}:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
