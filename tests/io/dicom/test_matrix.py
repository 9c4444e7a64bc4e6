"""The table of DICOM cases: every result is as expected."""

from __future__ import annotations

import importlib.util

import pytest

from tests.conftest import ROOT

SCRIPT = ROOT / "benchmarks" / "dicom_matrix.py"
spec = importlib.util.spec_from_file_location("dicom_matrix", SCRIPT)
assert spec is not None
assert spec.loader is not None
matrix = importlib.util.module_from_spec(spec)
spec.loader.exec_module(matrix)


@pytest.mark.parametrize(("case", "expected", "make", "act"), matrix.CASES, ids=[case[0] for case in matrix.CASES])
def test_every_case_gives_the_expected_result(tmp_path, case, expected, make, act):
    seen = act(make(tmp_path / "series"))
    if seen == matrix.NOT_HERE:
        pytest.skip("needs a decoder or a program that is not installed")
    assert matrix.as_expected(expected, seen), seen
