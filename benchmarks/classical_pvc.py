"""Time and memory of the classical corrections on a 256-cube of 1 mm, beside UCL PETPVC where it is given.

    python benchmarks/classical_pvc.py
    python benchmarks/classical_pvc.py --petpvc PATH_OF_THE_ORIGINAL_PETPVC --repeats 3

"compute" is the correction alone, in a process of its own; "command" is `ctrestore pvc` with interpreter, imports and
files (uncompressed NIfTI, as for PETPVC). The ratio to PETPVC is of whole commands. The floor is what one blur costs at
the memory bandwidth measured here: it reads and writes the volume once for x and once for y and z.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nibabel as nib
import numpy as np
from commands import Cost, apart, cost_of

BUNDLE = Path(__file__).resolve().parent.parent / "bundles" / "pet_pvc"
SIDE, FWHM_MM = 256, 6.0
PSF_ARGUMENTS = ["-x", str(FWHM_MM), "-y", str(FWHM_MM), "-z", str(FWHM_MM)]
#: name in the table, method, masks
CASES = (
    ("GTM, 37 labels", "GTM", "labels37"),
    ("GTM, 71 labels", "GTM", "labels71"),
    ("GTM, 4 soft", "GTM", "soft"),
    ("LABBE, 4 soft", "LABBE", "soft"),
    ("RBV, 4 soft", "RBV", "soft"),
    ("RBV, 71 labels", "RBV", "labels71"),
    ("MTC, 4 soft", "MTC", "soft"),
    ("IY x 10, 4 soft", "IY", "soft"),
    ("MG, hard", "MG", "hard"),
    ("mMG, 4 soft", "mMG", "soft"),
    ("STC x 10, 4 hard", "STC", "hard"),
    ("RL x 10", "RL", None),
    ("VC x 10", "VC", None),
)
COMPUTE = """
import json, resource, sys, time
import nibabel as nib, numpy as np
from ctrestore.pvc import Regions, correct
pet, masks, method, repeats = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
image = np.asarray(nib.load(pet).dataobj, dtype=np.float32)
volume = None if masks == "-" else np.asarray(nib.load(masks).dataobj)
if volume is not None and volume.ndim == 4:
    volume = np.moveaxis(volume, -1, 0)
before = resource.getrusage(resource.RUSAGE_SELF)
walls = []
for _ in range(repeats):
    start = time.perf_counter()
    build = Regions.from_labels if volume is not None and volume.ndim == 3 else Regions.from_masks
    regions = None if volume is None else build(volume)
    correct(image, regions, method, fwhm_mm=FWHM, spacing_mm=1.0, convention="fraction")
    walls.append(time.perf_counter() - start)
