"""Pairing by name: which file is an image, which is its label, and the subject of both."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from glob import glob
from pathlib import Path, PurePosixPath
from typing import Any

from ctrestore.data_lists.tasks import TASKS, Task
from ctrestore.errors import InputError

NIFTI_ENDINGS = (".nii", ".nii.gz")
PAIRING_ENTITIES = ("sub", "ses", "task", "acq", "trc", "rec", "run")  # the BIDS entities that tell two PET scans apart
_ENTITY = re.compile(rf"(?:^|[/_])({'|'.join(PAIRING_ENTITIES)})-([^/_.]+)")


@dataclass(frozen=True)
class ScanFile:
    """One file under the root: relative POSIX path, its subject, and the text at the pattern's wildcards."""

    path: str
    subject: str
    wildcards: tuple[str, ...] = ()

    @property
    def entities(self) -> dict[str, str]:
        """The BIDS entities in the path that distinguish scans."""
        return dict(_ENTITY.findall(self.path))


def belongs(file: ScanFile, scan: ScanFile, telling: Sequence[str]) -> bool:
    """Whether a map of a subject belongs to this scan: none of the entities that distinguish scans differs."""
    of_map, of_scan = file.entities, scan.entities
    return all(of_map.get(name, of_scan[name]) == of_scan[name] for name in telling if name in of_scan)


def subject_of(path: str) -> str:
    """The subject in a relative path: a ``sub-`` folder, else a ``sub-`` token in a name, else the first folder.

    >>> subject_of("derivatives/pvc/sub-07/sub-07_pet.nii"), subject_of("pet/sub-07_pet.nii"), subject_of("p7/a.nii")
    ('sub-07', 'sub-07', 'p7')
    """
    *folders, name = PurePosixPath(path).parts
    for folder in folders:
        if folder.startswith("sub-"):
            return folder
    if token := re.search(r"(?:^|_)(sub-[^_.]+)", name):
        return token[1]
    if folders:
        return folders[0]
    raise InputError(f"{path}: this path names no subject. Remedy: write {{subject}} at its place in the pattern.")


def find_files(root: Path, pattern: str, *, any_scan: bool = False) -> list[ScanFile]:
    """Every file under ``root`` that matches the glob, sorted; ``{subject}`` in it stands for the subject's name.

    Args:
        root: folder that the pattern is relative to.
        pattern: the glob.
        any_scan: folders (of DICOM files) and files of any name also count, not only NIfTI files.

    Raises:
        InputError: the pattern leaves the root, has another placeholder, or matches nothing or files that are not
            NIfTI.
    """
    pattern = pattern.removeprefix("./")
    if Path(pattern).is_absolute() or ".." in PurePosixPath(pattern).parts:
        raise InputError(f"The pattern {pattern!r} must be relative to --root ({root}) and stay inside it.")
    if unknown := set(re.findall(r"{.*?}", pattern)) - {"{subject}"}:
        raise InputError(
            f"The pattern {pattern!r} holds {', '.join(sorted(unknown))}; the only placeholder is {{subject}}."
        )
    expression = _pattern_expression(pattern)
    found = []
    for path in files_matching(root, pattern.replace("{subject}", "*"), folders=any_scan):
        if not (match := expression.fullmatch(path)):  # {subject} is in the pattern twice, but the names differ
            continue
        if not any_scan and not path.endswith(NIFTI_ENDINGS):
            raise InputError(
                f"{root / path}: matches the pattern {pattern!r} but is not named .nii or .nii.gz. "
                "Usual cause: the pattern also catches side files; let it end in .nii.gz."
            )
        subject = match.groupdict().get("subject") or subject_of(path)
        wildcards = tuple(text for name, text in match.groupdict().items() if name != "subject")
        found.append(ScanFile(path, subject, wildcards))
    if not found:
        raise InputError(
            f"No file under {root} matches the pattern {pattern!r}. Patterns are relative to --root; "
            "usual cause: no quotes around the pattern, so that the shell expanded it."
        )
    return found


def named_scans(root: Path, pattern: str) -> list[ScanFile]:
    """The NIfTI files that match a glob and have a subject in their paths."""
    return [ScanFile(p, subject_of(p)) for p in files_matching(root, pattern) if p.endswith(NIFTI_ENDINGS)]


def files_matching(root: Path, pattern: str, *, folders: bool = False) -> list[str]:
    """Files, on request also folders, under the root that match, as sorted relative POSIX paths."""
    found = glob(pattern, root_dir=root, recursive=True)  # noqa: PTH207 Path.glob gives hidden files too
    return sorted(Path(path).as_posix() for path in found if folders or (root / path).is_file())


