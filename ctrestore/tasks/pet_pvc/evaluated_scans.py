"""The files of one scan for an evaluation: found and checked by their headers, read when they are needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from nibabel.affines import voxel_sizes

from ctrestore.errors import InputError
from ctrestore.io.grid import GRID_TOLERANCE_MM, Grid, read_grid
from ctrestore.io.nifti import fwhm_from_sidecar, fwhm_of_array_axes, read_voxels, stem
from ctrestore.psf import Scalars, per_axis
from ctrestore.pvc.validation import checked_image

MAPS = ("truth", "label", "grey_matter_concentration", "grey_matter", "white_matter", "csf", "parcels", "lesions")
PREDICTION_ENDING = "_pvc.nii.gz"


@dataclass(frozen=True)
class Scan:
    """One scan, its corrected image and what it is compared with, all on one grid.

    Attributes:
        name: the subject, or the image's stem where a subject has several scans.
        files: paths by key: ``image``, ``prediction``, other corrected images, and those of ``MAPS`` that there are.
        grid: shape ``(x, y, z)`` and affine of the array as stored.
        fwhm_mm: of the PSF, along the *array's* axes.
    """

    name: str
    files: Mapping[str, Path]
    grid: Grid
    fwhm_mm: tuple[float, ...]

    @property
    def spacing_mm(self) -> tuple[float, ...]:
        """Voxel size along the array's axes."""
        return tuple(float(size) for size in voxel_sizes(self.grid.affine))

    @property
    def references(self) -> dict[str, Path]:
        """What the scan is compared with: ``truth``, and ``label`` where that is another file (or the only one)."""
        truth, label = self.files.get("truth"), self.files.get("label")
        found = {} if truth is None else {"truth": truth}
        if label is not None and (truth is None or not label.samefile(truth)):
            found["label"] = label
        return found

    def read(self, key: str) -> np.ndarray:
        """Voxels ``(x, y, z)`` of one of the files, float32.

        Raises:
            InputError: the file is damaged, or holds NaN or infinite voxels.
        """
        path = self.files[key]
        try:
            return checked_image(read_voxels(path).reshape(self.grid.shape))
        except ValueError as error:
            raise error if str(path) in str(error) else ValueError(f"{path}: {error}") from error

    def read_if_given(self, key: str) -> np.ndarray | None:
        """Voxels of a file, or None where the entry has none."""
        return self.read(key) if key in self.files else None


def find_scans(
    entries: Sequence[Mapping[str, Any]],
    predictions: Sequence[str | Path] | str | Path,
    *,
    fwhm_mm: Scalars | None,
    others: Mapping[str, Sequence[str | Path] | str | Path] | None = None,
) -> list[Scan]:
    """The scans of a data list with their corrected images, checked before any work starts.

    Args:
        entries: of a data list, with absolute paths.
        predictions: the corrected images in the entries' order, or the folder of ``<stem of image>_pvc.nii.gz``.
        fwhm_mm: of the PSF along the patient's axes x, y, z (right, front, up), for all scans; None: each entry's
            ``fwhm_mm``, else its sidecar.
        others: more corrected images, like ``predictions``, by the key that they get in ``Scan.files``.

    Raises:
        InputError: a file is missing, unreadable or on another grid, or the PSF is unknown.
    """
    if not entries:
        raise InputError("There is nothing to evaluate: the list of entries is empty. Usual cause: an empty section.")
    images = [Path(entry["image"]) for entry in entries]
    subjects = [str(entry.get("subject") or stem(image)) for entry, image in zip(entries, images)]
    names = subjects if len(set(subjects)) == len(subjects) else [stem(image) for image in images]
    corrected = {"prediction": predictions, **(others or {})}
    found = {key: _prediction_files(files, images) for key, files in corrected.items()}
    by_scan = [dict(zip(found, files)) for files in zip(*found.values())]
    return [_checked_scan(*scan, fwhm_mm) for scan in zip(names, entries, images, by_scan)]


def _prediction_files(predictions: Sequence[str | Path] | str | Path, images: list[Path]) -> list[Path]:
    if isinstance(predictions, (str, Path)):
        folder = Path(predictions)
        if not folder.is_dir():
            raise InputError(f"{folder}: no such folder of corrected images. Run the inference first.")
        files = [folder / f"{stem(image)}{PREDICTION_ENDING}" for image in images]
        if len(set(files)) < len(files):
            raise InputError(f"{folder}: two images of the list share a name. Give the corrected images one by one.")
    else:
        files = [Path(path) for path in predictions]
        if len(files) != len(images):
            raise InputError(
                f"Expected a corrected image for each of {len(images)} scans, in the same order; got {len(files)}."
            )
    for file, image in zip(files, images):
        if not file.is_file():
            raise InputError(f"{file}: no such file; expected the corrected image of {image}. Run the inference first.")
    return files


def _checked_scan(
    name: str, entry: Mapping[str, Any], image: Path, corrected: Mapping[str, Path], fwhm_mm: Scalars | None
) -> Scan:
    files = {"image": image, **corrected, **{key: Path(entry[key]) for key in MAPS if entry.get(key)}}
    for key, path in files.items():
        if not path.is_file():
            raise InputError(f"{path}: no such file; it is the {key} of {name}. Usual cause: another data root.")
    if "truth" not in files and "label" not in files:
        raise InputError(f"{image}: its entry has neither 'truth' nor 'label', so there is nothing to compare it with.")
    grid = read_grid(image)
    if len(grid.shape) != 3:
        raise InputError(
            f"{image}: expected one volume (x, y, z), found shape {grid.shape}. Evaluate a dynamic scan frame by frame."
        )
    for path in files.values():
        off_by_mm = grid.distance_mm(other := read_grid(path))
        if off_by_mm > GRID_TOLERANCE_MM:
            fault = (
                f"its shape is {other.shape}, that of the image {grid.shape}"
                if other.shape != grid.shape
                else f"its voxels lie up to {off_by_mm:.3g} mm from those of the image"
            )
            raise InputError(f"{path}: not on the grid of {image}: {fault}. Resample it to the image.")
    known = _checked_fwhm(image, entry.get("fwhm_mm") if fwhm_mm is None else fwhm_mm)
    return Scan(name, files, grid, fwhm_of_array_axes(known, grid.affine))


def _checked_fwhm(image: Path, fwhm_mm: Scalars | None) -> tuple[float, ...]:
    if fwhm_mm is None:
        return fwhm_from_sidecar(image)
    listed = per_axis(fwhm_mm, name="fwhm_mm")
    if min(listed) == 0:
        raise InputError(f"fwhm_mm must be greater than 0 mm along every axis; got {fwhm_mm!r}.")
    return listed
