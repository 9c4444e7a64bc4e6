"""The laws of the house: who may import whom, what a file may contain, what must agree with what."""

from __future__ import annotations

import ast
import contextlib
import importlib
import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

import ctrestore
from ctrestore.commands import main as cli
from ctrestore.data_lists import TASKS
from tests.conftest import cases
from tests.json_format import formatted

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "ctrestore"

# The floors of the house: a file imports its own room and the floors below it. On the floor of the tasks a room is a
# folder of tasks/; a task also imports what the tasks share, and that imports no task.
FLOORS = [
    {"psf", "networks", "errors", "pvc_methods"},
    {"pvc", "ct"},
    {"metrics"},
    {"io"},
    {"data_lists", "phantoms"},
    {"transforms", "losses"},
    {"training"},
    {"tasks"},
    {"commands"},
]
SHARED_BY_TASKS = {"runtime", "ct_slices", "ct_restoration", "ct_report"}
PURE = {"psf", "pvc", "pvc_methods", "ct", "networks", "losses", "metrics", "errors"}
WITHOUT_MONAI = {"psf", "pvc", "pvc_methods", "ct"}
OPENS_FILES = {"io", "nibabel", "os", "pathlib", "pydicom", "shutil", "subprocess", "tempfile"}
HEAVY = {"numpy", "scipy", "pydicom", "nibabel", "torch", "monai"}
ONLY_FOR_EVALUATION = {"matplotlib", "nilearn", "pandas", "skimage", "sklearn", "tensorboard"}
COMMANDS = [add.__name__.removeprefix("add_").replace("_", "-") for add in cli.COMMANDS]

MACHINE_PATH = re.compile(r"(?<![\w/.~$}-])/(?:home|root|tmp|work|mnt|Users)/[\w.]")


def sources() -> list[Path]:
    found = sorted(PACKAGE.rglob("*.py"))
    return cases(path for path in found if path != PACKAGE / "__init__.py")  # that one is everybody's


def modules(rooms: set[str]) -> list[Path]:
    return cases(path for path in sources() if room_of(path.relative_to(PACKAGE).parts)[0] in rooms)


def room_of(names: Sequence[str]) -> tuple[str, ...]:
    """``("pvc",)`` for ``pvc/gtm.py`` and ``pvc.gtm``; ``("tasks", "pet_pvc")`` for what lies in that folder."""
    plain = [name.removesuffix(".py") for name in names]
    return tuple(plain[:2] if plain[0] == "tasks" and plain[1:] != ["__init__"] else plain[:1])


def floor_of(room: Sequence[str]) -> int:
    return next(number for number, rooms in enumerate(FLOORS) if room[0] in rooms)


def may_import(room: tuple[str, ...], other: tuple[str, ...]) -> bool:
    """Whether a file of one room may import something of another: the whole law."""
    if room[:1] == other[:1] == ("tasks",):
        return room == other or (len(other) > 1 and other[1] in SHARED_BY_TASKS)
    return room == other or floor_of(other) < floor_of(room)


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


def rooms_imported_by(path: Path) -> set[tuple[str, ...]]:
    found = [name.split(".")[1:] for name in imports(path) if name.startswith("ctrestore.")]
    return {room_of(names) for names in found if not names[0].startswith("__")}  # __version__ belongs to nobody


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


@pytest.mark.parametrize("path", sources(), ids=name_of)
def test_a_file_imports_its_own_room_and_lower_floors(path):
    room = room_of(path.relative_to(PACKAGE).parts)
    assert not {other for other in rooms_imported_by(path) if not may_import(room, other)}


