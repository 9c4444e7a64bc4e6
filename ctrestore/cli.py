"""The console scripts ``ctrestore`` and ``petpvc``.

One function a sub-command: it adds the parser and names the function that runs. Heavy imports (torch, monai, the
phantoms) go inside the function that runs, so that ``--help`` and typing errors answer at once.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from ctrestore import __version__
from ctrestore.denoise import add_amp, add_denoise
from ctrestore.pvc_command import add_pvc, petpvc_arguments
from ctrestore.simulate_dose import add_simulate_dose
from ctrestore.upscale import add_upscale


class _Parser(argparse.ArgumentParser):
    """Argument parser whose errors look like all others: one line, exit status 2."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog.split()[0]}: error: {message} (see `{self.prog} --help`)\n")


def add_data_list(commands: Any) -> None:
    """``ctrestore data-list TASK``: find, check and split a folder of scans."""
    from ctrestore.data_lists import TASKS

    parser = commands.add_parser(
        "data-list",
        help="split a folder of scans into training, validation and test",
        description="Find image and label of every scan under --root, check them, and write a MONAI datalist JSON in "
        "which no subject stands in two sections. Paths in it are relative to --root. For the CT tasks, scans are "
        "folders of DICOM files (a folder a patient, the Low Dose CT Grand Challenge, TCIA's "
        "LDCT-and-Projection-data), NIfTI files or pictures (for classification in one folder for each class), and "
        "copies among them are counted.",
    )
    parser.add_argument("task", choices=TASKS, help="what the list is for")
    parser.add_argument("--root", type=Path, required=True, metavar="DIR", help="folder that holds the subjects")
    parser.add_argument(
        "--image",
        metavar="PATTERN",
        help='glob relative to --root, in quotes, such as "{subject}/pet.nii.gz"; {subject} is the subject\'s name '
        "(without it: the sub-XXX in the path, else the first folder). Without --image: the BIDS layout",
    )
    parser.add_argument(
        "--label", metavar="PATTERN", help="the same for the labels; alone it chooses among BIDS labels"
    )
    parser.add_argument(
        "--split",
        type=float,
        nargs=3,
        metavar=("TRAINING", "VALIDATION", "TEST"),
        help="subjects in each: counts that add up to all, or fractions that add up to 1 (default: the split that the "
        "folders of a CT data set state, train, valid and test; else 0.8 0.1 0.1)",
    )
    parser.add_argument(
        "--drop-duplicates",
        action="store_true",
        help="CT: of equal files keep one, and of equal or nearly equal pictures in two sections the one in training",
    )
    parser.add_argument("--seed", type=int, default=0, help="chooses which subjects go where (default: 0)")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE", help="the JSON file to write")
    parser.add_argument("--force", action="store_true", help="replace FILE if it exists")
    parser.set_defaults(run=run_data_list)


def run_data_list(args: argparse.Namespace) -> None:
    """Write the list and say what is in it."""
    from ctrestore.data_lists import SECTIONS, build_data_list, check_target, write_data_list

    check_target(args.output, overwrite=args.force)  # before the minutes that reading many headers may take
    data_list = build_data_list(
        args.task,
        args.root,
        image=args.image,
        label=args.label,
        split=args.split,
        seed=args.seed,
        drop_duplicates=args.drop_duplicates,
    )
    write_data_list(data_list, args.output, overwrite=args.force)
    for section in SECTIONS:
        entries = data_list.get(section, [])
        print(f"{section:<10} {len({entry['subject'] for entry in entries}):>5} subjects {len(entries):>5} scans")
    if "audit" in data_list:
        _print_audit(data_list["audit"])
    print(f"written to {args.output}")


