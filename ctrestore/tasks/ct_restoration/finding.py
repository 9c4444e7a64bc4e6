"""Which scans a user means, and where their outputs go; checked before any work."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ctrestore.ct.hounsfield import Window
from ctrestore.errors import InputError
from ctrestore.io.ct_scan import PICTURES, DicomScan, NiftiAsShown, open_scan
from ctrestore.io.dicom.loading import series_of
from ctrestore.io.dicom.series import Slice, look_through
from ctrestore.io.nifti import check_header, is_nifti, read_sidecar
from ctrestore.tasks.ct_restoration.embedded import quarter_dose_phantoms
from ctrestore.tasks.ct_restoration.outputs import Restorable
from ctrestore.tasks.runtime import reason

NIFTI = (".nii", ".nii.gz")
SQUARE_WITHIN = 0.01
logger = logging.getLogger("ctrestore")


@dataclass
class Scans:
    """The scans to restore, and what is wrong with those that cannot be.

    Args:
        found: scans.
        failed: by the name of the scan.
    """

    found: list[Restorable] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)

    @property
    def entries(self) -> list[dict[str, Any]]:
        """One entry a slice, scan by scan: the data of a MONAI dataset."""
        return [entry for scan in range(len(self.found)) for entry in self.entries_of(scan)]

    def entries_of(self, scan: int) -> list[dict[str, Any]]:
        """The entries of one scan."""
        opened = self.found[scan].scan
        return [{"image": opened, "number": scan, "slice": k} for k in range(opened.shape[2])]


def find_scans(
    dataset_dir: str,
    output_dir: str,
    *,
    embedded_dir: str | None = None,
    embedded: Callable[[Path], Path] = quarter_dose_phantoms,
    window: Sequence[float] | None = None,
    series_uid: str | None = None,
    smallest_slice: int = 32,
    square_pixels: bool = False,
) -> Scans:
    """The CT scans of a file or folder.

    A NIfTI file, or a folder of them; a DICOM series, or a folder with any number of them in any sub-folders; a
    multi-frame DICOM file; a picture, or a folder of them, with a window. A folder without NIfTI files of its own and
    without DICOM is searched for files in its sub-folders.

    NIfTI files and pictures keep their names (pictures become PNG) in ``output_dir``, which may also be the name of
    one file. One series goes into ``output_dir`` itself, several into folders named after theirs.

    Args:
        dataset_dir: file or folder.
        output_dir: of the outputs.
        embedded_dir: stands for the embedded phantoms, made when missing.
        embedded: what makes them.
        window: level and width in HU of pictures, for example ``[-600, 1500]``.
        series_uid: only this DICOM series.
        smallest_slice: shortest side that a network is shown.
        square_pixels: whether slices must have them, as pictures are taken to.

    A folder without any scan gives none; :func:`restore_each` refuses it.

    Raises:
        InputError: there is no such place, other series than CT, or a setting that makes no sense. What is wrong with
            single scans of several stands in the result.
    """
    source, target = Path(str(dataset_dir)), Path(str(output_dir))
    if embedded_dir is not None and source.resolve() == Path(embedded_dir).resolve():
        embedded(source)
    if not source.exists():
        raise InputError(
            f"{source}: no such file or folder. Remedy: a DICOM series, a NIfTI file, or a folder of them."
        )
    if target.resolve() == source.resolve():
        raise InputError(f"{target}: it would be overwritten. Remedy: another output.")
    scans = Scans()
    accept = partial(_add, scans, smallest_slice=smallest_slice, square_pixels=square_pixels)
    series = _Dicom(source)
    niftis, pictures = _files(source, within=not series)
    if niftis:
        for path, place in _places(niftis, source, target, NIFTI):
            accept(str(path), lambda path=path, place=place: _nifti(path, place))
    elif pictures and not series:
        shown = _range_hu(window, pictures[0])
        for path, place in _places(pictures, source, target, (".png",)):
            place = place if place.suffix.lower() == ".png" else place.with_suffix(".png")
            accept(str(path), lambda path=path, place=place: Restorable(open_scan(path, range_hu=shown), place))
    else:
        _add_series(scans, accept, series, source, target, series_uid)
    taken: dict[Path, Restorable] = {}
    for found in scans.found:
        other = taken.setdefault(found.target, found)
        if other is not found:
            raise InputError(f"{other} and {found} would both be written to {found.target}. Remedy: rename one.")
        if before := found.scan.restored_by:
            logger.warning("%s was restored before (%s); restoring it again blurs it.", found, before)
    return scans


def _add(scans: Scans, name: str, make: Any, *, smallest_slice: int, square_pixels: bool) -> None:
    """One more scan, or what is wrong with it."""
    try:
        found = make()
        scan = found.scan
        shortest = min(scan.shape[:2])
        if shortest < smallest_slice:
            raise InputError(
                f"slices of {scan.shape[0]} x {scan.shape[1]} pixels; the network needs {smallest_slice} a side to see "
                "anything around a pixel. Usual cause: a thumbnail, a crop, or an axis that is no slice. Remedy: whole "
                "slices."
            )
        spacing_mm = np.linalg.norm(scan.affine[:3, :2], axis=0)
        if square_pixels and np.ptp(spacing_mm) > SQUARE_WITHIN * spacing_mm.max():
            raise InputError(
                f"expected square pixels, found {spacing_mm[0]:.4g} x {spacing_mm[1]:.4g} mm. Usual cause: a coronal "
                "or sagittal reformat of thick slices. Remedy: the axial slices, or resample them to square pixels."
            )
    except Exception as error:  # a damaged file raises whatever nibabel, zlib or pydicom stumble over
        scans.failed[name] = reason(error).removeprefix(f"{name}: ")
        return
    scans.found.append(found)


class _Dicom:
    """The DICOM objects under a folder, or in a file; false where there are none."""

    def __init__(self, source: Path) -> None:
        self.damaged: dict[Path, str] = {}
        self.series, self.others = look_through(source, self.damaged)

    def __bool__(self) -> bool:
        return bool(self.series or self.others or self.damaged)


def _files(source: Path, *, within: bool) -> tuple[list[Path], list[Path]]:
    """NIfTI files and pictures: the one that is named, those of a folder, or else those ``within`` its sub-folders."""

    def sorted_out(paths: Iterable[Path]) -> tuple[list[Path], list[Path]]:
        visible = [path for path in sorted(paths) if not path.name.startswith(".") and path.is_file()]
        return [p for p in visible if is_nifti(p)], [p for p in visible if p.suffix.lower() in PICTURES]

    found = sorted_out([source] if source.is_file() else source.iterdir())
    return sorted_out(source.rglob("*")) if within and source.is_dir() and not any(found) else found


def _places(paths: Sequence[Path], source: Path, target: Path, endings: tuple[str, ...]) -> Iterator[tuple[Path, Path]]:
    """Each file and its output: the file that is named, or the same name in the folder that is."""
    for path in paths:
        if source.is_file() and target.name.lower().endswith(endings) and not target.is_dir():
            yield path, target
        else:
            yield path, target / (path.name if source.is_file() else path.relative_to(source))


def _nifti(path: Path, target: Path) -> Restorable:
    """A NIfTI whose header and voxels are plausible for CT."""
    check_header(path)
    modality = str(read_sidecar(path).get("Modality", "CT"))
    if modality != "CT":
        raise InputError(f"its sidecar says {modality}, expected CT. Remedy: name CT scans.")
    if target.resolve() == path.resolve():
        raise InputError("it would be overwritten. Remedy: another output.")
    return Restorable(NiftiAsShown(path), target)


def _range_hu(window: Sequence[float] | None, picture: Path) -> tuple[float, float]:
    """HU of black and of white in a picture that shows the window.

    Raises:
        InputError: nobody said, or it has no width.
    """
    if window is None:
        raise InputError(
            f"{picture}: the grey values of a picture mean nothing without the window it was made with. Remedy: "
            "--window LEVEL WIDTH in HU (of a bundle: --window [LEVEL,WIDTH]), for example -600 1500 where -1350 HU is "
            "black and 150 HU is white."
        )
    numbers = [float(number) for number in window]
    if len(numbers) != 2 or not numbers[1] > 0:
        raise InputError(f"a window is a level and a positive width in HU; got {window!r}.")
    return Window(*numbers).range_hu


def _add_series(
    scans: Scans, accept: Callable[..., None], dicom: _Dicom, source: Path, target: Path, series_uid: str | None
) -> None:
    """The CT series under a folder. A damaged file spoils the series of its own folder and no other.

    Raises:
        InputError: there is no CT series.
    """
    found, others, damaged = dicom.series, dicom.others, dicom.damaged
    ct = {uid: slices for uid, slices in found.items() if slices[0].modality == "CT" and series_uid in (None, uid)}
    seen = [f"{len(s)} slices of {s[0].modality}, series {uid}" for uid, s in found.items() if uid not in ct]
    seen += [f"{n} x {what}" for what, n in others.items()]
    if not ct and not damaged and not seen and series_uid is None:
        return  # nothing at all: programs can build the evaluator before there are scans
    if not ct and not damaged:
        wanted = "CT" if series_uid is None else f"CT series {series_uid}"
        raise InputError(
            f"{source}: expected {wanted}, found {', '.join(seen) or 'none'}. Usual cause: another "
            "folder of the study. Remedy: name the folder of the CT."
        )
    if seen:
        logger.info("%s: passed over %s", source, ", ".join(seen))
    folders = {uid: {item.path.parent for item in slices} for uid, slices in ct.items()}
    for uid, name in _names(ct, source).items():
        bad = [f"{message}" for path, message in damaged.items() if path.parent in folders[uid]]
        place = target if len(ct) == 1 else target / name
        label = str(source) if len(ct) == 1 else f"{source} ({name})"
        if bad:
            scans.failed[label] = bad[0]
            continue

        def make(slices: list[Slice] = ct[uid], place: Path = place, label: str = label) -> Restorable:
            series = series_of(slices, single_slice=True, sheared=True)
            return Restorable(DicomScan(source, series), place, name=label)

        accept(label, make)
    everywhere = set().union(*folders.values()) if folders else set()
    for path, message in damaged.items():
        if path.parent not in everywhere:
            scans.failed[str(path)] = message.removeprefix(f"{path}: ")


def _names(series: dict[str, list[Slice]], source: Path) -> dict[str, str]:
    """A folder name for each series: its sub-folders joined by ``_``, and its number where they hold several."""
    root = source.resolve() if source.is_dir() else source.resolve().parent
    names = {}
    for uid, slices in series.items():
        parts = slices[0].path.resolve().parent.relative_to(root).parts
        names[uid] = "_".join(parts) or root.name
    for name in {n for n in names.values() if list(names.values()).count(n) > 1}:
        same = [uid for uid in names if names[uid] == name]
        numbers = [series[uid][0].number for uid in same]
        for uid, number in zip(same, numbers):
            unique = number is not None and numbers.count(number) == 1
            names[uid] = f"{name}_series-{number if unique else uid.rsplit('.', 1)[-1]}"
    return names
