"""What the bundle configs call beside MONAI: their data, their device, and inference scan by scan.

The errors a user can mend end the process with one clean message (``SystemExit``), because MONAI would bury any other
exception of a config under its own.
"""

from __future__ import annotations

import errno
import functools
import logging
import os
import re
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import nibabel as nib
import numpy as np
import torch
from monai.data import CacheDataset, DataLoader, Dataset, PersistentDataset
from monai.data.image_writer import NibabelWriter
from torch import nn
from tqdm import tqdm

from ctrestore.data_lists import read_data_list
from ctrestore.data_lists.building import GRID_TOLERANCE_MM
from ctrestore.data_lists.scans import read_grid
from ctrestore.handlers import load_weights
from ctrestore.phantoms import phantom_entries
from ctrestore.psf import per_axis
from ctrestore.report import evaluate_pet_pvc, fwhm_from_sidecar
from ctrestore.report.scans import stem
from ctrestore.transforms import check_voxel_sizes

NIFTI = (".nii", ".nii.gz")
Section = Literal["training", "validation", "test"]
Function = TypeVar("Function", bound=Callable[..., Any])
logger = logging.getLogger("ctrestore")


def ends_cleanly(function: Function) -> Function:
    """Turn the errors of a user's input into a message and exit status 1."""

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except (ValueError, OSError, FloatingPointError) as error:
            raise SystemExit(f"ctrestore: error: {error}") from error

    return wrapped  # type: ignore[return-value]


def embedded_data_dir(bundle_root: str, name: str) -> str:
    """Folder of an embedded data set: ``.data/NAME`` of the checkout that the bundle lies in, or of the bundle."""
    root = Path(bundle_root).resolve()
    checkout = root.parent.parent
    ours = (checkout / "pyproject.toml").is_file() and (checkout / "ctrestore").is_dir()
    return str((checkout if ours else root) / ".data" / name)


DEFAULT_FWHM_MM = 6.0  # of a clinical brain PET after its usual filter, where nobody knows better


def with_fwhm(scan: dict[str, Any], fwhm_mm: float | Sequence[float] | None) -> dict[str, Any]:
    """The entry with its FWHM along x, y, z in mm: as given, else from the sidecar, else 6 mm, which is said.

    Raises:
        ValueError: an FWHM is not a positive number of millimetres, or the sidecar's is not.
    """
    sidecar = Path(scan["image"]).with_name(f"{stem(scan['image'])}.json")
    if fwhm_mm is not None:
        widths = per_axis(fwhm_mm, name="fwhm_mm")
        if min(widths) <= 0:
            raise ValueError(f"fwhm_mm must be above 0 mm; got {fwhm_mm!r}. Remedy: the scanner's resolution in mm.")
    elif sidecar.is_file() and "FWHM_x" in sidecar.read_text(encoding="utf-8"):
        widths = fwhm_from_sidecar(scan["image"])
    else:
        widths = (DEFAULT_FWHM_MM,) * 3
        logger.warning(
            "%s: no FWHM in a sidecar, %g mm assumed; say --fwhm_mm if you know the resolution of the images",
            scan["image"], DEFAULT_FWHM_MM,
        )  # fmt: skip
    return {**scan, "fwhm_mm": list(widths)}


@ends_cleanly
def entries(
    section: Section,
    data_list: str | None,
    dataset_dir: str,
    target: str | Sequence[str] | None = "label",
    n: int | None = None,
    fwhm_mm: float | Sequence[float] | None = None,
    fwhm_needed: bool = False,
) -> list[dict[str, Any]]:
    """Entries of a section, with absolute paths, ``label`` being the file under the key ``target``.

    Args:
        section: ``training``, ``validation`` or ``test``.
        data_list: a data list; None: the embedded phantoms, made in ``dataset_dir`` where they are missing.
        dataset_dir: folder that the list's paths start from.
        target: the key of what the network should give, for example ``grey_matter_concentration``. Several keys: every
            entry must have them, and the config puts them together. None: no label.
        n: only the first n scans.
        fwhm_mm: of all scans; None: from their sidecars.
        fwhm_needed: refuse a scan of unknown FWHM instead of assuming one.

    Raises:
        SystemExit: the list, a file, a target or an FWHM is missing, or a file cannot be a scan; it is named.
    """
    if data_list is None:
        folder = Path(str(dataset_dir))
        _check_phantom_folder(folder)
        listed = phantom_entries(folder, section, n=n)
    else:
        listed = read_data_list(Path(str(data_list)), section, dataset_dir)[:n]
    targets = [target] if isinstance(target, str) else list(target or ())
    for entry in listed:
        for key in targets:
            if key not in entry:
                raise ValueError(
                    f"{entry.get('subject', entry.get('image'))} has no {key!r} in the {section} list; it has "
                    f"{', '.join(sorted(entry))}. Remedy: --target with one of them."
                )
        if data_list is not None:
            _check_pairs(entry, targets)
        if fwhm_needed and fwhm_mm is None:
            fwhm_from_sidecar(entry["image"])
    if isinstance(target, str):
        listed = [{**entry, "label": entry[target]} for entry in listed]
    return [with_fwhm(entry, fwhm_mm) for entry in listed]


