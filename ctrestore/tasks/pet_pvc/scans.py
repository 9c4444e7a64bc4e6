"""PET scans, as the configs of the bundle name them: found, checked, and with the resolution of each."""

from __future__ import annotations

import atexit
import logging
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib

from ctrestore.data_lists import read_data_list
from ctrestore.errors import InputError
from ctrestore.io import marks
from ctrestore.io.dicom import pet_as_nifti
from ctrestore.io.grid import GRID_TOLERANCE_MM, read_grid
from ctrestore.io.itk import ITK_ENDINGS, read_itk
from ctrestore.io.nifti import check_header, fwhm_from_sidecar, is_nifti, sidecar_of, stem, write_nifti
from ctrestore.psf import per_axis
from ctrestore.tasks.pet_pvc.output_names import outputs_of
from ctrestore.tasks.runtime import Section, reason

DEFAULT_FWHM_MM = 6.0  # of a clinical brain PET after its usual filter, where nobody knows better
logger = logging.getLogger("ctrestore")


def with_fwhm(scan: dict[str, Any], fwhm_mm: float | Sequence[float] | None) -> dict[str, Any]:
    """The entry with its FWHM along x, y, z in mm: as given, as listed, as in the sidecar, or 6 mm, which is said.

    Raises:
        InputError: an FWHM is not a positive number of millimetres, or the sidecar's is not.
    """
    sidecar = sidecar_of(scan["image"])
    known = scan.get("fwhm_mm") if fwhm_mm is None else fwhm_mm  # listed: what the labels were made with
    if known is not None:
        widths = per_axis(known, name="fwhm_mm")
        if min(widths) <= 0:
            raise InputError(f"fwhm_mm must be above 0 mm; got {known!r}. Remedy: the scanner's resolution in mm.")
    elif sidecar.is_file() and "FWHM_x" in sidecar.read_text(encoding="utf-8"):
        widths = fwhm_from_sidecar(scan["image"])
    else:
        widths = (DEFAULT_FWHM_MM,) * 3
        logger.warning(
            "%s: no FWHM in a sidecar, %g mm assumed; say --fwhm_mm if you know the resolution of the images",
            scan["image"], DEFAULT_FWHM_MM,
        )  # fmt: skip
    return {**scan, "fwhm_mm": list(widths)}


def entries(
    section: Section,
    data_list: str | None,
    dataset_dir: str,
    target: str | Sequence[str] | None = "label",
    n: int | None = None,
    fwhm_mm: float | Sequence[float] | None = None,
    fwhm_needed: bool = False,
    fwhm_error_mm: float = 0.0,
) -> list[dict[str, Any]]:
    """Entries of a section, with absolute paths, ``label`` being the file under the key ``target``.

    Args:
        section: ``training``, ``validation`` or ``test``.
        data_list: a data list; None: the embedded phantoms, made in ``dataset_dir`` where they are missing.
        dataset_dir: folder that the list's paths start from; if they are not all there, the list's own folder.
        target: the key of what the network should give, for example ``grey_matter_concentration``. Several keys: every
            entry must have them, and the config puts them together. None: no label.
        n: only the first n scans.
        fwhm_mm: of all scans; None: from their sidecars.
        fwhm_needed: refuse a scan of unknown FWHM instead of assuming one.
        fwhm_error_mm: added to every FWHM, to see what a wrong one does.

    Raises:
        InputError: the list, a file, a target or an FWHM is missing, a file cannot be a scan, or ``n`` is below 1; it
            is named.
    """
    if n is not None and n < 1:
        raise InputError(f"the number of {section} scans must be at least 1, or null for all of them; got {n}.")
    if data_list is None:
        from ctrestore.phantoms import phantom_entries

        listed = phantom_entries(str(dataset_dir), section, n=n)
    else:
        listed = _read_list(Path(str(data_list)), section, dataset_dir)[:n]
    targets = [target] if isinstance(target, str) else list(target or ())
    for entry in listed:
        for key in targets:
            if key not in entry:
                raise InputError(
                    f"{entry.get('subject', entry.get('image'))} has no {key!r} in the {section} list; it has "
                    f"{', '.join(sorted(entry))}. Remedy: --target with one of them."
                )
        if data_list is not None:
            _check_pairs(entry, targets)
        if fwhm_needed and fwhm_mm is None and not entry.get("fwhm_mm"):
            fwhm_from_sidecar(entry["image"])
    if isinstance(target, str):
        listed = [{**entry, "label": entry[target]} for entry in listed]
    known = [with_fwhm(entry, fwhm_mm) for entry in listed]
    if any(min(entry["fwhm_mm"]) + float(fwhm_error_mm) <= 0 for entry in known):
        raise InputError(f"fwhm_error_mm {fwhm_error_mm:g} would leave a FWHM of 0 mm or less.")
    return [{**entry, "fwhm_mm": [width + float(fwhm_error_mm) for width in entry["fwhm_mm"]]} for entry in known]


