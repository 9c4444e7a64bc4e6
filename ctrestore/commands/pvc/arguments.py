"""The arguments of ``ctrestore pvc`` and of ``petpvc``: PETPVC's names and defaults, and what goes beyond it."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ctrestore.commands.pvc.defaults import DEFAULT_ALPHA, DEFAULT_STOP

# The methods by what they need; a test compares them with ctrestore.pvc, which takes half a second to import.
METHODS = {
    "means of regions": "GTM LABBE",
    "regions": "RBV LABBE+RBV MTC LABBE+MTC STC IY",
    "grey matter first, white matter second": "MG mMG",
    "the brain": "MELTZER",
    "no masks": "RL VC",
    "deconvolved afterwards": "RBV+VC RBV+RL LABBE+RBV+VC LABBE+RBV+RL MTC+VC MTC+RL LABBE+MTC+VC LABBE+MTC+RL "
    "IY+VC IY+RL MG+VC MG+RL",
}
_EPILOG = "methods:\n" + "\n".join(f"  {needs}:\n    {names}" for needs, names in METHODS.items())


def add_pvc(commands: Any) -> None:
    """``ctrestore pvc``: correct a PET with the help of an MRI's masks."""
    parser = commands.add_parser(
        "pvc",
        help="classical partial volume correction of a PET with masks from an MRI",
        description="Correct a PET, static or dynamic, with every published method. Argument names are PETPVC's. -o "
        "is a NIfTI, a table (.tsv, .txt or .csv, for GTM and LABBE), or a folder: then the file gets its name in BIDS "
        "derivatives. Beside it goes a JSON sidecar with all settings and results.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_arguments(parser, kernel="exact", convention="concentration")
    parser.set_defaults(run=run_pvc, drop_in=False)


def petpvc_arguments(parser: argparse.ArgumentParser) -> None:
    """``petpvc``: the same in the place of UCL PETPVC, whose kernel, convention and text tables it keeps."""
    parser.epilog = _EPILOG
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
    parser.add_argument("-n", "--iter", type=int, default=10, metavar="N", help="iterations of IY and STC (10)")
    parser.add_argument("-k", type=int, default=10, metavar="N", help="iterations of RL and VC (10)")
    parser.add_argument(
        "-a", "--alpha", type=float, action="append", metavar="STEP", help=f"step of VC ({DEFAULT_ALPHA})"
    )
    parser.add_argument("-s", "--stop", type=float, metavar="CHANGE", help=f"VC stops below it ({DEFAULT_STOP})")
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
        help="what a voxel of MG and mMG holds: the grey matter's concentration, or that times its fraction "
        f"(default: {convention})",
    )
    parser.add_argument(
        "--white-value",
        type=float,
        metavar="VALUE",
        help="white matter in MG (default: the mean deep in it)",
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