def test_every_room_has_a_floor():
    rooms = {room_of(path.relative_to(PACKAGE).parts)[0] for path in sources()}
    assert rooms <= set().union(*FLOORS), "new at the top of ctrestore: say in FLOORS and in CONTRIBUTING.md where"


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("psf.py", "from ctrestore.pvc import gtm"),  # up
        ("pvc/gtm.py", "from ctrestore.ct import normalise"),  # to the room beside it
        ("io/nifti.py", "def late():\n    from ctrestore.tasks.runtime import reason"),  # up, when it runs
        ("tasks/pet_pvc/scans.py", "from ctrestore.tasks.ldct_denoising import evaluation"),  # to another task
        ("tasks/runtime.py", "from ctrestore.tasks.pet_pvc.scans import scans"),  # from what tasks share to a task
        ("tasks/ct_report/tables.py", "import ctrestore.tasks.ct_super_resolution.report"),
        ("tasks/pet_pvc/scans.py", "from ctrestore.commands import main"),
    ],
)
def test_a_violation_of_each_kind_is_caught(tmp_path, monkeypatch, file, line):
    monkeypatch.setattr(sys.modules[__name__], "PACKAGE", tmp_path)
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).write_text(line)
    with pytest.raises(AssertionError):
        test_a_file_imports_its_own_room_and_lower_floors(tmp_path / file)


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("metrics/photons.py", "from ctrestore.ct import fan_beam"),
        ("tasks/pet_pvc/scans.py", "from ctrestore.tasks.runtime import reason"),
        ("tasks/ct_super_resolution/report.py", "from ctrestore.tasks.ct_report.tables import By"),
        ("tasks/ct_restoration/outputs.py", "from ctrestore.tasks.ct_slices import slices"),
        ("commands/main.py", "from ctrestore.tasks.pet_pvc.scans import scans"),
    ],
)
def test_what_the_law_allows_passes(tmp_path, monkeypatch, file, line):
    monkeypatch.setattr(sys.modules[__name__], "PACKAGE", tmp_path)
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).write_text(line)
    test_a_file_imports_its_own_room_and_lower_floors(tmp_path / file)


def test_contributing_shows_the_floors():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    shown = re.search(r"```text\n(9 .*?)```", text, re.DOTALL)
    assert shown is not None
    lines = [re.sub(r"\(.*?\)", "", line) for line in shown[1].splitlines() if re.match(r"\d", line)]
    names = [{name.strip("/").removesuffix(".py") for name in re.findall(r"[\w/.]+", line[1:])} for line in lines]
    assert names[::-1] == FLOORS


def test_a_bundle_is_a_folder_a_row_of_the_tasks_and_a_row_of_the_readme():
    folders = {path.parent.parent.name for path in ROOT.glob("bundles/*/configs/metadata.json")}
    assert set(TASKS) == folders, "the table of tasks is ctrestore/data_lists/tasks.py"
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    linked = re.findall(r"^\| \[`(\w+)`\]\(bundles/(\w+)/docs/README\.md\)", readme, re.MULTILINE)
    assert {name for pair in linked for name in pair} == folders, "the table of bundles is at the top of README.md"


def test_a_folder_of_tasks_belongs_to_a_bundle_or_to_all():
    rooms = {room_of(path.relative_to(PACKAGE).parts) for path in sources()}
    assert {room[1] for room in rooms if len(room) > 1} <= set(TASKS) | SHARED_BY_TASKS


SAME_NAME = {
    "report": "of each task",
    "evaluation": "of each task",
    "low_dose": "the physics, and its transforms",
    "resolution": "the physics, and its transforms",
    "pet": "its metrics, and its transforms",
}


def test_a_file_name_is_used_once():
    names = Counter(path.stem for path in sources() if path.name != "__init__.py")
    assert not {name for name, n in names.items() if n > 1} - set(SAME_NAME), "somebody looks for a file by its name"


@pytest.mark.parametrize("path", modules(WITHOUT_MONAI), ids=name_of)
def test_the_physics_works_without_monai(path):
    assert "monai" not in imported_from_elsewhere(path)


@pytest.mark.parametrize("path", modules(PURE), ids=name_of)
def test_pure_modules_open_no_files(path):
    calls = [node.func for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]
    assert not any(isinstance(call, ast.Name) and call.id == "open" for call in calls)
    assert not imported_from_elsewhere(path) & OPENS_FILES


@pytest.mark.parametrize("path", cases(sorted(PACKAGE.rglob("__init__.py"))), ids=name_of)
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
from ctrestore.commands import main as cli
try:
    cli.petpvc(["--help"]) if sys.argv[1:] == ["petpvc"] else cli.main([*sys.argv[1:], "--help"])
except SystemExit as done:
    assert done.code == 0
print(json.dumps(sorted({name.split(".")[0] for name in sys.modules})))
"""
    assert not HEAVY & set(printed_by(code, *filter(None, [command])))


def test_inference_on_ct_imports_nothing_that_only_evaluation_needs(tmp_path):
    """MONAI imports most of it by itself, so what counts is who asks: no module of ours, and none of ours a report."""
    code = """