def _check_phantom_folder(folder: Path) -> None:
    """Refuse to write phantoms into a folder of somebody's data."""
    description = folder / "dataset_description.json"
    ours = description.is_file() and "ctrestore brain PET phantoms" in description.read_text(encoding="utf-8")
    if folder.is_dir() and any(folder.iterdir()) and not ours:
        raise ValueError(
            f"{folder} holds other data than the embedded phantoms. Remedy: list your scans with `ctrestore data-list "
            f"pet_pvc --root {folder} -o FILE` and add --data_list FILE."
        )


def _check_pairs(entry: dict[str, Any], targets: Sequence[str]) -> None:
    """Refuse an image or label that cannot be read, and a label on another grid, by name and before any work."""
    labels = [entry[key] for key in targets]
    for path in (entry["image"], *labels):
        try:
            check_header(path)
        except Exception as error:
            raise ValueError(f"{path}: {_reason(error)}") from error
    for label in labels:
        if not read_grid(Path(entry["image"])).distance_mm(read_grid(Path(label))) <= GRID_TOLERANCE_MM:
            raise ValueError(
                f"{label} is on another grid than {entry['image']}. Remedy: resample it to the grid of the PET."
            )


def cached_dataset(data: list[dict[str, Any]], transform: Any, in_memory: int, cache_dir: str | None = None) -> Dataset:
    """Dataset that prepares each subject once, up to the first random transform.

    Args:
        data: entries.
        transform: MONAI transform chain.
        in_memory: so many subjects are kept in memory; those beyond are prepared again for every patch.
        cache_dir: folder that keeps all of them as files instead, also for the next run.
    """
    if cache_dir is not None:
        return PersistentDataset(data, transform, cache_dir=str(cache_dir))
    return CacheDataset(data, transform, cache_num=in_memory, num_workers=2, copy_cache=False)


def is_nifti(path: Path) -> bool:
    """Whether a visible file's name ends like a NIfTI's."""
    return path.name.endswith(NIFTI) and not path.name.startswith(".") and path.is_file()


@ends_cleanly
def scans(
    dataset_dir: str, embedded_dir: str | None = None, fwhm_mm: float | Sequence[float] | None = None
) -> list[dict[str, Any]]:
    """The PET scans to correct: ``[{"image": path, "fwhm_mm": [x, y, z]}, ...]``, sorted.

    A file is itself. Of a folder: the ``*_pet`` images if it is a BIDS data set (derivatives left out) or a subject of
    one, otherwise its NIfTI files, otherwise those of its sub-folders. ``embedded_dir`` stands for the test phantoms,
    made when missing.

    A folder without any gives an empty list, so that programs can build the evaluator; :func:`correct_each` refuses it.

    Raises:
        SystemExit: the path does not exist, or two outputs would have the same name.
    """
    root = Path(str(dataset_dir))
    if embedded_dir is not None and root.resolve() == Path(embedded_dir).resolve():
        return [with_fwhm({"image": e["image"]}, fwhm_mm) for e in phantom_entries(root, "test")]
    if root.is_file():
        return [with_fwhm({"image": str(root)}, fwhm_mm)]
    if not root.is_dir():
        raise ValueError(f"{root} does not exist. Remedy: --dataset_dir with a NIfTI file or a folder of them.")
    in_subject = root.resolve().name.startswith(("sub-", "ses-"))
    bids = [p for p in root.glob("**/*_pet.nii*" if in_subject else "sub-*/**/*_pet.nii*") if is_nifti(p)]
    found = bids or [p for p in root.iterdir() if is_nifti(p)]
    found = found or [p for p in root.rglob("*.nii*") if is_nifti(p)]
    stems = {stem(p) for p in found}
    # What an earlier run wrote into the folder of its scans is no scan.
    written = {name + ending for name in stems for ending in ("_pvc", "_tissue")}
    listed = [p for p in sorted(found) if stem(p) not in written]
    outputs_of([{"image": str(p)} for p in listed], "", dataset_dir)
    return [with_fwhm({"image": str(p)}, fwhm_mm) for p in listed]


