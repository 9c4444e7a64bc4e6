"""What the measures of many slices say: means and intervals by patient, as numbers and as tables in Markdown."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd

from ctrestore.metrics import PROTOCOLS, TISSUE_BANDS_HU, bootstrap_by_patient, compare_by_patient
from ctrestore.tasks.ct_report.scores import FALSE_DISC_TISSUES, FULL_DOSE, INPUT, LUNG_SHARE_OF_CHEST, SCORED_PROTOCOLS

WINDOWED, WHOLE, LUNGS = SCORED_PROTOCOLS
MEANS = [f"{score}[{name}]" for name in SCORED_PROTOCOLS for score in ("rmse", "psnr_db", "ssim")] + [
    "noise_sd_ratio",
    "frequency_ratio",
    "residual_sd_hu",
    "residual_per_mm",
    "edge_correlation",
    *(f"false_disc_hu[{tissue}]" for tissue in FALSE_DISC_TISSUES),
    "seconds",
]
BIASES = [f"bias_hu[{tissue}]" for tissue in TISSUE_BANDS_HU]
BIAS_BAR_HU = {tissue: 3.0 if tissue == "bone" else 2.0 for tissue in TISSUE_BANDS_HU}
N_RESAMPLES = 1999
WORSE_DB = 0.01  # less is rounding
By = Literal["dose_fraction", "noise"]  # the column that tells apart what was done to a slice
CALLED: dict[By, str] = {"dose_fraction": "dose", "noise": "noise"}
NOTES = f"""\
Means are means over patients of their slices' means; in brackets 95 % intervals, bootstrapped by patient.
Pixels whose full dose is not known (NaN, or outside an entry's `known_hu`: 8-bit slices end at 400 HU) and padding
are left out everywhere. Chest: at least {LUNG_SHARE_OF_CHEST:.0%} of the body's pixels have the density of lung, the
rest is abdomen. Worse: slices whose PSNR [{WINDOWED}] is below that of their input by more than {WORSE_DB} dB.
Bias: mean difference to full dose in a tissue, told by a 5 x 5 median of the full dose; bold where it exceeds 2 HU
(bone: 3 HU). Noise: of uniform soft tissue, standard deviation and mean frequency as ratios to the full dose's own;
the residual is the difference to full dose there. Edges: correlation of the difference to full dose with the anatomy
at its edges, below 0 blurred, above 0 sharpened. False discs: contrast of the strongest discs (3 mm radius, 99.9th
percentile over all places) in the difference to full dose; noise makes such, too: compare with the input.
Discs: inserted before the low dose was simulated; contrast that is left (1 is perfect), and the frequency in 1/mm that
passes by half (-: beyond the pixels' own limit)."""


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _interval(values: pd.Series, patients: pd.Series) -> dict[str, float | None]:
    """Mean over patients with its interval; without an interval for a single patient."""
    kept = np.isfinite(values)
    if not kept.any():
        return {"mean": None, "low": None, "high": None}
    values, patients = values[kept], patients[kept]
    if patients.nunique() < 2:
        return {"mean": float(values.mean()), "low": None, "high": None}
    found = bootstrap_by_patient(values.to_numpy(), patients.to_numpy(), n_resamples=N_RESAMPLES)
    return {"mean": found.mean, "low": found.low, "high": found.high}


def _gain(of_row: pd.DataFrame, baseline: pd.DataFrame, column: str) -> dict[str, float | None]:
    """Paired difference in a column with its interval over patients, and its median over slices."""
    new, old = of_row[column].to_numpy(), baseline[column].to_numpy()
    kept = np.isfinite(new) & np.isfinite(old)
    if not kept.any():
        return {"mean": None, "low": None, "high": None, "median": None}
    patients, differences = of_row["patient"].to_numpy()[kept], (new - old)[kept]
    median = {"median": float(np.median(differences))}
    if len(np.unique(patients)) < 2:
        return {"mean": float(differences.mean()), "low": None, "high": None, **median}
    found = compare_by_patient(new[kept], old[kept], patients, n_resamples=N_RESAMPLES).difference
    return {"mean": found.mean, "low": found.low, "high": found.high, **median}


def _groups(metrics: pd.DataFrame, by: By) -> Iterator[tuple[Any, str, pd.DataFrame]]:
    """The lines of each dose or noise, those of all slices first, then chest and abdomen apart."""
    for value, of_value in metrics.groupby(by, sort=False, dropna=False):
        yield value, "all", of_value
        for region in ("chest", "abdomen"):
            of_region = of_value[of_value["region"] == region]
            if len(of_region) and len(of_region) < len(of_value):
                yield value, region, of_region


def summarise(
    metrics: pd.DataFrame, *, baselines: Sequence[str], by: By = "dose_fraction", worse_than: str = INPUT
) -> list[dict[str, Any]]:
    """One record for each dose (or noise), region and row; numbers that do not exist are None.

    Args:
        metrics: of :func:`ctrestore.tasks.ct_report.scores.evaluate_slices`.
        baselines: rows whose PSNR the others are compared with, slice by slice; those missing are passed over.
        by: the column that tells apart what was done to the slices.
        worse_than: row that slices are counted against.
    """
    metrics = metrics.assign(
        noise_sd_ratio=np.sqrt(metrics["noise_hu2"] / metrics["full_noise_hu2"]),
        frequency_ratio=metrics["noise_per_mm"] / metrics["full_noise_per_mm"],
        residual_sd_hu=np.sqrt(metrics["residual_hu2"]),
    )
    records = []
    for value, region, of_group in _groups(metrics, by):
        by_row = {row: lines.set_index("slice", drop=False) for row, lines in of_group.groupby("row", sort=False)}
        slices = by_row[INPUT].index
        for row, lines in by_row.items():
            lines = lines.loc[slices]
            of_patients = lines.groupby("patient")[MEANS].mean().mean()
            psnr = f"psnr_db[{WINDOWED}]"
            records.append(
                {
                    by: value if isinstance(value, str) else _number(value),
                    "region": region,
                    "row": row,
                    "n_slices": len(lines),
                    "n_patients": int(lines["patient"].nunique()),
                    **{column: _number(of_patients[column]) for column in MEANS},
                    "gain_db": {
                        baseline: _gain(lines, by_row[baseline].loc[slices], psnr)
                        for baseline in baselines
                        if baseline in by_row and baseline != row
                    },
                    "n_worse": int((lines[psnr] < by_row[worse_than].loc[slices, psnr] - WORSE_DB).sum()),
                    **{column: _interval(lines[column], lines["patient"]) for column in BIASES},
                }
            )
    return records


def summarise_discs(discs: pd.DataFrame, *, by: By = "dose_fraction") -> list[dict[str, Any]]:
    """One record for each dose (or noise), row and disc: means over slices; None where nothing could be measured."""
    records = []
    for (value, row, task), lines in discs.groupby([by, "row", "task"], sort=False):
        blurred = lines["f50_per_mm"].notna()
        records.append(
            {
                by: value if isinstance(value, str) else float(value),
                "row": row,
                "task": task,
                "n_slices": len(lines),
                "contrast_recovery": _number(lines["contrast_recovery"].mean()),
                # of those that fall to one half at all: a mean over less than half of the slices would mislead
                "f50_per_mm": _number(lines["f50_per_mm"].mean()) if blurred.mean() > 0.5 else None,
                "transfer_at_half_nyquist": _number(lines["transfer_at_half_nyquist"].mean()),
            }
        )
    return records


def dose_name(dose: float | str | None) -> str:
    """How a dose (or a noise) is called in tables and file names."""
    if isinstance(dose, str):
        return dose
    return "as listed" if dose is None or not math.isfinite(dose) else f"{dose:g}"


def _shown(value: float | None, form: str = ".2f") -> str:
    return "-" if value is None else format(value, form)


def _shown_interval(interval: dict[str, float | None], form: str) -> str:
    if interval.get("mean") is None:
        return "-"
    bounds = "" if interval["low"] is None else f" ({_shown(interval['low'], form)}..{_shown(interval['high'], form)})"
    return _shown(interval["mean"], form) + bounds


def _table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rows = [" | ".join(header), " | ".join(["---"] + ["---:"] * (len(header) - 1))]
    return "\n".join(f"| {row} |" for row in rows + [" | ".join(line) for line in lines])


def as_markdown(
    records: Sequence[dict[str, Any]],
    discs: Sequence[dict[str, Any]],
    remarks: Sequence[str] = (),
    *,
    title: str = "Denoising: evaluation",
    notes: str = NOTES,
    reference: str = FULL_DOSE,
    by: By = "dose_fraction",
) -> str:
    """The tables, and what their columns mean; ``reference`` is what the slices are compared with."""
    parts = [f"# {title}", notes]
    parts.append("\n".join(f"- {PROTOCOLS[name]}" for name in SCORED_PROTOCOLS))
    if remarks:
        parts.append("\n".join(f"- {remark}" for remark in remarks))
    groups: dict[tuple[Any, str], list[dict[str, Any]]] = {}
    for record in records:
        groups.setdefault((record[by], record["region"]), []).append(record)
    for (value, region), of_group in groups.items():
        first = of_group[0]
        parts.append(
            f"## {CALLED[by].capitalize()} {dose_name(value)}, {region}: {first['n_slices']} slices of "
            f"{first['n_patients']} patients"
        )
        parts.append(_scores_table(of_group))
    whole = [record for record in records if record["region"] == "all"]
    parts += ["## Bias in HU, all slices", _bias_table(whole, by), "## Noise and structure, all slices"]
    parts.append(_texture_table(whole, by, reference))
    if discs:
        parts += ["## Inserted discs: contrast left, frequency at half transfer", _disc_table(discs, by)]
    return "\n\n".join(parts) + "\n"


def _scores_table(records: Sequence[dict[str, Any]]) -> str:
    compared = {name for record in records for name in record["gain_db"]}
    baselines = [record["row"] for record in records if record["row"] in compared]
    header = ["", "RMSE HU, window", "PSNR", "SSIM", "RMSE HU, whole", "PSNR", "SSIM", "PSNR lung", "SSIM lung"]
    header += [f"dB over {name}" for name in baselines] + ["worse"]
    lines = []
    for record in records:
        line = [record["row"]]
        line += [
            _shown(record[f"{score}[{name}]"], form)
            for name in (WINDOWED, WHOLE, LUNGS)
            for score, form in (("rmse", ".1f"), ("psnr_db", ".2f"), ("ssim", ".4f"))
            if (name, score) != (LUNGS, "rmse")
        ]
        line += [_shown_interval(record["gain_db"].get(name, {}), "+.2f") for name in baselines]
        lines.append([*line, str(record["n_worse"])])
    return _table(header, lines)


def _bias_table(records: Sequence[dict[str, Any]], by: By) -> str:
    lines = []
    for record in records:
        line = [dose_name(record[by]), record["row"]]
        for tissue, bar in BIAS_BAR_HU.items():
            bias = record[f"bias_hu[{tissue}]"]
            text = _shown_interval(bias, "+.1f")
            line.append(f"**{text}**" if bias["mean"] is not None and abs(bias["mean"]) > bar else text)
        lines.append(line)
    return _table([CALLED[by], "", *BIAS_BAR_HU], lines)


def _texture_table(records: Sequence[dict[str, Any]], by: By, reference: str) -> str:
    columns = {
        f"noise / {reference}": ("noise_sd_ratio", ".2f"),
        f"frequency / {reference}": ("frequency_ratio", ".2f"),
        "residual HU": ("residual_sd_hu", ".1f"),
        "residual 1/mm": ("residual_per_mm", ".2f"),
        "edges": ("edge_correlation", "+.2f"),
        **{f"false discs HU, {tissue}": (f"false_disc_hu[{tissue}]", ".1f") for tissue in FALSE_DISC_TISSUES},
    }
    lines = [
        [dose_name(record[by]), record["row"]] + [_shown(record[key], form) for key, form in columns.values()]
        for record in records
    ]
    return _table([CALLED[by], "", *columns], lines)


def _disc_table(records: Sequence[dict[str, Any]], by: By) -> str:
    tasks = list(dict.fromkeys(record["task"] for record in records))
    lines: dict[tuple[Any, str], dict[str, str]] = {}
    for record in records:
        cell = f"{_shown(record['contrast_recovery'])}, {_shown(record['f50_per_mm'])}"
        lines.setdefault((record[by], record["row"]), {})[record["task"]] = cell
    shown = [[dose_name(key), row, *(cells.get(task, "-") for task in tasks)] for (key, row), cells in lines.items()]
    return _table([CALLED[by], "", *tasks], shown)
