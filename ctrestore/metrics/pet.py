"""How close a corrected PET is to a reference: functions of numpy arrays that return one number or a small table.

Volumes are ``(x, y, z)`` in any activity unit, the same for both. Masks are boolean, label maps hold whole numbers with
0 for the background. All sums are in float64: in float32, summing the 17 million voxels of a 256-cube costs 0.1 %.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import ndimage

SSIM_WINDOW_VOXELS = 7
HOT_SHELL_VOXELS = 2


def rmse(pred: np.ndarray, reference: np.ndarray, mask: np.ndarray | None = None) -> float:
    """Root mean squared difference, in the images' unit, over the mask or the whole volume.

    >>> rmse(np.array([[[3.0, 0.0]]]), np.array([[[0.0, 4.0]]]))  # sqrt((9 + 16) / 2)
    3.5355339059327378
    """
    pred, reference = _pair(pred, reference)
    difference = np.subtract(*_inside(mask, pred, reference), dtype=np.float64)
    return float(np.sqrt(np.mean(np.square(difference))))


def nrmse(pred: np.ndarray, reference: np.ndarray, mask: np.ndarray) -> float:
    """RMSE over the mask divided by the reference's mean over the mask: 0.2 is an error of 20 % of the mean activity.

    With grey matter (probability > 0.5) as the mask this is the grey-matter NRMSE.

    Raises:
        ValueError: the reference's mean is not positive, so the ratio is meaningless.
    """
    pred, reference = _pair(pred, reference)
    mean = float(np.mean(_inside(mask, reference)[0], dtype=np.float64))
    if not mean > 0:
        raise ValueError(
            f"The reference's mean over the mask must be positive to normalise by; got {mean:.4g}. "
            "Usual cause: mask and reference on different grids, or an empty reference."
        )
    return rmse(pred, reference, mask) / mean


def structural_similarity_in_mask(
    pred: np.ndarray, reference: np.ndarray, mask: np.ndarray, *, data_range: float
) -> float:
    """Mean over the mask of the local structural similarity (SSIM, window of 7 voxels), 1 for equal images.

    Only the mask's bounding box, widened by half a window, is computed; the result is that of the whole volume.

    Args:
        pred: the corrected image.
        reference: the reference image.
        mask: where to average, for example the brain. Empty background would push SSIM towards 1.
        data_range: one fixed range for all images of a comparison, in their unit, for example the reference's maximum.
            SSIM values of different ranges cannot be compared.

    Reference:
        Wang et al., IEEE Trans Image Process 13(4):600, 2004.
    """
    pred, reference = _pair(pred, reference)
    _inside(mask, reference)  # refuses a mask that is empty, not boolean or of another shape
    box = _box_for_ssim(mask)
    return float(np.mean(_ssim_map(pred[box], reference[box], data_range=data_range)[mask[box]]))


class RegionalBias(NamedTuple):
    """Relative bias of each parcel: 0.1 is a regional mean 10 % too high. Both arrays are ``(n_parcels,)``."""

    labels: np.ndarray
    bias: np.ndarray

    @property
    def mean_absolute(self) -> float:
        """Mean over parcels of the absolute bias; NaN without parcels."""
        return float(np.mean(np.abs(self.bias))) if self.bias.size else float("nan")

    @property
    def max_absolute(self) -> float:
        """Largest absolute bias of a parcel; NaN without parcels."""
        return float(np.max(np.abs(self.bias))) if self.bias.size else float("nan")


def regional_bias(
    pred: np.ndarray, reference: np.ndarray, parcels: np.ndarray, grey_matter: np.ndarray | None = None
) -> RegionalBias:
    """Relative bias of the mean activity of each parcel: mean of pred / mean of reference - 1.

    Args:
        pred: the corrected image.
        reference: the reference image.
        parcels: label map, 0 for the background. Parcels without grey matter or without activity in the reference are
            left out.
        grey_matter: grey-matter probability, 0 to 1. If given, it weights the means, so that white matter and
            CSF at a parcel's rim count less.

    >>> parcels = np.array([[[1, 1, 2, 0]]])
    >>> regional_bias(np.array([[[2.0, 4.0, 3.0, 9.0]]]), np.array([[[1.0, 3.0, 4.0, 1.0]]]), parcels).bias
    array([ 0.5 , -0.25])
    """
    pred, reference = _pair(pred, reference)
    parcels = _label_map(parcels, reference.shape, name="parcels")
    weight = None if grey_matter is None else _same_shape(grey_matter, reference.shape, name="grey_matter")
    labels, (pred_sum, reference_sum) = _sums_by_label(parcels, pred, reference, weight=weight)
    known = reference_sum > 0
    return RegionalBias(labels[known], pred_sum[known] / reference_sum[known] - 1.0)


def regional_means(
    image: np.ndarray, parcels: np.ndarray, weight: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Labels ``(n,)`` of the parcels above 0 and the image's mean in each, optionally weighted.

    Parcels without weight are left out.

    >>> parcels = np.array([[[1, 1, 2, 0]]])
    >>> regional_means(np.array([[[2.0, 4.0, 3.0, 9.0]]]), parcels)
    (array([1, 2]), array([3., 3.]))
    """
    image = np.asarray(image)
    parcels = _label_map(parcels, image.shape, name="parcels")
    weight = np.ones(image.shape) if weight is None else _same_shape(weight, image.shape, name="weight")
    labels, (total, volume) = _sums_by_label(parcels, weight * image, weight)
    known = volume > 0
    return labels[known], total[known] / volume[known]


