"""Real full-dose CT slices as a data set for the denoising bundle: NIfTI files and a data list, split by patient.

``python benchmarks/ldct_real_slices.py --data DATA --out .data/ldct_real``, where DATA holds a ``manifest.json`` with
an entry a file: ``file``, ``subject``, ``split`` (``train`` or ``val``), ``soft_tissue_noise_hu`` and the licence
(``CTRESTORE_DATA`` names it, too). What is taken as full dose:

- axial DICOM slices and 8-bit LUNA16 slices whose own noise in soft tissue is at most ``--max_noise_hu``;
- slabs of five neighbouring slices of a thin-slice volume, averaged.

The patients of ``val`` are cut in two: one half selects (``validation``), one is for the report alone (``test``).
8-bit slices end at 400 HU; their entries say so by ``known_hu``, so that nobody learns from what was cut off.
``photons_per_ray`` of an entry is the number with which a simulation has the slice's own noise (some seconds a slice),
so that half of the dose means half of what the slice was made with.
"""

from __future__ import annotations

import argparse
import hashlib
import os
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from PIL import Image
from pydicom import dcmread
from tqdm import tqdm

from ctrestore.io.nifti import write_nifti
from ctrestore.io.whole import read_json, write_json
from ctrestore.metrics.photons import photons_of

LUNA_SPACING_MM = 0.7  # not known of the pictures; typical
LUNA_RANGE_HU = (-1000.0, 400.0)
LUNA_STEP_HU = 1400.0 / 256
SLAB = 5


def luna_slice(path: Path) -> tuple[np.ndarray, tuple[float, float], dict[str, Any]]:
    """HU ``(x, y)``, spacing in mm and what the list should say of an 8-bit LUNA16 slice."""
    grey = np.asarray(Image.open(path)).astype(np.float32)
    hu = LUNA_RANGE_HU[0] + (grey + 0.5) * LUNA_STEP_HU
    known = [LUNA_RANGE_HU[0], LUNA_RANGE_HU[1] - LUNA_STEP_HU]
    return hu.T, (LUNA_SPACING_MM, LUNA_SPACING_MM), {"known_hu": known}


def dicom_slice(path: Path) -> tuple[np.ndarray, tuple[float, float], dict[str, Any]] | None:
    """HU ``(x, y)`` and spacing in mm of an axial DICOM slice; None for another plane."""
    header = dcmread(path)
    across = np.cross(*np.asarray(header.ImageOrientationPatient, dtype=float).reshape(2, 3))
    if abs(across[2]) < 0.9:
        return None
    hu = header.pixel_array * float(header.RescaleSlope) + float(header.RescaleIntercept)
    row_mm, column_mm = (float(mm) for mm in header.PixelSpacing)
    return hu.T, (column_mm, row_mm), {}


def slabs(path: Path) -> list[tuple[str, np.ndarray, tuple[float, float], dict[str, Any]]]:
    """Means of five neighbouring slices: less noise, and the base of their own low dose."""
    image: Any = nib.load(path)
    volume = np.asarray(image.dataobj, dtype=np.float32)
    spacing = tuple(float(mm) for mm in image.header.get_zooms()[:2])
    starts = range(0, volume.shape[2] - SLAB + 1, SLAB)
    return [(f"z{z:03d}", volume[:, :, z : z + SLAB].mean(axis=2), spacing, {}) for z in starts]  # type: ignore[misc]


def half_of(subject: str) -> str:
    """``validation`` or ``test``, by the subject's name alone."""
    return ("validation", "test")[hashlib.sha256(subject.encode()).digest()[0] % 2]


def write_slice(hu: np.ndarray, spacing: tuple[float, float], path: Path) -> None:
    """NIfTI of one axial slice ``(x, y, 1)`` in whole HU."""
    affine = np.diag([-spacing[0], -spacing[1], 1.0, 1.0])  # DICOM's x and y run against RAS
    image = nib.Nifti1Image(np.round(hu).clip(-32768, 32767).astype(np.int16)[..., None], affine)
    image.header.set_xyzt_units("mm", "sec")
    write_nifti(image, path, description="full-dose CT slice in HU")


def main() -> None:
    """Write the slices and their list."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, default=os.environ.get("CTRESTORE_DATA"))
    parser.add_argument("--out", type=Path, default=Path(".data/ldct_real"))
    parser.add_argument("--max_noise_hu", type=float, default=25.0)
    args = parser.parse_args()
    if args.data is None:
        parser.error("no data: --data FOLDER, or the variable CTRESTORE_DATA")
    sections: dict[str, list[dict[str, Any]]] = {"training": [], "validation": [], "test": []}
    sources = set()
    for item in tqdm(read_json(Path(args.data) / "manifest.json")["items"], unit="file"):
        path, noise = Path(args.data) / item["file"], item.get("soft_tissue_noise_hu")
        kind = item["file"].split("/")[0]
        if item["split"] not in ("train", "val") or kind not in ("ct_volume", "ct_dicom", "ct_png_luna16"):
            continue
        if kind != "ct_volume" and (noise is None or noise > args.max_noise_hu):
            continue
        subject = item["subject"].rsplit(".", 1)[-1]
        section = "training" if item["split"] == "train" else half_of(item["subject"])
        if kind == "ct_volume":
            found = slabs(path)
        else:
            one = luna_slice(path) if kind == "ct_png_luna16" else dicom_slice(path)
            found = [] if one is None else [(path.stem.split("_")[-1], *one)]
        for name, hu, spacing, known in found:
            relative = f"slices/{subject}_{name}.nii"
            write_slice(hu, spacing, args.out / relative)
            photons = round(photons_of(hu.T, spacing_mm=spacing[::-1]))
            sections[section].append({"subject": subject, "image": relative, **known, "photons_per_ray": photons})
        if found:
            sources.add((item["licence"], item["attribution"]))
    listed = {"description": "Real full-dose CT slices; " + "; ".join(sorted({a for _, a in sources})), **sections}
    write_json(listed, args.out / "list.json")
    subjects = {name: {entry["subject"] for entry in entries} for name, entries in sections.items()}
    assert not subjects["training"] & (subjects["validation"] | subjects["test"])
    for name, entries in sections.items():
        print(f"{name}: {len(entries)} slices of {len(subjects[name])} patients")


if __name__ == "__main__":
    main()
