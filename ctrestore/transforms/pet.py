"""MONAI transforms that MONAI lacks: reslicing to a cube around the head, percentile scaling, and their undoing.

Images are channel-first ``(channel, x, y, z)``; the channels of a PET are its frames (one for a static scan).
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from functools import reduce
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.data.meta_obj import get_track_meta
from monai.transforms import (
    InvertibleTransform,
    MapTransform,
    RandomizableTransform,
    SpatialCrop,
    SpatialResample,
    Transform,
    get_largest_connected_component_mask,
)
from monai.utils import TraceKeys, convert_to_dst_type, ensure_tuple_rep
from scipy.ndimage import label
from torch import Tensor

from ctrestore.errors import InputError
from ctrestore.psf import along_axes, check_voxel_sizes, in_bands
from ctrestore.pvc import Regions, correct, reblurred_van_cittert, yang
from ctrestore.transforms.mapped import Mapped, RandMapped

RIM_VOXELS = 4  # the soft rim of the brain beyond the voxels that are mostly brain, at 1 mm
SEEN_ML = 1.0  # a tissue that a network finds in less than this is no region: its mean would be noise


def affine_of(image: Tensor) -> np.ndarray:
    """Voxel-to-world affine (RAS, mm) of an image; identity for a plain tensor."""
    return np.asarray(image.affine, dtype=float) if isinstance(image, MetaTensor) else np.eye(image.ndim)


def spacing_mm_of(image: Tensor) -> list[float]:
    """Voxel size along x, y, z."""
    return np.linalg.norm(affine_of(image)[:3, :3], axis=0).tolist()


def known_fwhm_mm(fwhm_mm: Sequence[float] | None, default_fwhm_mm: float) -> tuple[float, ...]:
    """The FWHM along x, y, z that came with a scan, or else the default along each."""
    return tuple(float(width) for width in fwhm_mm or (default_fwhm_mm,) * 3)


def plain(image: Tensor) -> Tensor:
    """The values of a MetaTensor, without the bookkeeping that MONAI does at every operation."""
    return image.as_tensor() if isinstance(image, MetaTensor) else torch.as_tensor(image)


def frame_sums(image: Tensor, n_frames: int, image_channels: int) -> Tensor:
    """The scans ``(frame, x, y, z)`` that the first ``image_channels`` channels of each frame add up to."""
    channels = plain(image).reshape(n_frames, -1, *image.shape[1:])[:, :image_channels]
    return reduce(torch.add, channels.unbind(dim=1))  # torch's own sum takes five times as long


def head_mask(image: Tensor, *, fraction: float = 0.08, block: int = 4) -> Tensor:
    """Where the head is: ``(channel, x, y, z)`` to a boolean ``(1, x, y, z)``.

    The largest connected part of the image, averaged over frames and blocks of ``block`` voxels, above ``fraction`` of
    its 99th percentile. Blocks make it cheap and deaf to noise; the mask is a box of blocks, not a contour.
    """
    positive_part = plain(image).float().clamp(min=0)
    mean = positive_part if len(positive_part) == 1 else positive_part.mean(dim=0, keepdim=True)
    coarse = F.avg_pool3d(mean[None], block, ceil_mode=True, count_include_pad=False)[0, 0].cpu().numpy()
    positive = coarse[coarse > 0]
    level = fraction * float(np.percentile(positive, 99)) if positive.size else 0.0
    parts, n_parts = label(coarse > level)
    if n_parts > 1:
        parts = parts == 1 + int(np.argmax(np.bincount(parts.ravel())[1:]))
    mask = torch.from_numpy(np.ascontiguousarray(parts > 0))
    for axis, side in enumerate(image.shape[1:]):
        mask = mask.repeat_interleave(block, dim=axis).narrow(axis, 0, side)
    return mask[None]


class CheckVolume(Transform):
    """Pass a scan on if it can be corrected; otherwise say what is wrong with it.

    Raises:
        InputError: not 3-D (or 4-D: frames), NaN or Inf voxels, nothing above zero, a zero or absurd voxel size.
    """

    def __call__(self, img: Tensor) -> Tensor:
        if img.ndim != 4:
            raise InputError(
                f"a scan has 3 spatial axes (a dynamic one also frames); this one has shape {tuple(img.shape[1:])}. "
                "Remedy: give one NIfTI volume a scan."
            )
        if min(img.shape[1:]) < 8:
            raise InputError(f"{tuple(img.shape[1:])} voxels are too few for a head; each side needs at least 8.")
        check_voxel_sizes(affine_of(img)[:3, :3])
        if not bool(torch.isfinite(img).all()):
            n_bad = int((~torch.isfinite(img)).sum())
            raise InputError(
                f"{n_bad} voxels are NaN or infinite. Usual cause: a mask or a division by zero. "
                "Remedy: set them to 0 (numpy.nan_to_num) or export the scan again."
            )
        empty = [frame for frame in range(img.shape[0]) if not float(img[frame].max()) > 0]
        if empty:
            what = "no voxel is above zero" if img.shape[0] == 1 else f"frames {empty} hold no voxel above zero"
            raise InputError(f"{what}. Usual cause: an empty export, or a sign error in the rescale slope.")
        return img


class CheckVolumed(Mapped):
    """Dictionary form of :class:`CheckVolume`."""

    array_transform = CheckVolume


def cube_affine(image: Tensor, *, size: int, spacing_mm: float) -> np.ndarray:
    """Affine of a cube of ``size`` voxels, axes R, A, S, centred on the head of ``image``.

    A head higher than the cube (a scan down to the shoulders) keeps its top. Where voxels have the size of the cube's,
    the cube is moved by less than half a voxel so that the two grids coincide and nothing needs interpolation.
    """
    affine = affine_of(image)
    inside = head_mask(image)[0].numpy()
    along = [np.flatnonzero(inside.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3)]
    lowest, highest = (np.array([float(found[end]) for found in along]) for end in (0, -1))
    corners = np.stack(np.meshgrid(*zip(lowest, highest), indexing="ij"), -1).reshape(-1, 3)
    world = corners @ affine[:3, :3].T + affine[:3, 3]
    centre = (world.min(0) + world.max(0)) / 2
    extent_mm = size * spacing_mm
    margin_mm = 8.0
    if world[:, 2].max() - world[:, 2].min() > extent_mm - 2 * margin_mm:
        centre[2] = world[:, 2].max() + margin_mm - extent_mm / 2
    out = np.diag([spacing_mm] * 3 + [1.0])
    out[:3, 3] = centre - spacing_mm * (size - 1) / 2
    offset = np.linalg.solve(affine, out)[:3, 3]
    if np.allclose(np.abs(affine[:3, :3]).sum(0), spacing_mm, atol=1e-4):
        out[:3, 3] += affine[:3, :3] @ (np.round(offset) - offset)
    return out


def copy_to_grid(volume: Tensor, steps: np.ndarray, shape: Sequence[int]) -> Tensor | None:
    """The volume on a grid whose voxels coincide with its own: ``(channel, x, y, z)`` to ``(channel, *shape)``.

    Turned, flipped, cropped and padded with zeros, which no interpolation does as fast, nor without touching a value.

    Args:
        volume: channel-first.
        steps: affine from the voxels of the new grid to those of the volume.
        shape: voxels of the new grid.

    Returns:
        None where the voxels do not coincide.
    """
    turns, offsets = np.round(steps[:3, :3]), np.round(steps[:3, 3])
    close = np.abs(steps[:3, :3] - turns).max() < 1e-5 and np.abs(steps[:3, 3] - offsets).max() < 1e-3
    if not close or not np.array_equal(np.abs(turns) @ np.abs(turns).T, np.eye(3)):
        return None
    source_axes = [int(np.argmax(np.abs(turns[:, axis]))) for axis in range(3)]
    turned = volume.permute(0, *(1 + axis for axis in source_axes))
    here, there = [slice(None)], [slice(None)]
    for axis, source in enumerate(source_axes):
        n = volume.shape[1 + source]
        first = int(offsets[source])
        if turns[source, axis] < 0:  # the new grid counts the other way: flip, and count from the other end
            turned, first = turned.flip(1 + axis), n - 1 - first
        start, stop = max(0, -first), min(shape[axis], n - first)
        here.append(slice(start, max(start, stop)))
        there.append(slice(start + first, max(start, stop) + first))
    out = volume.new_zeros((volume.shape[0], *shape))
    out[tuple(here)] = turned[tuple(there)]
    return out


def interpolation_matrix(n_out: int, n_in: int, *, step: float, first: float) -> np.ndarray:
    """Linear interpolation at ``first + step * i`` as a matrix ``(n_out, n_in)``, float32; zeros beyond the ends."""
    positions = first + step * np.arange(n_out)
    lower = np.floor(positions).astype(int)
    matrix = np.zeros((n_out, n_in), dtype=np.float32)
    for source, weights in ((lower, 1 - (positions - lower)), (lower + 1, positions - lower)):
        there = (source >= 0) & (source < n_in)
        matrix[there.nonzero()[0], source[there]] = weights[there]
    return matrix


def interpolate_to_grid(volume: Tensor, steps: np.ndarray, shape: Sequence[int]) -> Tensor | None:
    """Trilinear interpolation, zeros outside, on a grid whose axes run along the volume's own.

    It is then linear interpolation along one axis after another, at a tenth of the price of a general resampling; the
    result differs from that by the rounding of its float32 coordinates.

    Args:
        volume: channel-first ``(channel, x, y, z)``, on the CPU.
        steps: affine from the voxels of the new grid to those of the volume.
        shape: voxels of the new grid.

    Returns:
        None where an axis is oblique, by more than 1e-4 voxels from end to end, or the volume is on another device.
    """
    source_axes = np.abs(steps[:3, :3]).argmax(axis=0)
    along = np.zeros((3, 3))
    along[source_axes, range(3)] = steps[source_axes, range(3)]
    aside = np.abs(steps[:3, :3] - along) @ np.asarray(shape)
    if volume.device.type != "cpu" or set(source_axes) != {0, 1, 2} or aside.max() > 1e-4:
        return None
    turned = volume.permute(0, *(1 + int(axis) for axis in source_axes)).float().numpy()
    bands = [
        in_bands(
            interpolation_matrix(
                shape[axis], volume.shape[1 + source], step=float(steps[source, axis]), first=float(steps[source, 3])
            )
        )
        for axis, source in enumerate(source_axes)
    ]
    return torch.stack([torch.from_numpy(along_axes(channel, *bands)) for channel in turned])


class ResliceToCubed(MapTransform, InvertibleTransform):
    """Resample images to a cube centred on the head of ``reference_key``.

    Where the voxels of image and cube coincide, they are copied; where only the axes do, linear interpolation runs
    axis by axis; MONAI's SpatialResample does the rest.

    Args:
        keys: images to reslice; all must share the grid of the reference.
        reference_key: the image whose head decides the place of the cube.
        spacing_mm: voxel size of the cube.
        size: voxels along each side.
        mode: interpolation, ``bilinear`` or ``nearest``, one or one a key.

    Raises:
        InputError: an image lies on another grid than the reference.
    """

    def __init__(
        self,
        keys: KeysCollection,
        reference_key: str = "image",
        spacing_mm: float = 1.0,
        size: int = 256,
        mode: str | Sequence[str] = "bilinear",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.reference_key, self.spacing_mm, self.size = reference_key, spacing_mm, size
        self.mode = ensure_tuple_rep(mode, len(self.keys))
        self.resample = SpatialResample(padding_mode="zeros", align_corners=True, dtype=np.float32)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        reference = d[self.reference_key]
        target = cube_affine(reference, size=self.size, spacing_mm=self.spacing_mm)
        shape, affine = reference.shape[1:], affine_of(reference)
        for key, mode in self.key_iterator(d, self.mode):
            if d[key].shape[1:] != shape or not np.allclose(affine_of(d[key]), affine, atol=1e-2):
                raise InputError(
                    f"{key} has {tuple(d[key].shape[1:])} voxels and {self.reference_key} {tuple(shape)}, or their "
                    "affines differ by more than 0.01 mm. Remedy: resample it to the scan's grid."
                )
            steps = np.linalg.solve(affine_of(d[key]), target)
            info = {
                "mode": str(mode),
                "steps": steps.tolist(),
                "shape": list(shape),
                "affine": affine_of(d[key]).tolist(),
            }
            d[key] = self._moved(d[key], steps, target, (self.size,) * 3, mode)
            if get_track_meta() and isinstance(d[key], MetaTensor):
                self.push_transform(d[key], extra_info=info)
        return d

    def _moved(self, image: Tensor, steps: np.ndarray, affine: np.ndarray, shape: Sequence[int], mode: str) -> Tensor:
        """The image on another grid by the fastest way there is, with everything that is known of it but its affine."""
        volume = plain(image)
        moved = copy_to_grid(volume, steps, shape)
        if moved is None and mode == "bilinear":
            moved = interpolate_to_grid(volume, steps, shape)
        if moved is None:
            with self.resample.trace_transform(False):
                moved = self.resample(image, dst_affine=torch.from_numpy(affine), spatial_size=shape, mode=mode)
        if not isinstance(image, MetaTensor):
            return plain(moved)
        out = MetaTensor(plain(moved)).copy_meta_from(image)
        out.affine = torch.from_numpy(affine)
        return out

    def inverse(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The images back on their own grid; zero where the cube had no part of it."""
        d = dict(data)
        for key in self.key_iterator(d):
            info = self.pop_transform(d[key])[TraceKeys.EXTRA_INFO]
            back = np.linalg.inv(info["steps"])
            d[key] = self._moved(d[key], back, np.asarray(info["affine"]), info["shape"], info["mode"])
        return d


