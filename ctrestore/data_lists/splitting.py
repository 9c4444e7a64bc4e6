"""Assignment of subjects to sections."""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Iterable, Sequence

from ctrestore.errors import InputError

SECTIONS = ("training", "validation", "test")


def split_sizes(n_subjects: int, split: Sequence[float]) -> list[int]:
    """Subjects in each section.

    Whole numbers that add up to ``n_subjects`` are counts; numbers that add up to 1 are fractions, and each section
    with a fraction above zero gets at least one subject.

    >>> split_sizes(694, (550, 50, 94)), split_sizes(10, (0.8, 0.1, 0.1))
    ([550, 50, 94], [8, 1, 1])

    Raises:
        InputError: the numbers are neither, or there are fewer subjects than sections to fill.
    """
    total, given = sum(split), " ".join(f"{number:g}" for number in split)
    if len(split) != len(SECTIONS) or not all(number >= 0 for number in split) or not math.isfinite(total):
        raise InputError(f"--split needs three numbers, none negative ({', '.join(SECTIONS)}); got {given}.")
    if total == n_subjects and all(float(number).is_integer() for number in split):
        return [int(number) for number in split]
    if not math.isclose(total, 1, abs_tol=1e-6):
        raise InputError(
            f"--split {given} adds up to {total:g}, but there are {n_subjects} subjects (all sessions, runs and "
            f"tracers of one count once). Give three counts that add up to {n_subjects}, "
            "or three fractions that add up to 1."
        )
    sizes = [int(share > 0) for share in split]
    if n_subjects < sum(sizes):
        raise InputError(
            f"{n_subjects} subjects cannot fill {sum(sizes)} sections (--split {given}). Usual cause: the subject is "
            "not where it was looked for (write {subject} in the patterns), or the root is one subject's folder."
        )
    while sum(sizes) < n_subjects:  # the next subject goes where the most are missing
        missing = [share * n_subjects - size for share, size in zip(split, sizes)]
        sizes[missing.index(max(missing))] += 1
    return sizes


def split_subjects(subjects: Iterable[str], split: Sequence[float], *, seed: int) -> dict[str, list[str]]:
    """Subjects of each section that is not empty, drawn by seed."""
    # A hash and not a generator: the draw is the same in every release of Python and NumPy.
    drawn = sorted(set(subjects), key=lambda subject: hashlib.sha256(f"{seed}/{subject}".encode()).digest())
    remaining = iter(drawn)
    sizes = split_sizes(len(drawn), split)
    return {name: sorted(itertools.islice(remaining, size)) for name, size in zip(SECTIONS, sizes) if size}