import builtins, json, sys
from pathlib import Path
from ctrestore.data_lists import TASKS
from ctrestore.tasks.runtime import run_bundle
scan, output, *unused = sys.argv[1:]
found, original = set(), builtins.__import__
def watched(name, globals=None, locals=None, fromlist=(), level=0):
    importer = (globals or {}).get("__name__") or ""
    if importer.startswith("ctrestore") and (name.split(".")[0] in unused or "report" in name):
        found.add(f"{importer} imports {name}")
    return original(name, globals, locals, fromlist, level)
builtins.__import__ = watched
for bundle in (name for name, task in TASKS.items() if task.ct):
    folder = str(Path(output, bundle))
    run_bundle(Path("bundles", bundle), ["inference"], dataset_dir=scan, output_dir=folder, amp=False)
print(json.dumps(sorted(found)))
"""
    slices = np.random.default_rng(0).normal(40, 20, (64, 64, 2)).astype(np.int16)
    slices[:8] = -1000
    nib.save(nib.Nifti1Image(slices, np.diag([5.0, 5.0, 3.0, 1.0])), tmp_path / "scan.nii.gz")
    assert printed_by(code, str(tmp_path / "scan.nii.gz"), str(tmp_path), *sorted(ONLY_FOR_EVALUATION)) == []


LIGHT = {
    "": {"numpy", "torch", "monai"},
    ".psf": {"torch", "monai"},
    ".pvc": {"torch", "monai"},
    ".ct": {"monai"},
    ".data_lists": HEAVY,
    **{f".tasks.{task}": {"torch", "monai", *ONLY_FOR_EVALUATION} for task in TASKS},
}


@pytest.mark.parametrize("name", LIGHT)
def test_a_lower_floor_loads_no_higher_one(name):
    """And the root of a task nothing: its names are loaded when they are asked for."""
    code = "import importlib, json, sys; importlib.import_module(sys.argv[1]); print(json.dumps(sorted(sys.modules)))"
    loaded = {module.split(".")[0] for module in printed_by(code, f"ctrestore{name}")}
    assert not LIGHT[name] & loaded


@pytest.mark.parametrize("name", ["lung_ct_classification", "ct_restoration"])
def test_what_a_lazy_root_exports_is_there(name):
    root = importlib.import_module(f"ctrestore.tasks.{name}")
    assert all(getattr(root, exported).__name__ == exported for exported in root.__all__ if not exported.isupper())
    with pytest.raises(AttributeError, match="no attribute 'imagse'"):
        _ = root.imagse


@pytest.mark.parametrize("path", sources(), ids=name_of)
def test_only_commands_and_the_run_of_a_config_end_the_process(path):
    room = path.relative_to(PACKAGE).parts
    if room[0] == "commands" or room == ("tasks", "runtime.py"):
        return
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Name | ast.Attribute)}
    imported = {"sys.exit", "os._exit"} & imports(path)
    assert not names & {"SystemExit", "sys.exit", "exit", "quit", "os._exit"} and not imported, (
        "remedy: raise an error of ctrestore.errors"
    )


@pytest.mark.parametrize("line", ["raise SystemExit(2)", "import sys\nsys.exit(2)", "from sys import exit as end"])
def test_an_end_of_the_process_is_seen_however_it_is_spelt(tmp_path, monkeypatch, line):
    monkeypatch.setattr(sys.modules[__name__], "PACKAGE", tmp_path)
    for name, allowed in {"losses.py": False, "commands/demo.py": True, "tasks/runtime.py": True}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(line)
        with contextlib.nullcontext() if allowed else pytest.raises(AssertionError):
            test_only_commands_and_the_run_of_a_config_end_the_process(tmp_path / name)


def test_an_arrow_is_seen_however_the_import_is_spelt(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "PACKAGE", tmp_path)
    spellings = [
        "import ctrestore.commands.main",
        "from ctrestore import commands",
        "from ctrestore.commands.main import main",
        "from .. import commands",
        "from ..commands.main import main",
        "def late():\n    from ..commands.main import main",
    ]
    (tmp_path / "pvc").mkdir()
    for spelling in spellings:
        (tmp_path / "pvc" / "gtm.py").write_text(spelling)
        assert rooms_imported_by(tmp_path / "pvc" / "gtm.py") == {("commands",)}, spelling


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
        assert text == formatted(json.loads(text)), f"remedy: python tests/json_format.py {name_of(path)}"


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