def _print_audit(report: dict[str, Any]) -> None:
    """Copies among the scans, in a few lines."""
    for kind, what in (("exact", "the same bytes"), ("near", "the same or nearly the same picture")):
        found = report[kind]
        if found["groups"]:
            also = found["scans_that_are_in_training_too"]
            leaked = " and ".join(f"{n} of {section}" for section, n in also.items() if n) or "none of the others"
            print(
                f"{what}: {found['groups']} groups, {found['groups_across_sections']} across sections "
                f"({leaked} in training too), {found['groups_across_classes']} across classes"
            )
    if names := report.get("names_across_sections"):
        print(f"the same name but for a number: {names} in several sections; they may be slices of one patient")
    if report["dropped"]:
        print(f"left out: {len(report['dropped'])} copies")
    elif report["exact"]["groups_across_sections"] or report["near"]["groups_across_sections"]:
        print("a test that shares scans with the training is no test: leave the copies out by --drop-duplicates")


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
        raise ValueError(
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
        raise ValueError("CT phantoms are listed as they are written: name a folder for them (-o DIR).")
    if args.list is not None and not args.list.is_file():
        check_target(args.list, overwrite=args.force)
    counts = {f"n_{section}": getattr(args, section) for section in PHANTOMS}
    if args.kind == "ct-lung":
        if args.dicom:
            raise ValueError("ct-lung phantoms are single slices in NIfTI: leave --dicom out.")
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


def add_demo(commands: Any) -> None:
    """``ctrestore demo``: correct embedded scans with the released weights, evaluate, and draw a picture."""
    parser = commands.add_parser(
        "demo",
        help="correct embedded brain PET scans with the released weights; a table and a picture",
        description="Run bundles/pet_pvc on embedded test phantoms, compare the network with sharpening, "
        "Richardson-Lucy and Van Cittert against the truth, and draw one scan. Run it from a checkout.",
    )
    parser.add_argument("--bundle", type=Path, metavar="DIR", help="the bundle (default: bundles/pet_pvc)")
    parser.add_argument("--scans", type=_count, default=3, metavar="N", help="test phantoms to correct (default: 3)")
    parser.add_argument("-o", "--output", type=Path, default=Path("demo"), metavar="DIR", help="default: demo")
    add_amp(parser)
    parser.set_defaults(run=run_demo)


def run_demo(args: argparse.Namespace) -> None:
    """Inference, evaluation, picture; prints where they lie."""
    from ctrestore.bundle import embedded_data_dir, entries, find_bundle, outputs_of, run_bundle
    from ctrestore.report import figure_pet_pvc

    bundle = find_bundle(args.bundle, "pet_pvc")
    run_bundle(
        bundle,
        ["train", "evaluate"],
        weights=str(bundle / "models" / "model.pt"),
        output_dir=str(args.output),
        test_subjects=args.scans,
        seed_protocol=False,
        classical_rows=False,
        **({} if args.amp is None else {"amp": args.amp}),
    )
    folder = embedded_data_dir(str(bundle), "pet_pvc_phantom")
    scan = entries("test", None, folder, n=args.scans)[0]
    (corrected,) = outputs_of([scan], str(args.output), folder)
    picture = figure_pet_pvc(
        scan["image"], corrected, args.output / "pet_pvc.png", truth=scan["truth"], subject=scan["subject"]
    )
    print(f"corrected scans: {args.output.resolve()}\ntable:           {(args.output / 'metrics.csv').resolve()}")
    print(f"picture:         {picture.resolve()}")


def add_release_weights(commands: Any) -> None:
    """``ctrestore release-weights``: trained weights as a bundle ships them."""
    parser = commands.add_parser(
        "release-weights",
        help="write trained weights as a bundle ships them: half precision, plain tensors",
        description="Read the weights of a training (runs/model.pt or runs/last.pt) and write them in half precision, "
        "as plain tensors that load without running code.",
    )
    parser.add_argument("trained", type=Path, metavar="TRAINED", help="model.pt or last.pt of a training")
    parser.add_argument("released", type=Path, metavar="RELEASED", help="the file to write, such as models/model.pt")
    parser.set_defaults(run=run_release_weights)


def run_release_weights(args: argparse.Namespace) -> None:
    """Convert, check, write whole or not at all."""
    from ctrestore.handlers import release_weights

    n_values = release_weights(args.trained, args.released)
    print(f"{n_values:,} values, {args.released.stat().st_size / 1e6:.1f} MB: {args.released}")


COMMANDS = (
    add_data_list,
    add_phantoms,
    add_demo,
    add_pvc,
    add_simulate_dose,
    add_denoise,
    add_upscale,
    add_release_weights,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit status is 0, or 2 after an error that was printed in one line."""
    parser = _Parser(prog="ctrestore", description="Give back what a medical scan lost.")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for add_command in COMMANDS:
        add_command(commands)
    return _run(parser, argv)


def petpvc(argv: Sequence[str] | None = None) -> int:
    """``ctrestore pvc`` in the place of UCL PETPVC: its arguments, kernel and text tables, and the same exit status."""
    parser = _Parser(prog="petpvc", description="ctrestore in the place of UCL PETPVC: the same arguments.")
    petpvc_arguments(parser)
    return _run(parser, argv)


def _run(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> int:
    parser.add_argument("--version", action="version", version=f"{parser.prog} {__version__}")
    argv = list(sys.argv[1:] if argv is None else argv)
    args = parser.parse_args(argv)
    args.command_line = shlex.join([parser.prog, *argv])
    try:
        args.run(args)
    except (ValueError, OSError, MemoryError) as error:
        if getattr(args, "debug", False):
            traceback.print_exc()
        reason = str(error) or "out of memory"
        print(f"{parser.prog}: error: {' '.join(reason.split())}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":  # python -m ctrestore.cli, where no script is installed
    sys.exit(main())
