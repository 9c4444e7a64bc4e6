"""From the files after ``-m`` to regions on the grid of the PET."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.affines import voxel_sizes

from ctrestore.errors import InputError
from ctrestore.io.grid import GRID_TOLERANCE_MM, Grid, read_grid
from ctrestore.io.nifti import check_header, read_sidecar, read_voxels, stem
from ctrestore.pvc import Regions, fit_parcels

MAX_REGIONS = 5000  # the finest atlases have about a thousand
MAX_LABEL = 1 << 24  # FreeSurfer's go to 14,175


def read_regions(
    files: Sequence[Path],
    *,
    pet: Path,
    fwhm_mm: Sequence[float],
    parcels: Path | None = None,
    lut: Path | None = None,
    resample: bool = False,
    device: str | None = None,
) -> Regions:
    """The regions that a user's files describe, named as well as the files tell.

    Args:
        files: a 4-D file with a mask a region, a 3-D label map, a 3-D mask, or several of these.
        pet: whose grid they must lie on, to 0.01 mm.
        fwhm_mm: of the PSF, which decides how small a parcel may be (:func:`ctrestore.pvc.fit_parcels`).
        parcels: label map that parts the first mask, which is grey matter; the second is white matter, the third CSF.
        lut: names of the labels, or of the masks of a 4-D file counted from 1.
        resample: interpolate masks on another grid (linearly; labels: nearest) instead of refusing them.
        device: of the regions' tensors; None: numpy arrays.

    Raises:
        InputError: a file is unreadable, off the grid, or no mask; overlapping or empty masks; the files are named.
    """
    grid = spatial(read_grid(pet))
    volumes = [_read(path, pet=pet, grid=grid, labels=len(files) == 1, resample=resample) for path in files]
    several = [path for path, volume in zip(files, volumes) if volume.ndim != 3]
    if several and len(files) > 1:
        raise InputError(
            f"{several[0]}: expected a mask of three axes, got {volumes[files.index(several[0])].ndim}. After -m "
            "stands either one 4-D file or several 3-D ones."
        )
    names: list[str] | None = [stem(path) for path in files]
    if len(files) == 1 and volumes[0].ndim == 4:
        masks, names = volumes[0], _names_of_masks(files[0], volumes[0].shape[-1], lut)
    elif len(files) > 1:
        masks = np.stack([volume.T for volume in volumes]).T  # in the memory order of a NIfTI, x fastest
    else:
        masks = volumes[0][..., None]

    named = ", ".join(map(str, files))
    if parcels is not None:
        named += f", {parcels}"
        parts = _read(parcels, pet=pet, grid=grid, labels=True, resample=resample)
    try:
        if parcels is not None:
            parts = _fitted(parts, masks[..., 0], fwhm_mm=fwhm_mm, spacing_mm=voxel_sizes(grid.affine))
            return _checked(_from_parcels(masks, parts, names=read_lut(parcels, lut), device=device))
        if len(files) == 1 and volumes[0].ndim == 3 and (labels := as_labels(volumes[0])) is not None:
            return _checked(Regions.from_labels(on(device, labels), names=read_lut(files[0], lut)))
        return Regions.from_masks(on(device, np.moveaxis(masks, -1, 0)), names=names)
    except ValueError as error:
        raise InputError(f"{named}: {error}") from error


def spatial(grid: Grid) -> Grid:
    """The grid of one frame, or of one mask."""
    return Grid(grid.shape[:3], grid.affine)


def as_labels(volume: np.ndarray) -> np.ndarray | None:
    """A volume as integers if it holds nothing else, and more than 0 and 1; otherwise None, for it is a mask.

    Raises:
        InputError: a label is larger than any atlas has.
    """
    if volume.max() > 1:
        if volume.max() >= MAX_LABEL:
            raise InputError(f"it holds {volume.max():.6g}, which is no label. Usual cause: an image in its place.")
        if volume.dtype.kind == "u" and volume.dtype.itemsize == 8:
            return volume.astype(np.int64)  # torch and bincount want signed ones
        if volume.dtype.kind in "iu":
            return volume
        if np.array_equal(volume, np.rint(volume)):
            return volume.astype(np.int32)
    return None


def on(device: str | None, array: np.ndarray) -> Any:
    """The array as it is, in the memory order of its file, or as a tensor on a device.

    Raises:
        InputError: there is no such device.
    """
    if device is None:
        return array
    import torch  # takes seconds, and numpy needs none of it

    if array.dtype.kind in "u" and array.dtype.itemsize > 1:
        array = array.astype(np.int64 if array.dtype.itemsize > 2 else np.int32)
    try:
        return torch.from_numpy(np.ascontiguousarray(array)).to(device)
    except (RuntimeError, AssertionError) as error:
        n_gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
        have = ", ".join(["cpu", *(f"cuda:{i}" for i in range(n_gpus))])
        raise InputError(
            f"device {device!r} cannot be used ({str(error).splitlines()[0]}); there is {have}. Remedy: --device cpu, "
            "or none at all."
        ) from error


def _read(path: Path, *, pet: Path, grid: Grid, labels: bool, resample: bool) -> np.ndarray:
    """Voxels on the PET's grid ``(x, y, z)`` or ``(x, y, z, region)``: integers as stored, otherwise float32."""
    own = read_grid(path)  # says whether it is a NIfTI and whole
    try:
        check_header(path)
    except ValueError as error:
        raise InputError(f"{path}: {error}") from error
    if len(own.shape) == 5 and own.shape[3] == 1:  # how ANTs and others write vectors
        volume = read_voxels(path, keep_integers=labels)[:, :, :, 0]
    elif len(own.shape) <= 4:
        volume = read_voxels(path, keep_integers=labels)
    else:
        raise InputError(f"{path}: expected (x, y, z) or (x, y, z, region), got shape {own.shape}.")
    if volume.ndim == 4 or not labels:
        volume = volume.astype(np.float32, copy=False)
    n_bad = volume.size - int(np.count_nonzero(np.isfinite(volume))) if volume.dtype.kind == "f" else 0
    if n_bad:
        raise InputError(f"{path}: {n_bad} voxels are NaN or infinite. Remedy: replace them, say by 0.")
    off_by_mm = spatial(own).distance_mm(grid)
    if off_by_mm <= GRID_TOLERANCE_MM:
        return volume
    if not resample:
        fault = (
            f"its shape is {own.shape[:3]}, that of the PET {grid.shape}"
            if own.shape[:3] != grid.shape
            else f"its voxels lie up to {off_by_mm:.3g} mm from those of the PET"
        )
        raise InputError(
            f"{path}: not on the grid of {pet}: {fault}. Remedy: --resample-masks, if both show the head in one place."
        )
    return _resampled(volume, own.affine, grid)


