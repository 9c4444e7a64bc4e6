"""``ctrestore pvc``, from its arguments to the files."""

from __future__ import annotations

import argparse
import difflib
import sys
from pathlib import Path
from typing import Any

import numpy as np
from nibabel.affines import voxel_sizes

from ctrestore.commands.pvc.defaults import DEFAULT_ALPHA, DEFAULT_STOP
from ctrestore.commands.pvc.frames import Settings, correct_frames
from ctrestore.commands.pvc.masks import on, read_regions
from ctrestore.commands.pvc.region_tables import reference_regions, write_petpvc_table, write_table
from ctrestore.commands.pvc.result import Result
from ctrestore.errors import InputError
from ctrestore.io import marks
from ctrestore.io.bids import Outputs, describe_dataset, drop_in_outputs, planned_outputs, sources
from ctrestore.io.grid import Grid, read_grid
from ctrestore.io.nifti import (
    check_header,
    fwhm_from_sidecar,
    fwhm_of_array_axes,
    read_sidecar,
    read_voxels,
    sidecar_of,
    write_like,
)
from ctrestore.io.whole import write_json
from ctrestore.pvc import Regions
from ctrestore.pvc_methods import CHAINS, METHODS, TABLES, WITHOUT_REGIONS, taking


def run(args: argparse.Namespace) -> None:
    """Correct the PET and write image, table and sidecar; say what was done.

    Raises:
        InputError: anything a user can mend, with the file and the remedy.
    """
    method = checked_method(args.pvc)
    masks = args.mask or []
    inputs = [args.input, *masks, *(path for path in (args.parcels, args.lut) if path is not None)]
    _check_arguments(method, args)
    if args.drop_in:
        outputs = drop_in_outputs(args.output, method=method, table=args.table)
    else:
        outputs = planned_outputs(args.output, pet=args.input, method=method, table=args.table, has_regions=bool(masks))
    if args.reference_region and outputs.table is None:
        raise InputError("--reference-region needs a table for its SUVR. Remedy: --table FILE.")
    grid = _checked_pet(args.input)
    settings = _settings(args, method, grid)
    outputs.check(inputs)
    if args.device is not None:
        on(args.device, np.zeros(1, np.float32))  # an unknown device is said before the files are read

    _say_what(args.input, grid, settings)
    regions = None
    if masks:
        regions = read_regions(
            masks,
            pet=args.input,
            fwhm_mm=settings.fwhm_mm,
            parcels=args.parcels,
            lut=args.lut,
            resample=args.resample_masks,
            device=args.device,
        )
        reference_regions(regions.names, args.reference_region or [])  # before the work
        _say_regions(masks, regions)
    voxels = read_voxels(args.input)
    frames = correct_frames(args.input, voxels, regions, settings)
    result = Result(
        pet=args.input,
        inputs=[args.input, *masks, *([] if args.parcels is None else [args.parcels])],
        grid=grid,
        settings=settings,
        regions=regions,
        frames=frames,
    )
    rows = result.table(args.reference_region or [])
    if args.debug:
        for row in rows:
            print("  " + "  ".join(v if isinstance(v, str) else f"{v:.6g}" for v in row.values()))
    _write(result, outputs, rows, voxels, command_line=args.command_line)


def checked_method(name: str) -> str:
    """The method's name as we write it; upper and lower case do not matter.

    Raises:
        InputError: there is no such method; all are listed.
    """
    for method in METHODS:
        if method.lower() == name.strip().lower():
            return method
    close = difflib.get_close_matches(name.upper(), METHODS, n=1)
    meant = f" Did you mean {close[0]}?" if close else ""
    raise InputError(f"unknown method {name!r}.{meant} Methods: {', '.join(METHODS)}.")


def _check_arguments(method: str, args: argparse.Namespace) -> None:
    """Refuse a method without the masks it needs, and arguments that would do nothing."""
    if args.white_value is not None and "white_value" not in CHAINS[method].options:
        raise InputError(
            f"--white-value is for {taking('white_value')}; {method} does not use it. Remedy: leave it out."
        )
    if args.mask:
        return
    if method not in WITHOUT_REGIONS:
        raise InputError(
            f"{method} needs masks on the grid of the PET: -m MASKS (a 4-D NIfTI, a label map, or several 3-D masks). "
            f"Without an MRI use {' or '.join(WITHOUT_REGIONS)}."
        )
    for name in ("table", "parcels", "lut", "reference_region"):
        if getattr(args, name) is not None:
            raise InputError(f"--{name.replace('_', '-')} needs regions: add -m MASKS.")


def _checked_pet(pet: Path) -> Grid:
    """The PET's grid, if it is a sound NIfTI with three axes or four."""
    grid = read_grid(pet)
    if len(grid.shape) > 4:
        raise InputError(f"{pet}: expected a PET (x, y, z) or (x, y, z, frame), found shape {grid.shape}.")
    try:
        check_header(pet)
    except ValueError as error:
        raise InputError(f"{pet}: {error}") from error
    return grid


def _settings(args: argparse.Namespace, method: str, grid: Grid) -> Settings:
    spacing_mm = tuple(float(size) for size in voxel_sizes(grid.affine))
    alpha, stop = alpha_and_stop(args.alpha or [], args.stop)
    for name, value in {"-n": args.iter, "-k": args.k}.items():
        if value < 1:
            raise InputError(f"{name} must be 1 or more; got {value}.")
    return Settings(
        method=method,
        fwhm_mm=fwhm(args.input, (args.x, args.y, args.z), grid=grid, spacing_mm=spacing_mm),
        spacing_mm=spacing_mm,
        kernel=args.kernel,
        n_iterations=args.iter,
        n_deconvolutions=args.k,
        alpha=alpha,
        stop=stop,
        convention=args.convention,
        white_value=args.white_value,
        device=args.device,
    )


