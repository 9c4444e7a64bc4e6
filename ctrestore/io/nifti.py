"""NIfTI files and their JSON sidecars: checked, read as float32, and written atomically."""

from __future__ import annotations

import io
import json
import math
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import nibabel as nib
import numpy as np

from ctrestore.errors import InputError
from ctrestore.io.marks import mark_nifti
from ctrestore.io.whole import read_json, written_whole
from ctrestore.psf import check_voxel_sizes

COMPRESSED = (".gz", ".bz2", ".zst", ".mgz")


def stem(path: str | Path) -> str:
    """File name without .nii or .nii.gz."""
    return Path(path).name.removesuffix(".gz").removesuffix(".nii")


def sidecar_of(image: str | Path) -> Path:
    """The path of an image's JSON sidecar, which may not exist."""
    return Path(image).with_name(f"{stem(image)}.json")


def read_sidecar(image: str | Path) -> dict[str, Any]:
    """The content of an image's JSON sidecar; empty if there is none."""
    path = sidecar_of(image)
    return read_json(path) if path.is_file() else {}


def fwhm_from_sidecar(image: str | Path) -> tuple[float, ...]:
    """FWHM in mm along the patient's axes x, y, z (right, front, up), from the image's JSON sidecar.

    Raises:
        InputError: there is no such file, or it does not hold FWHM_x, FWHM_y and FWHM_z.
    """
    image = Path(image)
    sidecar = sidecar_of(image)
    remedy = "Add FWHM_x, FWHM_y and FWHM_z (the scanner's resolution in mm) to it, or give the FWHM as an argument."
    if not sidecar.is_file():
        raise InputError(f"{sidecar}: no such sidecar, so the PSF of {image.name} is unknown. {remedy}")
    try:
        content = json.loads(sidecar.read_text(encoding="utf-8"))
        listed = tuple(float(content[f"FWHM_{axis}"]) for axis in "xyz")
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{sidecar}: cannot read the PSF from this sidecar ({error!r}). {remedy}") from error
    if not all(math.isfinite(width) and width > 0 for width in listed):
        raise InputError(f"{sidecar}: expected FWHMs in mm greater than 0; got {listed}. {remedy}")
    return listed


def fwhm_of_array_axes(fwhm_mm: Sequence[float], affine: np.ndarray) -> tuple[float, ...]:
    """FWHM along the array's axes, from those along the patient's axes x, y, z.

    On a tilted grid each array axis gets the value of the closest patient axis.

    >>> posterior_inferior_right = np.array([[0, 0, 1, 0], [-1, 0, 0, 0], [0, -1, 0, 0], [0, 0, 0, 1]])
    >>> fwhm_of_array_axes((4.0, 5.0, 6.0), posterior_inferior_right)
    (5.0, 6.0, 4.0)
    """
    return tuple(fwhm_mm[int(axis)] for axis in nib.io_orientation(affine)[:, 0])


def fwhm_of_patient_axes(fwhm_mm: Sequence[float], affine: np.ndarray) -> tuple[float, ...]:
    """FWHM along the patient's axes x, y, z, from those along the array's axes; undoes :func:`fwhm_of_array_axes`.

    >>> posterior_inferior_right = np.array([[0, 0, 1, 0], [-1, 0, 0, 0], [0, -1, 0, 0], [0, 0, 0, 1]])
    >>> fwhm_of_patient_axes((5.0, 6.0, 4.0), posterior_inferior_right)
    (4.0, 5.0, 6.0)
    """
    array_axis = [int(axis) for axis in nib.io_orientation(affine)[:, 0]]
    return tuple(fwhm_mm[array_axis.index(axis)] for axis in range(3))


def check_header(path: str | Path) -> None:
    """Refuse a NIfTI with implausible voxels in its own header; readers silently change zero to 1 mm.

    Raises:
        InputError: zero or absurd voxel sizes, no affine, or voxels that are not real numbers.
    """
    try:
        image: Any = nib.load(path)
        matrix = np.asarray(image.affine[:3, :3])
    except ValueError as error:
        raise InputError(f"its header gives no affine ({error}). Remedy: set its sform and pixdim.") from None
    if isinstance(image.header, nib.Nifti1Header) and not int(image.header["sform_code"]):
        with nib.openers.ImageOpener(str(path)) as file:
            as_written = type(image.header).from_fileobj(file, check=False)
        matrix = np.diag(as_written["pixdim"][1:4])
    check_voxel_sizes(matrix)
    kind = image.get_data_dtype()
    if kind.kind not in "iuf":
        raise InputError(f"its voxels are {kind}, not real numbers. Remedy: export it as a scalar image.")


