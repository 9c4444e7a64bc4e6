"""The matrix of bad input: every command and every bundle's inference, on everything that users can get wrong.

    python benchmarks/bad_input.py                                     # what tests/bad_input.py makes
    CTRESTORE_DATA=FOLDER python benchmarks/bad_input.py               # also by the scripts in FOLDER/cases
    python benchmarks/bad_input.py --only pet_pvc --kinds 4 8 --keep OUT

Each try is a process of its own, in a folder of its own, and ends in one of these:

    right      an output that is right: equal to that of the undamaged scan, or finite where that is all one can say
    named      refused in one line that names the file, or done with a warning that names it
    unclear    refused in another way: several lines, no name, a good scan refused, no end within the time limit
    traceback  a Python traceback was printed
    silent     status 0, without a warning, and the output is wrong or missing
    lost       a file of the user's is gone or altered, or a draft is left behind

The script ends with status 1 unless silent, lost and traceback are 0.
"""

from __future__ import annotations

import argparse
import collections
import hashlib
import json
import logging
import os
import re
import resource
import runpy
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import nibabel as nib
import numpy as np
import pydicom
import torch
from tqdm import tqdm

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests import bad_input  # noqa: E402

FEWEST_INPUTS = 245
MEMORY_BYTES = 12 << 30
SECONDS = 240
OUTCOMES = ("right", "named", "unclear", "traceback", "silent", "lost")
PETS, CTS = ("pet_pvc", "pvc RL"), ("denoise", "upscale", "simulate-dose", "classification")
Check = Callable[[Path, Path], "str | None"]  # (input, folder of outputs): what is wrong with the output


@dataclass(frozen=True)
class Try:
    """One command on one input.

    Args:
        kind: number of the kind of fault.
        name: of the fault.
        command: the row of the table it counts in.
        argv: of ``ctrestore``, or of ``python -m monai.bundle`` if it begins with ``run``.
        source: what must survive: a file or a folder.
        expect: ``right``, ``named`` or ``either``.
        check: of the output, if right.
    """

    kind: int
    name: str
    command: str
    argv: tuple[str, ...]
    source: Path
    expect: str
    check: Check | None = None


# ---------------------------------------------------------------------------------------------------------------------
# Commands


def bundle_run(bundle: str, *, config: str = "inference", **overrides: object) -> tuple[str, ...]:
    """``run`` of a bundle's config."""
    arguments = ["run", "--config_file", str(ROOT / "bundles" / bundle / "configs" / f"{config}.json")]
    for key, value in overrides.items():
        arguments += [f"--{key}", str(value)]
    return tuple(arguments)


SMALL_PET = {"spacing_mm": 9.0, "cube_size": 32, "amp": False}


def command_on(command: str, source: Path, out: Path) -> tuple[str, ...]:
    """The arguments of a command for an input, with the output in a folder."""
    given, folder = str(source), str(out)
    if command == "pet_pvc":
        return bundle_run("pet_pvc", dataset_dir=given, output_dir=folder, fwhm_mm=12.0, **SMALL_PET)
    if command == "pvc RL":
        return ("pvc", f"-i={given}", "-o", f"{folder}/pvc.nii.gz", "-p", "RL", "-x", "9", "-y", "9", "-z", "9")
    if command == "classification":
        return bundle_run("lung_ct_classification", dataset_dir=given, output_dir=folder, amp=False)
    if command == "simulate-dose":
        return ("simulate-dose", "--dose", "0.25", "--", given, folder)
    return (command, "--no-amp", "--", given, folder)


# ---------------------------------------------------------------------------------------------------------------------
# What an output must be


def finite(source: Path, out: Path) -> str | None:
    """There is an output, and every number of it is finite."""
    files = [path for path in out.rglob("*") if path.is_file()]
    if not files:
        return "no output"
    for path in files:
        if path.name.endswith((".nii", ".nii.gz")) and not np.isfinite(np.asarray(nib.load(path).dataobj)).all():
            return f"{path.name} holds NaN or Inf"
        if path.suffix == ".csv" and re.search(r"\b(nan|inf)\b", path.read_text().lower()):
            return f"{path.name} holds NaN or Inf"
    return None


def volume_in(out: Path) -> np.ndarray | None:
    """The voxels of the one NIfTI in a folder."""
    found = [path for path in out.rglob("*.nii*") if path.is_file()]
    return np.squeeze(np.asarray(nib.load(found[0]).dataobj, dtype=np.float64)) if len(found) == 1 else None


