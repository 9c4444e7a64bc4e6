"""A scan and the place of its restored twin: slices in HU out of one, restored slices into the other.

The restored slices may be a whole number of times as fine (:attr:`How.scale`): so many pixels along both axes take the
place of one, within the same outline.

Slices are ``(x, y)`` as DICOM shows them, x to the patient's left (or back), y to the back (or the feet), so that a
network sees the same picture whichever way a file stores its axes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import zip_longest
from pathlib import Path
from types import TracebackType
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.affines import voxel_sizes
from PIL import Image

from ctrestore.ct.hounsfield import Window, check_has_air, hu_to_stored, stored_to_hu
from ctrestore.ct.resolution import finer_affine, pixels_as_blocks
from ctrestore.errors import InputError
from ctrestore.io import ct_scan as ct_slices
from ctrestore.io import marks
from ctrestore.io.dicom import DerivedSeries, SeriesOnDisk
from ctrestore.io.nifti import write_nifti
from ctrestore.io.whole import written_whole
from ctrestore.networks.interpolation import REACH_PIXELS, phase_weights

LOWEST_MEASURED_HU, AIR_HU = -1024.0, -1000.0


@dataclass(frozen=True)
class How(marks.Contribution):
    """What restored a scan, for the marks on its output, and how much finer it became.

    Args:
        scale: how many times finer its slices are than the scan's, along both of their axes.
        through_plane: how many slices take the place of one.
    """

    scale: int = 1
    through_plane: int = 1

    @property
    def factors(self) -> tuple[int, int]:
        """Pixels along x and y that take the place of one."""
        return self.scale, self.scale


class Output(ABC):
    """Where the restored slices of a scan go; a context manager that leaves the whole output or nothing.

    Where several slices take the place of one, these are what it takes, one after the other.
    """

    n_clipped = 0  # values that the type of the output could not hold

    @abstractmethod
    def add(self, hu: np.ndarray) -> np.ndarray:
        """Take the next slice, ``(x, y)``, and give the mask of its padding, where nothing was measured."""

    def __enter__(self) -> Output:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.finish()

    @abstractmethod
    def finish(self) -> None:
        """Put the output in its place."""


class Restorable(ABC):
    """A scan (as :class:`ctrestore.io.ct_scan.Scan`), its name for messages, and the place of its output.

    Args:
        path: of the scan.
        target: file or folder of the output.
        name: of the scan; by default its path.
    """

    def __init__(self, path: Path, target: Path, name: str = "") -> None:
        self.path, self.target, self.name = path, target, name or str(path)

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int, int]:
        """``(x, y, slices)``."""

    @property
    @abstractmethod
    def affine(self) -> np.ndarray:
        """Voxel ``(x, y, slice)`` to mm, RAS."""

    @abstractmethod
    def slice_hu(self, k: int) -> np.ndarray:
        """The k-th slice ``(x, y)``, float32 in HU; air where nothing was measured."""

    def padding_at(self, k: int) -> np.ndarray:
        """The mask ``(x, y)`` of where nothing was measured in the k-th slice."""
        return np.zeros(self.shape[:2], dtype=bool)

    @abstractmethod
    def output(self, how: How) -> Output:
        """The output, to be filled with the restored slices in order."""

    @property
    def restored_by(self) -> str:
        """What restored the scan before, by our own marks; empty: nothing did."""
        return ""

    def release(self) -> None:  # noqa: B027  (most have nothing to forget)
        """Forget the voxels."""

    def __str__(self) -> str:
        return self.name


class RestorableSeries(Restorable):
    """A CT series in DICOM. Its slices are the planes it was acquired or reformatted in."""

    def __init__(self, series: SeriesOnDisk, path: Path, target: Path, name: str = "") -> None:
        super().__init__(path, target, name)
        self.series = series

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.series.shape

    @property
    def affine(self) -> np.ndarray:
        return self.series.affine

    def slice_hu(self, k: int) -> np.ndarray:
        return self.series.slice_at(k)[0].T

    def padding_at(self, k: int) -> np.ndarray:
        return self.series.slice_at(k)[1].T

    @property
    def restored_by(self) -> str:
        return marks.restored_by_series(self.series.datasets[0])

    def output(self, how: How) -> Output:
        return _SeriesOutput(self, how)


class _SeriesOutput(Output):
    def __init__(self, scan: RestorableSeries, how: How) -> None:
        self.derived = DerivedSeries(
            scan.series, scan.target, description=how.description, model=how.model, version=how.version,
            weights_sha256=how.weights_sha256, finer=how.scale,
            through_plane=how.through_plane,
        )  # fmt: skip

    def __enter__(self) -> Output:
        self.derived.__enter__()
        return self

    def add(self, hu: np.ndarray) -> np.ndarray:
        padding = self.derived.add(hu.T)
        self.n_clipped = self.derived.n_clipped
        return padding.T

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.derived.__exit__(kind, error, trace)

    def finish(self) -> None:
        self.derived.__exit__(None, None, None)


def slice_axis(affine: np.ndarray) -> int:
    """The axis of an array that its slices follow each other along.

    Slices are the planes of square pixels, in which a scanner or a reformat made them; where the voxels are cubes, or
    nothing is square, the axial ones.

    >>> slice_axis(np.diag([0.7, 0.7, 5.0, 1.0])), slice_axis(np.diag([0.7, 3.0, 0.7, 1.0]))
    (2, 1)
    """
    sizes = voxel_sizes(affine)
    square = [axis for axis in range(3) if np.ptp(np.delete(sizes, axis)) <= 0.01 * max(sizes)]
    axial = int(np.flatnonzero(nib.io_orientation(affine)[:, 0] == 2)[0])
    return square[0] if len(square) == 1 else axial


def axes_as_shown(affine: np.ndarray) -> np.ndarray:
    """Axes of an array ``(x, y, slice)`` that shows its slices as DICOM does, as nibabel's orientation to get there.

    Row i: the axis that array axis i becomes, and 1 or -1 for its direction.
    """
    orientation, along = nib.io_orientation(affine), slice_axis(affine)
    x, y = sorted(np.delete(np.arange(3), along), key=lambda axis: orientation[axis, 0])
    to_get_there = np.ones((3, 2))
    for new, old in enumerate((int(x), int(y), along)):
        # to the left, the back and the feet: against RAS
        to_get_there[old] = new, -orientation[old, 1] if new < 2 else 1
    return to_get_there


class RestorableNifti(Restorable):
    """A NIfTI in HU. Its output has the header, except for the grid of finer slices, and the stored type of the source.

    Raises:
        InputError: it is no volume and no slice.
    """

    def __init__(self, path: Path, target: Path, name: str = "") -> None:
        super().__init__(path, target, name)
        image: Any = nib.load(path)
        self.header, self.file_affine, self.file_shape = image.header, np.asarray(image.affine), image.shape
        self.slope, self.intercept = float(image.dataobj.slope), float(image.dataobj.inter)
        shape = [*image.shape, 1] if len(image.shape) == 2 else list(image.shape)
        while len(shape) > 3 and shape[-1] == 1:
            shape.pop()
        if len(shape) != 3:
            raise InputError(
                f"expected a volume (x, y, z) or a slice (x, y), found shape {image.shape}. Remedy: one file a volume."
            )
        self.volume_shape = tuple(int(side) for side in shape)
        self.turns = axes_as_shown(self.file_affine)

    def as_shown(self, volume: np.ndarray) -> np.ndarray:
        """A view of an array as the file stores it, with its slices as DICOM shows them."""
        return nib.apply_orientation(volume, self.turns)

    @cached_property
    def stored(self) -> np.ndarray:
        """The values of the file; those of an uncompressed one are read from the disk as they are needed."""
        opened = ct_slices.open_scan(self.path)
        assert isinstance(opened, ct_slices.NiftiScan)
        limits = np.array([opened.stored.min(), opened.stored.max()])
        check_has_air(stored_to_hu(limits, slope=self.slope, intercept=self.intercept))
        return self.as_shown(opened.stored.reshape(self.volume_shape))

    @property
    def shape(self) -> tuple[int, int, int]:
        x, y, n = self.as_shown(np.broadcast_to(np.int8(0), self.volume_shape)).shape
        return x, y, n

    @property
    def affine(self) -> np.ndarray:
        return self.file_affine @ nib.orientations.inv_ornt_aff(self.turns, self.volume_shape)

    def slice_hu(self, k: int) -> np.ndarray:
        return self.hu_of(self.stored[..., k])[0]

    def padding_at(self, k: int) -> np.ndarray:
        return self.hu_of(self.stored[..., k])[1]

    def hu_of(self, stored: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """HU and padding of stored values; padding is what lies in a corner below any HU, as in DICOM."""
        hu = stored_to_hu(stored, slope=self.slope, intercept=self.intercept)
        padding = hu == hu[0, 0] if hu[0, 0] < LOWEST_MEASURED_HU else np.zeros(hu.shape, dtype=bool)
        return np.where(padding, np.float32(AIR_HU), hu), padding

    @property
    def restored_by(self) -> str:
        return marks.restored_by_nifti(self.header)

    def factors(self, how: How) -> tuple[int, int, int]:
        """Voxels that take the place of one along the axes of the file."""
        x, y, z = (how.through_plane if int(new) == 2 else how.scale for new in self.turns[:, 0])
        return x, y, z

    def output(self, how: How) -> Output:
        return _NiftiOutput(self, how)

    def release(self) -> None:
        self.__dict__.pop("stored", None)
        ct_slices.forget()


class _NiftiOutput(Output):
    """Slice by slice in memory, in the type of the file, and written at the end."""

    def __init__(self, scan: RestorableNifti, how: How) -> None:
        self.scan, self.how, self.k = scan, how, 0
        self.factors = scan.factors(how)
        shape = tuple(factor * side for factor, side in zip(self.factors, scan.volume_shape))
        self.volume = np.empty(shape, dtype=scan.header.get_data_dtype().newbyteorder("="))
        self.slices = scan.as_shown(self.volume)

    def add(self, hu: np.ndarray) -> np.ndarray:
        scan, stored = self.scan, self.scan.stored[..., self.k // self.how.through_plane]
        before, padding = scan.hu_of(stored)
        stored, before, padding = (
            pixels_as_blocks(values, factors=self.how.factors) for values in (stored, before, padding)
        )
        if stored.dtype.kind == "f":
            values = (hu.astype(np.float64) - scan.intercept) / scan.slope
        else:
            values, n_clipped = hu_to_stored(
                np.where(padding, before, hu), slope=scan.slope, intercept=scan.intercept, dtype=self.volume.dtype
            )
            self.n_clipped += n_clipped
        self.slices[..., self.k] = np.where(padding | (hu == before), stored, values)
        self.k += 1
        return padding

    def finish(self) -> None:
        scan = self.scan
        _check_complete(self.k, scan, self.how.through_plane)
        shape = (*self.volume.shape[: len(scan.file_shape)], *scan.file_shape[3:])
        header, affine = scan.header, scan.file_affine
        if max(self.factors) > 1:
            header = _finer_header(header, shape, self.factors)
            affine = header.get_best_affine()
        image = nib.Nifti1Image(self.volume.reshape(shape), affine, header)
        image.header.set_slope_inter(scan.slope, scan.intercept)  # what is said, nibabel does not choose itself
        write_nifti(image, scan.target, description=self.how.in_nifti)


def _finer_header(header: Any, shape: Sequence[int], factors: Sequence[int]) -> nib.Nifti1Header:
    """The header on the finer grid: its voxel sizes, and those of its affines that it knows."""
    finer = header.copy() if isinstance(header, nib.Nifti1Header) else nib.Nifti1Header.from_header(header)
    affines = {"sform": finer.get_sform(coded=True), "qform": finer.get_qform(coded=True)}
    zooms = finer.get_zooms()
    finer.set_data_shape(shape)
    finer.set_zooms([zoom / factor for zoom, factor in zip_longest(zooms, factors[: len(zooms)], fillvalue=1)])
    for kind, (affine, code) in affines.items():
        if affine is not None:
            getattr(finer, f"set_{kind}")(finer_affine(affine, factors=factors), int(code))
    return finer


def _check_complete(n: int, scan: Restorable, through_plane: int = 1) -> None:
    expected = through_plane * scan.shape[2]
    if n != expected:
        raise InputError(f"{scan}: expected {expected} slices, got {n}.")


class BetweenSlices(Output):
    """Slices interpolated through the plane before they go to an output: so many of them take the place of one.

    Lanczos of three slices to each side, continued beyond the first and the last by their values; the slices lie as
    pixels do, within the outline of the one they take the place of. No detail is gained.

    Args:
        scan: whose slices are given.
        output: takes ``how.through_plane`` slices for each of them.
        how: what restored the scan.

    Raises:
        InputError: there is one slice alone.
    """

    def __init__(self, scan: Restorable, output: Output, how: How) -> None:
        if scan.shape[2] < 2:
            raise InputError(
                f"{scan}: one slice has none beside it to interpolate to. Remedy: a series, or leave the option out."
            )
        self.scan, self.output, self.how = scan, output, how
        self.weights = phase_weights("lanczos", how.through_plane)
        self.reach = REACH_PIXELS["lanczos"]
        self.near: deque[np.ndarray] = deque(maxlen=2 * self.reach + 1)  # the slices around the next one
        self.n = 0

    def add(self, hu: np.ndarray) -> np.ndarray:
        if self.n == 0:
            self.near.extend([hu] * self.reach)
        self.near.append(hu)
        self.n += 1
        self._write()
        return pixels_as_blocks(self.scan.padding_at(self.n - 1), factors=self.how.factors)

    def _write(self) -> None:
        if len(self.near) < 2 * self.reach + 1:
            return
        for weights in self.weights:
            between = sum(np.float32(weight) * hu for weight, hu in zip(weights, self.near) if weight)
            self.output.add(np.asarray(between, dtype=np.float32))
        self.n_clipped = self.output.n_clipped

    def finish(self) -> None:
        _check_complete(self.n, self.scan)
        for _ in range(self.reach):
            self.near.append(self.near[-1])
            self._write()

    def __enter__(self) -> Output:
        self.output.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self.finish()
        except BaseException as failure:
            self.output.__exit__(type(failure), failure, failure.__traceback__)
            raise
        self.output.__exit__(kind, error, trace)


class RestorablePicture(Restorable):
    """A grey picture of a slice, whose window says what its grey values mean in HU. Its output is a PNG.

    Raises:
        InputError: it is no grey picture.
    """

    def __init__(self, path: Path, target: Path, window: Window, name: str = "") -> None:
        super().__init__(path, target, name)
        opened = ct_slices.open_scan(path, range_hu=window.range_hu)
        assert isinstance(opened, ct_slices.PictureScan)
        self.opened, (self.black_hu, self.white_hu) = opened, window.range_hu

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.opened.shape

    @property
    def affine(self) -> np.ndarray:
        return self.opened.affine

    def slice_hu(self, k: int) -> np.ndarray:
        return self.opened.slice_hu(k)

    def output(self, how: How) -> Output:
        return _PictureOutput(self, how.scale)


class _PictureOutput(Output):
    """Grey values by the same window. Black and white stay: what lies beyond the window is not known.

    On a finer grid they do not, for a pixel at the edge of the lungs would become a block.
    """

    def __init__(self, scan: RestorablePicture, scale: int = 1) -> None:
        self.scan, self.scale = scan, scale
        self.picture: np.ndarray | None = None

    def add(self, hu: np.ndarray) -> np.ndarray:
        before, _ = self._grey(self.scan.slice_hu(0))
        restored, self.n_clipped = self._grey(hu)
        saturated = (before == 0) | (before == self.scan.opened.white)
        if self.scale > 1:
            self.picture = restored.T
            return pixels_as_blocks(saturated, factors=(self.scale, self.scale))
        self.picture = np.where(saturated, before, restored).T
        return saturated

    def _grey(self, hu: np.ndarray) -> tuple[np.ndarray, int]:
        white = self.scan.opened.white
        step = (self.scan.white_hu - self.scan.black_hu) / white
        dtype = np.uint8 if white == 255 else np.uint16
        return hu_to_stored(hu, slope=step, intercept=self.scan.black_hu, dtype=dtype)

    def finish(self) -> None:
        _check_complete(int(self.picture is not None), self.scan)
        with written_whole(self.scan.target) as draft:
            Image.fromarray(np.ascontiguousarray(self.picture)).save(draft)
