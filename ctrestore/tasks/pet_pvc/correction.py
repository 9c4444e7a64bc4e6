"""PET scans corrected one by one, and written on their own grid."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from monai.data import DataLoader, Dataset
from monai.data.image_writer import NibabelWriter

from ctrestore.errors import InputError, ScansFailed
from ctrestore.io import marks
from ctrestore.io.nifti import check_header, write_like, write_nifti
from ctrestore.io.whole import writable_folder
from ctrestore.tasks.pet_pvc.output_names import output_stem, outputs_of
from ctrestore.tasks.runtime import for_each_scan, is_true
from ctrestore.training.weights import LoadWeights


def output_name(meta: dict[str, Any], saver: Any = None, *, dataset_dir: str = "") -> dict[str, Any]:
    """:func:`output_stem` for MONAI's SaveImage, which takes an ending off: ``scan.v2`` would lose its ``.v2``."""
    return {"subject": output_stem(str(meta["filename_or_obj"]), dataset_dir) + ".nii", "idx": None}


def saves_tissue(method: str, save_tissue: bool | str) -> bool:
    """Whether to write the tissue maps, which only the hybrid method has.

    Raises:
        InputError: they are asked of another method.
    """
    wanted = is_true(save_tissue, "save_tissue")
    if wanted and method != "hybrid":
        raise InputError(f"method {method!r} makes no tissue maps. Remedy: --method hybrid, or no --save_tissue.")
    return wanted


class ScanWriter(NibabelWriter):
    """Write a corrected scan with the header of the scan it came from; whole or not at all.

    :func:`ctrestore.io.nifti.write_like` says what is kept.
    """

    description = marks.CORRECTED_PET

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

    description = marks.TISSUE_FRACTIONS

    def shaped(self, data: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """The maps as they are: the scan's fourth axis, if it has one, is time."""
        return data


def _correct(evaluator: Any, dataset: Dataset, output_dir: str, weights: LoadWeights) -> dict[str, str]:
    """Run the evaluator scan by scan; what went wrong, by the bad scan's file."""
    weights.load()
    writable_folder(str(output_dir))
    # After an exception ignite would take the next run for the rest of the failed one, and skip that scan silently.
    evaluator.interrupt_resume_enabled = False
    evaluator.logger.setLevel(logging.CRITICAL)  # it would announce every bad scan twice, without its name

    def correct(entry: dict[str, Any]) -> None:
        evaluator.data_loader = DataLoader(Dataset([entry], dataset.transform), batch_size=1, num_workers=0)
        evaluator.state.epoch_length = 1
        check_header(entry["image"])
        evaluator.run()

    todo = [(entry["image"], entry) for entry in dataset.data]
    done, failed = for_each_scan(todo, correct, doing="correcting")
    where = Path(output_dir).resolve()
    print(f"{len(done)} of {len(todo)} scans corrected with {weights.path}; written to {where}", flush=True)
    return failed


def correct_each(
    evaluator: Any, dataset: Dataset, output_dir: str, weights: LoadWeights, dataset_dir: str = ""
) -> None:
    """Run the evaluator scan by scan; a bad scan is reported and the others go on.

    Args:
        evaluator: with preprocessing in the dataset, postprocessing and saving in its handlers.
        dataset: of the scans.
        output_dir: of the corrected scans.
        weights: of the evaluator's network, loaded first.
        dataset_dir: where the scans were looked for.

    Raises:
        InputError: nothing can be done (no scan, weights, output folder), or, at the end, scans failed.
    """
    if not len(dataset):
        raise InputError(
            f"{dataset_dir} holds no NIfTI file (.nii or .nii.gz), no PET series in DICOM, no MHA, MHD or NRRD volume. "
            "Remedy: convert the scans first (dcm2niix, ecatpet2bids), or name another --dataset_dir."
        )
    if failed := _correct(evaluator, dataset, output_dir, weights):
        raise ScansFailed("corrected", failed)


def evaluate_each(
    evaluator: Any,
    dataset: Dataset,
    output_dir: str,
    weights: LoadWeights,
    dataset_dir: str,
    published_protocol: bool = True,
    classical_rows: bool = True,
    hybrid_dir: str | None = None,
) -> None:
    """Correct the scans as :func:`correct_each` does, then evaluate those that came out.

    Args:
        evaluator: as in :func:`correct_each`.
        dataset: of the scans, with their truth or label and their ``fwhm_mm``.
        output_dir: of corrected scans and tables.
        weights: of the evaluator's network, loaded first.
        dataset_dir: folder of the scans, which their output names depend on.
        published_protocol: also evaluate as the published network was.
        classical_rows: also the methods that need an MRI, for scans with tissue maps.
        hybrid_dir: what ``--method hybrid`` made of the same scans: one more row, and the Dice of tissue maps there.

    Raises:
        InputError: as in :func:`correct_each`.
    """
    from ctrestore.tasks.pet_pvc.report import evaluate_pet_pvc

    outputs_of(dataset.data, output_dir, dataset_dir)  # two scans of one name are found before the work
    by_hybrid = hybrid_dir is not None
    hybrid = {e["image"]: outputs_of([e], str(hybrid_dir), dataset_dir)[0] for e in dataset.data} if by_hybrid else {}
    missing = [path for path in hybrid.values() if not Path(path).is_file()]
    if missing:
        raise InputError(
            f"{missing[0]}: no such file. Remedy: correct the scans first, by inference.json with --method hybrid "
            f"--save_tissue True --dataset_dir {dataset_dir} --output_dir {hybrid_dir}."
        )
    failed = _correct(evaluator, dataset, output_dir, weights)
    good = [entry for entry in dataset.data if entry["image"] not in failed]
    if good:
        paths = outputs_of(good, output_dir, dataset_dir)
        maps = outputs_of(good, str(hybrid_dir), dataset_dir, postfix="tissue") if by_hybrid else []
        evaluate_pet_pvc(
            good, paths, output_dir,
            published_protocol=is_true(published_protocol, "published_protocol"),
            classical_rows=is_true(classical_rows, "classical_rows"),
            hybrid=[hybrid[entry["image"]] for entry in good] if by_hybrid else None,
            tissue=maps if any(Path(path).is_file() for path in maps) else None,
        )  # fmt: skip
    if failed:
        raise ScansFailed("corrected", failed)
