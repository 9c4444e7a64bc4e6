"""Names, sidecars and folders of BIDS derivatives: valid, complete, and never in the place of raw data."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from ctrestore import __version__
from ctrestore.commands.main import main
from ctrestore.io.bids import derivative_name
from tests.commands.pvc.conftest import PSF, read

NAME = "sub-01/ses-a/pet/sub-01_ses-a_trc-18FFDG_desc-pvc{}_pet.nii.gz"


@pytest.fixture
def raw(head):
    """The head as a raw BIDS data set, its masks outside."""
    folder = head.path("raw")
    pet = folder / "sub-01" / "ses-a" / "pet" / "sub-01_ses-a_trc-18FFDG_pet.nii.gz"
    pet.parent.mkdir(parents=True)
    shutil.copy(head.pet, pet)
    description = {"Name": "x", "BIDSVersion": "1.10.0", "DatasetType": "raw"}
    (folder / "dataset_description.json").write_text(json.dumps(description))
    return folder, pet


def correct(head, pet, output, method="GTM"):
    arguments = ["-i", pet, "-m", *head.tissues, "-o", output, "-p", method, *PSF]
    return main(["pvc", *map(str, arguments)])


def test_a_folder_gets_the_layout_of_bids_derivatives(head, raw):
    (_, pet), out = raw, head.path("derivatives")
    assert correct(head, pet, out) == 0
    assert correct(head, pet, out, "LABBE+RBV") == 0
    image = out / NAME.format("GTM")
    assert read(image).max() == pytest.approx(10000, rel=1e-3)
    assert (out / NAME.format("LABBERBV")).is_file()
    table = image.with_name("sub-01_ses-a_trc-18FFDG_desc-pvcGTM_tacs.tsv").read_text().splitlines()
    assert table[0].startswith("name\tvolume_ml\tmean_uncorrected\tmean_corrected")
    assert len(table) == 1 + 4
    description = json.loads((out / "dataset_description.json").read_text())
    assert description["DatasetType"] == "derivative"
    assert description["GeneratedBy"] == [{"Name": "ctrestore", "Version": __version__}]
    assert description["DatasetLinks"] == {"raw": "../raw"}
    assert (out / ".bidsignore").read_text() == "*_tacs.tsv\n"
    sources = json.loads(image.with_name(image.name.replace(".nii.gz", ".json")).read_text())["Sources"]
    assert sources[0] == "bids:raw:sub-01/ses-a/pet/sub-01_ses-a_trc-18FFDG_pet.nii.gz"
    assert sources[1] == "../grey.nii.gz"


def test_what_a_description_holds_already_stays(head, raw):
    (_, pet), out = raw, head.path("derivatives")
    out.mkdir()
    before = {"Name": "ours", "BIDSVersion": "1.10.0", "DatasetType": "derivative", "DatasetLinks": {"mri": "../mri"}}
    (out / "dataset_description.json").write_text(json.dumps(before))
    (out / ".bidsignore").write_text("*.log\n")
    assert correct(head, pet, out) == 0
    description = json.loads((out / "dataset_description.json").read_text())
    assert description["Name"] == "ours"
    assert description["DatasetLinks"] == {"mri": "../mri", "raw": "../raw"}
    assert (out / ".bidsignore").read_text() == "*.log\n*_tacs.tsv\n"


def test_derivatives_are_not_put_among_raw_data(head, raw, capsys):
    folder, pet = raw
    before = sorted(folder.rglob("*"))
    assert correct(head, pet, folder) == 2
    assert "holds raw data" in capsys.readouterr().err
    assert sorted(folder.rglob("*")) == before


def test_a_folder_needs_a_pet_with_a_bids_name(head, capsys):
    shutil.copy(head.pet, head.path("scan.nii.gz"))
    assert correct(head, head.path("scan.nii.gz"), head.path("derivatives")) == 2
    assert "scan.nii.gz: no BIDS name" in capsys.readouterr().err
    assert not head.path("derivatives").exists()


@pytest.mark.parametrize("name", ["pet.nii.gz", "sub-01_T1w.nii.gz", "sub_01_pet.nii.gz", "my_sub-01_pet.nii.gz"])
def test_what_is_no_pet_of_bids_gets_no_derivative_name(name):
    with pytest.raises(ValueError, match="no BIDS name"):
        derivative_name(Path(name), "GTM")


@pytest.mark.skipif(shutil.which("bids-validator-deno") is None, reason="pip install bids-validator-deno to run it")
def test_the_bids_validator_finds_no_error(head, raw):
    (_, pet), out = raw, head.path("derivatives")
    pet.with_name(pet.name.replace(".nii.gz", ".json")).write_text(json.dumps({"Units": "Bq/mL", "TracerName": "FDG"}))
    for method in ("GTM", "RBV", "mMG", "IY+RL"):
        assert correct(head, pet, out, method) == 0
    command = ["bids-validator-deno", str(out), "--format", "json"]
    found = json.loads(subprocess.run(command, capture_output=True, text=True, check=False).stdout)
    issues = found["issues"]["issues"]
    assert found["summary"]["totalFiles"] >= 8
    assert not [issue for issue in issues if issue["severity"] == "error"]
    assert {issue["code"] for issue in issues} <= {"README_FILE_MISSING", "TOO_FEW_AUTHORS"}