def output_stem(path: str | Path, dataset_dir: str) -> str:
    """Name that a corrected scan starts with: the scan's stem; sub-folders go before it, joined by ``_``.

    BIDS names hold their folders already and stay as they are.
    """
    path, root = Path(path).absolute(), Path(str(dataset_dir)).absolute()
    name = stem(path)
    if root.is_dir() and path.is_relative_to(root) and not name.startswith("sub-"):
        name = "_".join([*path.relative_to(root).parent.parts, name])
    return name


def output_name(meta: dict[str, Any], saver: Any = None, *, dataset_dir: str = "") -> dict[str, Any]:
    """:func:`output_stem` for MONAI's SaveImage, which takes an ending off: ``scan.v2`` would lose its ``.v2``."""
    return {"subject": output_stem(str(meta["filename_or_obj"]), dataset_dir) + ".nii", "idx": None}


def outputs_of(scans: Sequence[dict[str, Any]], output_dir: str, dataset_dir: str, postfix: str = "pvc") -> list[str]:
    """Where the corrected scans of inference and evaluation lie, in the order of the scans.

    Raises:
        ValueError: two scans would be written to one file.
    """
    source: dict[str, str] = {}
    for scan in scans:
        name = str(Path(output_dir) / f"{output_stem(scan['image'], dataset_dir)}_{postfix}.nii.gz")
        other = source.setdefault(name, scan["image"])
        if other != scan["image"]:
            raise ValueError(
                f"{other} and {scan['image']} would both be written to {name}. Usual cause: a scan and its compressed "
                "copy side by side, or scans outside --dataset_dir. Remedy: rename one, or name the folder of both."
            )
    return list(source)


@ends_cleanly
def on_device(network: nn.Module, device: str | torch.device) -> nn.Module:
    """The network on a device, its weights in the memory order that convolutions are fastest in.

    Raises:
        SystemExit: there is no such device here.
    """
    try:
        wanted = torch.device(device)
        torch.zeros(1, device=wanted)
    except (RuntimeError, AssertionError) as error:
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        have = ", ".join(["cpu", *(f"cuda:{i}" for i in range(count))])
        raise ValueError(
            f"device {str(device)!r} is not to be had here; there is {have}. Remedy: --device cpu."
        ) from error
    n_axes = max((weights.ndim for weights in network.parameters()), default=0)
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    network = network.to(wanted)
    if n_axes in formats:
        network.to(memory_format=formats[n_axes])  # type: ignore[call-overload]  # missing from the stubs of torch
    return network


@ends_cleanly
def of_method(method: str, **choices: Any) -> Any:
    """What ``--method`` chooses in a config: the choice of that name.

    Raises:
        SystemExit: there is no such method.
    """
    if method not in choices:
        raise ValueError(f"method {method!r} is unknown. Remedy: --method with one of {', '.join(choices)}.")
    return choices[method]


@ends_cleanly
def saves_tissue(method: str, save_tissue: bool | str) -> bool:
    """Whether to write the tissue maps, which only the hybrid method has.

    Raises:
        SystemExit: they are asked of another method.
    """
    wanted = str(save_tissue).lower() == "true"  # the command line hands over "true" as text
    if wanted and method != "hybrid":
        raise ValueError(f"method {method!r} makes no tissue maps. Remedy: --method hybrid, or no --save_tissue.")
    return wanted


