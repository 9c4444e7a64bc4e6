"""What the bundle configs call beside MONAI: their data, their device, and inference scan by scan.

What only evaluation or the embedded phantoms need (pandas, matplotlib, scikit-learn) is imported where it is used.

The errors a user can mend end the process with one clean message (``SystemExit``), because MONAI would bury any other
exception of a config under its own.
"""

from __future__ import annotations

import atexit
import errno
import functools
import logging
import os
import re
import shutil
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, ParamSpec, TypeVar

import nibabel as nib
import numpy as np
import torch
from monai.bundle import run as bundle_run
from monai.data import CacheDataset, DataLoader, Dataset, PersistentDataset
from monai.data.image_writer import NibabelWriter
from torch import nn
from tqdm import tqdm

from ctrestore import precision
from ctrestore.data_lists import read_data_list
from ctrestore.data_lists.building import GRID_TOLERANCE_MM
from ctrestore.data_lists.scans import read_grid
from ctrestore.dicom import pet_as_nifti
from ctrestore.files import writable_folder
from ctrestore.handlers import load_weights
from ctrestore.imagenet import vgg16_relu3_3
from ctrestore.itk_files import ITK_ENDINGS, read_itk
from ctrestore.nifti import check_header, fwhm_from_sidecar, sidecar_of, stem, write_like, write_nifti
from ctrestore.psf import per_axis

NIFTI = (".nii", ".nii.gz")
Section = Literal["training", "validation", "test"]
DEFAULT_FWHM_MM = 6.0  # of a clinical brain PET after its usual filter, where nobody knows better
Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")
logger = logging.getLogger("ctrestore")


