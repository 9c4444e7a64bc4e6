"""The laws of the house: who may import whom, what a file may contain, what must agree with what."""

from __future__ import annotations

import ast
import importlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

import ctrestore
from ctrestore.commands import main as cli

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "ctrestore"

PURE = {"psf", "pvc", "ct", "networks", "losses", "metrics"}
EDGES = {"phantoms", "dicom", "data_lists", "report"}  # these touch files
FILES = {"files", "nifti", "itk_files"}  # and these are what they touch them with
MAY_IMPORT = {
    "psf": set(),
    "pvc": {"psf"},
    "ct": {"psf"},
    "networks": {"psf"},
    "losses": {"psf", "metrics"},
    "metrics": {"psf"},
    "transforms": {"psf", "pvc", "ct"},
    "ct_photons": {"ct", "metrics", "psf"},
    "ct_transforms": {"ct", "ct_photons"},
    "resolution_transforms": {"ct", "ct_transforms"},
    "recorruption": {"metrics"},
    "precision": set(),
    "engines": {"psf", "networks", "losses", "metrics", "precision"},
    "imagenet": {"psf", "networks"},
    "inferers": {"precision"},
    "handlers": {"files"},
    "files": set(),
    "nifti": {"psf", "files"},
    "itk_files": set(),
    **{edge: PURE | FILES | EDGES | {"transforms", "ct_photons", "ct_transforms", "engines"} for edge in EDGES},
    "bundle": PURE
    | FILES
    | EDGES
    | {"transforms", "ct_transforms", "engines", "imagenet", "inferers", "handlers", "precision"},
    "pvc_command": {"psf", "pvc", "files", "nifti", "data_lists"},
    "simulate_dose": PURE | FILES | {"data_lists", "dicom"},
    "ct_slices": {"ct", "dicom"},
    "ct_bundle": {
        "bundle",
        "ct",
        "ct_photons",
        "ct_slices",
        "ct_transforms",
        "data_lists",
        "files",
        "handlers",
        "inferers",
        "phantoms",
        "report",
    },
    "ct_classification": PURE | FILES | EDGES | {"bundle", "ct_inference", "ct_slices", "handlers"},
    "ct_inference": PURE | FILES | EDGES | {"bundle", "ct_bundle", "ct_slices", "handlers"},
    "ct_unpaired": {"bundle", "ct", "ct_bundle", "ct_slices", "metrics"},
    "denoise": {"bundle"},
    "upscale": {"denoise"},
    "training_labels": PURE | FILES | EDGES | {"bundle", "pvc_command"},
    "cli": PURE
    | FILES
    | EDGES
    | {
        "transforms",
        "ct_transforms",
        "engines",
        "handlers",
        "bundle",
        "pvc_command",
        "simulate_dose",
        "denoise",
        "upscale",
    },
}
WITHOUT_MONAI = {"psf", "pvc", "ct"}
OPENS_FILES = {"io", "nibabel", "os", "pathlib", "pydicom", "shutil", "subprocess", "tempfile"}
HEAVY = {"numpy", "scipy", "pydicom", "nibabel", "torch", "monai"}
ONLY_FOR_EVALUATION = {"matplotlib", "nilearn", "pandas", "skimage", "sklearn", "tensorboard"}
COMMANDS = [add.__name__.removeprefix("add_").replace("_", "-") for add in cli.COMMANDS]

MACHINE_PATH = re.compile(r"(?<![\w/.~$}-])/(?:home|root|tmp|work|mnt|Users)/[\w.]")


def sources() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def modules(top: set[str]) -> list[Path]:
    return [path for path in sources() if top_level(path) in top]


def top_level(path: Path) -> str:
    """``ctrestore/pvc/gtm.py`` belongs to ``pvc``; ``ctrestore/__init__.py`` to nothing."""
    first = path.relative_to(PACKAGE).parts[0]
    return "" if first == "__init__.py" else first.removesuffix(".py")


def imports(path: Path) -> set[str]:
    """Full names of everything a file imports, relative imports resolved, whether at its top or in a function."""
    package = ["ctrestore", *path.relative_to(PACKAGE).parent.parts]
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            source = ".".join(filter(None, [base, node.module]))
            names |= {f"{source}.{alias.name}" for alias in node.names}
    return names


def imported_from_package(path: Path) -> set[str]:
    found = {name.split(".")[1] for name in imports(path) if name.startswith("ctrestore.")}
    return {name for name in found if not name.startswith("__")}  # __version__ belongs to nobody


def imported_from_elsewhere(path: Path) -> set[str]:
    return {name.split(".")[0] for name in imports(path)} - {"ctrestore"}


def tracked_files() -> list[Path]:
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        pytest.skip("not a git checkout")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip(f"git ls-files: {listed.stderr.strip()}")
    return [path for name in listed.stdout.split("\0") if name and (path := ROOT / name).is_file()]


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", modules(set(MAY_IMPORT)), ids=name_of)
def test_no_arrow_points_back(path):
    module = top_level(path)
    forbidden = imported_from_package(path) - MAY_IMPORT[module] - {module}
    assert not forbidden, f"{module} may import only {sorted(MAY_IMPORT[module])} of ctrestore"


def test_every_module_has_its_place_in_the_house():
    homeless = {top_level(path) for path in sources()} - set(MAY_IMPORT) - {""}
    assert not homeless, "new at the top of ctrestore: say in MAY_IMPORT and in CONTRIBUTING.md what it may import"


@pytest.mark.parametrize("path", modules(WITHOUT_MONAI), ids=name_of)
def test_the_physics_works_without_monai(path):
    assert "monai" not in imported_from_elsewhere(path)


