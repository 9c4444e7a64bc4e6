"""The parameters of classical denoising that restore training slices best, for each dose.

    python benchmarks/ldct_classical_tuning.py .data/ldct_real/list.json

The list is a data list of full-dose CT slices (``benchmarks/ldct_real_slices.py`` writes one); one slice each of
``--subjects`` training subjects, cut to the middle of the body (192 x 192 pixels). The gain is that of PSNR over the
low-dose input, window -160..240 HU, mean over subjects. What is printed last goes into
``ctrestore/tasks/ldct_denoising/classical.py``.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np

from ctrestore.ct import PHOTONS_PER_RAY, noise_at_dose, noise_components
from ctrestore.data_lists import read_data_list
from ctrestore.tasks.ldct_denoising.classical import (
    BILATERAL,
    NLM,
    PARTIAL_NLM,
    TV,
    Bilateral,
    NonLocalMeans,
    Tuned,
    bilateral,
    noise_level_hu,
    non_local_means,
    total_variation,
)

DOSES = (0.5, 0.25, 0.1)
WINDOW_HU = (-160.0, 240.0)
CROP = 192
BODY_HU = -300.0
STRENGTHS = (0.5, 0.6, 0.7, 0.85, 1.0, 1.2, 1.45, 1.75, 2.1, 2.5)
SHARES = (0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
WEIGHTS = (0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.75, 0.9, 1.1, 1.3, 1.6, 2.0)
SIZES = ((3, 6), (7, 6), (5, 9), (7, 9), (5, 11))  # of a patch, and how far to look for others; (5, 6) comes first
SIGMAS = (1.0, 1.5, 2.0, 3.0)
TONAL_WIDTHS = (0.3, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0, 2.5, 3.0)


class Pair(NamedTuple):
    """The middle of a slice at low and at full dose, and the noise of the whole low-dose slice, HU."""

    low: np.ndarray
    full: np.ndarray
    noise_hu: float


def read_pairs(data_list: Path, n_subjects: int) -> dict[float, list[Pair]]:
    """By dose: one slice each of so many subjects, spread evenly over the sorted names."""
    entries: dict[str, dict[str, Any]] = {}
    for entry in read_data_list(data_list, "training"):
        entries.setdefault(entry["subject"], entry)
    names = sorted(entries)
    chosen = [names[i] for i in np.unique(np.linspace(0, len(names) - 1, n_subjects).astype(int))]
    pairs: dict[float, list[Pair]] = {dose: [] for dose in DOSES}
    for name in chosen:
        image: Any = nib.load(entries[name]["image"])
        full = np.asarray(image.dataobj, dtype=np.float32).squeeze()
        noise = noise_components(
            full,
            spacing_mm=[float(mm) for mm in image.header.get_zooms()[:2]],
            seed=1,
            photons_per_ray=entries[name].get("photons_per_ray", PHOTONS_PER_RAY),
        )
        middle = [int(np.median(along)) for along in np.nonzero(full > BODY_HU)]
        box = tuple(slice(max(m - CROP // 2, 0), max(m - CROP // 2, 0) + CROP) for m in middle)
        for dose in DOSES:
            low = full + noise_at_dose(noise, dose_fraction=dose)
            pairs[dose].append(Pair(low[box], full[box], noise_level_hu(low)))
    return pairs


def psnr_db(pred: np.ndarray, reference: np.ndarray) -> float:
    error = np.clip(pred, *WINDOW_HU) - np.clip(reference, *WINDOW_HU)
    return float(-10 * np.log10(np.mean(np.square(error, dtype=np.float64)) / 400.0**2))


def gains(pairs: list[Pair], restore: Callable[[Pair], np.ndarray], shares: Iterable[float]) -> np.ndarray:
    """PSNR over the input in dB ``(pair, share)``."""

    def of(pair: Pair) -> list[float]:
        change, before = restore(pair) - pair.low, psnr_db(pair.low, pair.full)
        return [psnr_db(pair.low + share * change, pair.full) - before for share in shares]

    with ThreadPoolExecutor(2) as pool:
        return np.array(list(pool.map(of, pairs)))


class Found(NamedTuple):
    """What some parameters gain over the input, and which share of the change they were applied with."""

    gain_db: float
    parameters: Any
    share: float


def search(
    pairs: list[Pair],
    tried: Iterable[Any],
    restore: Callable[[Pair, Any], np.ndarray],
    shares: Sequence[float] = (1.0,),
) -> list[Found]:
    """Everything that was tried, with every share of its change."""
    found = []
    for parameters in tried:
        by_share = gains(pairs, partial(restore, parameters=parameters), shares).mean(axis=0)
        found += [Found(float(gain), parameters, share) for share, gain in zip(shares, by_share)]
    return found


def tune(pairs: list[Pair]) -> tuple[Tuned, list[float]]:
    """The best parameters for the pairs of one dose, and what they gain over the input in dB."""

    def nlm(tried: list[NonLocalMeans]) -> list[Found]:
        def restore(pair: Pair, parameters: NonLocalMeans) -> np.ndarray:
            return non_local_means(pair.low, parameters=parameters, noise_hu=pair.noise_hu)

        return search(pairs, tried, restore, SHARES)

    def tv(pair: Pair, parameters: float) -> np.ndarray:
        return total_variation(pair.low, weight=parameters, noise_hu=pair.noise_hu)

    def smooth(pair: Pair, parameters: Bilateral) -> np.ndarray:
        return bilateral(pair.low, parameters=parameters, noise_hu=pair.noise_hu)

    def best(found: list[Found], *, whole: bool = True) -> Found:
        return max((one for one in found if one.share == 1 or not whole), key=lambda one: one.gain_db)

    found = nlm([NonLocalMeans(h, expected_noise=e) for e in (0.0, 0.7) for h in STRENGTHS])
    for first in (best(found).parameters, best(found, whole=False).parameters):
        around = [h for h in STRENGTHS if 0.75 * first.strength < h < 1.3 * first.strength]
        found += nlm([NonLocalMeans(h, *sizes, first.expected_noise) for sizes in SIZES for h in around])
    chosen = [
        best(found),
        best(found, whole=False),
        best(search(pairs, WEIGHTS, tv)),
        best(search(pairs, [Bilateral(tone, sigma) for tone in TONAL_WIDTHS for sigma in SIGMAS], smooth)),
    ]
    full, part, weight, tonal = (one.parameters for one in chosen)
    tuned = Tuned(full, part._replace(share=chosen[1].share), weight, tonal)
    return tuned, [one.gain_db for one in chosen]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data_list", type=Path)
    parser.add_argument("--subjects", type=int, default=20)
    args = parser.parse_args()
    by_dose = read_pairs(args.data_list, args.subjects)
    noise = {dose: np.median([pair.noise_hu for pair in pairs]) for dose, pairs in by_dose.items()}
    print(
        f"{len(by_dose[DOSES[0]])} subjects; median noise " + ", ".join(f"{n:.0f} HU at {d}" for d, n in noise.items())
    )
    print("| dose | method | gain | parameters |\n| ---: | --- | ---: | --- |")
    chosen = {}
    for dose, pairs in by_dose.items():
        chosen[dose], gained = tune(pairs)
        for name, gain, parameters in zip((NLM, PARTIAL_NLM, TV, BILATERAL), gained, chosen[dose]):
            print(f"| {dose} | {name} | {gain:+.2f} dB | {parameters} |", flush=True)
    print("\nTUNED = {")
    for dose, tuned in chosen.items():
        print(f"    {dose}: {tuned},")
    print("}")


if __name__ == "__main__":
    main()
