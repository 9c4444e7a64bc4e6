"""Grey/white contrast of a real PET in MNI space before and after the pet_pvc bundle, and a picture.

    python benchmarks/pet_pvc_mni_scan.py CN_PET_TEMPLATE.nii --fwhm_mm 6 --output_dir OUT

Grey and white matter are where the ICBM 152 maps (inside nilearn) exceed 0.8, on the scan's own grid: no segmentation
of the scan itself, so the numbers are contrasts, not truths.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.processing import resample_from_to
from nilearn.datasets import load_mni152_gm_template, load_mni152_wm_template

from ctrestore.metrics import grey_white_contrast
from ctrestore.report import figure_pet_pvc

BUNDLE = Path(__file__).resolve().parent.parent / "bundles" / "pet_pvc"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pet", type=Path, help="NIfTI file in MNI space")
    parser.add_argument("--fwhm_mm", type=float, default=6.0, help="assumed resolution (default: 6)")
    parser.add_argument("--output_dir", type=Path, default=Path("mni_scan"))
    arguments = parser.parse_args()
    subprocess.run(
        [
            sys.executable, "-m", "monai.bundle", "run", "--config_file", str(BUNDLE / "configs" / "inference.json"),
            "--bundle_root", str(BUNDLE), "--dataset_dir", str(arguments.pet), "--fwhm_mm", str(arguments.fwhm_mm),
            "--output_dir", str(arguments.output_dir),
        ],
        check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    stem = arguments.pet.name.removesuffix(".gz").removesuffix(".nii")
    corrected = arguments.output_dir / f"{stem}_pvc.nii.gz"
    before, after = nib.load(arguments.pet), nib.load(corrected)
    assert before.shape == after.shape
    assert np.array_equal(before.affine, after.affine)
    grey, white = (
        resample_from_to(load(resolution=1), before, order=1).get_fdata() > 0.8
        for load in (load_mni152_gm_template, load_mni152_wm_template)
    )
    print("grey/white contrast: ", end="")
    print(
        ", ".join(
            f"{n} {grey_white_contrast(i.get_fdata(), grey, white):.3f}"
            for n, i in (("before", before), ("after", after))
        )
    )
    print(f"total activity after/before: {after.get_fdata().sum() / before.get_fdata().sum():.4f}")
    picture = figure_pet_pvc(
        arguments.pet, corrected, arguments.output_dir / f"{stem}.png", subject=stem, unit="unit of the scan"
    )
    print(f"picture: {picture}")


if __name__ == "__main__":
    main()
