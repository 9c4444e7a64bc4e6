"""Regions that share out a volume: an integer label map, soft masks, or soft grey-matter parcels with tissue maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ctrestore.psf import namespace, runs_along_x

# Probability maps are stored in steps of 1/255 and interpolated: their sums are that far from one, and no further.
SUM_TOLERANCE = 0.02
EXACT_SUM = 1e-5  # closer than this the masks are taken to share out the volume exactly
BACKGROUND = "background"

Box = tuple[slice, ...]


@dataclass(frozen=True)
class Layer:
    """Weights 0..1 that labels divide among regions; ``(x, y, z)`` both.

    ``weights`` None is one everywhere, ``labels`` None gives the whole layer to the region ``region``.
    """

    weights: Any = None
    labels: Any = None
    region: int = 0


def dot(a: Any, b: Any) -> float:
    """Sum of a product over a volume ``(x, y, z)``, exact to float32's rounding.

    Over 16.8 million voxels one float32 sum is wrong by up to 1.4e-3: only rows are summed in float32, their totals in
    float64.
    """
    xp = namespace(a)
    if xp is np and runs_along_x(a):  # the rows are to be those in memory
        a, b = a.T, b.T
    return float(xp.einsum("xyz,xyz->xy", a, b).sum(dtype=xp.float64))


class Runs:
    """Stretches of one label along an axis, so that sums by label need to look at a label once a stretch.

    Three times and more as fast as counting voxel by voxel; no stretch is so long that its float32 sum loses digits.
    """

    def __init__(self, labels: np.ndarray) -> None:
        self.reversed_axes = runs_along_x(labels)
        labels = self._in_memory_order(labels)
        flat = np.ascontiguousarray(labels).reshape(-1)
        new = np.empty(flat.size, dtype=bool)
        np.not_equal(flat[1:], flat[:-1], out=new[1:])
        new[:: labels.shape[-1]] = True
        self.starts, self.shape = np.flatnonzero(new), labels.shape
        self.labels = flat[self.starts]

    def _in_memory_order(self, volume: np.ndarray) -> np.ndarray:
        return volume.T if self.reversed_axes else volume

    def sums(self, weights: np.ndarray | None, n: int) -> np.ndarray:
        """Sum of weights (None: ones) by label, ``(n,)`` float64."""
        if weights is None:
            lengths = np.diff(self.starts, append=np.prod(self.shape))
            return np.bincount(self.labels, lengths, minlength=n)
        by_run = np.add.reduceat(np.ascontiguousarray(self._in_memory_order(weights)).reshape(-1), self.starts)
        return np.bincount(self.labels, by_run, minlength=n)

    def boxes(self, n: int) -> list[Box]:
        """Bounding box of each label."""
        stops = np.append(self.starts[1:], np.prod(self.shape)) - 1
        firsts, lasts = np.unravel_index(self.starts, self.shape), np.unravel_index(stops, self.shape)
        sides = []
        for first, last, side in zip(firsts, lasts, self.shape):
            begins, ends = np.zeros((2, n, side), dtype=bool)
            begins[self.labels, first] = ends[self.labels, last] = True
            sides.append((begins.argmax(axis=1), side - ends[:, ::-1].argmax(axis=1)))
        sides = sides[::-1] if self.reversed_axes else sides
        return [tuple(slice(int(lo[i]), int(hi[i])) for lo, hi in sides) for i in range(n)]


class Regions:
    """Regions that share out a volume: in every voxel their masks add up to one.

    Built by :meth:`from_labels`, :meth:`from_masks` or :meth:`from_parcels`, from numpy arrays or from torch tensors on
    any device. Numbers by region are numpy arrays in float64, in the order of ``names``.

    >>> regions = Regions.from_labels(np.repeat([0, 0, 7], 9).reshape(3, 3, 3), names={7: "hot"})
    >>> regions.names, regions.totals().tolist()
    (('region-0', 'hot'), [18.0, 9.0])
    """

    def __init__(self, layers: Sequence[Layer], names: Sequence[str], *, background_added: bool = False) -> None:
        self.layers, self.names, self.background_added = tuple(layers), tuple(names), background_added
        first = layers[0]
        self._reference = first.labels if first.weights is None else first.weights
        self.shape, self.xp = tuple(self._reference.shape), namespace(self._reference)
        self.matrices: dict[Any, np.ndarray] = {}  # transfer matrices, by PSF: all methods and frames need the same

    @classmethod
    def from_labels(cls, labels: Any, names: Mapping[int, str] | None = None) -> Regions:
        """One region for each value in an integer volume ``(x, y, z)``, zero included, in ascending order.

        Args:
            labels: integers; whole numbers stored as floats will do.
            names: of values; others are called ``region-VALUE``.

        Raises:
            ValueError: not 3-D, or values that are no whole numbers.
        """
        xp = namespace(labels)
        if labels.ndim != 3:
            raise ValueError(f"a label map has three axes (x, y, z); got shape {tuple(labels.shape)}.")
        labels = _as_integers(labels)
        values = np.unique(Runs(labels).labels) if xp is np else xp.unique(labels).cpu().numpy()
        if not np.array_equal(values, np.arange(len(values))):
            lowest = min(int(values[0]), 0)
            position = np.zeros(int(values[-1]) - lowest + 1, dtype=np.uint8 if len(values) <= 256 else np.int32)
            position[values - lowest] = np.arange(len(values))
            labels = _take(position, labels - lowest if lowest else labels)
        given = names or {}
        return cls([Layer(labels=labels)], [given.get(int(v), f"region-{int(v)}") for v in values])._without_empty()

    @classmethod
    def from_masks(cls, masks: Any, names: Sequence[str] | None = None) -> Regions:
        """One region for each soft or hard mask; what they leave over becomes the region ``background``.

        Args:
            masks: ``(region, x, y, z)``, 0..1.
            names: of the masks; by default ``region-1``, ``region-2``, ...

        Raises:
            ValueError: not 4-D, NaN, values outside 0..1, masks that overlap (a sum above one), or an empty mask.
        """
        xp = namespace(masks)
        if masks.ndim != 4:
            raise ValueError(f"masks have four axes (region, x, y, z); got shape {tuple(masks.shape)}.")
        n_given = masks.shape[0]
        names = [f"region-{i + 1}" for i in range(n_given)] if names is None else list(names)
        if len(names) != n_given:
            raise ValueError(f"{len(names)} names for {n_given} masks.")
        volumes = [as_mask(masks[i], name, order_of=masks[0]) for i, name in enumerate(names)]
        rest = _rest(volumes, xp, "masks")
        if rest is not None:
            volumes, names = [*volumes, rest], [*names, BACKGROUND]
        layers = [Layer(weights=volume, region=i) for i, volume in enumerate(volumes)]
        return cls(layers, names, background_added=rest is not None)._without_empty()

    @classmethod
    def from_parcels(
        cls, parcels: Any, *, grey: Any, white: Any, csf: Any | None = None, names: Mapping[int, str] | None = None
    ) -> Regions:
        """Grey matter by parcel, each voxel with its grey-matter fraction; then white matter, CSF and background.

        Soft parcels give regional biases of 1 to 2 % where hard ones give 2 to 6 %: the mask's own error is the larger
        one. Grey matter outside the parcels is the region ``grey-unparcelled``.

        Args:
            parcels: integer volume ``(x, y, z)``; 0 is no parcel.
            grey: fraction of grey matter, 0..1, same shape; likewise ``white`` and ``csf``.
            white: see ``grey``.
            csf: see ``grey``; without it the background takes what is left.
            names: of parcels; others are called ``region-VALUE``.

        Raises:
            ValueError: as :meth:`from_labels` and :meth:`from_masks` do.
        """
        xp = namespace(grey)
        inside = cls.from_labels(parcels, {0: "grey-unparcelled", **(names or {})})
        titles = {"grey": grey, "white": white} | ({} if csf is None else {"csf": csf})
        volumes = {name: as_mask(volume, name, order_of=parcels) for name, volume in titles.items()}
        if any(tuple(v.shape) != inside.shape for v in volumes.values()):
            shapes = {name: tuple(v.shape) for name, v in volumes.items()}
            raise ValueError(
                f"the parcels have {inside.shape} voxels, the tissue maps {shapes}. Remedy: one grid for all."
            )
        rest = _rest(list(volumes.values()), xp, "tissue maps")
        labels = inside.layers[0].labels
        grey_names = list(inside.names)
        totals = _sums_by_label(labels, volumes["grey"], len(grey_names))
        if not totals[0] > 0 and grey_names[0] == "grey-unparcelled":  # every bit of grey matter is in a parcel
            grey_names, labels = grey_names[1:], (labels.astype(np.int32) if xp is np else labels.int()) - 1
            labels = labels.clip(0)
        layers = [Layer(weights=volumes["grey"], labels=labels)]
        tissue_names = {"white": "white-matter", "csf": "csf"}
        more = [(tissue_names[name], v) for name, v in volumes.items() if name != "grey"]
        more += [] if rest is None else [(BACKGROUND, rest)]
        layers += [Layer(weights=v, region=len(grey_names) + i) for i, (_, v) in enumerate(more)]
        names_all = [*grey_names, *(name for name, _ in more)]
        return cls(layers, names_all, background_added=rest is not None)._without_empty()

    def _without_empty(self) -> Regions:
        """These regions.

        Raises:
            ValueError: one of them has no voxel.
        """
        empty = [name for name, total in zip(self.names, self._totals) if not total > 0]
        if empty:
            raise ValueError(
                f"regions without a voxel: {', '.join(empty)}. Usual cause: a mask resampled away, or of another scan. "
                "Remedy: leave them out."
            )
        return self

    def crop(self, box: Box) -> Regions:
        """These regions within a box; the volumes are views."""
        layers = [
            Layer(
                weights=None if layer.weights is None else layer.weights[box],
                labels=None if layer.labels is None else layer.labels[box],
                region=layer.region,
            )
            for layer in self.layers
        ]
        return Regions(layers, self.names, background_added=self.background_added)

    @cached_property
    def outermost(self) -> int:
        """The region with the largest bounding box: the background, where there is one."""
        return int(np.argmax([np.prod([s.stop - s.start for s in box]) for box in self.boxes()]))

    def active_box(self, reach: Sequence[int]) -> Box:
        """Box outside of which a PSF of this reach mixes nothing: there is only the outermost region."""
        others = [box for region, box in enumerate(self.boxes()) if region != self.outermost]
        if not others:
            return tuple(slice(0, n) for n in self.shape)
        union = [slice(min(s.start for s in sides), max(s.stop for s in sides)) for sides in zip(*others)]
        return grown(tuple(union), [2 * r for r in reach], self.shape)

    @cached_property
    def _totals(self) -> np.ndarray:
        return self._by_region(None, (slice(None),) * 3)

    def __len__(self) -> int:
        return len(self.names)

    def totals(self) -> np.ndarray:
        """Voxels in each region, fractions included."""
        return self._totals.copy()

    def sums(self, image: Any) -> np.ndarray:
        """Sum of the image ``(x, y, z)`` over each region."""
        return self._by_region(self.on_grid(image), (slice(None),) * 3)

    def means(self, image: Any) -> np.ndarray:
        """Mean of the image ``(x, y, z)`` over each region, uncorrected."""
        return self.sums(image) / self._totals

    def paint(self, values: np.ndarray) -> Any:
        """The volume ``(x, y, z)``, float32, in which each region has its value; a mixed voxel the mixture."""
        painted = None
        for layer in self.layers:
            if layer.labels is None:
                part = layer.weights * float(values[layer.region])
            else:
                part = _take(np.asarray(values, dtype=np.float32), layer.labels)
                if layer.weights is not None:
                    part *= layer.weights
            if painted is None:
                painted = part
            else:
                painted += part
        return painted

    def mask(self, region: int, box: Box = (slice(None),) * 3) -> Any:
        """Mask of one region in a box, ``(x, y, z)``, float32."""
        for layer in self.layers:
            if layer.labels is None:
                if layer.region == region:
                    return layer.weights[box]
            elif region < self._n_labelled:
                inside = layer.labels[box] == region
                inside = inside.astype(np.float32) if self.xp is np else inside.float()
                return inside if layer.weights is None else inside * layer.weights[box]
        raise IndexError(region)

    @property
    def _n_labelled(self) -> int:
        return len(self) - sum(layer.labels is None for layer in self.layers)

    def unmix(self, means: np.ndarray) -> np.ndarray:
        """Values that, painted, have these means over the regions; the means themselves where regions are hard.

        A soft region's mean holds a share <m_i, m_j> / N_i of every region that its mask overlaps.
        """
        return np.linalg.solve(self._shares, means)

    @cached_property
    def _shares(self) -> np.ndarray:
        columns = [self.overlaps(self.mask(j, box), box) for j, box in enumerate(self.boxes())]
        return np.stack(columns, axis=1) / self._totals[:, None]

    def partition_error(self) -> float:
        """How far the sum of all masks is from one, in the voxel where it is farthest."""
        return float(abs(self.paint(np.ones(len(self))) - 1).max())

    def overlaps(self, volume: Any, box: Box) -> np.ndarray:
        """Sum of a volume over each region within a box, in float64; the volume has the shape of the box."""
        return self._by_region(volume, box)

    def boxes(self) -> list[Box]:
        """Bounding box of each region."""
        return list(self._boxes)

    @cached_property
    def _boxes(self) -> list[Box]:
        found: list[Box] = []
        for layer in self.layers:
            if layer.labels is None:
                found.append(bounds(layer.weights > 0))
            else:
                labels = layer.labels if self.xp is np else layer.labels.cpu().numpy()
                found += Runs(labels).boxes(self._n_labelled)
        return found

    def on_grid(self, image: Any) -> Any:
        """The image if it has as many voxels as the regions, in the same memory order.

        Raises:
            ValueError: it has not, or is not the same kind of array.
        """
        if tuple(image.shape) != self.shape:
            raise ValueError(
                f"the image has {tuple(image.shape)} voxels, the regions {self.shape}. Remedy: resample the masks to "
                "the grid of the PET."
            )
        if namespace(image) is not self.xp:
            raise ValueError("the image and the regions must both be numpy arrays or both be tensors.")
        return in_order_of(self._reference, image)

    def _by_region(self, volume: Any, box: Box) -> np.ndarray:
        out = np.zeros(len(self))
        for layer in self.layers:
            weights: Any = None if layer.weights is None else layer.weights[box]
            if layer.labels is not None:
                both = volume if weights is None else weights if volume is None else volume * weights
                out[: self._n_labelled] += _sums_by_label(layer.labels[box], both, self._n_labelled)
            elif volume is None:
                out[layer.region] += float(weights.sum(dtype=self.xp.float64))
            else:
                out[layer.region] += dot(weights, volume)
        return out


def _as_integers(labels: Any) -> Any:
    """Labels in a type that can be counted.

    Raises:
        ValueError: they are no whole numbers.
    """
    xp, kind = namespace(labels), str(labels.dtype)
    if "float" in kind:
        whole = xp.round(labels)
        if not bool((labels == whole).all()):
            raise ValueError(
                "the label map holds values that are no whole numbers. Usual cause: probabilities, or labels that were "
                "resampled linearly. Remedy: nearest-neighbour resampling; give probabilities as masks (4-D)."
            )
        return whole.astype(np.int32) if xp is np else whole.int()
    if "bool" in kind:
        return labels.astype(np.uint8) if xp is np else labels.byte()
    return labels.astype(np.int64) if kind == "uint64" else labels  # numpy counts no unsigned 64-bit numbers


def _sums_by_label(labels: Any, weights: Any, n: int) -> np.ndarray:
    """Sum of weights (None: ones) by label, in float64 numpy."""
    xp = namespace(labels)
    if xp is np:
        return Runs(labels).sums(weights, n)
    flat = None if weights is None else weights.flatten().double()
    return xp.bincount(labels.flatten().long(), flat, minlength=n).double().cpu().numpy()


def _take(values: np.ndarray, labels: Any) -> Any:
    """``values[labels]``, of the labels' kind."""
    xp = namespace(labels)
    if xp is np:
        return values[labels]
    return xp.as_tensor(values, device=labels.device)[labels.long()]