after = resource.getrusage(resource.RUSAGE_SELF)
cpu = (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) / repeats
print(json.dumps({"wall": min(walls), "cpu": cpu, "peak_gb": after.ru_maxrss / 1024**2}))
""".replace("FWHM,", f"{FWHM_MM},")


def cube(image: nib.Nifti1Image, target: np.ndarray, order: int) -> np.ndarray:
    """An image of the phantom on the 256-cube."""
    from nibabel.processing import resample_from_to

    moved = resample_from_to(nib.as_closest_canonical(image), ((SIDE,) * 3, target), order=order)
    return np.asarray(moved.dataobj, dtype=np.float32)


def write_case(folder: Path) -> dict[str, Path]:
    """A test phantom on a 256-cube of 1 mm: PET, soft and hard tissue masks, label maps; uncompressed."""
    from ctrestore.phantoms import phantom_entries
    from ctrestore.phantoms.scan import Grid
    from ctrestore.tasks.runtime import embedded_data_dir

    entry = phantom_entries(Path(embedded_data_dir(str(BUNDLE), "pet_pvc_phantom")), "test", n=1)[0]
    image = nib.as_closest_canonical(nib.load(entry["image"]))
    centre = (image.affine @ np.append((np.asarray(image.shape[:3]) - 1) / 2, 1.0))[:3]
    target = Grid((SIDE,) * 3, (1.0, 1.0, 1.0)).affine(centre)
    pet = cube(image, target, 1)
    tissues = [cube(nib.load(entry[key]), target, 1).clip(0, 1) for key in ("grey_matter", "white_matter", "csf")]
    soft = np.stack([*tissues, (1 - sum(tissues)).clip(0)], axis=-1)
    soft /= soft.sum(axis=-1, keepdims=True)
    hardest = soft.argmax(axis=-1)
    parcels = cube(nib.load(entry["parcels"]), target, 0).astype(np.int16)
    inside = np.where((hardest == 0) & (parcels > 0), parcels, 0)
    n_parcels = int(parcels.max())
    labels71 = np.where(inside > 0, inside + 2, np.array([0, 1, 2, 0])[hardest]).astype(np.int16)
    merged = np.where(inside > 0, (inside - 1) % 34 + 3, np.array([0, 1, 2, 0])[hardest]).astype(np.int16)
    volumes = {
        "pet": pet,
        "soft": soft.astype(np.float32),
        "hard": (hardest[..., None] == np.arange(4)).astype(np.float32),
        "labels71": labels71,
        "labels37": merged,
    }
    print(f"{n_parcels} parcels; labels71 has {len(np.unique(labels71))} values, labels37 {len(np.unique(merged))}")
    paths = {}
    for name, volume in volumes.items():
        paths[name] = folder / f"{name}.nii"
        nib.save(nib.Nifti1Image(volume, target), paths[name])
    return paths


def masks_4d(labels: Path) -> Path:
    """A label map as the 4-D masks that PETPVC reads."""
    path = labels.with_name(f"{labels.stem}_masks.nii")
    if not path.is_file():
        image = nib.load(labels)
        volume = np.asarray(image.dataobj)
        masks = np.stack([volume == value for value in np.unique(volume)], axis=-1).astype(np.float32)
        nib.save(nib.Nifti1Image(masks, image.affine), path)
    return path


def best(command: list[str], repeats: int) -> Cost:
    """The fastest of several runs."""
    return min(cost_of(command) for _ in range(repeats))


def floor(repeats: int) -> None:
    """Print what the memory and the arithmetic of one blur cost here, and how far off the blur is."""
    from ctrestore.psf import blur, gaussian_kernel, sigma_voxels

    volume = np.random.default_rng(0).random((SIDE,) * 3, dtype=np.float32)
    copy = np.empty_like(volume)
    times: dict[str, list[float]] = {"copy": [], "blur": []}
    for _ in range(max(repeats, 3)):
        start = time.perf_counter()
        np.copyto(copy, volume)
        times["copy"].append(time.perf_counter() - start)
        start = time.perf_counter()
        blur(volume, fwhm_mm=FWHM_MM, spacing_mm=1.0)
        times["blur"].append(time.perf_counter() - start)
    copied, blurred = min(times["copy"]), min(times["blur"])
    taps = len(gaussian_kernel(sigma_voxels(fwhm_mm=FWHM_MM, spacing_mm=1.0)[0]))
    gigabytes = 2 * volume.nbytes / 1e9
    print(
        f"one blur: {blurred * 1e3:.0f} ms; floor: {2 * gigabytes:.2f} GB of traffic at {gigabytes / copied:.0f} GB/s "
        f"(one core copying) = {2 * copied * 1e3:.0f} ms, {3 * 2 * taps * volume.size / 1e9:.1f} GFLOP; "
        f"{blurred / (2 * copied):.1f} times the floor\n"
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--petpvc", help="the original petpvc, to run beside")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", help="only cases whose name holds this")
    args = parser.parse_args()
    print(
        f"{os.cpu_count()} cores, numpy {np.__version__}; best of {args.repeats}; {SIDE}-cube at 1 mm, {FWHM_MM} mm\n"
    )
    # In processes of their own: Linux counts the memory of a command from that of the process that starts it.
    apart(floor, args.repeats)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = apart(write_case, folder)
        titles = ["compute s", "CPU s", "peak GB", "command s", "peak GB"]
        titles += ["PETPVC s", "peak GB", "PETPVC/ours"] if args.petpvc else []
        print(f"{'':<18}" + "".join(f"{title:>12}" for title in titles))
        for case, method, masks in CASES:
            if args.only and args.only not in case:
                continue
            given = str(paths[masks]) if masks else "-"
            run = [sys.executable, "-c", COMPUTE, str(paths["pet"]), given, method, str(args.repeats)]
            compute = json.loads(subprocess.run(run, check=True, capture_output=True, text=True).stdout)
            output = str(folder / ("out.tsv" if method in ("GTM", "LABBE") else "out.nii"))
            arguments = ["-i", str(paths["pet"]), "-o", output, "-p", method, *PSF_ARGUMENTS]
            command = [
                sys.executable,
                "-m",
                "ctrestore.commands.main",
                "pvc",
                *arguments,
                *(["-m", given] if masks else []),
            ]
            wall, _, peak = best(command, args.repeats)
            figures = (compute["wall"], compute["cpu"], compute["peak_gb"], wall, peak)
            line = f"{case:<18}" + "".join(f"{figure:>12.2f}" for figure in figures)
            if args.petpvc and method != "mMG":
                theirs = str(apart(masks_4d, paths[masks])) if masks and masks.startswith("labels") else given
                peer = [args.petpvc, *arguments, *(["-m", theirs] if masks else [])]
                wall_peer, _, peak_peer = best(peer, 1)
                line += f"{wall_peer:>12.1f}{peak_peer:>12.2f}{wall_peer / wall:>12.0f}"
            print(line, flush=True)


if __name__ == "__main__":
    main()
