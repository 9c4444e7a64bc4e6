"""``ctrestore phantoms``: write the embedded PET or CT phantoms and the list of their files."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from ctrestore.errors import InputError


def add_phantoms(commands: Any) -> None:
    """``ctrestore phantoms``: write the embedded PET or CT phantoms and the list of their files."""
    parser = commands.add_parser(
        "phantoms",
        help="write the PET or CT phantoms that the bundles use by default",
        description="Write phantoms with known truth as a BIDS-like folder: brain PET (about 10 s a subject and core, "
        "30 MB each), chest and abdominal CT in HU with labels (about 2 s and 3 MB each), or single chest slices in "
        "four classes that differ by the tumour (ct-lung, 0.7 s each). Subjects that are already there are kept, so an "
        "interrupted run goes on. The same numbers of subjects always give the same voxels.",
    )
    parser.add_argument(
        "kind", nargs="?", choices=PHANTOM_KINDS, default="brain-pet", help="what to write (default: brain-pet)"
    )
    parser.add_argument("-o", "--output", type=Path, metavar="DIR", help="folder for the phantoms")
    parser.add_argument("--list", type=Path, metavar="FILE", help="write the data list too, or alone without --output")
    for section, (subjects, what) in PHANTOMS.items():
        parser.add_argument(
            f"--{section}",
            type=_count,
            default=subjects,
            metavar="N",
            help=f"subjects {what} (default: {subjects})",
        )
    parser.add_argument(
        "--processes",
        type=_count,
        metavar="N",
        help="at once, 1 GB of memory each for brain PET (default: one a core, at most 8)",
    )
    parser.add_argument("--slices", type=_count, default=8, metavar="N", help="slices of a CT (default: 8)")
    parser.add_argument("--dicom", action="store_true", help="write CT as DICOM series instead of NIfTI")
    parser.add_argument("--force", action="store_true", help="replace FILE if it exists and differs")
    parser.set_defaults(run=run_phantoms)


PHANTOM_KINDS = ("brain-pet", "ct-chest", "ct-abdomen", "ct-lung")
# Defaults of ctrestore.phantoms.cohort, which imports torch; a test compares them.
PHANTOMS = {
    "training": (40, "to train on"),
    "validation": (4, "to choose the best checkpoint by"),
    "test": (8, "of another anatomy, to test on"),
}


def _count(text: str) -> int:
    """A number of subjects or processes."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a whole number that is not negative, got {text!r}")
    return int(text)


def run_phantoms(args: argparse.Namespace) -> None:
    """Write what is missing, then the list."""
    if args.output is None and args.list is None:
        raise InputError(
            "nothing to write: name a folder for the phantoms (-o DIR), a data list (--list FILE), or both."
        )

    if args.kind != "brain-pet":
        _run_ct_phantoms(args)
        return

    from ctrestore.data_lists import check_target, write_data_list
    from ctrestore.phantoms import SPLITS, cohort, data_list, write_cohort

    subjects = cohort(*(getattr(args, section) for section in SPLITS))
    listed = data_list(subjects)
    if args.list is not None:
        unchanged = _holds(args.list, listed)
        check_target(args.list, overwrite=args.force or unchanged)  # before minutes of work
    if args.output is not None:
        write_cohort(args.output, subjects, n_processes=args.processes)
        print(f"{len(subjects)} phantoms are in {args.output}")
    if args.list is not None:
        write_data_list(listed, args.list, overwrite=True)
        print(f"written to {args.list}")


def _run_ct_phantoms(args: argparse.Namespace) -> None:
    """Write what is missing of a CT cohort, then the list; the list says how many findings a scan has."""
    from ctrestore.data_lists import check_target, write_data_list
    from ctrestore.phantoms.ct import KINDS, write_ct_cohort, write_lung_cohort

    if args.output is None:
        raise InputError("CT phantoms are listed as they are written: name a folder for them (-o DIR).")
    if args.list is not None and not args.list.is_file():
        check_target(args.list, overwrite=args.force)
    counts = {f"n_{section}": getattr(args, section) for section in PHANTOMS}
    if args.kind == "ct-lung":
        if args.dicom:
            raise InputError("ct-lung phantoms are single slices in NIfTI: leave --dicom out.")
        listed = write_lung_cohort(args.output, **counts, n_processes=args.processes)
    else:
        listed = write_ct_cohort(
            args.output,
            next(kind for kind in KINDS if args.kind == f"ct-{kind}"),
            **counts,
            n_slices=args.slices,
            file_format="dicom" if args.dicom else "nifti",
            n_processes=args.processes,
        )
    n_phantoms = sum(isinstance(e, dict) for entries in listed.values() if isinstance(entries, list) for e in entries)
    print(f"{n_phantoms} phantoms are in {args.output}")
    if args.list is not None:
        check_target(args.list, overwrite=args.force or _holds(args.list, listed))
        write_data_list(listed, args.list, overwrite=True)
        print(f"written to {args.list}")


def _holds(path: Path, content: Any) -> bool:
    """Whether a JSON file holds this."""
    try:
        return path.is_file() and json.loads(path.read_text(encoding="utf-8")) == content
    except ValueError:
        return False
