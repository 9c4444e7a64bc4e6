"""The table of corrections: what a row says is true, and a file and a row are all that a new method needs."""

from __future__ import annotations

import importlib
import inspect
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ctrestore.pvc import correct
from ctrestore.pvc_methods import CHAINS, TABLE
from tests.conftest import ROOT

PSF = ("fwhm_mm", "spacing_mm", "kernel")
PETPVC = """GTM LABBE RBV RBV+VC RBV+RL LABBE+RBV LABBE+RBV+VC LABBE+RBV+RL MTC MTC+VC MTC+RL LABBE+MTC LABBE+MTC+VC
LABBE+MTC+RL IY IY+VC IY+RL MG MG+VC MG+RL STC RL VC"""


def test_petpvcs_methods_and_two_of_ours_are_there():
    assert set(CHAINS) >= {*PETPVC.split(), "mMG", "MELTZER"}


def test_no_two_names_and_no_two_files_of_derivatives_are_the_same():
    assert len({name.lower() for name in CHAINS}) == len(CHAINS)
    assert len({chain.label for chain in CHAINS.values()}) == len(CHAINS)


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.name)
def test_a_function_takes_what_its_row_says(row):
    settings = set(inspect.signature(correct).parameters)
    assert set(row.options) <= settings
    keywords = {"n_iterations" if name == "n_deconvolutions" else name for name in row.options}
    arrays = ["image"] if row.masks == "none" else ["image", "regions"]
    for function, inputs, more in (
        (row.function, arrays, ["means"] if row.means_from else []),
        (row.within, ["image", "regions"], []),
    ):
        if function:
            file, name = function.split(".")
            signature = inspect.signature(getattr(importlib.import_module(f"ctrestore.pvc.{file}"), name))
            signature.bind(*inputs, **dict.fromkeys([*PSF, *keywords, *more]))


FILE = '''"""Unsharp masking: the image plus what a blur by the PSF takes away from it."""

from ctrestore.psf import blur
from ctrestore.pvc.validation import checked_image, checked_psf


def unsharp(image, *, fwhm_mm, spacing_mm, kernel="exact", n_iterations=1):
    """The image sharpened."""
    image, psf = checked_image(image), checked_psf(fwhm_mm=fwhm_mm, spacing_mm=spacing_mm, kernel=kernel)
    for _ in range(n_iterations):
        image = 2 * image - blur(image, **psf)
    return image
'''
ROW = """    Method(
        "UNSHARP", "unsharp.unsharp", "unsharp masking", masks="none", options=("n_iterations",), label="usm"
    ),
"""
USE = """
import contextlib, io, json, sys
from pathlib import Path
import nibabel as nib
import numpy as np
import ctrestore
from ctrestore.commands.main import main
assert Path(ctrestore.__file__).is_relative_to(Path.cwd())
printed = io.StringIO()
with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
    main(["pvc", "--help"])
pet = np.zeros((16, 16, 16), np.float32)
pet[5:11, 5:11, 5:11] = 100
nib.save(nib.Nifti1Image(pet, np.diag([2.0, 2.0, 2.0, 1.0])), "sub-01_pet.nii.gz")
command = "pvc -i sub-01_pet.nii.gz -x 6 -y 6 -z 6 -n 2 -o out -p "
status = main([*command.split(), "unsharp"])
refused = io.StringIO()
with contextlib.redirect_stderr(refused):
    main([*command.split(), "unsharpe"])
    main([*command.split(), "RBV"])
written = sorted(path.name for path in Path("out").rglob("*pvcusm*"))
sidecar = json.loads(next(Path("out").rglob("*pvcusm*.json")).read_text())
peak = float(nib.load(next(Path("out").rglob("*pvcusm*.nii.gz"))).get_fdata().max())
print(json.dumps([printed.getvalue(), status, refused.getvalue(), written, sidecar, peak]))
"""


def test_a_file_and_a_row_make_a_method_of_ctrestore_pvc(tmp_path):
    """In a copy of the package: nothing else is touched."""
    shutil.copytree(ROOT / "ctrestore", tmp_path / "ctrestore", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "ctrestore" / "pvc" / "unsharp.py").write_text(FILE)
    table = tmp_path / "ctrestore" / "pvc_methods.py"
    start = "TABLE: tuple[Method, ...] = (\n"
    assert start in table.read_text(encoding="utf-8")
    table.write_text(table.read_text(encoding="utf-8").replace(start, start + ROW), encoding="utf-8")
    printed, status, refused, written, sidecar, peak = used(tmp_path)
    assert "    UNSHARP    unsharp masking\n" in printed
    assert "iterations of UNSHARP, IY and STC (10)" in " ".join(printed.split())
    assert status == 0
    assert written == ["sub-01_desc-pvcusm_pet.json", "sub-01_desc-pvcusm_pet.nii.gz"]
    assert sidecar["PVCMethod"] == "UNSHARP" and sidecar["PVCIterations"] == 2
    assert "PVCDeconvolutionIterations" not in sidecar
    assert sidecar["PVCReblurredResidual"] > 0
    assert peak > 110
    unknown, without_masks = refused.splitlines()
    assert "Did you mean UNSHARP?" in unknown
    assert "Without an MRI use UNSHARP or RL or VC" in without_masks


def used(copy: Path) -> list:
    """What a Python of its own says after it used the package in this folder."""
    environment = {**os.environ, "PYTHONPATH": str(copy), "PYTHONIOENCODING": "utf-8"}
    command = [sys.executable, "-c", USE]
    done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])
