"""Evaluation of low-dose CT denoising: networks beside classical methods, as tables and pictures.

Everything but the reading of samples and the writing of files is in functions of arrays: other bundles give other rows
to :func:`ctrestore.report.slice_scores.evaluate_slices` and tables to :mod:`ctrestore.report.slice_tables`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from ctrestore.ct import PHOTONS_PER_RAY
from ctrestore.ct_photons import PHOTONS_KEY
from ctrestore.files import writable_folder, write_json, written_whole
from ctrestore.report.inserted_discs import evaluate_discs
from ctrestore.report.ldct_classical import (
    BM3D,
    NLM,
    PARTIAL_NLM,
    bm3d,
    classical_restorers,
    has_bm3d,
)
from ctrestore.report.slice_panel import draw_panel
from ctrestore.report.slice_scores import INPUT, Restorer, SlicePair, evaluate_slices
from ctrestore.report.slice_tables import as_markdown, dose_name, summarise, summarise_discs

IN_PANELS = (NLM,)  # of the classical rows


def pair_of(sample: Mapping[str, Any]) -> SlicePair:
    """A sample ``(1, x, y)`` of a CT bundle as it is looked at: from the feet, nose up.

    Args:
        sample: ``image`` and ``label`` in HU, MetaTensors with the affine of the slice; the label NaN where it is not
            known. ``subject``, ``slice`` and, of a simulated low dose, ``dose_fraction`` and ``photons_per_ray``.
    """
    affine = np.asarray(sample["image"].affine, dtype=float)
    spacing_x, spacing_y = np.linalg.norm(affine[:-1, :2], axis=0).tolist()
    low, full = (as_seen(sample[key], affine) for key in ("image", "label"))
    source = Path(str(sample["image"].meta.get("filename_or_obj", "slice"))).name.removesuffix(".gz")
    name = f"{source.removesuffix('.nii')}_{int(sample.get('slice', 0)):03d}"
    dose = float(sample.get("dose_fraction", float("nan")))
    photons = float(sample.get(PHOTONS_KEY, PHOTONS_PER_RAY))
    return SlicePair(
        low, full, (spacing_y, spacing_x), str(sample.get("subject", name)), name, dose, photons_per_ray=photons
    )


def as_seen(img: torch.Tensor, affine: np.ndarray) -> np.ndarray:
    """The slice ``(1, x, y)`` as ``(y, x)``: the patient's right on the left, the nose up."""
    hu = torch.as_tensor(img).as_subclass(torch.Tensor)[0].detach().cpu().float().numpy().T
    # Rows should run to the patient's back, columns to the left: against both axes of RAS.
    backwards = [slice(None, None, -1 if affine[axis, axis] > 0 else 1) for axis in (1, 0)]
    return np.ascontiguousarray(hu[tuple(backwards)])


def evaluate_ldct_denoising(
    samples: Iterable[Mapping[str, Any]],
    networks: Mapping[str, Restorer] | Callable[[float], Mapping[str, Restorer]],
    output_dir: str | Path,
    *,
    doses: Sequence[float] = (0.5, 0.25, 0.1),
    classical_rows: bool = True,
    with_bm3d: bool = False,
    n_disc_slices: int = 8,
    n_panels: int = 4,
    panel_dose: float = 0.25,
    remarks: Sequence[str] = (),
) -> pd.DataFrame:
    """One line for each slice, dose and method; written with summaries and pictures to a folder, and printed.

    ``output_dir`` receives metrics.csv (what is returned), discs.csv, summary.json, table.md and ``panel_*.png``.

    Args:
        samples: see :func:`pair_of`; one at a time is in memory.
        networks: from slice to slice, by the name of their row; the first one is what is evaluated. Or a function that
            gives them for a dose (NaN: not known), where a network is told it.
        output_dir: made if need be.
        doses: of the inserted discs, whose low dose is simulated here.
        classical_rows: whether to run the methods of :mod:`ctrestore.report.ldct_classical`, too.
        with_bm3d: and BM3D, which takes 20 s a slice.
        n_disc_slices: slices that discs are inserted in, evenly spread; 0: none.
        n_panels: slices that are drawn, evenly spread; 0: none.
        panel_dose: of the slices that are drawn, where the dose is known.
        remarks: further lines for the head of the tables.

    Raises:
        ValueError: there is no sample, or a network gives NaN or another shape.
    """
    output_dir = writable_folder(output_dir)
    remarks = list(remarks)
    if with_bm3d and not has_bm3d():
        remarks.append("BM3D: not installed (`pip install deepinv ptwt`).")
        with_bm3d = False

    def restorers(dose_fraction: float) -> dict[str, Restorer]:
        classical = classical_restorers(dose_fraction) if classical_rows else {}
        learned = networks(dose_fraction) if callable(networks) else networks
        return classical | ({BM3D: bm3d} if with_bm3d else {}) | dict(learned)

    kept: dict[str, SlicePair] = {}

    def pairs() -> Iterator[SlicePair]:
        for sample in samples:
            pair = pair_of(sample)
            here = kept.get(pair.name)
            # Of the doses of a slice, the one that is drawn.
            if here is None or abs(pair.dose_fraction - panel_dose) < abs(here.dose_fraction - panel_dose):
                kept[pair.name] = pair
            yield pair

    metrics = evaluate_slices(pairs(), restorers)
    if metrics.empty:
        raise ValueError("there is no test slice. Usual cause: a list whose section `test` is empty.")
    write_csv(metrics, output_dir / "metrics.csv")
    by_place = list(kept.values())
    discs = evaluate_discs(spread(by_place, n_disc_slices), restorers, doses=doses)
    write_csv(discs, output_dir / "discs.csv")
    of_slices, of_discs = summarise(metrics, baselines=(INPUT, NLM, PARTIAL_NLM)), summarise_discs(discs)
    summary = {"slices": of_slices, "discs": of_discs, "remarks": remarks}
    write_json(summary, output_dir / "summary.json")
    text = as_markdown(of_slices, of_discs, remarks)
    with written_whole(output_dir / "table.md") as draft:
        draft.write_text(text, encoding="utf-8")
    for region in ("chest", "abdomen"):
        of_region = [pair for pair in by_place if pair.region == region]
        for pair in spread(of_region, (n_panels + (region == "chest")) // 2):
            methods = restorers(pair.dose_fraction)
            learned = networks(pair.dose_fraction) if callable(networks) else networks
            shown = [*(name for name in IN_PANELS if name in methods), *learned]
            safe = re.sub(r"[^\w.-]+", "_", f"panel_{region}_{pair.name}_{dose_name(pair.dose_fraction)}.png")
            draw_panel(pair, {name: np.asarray(methods[name](pair.low)) for name in shown}, output_dir / safe)
    print(text)
    print(f"Tables and pictures: {output_dir.absolute()}")
    return metrics


def spread(pairs: Sequence[SlicePair], n: int) -> list[SlicePair]:
    """At most so many, evenly spread."""
    if n <= 0 or not pairs:
        return []
    return [pairs[i] for i in np.unique(np.linspace(0, len(pairs) - 1, min(n, len(pairs))).round().astype(int))]


def write_csv(table: pd.DataFrame, path: Path) -> None:
    """A table as CSV, whole or not at all."""
    with written_whole(path) as draft:
        table.to_csv(draft, index=False, float_format="%.6g")
