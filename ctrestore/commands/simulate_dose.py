"""``ctrestore simulate-dose``: CT scans as a fraction of their dose would have shown them, file to file."""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # --help answers before numpy is loaded
    import numpy as np

from ctrestore.errors import InputError, ScansFailed

NIFTI = (".nii", ".nii.gz")


def add_simulate_dose(commands: Any) -> None:
    """``ctrestore simulate-dose IN OUT --dose 0.25``."""
    parser = commands.add_parser(
        "simulate-dose",
        help="CT scans as a fraction of their dose would have shown them",
        description="Add the noise that a lower dose would have added: drawn in the projections, reconstructed, and "
        "added to the scan, whose own kernel and resolution stay. IN is a NIfTI file in HU, a folder of them, or a "
        "folder with a DICOM series; OUT is a file, a folder, or a new folder for the derived series.",
    )
    parser.add_argument("input", type=Path, metavar="IN")
    parser.add_argument("output", type=Path, metavar="OUT")
    parser.add_argument("--dose", type=float, required=True, metavar="FRACTION", help="above 0, at most 1")
    parser.add_argument(
        "--photons",
        type=float,
        metavar="N",
        help="photons a ray at full dose (default: 2e5, with which a quarter of the dose of a body of common size adds "
        "about 26 HU in soft tissue; give more for a larger one)",
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="the same seed gives the same noise (0)")
    parser.add_argument("--series", metavar="UID", help="SeriesInstanceUID, where a folder holds several series")
    parser.set_defaults(run=run_simulate_dose)


def run_simulate_dose(args: argparse.Namespace) -> None:
    """Simulate every scan of the input.

    Raises:
        InputError: what a user can mend, with the file and the remedy.
        ScansFailed: some files, each with its reason; the others are finished first.
    """
    from ctrestore.ct.degrade import check_dose_fraction
    from ctrestore.ct.low_dose import PHOTONS_PER_RAY
    from ctrestore.io.scan_by_scan import for_each_scan

    check_dose_fraction(args.dose)
    source, photons = args.input, args.photons or PHOTONS_PER_RAY
    if not source.exists():
        raise InputError(
            f"{source}: no such file or folder. Remedy: a NIfTI file, a folder of them, or a DICOM series."
        )
    niftis = [source] if source.is_file() else sorted(p for p in source.iterdir() if p.name.endswith(NIFTI))
    options: dict[str, Any] = {"dose_fraction": args.dose, "photons_per_ray": photons, "seed": args.seed}
    if source.is_file() and not source.name.endswith(NIFTI):
        raise InputError(f"{source}: expected a NIfTI file (.nii, .nii.gz). Remedy: for DICOM, name its folder.")
    if not niftis:
        _series(source, args.output, args.series, options)
        return
    to_file = source.is_file() and args.output.name.endswith(NIFTI)

    def simulate(path: Path) -> None:
        target = args.output if to_file else args.output / path.name
        if target.resolve() == path.resolve():
            raise InputError("it would be overwritten. Remedy: another OUT.")
        _nifti(path, target, options)

    _, failed = for_each_scan([(str(path), path) for path in niftis], simulate)  # each file shows its slices
    if failed:
        raise ScansFailed("simulated", failed)


class AddedNoise:
    """Standard deviation of what was added to soft tissue, over all slices so far."""

    def __init__(self) -> None:
        self.n, self.sum_of_squares = 0, 0.0

    def count(self, before: np.ndarray, after: np.ndarray) -> None:
        """Take a slice ``(y, x)`` in HU into account."""
        import numpy as np

        soft = (before > -100) & (before < 200)
        self.n += int(soft.sum())
        self.sum_of_squares += float(np.square(after[soft] - before[soft], dtype=np.float64).sum())

    def __str__(self) -> str:
        if not self.n:
            return "no soft tissue (-100 to 200 HU) to measure the noise in"
        return f"added in soft tissue (-100 to 200 HU): {math.sqrt(self.sum_of_squares / self.n):.1f} HU"


def low_dose_slices(
    slices: Iterable[tuple[np.ndarray, np.ndarray | None]],
    added: AddedNoise,
    *,
    spacing_mm: tuple[float, float],
    dose_fraction: float,
    photons_per_ray: float,
    seed: int,
) -> Iterator[np.ndarray]:
    """Slices ``(y, x)`` in HU at a fraction of their dose, one after the other.

    Args:
        slices: each with the mask of its padding, or None.
        added: counts the noise.
        spacing_mm: pixel size (y, x).
        dose_fraction: above 0 and at most 1.
        photons_per_ray: at full dose.
        seed: slice k draws from (seed, k), so that a slice has the same noise however many follow.
    """
    import numpy as np

    from ctrestore.ct.low_dose import simulate_low_dose

    for k, (hu, padding) in enumerate(slices):
        noisy = simulate_low_dose(
            hu,
            dose_fraction=dose_fraction,
            spacing_mm=spacing_mm,
            seed=np.random.default_rng([seed, k]),
            photons_per_ray=photons_per_ray,
            padding=padding,
        )
        added.count(hu, noisy)
        yield noisy


def _nifti(path: Path, target: Path, options: dict[str, Any]) -> None:
    """One volume ``(x, y, z)``; its axial slices are those across the axis nearest to the patient's length."""
    import nibabel as nib
    import numpy as np
    from nibabel.affines import voxel_sizes
    from tqdm import tqdm

    from ctrestore.ct import check_has_air
    from ctrestore.io import marks
    from ctrestore.io.grid import read_grid
    from ctrestore.io.nifti import check_header, read_voxels, write_like

    grid = read_grid(path)
    if len(grid.shape) != 3:
        raise InputError(f"expected a volume (x, y, z), found shape {grid.shape}. Remedy: one file a volume.")
    check_header(path)
    along = int(np.flatnonzero(nib.io_orientation(grid.affine)[:, 0] == 2)[0])
    sizes = np.delete(voxel_sizes(grid.affine), along)
    # Slices first, whichever way the file stores their axes: the noise knows neither left nor front.
    volume = np.moveaxis(read_voxels(path).astype(np.float32), along, 0)
    check_has_air(volume)
    added, slices = AddedNoise(), ((hu, None) for hu in tqdm(volume, desc=path.name, unit="slice"))
    noisy = np.stack(list(low_dose_slices(slices, added, spacing_mm=(float(sizes[0]), float(sizes[1])), **options)))
    mark = marks.simulated_dose(options["dose_fraction"])
    write_like(path, np.moveaxis(noisy, 0, along), target, description=mark)
    print(f"{added}: {target}")


def _series(folder: Path, target: Path, series_uid: str | None, options: dict[str, Any]) -> None:
    """A DICOM series, slice by slice: no more than a few are in memory."""
    from tqdm import tqdm

    from ctrestore.io import marks
    from ctrestore.io.dicom import open_series, write_derived_series

    series = open_series(folder, series_uid, modality="CT")
    added = AddedNoise()
    slices = tqdm(series, total=len(series), desc=str(folder), unit="slice")
    x_mm, y_mm, _ = series.spacing_mm
    done = marks.simulated_dose_series(options["dose_fraction"])
    written = write_derived_series(
        low_dose_slices(slices, added, spacing_mm=(y_mm, x_mm), **options),
        series,
        target,
        description=done.description,
        model=done.model,
        version=done.version,
    )
    print(f"{added}\n{len(written.paths)} slices, {written.n_clipped} values clipped: {target}")