class ScanWriter(NibabelWriter):
    """Write a corrected scan with the header of the scan it came from; whole or not at all.

    Affine, units, frame duration and orientation codes are the input's, the data are float32. The file is written
    beside its place and renamed, so a full disk or a kill leaves no half image.
    """

    description = b"partial volume corrected by ctrestore"

    def set_metadata(self, meta_dict: Any, resample: bool = True, **options: Any) -> None:
        """Remember the source besides what MONAI takes."""
        super().set_metadata(meta_dict, resample=resample, **options)
        self.source = str((meta_dict or {}).get("filename_or_obj", ""))

    def write(self, filename: str | os.PathLike, verbose: bool = False, **kwargs: Any) -> None:
        """Write ``(x, y, z)`` or ``(x, y, z, frame)``."""
        path = Path(filename)
        data = np.asarray(self.data_obj, dtype=np.float32)
        if Path(self.source).is_file():
            original: Any = nib.load(self.source)
            header, affine = original.header.copy(), original.affine
            if not isinstance(header, nib.Nifti1Header):
                header = nib.Nifti1Header.from_header(header)
                header.set_xyzt_units("mm", "sec")
            header.set_data_dtype(np.float32)
            header.set_slope_inter(1.0, 0.0)
            data = self.shaped(data, original.shape)
            if data.shape != original.shape:
                header["pixdim"][4] = 1.0  # the fourth axis is no time
        else:
            header, affine = None, self.affine
        image = nib.Nifti1Image(data, affine, header)
        if header is None:
            image.header.set_xyzt_units("mm", "sec")
        image.header["descrip"] = self.description
        image.header["cal_max"] = image.header["cal_min"] = 0
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(f".{os.getpid()}.{path.name}")
        try:
            nib.save(image, beside)
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)

    def shaped(self, data: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """The data in the shape of the scan: a single frame may be kept as a fourth axis."""
        return data.reshape(shape)


class TissueWriter(ScanWriter):
    """Write tissue maps ``(x, y, z, tissue)`` with the geometry of the scan they were seen in."""

    description = b"tissue fractions seen in the PET by ctrestore"

    def shaped(self, data: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """The maps as they are: the scan's fourth axis, if it has one, is time."""
        return data


def check_header(path: str | Path) -> None:
    """Refuse a NIfTI whose own header gives no plausible voxels; readers mend a zero to 1 mm without a word.

    Raises:
        ValueError: zero or absurd voxel sizes, no affine, or voxels that are no real numbers.
    """
    try:
        image: Any = nib.load(path)
        matrix = np.asarray(image.affine[:3, :3])
    except ValueError as error:
        raise ValueError(f"its header gives no affine ({error}). Remedy: set its sform and pixdim.") from None
    if isinstance(image.header, nib.Nifti1Header) and not int(image.header["sform_code"]):
        with nib.openers.ImageOpener(str(path)) as file:
            as_written = type(image.header).from_fileobj(file, check=False)
        matrix = np.diag(as_written["pixdim"][1:4])
    check_voxel_sizes(matrix)
    kind = image.get_data_dtype()
    if kind.kind not in "iuf":
        raise ValueError(f"its voxels are {kind}, not real numbers. Remedy: export it as a scalar image.")


def check_writable(folder: Path) -> None:
    """Make the folder and try it.

    Raises:
        ValueError: nothing can be written there.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ValueError(f"cannot write to {folder}: {error.strerror}. Remedy: another --output_dir.") from error


def _reason(error: BaseException) -> str:
    """The innermost message of a chain of exceptions, on one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    kind, message = type(error).__name__, str(error)
    # LoadImage and SaveImage raise the tracebacks of every reader or writer they tried as one text, ours first.
    tried = re.search(r"^(?:\w+\.)*(\w+): (.*)$", message, re.MULTILINE)
    if "cannot find a suitable" in message and tried is not None:
        kind, message = tried.groups()
    message = " ".join(message.split())
    if kind in ("ImageFileError", "EOFError", "BadGzipFile", "HeaderDataError", "error") or "damaged" in message:
        return (
            f"cannot be read as NIfTI ({message or kind}). Usual cause: a truncated or damaged copy, or another format "
            "under this name. Remedy: copy or convert it again."
        )
    if f"[Errno {errno.ENOSPC}]" in message:
        return "the disk is full; nothing of this scan was written. Remedy: free space, and run again."
    return message if isinstance(error, ValueError) or kind == "ValueError" else f"{kind}: {message}"


def _correct(evaluator: Any, dataset: Dataset, output_dir: str, weights: str, network: nn.Module) -> list[str]:
    """Run the evaluator scan by scan; what went wrong, one line a bad scan, with its file."""
    load_weights(Path(str(weights)), network)
    check_writable(Path(str(output_dir)))
    # After an exception ignite would take the next run for the rest of the failed one, and skip that scan silently.
    evaluator.interrupt_resume_enabled = False
    evaluator.logger.setLevel(logging.CRITICAL)  # it would announce every bad scan twice, without its name
    failed: list[str] = []
    todo = list(dataset.data)
    for entry in tqdm(todo, desc="correcting", unit="scan"):
        evaluator.data_loader = DataLoader(Dataset([entry], dataset.transform), batch_size=1, num_workers=0)
        evaluator.state.epoch_length = 1
        try:
            check_header(entry["image"])
            evaluator.run()
        except Exception as error:
            logger.debug("%s", entry["image"], exc_info=True)
            failed.append(f"{entry['image']}: {_reason(error)}")
            tqdm.write(f"skipped {failed[-1]}")
    done = len(todo) - len(failed)
    print(f"{done} of {len(todo)} scans corrected with {weights}; written to {Path(output_dir).resolve()}", flush=True)
    return failed


def _say(failed: list[str]) -> None:
    """End the process with the scans that were not corrected, if there are any."""
    if failed:
        raise SystemExit("ctrestore: error: not corrected:\n  " + "\n  ".join(failed))


@ends_cleanly
def correct_each(
    evaluator: Any, dataset: Dataset, output_dir: str, weights: str, network: nn.Module, dataset_dir: str = ""
) -> None:
    """Run the evaluator scan by scan; a bad scan is reported and the others go on.

    Args:
        evaluator: with preprocessing in the dataset, postprocessing and saving in its handlers.
        dataset: of the scans.
        output_dir: of the corrected scans.
        weights: state dict to load first.
        network: the evaluator's network.
        dataset_dir: where the scans were looked for.

    Raises:
        SystemExit: nothing can be done (no scan, weights, output folder), or, at the end, scans failed.
    """
    if not len(dataset):
        raise ValueError(
            f"{dataset_dir} holds no NIfTI file (.nii or .nii.gz). Remedy: convert the scans first (dcm2niix, "
            "ecatpet2bids), or name another --dataset_dir."
        )
    _say(_correct(evaluator, dataset, output_dir, weights, network))


@ends_cleanly
def evaluate_each(
    evaluator: Any,
    dataset: Dataset,
    output_dir: str,
    weights: str,
    network: nn.Module,
    dataset_dir: str,
    fwhm_mm: float | Sequence[float] | None = None,
    seed_protocol: bool = True,
    hybrid_dir: str | None = None,
) -> None:
    """Correct the scans as :func:`correct_each` does, then evaluate those that came out.

    Args:
        evaluator: as in :func:`correct_each`.
        dataset: of the scans, with their truth or label.
        output_dir: of corrected scans and tables.
        weights: state dict to load first.
        network: the evaluator's network.
        dataset_dir: folder of the scans, which their output names depend on.
        fwhm_mm: for the deconvolutions; None: from the sidecars.
        seed_protocol: also evaluate as the published network was.
        hybrid_dir: what ``--method hybrid`` made of the same scans: one more row, and the Dice of tissue maps there.

    Raises:
        SystemExit: as in :func:`correct_each`.
    """
    outputs_of(dataset.data, output_dir, dataset_dir)  # two scans of one name are found before the work
    by_hybrid = hybrid_dir is not None
    hybrid = {e["image"]: outputs_of([e], str(hybrid_dir), dataset_dir)[0] for e in dataset.data} if by_hybrid else {}
    missing = [path for path in hybrid.values() if not Path(path).is_file()]
    if missing:
        raise ValueError(
            f"{missing[0]}: no such file. Remedy: correct the scans first, by inference.json with --method hybrid "
            f"--save_tissue True --dataset_dir {dataset_dir} --output_dir {hybrid_dir}."
        )
    failed = _correct(evaluator, dataset, output_dir, weights, network)
    bad = {line.split(": ", 1)[0] for line in failed}
    good = [entry for entry in dataset.data if entry["image"] not in bad]
    if good:
        protocol = str(seed_protocol).lower() == "true"
        paths = outputs_of(good, output_dir, dataset_dir)
        maps = outputs_of(good, str(hybrid_dir), dataset_dir, postfix="tissue") if by_hybrid else []
        evaluate_pet_pvc(
            good, paths, output_dir, fwhm_mm=fwhm_mm, seed_protocol=protocol,
            hybrid=[hybrid[entry["image"]] for entry in good] if by_hybrid else None,
            tissue=maps if any(Path(path).is_file() for path in maps) else None,
        )  # fmt: skip
    _say(failed)


@ends_cleanly
def train(trainer: Any) -> None:
    """Run a trainer; what a user can mend ends the process with one clean message."""
    trainer.run()
