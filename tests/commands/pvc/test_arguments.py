"""The help names every method, and both commands take the same arguments."""

import argparse

import pytest

from ctrestore.commands.main import main
from ctrestore.commands.pvc import petpvc_arguments
from ctrestore.commands.pvc.arguments import METHODS
from ctrestore.pvc import METHODS as IMPLEMENTED


def test_the_help_lists_every_method_once():
    listed = " ".join(METHODS.values()).split()
    assert sorted(listed) == sorted(IMPLEMENTED)


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
