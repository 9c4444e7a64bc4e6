"""The makers of bad input spoil scans that are good."""

import nibabel as nib
import numpy as np

from tests import bad_input


def test_the_scans_that_makers_spoil_are_good(tmp_path):
    pet, ct = nib.load(bad_input.pet(tmp_path)), nib.load(bad_input.ct(tmp_path))
    assert pet.get_fdata().min() > 0 and np.isfinite(pet.get_fdata()).all()
    assert ct.get_fdata().min() < -900 and abs(ct.get_fdata()[24, 24].mean() - 40) < 40


def test_a_flipped_byte_is_one_byte(tmp_path):
    before = bad_input.pet(tmp_path).read_bytes()
    after = bad_input.flipped_byte(tmp_path / "pet.nii.gz").read_bytes()
    assert sum(a != b for a, b in zip(before, after)) == 1 and len(before) == len(after)
