"""A config uses the folder that it was read from; its errors are ours, whoever runs it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from monai.bundle import ConfigParser, ckpt_export, create_workflow, load, verify_net_in_out
from monai.bundle import run as bundle_run

from ctrestore.errors import CTRestoreError, InputError, ScansFailed
from ctrestore.tasks.runtime import bundle_root, first_file, is_later_rank, run_bundle
from tests.conftest import ROOT, cases

BUNDLES = cases(sorted(path.parent.parent for path in ROOT.glob("bundles/*/configs/metadata.json")), at_least=4)
CONFIGS = cases(
    (
        (bundle, name)
        for bundle in BUNDLES
        for name in ("inference", "train", "make_labels")
        if (bundle / "configs" / f"{name}.json").is_file()
    ),
    at_least=2 * len(BUNDLES) + 1,
)
WORK = {
    "imports": ["$import ctrestore.tasks.runtime as runtime"],
    "bundle_root": "$runtime.bundle_root()",
    "fault": "none",
    "scans": {"_target_": f"{__name__}.find", "fault": "@fault"},
    "initialize": ["$runtime.prepare()"],
    "run": [{"_target_": f"{__name__}.work", "scans": "@scans", "root": "@bundle_root"}],
}
seen: list[str] = []


def find(fault: str) -> str:
    """What a config's data do: a folder that is not there is refused before the work."""
    if fault == "folder":
        raise InputError("nowhere: no such folder. Remedy: --dataset_dir with another.")
    return fault


def work(scans: str, root: str) -> None:
    """What a config runs."""
    seen.append(root)
    if scans == "scan":
        raise ScansFailed("corrected", {"bad.nii": "its voxels are NaN"})
    if scans == "bug":
        raise KeyError("ours")
    if scans == "disk":
        raise OSError(28, "No space left on device")


def note(path: str) -> None:
    """What a config runs, to see what comes through."""
    seen.append(path)


@pytest.fixture
def two_bundles(tmp_path) -> list[Path]:
    """Two bundles of the same content in different folders."""
    roots = [tmp_path / "first", tmp_path / "second"]
    for root in roots:
        (root / "configs").mkdir(parents=True)
        (root / "configs" / "inference.json").write_text(json.dumps(WORK))
        (root / "configs" / "metadata.json").write_text('{"version": "1"}')
    return roots


def workflow_of(root: Path, **overrides):
    return create_workflow(
        config_file=str(root / "configs" / "inference.json"),
        workflow_type="inference",
        logging_file=False,
        **overrides,
    )


def test_two_bundles_in_one_process_use_their_own_folders(two_bundles):
    seen.clear()
    workflows = [workflow_of(root) for root in two_bundles]
    for workflow in (*workflows, *workflows[::-1]):
        workflow.run()
    first, second = map(str, two_bundles)
    assert seen == [first, second, second, first]


def test_one_after_the_other_by_run_too(two_bundles):
    seen.clear()
    for root in two_bundles:
        bundle_run(config_file=str(root / "configs" / "inference.json"), logging_file=False)
    assert seen == list(map(str, two_bundles))


def test_from_within_configs(two_bundles, monkeypatch):
    seen.clear()
    monkeypatch.chdir(two_bundles[1] / "configs")
    bundle_run(config_file="inference.json", logging_file=False)
    assert seen == [str(two_bundles[1])]


@pytest.mark.parametrize(("bundle", "name"), CONFIGS, ids=[f"{bundle.name}-{name}" for bundle, name in CONFIGS])
def test_data_and_weights_of_every_config_are_its_own(bundle, name, tmp_path, monkeypatch):
    copy = tmp_path / "copy"
    shutil.copytree(bundle, copy, ignore=shutil.ignore_patterns("runs*", "eval*", "labels", "docs"))
    monkeypatch.chdir(ROOT)  # where the other copy lies
    workflow = create_workflow(config_file=str(copy / "configs" / f"{name}.json"), logging_file=False)
    found = [
        key for key in ("weights", "ckpt_dir", "output_dir", "embedded_dir", "dataset_dir") if key in workflow.parser
    ]
    assert found
    for key in found:
        assert Path(workflow.parser.get_parsed_content(key)).is_relative_to(copy), key


