"""PET series as NIfTI files, for code that only reads NIfTI."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import nibabel as nib

from ctrestore.errors import InputError
from ctrestore.io import marks
from ctrestore.io.dicom.loading import load_series
from ctrestore.io.dicom.series import look_through
from ctrestore.io.nifti import write_nifti


def pet_as_nifti(source: str | Path, folder: str | Path) -> list[Path]:
    """Write every PET series under ``source`` as a NIfTI in Bq/ml (or SUV, if the scanner wrote that).

    A file is named after the folder of its series; CT in the same folder is ignored.

    Args:
        source: folder of DICOM files, or one multi-frame file.
        folder: of the NIfTI files.

    Returns:
        The files; none if ``source`` holds no DICOM at all.

    Raises:
        InputError: DICOM, but no PET, or a series that :func:`ctrestore.io.dicom.load_series` refuses.
    """
    source = Path(source)
    series, others = look_through(source)
    pet = {uid: slices for uid, slices in series.items() if slices[0].modality == "PT"}
    if not pet:
        seen = [f"{len(slices)} slices of CT" for slices in series.values()] + [f"{n} x {w}" for w, n in others.items()]
        if seen:
            raise InputError(f"{source}: no PET series; found {', '.join(seen)}. Remedy: name the folder of the PET.")
        return []
    root = source.resolve() if source.is_dir() else source.resolve().parent
    places = {uid: Path(slices[0].path).resolve().parent for uid, slices in pet.items()}
    several = Counter(places.values())
    written = []
    for uid, place in places.items():
        name = "_".join(place.relative_to(root).parts) or (source.stem if source.is_file() else root.name)
        if several[place] > 1:
            number = pet[uid][0].number
            name += f"_series-{uid.rsplit('.', 1)[-1] if number is None else number}"
        loaded = load_series(source, uid)
        image = nib.Nifti1Image(loaded.volume, loaded.affine)
        image.header.set_xyzt_units("mm", "sec")
        written.append(Path(folder) / f"{name}.nii")
        write_nifti(image, written[-1], description=marks.pet_in(loaded.unit))
    return written