def alpha_and_stop(alphas: list[float], stop: float | None) -> tuple[float, float]:
    """Step and stopping change of Van Cittert.

    nipype up to 1.10 writes its stopping criterion as a second ``-a``: ``-a 1.5 ... -a 0.01``. PETPVC takes the last
    one, a step of 0.01, which corrects next to nothing; here the first is the step and the second what nipype means.

    Raises:
        InputError: a value is not positive, or -a was given twice beside -s, or more often.
    """
    if len(alphas) == 2 and stop is None:
        print(
            f"warning: -a was given twice, as nipype up to 1.10 does by mistake; {alphas[0]:g} is taken for the step "
            f"and {alphas[1]:g} for the stopping criterion (-s)",
            file=sys.stderr,
        )
        alphas, stop = alphas[:1], alphas[1]
    if len(alphas) > 1:
        raise InputError(f"-a was given {len(alphas)} times. Remedy: give the step once, and the stop with -s.")
    alpha, stop = (alphas or [DEFAULT_ALPHA])[0], DEFAULT_STOP if stop is None else stop
    if not alpha > 0 or not stop >= 0:
        raise InputError(f"-a must be above 0 and -s not negative; got {alpha:g} and {stop:g}.")
    return alpha, stop


def fwhm(pet: Path, given: tuple[float | None, ...], *, grid: Grid, spacing_mm: tuple[float, ...]) -> tuple[float, ...]:
    """FWHM in mm along the array's axes: as given, else from the PET's sidecar, whose axes are the patient's.

    Raises:
        InputError: it is unknown, not positive, or below a voxel along every axis, as if it were given in voxels.
    """
    widths = tuple(width for width in given if width is not None)
    remedy = "Remedy: the resolution of the PET images in mm, -x 6 -y 6 -z 6."
    if not widths:
        if "FWHM_x" not in read_sidecar(pet):
            raise InputError(
                f"{pet}: the FWHM of its PSF is neither given nor in a sidecar (FWHM_x, FWHM_y, FWHM_z in "
                f"{sidecar_of(pet).name}). {remedy}"
            )
        widths, source = fwhm_of_array_axes(fwhm_from_sidecar(pet), grid.affine), f"{sidecar_of(pet)}: "
    elif len(widths) < 3:
        missing = [f"-{axis}" for axis, width in zip("xyz", given) if width is None]
        raise InputError(f"the FWHM needs all of -x, -y and -z; missing: {', '.join(missing)}. {remedy}")
    else:
        source = ""
    shown = " x ".join(f"{width:g}" for width in widths)
    if not all(np.isfinite(widths)) or min(widths) <= 0:
        raise InputError(f"{source}the FWHM must be above 0 mm along every axis; got {shown}. {remedy}")
    if all(width < size for width, size in zip(widths, spacing_mm)):
        voxels = " x ".join(f"{size:.3g}" for size in spacing_mm)
        raise InputError(
            f"{source}an FWHM of {shown} mm is smaller than the voxels ({voxels} mm), which no scanner's is. Usual "
            f"cause: it is given in voxels. {remedy}"
        )
    return widths


def _write(
    result: Result, outputs: Outputs, rows: list[dict[str, Any]], voxels: np.ndarray, *, command_line: str
) -> None:
    """The files, each whole or not at all, the image last: where it is, all is."""
    method = result.settings.method
    measured = [frame.residual for frame in result.frames if frame.residual is not None]
    if measured:
        print(f"residual: blurred again, the corrected image differs from the PET by {np.mean(measured):.2%}")
    if outputs.petpvc_table is not None:
        write_petpvc_table(result.frames, outputs.petpvc_table)
    if outputs.table is not None:
        write_table(rows, outputs.table)
    if outputs.sidecar is not None:
        listed, links = sources(result.inputs, outputs)
        if outputs.dataset is not None:
            describe_dataset(outputs.dataset, links)
        write_json(result.sidecar(command_line) | {"Sources": listed}, outputs.sidecar)
    if outputs.image is not None:
        if method in TABLES:
            print(f"{method} gives a mean a region; {outputs.image.name} holds the means painted into the regions")
        mark = marks.corrected_by(method)
        write_like(result.pet, voxels, outputs.image, description=mark, nothing_repeats=method not in TABLES)
    written = [outputs.image, outputs.petpvc_table, outputs.table, outputs.sidecar]
    print("written: " + " ".join(str(path) for path in written if path is not None))


def _say_what(pet: Path, grid: Grid, settings: Settings) -> None:
    shape, sizes, widths = (
        " x ".join(f"{v:.4g}" for v in numbers) for numbers in (grid.shape, settings.spacing_mm, settings.fwhm_mm)
    )
    print(f"{pet}: {shape} voxels of {sizes} mm; {settings.method}, FWHM {widths} mm, kernel {settings.kernel}")


def _say_regions(masks: list[Path], regions: Regions) -> None:
    added = ""
    if regions.background_added:
        background = float(np.asarray(regions.totals(), dtype=float)[-1])
        share = background / float(np.sum(np.asarray(regions.totals(), dtype=float)))
        added = f", one of them added: the background, {share:.1%} of the volume, which the masks leave"
    print(f"{', '.join(map(str, masks))}: {len(regions)} regions{added}", flush=True)
