"""Claim: the three families of cortex are apart, so that test heads are unlike the heads a network has learned from.

Prints, as a Markdown table, what `ctrestore.phantoms.describe` measures in the first heads of each family of the
embedded cohort: mean (lowest to highest). About 7 s a head on one core.

    python benchmarks/phantom_families.py --heads 4
"""

from __future__ import annotations

import argparse

import numpy as np
from tqdm import tqdm

from ctrestore.phantoms import FAMILIES, build_anatomy, cohort, describe


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--heads", type=int, default=4, help="heads of each family (default: 4)")
    arguments = parser.parse_args()

    subjects = cohort()
    chosen = [s for family in FAMILIES for s in [s for s in subjects if s.family == family][: arguments.heads]]
    measured: dict[str, list[dict[str, float]]] = {family: [] for family in FAMILIES}
    for subject in tqdm(chosen, desc="heads", unit="head"):
        measured[subject.family].append(describe(build_anatomy(subject.family, seed=subject.seed)))

    splits = {family: sorted({s.split for s in subjects if s.family == family}) for family in FAMILIES}
    print("| | " + " | ".join(f"{family} ({', '.join(splits[family])})" for family in FAMILIES) + " |")
    print("| --- |" + " --- |" * len(FAMILIES))
    for quantity in measured[FAMILIES[0]][0]:
        cells = []
        for family in FAMILIES:
            values = np.array([numbers[quantity] for numbers in measured[family]])
            digits = 0 if values.mean() >= 100 else 2 if values.mean() < 10 else 1
            cells.append(f"{values.mean():.{digits}f} ({values.min():.{digits}f} to {values.max():.{digits}f})")
        print(f"| `{quantity}` | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
