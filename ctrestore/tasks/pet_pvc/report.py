"""Evaluation of PET partial volume correction: the network beside what needs neither network nor MRI."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from scipy import ndimage
from tqdm import tqdm

from ctrestore.errors import InputError
from ctrestore.io.whole import writable_folder, written_whole
from ctrestore.metrics import (
    SSIM_WINDOW_VOXELS,
    lesion_recovery,
    nrmse,
    regional_bias,
    rmse,
    structural_similarity_in_mask,
    total_activity_ratio,
)
from ctrestore.phantoms import COLD, HOT
from ctrestore.psf import N_THREADS, Scalars
from ctrestore.pvc import FITTED_SHARPENING, LECTURES_SHARPENING, reblurred_van_cittert, richardson_lucy, sharpen
from ctrestore.tasks.pet_pvc import with_mri as classical
from ctrestore.tasks.pet_pvc.evaluated_scans import Scan, find_scans
from ctrestore.tasks.pet_pvc.published_protocol import compare_by_published_protocol, published_table
from ctrestore.tasks.pet_pvc.tissue_dice import tissue_table, tissue_text
from ctrestore.transforms.pet import head_mask

INPUT, FITTED, LECTURES, RL, VAN_CITTERT, HYBRID = (
    "input",
    "sharpened (fitted)",
    "sharpened (SciPy)",
    "Richardson-Lucy",
    "Van Cittert",
    "hybrid",
)
SSIM_PERCENTILE = 99
MOST_THREADS = 2


class Column(NamedTuple):
    """How a metric is printed."""

    header: tuple[str, str]
    format: str


#: Metrics by their column in metrics.csv; biases are fractions there (0.1 is 10 %).
METRICS = {
    "ssim": Column(("SSIM", "brain"), "{:.3f}"),
    "gm_nrmse": Column(("NRMSE", "GM"), "{:.3f}"),
    "brain_nrmse": Column(("NRMSE", "brain"), "{:.3f}"),
    "gm_bias_mean": Column(("GM bias", "mean"), "{:.1%}"),
    "gm_bias_max": Column(("GM bias", "max"), "{:.1%}"),
    "wm_bias": Column(("WM", "bias"), "{:+.1%}"),
    "hot_recovery": Column(("hot", "lesions"), "{:.3f}"),
    "total_ratio": Column(("total", "activity"), "{:.3f}"),
    "rmse": Column(("RMSE", "raw"), "{:.4g}"),
    "gm_nrmse_over_van_cittert": Column(("GM NRMSE", "/ V.C."), "{:.3f}"),
}

NOT_MEASURED = dict.fromkeys(METRICS, float("nan"))


def evaluate_pet_pvc(
    entries: Sequence[Mapping[str, Any]],
    predictions: Sequence[str | Path] | str | Path,
    output_dir: str | Path,
    *,
    fwhm_mm: Scalars | None = None,
    published_protocol: bool = True,
    classical_rows: bool = True,
    name: str = "network",
    hybrid: Sequence[str | Path] | None = None,
    tissue: Sequence[str | Path] | None = None,
) -> pd.DataFrame:
    """One line for each scan, correction and reference; written as tables and printed as a summary.

    ``output_dir`` receives metrics.csv (what is returned), summary.csv (median, quartiles) and published_protocol.csv
    (the same scans as the published 3-D ResUNet was evaluated); with ``tissue`` also tissue.csv.

    Grey and white matter are where the probability exceeds 0.5, the brain where that of all tissues does. Without maps
    of grey and white matter the head, found by a threshold, stands for the brain and the columns of grey and white
    matter are NaN. SSIM takes as its range, for every row of a scan, the 99th percentile of the reference in the brain
    (column ``ssim_range``).

    Args:
        entries: of a data list, absolute paths: ``image``, ``truth`` and/or ``label``, and where there are any
            ``subject``, ``grey_matter``, ``white_matter``, ``csf``, ``parcels``, ``lesions`` (hot ones are 1 to 100),
            ``grey_matter_concentration`` (the truth for GTM and mMG), ``fwhm_mm``.
        predictions: the corrected images in the entries' order, or the folder of ``<stem of image>_pvc.nii.gz``.
        output_dir: made if need be.
        fwhm_mm: of the PSF, one number or one along each of the patient's axes x, y, z; by default the entry's
            ``fwhm_mm``, else FWHM_x, FWHM_y and FWHM_z of the sidecar beside each image.
        published_protocol: whether to evaluate once more under the published protocol, which takes longer.
        classical_rows: whether to add, for scans with a truth and tissue maps, the methods that need an MRI.
        name: of the row of the predictions.
        hybrid: images corrected by maps that a network saw in the PET, in the entries' order: one more row, ``hybrid``.
        tissue: those maps, ``(x, y, z, tissue)``, whose Dice is printed.

    Raises:
        InputError: a file is missing, damaged or on another grid, or a PSF is unknown; the message names the file.
    """
    if name in (INPUT, FITTED, LECTURES, RL, VAN_CITTERT, HYBRID):
        raise InputError(f"name={name!r} is one of the rows to compare with. Choose another name for the predictions.")
    output_dir = writable_folder(output_dir)
    scans = find_scans(entries, predictions, fwhm_mm=fwhm_mm, others=None if hybrid is None else {HYBRID: hybrid})
    tissues = None if tissue is None else tissue_table(scans, tissue)

    def evaluate(scan: Scan) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        try:
            scores = _score_scan(scan, name, classical_rows=classical_rows)
            return scores, compare_by_published_protocol(scan, name) if published_protocol else []
        except ValueError as error:
            raise InputError(f"{scan.name} ({scan.files['image']}) cannot be evaluated: {error}") from error

    scored, by_published = [], []
    # Filters and sums leave Python's lock alone, so threads run beside each other; each takes about 1.5 GB.
    with ThreadPoolExecutor(min(MOST_THREADS, N_THREADS)) as pool:
        for scores, published_scores in tqdm(
            pool.map(evaluate, scans), total=len(scans), desc="evaluation", unit="scan"
        ):
            scored += scores
            by_published += published_scores
    metrics = pd.DataFrame(scored)
    _write_csv(metrics, output_dir / "metrics.csv")
    _write_csv(summary(metrics), output_dir / "summary.csv")
    print(summary_text(metrics, name))
    if metrics["row"].str.endswith(classical.EXACT).any():
        print(classical.FOOTNOTE)
        if not metrics["row"].str.startswith("GTM").any():
            print("Without grey_matter_concentration, the truth of GTM and mMG, these two are left out.")
    if published_protocol:
        table, text = published_table(by_published, name)
        _write_csv(table, output_dir / "published_protocol.csv")
        print(text)
    if tissues is not None:
        _write_csv(tissues, output_dir / "tissue.csv")
        print(tissue_text(tissues))
    print(f"Tables: {output_dir.absolute()}")
    return metrics


def _write_csv(table: pd.DataFrame, path: Path) -> None:
    with written_whole(path) as draft:
        table.to_csv(draft, index=False, float_format="%.6g")


@dataclass(frozen=True)
class MeasuredRegions:
    """Where a scan is measured: maps cut to ``box`` of the scan's volume, None where the entry has no such file.

    Attributes:
        box: holds all regions and the SSIM window around them, so that nothing outside changes what is measured.
        brain: boolean; the head if maps of grey or white matter are missing.
        grey_matter: probability.
        white_matter: probability.
        parcels: label map.
        lesions: label map, hot ones are ``HOT`` to ``COLD - 1``.
    """

    box: tuple[slice, ...]
    brain: np.ndarray
    grey_matter: np.ndarray | None
    white_matter: np.ndarray | None
    parcels: np.ndarray | None
    lesions: np.ndarray | None

    @classmethod
    def of(cls, scan: Scan, image: np.ndarray) -> MeasuredRegions:
        """Regions of a scan; ``image`` is its uncorrected PET."""
        grey, white, csf, parcels, lesions = map(
            scan.read_if_given, ("grey_matter", "white_matter", "csf", "parcels", "lesions")
        )
        tissues = None if grey is None or white is None else grey + white + (0 if csf is None else csf)
        # Of one voxel a block, so that the mask is the head's contour.
        brain = head_mask(torch.from_numpy(image)[None], block=1)[0].numpy() if tissues is None else tissues > 0.5
        inside = brain.copy()
        for region, above in ((grey, 0.5), (white, 0.5), (parcels, 0), (lesions, 0)):
            if region is not None:
                inside |= region > above
        found = ndimage.find_objects(inside.astype(np.uint8))
        if not found:
            raise InputError("its tissue maps exceed a probability of 0.5 nowhere. Usual cause: maps of another scan.")
        margin = SSIM_WINDOW_VOXELS // 2
        box = tuple(slice(max(s.start - margin, 0), s.stop + margin) for s in found[0])
        maps = (None if region is None else region[box].copy() for region in (grey, white, parcels, lesions))
        return cls(box, brain[box], *maps)


def corrections(scan: Scan, image: np.ndarray) -> dict[str, Callable[[], np.ndarray]]:
    """What the network is compared with, by row; computed when called."""
    fwhm_mm, spacing_mm = scan.fwhm_mm, scan.spacing_mm
    return {
        INPUT: lambda: image,
        FITTED: partial(sharpen, image, **FITTED_SHARPENING),
        LECTURES: partial(sharpen, image, **LECTURES_SHARPENING),
        RL: partial(richardson_lucy, image, fwhm_mm=fwhm_mm, spacing_mm=spacing_mm),
        VAN_CITTERT: partial(reblurred_van_cittert, image, fwhm_mm=fwhm_mm, spacing_mm=spacing_mm),
    }


def _score_scan(scan: Scan, name: str, *, classical_rows: bool) -> list[dict[str, Any]]:
    image = scan.read("image")
    if not image.max() > 0:
        raise InputError("its PET has no voxel above zero. Usual cause: an empty export.")
    regions = MeasuredRegions.of(scan, image)
    references = {key: scan.read(key) for key in scan.references}
    ranges = {
        key: float(np.percentile(ref[regions.box][regions.brain], SSIM_PERCENTILE)) for key, ref in references.items()
    }
    rows: dict[str, list[dict[str, Any]]] = {key: [] for key in references}
    compared = corrections(scan, image)
    compared[name] = partial(scan.read, "prediction")
    if HYBRID in scan.files:
        compared[HYBRID] = partial(scan.read, HYBRID)
    for row, corrected in compared.items():
        pred = corrected()
        for key, reference in references.items():
            scores = score(pred, reference, regions, ssim_range=ranges[key])
            rows[key].append({"subject": scan.name, "row": row, "reference": key, **scores})
    maps = classical.TissueMaps.of(scan) if classical_rows else None
    if maps is not None:
        key = next(iter(references))  # the truth: a label is what one of these methods made
        for row, result in classical.classical_rows(scan, image, maps):
            if not isinstance(result, dict):
                result = score(result, references[key], regions, ssim_range=ranges[key])
            rows[key].append({"subject": scan.name, "row": row, "reference": key, **NOT_MEASURED, **result})
    for of_reference in rows.values():
        by_van_cittert = np.float64(next(line["gm_nrmse"] for line in of_reference if line["row"] == VAN_CITTERT))
        for line in of_reference:
            with np.errstate(divide="ignore", invalid="ignore"):  # 0 where Van Cittert already equals the reference
                ratio = float(line["gm_nrmse"] / by_van_cittert)
            of_activity = not line["row"].startswith("mMG, ")  # whose error is that of another quantity
            line["gm_nrmse_over_van_cittert"] = ratio if of_activity else float("nan")
            line["ssim_range"] = ranges[line["reference"]]
    return [line for of_reference in rows.values() for line in of_reference]


def score(pred: np.ndarray, reference: np.ndarray, regions: MeasuredRegions, *, ssim_range: float) -> dict[str, float]:
    """The metrics of one image that need no other row; NaN where the regions for one are missing."""
    whole = {"total_ratio": total_activity_ratio(pred, reference), "rmse": rmse(pred, reference)}
    pred, reference = pred[regions.box], reference[regions.box]
    scores = dict.fromkeys(("ssim", "gm_nrmse", "brain_nrmse", "gm_bias_mean", "gm_bias_max", "wm_bias"), float("nan"))
    scores["ssim"] = structural_similarity_in_mask(pred, reference, regions.brain, data_range=ssim_range)
    scores["brain_nrmse"] = nrmse(pred, reference, regions.brain)
    if regions.grey_matter is not None:
        scores["gm_nrmse"] = nrmse(pred, reference, regions.grey_matter > 0.5)
        if regions.parcels is not None:
            bias = regional_bias(pred, reference, regions.parcels, regions.grey_matter)
            scores |= {"gm_bias_mean": bias.mean_absolute, "gm_bias_max": bias.max_absolute}
    if regions.white_matter is not None:
        of_white = regional_bias(pred, reference, regions.white_matter > 0.5).bias
        scores["wm_bias"] = float(of_white[0]) if of_white.size else float("nan")
    scores["hot_recovery"] = (
        float("nan")
        if regions.lesions is None
        else lesion_recovery(pred, reference, regions.lesions, hot_labels=range(HOT, COLD))
    )
    return scores | whole


def summary(metrics: pd.DataFrame) -> pd.DataFrame:
    """Median and quartiles over scans (``<metric>_median``, ``_q25``, ``_q75``), a line for each reference and row."""
    groups = metrics.groupby(["reference", "row"], sort=False)[list(METRICS)]
    parts = {"median": groups.median(), "q25": groups.quantile(0.25), "q75": groups.quantile(0.75)}
    columns = {f"{m}_{part}": values[m] for m in METRICS for part, values in parts.items()}
    return pd.DataFrame({"n_scans": groups.size(), **columns}).reset_index()


def summary_text(metrics: pd.DataFrame, name: str) -> str:
    """The summary for a terminal: under each median its inter-quartile range in brackets."""
    lines = []
    for reference, part in metrics.groupby("reference", sort=False):
        n_scans = int((part["row"] == name).sum())
        lines += [
            "",
            f"Against {reference}, {_counted(n_scans)}: median (inter-quartile range). SSIM range: "
            f"{SSIM_PERCENTILE}th percentile of the {reference} in each brain.",
        ]
        lines += [f"{'':<22}" + "".join(f"{column.header[i]:>10}" for column in METRICS.values()) for i in (0, 1)]
        for _, row in summary(part).iterrows():
            medians = {m: row[f"{m}_median"] for m in METRICS}
            spreads = {m: row[f"{m}_q75"] - row[f"{m}_q25"] for m in METRICS}
            lines.append(f"{row['row']:<22}" + "".join(f"{_shown(m, value):>10}" for m, value in medians.items()))
            if n_scans > 1:
                cells = (f"({_shown(m, value).lstrip('+')})" if value == value else "" for m, value in spreads.items())
                lines.append(" " * 22 + "".join(f"{cell:>10}" for cell in cells))
        lines.append(_wins(part, name))
    return "\n".join(lines)


def _counted(n_scans: int) -> str:
    return "1 scan" if n_scans == 1 else f"{n_scans} scans"


def _shown(metric: str, value: float) -> str:
    return METRICS[metric].format.format(value) if value == value else "-"


def _wins(part: pd.DataFrame, name: str) -> str:
    """On how many scans the network has the smaller error, in grey matter where that is known."""
    of_images = part[part["row"].isin((name, INPUT, FITTED, LECTURES, VAN_CITTERT))]
    metric = "gm_nrmse" if of_images["gm_nrmse"].notna().all() else "brain_nrmse"
    errors = {row: lines[metric].to_numpy() for row, lines in part.groupby("row")}
    counts = [f"{row} on {int((errors[name] < errors[row]).sum())}" for row in (INPUT, FITTED, LECTURES, VAN_CITTERT)]
    where = "grey matter" if metric == "gm_nrmse" else "the brain"
    return f"By NRMSE in {where}, {name} beats {', '.join(counts)} of {_counted(errors[name].size)}."