def _resampled(volume: np.ndarray, affine: np.ndarray, grid: Grid) -> np.ndarray:
    """Labels by the nearest voxel, probabilities linearly; 0 outside."""
    from nibabel.processing import resample_from_to

    if volume.ndim == 4:
        return np.stack([_resampled(mask, affine, grid) for mask in np.moveaxis(volume, -1, 0)], axis=-1)
    labels = as_labels(volume)
    source = nib.Nifti1Image(volume if labels is None else labels.astype(np.int32), affine)
    order, kind = (1, np.float32) if labels is None else (0, np.int32)
    moved: Any = resample_from_to(source, (grid.shape, grid.affine), order=order)
    return np.asarray(moved.dataobj, dtype=kind)


def _fitted(
    parcels: np.ndarray, grey: np.ndarray, *, fwhm_mm: Sequence[float], spacing_mm: Sequence[float]
) -> np.ndarray:
    """The label map spread over grey matter's soft rim, without parcels too small for the PSF, which is said.

    Raises:
        InputError: it is no label map.
    """
    labels = as_labels(parcels)
    if labels is None or labels.ndim != 3:
        raise InputError("--parcels needs a 3-D map of labels 1, 2, 3 ...; got one without any label above 1.")
    fitted = fit_parcels(labels, grey, fwhm_mm=fwhm_mm, spacing_mm=spacing_mm)
    lost = sorted(set(np.unique(labels).tolist()) - set(np.unique(fitted).tolist()) - {0})
    if lost:
        print(
            f"labels {', '.join(map(str, lost))} hold less grey matter than one resolution element of the PET: they "
            "join the grey matter around them"
        )
    return fitted


def _from_parcels(masks: np.ndarray, parcels: np.ndarray, *, names: dict[int, str], device: str | None) -> Regions:
    """Soft parcels: grey matter's fraction, parted by a label map."""
    n_masks = masks.shape[-1]
    if n_masks < 2:
        raise InputError(
            f"--parcels needs masks of grey matter, white matter and, if there is one, CSF, in this order; "
            f"got {n_masks}."
        )
    grey, white, *csf = (on(device, masks[..., i]) for i in range(min(n_masks, 3)))
    return Regions.from_parcels(on(device, parcels), grey=grey, white=white, csf=csf[0] if csf else None, names=names)


def _checked(regions: Regions) -> Regions:
    """The regions, unless there are more than any atlas has."""
    if len(regions) > MAX_REGIONS:
        raise InputError(
            f"it holds {len(regions)} different numbers, and each would be a region. Usual cause: an image in the "
            "place of a label map."
        )
    return regions


def read_lut(labels: Path, lut: Path | None) -> dict[int, str]:
    """Names by label: of a lookup table, else of the ``.tsv`` beside the label map, else none.

    Raises:
        InputError: the table cannot be read, or has no columns ``index`` and ``name``.
    """
    path = labels.with_name(f"{stem(labels)}.tsv") if lut is None else lut
    if lut is None and not path.is_file():
        return {}
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix == ".tsv":
            return {int(row["index"]): row["name"] for row in csv.DictReader(text.splitlines(), delimiter="\t")}
        rows = [line.split() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
        return {int(index): name for index, name, *_ in rows}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path}: cannot be read as a table of labels ({error!r}). Expected a .tsv with columns index and name, or "
            "lines such as FreeSurfer's: index name R G B A."
        ) from error


def _names_of_masks(path: Path, n_masks: int, lut: Path | None) -> list[str] | None:
    """Names of the volumes of a 4-D file: a lookup table's, else the sidecar's (BIDS ``LabelMap``), else None."""
    names = {} if lut is None else read_lut(path, lut)
    listed = read_sidecar(path).get("LabelMap", [])
    if not names and isinstance(listed, list) and len(listed) == n_masks:
        names = dict(enumerate(map(str, listed), start=1))
    return [names.get(number, f"region-{number}") for number in range(1, n_masks + 1)] if names else None
