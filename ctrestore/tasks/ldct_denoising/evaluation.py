"""Evaluation of low-dose CT denoising, as evaluate.json calls it."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from monai.inferers import Inferer

from ctrestore.errors import InputError
from ctrestore.tasks.ct_restoration.restored_slice import restored_slice
from ctrestore.tasks.ct_slices import _with_weights
from ctrestore.tasks.runtime import is_true
from ctrestore.transforms.low_dose import CLIP_HU


def is_paired(data_list: str | None) -> bool:
    """Whether a data list holds low and full dose in pairs, so that nothing is to be simulated.

    Raises:
        InputError: no such list, or some of its scans have a partner and others have none.
    """
    if data_list is None:
        return False
    try:
        content = json.loads(Path(str(data_list)).read_text(encoding="utf-8"))
        listed = [entry for value in content.values() if isinstance(value, list) for entry in value]
        paired = {"label" in entry for entry in listed if isinstance(entry, dict)}
    except (OSError, ValueError, AttributeError) as error:
        raise InputError(f"{data_list}: no data list ({error}). Make one with `ctrestore data-list`.") from error
    if len(paired) > 1:
        raise InputError(
            f"{data_list}: some scans have a label (full dose beside low dose) and some have none. Remedy: two lists, "
            "and two trainings."
        )
    return True in paired


def evaluate_denoising(
    dataset: Any,
    rows: Sequence[dict[str, Any]],
    output_dir: str,
    inferer: Inferer,
    clip_hu: Sequence[float] = CLIP_HU,
    **choices: Any,
) -> None:
    """Restore test slices with networks and classical methods, and write tables and pictures of how good they are.

    Args:
        dataset: samples with ``image`` and ``label`` in HU; see :func:`evaluate_ldct_denoising`.
        rows: of the table, ``{"name", "network", "weights", "told_dose", "strength"}`` each. The first must have its
            weights; others without are left out, which the table says.
        output_dir: made if need be.
        inferer: of all networks.
        clip_hu: lowest and highest HU that they see.
        choices: of :func:`ctrestore.tasks.ldct_denoising.report.evaluate_ldct_denoising`.

    Raises:
        InputError: the weights are missing or belong to another network, there is no slice, or a result is NaN.
    """
    from ctrestore.tasks.ldct_denoising.report import evaluate_ldct_denoising

    networks = {}
    found, remarks = _with_weights(rows)
    for row in found:
        networks[row["name"]] = partial(
            restored_slice,
            network=row["network"].eval(),
            inferer=inferer,
            clip_hu=clip_hu,
            told_dose=is_true(row.get("told_dose", False), "told_dose"),
            strength=float(row.get("strength", 1)),
        )

    def of_dose(dose_fraction: float) -> dict[str, Any]:
        known = None if math.isnan(dose_fraction) else dose_fraction
        return {name: partial(restore, dose_fraction=known) for name, restore in networks.items()}

    evaluate_ldct_denoising(dataset, of_dose, output_dir, remarks=remarks, **choices)
