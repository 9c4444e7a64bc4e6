"""Makers of bad input: the files that unlucky users have, made by code, every value invented.

A maker takes an empty folder and gives the path to name. Tests beside the module that refuses the input call one maker
by its name, under the marker ``bad_input``; ``benchmarks/bad_input.py`` gives all of them to every command and bundle.
"""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from scipy.ndimage import gaussian_filter

# ---------------------------------------------------------------------------------------------------------------------
# Good scans, which the makers spoil


def pet_voxels(side: int = 20) -> np.ndarray:
    """A head of two tissues, blurred: float32 ``(side, side, side)``, every voxel above zero."""
    position = np.stack(np.meshgrid(*[np.arange(side) - (side - 1) / 2] * 3, indexing="ij"))
    radius = np.sqrt((position**2).sum(0))
    activity = np.where(radius < 0.38 * side, 5000.0, 0.0) + np.where(radius < 0.2 * side, 10000.0, 0.0)
    noise = np.random.default_rng(0).random((side,) * 3)
    return np.asarray(gaussian_filter(activity, 1.0) + noise, dtype=np.float32)


def ct_voxels(side: int = 48, n_slices: int = 3) -> np.ndarray:
    """A round body of soft tissue in air: int16 HU ``(side, side, n_slices)``."""
    x, y = np.meshgrid(*[np.arange(side) - (side - 1) / 2] * 2, indexing="ij")
    hu = np.where(np.hypot(x, y) < 0.4 * side, 40.0, -1000.0)[..., None]
    noise = np.random.default_rng(0).normal(0, 20, (side, side, n_slices))
    return np.rint(hu + noise).astype(np.int16)


PET_AFFINE = np.diag([9.0, 9.0, 9.0, 1.0])  # 20 voxels are a head of 180 mm
CT_AFFINE = np.diag([-0.8, -0.8, 3.0, 1.0])