def positive_percentile(image: Tensor, percentile: float) -> Tensor:
    """Percentile of the positive voxels of each channel: ``(channel, *spatial)`` to ``(channel,)``."""
    found = []
    for values in plain(image).reshape(image.shape[0], -1).cpu().numpy():
        positive = values[values > 0]
        found.append(float(np.percentile(positive, percentile, overwrite_input=True)) if positive.size else 1.0)
    return torch.tensor(found)


class ScaleByPercentiled(MapTransform, InvertibleTransform):
    """Divide images by a percentile of the positive voxels of ``reference_key``, by frame. The inverse multiplies.

    The clip at 1 is a step of its own (:class:`SplitAtClipd`, or MONAI's ``ScaleIntensityRanged(clip=True)``).
    """

    def __init__(
        self,
        keys: KeysCollection,
        reference_key: str = "image",
        percentile: float = 99.0,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.reference_key, self.percentile = reference_key, percentile

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        scale = positive_percentile(d[self.reference_key], self.percentile)
        for key in self.key_iterator(d):
            d[key] = self._times(d[key], 1.0 / scale)
            if get_track_meta() and isinstance(d[key], MetaTensor):
                self.push_transform(d[key], extra_info={"scale": scale.tolist()})
        return d

    def inverse(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The images in their own unit again."""
        d = dict(data)
        for key in self.key_iterator(d):
            scale = torch.tensor(self.pop_transform(d[key])[TraceKeys.EXTRA_INFO]["scale"])
            d[key] = self._times(d[key], scale)
        return d

    @staticmethod
    def _times(image: Tensor, factor: Tensor) -> Tensor:
        return image * factor.to(image.device).reshape(-1, *[1] * (image.ndim - 1))


class SplitAtClip(Transform):
    """Clip an image to 0..1 and keep what the clip cut off: ``(c, *spatial)`` to ``(2 c, *spatial)``.

    Channels come in pairs: the clipped image, then the part above 1 (zero almost everywhere). Their sum is the image
    without its negative voxels, so a hot lesion reaches the network whole, and apart from the normal brain.
    """

    def __call__(self, img: Tensor) -> Tensor:
        values = plain(img)
        out = values.new_empty((2 * len(values), *values.shape[1:]))
        clipped, above = out[::2], out[1::2]
        torch.clamp(values, min=0.0, max=1.0, out=clipped)
        torch.clamp(values, min=0.0, out=above)
        above -= clipped
        return convert_to_dst_type(out, img)[0]


class SplitAtClipd(Mapped):
    """Dictionary form of :class:`SplitAtClip`."""

    array_transform = SplitAtClip


def append_van_cittert(image: Tensor, *, fwhm_mm: Sequence[float], spacing_mm: Sequence[float]) -> Tensor:
    """Append to each frame what reblurred Van Cittert deconvolution would change: ``(2 t, ...)`` to ``(3 t, ...)``.

    A frame comes as two channels (:class:`SplitAtClip`: clipped, above the clip); the third is the deconvolved frame
    minus the frame, so that the three add up to the deconvolved one. It tells the network the scanner's PSF in the form
    that it can use best: as a first correction to improve on. Positively homogeneous, as all of this chain.
    """
    pairs = plain(image).reshape(-1, 2, *image.shape[1:])
    out = pairs.new_empty((len(pairs), 3, *image.shape[1:]))
    out[:, :2] = pairs
    for triple in out:
        frame = as_array(triple[0] + triple[1])
        change = reblurred_van_cittert(frame, fwhm_mm=fwhm_mm, spacing_mm=spacing_mm)
        change -= frame
        triple[2] = torch.from_numpy(change)
    return convert_to_dst_type(out.flatten(0, 1), image)[0]


class AppendVanCittert(Transform):
    """Third channel of each frame, on axes R, A, S: :func:`append_van_cittert`.

    Args:
        default_fwhm_mm: for scans of unknown FWHM (programs that hand over an image in memory).
    """

    def __init__(self, default_fwhm_mm: float = 6.0) -> None:
        self.default_fwhm_mm = default_fwhm_mm

    def __call__(self, img: Tensor, fwhm_mm: Sequence[float] | None = None) -> Tensor:
        fwhm_mm = known_fwhm_mm(fwhm_mm, self.default_fwhm_mm)
        return append_van_cittert(img, fwhm_mm=fwhm_mm, spacing_mm=spacing_mm_of(img))


class AppendVanCittertd(Mapped):
    """Dictionary form of :class:`AppendVanCittert`; ``fwhm_key`` is that of the FWHM along x, y, z in mm."""

    array_transform = AppendVanCittert

    def __init__(self, keys: KeysCollection, fwhm_key: str = "fwhm_mm", **kwargs: Any) -> None:
        super().__init__(keys, optional_extras={"fwhm_mm": fwhm_key}, **kwargs)


class YangSteps(Transform):
    """Let the scan have the last word: :func:`ctrestore.pvc.yang` with the prediction as the synthetic image.

    A network trained on squared errors gives the mean of what could be, which is too even. The step multiplies it by
    how much of the measured activity it leaves unexplained, frame by frame: ``(frame, x, y, z)``, on axes R, A, S.

    Args:
        n_steps: how often; 0 leaves the prediction as it is.
        image_channels: of the network's input; the first so many of each frame add up to the scan.
        default_fwhm_mm: for scans of unknown FWHM.
    """

    def __init__(self, n_steps: int = 1, image_channels: int = 2, default_fwhm_mm: float = 6.0) -> None:
        self.n_steps, self.image_channels, self.default_fwhm_mm = n_steps, image_channels, default_fwhm_mm

    def __call__(  # type: ignore[override]  # MONAI's takes one
        self, pred: Tensor, image: Tensor, fwhm_mm: Sequence[float] | None = None
    ) -> Tensor:
        if self.n_steps == 0:
            return pred
        fwhm_mm, spacing_mm = known_fwhm_mm(fwhm_mm, self.default_fwhm_mm), spacing_mm_of(image)
        steps = [
            yang(as_array(scan), as_array(frame), fwhm_mm=fwhm_mm, spacing_mm=spacing_mm, n_steps=self.n_steps)
            for scan, frame in zip(frame_sums(image, len(pred), self.image_channels), pred)
        ]
        return convert_to_dst_type(torch.from_numpy(np.stack(steps)), pred)[0]


class YangStepsd(Mapped):
    """Dictionary form of :class:`YangSteps`; ``input_key`` is that of the network's input."""

    array_transform = YangSteps

    def __init__(
        self, keys: KeysCollection = "pred", input_key: str = "image", fwhm_key: str = "fwhm_mm", **kwargs: Any
    ) -> None:
        super().__init__(keys, extras={"image": input_key}, optional_extras={"fwhm_mm": fwhm_key}, **kwargs)


class CorrectByTissuesd(MapTransform):
    """The classical correction of a scan by the tissues that a network saw in it: :func:`ctrestore.pvc.correct`.

    The softmax of the logits is the fraction of each tissue in each voxel, and each tissue is a region. The frames of a
    dynamic scan show one head, so their fractions are averaged. A tissue that exceeds one half in less than 1 ml counts
    as not seen and joins the background: equations for it would be near singular.

    Args:
        keys: logits ``(frame * tissue, x, y, z)``, on axes R, A, S; the corrected ``(frame, x, y, z)`` replace them.
        input_key: the network's input; its first ``image_channels`` channels of each frame add up to the scan.
        fwhm_key: of the FWHM along x, y, z in mm.
        method: one of ``ctrestore.pvc.METHODS`` that gives an image.
        tissue_key: where the fractions of all regions but the last, the background, are kept: ``(tissue, x, y, z)``.
        names: of the regions; grey matter first, white matter second, as some methods need them, background last.
        image_channels: see ``input_key``.
        default_fwhm_mm: where there is no ``fwhm_key``.
        allow_missing_keys: MONAI's.

    Raises:
        InputError: the method is unknown or gives no image, or the regions do not allow it; when called.
    """

    def __init__(
        self,
        keys: KeysCollection = "pred",
        input_key: str = "image",
        fwhm_key: str = "fwhm_mm",
        method: str = "RBV",
        tissue_key: str = "tissue",
        names: Sequence[str] = ("grey matter", "white matter", "csf", "background"),
        image_channels: int = 2,
        default_fwhm_mm: float = 6.0,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.input_key, self.fwhm_key, self.default_fwhm_mm = input_key, fwhm_key, default_fwhm_mm
        self.method, self.tissue_key, self.names, self.image_channels = method, tissue_key, tuple(names), image_channels

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        fwhm_mm = known_fwhm_mm(d.get(self.fwhm_key), self.default_fwhm_mm)
        for key in self.key_iterator(d):
            image = d[self.input_key]
            logits = torch.as_tensor(d[key]).reshape(-1, len(self.names), *image.shape[1:])
            fractions = one_brain(logits.softmax(dim=1).mean(dim=0))
            scans = frame_sums(image, len(logits), self.image_channels)
            spacing_mm = spacing_mm_of(image)
            regions = self.regions(as_array(fractions), voxel_ml=float(np.prod(spacing_mm)) / 1000)
            corrected = [
                correct(as_array(scan), regions, self.method, fwhm_mm=fwhm_mm, spacing_mm=spacing_mm).image
                for scan in scans
            ]
            frames = [frame for frame in corrected if frame is not None]
            if not frames:
                raise InputError(f"{self.method} gives regional means and no image. Remedy: RBV, for example.")
            d[key] = convert_to_dst_type(torch.from_numpy(np.stack(frames)), image)[0]
            d[self.tissue_key] = convert_to_dst_type(fractions[:-1], image)[0]
        return d

    def regions(self, fractions: np.ndarray, *, voxel_ml: float) -> Regions:
        """Regions of the tissues that are there: ``(tissue, x, y, z)``, summing to 1, the last being the background."""
        seen = (fractions > 0.5).sum(axis=(1, 2, 3)) * voxel_ml >= SEEN_ML
        seen[-1] = True
        masks = fractions[seen]
        masks[-1] += fractions[~seen].sum(axis=0)
        return Regions.from_masks(masks, names=[name for name, kept in zip(self.names, seen) if kept])


def one_brain(fractions: Tensor) -> Tensor:
    """The fractions ``(tissue, x, y, z)`` with all that is not connected to the brain turned into background, the last.

    A network finds specks of grey matter in bright muscle and scalp; corrected as such they would become brighter.
    """
    brain = get_largest_connected_component_mask(fractions[-1] < 0.5)
    brain = torch.as_tensor(brain, dtype=fractions.dtype, device=fractions.device)[None]
    tissue = fractions[:-1] * F.max_pool3d(brain, 2 * RIM_VOXELS + 1, stride=1, padding=RIM_VOXELS)
    return torch.cat([tissue, 1 - tissue.sum(dim=0, keepdim=True)])


def as_array(image: Tensor) -> np.ndarray:
    """The values of a tensor or MetaTensor as a contiguous float32 array."""
    return np.ascontiguousarray(plain(image).detach().cpu().numpy(), dtype=np.float32)


class ChangeFromInput(Transform):
    """What the network changed: the prediction minus its input (the sum of each frame's image channels).

    The change, not the prediction, goes back to the scan's own grid: interpolation then blurs only the correction, and
    the scan is kept exactly wherever nothing was corrected.

    Args:
        image_channels: how many of a frame's channels, from the first on, add up to the image (as in HomogeneousUNet);
            others, a T1 say, are no part of it.
    """

    def __init__(self, image_channels: int = 2) -> None:
        self.image_channels = image_channels

    def __call__(self, pred: Tensor, image: Tensor) -> Tensor:  # type: ignore[override]  # MONAI's takes one
        return pred - frame_sums(image, len(pred), self.image_channels).to(pred.device)


class ChangeFromInputd(Mapped):
    """Dictionary form of :class:`ChangeFromInput`; ``input_key`` is that of the network's input."""

    array_transform = ChangeFromInput

    def __init__(self, keys: KeysCollection = "pred", input_key: str = "image", **kwargs: Any) -> None:
        super().__init__(keys, extras={"image": input_key}, **kwargs)


class AddToScan(Transform):
    """The corrected scan: the scan as loaded plus the change, no voxel pushed below zero; the scan's own affine.

    A voxel that was negative already keeps its value if the change leaves it alone.
    """

    def __call__(self, change: Tensor, scan: Tensor) -> Tensor:  # type: ignore[override]  # MONAI's takes one
        corrected = scan + torch.as_tensor(change).to(scan.device)
        return torch.maximum(corrected, scan.clamp(max=0.0))


class AddToScand(Mapped):
    """Dictionary form of :class:`AddToScan`; ``scan_key`` is that of the scan as loaded."""

    array_transform = AddToScan

    def __init__(self, keys: KeysCollection = "pred", scan_key: str = "scan", **kwargs: Any) -> None:
        super().__init__(keys, extras={"scan": scan_key}, **kwargs)


class RandOctant(RandomizableTransform):
    """A random octant of a cube: ``(c, 2 n, 2 n, 2 n)`` to ``(c, n, n, n)``."""

    def randomize(self, data: Any = None) -> None:
        """Draw the octant."""
        self.corner = [int(self.R.randint(2)) for _ in range(3)]

    def __call__(self, img: Tensor, randomize: bool = True) -> Tensor:
        if randomize:
            self.randomize()
        half = [side // 2 for side in img.shape[1:]]
        start = [c * h for c, h in zip(self.corner, half)]
        return SpatialCrop(roi_start=start, roi_end=[s + h for s, h in zip(start, half)])(img)


class RandOctantd(RandMapped):
    """Dictionary form of :class:`RandOctant`: the same octant for all keys."""

    array_transform = RandOctant


def above_half(fraction: Tensor) -> Tensor:
    """Where a tissue fraction or probability exceeds one half (``select_fn`` of MONAI's mask transforms)."""
    return fraction > 0.5


def append_rest(fractions: Tensor) -> Tensor:
    """Tissue fractions and what is left of each voxel: ``(tissue, x, y, z)`` to ``(tissue + 1, x, y, z)``, sums of 1.

    Where rounding or interpolation took the sum of the tissues above 1, they are scaled down to 1.

    Raises:
        InputError: a value is not finite or outside 0..1, as in maps of percents or labels.
    """
    lowest, highest = float(fractions.min()), float(fractions.max())
    if not -1e-3 <= lowest <= highest <= 1 + 1e-3:  # also refuses NaN
        raise InputError(
            f"tissue fractions lie in 0..1; these run from {lowest:.4g} to {highest:.4g}. Usual cause: percents, or a "
            "label map. Remedy: give probability maps, one file a tissue."
        )
    positive = fractions.clamp(min=0.0)
    tissues = positive / positive.sum(dim=0, keepdim=True).clamp(min=1.0)
    rest = (1.0 - tissues.sum(dim=0, keepdim=True)).clamp(min=0.0)
    return convert_to_dst_type(torch.cat([torch.as_tensor(tissues), torch.as_tensor(rest)]), fractions)[0]
