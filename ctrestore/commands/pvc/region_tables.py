"""What the regions hold, as tables: PETPVC's text and a TSV with volumes, means and uptake ratios."""

from __future__ import annotations

import csv
import difflib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ctrestore.commands.pvc.frames import Frame
from ctrestore.errors import InputError
from ctrestore.io.whole import written_whole

NOT_AVAILABLE = "n/a"  # as in BIDS


def region_table(
    names: Sequence[str],
    volumes_ml: np.ndarray,
    frames: Sequence[Frame],
    *,
    reference: Sequence[str] = (),
    frame_times_s: Sequence[tuple[float, float]] | None = None,
) -> list[dict[str, Any]]:
    """A row a frame and region.

    Args:
        names: of the regions.
        volumes_ml: of the regions.
        frames: with means.
        reference: names of the regions whose volume-weighted mean the uptake ratios (SUVR) refer to.
        frame_times_s: start and duration of each frame, where they are known.

    Raises:
        InputError: no region has a name of the reference, or its mean is not above zero in any frame.
    """
    chosen = reference_regions(names, reference)
    rows = []
    for number, frame in enumerate(frames):
        columns = {"uncorrected": frame.means_before, "corrected": frame.means_after}
        ratios = {key: _ratios(means, volumes_ml, chosen) for key, means in columns.items()}
        for region, name in enumerate(names):
            row: dict[str, Any] = {}
            if len(frames) > 1:
                start, duration = frame_times_s[number] if frame_times_s else (NOT_AVAILABLE, NOT_AVAILABLE)
                row = {"frame": number + 1, "frame_start_s": start, "frame_duration_s": duration}
            row |= {"name": name, "volume_ml": volumes_ml[region]}
            row |= {f"mean_{key}": NOT_AVAILABLE if m is None else m[region] for key, m in columns.items()}
            row |= {f"suvr_{key}": NOT_AVAILABLE if r is None else r[region] for key, r in ratios.items()}
            rows.append(row)
    if reference and all(row["suvr_corrected"] == NOT_AVAILABLE for row in rows):
        raise InputError(
            f"the mean of the reference region {', '.join(reference)} is not above 0, so there are no SUVR. Usual "
            "cause: another region of the label map than you meant."
        )
    return rows


def reference_regions(names: Sequence[str], reference: Sequence[str]) -> list[int]:
    """Where the regions of these names stand.

    Raises:
        InputError: a name belongs to no region.
    """
    for wanted in reference:
        if wanted not in names:
            close = difflib.get_close_matches(wanted, names, n=5, cutoff=0.5) or list(names[:20])
            raise InputError(
                f"no region is named {wanted!r}; there are {len(names)}, among them {', '.join(close)}. Names come "
                "from the lookup table (--lut FILE)."
            )
    return [index for index, name in enumerate(names) if name in reference]


def _ratios(means: np.ndarray | None, volumes_ml: np.ndarray, chosen: Sequence[int]) -> np.ndarray | None:
    """Means over the volume-weighted mean of the chosen regions; None without any, or when it is not above zero."""
    if means is None or not chosen:
        return None
    mean = float(np.average(means[list(chosen)], weights=volumes_ml[list(chosen)]))
    return means / mean if math.isfinite(mean) and mean > 0 else None


def write_table(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """The rows as TSV (CSV if the path ends so) with six significant digits."""
    path.parent.mkdir(parents=True, exist_ok=True)
    delimiter = "," if path.suffix == ".csv" else "\t"
    with written_whole(path) as draft, draft.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]), delimiter=delimiter, lineterminator="\n")
        writer.writeheader()
        writer.writerows({key: _shown(value) for key, value in row.items()} for row in rows)


def write_petpvc_table(frames: Sequence[Frame], path: Path) -> None:
    """PETPVC's text: regions counted from 1 and their means; a column of means a frame."""
    heads = ["MEAN"] if len(frames) == 1 else [f"MEAN_{number}" for number in range(1, len(frames) + 1)]
    means = np.column_stack([np.asarray(frame.means_after) for frame in frames])
    lines = ["\t".join(["REGION", *heads])]
    lines += ["\t".join([str(number), *map(_shown, row)]) for number, row in enumerate(means, start=1)]
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(path) as draft:
        draft.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else f"{value:.6g}"