def as_for(good_out: Path) -> Check:
    """The output is that of the good scan, within a thousandth of its range."""

    def check(source: Path, out: Path) -> str | None:
        if fault := finite(source, out):
            return fault
        here, there = volume_in(out), volume_in(good_out)
        if here is None or there is None:  # a table
            tables = [sorted(folder.rglob("*.csv")) for folder in (out, good_out)]
            numbers = [re.findall(r"\d\.\d+", table[0].read_text()) if table else [] for table in tables]
            close = len(numbers[0]) == len(numbers[1]) and np.allclose(*np.array(numbers, dtype=float), atol=2e-3)
            return None if close else "another table than the good scan's"
        if here.shape != there.shape:
            return f"shape {here.shape}, the good scan's is {there.shape}"
        off = float(np.abs(here - there).max() / max(np.ptp(there), 1e-9))
        return None if off < 1e-3 else f"differs from the good scan's by {off:.2g} of its range"

    return check


def hu_of_body(source: Path, out: Path) -> str | None:
    """The derived series shows the body of the case scripts: air -1000, soft tissue 40, lungs -850, a bone 700 HU."""
    files = sorted(path for path in out.rglob("*") if path.is_file() and path.suffix in (".dcm", ""))
    if not files:
        return finite(source, out)
    for path in files:
        image = pydicom.dcmread(path)
        hu = image.pixel_array * float(image.RescaleSlope) + float(image.RescaleIntercept)
        side, middle = hu.shape[0], hu.shape[0] // 2
        scale = side // 64
        for name, (y, x), value in (("soft tissue", (20, 32), 40), ("lung", (32, 42), -850), ("air", (3, 32), -1000)):
            y, x = y * scale, x * scale
            seen = float(hu[y - 2 : y + 3, x - 2 : x + 3].mean())
            if middle and abs(seen - value) > 60:
                return f"{path.name}: {name} is {seen:.0f} HU, not {value}"
    return None


# ---------------------------------------------------------------------------------------------------------------------
# Inputs

# By name of tests/bad_input.py's spoiled NIfTI and of the case scripts: what a PET and a CT of it must give.
RIGHT, NAMED, EITHER = "right", "named", "either"
NIFTI_EXPECTED: dict[str, tuple[str, str]] = {
    **dict.fromkeys(["ok", "okz", "okz.nii.gz", "d4one", "slope0", "slopenan", "sizeof", "unreadable"], (RIGHT, RIGHT)),
    **dict.fromkeys(["rawasgz", "gzasraw", "rawasgz.nii.gz", "gzasraw.nii", "UPPER"], (EITHER, EITHER)),
    "const": (EITHER, NAMED), "negative": (NAMED, EITHER), "d2": (NAMED, EITHER), "oneslice": (NAMED, EITHER),
    "d4": (EITHER, NAMED), "binary": (EITHER, NAMED), "uint64": (EITHER, NAMED), "f64tiny": (EITHER, NAMED),
    "slope1e30": (EITHER, NAMED), "pixneg": (EITHER, EITHER), "pixneg_q": (EITHER, EITHER),
}  # fmt: skip
EXACT = {"ok", "okz", "okz.nii.gz", "slope0", "slopenan", "sizeof"}  # the same output as the good scan's


@dataclass(frozen=True)
class Input:
    """A file or folder, and what must come of it in PET and CT commands."""

    kind: int
    name: str
    path: Path
    expect: str
    commands: tuple[str, ...]
    check: Check | None = finite
    exact: bool = False


def kind_of(name: str) -> int:
    """The number of the kind that a spoiled NIfTI belongs to."""
    if name.startswith(("flip", "bitflip", "trunc", "gztext")):
        return 4
    if name.startswith(("pix", "sing", "shear", "srow", "qs", "quat", "micr", "metr")):
        return 8
    return {"dangling": 15, "UPPER": 15, "name": 2}.get(name.split()[0], 22)


def nifti_inputs(
    made: dict[str, Path], commands: tuple[str, ...], *, is_pet: bool, is_ours: bool = False
) -> Iterator[Input]:
    """The inputs of a folder of spoiled NIfTI; those of our own makers are compared with the good scan."""
    for name, path in made.items():
        default = (RIGHT, RIGHT) if name.startswith("name ") else (NAMED, NAMED)
        pet, ct = NIFTI_EXPECTED.get("UPPER" if "UPPER" in path.name else name, default)
        exact = is_ours and (name in EXACT or name.startswith("name "))
        yield Input(kind_of(name), name, path, pet if is_pet else ct, commands, exact=exact)


