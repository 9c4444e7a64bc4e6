"""A training label from a PET and the maps of its MRI: read, brought to one grid, corrected, written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.affines import voxel_sizes
from nibabel.processing import resample_from_to

from ctrestore import __version__
from ctrestore.errors import InputError
from ctrestore.io import marks
from ctrestore.io.grid import GRID_TOLERANCE_MM, Grid, read_grid
from ctrestore.io.nifti import check_header, fwhm_of_array_axes, read_sidecar, read_voxels, sidecar_of, write_like
from ctrestore.io.whole import write_json
from ctrestore.pvc import Correction, Regions, correct, fit_parcels
from ctrestore.tasks.pet_pvc.labels.subjects import TISSUES, Sources

METHODS = ("mMG", "RBV")
# What two labels must share to be used side by side; by these a label is known to be finished.
FWHM_KEYS = ("FWHM_x", "FWHM_y", "FWHM_z")
SETTINGS = ("PVCMethod", "PVCKernel", *FWHM_KEYS, "SoftwareName", "SoftwareVersion", "Sources")
SEEN_FRACTION = 0.9  # of the brain's volume that has to lie in the field of view of the PET

RESAMPLED = "maps resampled to the grid of the PET"
NO_CSF = "no CSF map, the background takes the CSF"
NO_PARCELS = "no parcels, grey matter is one region"


def planned_sidecar(scan: Sources, method: str, fwhm_mm: tuple[float, ...], sources: Sequence[str]) -> dict[str, Any]:
    """The sidecar of a label, but for what only the correction can tell; keys as those of ``ctrestore pvc``.

    Args:
        scan: PET and maps.
        method: one of ``METHODS``.
        fwhm_mm: of the PSF, along the patient's axes x, y, z (right, front, up).
        sources: PET and maps as BIDS URIs.
    """
    content = read_sidecar(scan.image) | {
        "Description": f"Training label: PET after partial volume correction by {method}",
        "PVCMethod": method,
        **dict(zip(FWHM_KEYS, fwhm_mm)),
        "PVCKernel": "exact",
        "SoftwareName": "ctrestore",
        "SoftwareVersion": __version__,
        "SkullStripped": method == "mMG",
        "Sources": list(sources),
    }
    return content | ({"PVCConvention": "concentration"} if method == "mMG" else {})


def found_by(correction: Correction, regions: Regions, notes: Sequence[str]) -> dict[str, Any]:
    """What the sidecar says of the result."""
    found: dict[str, Any] = {"PVCBackgroundAdded": regions.background_added, "PVCNotes": list(notes)}
    if correction.white_value is not None:
        found["PVCWhiteMatterValue"] = float(correction.white_value)
    if correction.means is not None:
        found["PVCRegionMeans"] = {name: float(f"{m:.6g}") for name, m in zip(regions.names, correction.means)}
    return found


def is_finished(label: Path, scan: Sources, planned: Mapping[str, Any]) -> bool:
    """Whether the label is there, whole, made with these settings from these files as they are now."""
    sidecar = sidecar_of(label)
    if not (label.is_file() and sidecar.is_file()):  # the sidecar is written last
        return False
    newest = max(path.stat().st_mtime for path in (scan.image, *scan.maps.values()))
    if newest > sidecar.stat().st_mtime:
        return False
    try:
        made = read_sidecar(label)
        read_grid(label)
    except ValueError:
        return False
    return all(made.get(key) == planned[key] for key in SETTINGS)


def make_label(scan: Sources, label: Path, planned: Mapping[str, Any]) -> list[str]:
    """Write the corrected PET, then its sidecar; each whole or not at all.

    Args:
        scan: PET and maps.
        label: the file to write.
        planned: of :func:`planned_sidecar`.

    Returns:
        What a reader of the log should know about this scan.

    Raises:
        InputError: a file is damaged, does not fit the PET, or the correction is not possible.
    """
    check_header(scan.image)
    grid = read_grid(scan.image)
    if len(grid.shape) != 3:
        raise InputError(
            f"a label needs one volume (x, y, z); this PET has shape {grid.shape}. Remedy: average its frames."
        )
    image = read_voxels(scan.image)
    maps, notes = _maps_on(grid, scan.maps)
    _check_overlap(image, maps)
    method, fwhm_mm = planned["PVCMethod"], [planned[key] for key in FWHM_KEYS]
    spacing_mm = tuple(float(size) for size in voxel_sizes(grid.affine))
    if max(fwhm_mm) < min(spacing_mm):
        raise InputError(
            f"an FWHM of {fwhm_mm} mm is smaller than the voxels ({spacing_mm} mm), which no scanner's is. Usual "
            "cause: it is given in voxels. Remedy: give it in mm."
        )
    psf: dict[str, Any] = {"fwhm_mm": fwhm_of_array_axes(fwhm_mm, grid.affine), "spacing_mm": spacing_mm}
    regions = regions_of(maps, **psf)
    correction = correct(image, regions, method, **psf)
    assert correction.image is not None  # as of all METHODS
    # The sidecar last: a kill in between leaves the old settings beside the new image, and it is made again.
    write_like(scan.image, correction.image, label, description=marks.corrected_by(method))
    write_json({**planned, **found_by(correction, regions, notes)}, sidecar_of(label))
    return notes


def regions_of(maps: Mapping[str, np.ndarray], *, fwhm_mm: tuple[float, ...], spacing_mm: tuple[float, ...]) -> Regions:
    """Grey matter (by parcel, if there are any), white matter, CSF and the rest.

    Args:
        maps: volumes ``(x, y, z)`` by key, see :data:`ctrestore.tasks.pet_pvc.labels.subjects.MAPS`.
        fwhm_mm: of the PSF, along the array's axes.
        spacing_mm: voxel size along them.
    """
    grey, white, csf = (maps.get(key) for key in TISSUES)
    if "parcels" not in maps:
        tissues = {"grey-matter": grey, "white-matter": white, "csf": csf}
        given = {name: volume for name, volume in tissues.items() if volume is not None}
        return Regions.from_masks(np.stack(list(given.values())), names=list(given))
    parcels = fit_parcels(maps["parcels"], maps["grey_matter"], fwhm_mm=fwhm_mm, spacing_mm=spacing_mm)
    return Regions.from_parcels(parcels, grey=grey, white=white, csf=csf)


def _maps_on(grid: Grid, paths: Mapping[str, Path]) -> tuple[dict[str, np.ndarray], list[str]]:
    """The maps on the grid of the PET, and what had to be done for it."""
    maps: dict[str, np.ndarray] = {}
    resampled = []
    for key, path in paths.items():
        check_header(path)
        own = read_grid(path)
        volume = read_voxels(path)
        if volume.ndim != 3:
            raise InputError(f"{path}: expected one volume (x, y, z), found shape {volume.shape}.")
        if not np.isfinite(volume).all():
            raise InputError(f"{path}: NaN or infinite voxels. Remedy: set them to 0.")
        if own.distance_mm(grid) > GRID_TOLERANCE_MM:
            volume = _resampled(volume, own, grid, path, order=0 if key == "parcels" else 1)
            resampled.append(key)
        maps[key] = volume
    if "parcels" in maps:
        maps["parcels"] = _whole_numbers(maps["parcels"], paths["parcels"])
    notes = [f"{RESAMPLED} ({', '.join(resampled)})"] if resampled else []
    notes += [] if "csf" in maps else [NO_CSF]
    return maps, notes + ([] if "parcels" in maps else [NO_PARCELS])


def _resampled(volume: np.ndarray, own: Grid, grid: Grid, path: Path, *, order: int) -> np.ndarray:
    """The map on another grid: linear between voxels (order 1), or the nearest one (order 0).

    Raises:
        InputError: much of it lies outside the other grid.
    """
    moved = resample_from_to(nib.Nifti1Image(volume, own.affine), (grid.shape, grid.affine), order=order)
    out = np.asarray(moved.dataobj, dtype=np.float32)
    if order == 1:
        before, after = (
            float(v.sum(dtype=np.float64)) * abs(np.linalg.det(g.affine[:3, :3]))
            for v, g in ((volume, own), (out, grid))
        )
        if not after > SEEN_FRACTION * before > 0:
            raise InputError(
                f"{path}: {1 - after / before if before else 1:.0%} of it lies outside the PET. Usual cause: a map in "
                "another space (a template's, or an MRI that was never coregistered). Remedy: coregister it to the PET."
            )
    return out


def _whole_numbers(parcels: np.ndarray, path: Path) -> np.ndarray:
    whole = np.rint(parcels).astype(np.int32)
    if np.abs(whole - parcels).max() > 1e-3 or whole.min() < 0:
        raise InputError(
            f"{path}: expected parcel numbers of 0, 1, 2, ...; found values from {parcels.min():g} to "
            f"{parcels.max():g}, not all whole. Usual cause: labels resampled with interpolation. Remedy: nearest "
            "neighbour."
        )
    return whole


def _check_overlap(image: np.ndarray, maps: Mapping[str, np.ndarray]) -> None:
    """Refuse maps that do not lie on the head of the PET.

    Raises:
        InputError: the maps are empty, or the PET is no brighter in their brain than outside.
    """
    brain = maps["grey_matter"] + maps["white_matter"] > 0.5
    n_inside = int(brain.sum())
    if n_inside == 0:
        raise InputError(
            "its tissue maps exceed a probability of 0.5 nowhere. Usual cause: empty maps, or those of another scan."
        )
    inside = float(image[brain].mean(dtype=np.float64))
    outside = (float(image.sum(dtype=np.float64)) - inside * n_inside) / max(image.size - n_inside, 1)
    if not inside > outside:
        raise InputError(
            f"the PET is no brighter inside the brain of the maps ({inside:.4g}) than outside ({outside:.4g}). Usual "
            "cause: maps that are not coregistered to the PET. Remedy: coregister them."
        )
