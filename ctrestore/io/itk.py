"""MHA, MHD and NRRD volumes, read by SimpleITK from the extra ``itk``."""

from __future__ import annotations

import importlib
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from ctrestore.errors import InputError

ITK_ENDINGS = (".mha", ".mhd", ".nrrd", ".nhdr")
SPACING_FIELDS = (b"elementspacing", b"elementsize", b"space directions", b"spacings")
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def read_itk(path: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """Voxels as float32 ``(x, y, z)`` and the RAS affine of a volume.

    Raises:
        InputError: SimpleITK is missing, or the file is damaged, is not one volume of one channel, or has no spacing.
    """
    path = Path(path)
    if find_spec("SimpleITK") is None:
        raise InputError(f'{path}: {path.suffix} files need SimpleITK. Remedy: pip install "ctrestore[itk]".')
    sitk = importlib.import_module("SimpleITK")
    try:
        image = sitk.ReadImage(str(path))
    except RuntimeError as error:
        reason = " ".join(str(error).split())[-200:]
        raise InputError(
            f"{path}: cannot be read ({reason}). Usual cause: a truncated copy, or a header without its data file. "
            "Remedy: copy it again, together with its data file."
        ) from error
    if image.GetDimension() != 3 or image.GetNumberOfComponentsPerPixel() != 1:
        raise InputError(
            f"{path}: expected one volume of one channel, got {image.GetDimension()} dimensions and "
            f"{image.GetNumberOfComponentsPerPixel()} channels. Remedy: export a single scalar volume."
        )
    with path.open("rb") as file:
        header = file.read(4096).lower()
    if not any(field in header for field in SPACING_FIELDS):
        raise InputError(
            f"{path}: its header states no voxel size, and SimpleITK would assume 1 mm. Remedy: add ElementSpacing "
            "(MHA, MHD) or 'space directions' (NRRD)."
        )
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    return sitk.GetArrayFromImage(image).T.astype(np.float32), LPS_TO_RAS @ affine
