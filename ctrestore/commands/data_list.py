"""``ctrestore data-list TASK``: find, check and split a folder of scans."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


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