@pytest.mark.parametrize("bundle", BUNDLES, ids=lambda path: path.name)
@pytest.mark.parametrize("name", ["inference", "train"])
def test_the_network_needs_no_folder_and_no_data(bundle, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(bundle, bundle := tmp_path / bundle.name)  # elsewhere than its embedded data
    network = load(bundle.name, bundle_dir=str(bundle.parent), workflow_type=name)
    released = torch.load(bundle / "models" / "model.pt", weights_only=True)
    assert all(torch.equal(network.state_dict()[name].cpu(), value.float()) for name, value in released.items())
    files = {"meta_file": str(bundle / "configs" / "metadata.json")}
    files["config_file"] = str(bundle / "configs" / f"{name}.json")
    definition = ConfigParser.load_config_file(files["config_file"])["network_def"]
    shape = [1, definition.get("in_channels", 1), *[32] * definition["spatial_dims"]]
    if bundle.name == "lung_ct_classification":
        files["classes"] = ["a", "b", "c", "d"]  # a parser alone does not know the folder of the card or of the data
    verify_net_in_out("network_def", device="cpu", **files)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tracer's, of sizes that it takes for constants
        ckpt_export(
            "network_def", filepath=str(tmp_path / "out.ts"), ckpt_file=str(bundle / "models" / "model.pt"),
            use_trace=True, input_shape=shape, **files,
        )  # fmt: skip
    assert (tmp_path / "out.ts").is_file()
    assert not (bundle / ".data").exists()


def test_a_parser_alone_is_told_what_to_say(tmp_path):
    parser = ConfigParser(dict(WORK))
    with pytest.raises(RuntimeError) as caught:
        parser.get_parsed_content("bundle_root")
    assert 'parser["bundle_root"] = FOLDER' in str(caught.value.__cause__)
    with pytest.raises(InputError, match="--bundle_root FOLDER"):
        bundle_root()


@pytest.mark.parametrize(
    ("fault", "kind", "message"),
    [
        ("folder", InputError, "nowhere: no such folder"),
        ("scan", ScansFailed, r"not corrected:\n  bad\.nii: its voxels are NaN"),
        ("disk", InputError, "No space left on device"),
    ],
)
def test_a_program_gets_our_errors(two_bundles, fault, kind, message):
    workflow = workflow_of(two_bundles[0], fault=fault)
    try:
        workflow.run()
    except Exception as error:
        assert isinstance(error, CTRestoreError)
        chain = [error]
        while chain[-1].__cause__ or chain[-1].__context__:  # whoever walks it comes to an end
            chain.append(chain[-1].__cause__ or chain[-1].__context__)
            assert len(chain) < 9
        with pytest.raises(kind, match=message):
            raise
    else:
        pytest.fail("nothing was raised")


def test_a_fault_of_a_program_stays_a_traceback(two_bundles):
    with pytest.raises(RuntimeError) as caught:
        workflow_of(two_bundles[0], fault="bug").run()
    assert isinstance(caught.value.__cause__, KeyError)


@pytest.mark.parametrize(("fault", "status", "lines"), [("folder", 2, 1), ("scan", 1, 2)])
def test_monais_program_prints_the_message_alone(two_bundles, fault, status, lines):
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "monai.bundle", "run", "--fault", fault,
         "--config_file", str(two_bundles[0] / "configs" / "inference.json")],
        capture_output=True, text=True, timeout=120, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == status
    message = done.stderr[done.stderr.index("ctrestore: error:") :].strip()
    assert len(message.splitlines()) == lines
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("overrides", [{"fualt": "scan"}, {"runs": 1}, {"initialise": []}])
def test_an_override_that_no_config_has_is_refused(two_bundles, overrides):
    seen.clear()
    with pytest.raises(InputError, match="no config of this run has such an id"):
        workflow_of(two_bundles[0], **overrides).run()
    assert not seen


def test_the_id_that_was_meant_is_named(two_bundles):
    with pytest.raises(InputError, match=r"^--fualt: .* Did you mean fault\?$"):
        bundle_run(config_file=str(two_bundles[0] / "configs" / "inference.json"), logging_file=False, fualt="scan")


def test_overrides_of_overlays_of_nested_ids_and_of_arguments_are_taken(two_bundles, tmp_path):
    seen.clear()
    overlay = tmp_path / "overlay.json"
    overlay.write_text(json.dumps({"mine": 1, "_desc_mine": "an id of the user's"}))
    files = [str(two_bundles[0] / "configs" / "inference.json"), str(overlay)]
    overrides = {"mine": 2, "scans#fault": "none", "_desc_": "a remark", "run_id": "run"}
    create_workflow(config_file=files, logging_file=False, **overrides).run()
    with pytest.raises(RuntimeError, match="Failed to instantiate"):  # as Python refuses it
        create_workflow(config_file=files, logging_file=False, **{"scans#fualt": "none"}).run()
    assert len(seen) == 1


NAMES = [
    "$__import__('os').system('touch PWNED') and a.nii", "@bundle_root", "%x", "-a.nii", "a,b.nii", "[a].nii",
    "a b.nii", "a\nb.nii", "1e5", "1_000", "None", "true", "'a'", "{a}",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_names_of_files_are_data(two_bundles, name, tmp_path, monkeypatch):
    """MONAI evaluates texts of a config; a file of any name comes through as that file, and nothing is run."""
    monkeypatch.chdir(tmp_path)
    Path(name).write_text("a scan")
    content = {**WORK, "dataset_dir": "", "run": [{"_target_": f"{__name__}.note", "path": "@dataset_dir"}]}
    (two_bundles[0] / "configs" / "inference.json").write_text(json.dumps(content))
    seen.clear()
    run_bundle(two_bundles[0], ["inference"], dataset_dir=name)
    (path,) = seen
    assert isinstance(path, str)
    assert Path(path).read_text() == "a scan"
    assert Path(path).name == name
    assert not Path("PWNED").exists()


def test_later_ranks_are_told_from_the_first(monkeypatch):
    for rank, expected in ((None, False), ("0", False), ("1", True)):
        monkeypatch.delenv("RANK", raising=False)
        if rank is not None:
            monkeypatch.setenv("RANK", rank)
        assert is_later_rank() is expected


def test_weights_of_ones_own_training_go_before_the_released(tmp_path):
    own = tmp_path / "model.pt"
    assert first_file(str(own), "released.pt") == "released.pt"
    own.touch()
    assert first_file(str(own), "released.pt") == str(own)