def read_voxels(path: str | Path, *, keep_integers: bool = False) -> np.ndarray:
    """The voxels as stored ``(x, y, z)`` or ``(x, y, z, frame)``, trailing axes of length 1 dropped.

    Args:
        path: a NIfTI.
        keep_integers: return integers without scale or offset as they are, in a quarter of the memory.

    Returns:
        float32, or the file's integers.

    Raises:
        InputError: the file is damaged.
    """
    image: Any = nib.load(path)
    slope, intercept = getattr(image.dataobj, "slope", 1.0), getattr(image.dataobj, "inter", 0.0)
    stored = image.get_data_dtype()
    as_stored = keep_integers and stored.kind in "iu" and (slope, intercept) == (1.0, 0.0)
    dtype = stored.newbyteorder("=") if as_stored else np.dtype(np.float32)
    try:
        voxels = _read_to_the_end(image, Path(path), dtype)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: damaged ({error}). Usual cause: an interrupted copy. Copy it again.") from error
    while voxels.ndim > 3 and voxels.shape[-1] == 1:
        voxels = voxels[..., 0]
    return voxels


def _read_to_the_end(image: Any, path: Path, dtype: np.dtype) -> np.ndarray:
    """The voxels of an image; also reads its compressed stream to the end, where gzip's checksum is.

    One pass over the file. A reader that stops at the last voxel would not notice a flipped byte.
    """
    if path.suffix.lower() not in COMPRESSED:
        return np.asarray(image.dataobj, dtype=dtype)
    with nib.openers.ImageOpener(str(path)) as opened:
        stream: Any = opened
        if set(image.file_map) == {"image"}:  # header and voxels in one file
            image = type(image).from_file_map({"image": nib.FileHolder(fileobj=stream)})
            voxels = np.asarray(image.dataobj, dtype=dtype)
        else:
            voxels = np.asarray(image.dataobj, dtype=dtype)
        while stream.read(1 << 20):
            pass
    return voxels


def write_like(
    source: str | Path, voxels: np.ndarray, path: Path, *, description: str = "", nothing_repeats: bool = False
) -> None:
    """Write voxels as float32 with affine, units, frame duration and orientation codes of a source image.

    The voxels have the source's shape, or other axes after x, y and z. The file is written next to its place and
    renamed, so a full disk or a kill leaves no partial image. For ``nothing_repeats`` see :func:`write_nifti`.
    """
    original: Any = nib.load(source)
    header = original.header.copy()
    if not isinstance(header, nib.Nifti1Header):
        header = nib.Nifti1Header.from_header(header)
        header.set_xyzt_units("mm", "sec")
    header.set_data_dtype(np.float32)
    header.set_slope_inter(1.0, 0.0)
    if voxels.size == np.prod(original.shape):
        voxels = voxels.reshape(original.shape)
    else:
        header["pixdim"][4] = 1.0  # the fourth axis is not the source's time
    image = nib.Nifti1Image(voxels, original.affine, header)
    write_nifti(image, path, description=description, nothing_repeats=nothing_repeats)


class _GzipOfRuns(io.RawIOBase):
    """A gzip stream, without a time, that only compresses runs of one byte."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.n_bytes = file, 0
        self.deflate = zlib.compressobj(level=1, wbits=16 + zlib.MAX_WBITS, strategy=zlib.Z_RLE)

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.n_bytes

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Forward only, over zeros, which are between a header and its voxels."""
        self.write(bytes(offset - self.n_bytes))
        return self.n_bytes

    def write(self, data: Any) -> int:
        self.file.write(self.deflate.compress(data))
        self.n_bytes += memoryview(data).nbytes
        return memoryview(data).nbytes

    def close(self) -> None:
        if not self.closed:
            self.file.write(self.deflate.flush())
        super().close()


def write_nifti(image: nib.Nifti1Image, path: Path, *, description: str = "", nothing_repeats: bool = False) -> None:
    """Write an image atomically, without the source's display window; the folder is created if necessary.

    Args:
        image: the image; its header is changed.
        path: ending in .nii or .nii.gz.
        description: for the header, 79 letters; ours are in :mod:`ctrestore.io.marks`.
        nothing_repeats: for float voxels in which only zero is frequent, as in a PET: writing a .nii.gz then takes less
            than half the time, and it is no larger. If the air is -1000 or the voxels are integers it would be larger.
    """
    mark_nifti(image.header, description)
    image.header["cal_max"] = image.header["cal_min"] = 0
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(path) as draft:
        if nothing_repeats and path.suffix == ".gz":
            with draft.open("wb") as file, _GzipOfRuns(file) as stream:
                image.to_stream(stream)
        else:
            nib.save(image, draft)


NIFTI = (".nii", ".nii.gz")


def is_nifti(path: Path) -> bool:
    """Whether a visible file's name ends like a NIfTI's."""
    return path.name.endswith(NIFTI) and not path.name.startswith(".") and path.is_file()