def ends_cleanly(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Turn the errors of a user's input into a message and exit status 1."""

    @functools.wraps(function)
    def wrapped(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        try:
            return function(*args, **kwargs)
        except (ValueError, OSError, FloatingPointError) as error:
            raise SystemExit(f"ctrestore: error: {error}") from error

    return wrapped


def find_bundle(named: Path | None, name: str) -> Path:
    """A bundle's folder: as named, or ``bundles/NAME`` of the working directory or of the checkout of this package.

    Raises:
        ValueError: there is none.
    """
    places = [named] if named else [Path("bundles") / name, Path(__file__).parent.parent / "bundles" / name]
    for place in places:
        if (place / "configs" / "metadata.json").is_file():
            return place
    looked = " or ".join(str(place) for place in places)
    raise ValueError(
        f"there is no bundle in {looked}. Remedy: run it in a checkout, or name the folder with --bundle DIR."
    )


def run_bundle(bundle: Path, configs: Sequence[str], **overrides: Any) -> None:
    """Run configs of a bundle, one on top of the other.

    Args:
        bundle: its folder.
        configs: names of files in its ``configs``, or paths of others.
        overrides: of ids.

    Raises:
        ValueError: there is no such config.
        SystemExit: what the configs' own functions end with.
    """
    places = [bundle / "configs" / f"{name}.json" for name in configs]
    files = [place if place.is_file() else Path(name) for place, name in zip(places, configs)]
    for file in files:
        if not file.is_file():
            variants = sorted(path.stem for path in (bundle / "configs").glob("*.json"))
            raise ValueError(f"there is no config {file}. The bundle has: {', '.join(variants)}; or name a JSON file.")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*parsing config_file")  # the configs are our own, or named
        bundle_run(config_file=[str(file) for file in files], bundle_root=str(bundle), **overrides)


def embedded_data_dir(bundle_root: str, name: str) -> str:
    """Folder of an embedded data set: ``.data/NAME`` of the checkout that the bundle lies in, or of the bundle."""
    root = Path(bundle_root).resolve()
    checkout = root.parent.parent
    ours = (checkout / "pyproject.toml").is_file() and (checkout / "ctrestore").is_dir()
    return str((checkout if ours else root) / ".data" / name)


def with_fwhm(scan: dict[str, Any], fwhm_mm: float | Sequence[float] | None) -> dict[str, Any]:
    """The entry with its FWHM along x, y, z in mm: as given, as listed, as in the sidecar, or 6 mm, which is said.

    Raises:
        ValueError: an FWHM is not a positive number of millimetres, or the sidecar's is not.
    """
    sidecar = sidecar_of(scan["image"])
    known = scan.get("fwhm_mm") if fwhm_mm is None else fwhm_mm  # listed: what the labels were made with
    if known is not None:
        widths = per_axis(known, name="fwhm_mm")
        if min(widths) <= 0:
            raise ValueError(f"fwhm_mm must be above 0 mm; got {known!r}. Remedy: the scanner's resolution in mm.")
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
        SystemExit: the list, a file, a target or an FWHM is missing, a file cannot be a scan, or ``n`` is below 1; it
            is named.
    """
    if n is not None and n < 1:
        raise ValueError(f"the number of {section} scans must be at least 1, or null for all of them; got {n}.")
    if data_list is None:
        from ctrestore.phantoms import phantom_entries

        listed = phantom_entries(str(dataset_dir), section, n=n)
    else:
        listed = _read_list(Path(str(data_list)), section, dataset_dir)[:n]
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
        if fwhm_needed and fwhm_mm is None and not entry.get("fwhm_mm"):
            fwhm_from_sidecar(entry["image"])
    if isinstance(target, str):
        listed = [{**entry, "label": entry[target]} for entry in listed]
    known = [with_fwhm(entry, fwhm_mm) for entry in listed]
    if any(min(entry["fwhm_mm"]) + float(fwhm_error_mm) <= 0 for entry in known):
        raise ValueError(f"fwhm_error_mm {fwhm_error_mm:g} would leave a FWHM of 0 mm or less.")
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
            raise ValueError(f"{path}: {reason(error)}") from error
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


def waits_for_first_process(path: Path) -> bool:
    """Whether ``torchrun`` started this process after the first one of the machine; if so, once the path is there."""
    if int(os.environ.get("LOCAL_RANK") or 0) == 0:
        return False
    while not path.exists():
        time.sleep(0.5)
    return True


def is_nifti(path: Path) -> bool:
    """Whether a visible file's name ends like a NIfTI's."""
    return path.name.endswith(NIFTI) and not path.name.startswith(".") and path.is_file()


@ends_cleanly
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
        SystemExit: the path does not exist, two outputs would have the same name, or a DICOM series or a volume is
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
        raise ValueError(f"{root} does not exist. Remedy: --dataset_dir with a NIfTI file or a folder of them.")
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
        write_nifti(image, written[-1], description=f"from {path.suffix[1:]}")
    return written or pet_as_nifti(source, folder)


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
        network.to(memory_format=formats[n_axes])  # type: ignore[call-overload]  # documented; torch's stubs lack it
    return network


@ends_cleanly
def use_bfloat16(amp: precision.Amp, device: str | torch.device) -> bool:
    """The precision of a run: :func:`ctrestore.precision.use_bfloat16`, said in one line of the log.

    Raises:
        SystemExit: ``amp`` is neither ``"auto"`` nor a bool.
    """
    return precision.use_bfloat16(amp, device, log=True)


@ends_cleanly
def vgg16_features(weights: str | None, device: str | torch.device) -> nn.Module:
    """VGG16 up to relu3_3 with ImageNet weights, for :class:`ctrestore.losses.FeatureLoss`.

    Args:
        weights: torchvision's file; None: as torchvision downloaded it.
        device: to compute on.

    Raises:
        SystemExit: there is no such file, or it holds something else; what to fetch is named.
    """
    return on_device(vgg16_relu3_3(weights), device)


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

    :func:`ctrestore.nifti.write_like` says what is kept.
    """

    description = "partial volume corrected by ctrestore"

    def set_metadata(self, meta_dict: Any, resample: bool = True, **options: Any) -> None:
        """Remember the source besides what MONAI takes."""
        super().set_metadata(meta_dict, resample=resample, **options)
        self.source = str((meta_dict or {}).get("filename_or_obj", ""))

    def write(self, filename: str | os.PathLike, verbose: bool = False, **kwargs: Any) -> None:
        """Write ``(x, y, z)`` or ``(x, y, z, frame)``."""
        path, data = Path(filename), np.asarray(self.data_obj, dtype=np.float32)
        if Path(self.source).is_file():
            source: Any = nib.load(self.source)
            write_like(
                self.source,
                self.shaped(data, source.shape),
                path,
                description=self.description,
                nothing_repeats=True,
            )
            return
        image = nib.Nifti1Image(data, self.affine)
        image.header.set_xyzt_units("mm", "sec")
        write_nifti(image, path, description=self.description, nothing_repeats=True)

    def shaped(self, data: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """The data in the shape of the scan: a single frame may be kept as a fourth axis."""
        return data.reshape(shape)


class TissueWriter(ScanWriter):
    """Write tissue maps ``(x, y, z, tissue)`` with the geometry of the scan they were seen in."""

    description = "tissue fractions seen in the PET by ctrestore"

    def shaped(self, data: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """The maps as they are: the scan's fourth axis, if it has one, is time."""
        return data


def reason(error: BaseException) -> str:
    """The innermost message of a chain of exceptions, on one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    kind, message = type(error).__name__, str(error)
    # LoadImage and SaveImage raise the tracebacks of every reader or writer they tried as one text, ours first.
    tried = re.search(r"^(?:\w+\.)*(\w+): (.*)$", message, re.MULTILINE)
    if "cannot find a suitable" in message and tried is not None:
        kind, message = tried.groups()
    message = " ".join(message.split())
    if kind in ("ImageFileError", "EOFError", "BadGzipFile", "HeaderDataError", "error") or (
        "damaged" in message and "Remedy" not in message
    ):
        return (
            f"cannot be read as NIfTI ({message or kind}). Usual cause: a truncated or damaged copy, or another format "
            "under this name. Remedy: copy or convert it again."
        )
    if f"[Errno {errno.ENOSPC}]" in message:
        return "the disk is full; nothing of this scan was written. Remedy: free space, and run again."
    return message if isinstance(error, ValueError) or kind == "ValueError" else f"{kind}: {message}"


def _correct(evaluator: Any, dataset: Dataset, output_dir: str, weights: str, network: nn.Module) -> dict[str, str]:
    """Run the evaluator scan by scan; what went wrong, by the bad scan's file."""
    load_weights(Path(str(weights)), network)
    writable_folder(str(output_dir))
    # After an exception ignite would take the next run for the rest of the failed one, and skip that scan silently.
    evaluator.interrupt_resume_enabled = False
    evaluator.logger.setLevel(logging.CRITICAL)  # it would announce every bad scan twice, without its name
    failed: dict[str, str] = {}
    todo = list(dataset.data)
    for entry in tqdm(todo, desc="correcting", unit="scan"):
        evaluator.data_loader = DataLoader(Dataset([entry], dataset.transform), batch_size=1, num_workers=0)
        evaluator.state.epoch_length = 1
        try:
            check_header(entry["image"])
            evaluator.run()
        except Exception as error:  # whatever is wrong with one scan, the others are to be corrected
            logger.debug("%s", entry["image"], exc_info=True)
            failed[entry["image"]] = reason(error)
            tqdm.write(f"skipped {entry['image']}: {failed[entry['image']]}")
    done = len(todo) - len(failed)
    print(f"{done} of {len(todo)} scans corrected with {weights}; written to {Path(output_dir).resolve()}", flush=True)
    return failed


def _say(failed: dict[str, str]) -> None:
    """End the process with the scans that were not corrected, if there are any."""
    if failed:
        lines = (f"\n  {scan}: {reason}" for scan, reason in failed.items())
        raise SystemExit("ctrestore: error: not corrected:" + "".join(lines))


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
            f"{dataset_dir} holds no NIfTI file (.nii or .nii.gz), no PET series in DICOM, no MHA, MHD or NRRD volume. "
            "Remedy: convert the scans first (dcm2niix, ecatpet2bids), or name another --dataset_dir."
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
    seed_protocol: bool = True,
    classical_rows: bool = True,
    hybrid_dir: str | None = None,
) -> None:
    """Correct the scans as :func:`correct_each` does, then evaluate those that came out.

    Args:
        evaluator: as in :func:`correct_each`.
        dataset: of the scans, with their truth or label and their ``fwhm_mm``.
        output_dir: of corrected scans and tables.
        weights: state dict to load first.
        network: the evaluator's network.
        dataset_dir: folder of the scans, which their output names depend on.
        seed_protocol: also evaluate as the published network was.
        classical_rows: also the methods that need an MRI, for scans with tissue maps.
        hybrid_dir: what ``--method hybrid`` made of the same scans: one more row, and the Dice of tissue maps there.

    Raises:
        SystemExit: as in :func:`correct_each`.
    """
    from ctrestore.report import evaluate_pet_pvc

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
    good = [entry for entry in dataset.data if entry["image"] not in failed]
    if good:
        paths = outputs_of(good, output_dir, dataset_dir)
        maps = outputs_of(good, str(hybrid_dir), dataset_dir, postfix="tissue") if by_hybrid else []
        evaluate_pet_pvc(
            good, paths, output_dir, seed_protocol=_is_on(seed_protocol), classical_rows=_is_on(classical_rows),
            hybrid=[hybrid[entry["image"]] for entry in good] if by_hybrid else None,
            tissue=maps if any(Path(path).is_file() for path in maps) else None,
        )  # fmt: skip
    _say(failed)


def _is_on(switch: bool | str) -> bool:
    """A switch of the command line, where ``true`` stays a text."""
    return str(switch).lower() == "true"


@ends_cleanly
def train(trainer: Any) -> None:
    """Run a trainer; what a user can mend ends the process with one clean message."""
    trainer.run()