def _read_list(data_list: Path, section: str, dataset_dir: str) -> list[dict[str, Any]]:
    """A section of a list whose paths start from ``dataset_dir`` or, as make_labels writes them, its own folder."""
    try:
        return read_data_list(data_list, section, dataset_dir)
    except ValueError as error:
        try:
            return read_data_list(data_list, section)
        except ValueError:
            raise error from None


def _check_pairs(entry: dict[str, Any], targets: Sequence[str]) -> None:
    """Refuse an image or label that cannot be read, and a label on another grid, by name and before any work."""
    labels = [entry[key] for key in targets]
    for path in (entry["image"], *labels):
        try:
            check_header(path)
        except Exception as error:  # a damaged file raises whatever nibabel, zlib or numpy stumble over
            raise InputError(f"{path}: {reason(error)}") from error
    for label in labels:
        if not read_grid(Path(entry["image"])).distance_mm(read_grid(Path(label))) <= GRID_TOLERANCE_MM:
            raise InputError(
                f"{label} is on another grid than {entry['image']}. Remedy: resample it to the grid of the PET."
            )


def scans(
    dataset_dir: str, embedded_dir: str | None = None, fwhm_mm: float | Sequence[float] | None = None
) -> list[dict[str, Any]]:
    """The PET scans to correct: ``[{"image": path, "fwhm_mm": [x, y, z]}, ...]``, sorted.

    A file is itself. Of a folder: the ``*_pet`` images if it is a BIDS data set (derivatives left out) or a subject of
    one, otherwise its NIfTI files, otherwise those of its sub-folders. Where there is no NIfTI, MHA, MHD and NRRD
    volumes and PET series in DICOM are taken (:func:`as_nifti`). ``embedded_dir`` stands for the test phantoms, made
    when missing.

    A folder without any gives an empty list, so that programs can build the evaluator; :func:`correct_each` refuses it.

    Raises:
        InputError: the path does not exist, two outputs would have the same name, or a DICOM series or a volume is
            refused.
    """
    root = Path(str(dataset_dir))
    if embedded_dir is not None and root.resolve() == Path(embedded_dir).resolve():
        from ctrestore.phantoms import phantom_entries

        return [with_fwhm({"image": e["image"]}, fwhm_mm) for e in phantom_entries(root, "test")]
    if root.is_file():
        [path] = ([] if is_nifti(root) else as_nifti(root)) or [root]
        return [with_fwhm({"image": str(path)}, fwhm_mm)]
    if not root.is_dir():
        raise InputError(f"{root} does not exist. Remedy: --dataset_dir with a NIfTI file or a folder of them.")
    in_subject = root.resolve().name.startswith(("sub-", "ses-"))
    bids = [p for p in root.glob("**/*_pet.nii*" if in_subject else "sub-*/**/*_pet.nii*") if is_nifti(p)]
    found = bids or [p for p in root.iterdir() if is_nifti(p)]
    found = found or [p for p in root.rglob("*.nii*") if is_nifti(p)] or as_nifti(root)
    stems = {stem(p) for p in found}
    # What an earlier run wrote into the folder of its scans is no scan.
    written = {name + ending for name in stems for ending in ("_pvc", "_tissue")}
    listed = [p for p in sorted(found) if stem(p) not in written]
    outputs_of([{"image": str(p)} for p in listed], "", dataset_dir)
    return [with_fwhm({"image": str(p)}, fwhm_mm) for p in listed]


def as_nifti(source: Path) -> list[Path]:
    """MHA, MHD and NRRD volumes under a folder (or one such file), else its PET series in DICOM, as NIfTI files.

    They lie in a folder of their own until this process ends, named after the sub-folders and files they come from.
    """
    folder = Path(tempfile.mkdtemp(prefix="ctrestore_"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    listed = [source] if source.is_file() else sorted(source.rglob("*"))
    volumes = [p for p in listed if p.suffix.lower() in ITK_ENDINGS and not p.name.startswith(".")]
    written = []
    for path in volumes:
        voxels, affine = read_itk(path)
        image = nib.Nifti1Image(voxels, affine)
        image.header.set_xyzt_units("mm", "sec")
        parts = (path.name,) if source.is_file() else path.relative_to(source).parts
        written.append(folder / ("_".join(parts).removesuffix(path.suffix) + ".nii"))
        write_nifti(image, written[-1], description=marks.converted(path.suffix[1:]))
    return written or pet_as_nifti(source, folder)
