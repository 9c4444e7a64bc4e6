"""One picture of a corrected PET: what changed, and how far from the truth it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from monai.transforms import generate_spatial_bounding_box
from scipy.ndimage import center_of_mass

from ctrestore.errors import InputError
from ctrestore.io.whole import writable_folder, written_whole
from ctrestore.transforms.pet import head_mask

# Above these percentiles of what is shown the colours saturate, so that one hot voxel does not darken the brain.
ACTIVITY_PERCENTILE, DIFFERENCE_PERCENTILE = 99.8, 99.0
MARGIN_MM = 10.0
VIEWS = {"axial": 2, "coronal": 1}  # the RAS axis that is cut across


def figure_pet_pvc(
    image: str | Path,
    corrected: str | Path,
    output: str | Path,
    *,
    truth: str | Path | None = None,
    subject: str = "",
    unit: str = "Bq/ml",
    name: str = "corrected",
) -> Path:
    """Write a PNG with axial and coronal slices through the head's centre and return its path.

    Columns: input, corrected, truth, corrected - truth; without a truth: input, corrected, corrected - input. The
    first ones share a colour scale. The patient's left is on the picture's left.

    Args:
        image: NIfTI of the PET.
        corrected: NIfTI of the corrected PET, on the same grid.
        output: the PNG's path.
        truth: NIfTI of the true activity, on the same grid.
        subject: for the title.
        unit: of the voxels, for the colour bars.
        name: title of the corrected column.

    Raises:
        InputError: the images' shapes differ, or the PET has no voxel above zero.
    """
    output = Path(output)
    writable_folder(output.parent)
    files = {"input": image, name: corrected, **({} if truth is None else {"truth": truth})}
    volumes, spacing_mm = _canonical(files)
    if not volumes["input"].max() > 0:
        raise InputError(f"{image}: no voxel is above zero, so there is no head to draw. Usual cause: an empty export.")
    reference = "input" if truth is None else "truth"
    difference = f"{name} - {reference}"

    centre = [int(round(c)) for c in center_of_mass(np.maximum(volumes["input"], 0))]
    box = _head_box(volumes["input"], spacing_mm)
    slices = {
        (view, column): np.take(volume, centre[axis], axis)[box[:axis] + box[axis + 1 :]]
        for view, axis in VIEWS.items()
        for column, volume in volumes.items()
    }
    slices |= {(view, difference): slices[view, name] - slices[view, reference] for view in VIEWS}
    columns = [*volumes, difference]
    shown = np.concatenate([slices[view, column].ravel() for view in VIEWS for column in volumes])
    most = float(np.percentile(shown[shown > 0], ACTIVITY_PERCENTILE)) if (shown > 0).any() else 1.0
    changed = np.concatenate([np.abs(slices[view, difference]).ravel() for view in VIEWS])
    most_changed = float(np.percentile(changed[changed > 0], DIFFERENCE_PERCENTILE)) if changed.any() else most

    sizes_mm = {
        view: [slices[view, name].shape[i] * s for i, s in enumerate(np.delete(spacing_mm, axis))]
        for view, axis in VIEWS.items()
    }
    heights = [sizes_mm[view][1] / sizes_mm[view][0] for view in VIEWS]
    figure = Figure(figsize=(3.2 * len(columns), 3.2 * sum(heights) + 1.4), layout="constrained", dpi=120)
    figure.suptitle(f"{subject}  ({' and '.join(VIEWS)} slices, the patient's left on the left)".strip())
    grid: np.ndarray = figure.subplots(len(VIEWS), len(columns), squeeze=False, height_ratios=heights)
    colours = {column: {"cmap": "inferno", "vmin": 0.0, "vmax": most} for column in volumes}
    colours[difference] = {"cmap": "RdBu_r", "vmin": -most_changed, "vmax": most_changed}
    for row, (view, axis) in enumerate(VIEWS.items()):
        aspect = float(np.divide(*np.delete(spacing_mm, axis)[::-1]))  # height / width of a voxel
        for axes, column in zip(grid[row], columns):
            shown_image = axes.imshow(slices[view, column].T, origin="lower", aspect=aspect, **colours[column])
            axes.set(xticks=[], yticks=[], title=column if row == 0 else "")
            if row == len(VIEWS) - 1 and column in (name, difference):
                below: list[Axes] = list(grid[:, :-1].flat) if column == name else list(grid[:, -1])
                label = f"activity ({unit})" if column == name else f"difference ({unit})"
                layout: dict[str, Any] = {
                    "location": "bottom",
                    "shrink": 0.8,
                    "aspect": 40,
                    "extend": "both",
                    "ticks": MaxNLocator(5),
                }
                figure.colorbar(shown_image, ax=below, label=label, **layout)
        grid[row, 0].set_ylabel(view)
    with written_whole(output) as draft:
        figure.savefig(draft)
    return output


def _canonical(files: dict[str, str | Path]) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Volumes ``(x, y, z)`` along right, front, up, by column, and their voxel size in mm."""
    volumes = {}
    for column, path in files.items():
        loaded = nib.as_closest_canonical(nib.squeeze_image(nib.load(path)))
        volumes[column] = np.asarray(loaded.dataobj, dtype=np.float32)
        spacing_mm = np.array(loaded.header.get_zooms()[:3], dtype=float)
        if volumes[column].ndim != 3 or volumes[column].shape != volumes["input"].shape:
            raise InputError(
                f"{path}: expected one volume on the grid of {files['input']}, shape {volumes['input'].shape} "
                f"(right, front, up); got {volumes[column].shape}. Resample it to the image first."
            )
    return volumes, spacing_mm


def _head_box(image: np.ndarray, spacing_mm: np.ndarray) -> tuple[slice, ...]:
    """Box around the head, with a margin."""
    margin = np.ceil(MARGIN_MM / spacing_mm).astype(int).tolist()
    volume = torch.from_numpy(np.ascontiguousarray(image))[None]  # torch takes no reversed axes
    start, stop = generate_spatial_bounding_box(volume, head_mask, margin=margin, allow_smaller=True)
    return tuple(slice(*ends) for ends in zip(start, stop))