def bounds(inside: Any) -> Box:
    """Smallest box that holds all true voxels."""
    xp = namespace(inside)
    box = []
    for axis in range(3):
        others = tuple(a for a in range(3) if a != axis)
        where = xp.nonzero(inside.any(others) if xp is np else inside.any(others[1]).any(others[0]))
        line = where[0] if xp is np else where[:, 0]
        box.append(slice(int(line[0]), int(line[-1]) + 1) if len(line) else slice(0, 0))
    return tuple(box)


def in_order_of(reference: Any, volume: Any) -> Any:
    """The volume, copied if its memory order differs from that of the reference: mixed orders are slow to work on."""
    if namespace(volume) is not np or runs_along_x(volume) == runs_along_x(reference):
        return volume
    return np.asfortranarray(volume) if runs_along_x(reference) else np.ascontiguousarray(volume)


def grown(box: Box, reach: Sequence[int], shape: tuple[int, ...]) -> Box:
    """The box and as many voxels around it as the PSF reaches, within the volume."""
    return tuple(slice(max(s.start - r, 0), min(s.stop + r, n)) for s, r, n in zip(box, reach, shape))


def as_mask(mask: Any, name: str, *, like: Any = None, order_of: Any = None) -> Any:
    """A mask in float32, clipped to 0..1.

    Raises:
        ValueError: NaN, values that are no fractions, or not the shape of ``like``.
    """
    xp = namespace(mask)
    if like is not None and mask.shape != like.shape:
        raise ValueError(
            f"mask {name} has {tuple(mask.shape)} voxels, the image {tuple(like.shape)}. Remedy: resample the mask to "
            "the grid of the PET."
        )
    mask = mask.astype(np.float32, copy=False) if xp is np else mask.float()
    reference = like if like is not None else order_of
    mask = mask if reference is None else in_order_of(reference, mask)
    lowest, highest = float(mask.min()), float(mask.max())
    if not (lowest >= -SUM_TOLERANCE and highest <= 1 + SUM_TOLERANCE):  # NaN fails both
        raise ValueError(
            f"mask {name} has values from {lowest:g} to {highest:g}; fractions of 0..1 are expected. Usual cause: a "
            "map stored as 0..255 or in percent, NaN outside the head, or a label map given as masks. Remedy: divide "
            "it by its maximum, replace NaN by 0."
        )
    return mask.clip(0, 1) if lowest < 0 or highest > 1 else mask


def _rest(volumes: Sequence[Any], xp: Any, what: str) -> Any | None:
    """What masks leave over of one, or None if nothing.

    Raises:
        ValueError: they add up to more than one.
    """
    total = sum(volumes[1:], start=volumes[0])
    largest = float(total.max())
    if largest > 1 + SUM_TOLERANCE:
        n_over = int((total > 1 + SUM_TOLERANCE).sum())
        raise ValueError(
            f"the {what} overlap: in {n_over} voxels they add up to more than one, to {largest:.3f} at most. Usual "
            "cause: maps smoothed or resampled one by one, a whole-brain mask beside its parts, or an atlas laid over "
            "tissue maps. Remedy: divide each by their sum where it exceeds one; for parcels over tissue maps use "
            "Regions.from_parcels (--parcels)."
        )
    rest = (1 - total).clip(0)
    return rest if float(rest.max()) > SUM_TOLERANCE else None