@pytest.mark.parametrize("path", modules(PURE), ids=name_of)
def test_pure_modules_open_no_files(path):
    calls = [node.func for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]
    assert not any(isinstance(call, ast.Name) and call.id == "open" for call in calls)
    assert not imported_from_elsewhere(path) & OPENS_FILES


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("__init__.py")), ids=name_of)
def test_an_init_file_only_exports_names(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in tree.body[1:] if ast.get_docstring(tree) else tree.body:
        if isinstance(node, ast.Assign):
            assert [ast.unparse(target) for target in node.targets] in (["__all__"], ["__version__"])
        elif isinstance(node, ast.FunctionDef):
            assert node.name in ("__getattr__", "__dir__")  # names that are imported when they are asked for (PEP 562)
        elif isinstance(node, ast.If):  # and that type checkers see at once
            assert ast.unparse(node.test) == "TYPE_CHECKING"
            assert all(isinstance(inner, ast.Import | ast.ImportFrom) for inner in node.body) and not node.orelse
        else:
            assert isinstance(node, ast.Import | ast.ImportFrom), ast.unparse(node)


def printed_by(code: str, *arguments: str) -> list[str]:
    """The last line that a Python of its own prints, as JSON."""
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("command", ["", *COMMANDS, "petpvc"])
def test_help_answers_before_anything_heavy_is_loaded(command):
    code = """
import json, sys
from ctrestore import cli
try:
    cli.petpvc(["--help"]) if sys.argv[1:] == ["petpvc"] else cli.main([*sys.argv[1:], "--help"])
except SystemExit as done:
    assert done.code == 0
print(json.dumps(sorted({name.split(".")[0] for name in sys.modules})))
"""
    assert not HEAVY & set(printed_by(code, *filter(None, [command])))


def test_inference_on_ct_imports_nothing_that_only_evaluation_needs(tmp_path):
    """MONAI imports most of it by itself, so what counts is who asks: no module of ours, nor of ours the reports.

    ``ctrestore.tasks.pet_pvc.scans`` is everybody's and imported before the watch begins.
    """
    code = """
import builtins, json, sys
from pathlib import Path
from ctrestore.bundle import run_bundle
scan, output, *unused = sys.argv[1:]
found, original = set(), builtins.__import__
def watched(name, globals=None, locals=None, fromlist=(), level=0):
    importer = (globals or {}).get("__name__") or ""
    if importer.startswith("ctrestore") and (name.split(".")[0] in unused or name.startswith("ctrestore.report")):
        found.add(f"{importer} imports {name}")
    return original(name, globals, locals, fromlist, level)
builtins.__import__ = watched
for bundle in ("ldct_denoising", "ct_super_resolution", "lung_ct_classification"):
    folder = str(Path(output, bundle))
    run_bundle(Path("bundles", bundle), ["inference"], dataset_dir=scan, output_dir=folder, amp=False)
print(json.dumps(sorted(found)))
"""
    slices = np.random.default_rng(0).normal(40, 20, (64, 64, 2)).astype(np.int16)
    slices[:8] = -1000
    nib.save(nib.Nifti1Image(slices, np.diag([5.0, 5.0, 3.0, 1.0])), tmp_path / "scan.nii.gz")
    assert printed_by(code, str(tmp_path / "scan.nii.gz"), str(tmp_path), *sorted(ONLY_FOR_EVALUATION)) == []


def test_an_arrow_is_seen_however_the_import_is_spelt(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "PACKAGE", tmp_path)
    spellings = [
        "import ctrestore.commands.main",
        "from ctrestore import cli",
        "from ctrestore.commands.main import main",
        "from .. import cli",
        "from ..cli import main",
        "def late():\n    from ..cli import main",
    ]
    (tmp_path / "pvc").mkdir()
    for spelling in spellings:
        (tmp_path / "pvc" / "gtm.py").write_text(spelling)
        assert imported_from_package(tmp_path / "pvc" / "gtm.py") == {"cli"}, spelling


def test_no_tracked_file_names_a_folder_of_somebodys_machine():
    found = []
    for path in tracked_files():
        data = path.read_bytes()
        if b"\0" in data:  # not text
            continue
        for number, line in enumerate(data.decode("utf-8").splitlines(), start=1):
            if MACHINE_PATH.search(line):
                found.append(f"{name_of(path)}:{number}: {line.strip()}")
    assert not found, "use a path relative to the repository, an argument or an environment variable"


@pytest.mark.parametrize("folder", ["bundles", "data_lists"])
def test_json_files_are_written_the_one_way(folder):
    for path in tracked_files():
        if path.suffix != ".json" or not path.is_relative_to(ROOT / folder):
            continue
        text = path.read_text(encoding="utf-8")
        pretty = json.dumps(json.loads(text), indent=4, ensure_ascii=False) + "\n"
        name = name_of(path)
        assert text == pretty, f"remedy: python -m json.tool --indent 4 --no-ensure-ascii {name} {name}"


def test_the_citation_names_this_version():
    stated = re.search(r"^version: (\S+)$", (ROOT / "CITATION.cff").read_text(encoding="utf-8"), re.MULTILINE)
    assert stated is not None
    assert stated[1] == ctrestore.__version__


def test_every_extra_that_make_installs_exists():
    toml = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")  # pytest brings tomli
    extras = toml.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    installed = set(re.findall(r"\.with-(\w+)", (ROOT / "Makefile").read_text(encoding="utf-8"))) - {"EXTRA"}
    assert {"test", "dev"} <= installed <= set(extras)


def test_continuous_integration_runs_make_test():
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & 0o100, "remedy: chmod +x .ci/run"
    assert "make test" in script.read_text(encoding="utf-8")
