"""Grey/white contrast of a real FDG PET before and after the pet_pvc bundle, and a picture.

    python benchmarks/pet_pvc_real_scan.py CN_PET_TEMPLATE.nii --fwhm_mm 6 --output_dir OUT

There is no truth and no MRI: grey and white matter are the bright and the dark class of the input in the brain (three
classes by Otsu's method, the middle one left out), the same voxels before and after.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
from scipy.ndimage import binary_erosion, binary_fill_holes, label
from skimage.filters import threshold_multiotsu

from ctrestore.metrics import grey_white_contrast
from ctrestore.tasks.pet_pvc.evaluated_scans import stem
from ctrestore.tasks.pet_pvc.figure import figure_pet_pvc

BUNDLE = Path(__file__).resolve().parent.parent / "bundles" / "pet_pvc"


def classes(pet: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Masks of the bright and of the dark tissue of an FDG scan, two voxels inside the brain."""
    parts, _ = label(pet > 0.25 * np.percentile(pet[pet > 0], 99))
    largest = parts == 1 + np.argmax(np.bincount(parts.ravel())[1:])
    brain = binary_erosion(binary_fill_holes(largest), iterations=2)
    low, high = threshold_multiotsu(pet[brain], classes=3)
    return brain & (pet > high), brain & (pet < low)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pet", type=Path, help="NIfTI file")
    parser.add_argument("--fwhm_mm", type=float, default=6.0, help="assumed resolution (default: 6)")
    parser.add_argument("--output_dir", type=Path, default=Path("real_scan"))
    arguments = parser.parse_args()
    run = subprocess.run(
        [
            sys.executable, "-m", "monai.bundle", "run", "--config_file", str(BUNDLE / "configs" / "inference.json"),
            "--bundle_root", str(BUNDLE), "--dataset_dir", str(arguments.pet), "--fwhm_mm", str(arguments.fwhm_mm),
            "--output_dir", str(arguments.output_dir),
        ],
        capture_output=True, text=True,
    )  # fmt: skip
    if run.returncode:
        raise SystemExit(f"the inference failed:\n{run.stderr[-2000:]}")
    name = stem(arguments.pet)
    corrected = arguments.output_dir / f"{name}_pvc.nii.gz"
    before, after = nib.load(arguments.pet), nib.load(corrected)
    if before.shape != after.shape or not np.array_equal(before.affine, after.affine):
        raise SystemExit(f"{corrected} is not on the grid of {arguments.pet}.")
    grey, white = classes(before.get_fdata())
    print("grey/white contrast: ", end="")
    print(
        ", ".join(
            f"{n} {grey_white_contrast(i.get_fdata(), grey, white):.3f}"
            for n, i in (("before", before), ("after", after))
        )
    )
    print(f"total activity after/before: {after.get_fdata().sum() / before.get_fdata().sum():.4f}")
    picture = figure_pet_pvc(
        arguments.pet, corrected, arguments.output_dir / f"{name}.png", subject=name, unit="unit of the scan"
    )
    print(f"picture: {picture}")


if __name__ == "__main__":
    main()
