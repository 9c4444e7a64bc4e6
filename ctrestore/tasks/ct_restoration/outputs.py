"""A scan and the place of its restored twin, which takes restored slices and has the form of the scan.

The restored slices may be a whole number of times as fine (:attr:`How.scale`): so many pixels along both axes take the
place of one, within the same outline. They are ``(x, y)`` as :mod:`ctrestore.io.ct_scan` gives them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from types import TracebackType
from typing import Any

import nibabel as nib
import numpy as np
from PIL import Image

from ctrestore.ct.hounsfield import hu_to_stored
from ctrestore.ct.resolution import finer_affine, pixels_as_blocks
from ctrestore.errors import InputError
from ctrestore.io import marks
from ctrestore.io.ct_scan import DicomScan, NiftiAsShown, PictureScan, Scan
from ctrestore.io.dicom import DerivedSeries
from ctrestore.io.nifti import write_nifti
from ctrestore.io.whole import written_whole
from ctrestore.networks.interpolation import REACH_PIXELS, phase_weights


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


class Restorable:
    """A scan, its name for messages, and the place of its output.

    Args:
        scan: what is restored.
        target: file or folder of the output.
        name: of the scan; by default its path.
    """

    def __init__(self, scan: Scan, target: Path, name: str = "") -> None:
        self.scan, self.target, self.name = scan, target, name or str(scan.path)

    def output(self, how: How) -> Output:
        """The output, of the scan's own kind, to be filled with the restored slices in order."""
        if isinstance(self.scan, DicomScan):
            return _SeriesOutput(self.scan, self.target, how)
        if isinstance(self.scan, NiftiAsShown):
            return _NiftiOutput(self.scan, self.target, how)
        if isinstance(self.scan, PictureScan):
            return _PictureOutput(self.scan, self.target, how.scale)
        raise TypeError(f"{self}: nothing is written like a {type(self.scan).__name__}.")

    def __str__(self) -> str:
        return self.name


class _SeriesOutput(Output):
    def __init__(self, scan: DicomScan, target: Path, how: How) -> None:
        self.derived = DerivedSeries(
            scan.series, target, description=how.description, model=how.model, version=how.version,
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


class _NiftiOutput(Output):
    """Slice by slice in memory, in the type of the file, and written at the end."""

    def __init__(self, scan: NiftiAsShown, target: Path, how: How) -> None:
        self.scan, self.target, self.how, self.k = scan, target, how, 0
        # voxels that take the place of one along the axes of the file
        self.factors = tuple(how.through_plane if int(new) == 2 else how.scale for new in scan.turns[:, 0])
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
        _check_complete(self.k, str(scan.path), self.how.through_plane * scan.shape[2])
        shape = (*self.volume.shape[: len(scan.file_shape)], *scan.file_shape[3:])
        header, affine = scan.header, scan.file_affine
        if max(self.factors) > 1:
            header = _finer_header(header, shape, self.factors)
            affine = header.get_best_affine()
        image = nib.Nifti1Image(self.volume.reshape(shape), affine, header)
        image.header.set_slope_inter(scan.slope, scan.intercept)  # what is said, nibabel does not choose itself
        write_nifti(image, self.target, description=self.how.in_nifti)


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


def _check_complete(n: int, name: str, expected: int) -> None:
    if n != expected:
        raise InputError(f"{name}: expected {expected} slices, got {n}.")


class BetweenSlices(Output):
    """Slices interpolated through the plane before they go to an output: so many of them take the place of one.

    Lanczos of three slices to each side, continued beyond the first and the last by their values; the slices lie as
    pixels do, within the outline of the one they take the place of. No detail is gained.

    Args:
        restorable: whose slices are given.
        output: takes ``how.through_plane`` slices for each of them.
        how: what restored the scan.

    Raises:
        InputError: there is one slice alone.
    """

    def __init__(self, restorable: Restorable, output: Output, how: How) -> None:
        if restorable.scan.shape[2] < 2:
            raise InputError(
                f"{restorable}: one slice has none beside it to interpolate to. Remedy: a series, or leave the option "
                "out."
            )
        self.scan, self.name, self.output, self.how = restorable.scan, str(restorable), output, how
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
        _check_complete(self.n, self.name, self.scan.shape[2])
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


class _PictureOutput(Output):
    """Grey values by the same window. Black and white stay: what lies beyond the window is not known.

    On a finer grid they do not, for a pixel at the edge of the lungs would become a block.
    """

    def __init__(self, scan: PictureScan, target: Path, scale: int = 1) -> None:
        self.scan, self.target, self.scale = scan, target, scale
        self.picture: np.ndarray | None = None

    def add(self, hu: np.ndarray) -> np.ndarray:
        before, _ = self._grey(self.scan.slice_hu(0))
        restored, self.n_clipped = self._grey(hu)
        saturated = (before == 0) | (before == self.scan.white)
        if self.scale > 1:
            self.picture = restored.T
            return pixels_as_blocks(saturated, factors=(self.scale, self.scale))
        self.picture = np.where(saturated, before, restored).T
        return saturated

    def _grey(self, hu: np.ndarray) -> tuple[np.ndarray, int]:
        (black_hu, white_hu), white = self.scan.range_hu, self.scan.white
        dtype = np.uint8 if white == 255 else np.uint16
        return hu_to_stored(hu, slope=(white_hu - black_hu) / white, intercept=black_hu, dtype=dtype)

    def finish(self) -> None:
        _check_complete(int(self.picture is not None), str(self.scan.path), 1)
        with written_whole(self.target) as draft:
            Image.fromarray(np.ascontiguousarray(self.picture)).save(draft)