def _pattern_expression(pattern: str) -> re.Pattern[str]:
    """The glob as a regular expression with one named group per wildcard.

    ``{subject}`` matches as little as possible: a name that is too short joins subjects, which is safe; one that is too
    long separates one subject's scans.
    """
    wildcards = {"**/": "(?:[^/]+/)*", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    expression, n_wildcards, subject_seen = "", 0, False
    for token in re.split(r"({subject}|\*\*/|\*\*|\*|\?|\[[^\]]+\])", pattern):
        if token == "{subject}":
            expression += "(?P=subject)" if subject_seen else "(?P<subject>[^/]+?)"
            subject_seen = True
        elif token in wildcards or re.fullmatch(r"\[.+\]", token):
            inner = wildcards.get(token) or token.replace("[!", "[^")
            expression += f"(?P<wildcard_{n_wildcards}>{inner})"
            n_wildcards += 1
        else:
            expression += re.escape(token)
    return re.compile(expression)


def find_pairs(task: str, root: Path, *, image: str | None = None, label: str | None = None) -> list[dict[str, str]]:
    """Entries ``{"subject", "image", "label"}`` under ``root``, sorted by image.

    Without patterns the task's own (BIDS) layout is searched; ``label`` alone chooses among several kinds of label.
    With both patterns a label belongs to the image with the same text at the wildcards or, if the patterns have
    different numbers of wildcards, to the image with the same BIDS entities (without any: one pair per subject).
    For CT tasks a pattern may match folders of DICOM files, and images need no label.
    """
    if image is not None and TASKS[task].ct:
        images = find_files(root, image, any_scan=True)
        if label is None:
            return [{"subject": file.subject, "image": file.path} for file in images]
        pairs = _pair(root, images, find_files(root, label, any_scan=True), by_wildcards=True)
        return [{"subject": i.subject, "image": i.path, "label": j.path} for i, j in pairs]
    if image is not None and label is None:
        raise InputError("--image needs --label: an image is paired with the label found by its own pattern.")
    known = TASKS[task]
    if image is not None:
        images = find_files(root, image)
    else:
        found = [file for pattern in known.images for file in named_scans(root, pattern)]
        images = [file for file in found if "_desc-" not in file.path]  # raw BIDS names have no desc
        if not images:
            layout = f"no BIDS image ({' or '.join(known.images)})" if known.images else f"no layout known for {task}"
            what = "is empty" if not any(root.iterdir()) else f"holds {layout}"
            raise InputError(
                f"{root} {what}. Give the folder that holds the subjects, or say where the files lie, for example "
                '--image "{subject}/pet.nii.gz" --label "{subject}/pvc.nii.gz".'
            )
    labels = find_files(root, label) if label is not None else _labels_of_one_kind(known, root, images[0])
    pairs = _pair(root, images, labels, by_wildcards=image is not None)
    return [{"subject": i.subject, "image": i.path, "label": j.path} for i, j in pairs]


def _labels_of_one_kind(task: Task, root: Path, example: ScanFile) -> list[ScanFile]:
    """The labels in the task's own layout; refused if there are several pipelines or methods."""
    kinds = defaultdict(list)
    for file in named_scans(root, task.labels):
        if kind := re.search(task.label_kind, file.path):
            pipeline = "/".join(PurePosixPath(file.path).parts[:2])
            kinds[f"{pipeline}/**/*_{kind[1]}_pet.nii*"].append(file)
    if not kinds:
        raise InputError(
            f"{root / example.path}: no label for this image or any other. Expected for example "
            "derivatives/<pipeline>/sub-*/pet/*_desc-pvcGTM_pet.nii.gz; if they lie elsewhere give --label PATTERN."
        )
    if len(kinds) > 1:
        choices = " or ".join(f'--label "{kind}"' for kind in sorted(kinds))
        raise InputError(f"{root} holds {len(kinds)} kinds of label, and a list takes one. Choose: {choices}.")
    return next(iter(kinds.values()))


Key = Callable[[ScanFile], tuple[Any, ...]]


def _pair(
    root: Path, images: Sequence[ScanFile], labels: Sequence[ScanFile], *, by_wildcards: bool
) -> list[tuple[ScanFile, ScanFile]]:
    """Each image with its label; an image or label without a partner is refused by name."""

    def entities(file: ScanFile) -> tuple[Any, ...]:
        return tuple(sorted((k, v) for k, v in file.entities.items() if k != "sub"))

    def wildcards(file: ScanFile) -> tuple[Any, ...]:
        return file.wildcards

    keys: list[Key] = [entities]
    if by_wildcards and len(images[0].wildcards) == len(labels[0].wildcards):
        all_bids = all("sub" in file.entities for file in [*images, *labels])
        keys = [wildcards, entities] if all_bids else [wildcards]
    for key in keys:
        pairs, problems = _match(root, images, labels, key)
        if not problems:
            return pairs
    raise InputError(one_line(problems))


def _match(
    root: Path, images: Sequence[ScanFile], labels: Sequence[ScanFile], key: Key
) -> tuple[list[tuple[ScanFile, ScanFile]], list[str]]:
    """The pairs of files with the same subject and key, and a sentence about each that is not one to one."""
    scans: dict[tuple[str, Any], tuple[list[ScanFile], list[ScanFile]]] = defaultdict(lambda: ([], []))
    for side, files in enumerate((images, labels)):
        for file in files:
            scans[file.subject, key(file)][side].append(file)
    pairs, problems = [], []
    for (subject, _), (of_image, of_label) in scans.items():
        if len(of_image) == len(of_label) == 1:
            pairs.append((of_image[0], of_label[0]))
        elif not of_label:
            no_bids = f" If {subject!r} is not the subject's name, write {{subject}} where it stands in both patterns."
            problems.append(
                f"{root / of_image[0].path}: no label belongs to this image of {subject}. A label has the same text "
                "for every * as its image, or the same session, tracer and run. Add the label or take the image away."
                + ("" if subject.startswith("sub-") else no_bids)
            )
        elif not of_image:
            problems.append(
                f"{root / of_label[0].path}: no image belongs to this label of {subject}. "
                "Usual cause: the scan is missing, or it carries another session, tracer or run in its name."
            )
        else:
            several = of_image if len(of_image) > 1 else of_label
            what = "images" if len(of_image) > 1 else "labels"
            names = " and ".join(str(root / file.path) for file in several)
            problems.append(
                f"{names}: {len(several)} {what} for one scan of {subject}. "
                "Make the patterns so exact that each image has one label."
            )
    return sorted(pairs, key=lambda pair: pair[0].path), problems


def one_line(problems: Sequence[str]) -> str:
    """The first problem in full and how many more there are."""
    more = len(problems) - 1
    return problems[0] + (f" ({more} more like this.)" if more else "")
