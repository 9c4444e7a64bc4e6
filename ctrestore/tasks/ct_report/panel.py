"""A picture of one restored slice: every method beside the full dose, magnified where there is most to lose."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from scipy import ndimage

from ctrestore.ct import WINDOWS
from ctrestore.io.whole import written_whole
from ctrestore.metrics import TISSUE_BANDS_HU, scores
from ctrestore.tasks.ct_report.scores import FULL_DOSE, INPUT, SlicePair

CROP_MM = 70.0
DIFFERENCE_HU = 60.0
SOFT_HU = (-200.0, 300.0)
MARGIN_PIXELS = 8
MOSTLY = 0.85
Box = tuple[slice, slice]


def draw_panel(
    pair: SlicePair,
    restored: Mapping[str, np.ndarray],
    output: Path,
    *,
    reference: str = FULL_DOSE,
    title: str | None = None,
) -> Path:
    """Write a PNG and return its path: columns input, each method, full dose.

    Rows: the slice in the soft-tissue window; of the frame drawn there a magnification, and its difference to full
    dose; in chests a magnification of the lung's vessels, and its difference. The PSNR is that of the soft-tissue
    window, whole slice.

    Args:
        pair: the slice.
        restored: by the name of the column, HU ``(y, x)``.
        output: the PNG's path.
        reference: what the slice is compared with.
        title: of the picture; by default the slice and its dose.
    """
    columns = {INPUT: pair.low, **restored, reference: pair.filled}
    side = [max(int(round(CROP_MM / step)), 16) for step in pair.spacing_mm]
    bone = ndimage.binary_dilation(pair.tissue >= SOFT_HU[1], iterations=2)
    soft = (pair.tissue > SOFT_HU[0]) & ~bone
    boxes = {"soft tissue": (busiest(pair.filled, soft, side, WINDOWS["abdomen"].range_hu), "abdomen")}
    if pair.region == "chest":
        low, high = TISSUE_BANDS_HU["lung"]
        lung = ndimage.binary_closing((pair.tissue >= low) & (pair.tissue < high), iterations=3)  # with its vessels
        boxes["lung"] = (busiest(pair.filled, lung, side, (-1000.0, 0.0)), "lung")
    body = ndimage.find_objects((pair.tissue > -300).astype(np.uint8))
    shown = tuple(
        slice(max(s.start - MARGIN_PIXELS, 0), s.stop + MARGIN_PIXELS)
        for s in (body[0] if body else [slice(0, side) for side in pair.tissue.shape])
    )
    n_rows = 1 + 2 * len(boxes)
    height = (shown[0].stop - shown[0].start) * pair.spacing_mm[0]
    ratio = height / ((shown[1].stop - shown[1].start) * pair.spacing_mm[1])
    width = 2.9
    heights = [ratio] + [1.0] * (n_rows - 1)
    figure = Figure(figsize=(width * len(columns), width * sum(heights) + 1.0), layout="constrained", dpi=110)
    dose = "" if not np.isfinite(pair.dose_fraction) else f", {pair.dose_fraction:.0%} of the dose"
    figure.suptitle(title or f"{pair.name}{dose}")
    grid = figure.subplots(n_rows, len(columns), squeeze=False, height_ratios=heights)
    aspect = pair.spacing_mm[0] / pair.spacing_mm[1]
    for column, (name, image) in enumerate(columns.items()):
        heading = name if name == reference else f"{name}\n{psnr_db(image, pair):.1f} dB"
        low, high = WINDOWS["abdomen"].range_hu
        axes = grid[0, column]
        axes.imshow(image[shown], cmap="gray", vmin=low, vmax=high, aspect=aspect)
        axes.set_title(heading, fontsize=10)
        for row, (box, window) in zip(range(1, n_rows, 2), boxes.values()):
            rows, cols = box
            corner = (cols.start - shown[1].start - 0.5, rows.start - shown[0].start - 0.5)
            axes.add_patch(
                Rectangle(corner, cols.stop - cols.start, rows.stop - rows.start, fill=False, color="gold", lw=0.8)
            )
            low, high = WINDOWS[window].range_hu
            grid[row, column].imshow(image[box], cmap="gray", vmin=low, vmax=high, aspect=aspect)
            if name == reference:
                grid[row + 1, column].axis("off")
                continue
            difference = np.where(pair.known, image - pair.filled, 0.0)[box]
            limits = {"vmin": -DIFFERENCE_HU, "vmax": DIFFERENCE_HU}
            grid[row + 1, column].imshow(difference, cmap="RdBu_r", aspect=aspect, **limits)
    labels = ["soft tissue"]
    for name in boxes:
        labels += [name, f"{name} - {reference}\n±{DIFFERENCE_HU:g} HU"]
    for axes, label in zip(grid[:, 0], labels):
        axes.set_ylabel(label, fontsize=9)
    for axes in grid.flat:
        axes.set(xticks=[], yticks=[])
    with written_whole(output) as draft:
        figure.savefig(draft, format="png")
    return output


def psnr_db(image: np.ndarray, pair: SlicePair) -> float:
    """PSNR of the soft-tissue window, where the full dose is known."""
    known = None if pair.known.all() else pair.known
    found = scores(image.astype(np.float64), pair.filled.astype(np.float64), protocol="hu400_soft_tissue", known=known)
    return found.psnr_db


def busiest(image: np.ndarray, where: np.ndarray, side: list[int], window: tuple[float, float]) -> Box:
    """The box of this size, of ``where`` for the most part, with the most structure there within a window of HU.

    Structure is the variance over ``where`` of the slightly smoothed image.
    """
    side = [min(n, length) for n, length in zip(side, image.shape)]
    weight = where.astype(np.float64)
    smooth = ndimage.gaussian_filter(np.clip(image, *window).astype(np.float64), 1.0)
    share, first, second = (ndimage.uniform_filter(weight * smooth**power, side) for power in range(3))
    with np.errstate(divide="ignore", invalid="ignore"):
        variance = second / share - (first / share) ** 2
    score = np.where(share >= min(MOSTLY, 0.95 * float(share.max())), np.nan_to_num(variance), -np.inf)
    centre = np.unravel_index(int(np.argmax(score)), score.shape)
    starts = [int(np.clip(middle - n // 2, 0, length - n)) for middle, n, length in zip(centre, side, image.shape)]
    return (slice(starts[0], starts[0] + side[0]), slice(starts[1], starts[1] + side[1]))