def own_inputs(folder: Path) -> Iterator[Input]:
    """What tests/bad_input.py makes."""
    (folder / "pet").mkdir(parents=True)
    (folder / "ct").mkdir()
    pet, ct = bad_input.pet_voxels(), bad_input.ct_voxels()
    made = bad_input.spoiled_niftis(folder / "pet", pet, bad_input.PET_AFFINE)
    yield from nifti_inputs(made, PETS, is_pet=True, is_ours=True)
    made = bad_input.spoiled_niftis(folder / "ct", ct, bad_input.CT_AFFINE)
    yield from nifti_inputs(made, CTS, is_pet=False, is_ours=True)


CT_SERIES_EXPECTED = {"d12_cbf": NAMED, "d13_32bit": EITHER, "d18_comma": EITHER, "d19_anon": EITHER}
PET_SERIES_EXPECTED = {"e4_nounits": NAMED, "e5_gated": EITHER, "e3_beds": EITHER, "e6_nslices_small": EITHER}
ANY_HEADER = (
    ("PatientName=../../../etc/passwd", RIGHT), ("SeriesDescription=$(touch pwned)", RIGHT),
    ("PatientID=a/b\\c", RIGHT), ("SeriesDescription=" + "x" * 400, EITHER), ("RescaleType=US", NAMED),
    ("RescaleType=MGML", NAMED), ("Modality=MR", NAMED), ("RescaleSlope=0", NAMED), ("RescaleSlope=nan", NAMED),
    ("RescaleIntercept=1e9", NAMED), ("BitsStored=0", NAMED), ("BitsStored=12", EITHER), ("HighBit=3", EITHER),
    ("Rows=0", NAMED), ("PhotometricInterpretation=MONOCHROME1", EITHER), ("PhotometricInterpretation=RGB", NAMED),
    ("PixelSpacing=0", NAMED), ("SliceThickness=-1", EITHER), ("PatientBirthDate=yesterday", EITHER),
    ("StudyDate=99999999", EITHER), ("InstanceNumber=-7", EITHER), ("ImageType=LOCALIZER", NAMED),
    ("SpecificCharacterSet=KLINGON", EITHER),
)  # fmt: skip


NUMBERS = ("BitsStored", "HighBit", "Rows")  # in binary, the other headers as text


def script_inputs(cases: Path, folder: Path) -> Iterator[Input]:
    """What the case scripts make."""

    def run(script: str, *arguments: str, within: Path) -> None:
        within.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, str(cases / script), *arguments]
        subprocess.run(
            command, cwd=within, check=True, capture_output=True, env={**os.environ, "PYTHONWARNINGS": "ignore"}
        )

    def entries(place: Path) -> dict[str, Path]:
        return {path.name.removesuffix(".gz").removesuffix(".nii"): path for path in sorted(place.iterdir())}

    run("bad_nifti.py", str(folder / "nifti"), within=folder)
    for kind, commands in (("pet", PETS), ("ct", CTS)):
        place = folder / "nifti" / kind
        made = {name: path for name, path in entries(place).items() if name != "names"}
        made |= {f"name {name[:12]!r}": path for name, path in entries(place / "names").items()}
        yield from nifti_inputs(made, commands, is_pet=kind == "pet")
    run("ct_series.py", within=folder / "ct_series")
    for name, path in entries(folder / "ct_series").items():
        kind = 17 if name.startswith(("d5", "d6")) else 6
        yield Input(kind, name, path, CT_SERIES_EXPECTED.get(name, RIGHT), CTS, check=hu_of_body)
    for i, (header, expect) in enumerate(ANY_HEADER):
        keyword, _, value = header.partition("=")
        number, place = value.isdigit() and keyword in NUMBERS, folder / "headers" / f"h{i}"
        run("ct_series_any_header.py", str(place), "3", *([] if number else [header]), within=folder / "headers")
        for path in place.iterdir() if number else ():
            image = pydicom.dcmread(path)
            setattr(image, keyword, int(value))
            image.save_as(path)
        yield Input(22, header[:40], place, expect, CTS)
    run("pet_series.py", within=folder / "pet_series")
    for name, path in entries(folder / "pet_series").items():
        if name.startswith("e"):
            yield Input(18, name, path, PET_SERIES_EXPECTED.get(name, RIGHT), ("pet_pvc",))
    run("damaged_gzip.py", str(folder / "nifti" / "pet" / "okz.nii.gz"), str(folder / "flips" / "pet"), within=folder)
    run("damaged_gzip.py", str(folder / "nifti" / "ct" / "okz.nii.gz"), str(folder / "flips" / "ct"), within=folder)
    for kind, commands in (("pet", PETS), ("ct", CTS)):
        for name, path in entries(folder / "flips" / kind).items():
            yield Input(4, name, path, NAMED, commands)


# ---------------------------------------------------------------------------------------------------------------------
# Tries that are no input x command