def lesion_recovery(
    pred: np.ndarray, truth: np.ndarray, lesions: np.ndarray, *, hot_labels: Sequence[int] | None = None
) -> float:
    """Median over hot lesions of the recovery coefficient: mean of pred / mean of truth inside the lesion's mask.

    1 is perfect; below 1 activity was lost from the lesion, above 1 it was overcorrected. NaN without hot lesions;
    lesions without activity in the truth, for example outside a reference of grey matter only, are left out.

    Args:
        pred: the corrected image.
        truth: true activity.
        lesions: label map with one number per lesion, or a boolean mask, whose connected parts are the lesions.
        hot_labels: the labels of hot lesions; absent ones are ignored; by default the lesions of
            :func:`hot_lesions`.
    """
    pred, truth = _pair(pred, truth)
    lesions = _label_map(lesions, truth.shape, name="lesions")
    labels, (pred_sum, true_sum) = _sums_by_label(lesions, pred, truth)
    hot = np.isin(labels, hot_lesions(truth, lesions) if hot_labels is None else np.array(hot_labels)) & (true_sum > 0)
    return float(np.median(pred_sum[hot] / true_sum[hot])) if hot.any() else float("nan")


def hot_lesions(truth: np.ndarray, lesions: np.ndarray) -> np.ndarray:
    """Labels ``(n,)`` of the lesions with a higher true mean than the two voxels around them.

    Args:
        truth: true activity.
        lesions: label map with one number per lesion, or a boolean mask, whose connected parts are the lesions.
    """
    lesions = _label_map(lesions, truth.shape, name="lesions")
    hot = []
    for label, box in enumerate(ndimage.find_objects(lesions), start=1):
        if box is None:
            continue
        around = tuple(slice(max(s.start - HOT_SHELL_VOXELS, 0), s.stop + HOT_SHELL_VOXELS) for s in box)
        lesion = lesions[around] == label
        shell = ndimage.binary_dilation(lesion, iterations=HOT_SHELL_VOXELS) & (lesions[around] == 0)
        activity = truth[around].astype(np.float64)
        if shell.any() and activity[lesion].mean() > activity[shell].mean():
            hot.append(label)
    return np.array(hot, dtype=np.int64)


def total_activity_ratio(pred: np.ndarray, reference: np.ndarray) -> float:
    """Sum of pred divided by sum of reference: 1 if the correction only moved activity.

    Raises:
        ValueError: the reference's total is not positive.
    """
    pred, reference = _pair(pred, reference)
    total = float(np.sum(reference, dtype=np.float64))
    if not total > 0:
        raise ValueError(f"The reference's total must be positive to compare with; got {total:.4g}.")
    return float(np.sum(pred, dtype=np.float64)) / total


def grey_white_contrast(pet: np.ndarray, grey_matter: np.ndarray, white_matter: np.ndarray) -> float:
    """Mean activity in grey matter divided by that in white matter; both masks are boolean.

    Needs no truth: spill-over between the tissues moves it towards 1, and a correction should move it back.

    >>> grey_matter = np.array([[[True, True, False]]])
    >>> grey_white_contrast(np.array([[[6.0, 8.0, 2.0]]]), grey_matter, ~grey_matter)
    3.5
    """
    pet = np.asarray(pet)
    grey = float(np.mean(_inside(grey_matter, pet)[0], dtype=np.float64))
    white = float(np.mean(_inside(white_matter, pet)[0], dtype=np.float64))
    if not white > 0:
        raise ValueError(f"The mean activity in white matter must be positive to divide by; got {white:.4g}.")
    return grey / white


class PublishedScores(NamedTuple):
    """SSIM, RMSE in the images' unit, and RMSE divided by the clip value, which is comparable between units."""

    ssim: float
    rmse: float
    rmse_over_clip: float


