"""Evaluation of low-dose CT denoising: networks beside classical methods, as tables and pictures.

Everything but the reading of samples and the writing of files is in functions of arrays: other bundles give other rows
to :func:`ctrestore.tasks.ct_report.scores.evaluate_slices` and tables to :mod:`ctrestore.tasks.ct_report.tables`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ctrestore.errors import InputError
from ctrestore.io.whole import writable_folder, write_json, written_whole
from ctrestore.tasks.ct_report.discs import evaluate_discs
from ctrestore.tasks.ct_report.pairs import pair_of, spread, write_csv
from ctrestore.tasks.ct_report.panel import draw_panel
from ctrestore.tasks.ct_report.scores import INPUT, Restorer, SlicePair, evaluate_slices
from ctrestore.tasks.ct_report.tables import as_markdown, dose_name, summarise, summarise_discs
from ctrestore.tasks.ldct_denoising.classical import BM3D, NLM, PARTIAL_NLM, bm3d, classical_restorers, has_bm3d

IN_PANELS = (NLM,)  # of the classical rows


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
        classical_rows: whether to run the methods of :mod:`ctrestore.tasks.ldct_denoising.classical`, too.
        with_bm3d: and BM3D, which takes 20 s a slice.
        n_disc_slices: slices that discs are inserted in, evenly spread; 0: none.
        n_panels: slices that are drawn, evenly spread; 0: none.
        panel_dose: of the slices that are drawn, where the dose is known.
        remarks: further lines for the head of the tables.

    Raises:
        InputError: there is no sample, or a network gives NaN or another shape.
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
        raise InputError("there is no test slice. Usual cause: a list whose section `test` is empty.")
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
