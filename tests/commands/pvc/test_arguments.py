"""The help names every method, and both commands take the same arguments."""

import argparse

import pytest

from ctrestore.commands.main import main
from ctrestore.commands.pvc import petpvc_arguments
from ctrestore.pvc_methods import METHODS


def test_the_help_lists_every_method_once(capsys):
    with pytest.raises(SystemExit):
        main(["pvc", "--help"])
    lines = capsys.readouterr().out.split("methods:\n")[1].splitlines()
    single, deconvolved = lines[: lines.index("  deconvolved afterwards:")], lines[-2:]
    listed = [line.split()[0] for line in single if line.startswith("    ")]
    listed += [name for line in deconvolved for name in line.replace(",", " ").split()]
    assert sorted(listed) == sorted(METHODS)


def test_petpvcs_defaults_are_the_drop_ins():
    parser = argparse.ArgumentParser()
    petpvc_arguments(parser)
    args = parser.parse_args(["-i", "pet.nii", "-o", "out.nii", "-p", "IY", "-x", "6", "-y", "6", "-z", "6"])
    assert (args.iter, args.k, args.alpha, args.stop) == (10, 10, None, None)
    assert (args.kernel, args.convention, args.drop_in) == ("itk", "fraction", True)


def test_help_answers_without_reading_a_file(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["pvc", "--help"])
    assert ended.value.code == 0
    assert "LABBE+RBV+VC" in capsys.readouterr().out