def published_protocol(pred: np.ndarray, target: np.ndarray, *, clip_pred: bool = True) -> PublishedScores:
    """SSIM and RMSE over the whole volume, as in the published 3-D ResUNet for PET partial volume correction.

    As in its ``intensity_cropping.py`` and ``evaluation.py``: the target is clipped to 0 .. q99, the 99th percentile of
    its positive voxels, and so is the image compared with it. Both stay in raw units. The data range of SSIM (window of
    7 voxels) is the *maximum of the image under test*, not of the target, so every row has a different range;
    RMSE is over all voxels. Their volumes are 256-cubes at 1 mm, about 94 % of them empty, where SSIM is 1:
    the numbers are comparable only on such volumes, and a high SSIM says little about correctness.

    Args:
        pred: the image under test (input, sharpened or network output) on the 256-cube, raw units.
        target: the correction that ``pred`` should reproduce, same grid and unit.
        clip_pred: clip ``pred`` like the target. The published code clips the network's input, but not images that are
            made from the clipped input; pass False for these.

    Raises:
        ValueError: one of the two has no positive voxel.

    Reference:
        https://github.com/wjh1065/Partial-Volume-Effect-Correction-Algorithm-from-PET-scan
    """
    pred, target = _pair(pred, target)
    for name, volume in (("pred", pred), ("target", target)):
        if not volume.max() > 0:
            raise ValueError(f"{name} has no positive voxel; its maximum is {volume.max():.4g}.")
    clip = float(np.percentile(target[target > 0], 99))
    target = np.clip(target, 0, clip)
    pred = np.clip(pred, 0, clip) if clip_pred else pred

    # Where both images are empty SSIM is exactly 1, so only the box around the rest is computed. scikit-image omits
    # half a window at the volume's faces from the mean; this does the same.
    half = SSIM_WINDOW_VOXELS // 2
    interior = np.zeros(target.shape, dtype=bool)
    interior[(slice(half, -half),) * target.ndim] = True
    box = _box_for_ssim((pred != 0) | (target != 0))
    inside = _ssim_map(pred[box], target[box], data_range=float(pred.max()))[interior[box]]
    n_voxels = int(interior.sum())
    error = rmse(pred, target)
    return PublishedScores(
        ssim=float((np.sum(inside) + n_voxels - inside.size) / n_voxels), rmse=error, rmse_over_clip=error / clip
    )


def _ssim_map(pred: np.ndarray, reference: np.ndarray, *, data_range: float) -> np.ndarray:
    from skimage.metrics import structural_similarity  # takes half a second, and inference needs no comparison

    if not data_range > 0:
        raise ValueError(f"data_range must be positive, in the images' unit; got {data_range!r}.")
    _, similarity = structural_similarity(
        pred.astype(np.float64),
        reference.astype(np.float64),
        win_size=SSIM_WINDOW_VOXELS,
        data_range=data_range,
        full=True,
    )
    return similarity


def _box_for_ssim(mask: np.ndarray) -> tuple[slice, ...]:
    """The mask's bounding box, wide enough for every window with its centre in the mask."""
    half = SSIM_WINDOW_VOXELS // 2
    if min(mask.shape) < SSIM_WINDOW_VOXELS:
        raise ValueError(
            f"SSIM needs {SSIM_WINDOW_VOXELS} voxels along every axis; got a volume of shape {mask.shape}."
        )
    box = []
    for axis, size in enumerate(mask.shape):
        others = tuple(other for other in range(mask.ndim) if other != axis)
        occupied = np.flatnonzero(mask.any(axis=others))
        start, stop = max(occupied[0] - half, 0), min(occupied[-1] + half + 1, size)
        # a mask at the volume's face gives a box thinner than the window
        start, stop = min(start, size - SSIM_WINDOW_VOXELS), max(stop, SSIM_WINDOW_VOXELS)
        box.append(slice(int(start), int(stop)))
    return tuple(box)


def _same_shape(volume: np.ndarray, shape: tuple[int, ...], *, name: str) -> np.ndarray:
    volume = np.asarray(volume)
    if volume.shape != shape:
        raise ValueError(
            f"Expected {name} on the reference's grid, shape {shape}; got {volume.shape}. "
            "Usual cause: a file that was not resampled, or a channel axis."
        )
    return volume


def _pair(pred: np.ndarray, reference: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    reference = np.asarray(reference)
    return _same_shape(pred, reference.shape, name="pred"), reference


def _inside(mask: np.ndarray | None, *volumes: np.ndarray) -> tuple[np.ndarray, ...]:
    if mask is None:
        return volumes
    mask = _same_shape(mask, volumes[0].shape, name="mask")
    if mask.dtype != bool:
        raise ValueError(f"mask must be boolean; got {mask.dtype}. Threshold it first, for example probability > 0.5.")
    if not mask.any():
        raise ValueError("mask holds no voxel. Usual cause: a threshold above the map's maximum, or another grid.")
    return tuple(volume[mask] for volume in volumes)


def _sums_by_label(
    label_map: np.ndarray, *volumes: np.ndarray, weight: np.ndarray | None = None
) -> tuple[np.ndarray, list[np.ndarray]]:
    """The labels ``(n,)`` above 0 and, for each volume, its (weighted) sums over them in float64."""
    inside = label_map > 0
    labels, index = np.unique(label_map[inside], return_inverse=True)
    weights = 1.0 if weight is None else weight[inside].astype(np.float64)
    return labels, [np.bincount(index, weights * v[inside].astype(np.float64), minlength=labels.size) for v in volumes]


def _label_map(labels: np.ndarray, shape: tuple[int, ...], *, name: str) -> np.ndarray:
    labels = _same_shape(labels, shape, name=name)
    if labels.dtype == bool:
        return ndimage.label(labels)[0]
    whole = labels.astype(np.int64)
    if not np.array_equal(whole, labels):
        raise ValueError(f"{name} must hold whole numbers; got fractions. Usual cause: resampling with interpolation.")
    return whole
