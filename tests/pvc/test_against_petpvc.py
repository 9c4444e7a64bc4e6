"""A second implementation: UCL PETPVC 1.2.12 on a 6 mm brain phantom, in ``$CTRESTORE_DATA/petpvc_reference``.

Both deconvolutions agree in the brain to 2 % of its mean (root mean square). Part of the rest is PETPVC's kernel, which
is cut at 1 % of its mass and so acts like 5.87 mm: asked for that width, the difference is below 1 %.
"""

import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from ctrestore.pvc import reblurred_van_cittert, richardson_lucy

FOLDER = Path(os.environ.get("CTRESTORE_DATA", "")) / "petpvc_reference"
pytestmark = pytest.mark.skipif(
    "CTRESTORE_DATA" not in os.environ or not FOLDER.is_dir(), reason="set CTRESTORE_DATA to compare with PETPVC"
)


def load(name):
    return np.asarray(nib.load(FOLDER / name).dataobj, dtype=np.float32)


@pytest.mark.parametrize(("fwhm_mm", "tolerance"), [(6.0, 0.02), (5.87, 0.01)])
@pytest.mark.parametrize(("name", "correct"), [("RL", richardson_lucy), ("VC", reblurred_van_cittert)])
def test_both_implementations_agree_in_the_brain(name, correct, fwhm_mm, tolerance):
    brain = load("masks_soft.nii.gz")[..., :3].sum(axis=-1) > 0.5
    theirs = load(f"petpvc_{name}.nii.gz")[brain]
    ours = correct(load("pet.nii.gz"), fwhm_mm=fwhm_mm, spacing_mm=2.0)[brain]
    assert np.sqrt(np.mean((ours - theirs) ** 2)) < tolerance * theirs.mean()
    assert ours.mean() == pytest.approx(theirs.mean(), rel=2e-3)