BAD_NUMBERS: dict[str, tuple[str, ...]] = {
    "denoise": (
        "--dose 7", "--dose -1", "--dose nan", "--strength -5", "--strength abc", "--strength nan", "--batch-slices 0",
        "--batch-slices -3", "--tile 1", "--device cuda:99", "--device toaster", "--config nosuch",
        "--weights nosuch.pt",
    ),
    "upscale": ("--scale 7", "--scale 0", "--through-plane 0", "--through-plane -2", "--tile 0", "--batch-slices x"),
    "simulate-dose": ("--dose 7", "--dose 0", "--dose nan", "--photons -1", "--photons nan", "--seed x", "--seed -1"),
    "pvc": ("-x 1e9", "-x 0", "-x nan", "-x -3", "-n 100000000", "-n 0", "-k -1", "-a nan", "-s -1", "-p NOSUCH"),
    "ldct_denoising": (
        "--batch_slices 0", "--batch_slices -3", "--tile 50 --tile_margin -5", "--num_workers -1", "--amp false",
        '--clip_hu "[2000,-1200]"', "--strength 5", "--dose_fraction 7", "--told_dose false", "--datset_dir x",
    ),
    "pet_pvc": (
        "--spacing_mm 0", "--spacing_mm -1", "--cube_size 0", "--window_overlap 1", "--window_overlap -0.1",
        "--amp false", "--fwhm_mm 0", "--fwhm_mm nan", "--fwhm_mm 1e9", "--method nosuch", "--save_tissue maybe",
        "--yang_steps -1",
    ),
    "ct_super_resolution": ("--scale 3", "--through_plane 0", "--batch_slices 0", "--tile 1", "--smallest_slice -1"),
    "lung_ct_classification": ("--batch_slices 0", "--input_kind colour", "--volumes false", "--image_size 0"),
}  # fmt: skip
TRAINING_NUMBERS = (
    "--max_epochs 0", "--max_epochs -3", "--batch_size 0", "--learning_rate -1", "--learning_rate nan",
    '--patch_size "[4000,4000]"', "--num_workers -1", "--val_interval 0", "--amp false",
)  # fmt: skip


def setting_tries(folder: Path) -> Iterator[Try]:
    """Numbers and names that make no sense; the text of the option must be in the message."""
    pet, ct = bad_input.pet(folder / "pet"), bad_input.ct(folder / "ct")
    for command, settings in BAD_NUMBERS.items():
        for setting in settings:
            words, out = shlex.split(setting), str(folder / "out" / f"{command}{setting}".replace("/", "_"))
            source = pet if command in ("pvc", "pet_pvc") else ct
            if command == "pvc":
                base = ["pvc", "-i", str(pet), "-o", f"{out}/x.nii.gz", "-x", "9", "-y", "9", "-z", "9", "-p"]
                argv = (*base, "IY" if words[0] == "-n" else "VC", "-m", str(pet), *words)
            elif command in BUNDLES:
                small = SMALL_PET if command == "pet_pvc" else {"amp": False}
                given = {key: value for key, value in small.items() if f"--{key}" not in words}
                argv = (*bundle_run(command, dataset_dir=source, output_dir=out, **given), *words)
            else:
                dose = () if command != "simulate-dose" or "--dose" in words else ("--dose", "0.5")
                argv = (command, str(source), out, *dose, *words)
            yield Try(24 if "1e9" in setting or "1000000" in setting else 22, setting, command, argv, source, NAMED)
    entry = {"subject": "a", "image": ct.name, "label": 0, "class": "one"}
    listed = {"classes": ["one", "two"], **{section: [entry] for section in ("training", "validation", "test")}}
    listed["training"] = [{**entry, "subject": f"s{i}", "label": i % 2} for i in range(2)]
    (ct.parent / "list.json").write_text(json.dumps(listed))
    for bundle in ("ldct_denoising", "ct_super_resolution", "lung_ct_classification"):
        for setting in TRAINING_NUMBERS:
            if "patch_size" in setting and bundle == "lung_ct_classification":
                continue
            words = shlex.split(setting)
            base = bundle_run(
                bundle, config="train", data_list=ct.parent / "list.json", dataset_dir=ct.parent,
                ckpt_dir=folder / "runs", output_dir=folder / "out" / "train",
            )  # fmt: skip
            yield Try(22, f"train {setting}", bundle, (*base, *words), ct.parent, NAMED)


BUNDLES = ("pet_pvc", "ldct_denoising", "ct_super_resolution", "lung_ct_classification")