def nifti(path: Path, voxels: np.ndarray, affine: np.ndarray) -> Path:
    """A NIfTI in mm."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(voxels, affine, dtype=voxels.dtype)
    image.header.set_xyzt_units("mm", "sec")
    nib.save(image, path)
    return path


def pet(folder: Path, name: str = "pet.nii.gz") -> Path:
    """A good PET."""
    return nifti(folder / name, pet_voxels(), PET_AFFINE)


def ct(folder: Path, name: str = "ct.nii.gz") -> Path:
    """A good CT volume."""
    return nifti(folder / name, ct_voxels(), CT_AFFINE)


def with_header(path: Path, **fields: Any) -> Path:
    """The uncompressed NIfTI again, with raw header fields of another value; nibabel would mend or refuse many."""
    raw = bytearray(path.read_bytes())
    header = np.frombuffer(bytes(raw[:348]), nib.Nifti1Header.template_dtype).copy()
    for name, value in fields.items():
        header[name] = value
    raw[:348] = header.tobytes()
    path.write_bytes(bytes(raw))
    return path


# ---------------------------------------------------------------------------------------------------------------------
# Kind 4: damaged compressed files


def flipped_byte(path: Path, fraction: float = 0.5) -> Path:
    """The file with one byte altered at a fraction of its length."""
    raw = bytearray(path.read_bytes())
    raw[int(fraction * (len(raw) - 9))] ^= 0xFF  # the last eight are the checksum and length
    path.write_bytes(bytes(raw))
    return path


# ---------------------------------------------------------------------------------------------------------------------
# Kind 6: what is no HU; kind 17: CT series that look wrong and are right


# ---------------------------------------------------------------------------------------------------------------------
# Kind 7: non-finite or foreign weights


# ---------------------------------------------------------------------------------------------------------------------
# Kind 8: geometry that cannot be


# ---------------------------------------------------------------------------------------------------------------------
# Kinds 9 and 16: training data and settings


# ---------------------------------------------------------------------------------------------------------------------
# Kinds 10 to 13 and 15: where outputs go, and what is left out


# ---------------------------------------------------------------------------------------------------------------------
# Kinds 14 and 23: sidecars, masks, frames


# ---------------------------------------------------------------------------------------------------------------------
# Kind 18: PET series in DICOM


# ---------------------------------------------------------------------------------------------------------------------
# Kind 19: MGH files and other orientations


# ---------------------------------------------------------------------------------------------------------------------
# Kinds 20 and 21: pictures


# ---------------------------------------------------------------------------------------------------------------------
# Kind 22: voxels, headers, files and names of NIfTI


def spoiled_voxels(good: np.ndarray) -> dict[str, np.ndarray]:
    """Voxels that are no scan, or no usual one, by what is wrong with them."""
    values = good.astype(np.float32)

    def with_voxel(value: float) -> np.ndarray:
        copy = values.copy()
        copy[10, 10, 1] = value
        return copy

    colour = np.zeros(good.shape, dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    colour["R"] = 9
    part = values.copy()
    part[5:8] = np.nan
    return {
        "nan": part,
        "nan1": with_voxel(np.nan),
        "inf": with_voxel(np.inf),
        "ninf": with_voxel(-np.inf),
        "allnan": np.full_like(values, np.nan),
        "zero": np.zeros_like(values),
        "const": np.full_like(values, 7),
        "negative": -np.abs(values) - 1,
        "d2": values[..., 1],
        "oneslice": values[..., 1:2],
        "d4": np.stack([values] * 2, -1),
        "d4one": values[..., None],
        "d5": np.stack([np.stack([values] * 2, -1)] * 2, -1),
        "d5vec": np.stack([values] * 3, -1)[:, :, :, None, :],
        "complex": values.astype(np.complex64),
        "rgb": colour,
        "binary": (values > values.mean()).astype(np.uint8),
        "uint64": np.abs(values).astype(np.uint64),
        "f64huge": values.astype(np.float64) * 1e300,
        "f64_1e35": values.astype(np.float64) * 1e35,
        "f64tiny": values.astype(np.float64) * 1e-42,
    }


NAN, INF = float("nan"), float("inf")
NO_CODES = {"sform_code": 0, "qform_code": 0}
AS_QFORM = {"sform_code": 0, "qform_code": 1}
PIXDIM = {
    "pix0": (1, 0, 0, 0, 1, 1, 1, 1),
    "pixneg": (1, -3, 3, 3, 1, 1, 1, 1),
    "pixnan": (1, NAN, 3, 3, 1, 1, 1, 1),
    "pixinf": (1, INF, 3, 3, 1, 1, 1, 1),
    "pixhuge": (1, 3e6, 3e6, 3e6, 1, 1, 1, 1),
    "pixmicro": (1, 3e-6, 3e-6, 3e-6, 1, 1, 1, 1),
}
SPOILED_HEADERS: dict[str, dict[str, Any]] = {
    **{name: {"pixdim": sizes, **NO_CODES} for name, sizes in PIXDIM.items()},
    **{f"{name}_q": {"pixdim": sizes, **AS_QFORM} for name, sizes in PIXDIM.items()},
    "singular": {"sform_code": 1, "srow_x": (0, 0, 0, 0), "srow_y": (0, 3, 0, 0), "srow_z": (0, 0, 3, 0)},
    "singular2": {"sform_code": 1, "srow_x": (3, 3, 0, 0), "srow_y": (3, 3, 0, 0), "srow_z": (0, 0, 3, 0)},
    "sheared": {"sform_code": 1, "srow_x": (3, 1.5, 0, 0), "srow_y": (0, 3, 0, 0), "srow_z": (0, 0, 3, 0)},
    "srownan": {"sform_code": 1, "srow_x": (NAN, 0, 0, 0)},
    "qsdisagree": {
        "sform_code": 1, "qform_code": 1,
        "srow_x": (3, 0, 0, 0), "srow_y": (0, 3, 0, 0), "srow_z": (0, 0, 3, 0),
        "pixdim": (1, 1, 1, 9, 1, 1, 1, 1), "quatern_b": 0.5, "quatern_c": 0.5,
    },
    "quatbad": {**AS_QFORM, "quatern_b": 5.0, "quatern_c": 5.0, "quatern_d": 5.0},
    "bigdim": {"dim": (3, 30000, 30000, 30000, 1, 1, 1, 1)},
    "dim2000": {"dim": (3, 2000, 2000, 2000, 1, 1, 1, 1)},
    "dimneg": {"dim": (3, -20, 20, 20, 1, 1, 1, 1)},
    "dim0": {"dim": (0, 0, 0, 0, 0, 0, 0, 0)},
    "dim9": {"dim": (9, 20, 20, 20, 1, 1, 1, 1)},
    "dimzero": {"dim": (3, 20, 0, 20, 1, 1, 1, 1)},
    "dtbad": {"datatype": 1234},
    "magic": {"magic": b"abc\0"},
    "slope0": {"scl_slope": 0.0, "scl_inter": 5.0},
    "slopenan": {"scl_slope": NAN, "scl_inter": NAN},
    "slopeinf": {"scl_slope": INF, "scl_inter": 0},
    "slopeneg": {"scl_slope": -1.0, "scl_inter": 0},
    "slope1e30": {"scl_slope": 1e30, "scl_inter": 0},
    "voxoff": {"vox_offset": 1e9},
    "voxoffneg": {"vox_offset": -5},
    "voxoffnan": {"vox_offset": NAN},
    "sizeof": {"sizeof_hdr": 1234},
    "microns": {"xyzt_units": 3},
    "metres": {"xyzt_units": 1},
}  # fmt: skip
NAMES = (
    "with space", "ünï–日本", "new\nline", "-dash", "quo'te\"$x", "a" * 200, "@amp", "$(touch pwned)", "%1", "[1,2]",
    "x%s%d{0}", "scan.v2", "1e5", "1_000", "a,b", "UPPER",
)  # fmt: skip


def spoiled_niftis(folder: Path, good: np.ndarray, affine: np.ndarray) -> dict[str, Path]:
    """One file a fault, by the fault's name: voxels, header fields, damaged, of another kind, and odd names."""
    made = {name: nifti(folder / f"{name}.nii.gz", v, affine) for name, v in spoiled_voxels(good).items()}
    made["ok"] = nifti(folder / "ok.nii", good, affine)
    for name, fields in SPOILED_HEADERS.items():
        made[name] = with_header(nifti(folder / f"{name}.nii", good, affine), **fields)
    packed = nifti(folder / "okz.nii.gz", good, affine)
    raw, unpacked = packed.read_bytes(), made["ok"].read_bytes()
    contents = {
        "okz.nii.gz": raw,
        "trunc.nii.gz": raw[: len(raw) // 2],
        "trunc10.nii.gz": raw[:10],
        "truncraw.nii": unpacked[:2000],
        "hdronly.nii": unpacked[:352],
        "empty.nii.gz": b"",
        "empty.nii": b"",
        "text.nii.gz": b"hello",
        "gztext.nii.gz": gzip.compress(b"hello world" * 100),
        "rawasgz.nii.gz": unpacked,
        "gzasraw.nii": raw,
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
        made[name] = folder / name
    for i, fraction in enumerate((0.1, 0.3, 0.5, 0.7, 0.9)):
        path = folder / f"flip{i}.nii.gz"
        path.write_bytes(raw)
        made[f"flip{i}"] = flipped_byte(path, fraction)
    (folder / "dir.nii.gz").mkdir()
    (folder / "loop.nii.gz").symlink_to("loop.nii.gz")
    (folder / "dangling.nii.gz").symlink_to("nowhere.nii.gz")
    made.update({name: folder / f"{name}.nii.gz" for name in ("dir", "loop", "dangling")})
    (folder / "names").mkdir()
    for name in NAMES:
        path = folder / "names" / (f"{name}.NII.GZ" if name == "UPPER" else f"{name}.nii.gz")
        path.write_bytes(raw)
        made[f"name {name[:12]!r}"] = path
    return made
