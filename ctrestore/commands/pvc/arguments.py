"""The arguments of ``ctrestore pvc`` and of ``petpvc``: PETPVC's names and defaults, and what goes beyond it."""

from __future__ import annotations

import argparse
import textwrap
from pathlib import Path
from typing import Any

from ctrestore.commands.pvc.defaults import DEFAULT_ALPHA, DEFAULT_STOP
from ctrestore.pvc_methods import CHAINS, TABLES, taking

_NEEDS = {
    "regions": "regions",
    "tissues": "grey matter first, white matter second",
    "brain": "the brain",
    "none": "no masks",
}


def _methods() -> str:
    """The methods by what they give and need, one line for each row of the table, as the help ends."""
    plain = [chain for chain in CHAINS.values() if chain.then is None]
    groups = {"means of regions": [chain for chain in plain if chain.row.gives == "means"]}
    for masks, needs in _NEEDS.items():
        groups[needs] = [chain for chain in plain if chain.row.masks == masks and chain.row.gives != "means"]
    lines = ["methods:"]
    for needs, listed in groups.items():
        lines += [f"  {needs}:", *(f"    {chain.name:<9}  {chain.help}" for chain in listed)]
    deconvolved = ", ".join(name for name, chain in CHAINS.items() if chain.then is not None)
    indent = " " * 4
    names = textwrap.fill(
        deconvolved, width=80, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False
    )
    return "\n".join([*lines, "  deconvolved afterwards:", names])


def add_pvc(commands: Any) -> None:
    """``ctrestore pvc``: correct a PET with the help of an MRI's masks."""
    parser = commands.add_parser(
        "pvc",
        help="classical partial volume correction of a PET with masks from an MRI",
        description="Correct a PET, static or dynamic, with every published method. Argument names are PETPVC's. -o "
        f"is a NIfTI, a table (.tsv, .txt or .csv, for {' and '.join(TABLES)}), or a folder: then the file gets its "
        "name in BIDS derivatives. Beside it goes a JSON sidecar with all settings and results.",
        epilog=_methods(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_arguments(parser, kernel="exact", convention="concentration")
    parser.set_defaults(run=run_pvc, drop_in=False)


def petpvc_arguments(parser: argparse.ArgumentParser) -> None:
    """``petpvc``: the same in the place of UCL PETPVC, whose kernel, convention and text tables it keeps."""
    parser.epilog = _methods()
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    _add_arguments(parser, kernel="itk", convention="fraction")
    parser.set_defaults(run=run_pvc, drop_in=True)


def run_pvc(args: argparse.Namespace) -> None:
    """Correct and write."""
    from ctrestore.commands.pvc.running import run

    run(args)


def _add_arguments(parser: argparse.ArgumentParser, *, kernel: str, convention: str) -> None:
    parser.add_argument("-i", "--input", type=Path, required=True, metavar="PET", help="NIfTI, 3-D or 4-D (frames)")
    parser.add_argument("-o", "--output", type=str, required=True, metavar="OUT", help="the file or folder to write")
    parser.add_argument(
        "-m",
        "--mask",
        type=Path,
        nargs="+",
        metavar="MASKS",
        help="a 4-D NIfTI with a mask a region, a 3-D label map, or several 3-D masks: grey, white, csf ...; what they "
        "leave becomes a region of its own, the background",
    )
    parser.add_argument("-p", "--pvc", required=True, metavar="METHOD", help="one of those below")
    for axis, which in zip("xyz", ("first", "second", "third")):
        parser.add_argument(
            f"-{axis}",
            type=float,
            metavar="MM",
            help=f"FWHM of the PET along the image's {which} axis (default: the PET's sidecar, FWHM_x, FWHM_y, FWHM_z)",
        )
    parser.add_argument(
        "-n", "--iter", type=int, default=10, metavar="N", help=f"iterations of {taking('n_iterations')} (10)"
    )
    parser.add_argument(
        "-k", type=int, default=10, metavar="N", help=f"iterations of {taking('n_deconvolutions')} (10)"
    )
    parser.add_argument(
        "-a",
        "--alpha",
        type=float,
        action="append",
        metavar="STEP",
        help=f"step of {taking('alpha')} ({DEFAULT_ALPHA})",
    )
    parser.add_argument(
        "-s", "--stop", type=float, metavar="CHANGE", help=f"{taking('stop')} stops below it ({DEFAULT_STOP})"
    )
    parser.add_argument("-d", "--debug", action="store_true", help="print the region table, and where an error arose")
    parser.add_argument(
        "--kernel",
        choices=("exact", "itk"),
        default=kernel,
        help=f"the true PSF, or PETPVC's, which is 2 %% narrower than asked for (default: {kernel})",
    )
    parser.add_argument(
        "--convention",
        choices=("concentration", "fraction"),
        default=convention,
        help=f"what a voxel of {taking('convention')} holds: the grey matter's concentration, or that times its "
        f"fraction (default: {convention})",
    )
    parser.add_argument(
        "--white-value",
        type=float,
        metavar="VALUE",
        help=f"white matter in {taking('white_value')} (default: the mean deep in it)",
    )
    parser.add_argument(
        "--parcels",
        type=Path,
        metavar="LABELS",
        help="label map that parts grey matter, the first of MASKS",
    )
    parser.add_argument(
        "--lut",
        type=Path,
        metavar="FILE",
        help="names of the labels: TSV with columns index and name, or FreeSurfer's text (default: the .tsv beside)",
    )
    parser.add_argument("--resample-masks", action="store_true", help="bring masks on another grid to that of the PET")
    parser.add_argument("--table", type=Path, metavar="FILE", help="write volume, means and SUVR of the regions")
    parser.add_argument(
        "--reference-region", nargs="+", metavar="NAME", help="the region or regions that SUVR refers to"
    )
    parser.add_argument("--device", metavar="DEVICE", help="compute with torch on cuda or cpu (default: numpy)")