def weights_tries(folder: Path) -> Iterator[Try]:
    """Weights with NaN, altered bytes, of another bundle, truncated, or no weights at all."""
    pet, ct = bad_input.pet(folder / "pet"), bad_input.ct(folder / "ct")
    for bundle in BUNDLES:
        released = ROOT / "bundles" / bundle / "models" / "model.pt"
        other = (
            ROOT / "bundles" / ("ldct_denoising" if bundle != "ldct_denoising" else "pet_pvc") / "models" / "model.pt"
        )
        made = folder / bundle
        made.mkdir(parents=True)
        state = torch.load(released, map_location="cpu", weights_only=True)
        first = next(iter(state))
        state[first] = torch.full_like(state[first], float("nan")) if state[first].is_floating_point() else state[first]
        torch.save(state, made / "nan.pt")
        raw = bytearray(released.read_bytes())
        raw[len(raw) // 2 : len(raw) // 2 + 64] = b"\xff" * 64
        (made / "altered.pt").write_bytes(bytes(raw))
        (made / "half.pt").write_bytes(released.read_bytes()[: released.stat().st_size // 2])
        (made / "text.pt").write_text("no weights")
        shutil.copy(other, made / "other.pt")
        card = released.with_suffix(".json")
        for path in sorted(made.glob("*.pt")):
            if card.is_file():
                shutil.copy(card, path.with_suffix(".json"))
            source = pet if bundle == "pet_pvc" else ct
            small = SMALL_PET if bundle == "pet_pvc" else {"amp": False}
            argv = bundle_run(bundle, dataset_dir=source, output_dir=made / "out", weights=path, **small)
            yield Try(7, f"weights {path.stem}", bundle, argv, made, NAMED)


def pvc_tries(folder: Path, cases: Path) -> Iterator[Try]:
    """PET, masks, labels and sidecars of the script pvc_inputs.py."""
    folder.mkdir(parents=True)
    subprocess.run([sys.executable, str(cases / "pvc_inputs.py")], cwd=folder, check=True, capture_output=True)

    def pvc(pet: str, *more: str, method: str = "RBV", fwhm: str = "-x 6 -y 6 -z 6") -> tuple[str, ...]:
        return ("pvc", "-i", str(folder / pet), "-o", "OUT/pvc.nii.gz", "-p", method, *fwhm.split(), *more)

    def masks(*names: str) -> tuple[str, ...]:
        return ("-m", *(str(folder / name) for name in names))

    tissue = masks("gm.nii.gz", "wm.nii.gz", "csf.nii.gz")
    labels = (("p12_f64.nii.gz", RIGHT), ("p12_i64.nii.gz", RIGHT), ("p12_neg.nii.gz", NAMED), ("p3_lia.nii.gz", RIGHT))
    tries: list[tuple[int, str, tuple[str, ...], str]] = [
        (22, "p1 NaN outside the brain", pvc("p1_nan.nii.gz", *tissue), EITHER),
        (22, "p1 one NaN", pvc("p1_one_nan.nii.gz", *tissue), NAMED),
        (23, "p2 frames of zeros and negatives", pvc("p2_dyn.nii.gz", *tissue), NAMED),
        (23, "p2 the same by RL", pvc("p2_dyn.nii.gz", method="RL"), NAMED),
        (19, "p3 aparc+aseg.mgz", pvc("pet.nii.gz", *masks("p3_aparc+aseg.mgz"), method="GTM"), RIGHT),
        (22, "p4 SPM's integers", pvc("pet.nii.gz", *masks("c1.nii", "c2.nii", "c3.nii")), RIGHT),
        (22, "p4 sums of 1.05", pvc("pet.nii.gz", *masks(*(f"p4_{n}105.nii.gz" for n in TISSUES))), NAMED),
        (22, "p4 percent", pvc("pet.nii.gz", *masks(*(f"p4_{n}pct.nii.gz" for n in TISSUES))), NAMED),
        (22, "p5 NaN outside", pvc("pet.nii.gz", *masks(*(f"p5_{n}nan.nii.gz" for n in TISSUES))), NAMED),
        (22, "p5 overshoot", pvc("pet.nii.gz", *masks(*(f"p5_{n}neg.nii.gz" for n in TISSUES))), EITHER),
        (19, "p6 NIfTI pair", pvc("p6_nipair.img", *tissue), EITHER),
        (19, "p6 Analyze", pvc("p6_analyze.img", *tissue), EITHER),
        (19, "p6 SPM99", pvc("p6_spm99.img", *tissue), EITHER),
        (8, "p7 codes 0", pvc("p7_codes0.nii.gz", *masks(*(f"p7_{n}.nii.gz" for n in TISSUES))), EITHER),
        (22, "p8 gzip named .nii", pvc("p8_really_gz.nii", *tissue), EITHER),
        (22, "p8 plain named .nii.gz", pvc("p8_not_gz.nii.gz", *tissue), EITHER),
        (19, "p10 masks turned", pvc("pet.nii.gz", *masks(*(f"p10_{n}ras.nii.gz" for n in TISSUES))), RIGHT),
        (22, "p11 five axes", pvc("p11_pet5.nii.gz", *masks("p11_m5.nii.gz")), RIGHT),
        *((19, f"p12 {name}", pvc("pet.nii.gz", *masks(name), method="GTM"), expect) for name, expect in labels),
        *(
            (14, f"sidecar {name}", pvc(f"{name}_pet.nii.gz", *tissue, fwhm=""), expect)
            for name, expect in (("p13", RIGHT), ("p13b", RIGHT), ("p13c", RIGHT), ("p13d", RIGHT), ("p13e", RIGHT))
        ),
        (19, "region by number", pvc("pet.nii.gz", *masks("aparcaseg.nii.gz"), "--table", "OUT/t.tsv",
                                     "--reference-region", "24", method="GTM"), RIGHT),
    ]  # fmt: skip
    for kind, name, argv, expect in tries:
        yield Try(kind, name, "pvc", argv, folder, expect, finite)
    for name in ("p13", "p13b", "p13c", "p13d", "p13e"):
        argv = bundle_run("pet_pvc", dataset_dir=folder / f"{name}_pet.nii.gz", output_dir="OUT", **SMALL_PET)
        yield Try(14, f"sidecar {name}", "pet_pvc", argv, folder, RIGHT, finite)


TISSUES = ("gm", "wm", "csf")


def picture_tries(folder: Path, cases: Path) -> Iterator[Try]:
    """Names of a published picture set, and grey values taken for HU."""
    folder.mkdir(parents=True)
    subprocess.run([sys.executable, str(cases / "sars_names.py")], cwd=folder, check=True, capture_output=True)
    root, bundle = folder / "sars", "lung_ct_classification"
    yield Try(
        20,
        "every picture named (n)",
        "data-list",
        ("data-list", bundle, "--root", str(root), "-o", "OUT/l.json"),
        root,
        NAMED,
    )
    one = bundle_run(bundle, dataset_dir=root, output_dir="OUT", amp=False)
    yield Try(21, "pictures without a window", bundle, one, root, NAMED)
    yield Try(21, "grey with a window in HU", bundle, (*one, "--input_kind", "grey"), root, NAMED)


def output_tries(folder: Path) -> Iterator[Try]:
    """Outputs over inputs, over earlier results, and inputs that are links."""
    for number, command in enumerate(CTS):
        place = folder / f"{number}"
        bad_input.ct(place, "a.nii.gz")
        bad_input.ct(place / "raw", "a.nii.gz")
        yield Try(
            10, "OUT is a folder of IN's files", command, command_on(command, place, place / "raw"), place, EITHER
        )
        same = folder / f"same{number}"
        bad_input.ct(same, "a.nii.gz")
        yield Try(
            10,
            "OUT is IN",
            command,
            command_on(command, same, same),
            same,
            NAMED if command != "classification" else EITHER,
        )
        linked = folder / f"linked{number}"
        bad_input.ct(linked / "in", "a.nii.gz")
        (linked / "out").mkdir()
        os.link(linked / "in" / "a.nii.gz", linked / "out" / "a.nii.gz")
        if command != "classification":
            yield Try(
                10,
                "OUT is a hard link to IN",
                command,
                command_on(command, linked / "in", linked / "out"),
                linked,
                NAMED,
            )
    pet = folder / "pet"
    bad_input.pet(pet, "a_pet.nii.gz")
    bad_input.nifti(pet / "lab.nii.gz", (bad_input.pet_voxels() > 4000).astype(np.uint8) + 1, bad_input.PET_AFFINE)
    (pet / "lab.tsv").write_text("index\tname\n1\trest\n2\thead\n")
    base = (
        "pvc",
        "-i",
        str(pet / "a_pet.nii.gz"),
        "-m",
        str(pet / "lab.nii.gz"),
        "-x",
        "9",
        "-y",
        "9",
        "-z",
        "9",
        "-p",
        "GTM",
    )
    yield Try(10, "the table over its lookup table", "pvc", (*base, "-o", str(pet / "lab.tsv")), pet, NAMED)
    yield Try(10, "the output over its mask", "pvc", (*base, "-o", str(pet / "lab.nii.gz")), pet, NAMED)
    yield Try(
        10,
        "the table over the PET's sidecar",
        "pvc",
        (*base, "-o", "OUT/x.tsv", "--table", str(pet / "lab.tsv")),
        pet,
        NAMED,
    )
    yield Try(
        10,
        "OUT is IN",
        "pet_pvc",
        bundle_run("pet_pvc", dataset_dir=pet / "a_pet.nii.gz", output_dir=pet, fwhm_mm=12, **SMALL_PET),
        pet,
        EITHER,
    )


# ---------------------------------------------------------------------------------------------------------------------
# Running


def digest(source: Path) -> dict[str, str]:
    """The content of a file, or of all files under a folder, by name."""
    paths = [source] if source.is_symlink() or not source.is_dir() else sorted(source.rglob("*"))
    found = {}
    for path in paths:
        if path.is_symlink():
            found[str(path)] = f"link to {path.readlink()}"
        elif path.is_file():
            found[str(path)] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def in_child(argv: tuple[str, ...], log: Path, here: Path) -> NoReturn:
    """Run a command in a forked process, its output in a file; torch and MONAI are loaded already."""
    os.setsid()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(file, 1)
    os.dup2(file, 2)
    sys.stdout, sys.stderr = os.fdopen(1, "w", buffering=1), os.fdopen(2, "w", buffering=1)
    os.chdir(here)
    status = 1
    try:
        if argv[0] == "run":
            sys.argv = ["python -m monai.bundle", *argv]
            logging.basicConfig(level=logging.INFO)
            runpy.run_module("monai.bundle", run_name="__main__", alter_sys=True)
            status = 0
        else:
            from ctrestore.commands.main import main

            status = main(list(argv))
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def run(argv: tuple[str, ...], log: Path, here: Path) -> int | None:
    """The exit status of a command; None: it did not end in time."""
    here.mkdir(parents=True, exist_ok=True)
    pid = os.fork()
    if pid == 0:
        in_child(argv, log, here)
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return None


def outcome(
    one: Try, status: int | None, printed: str, here: Path, out: Path, before: dict[str, str]
) -> tuple[str, str]:
    """How a try ended, and why it is called so."""
    after = digest(one.source)
    if any(after.get(name) != content for name, content in before.items()):
        return "lost", "an input was altered"
    drafts = (
        [path for place in (here, one.source) for path in place.rglob(".*") if path.is_file()] if here.is_dir() else []
    )
    if drafts and not all(str(path) in before for path in drafts):
        return "lost", f"left behind: {drafts[0].name}"
    lines = [line for line in printed.splitlines() if line.strip()]
    if "Traceback (most recent call last)" in printed:
        return "traceback", lines[-1] if lines else ""
    if status is None:
        return "unclear", "no end within the time limit"
    told = names_it(one, printed)
    last = lines[-1] if lines else ""
    if status != 0:
        if one.expect == RIGHT:
            return "unclear", f"refused though right: {last[:300]}"
        if status not in (1, 2) or not lines or not any("error:" in line or "skipped" in line for line in lines):
            return "unclear", f"status {status}: {last[:300]}"
        return ("named", last[:300]) if told else ("unclear", f"not named: {last[:300]}")
    fault = one.check(one.source, out) if one.check is not None else None
    if one.expect != NAMED and fault is None:
        return "right", ""
    if warned(one, lines):
        return "named", next(line for line in lines if warned(one, [line]))[:300]
    return "silent", fault or "accepted without a word"


def names_it(one: Try, printed: str) -> bool:
    """Whether the message names what it is about: the file or folder, or the option."""
    folded = " ".join(printed.split())
    options = [word.lstrip("-").replace("-", "_") for word in one.name.split() if word.startswith("-")]
    if options:
        return any(re.search(rf"\b{re.escape(o)}\b", folded.replace("-", "_")) for o in options)
    words = [part for path in (one.source, *one.source.parents[:1]) for part in path.name.split("\n")[:1]]
    inside = [path.name for path in one.source.iterdir()] if one.source.is_dir() and not one.source.is_symlink() else []
    return any(word[:40] in folded for word in (*words, *inside) if word)


def warned(one: Try, lines: list[str]) -> bool:
    """Whether a line warns, and names the input."""
    hints = ("warning", "warn", "skipped", "set apart", "kept as", "restored before", "unverified", "assumed")
    return any(names_it(one, line) and any(hint in line.lower() for hint in hints) for line in lines)


def tries_of(inputs: Iterator[Input], out: Path, goods: dict[str, Path]) -> Iterator[Try]:
    """Every command on every input."""
    for number, given in enumerate(inputs):
        for command in given.commands:
            folder = out / f"{number}-{command.replace(' ', '')}"
            check = as_for(goods[command]) if given.exact and given.expect == RIGHT else given.check
            yield Try(
                given.kind,
                given.name,
                command,
                command_on(command, given.path, folder),
                given.path,
                given.expect,
                check,
            )


def main() -> int:
    """Print how every try ended."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--cases", type=Path, help="folder of case scripts (default: cases in or beside $CTRESTORE_DATA)"
    )
    parser.add_argument("--only", nargs="+", help="rows: commands or bundles")
    parser.add_argument("--kinds", nargs="+", type=int, help="kinds of fault")
    parser.add_argument("--name", help="only names that hold this")
    parser.add_argument("--keep", type=Path, help="keep inputs, outputs and logs in this folder")
    parser.add_argument("--share", default="0/1", help="I/N: the I-th of N shares of the tries")
    args = parser.parse_args()
    data = Path(os.environ.get("CTRESTORE_DATA", "nowhere"))
    cases = args.cases or next((place for place in (data / "cases", data.parent / "cases") if place.is_dir()), data)
    torch.set_num_threads(1)
    import monai.bundle  # noqa: F401  before the processes are forked

    import ctrestore.tasks.pet_pvc.correction  # noqa: F401

    folder = args.keep or Path(tempfile.mkdtemp())
    folder.mkdir(parents=True, exist_ok=True)
    goods = good_outputs(folder / "good")
    inputs = list(own_inputs(folder / "own"))
    if cases.is_dir():
        inputs += script_inputs(cases, folder / "scripts")
    tries = list(tries_of(iter(inputs), folder / "out", goods))
    tries += [
        *setting_tries(folder / "settings"),
        *weights_tries(folder / "weights"),
        *output_tries(folder / "outputs"),
    ]
    if cases.is_dir():
        tries += [*pvc_tries(folder / "pvc", cases), *picture_tries(folder / "pictures", cases)]
    n_inputs = len({(one.source, one.name) for one in tries})
    assert n_inputs >= FEWEST_INPUTS or not cases.is_dir(), f"{n_inputs} inputs, expected {FEWEST_INPUTS} or more"
    chosen = [
        one for one in tries
        if (not args.only or one.command in args.only) and (not args.kinds or one.kind in args.kinds)
        and (not args.name or args.name in one.name)
    ]  # fmt: skip
    share, shares = (int(number) for number in args.share.split("/"))
    chosen = chosen[share::shares]
    print(f"{n_inputs} inputs, {len(tries)} tries, of which {len(chosen)} here")
    counts: dict[tuple[str, str], collections.Counter] = {}
    for number, one in enumerate(tqdm(chosen, disable=None)):
        place = folder / "tries" / f"{share}-{number}"
        out = Path(one.argv[-1]) if one.command in ("denoise", "upscale", "simulate-dose") else place / "OUT"
        argv = tuple(
            word.replace("OUT", str(place / "OUT"), 1) if word.startswith("OUT") else word for word in one.argv
        )
        for key in ("--output_dir", "-o"):
            if key in argv:
                out = Path(argv[argv.index(key) + 1])
                out = out.parent if key == "-o" else out
        before = digest(one.source)
        status = run(argv, folder / f"log-{share}-{number}.txt", place)
        printed = (folder / f"log-{share}-{number}.txt").read_text(errors="replace")
        ended, why = outcome(one, status, printed, place, out, before)
        for row in (("kind", f"{one.kind:2d}"), ("command", one.command)):
            counts.setdefault(row, collections.Counter())[ended] += 1
        if ended not in ("right", "named"):
            tqdm.write(f"{ended:9} kind {one.kind:2d} {one.command}: {one.name}: {why}  [log-{share}-{number}]")
    for what in ("kind", "command"):
        print(f"\n| {what} | tried | {' | '.join(OUTCOMES)} |\n| --- | {' | '.join(['---'] * (len(OUTCOMES) + 1))} |")
        for (group, name), count in sorted(counts.items()):
            if group == what:
                print(f"| {name} | {sum(count.values())} | {' | '.join(str(count[o]) for o in OUTCOMES)} |")
    total = sum((count for (group, _), count in counts.items() if group == "kind"), collections.Counter())
    print(f"| all | {sum(total.values())} | {' | '.join(str(total[o]) for o in OUTCOMES)} |")
    if args.keep is None:
        shutil.rmtree(folder, ignore_errors=True)
    return 1 if total["silent"] or total["lost"] or total["traceback"] else 0


def good_outputs(folder: Path) -> dict[str, Path]:
    """What each command makes of a good scan, by the command."""
    pet, ct = bad_input.pet(folder / "pet", "good.nii"), bad_input.ct(folder / "ct", "good.nii")
    found = {}
    for command in (*PETS, *CTS):
        out = found[command] = folder / command.replace(" ", "")
        status = run(command_on(command, pet if command in PETS else ct, out), folder / "log.txt", folder)
        if status != 0:
            raise RuntimeError(f"{command} refused a good scan: {(folder / 'log.txt').read_text()[-1000:]}")
    return found


if __name__ == "__main__":
    sys.exit(main())
