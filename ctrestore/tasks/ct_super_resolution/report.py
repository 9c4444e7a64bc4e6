"""Evaluation of CT super-resolution: networks beside interpolation, as tables and pictures.

The coarse slice is shown as blocks on the fine grid, so that everything that measures a denoised slice measures a finer
one, too, and the blocks themselves are the first row.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from ctrestore.ct import STORED_RANGE_HU, add_noise, lower_resolution, pixels_as_blocks
from ctrestore.errors import InputError
from ctrestore.io.whole import writable_folder, write_json, written_whole
from ctrestore.networks import Interpolation
from ctrestore.tasks.ct_report.discs import evaluate_discs
from ctrestore.tasks.ct_report.pairs import as_seen, spread, write_csv
from ctrestore.tasks.ct_report.panel import draw_panel
from ctrestore.tasks.ct_report.scores import INPUT, LUNG_SHARE_OF_CHEST, Restorer, SlicePair, evaluate_slices
from ctrestore.tasks.ct_report.tables import WINDOWED, WORSE_DB, as_markdown, summarise, summarise_discs

BICUBIC, LANCZOS = "bicubic", "Lanczos"
FINE = "fine slice"
NOTES = f"""\
The coarse slice is the mean over blocks of pixels of the fine one, and noise is added to it; the row {INPUT} shows its
pixels as blocks. Means are means over patients of their slices' means; in brackets 95 % intervals, bootstrapped by
patient. Pixels whose HU are not known (NaN, or outside an entry's `known_hu`: 8-bit slices end at 400 HU) and padding
are left out everywhere. Chest: at least {LUNG_SHARE_OF_CHEST:.0%} of the body's pixels have the density of lung, the
rest is abdomen. Worse: slices whose PSNR [{WINDOWED}] is below that of {LANCZOS} by more than {WORSE_DB} dB.
Bias: mean difference to the fine slice in a tissue, told by a 5 x 5 median of the fine slice; bold where it exceeds
2 HU (bone: 3 HU). Noise: of uniform soft tissue, standard deviation and mean frequency as ratios to those of the fine
slice, which has noise of its own: below 1 noise was taken away. The residual is the difference to the fine slice there.
Edges: correlation of the difference to the fine slice with the anatomy at its edges, below 0 blurred, above 0
sharpened. False discs: contrast of the strongest discs (3 mm radius, 99.9th percentile over all places) in the
difference to the fine slice.
Discs: inserted in the fine slice before it was made coarse; contrast that is left (1 is perfect), and the frequency in
1/mm that passes by half (-: beyond the pixels' own limit). A higher frequency is resolution gained; a method that only
smooths loses it."""


def pair_of(sample: Mapping[str, Any], scale: int) -> SlicePair:
    """A sample of the super-resolution bundle on its fine grid, as it is looked at: from the feet, nose up.

    Args:
        sample: ``image`` ``(1, x, y)`` and ``label`` ``(1, scale x, scale y)`` in HU, the label a MetaTensor with the
            affine of the slice and NaN where it is not known. ``subject``, ``slice`` and ``noise``.
        scale: pixels of the label that make one of the image, along both axes.
    """
    affine = np.asarray(sample["label"].affine, dtype=float)
    spacing_x, spacing_y = np.linalg.norm(affine[:-1, :2], axis=0).tolist()
    image = torch.as_tensor(sample["image"]).as_subclass(torch.Tensor)
    coarse, fine = (as_seen(img, affine) for img in (pixels_as_blocks(image, factors=(scale, scale)), sample["label"]))
    source = Path(str(sample["label"].meta.get("filename_or_obj", "slice"))).name.removesuffix(".gz")
    name = f"{source.removesuffix('.nii')}_{int(sample.get('slice', 0)):03d}"
    noise = str(sample.get("noise", "clean"))
    return SlicePair(coarse, fine, (spacing_y, spacing_x), str(sample.get("subject", name)), name, noise=noise)


def interpolations(scale: int) -> dict[str, Restorer]:
    """Bicubic and Lanczos by the name of their row, from coarse to fine slice ``(y, x)``."""

    def interpolate(hu: np.ndarray, layer: Interpolation) -> np.ndarray:
        return layer(torch.from_numpy(np.ascontiguousarray(hu))[None, None])[0, 0].numpy()

    layers = {BICUBIC: Interpolation(scale, "cubic"), LANCZOS: Interpolation(scale, "lanczos")}
    return {name: partial(interpolate, layer=layer) for name, layer in layers.items()}


def of_blocks(blocks: np.ndarray, *, restore: Restorer, scale: int) -> np.ndarray:
    """What a method makes of the coarse slice that is shown as blocks."""
    return restore(np.ascontiguousarray(blocks[::scale, ::scale], dtype=np.float32))


def made_coarse(image: np.ndarray, pair: SlicePair, noise: str, seed: int, *, scale: int) -> np.ndarray:
    """A fine slice as its coarse one with noise, shown as blocks."""
    coarse = add_noise(lower_resolution(image, factors=(scale, scale)), noise, seed=seed)
    return pixels_as_blocks(coarse.clip(*STORED_RANGE_HU), factors=(scale, scale))


def evaluate_ct_super_resolution(
    samples: Iterable[Mapping[str, Any]],
    networks: Mapping[str, Callable[[np.ndarray], np.ndarray]],
    output_dir: str | Path,
    *,
    scale: int,
    noises: Sequence[str] = ("clean", "gaussian", "scanner"),
    n_disc_slices: int = 8,
    n_panels: int = 4,
    panel_noise: str = "scanner",
    remarks: Sequence[str] = (),
) -> pd.DataFrame:
    """One line for each slice, noise and method; written with summaries and pictures to a folder, and printed.

    ``output_dir`` receives metrics.csv (what is returned), discs.csv, summary.json, table.md and ``panel_*.png``.

    Args:
        samples: see :func:`pair_of`; one at a time is in memory.
        networks: from coarse to fine slice ``(y, x)`` in HU, by the name of their row.
        output_dir: made if need be.
        scale: of all of them.
        noises: of the inserted discs.
        n_disc_slices: slices that discs are inserted in, evenly spread; 0: none.
        n_panels: slices that are drawn, evenly spread; 0: none.
        panel_noise: of those, where there is a choice.
        remarks: further lines for the head of the tables.

    Raises:
        InputError: there is no sample, or a network gives NaN or another shape.
    """
    output_dir = writable_folder(output_dir)
    methods = {
        name: partial(of_blocks, restore=restore, scale=scale)
        for name, restore in (interpolations(scale) | dict(networks)).items()
    }
    kept: dict[str, SlicePair] = {}

    def pairs() -> Iterator[SlicePair]:
        for sample in samples:
            pair = pair_of(sample, scale)
            if pair.name not in kept or pair.noise == panel_noise:
                kept[pair.name] = pair
            yield pair

    metrics = evaluate_slices(pairs(), methods)
    if metrics.empty:
        raise InputError("there is no test slice. Usual cause: a list whose section `test` is empty.")
    write_csv(metrics, output_dir / "metrics.csv")
    by_place = list(kept.values())
    worsen = partial(made_coarse, scale=scale)
    discs = evaluate_discs(spread(by_place, n_disc_slices), methods, doses=noises, worsen=worsen, by="noise")
    write_csv(discs, output_dir / "discs.csv")
    of_slices = summarise(metrics, baselines=(BICUBIC, LANCZOS), by="noise", worse_than=LANCZOS)
    of_discs = summarise_discs(discs, by="noise")
    summary = {"scale": scale, "slices": of_slices, "discs": of_discs, "remarks": list(remarks)}
    write_json(summary, output_dir / "summary.json")
    title = f"Super-resolution x{scale}: evaluation"
    text = as_markdown(of_slices, of_discs, remarks, title=title, notes=NOTES, reference=FINE, by="noise")
    with written_whole(output_dir / "table.md") as draft:
        draft.write_text(text, encoding="utf-8")
    for region in ("chest", "abdomen"):
        of_region = [pair for pair in by_place if pair.region == region]
        for pair in spread(of_region, (n_panels + (region == "chest")) // 2):
            restored = {name: methods[name](pair.low) for name in (LANCZOS, *networks)}
            safe = re.sub(r"[^\w.-]+", "_", f"panel_{region}_{pair.name}_{pair.noise}.png")
            title = f"{pair.name}, x{scale}, {pair.noise}"
            draw_panel(pair, restored, output_dir / safe, reference=FINE, title=title)
    print(text)
    print(f"Tables and pictures: {output_dir.absolute()}")
    return metrics
