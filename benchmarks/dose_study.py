"""What a diagnosis loses when the dose falls and what restoration gives back: a classifier and versions of slices.

    python benchmarks/dose_study.py --quick                                   # to try: five minutes on two cores
    python benchmarks/dose_study.py                                           # on the embedded lung phantoms
    python benchmarks/dose_study.py --data_list LIST --dataset_dir DATA --image_size 512
    python benchmarks/dose_study.py --table                                   # from what is finished

A DenseNet121 that knows the classes from full dose sees the test slices at full dose, under the "12-bit Poisson" noise
of the course that this study goes back to (at a quarter), at 0.5, 0.25 and 0.1 of the dose simulated in the
projections, and each of these restored: by the networks of the bundle `ldct_denoising` whose released weights are
there, and by non-local means tuned for the dose. Every version of a slice has the same noise. On the embedded phantoms
it has the released weights of `lung_ct_classification`; on a list of yours, or with --retrain, it is trained with the
settings of that bundle (train.json under coarse.json, then under release.json). The control goes on from there and
learns from low dose, of every training slice one of the three doses in the projections.

Accuracy, balanced accuracy, macro F1, AUC and calibration error have 95 % intervals from a bootstrap by subject, and
McNemar's exact test says whether a row is as often right as full dose. The table and a figure of accuracy against dose
are written to --out, where what is finished is kept and not done again.
"""

from __future__ import annotations

import argparse
import logging
import time
import zlib
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from monai.bundle import ConfigParser
from monai.inferers import Inferer
from monai.transforms import Compose
from torch import Tensor, nn
from tqdm import tqdm

from ctrestore.ct import PHOTONS_PER_RAY, add_poisson_12bit, fewer_views, noise_at_dose, noise_components
from ctrestore.data_lists import SECTIONS, read_data_list
from ctrestore.io.ct_scan import open_scan, slice_in_ras, spread_evenly
from ctrestore.io.nifti import write_nifti
from ctrestore.io.whole import read_json, writable_folder, write_json, written_whole
from ctrestore.metrics import CLASSIFICATION_MEASURES, mcnemar, probabilities_at, score_intervals
from ctrestore.phantoms.ct import LUNG_COHORT, write_lung_cohort
from ctrestore.phantoms.writing import n_cores
from ctrestore.tasks.ct_restoration.restored_slice import restored_slice
from ctrestore.tasks.ldct_denoising.classical import NLM, TUNED, classical_restorers
from ctrestore.tasks.lung_ct_classification import read_card
from ctrestore.tasks.lung_ct_classification.card import card_path
from ctrestore.tasks.lung_ct_classification.images import is_picture
from ctrestore.tasks.runtime import embedded_data_dir
from ctrestore.training.inferers import MixedPrecisionInferer
from ctrestore.training.weights import BEST, load_weights, save_atomically

BUNDLES = Path(__file__).resolve().parent.parent / "bundles"
BUNDLE, LDCT = BUNDLES / "lung_ct_classification", BUNDLES / "ldct_denoising"
RELEASED = BUNDLE / "models" / "model.pt"
INT16 = (-32768, 32767)
PROJECTIONS, POISSON = "projections", "12-bit Poisson"
AS_IT_IS = "as it is"
FULL_DOSE, LOW_DOSE = TRAININGS = ("full dose", "low dose")
COARSE, RELEASE = "coarse", "release"  # overlays of train.json: half the resolution first
CONTROL_EPOCHS = 6  # under the settings of release.json
#: Row of the table, overlay of ldct_denoising, its weights.
NETWORKS = (
    ("GAN-CIRCLE", "gan_circle", "gan_circle.pt"),
    ("RED-CNN", "redcnn", "redcnn.pt"),
    ("UnshuffledUNet", None, "model.pt"),
)
SLOW = ("RED-CNN",)  # an hour and a half for all versions of the test slices
LISTED = (*SECTIONS[:2], "calibration")  # what a training reads; calibration is optional
LIST, PREDICTIONS, REMARKS, TABLE, FIGURE = (
    "list.json", "predictions.csv", "remarks.json", "dose_study.md", "dose_study.png",
)  # fmt: skip
QUICK: dict[str, Any] = {"n_training": 48, "n_validation": 8, "n_test": 16}
QUICK_SETTINGS: dict[str, Any] = {"image_size": 64, "epochs": 2}

SEEDS = {"training": 0, "validation": 1, "test": 2, "calibration": 3}  # of the noise, beside that of the command line

Restorer = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Dose:
    """A fraction of the dose, and how its noise is simulated."""

    fraction: float
    noise: str = PROJECTIONS

    def __str__(self) -> str:
        return "full dose" if self.fraction == 1 else f"{self.noise}, {self.fraction:g}"


FULL = Dose(1.0)
LOWERED = (Dose(0.25, POISSON), Dose(0.5), Dose(0.25), Dose(0.1))
IN_PROJECTIONS = [dose for dose in LOWERED if dose.noise == PROJECTIONS]


def lowered(
    hu: np.ndarray,
    doses: Sequence[Dose],
    *,
    spacing_mm: Any,
    seed: Sequence[int],
    photons_per_ray: float = PHOTONS_PER_RAY,
) -> dict[Dose, np.ndarray]:
    """A slice ``(y, x)`` in HU at each dose; the doses in the projections share one realisation of the noise.

    Args:
        hu: at full dose.
        doses: wanted.
        spacing_mm: of its pixels.
        seed: of all noise.
        photons_per_ray: of full dose.
    """
    found = {}
    if any(dose.noise == PROJECTIONS for dose in doses):
        components = noise_components(
            hu,
            spacing_mm=spacing_mm,
            seed=np.random.default_rng([*seed, 0]),
            **fewer_views(photons_per_ray=photons_per_ray),
        )
    for dose in doses:
        if dose.noise == POISSON:
            found[dose] = add_poisson_12bit(hu, dose_fraction=dose.fraction, seed=np.random.default_rng([*seed, 1]))
        else:
            found[dose] = hu + noise_at_dose(components, dose_fraction=dose.fraction)
    return found


def restorers(args: argparse.Namespace) -> dict[str, Callable[[Dose], Restorer]]:
    """What restores, by its row: given a dose, from slice to slice; less the rows that :func:`remarks` names."""
    found: dict[str, Callable[[Dose], Restorer]] = {NLM: lambda dose: classical_restorers(dose.fraction)[NLM]}
    for name, overlay, file in NETWORKS:
        if name in remarks(args):
            continue
        parser = inference_config(overlay)
        network = parser.get_parsed_content("network_def")
        load_weights(LDCT / "models" / file, network)
        restore = partial(
            restored_slice,
            network=channels_last(network, args).eval(),
            inferer=MixedPrecisionInferer(args.amp),
            clip_hu=parser["clip_hu"],
            told_dose=bool(parser["told_dose"]),
            strength=float(parser["strength"]),
        )
        found[name] = partial(at_dose, restore)
    return found


def inference_config(overlay: str | None) -> ConfigParser:
    """inference.json of ldct_denoising, under the overlay of a network."""
    parser = ConfigParser()
    parser.read_config([str(LDCT / "configs" / f"{part}.json") for part in ("inference", overlay) if part])
    return parser


def at_dose(restore: Callable[..., np.ndarray], dose: Dose) -> Restorer:
    """A restoration that is told the dose."""
    return partial(restore, dose_fraction=dose.fraction)


def channels_last(network: nn.Module, args: argparse.Namespace) -> nn.Module:
    """The network on its device, in the layout that convolutions like best."""
    return network.to(args.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def remarks(args: argparse.Namespace) -> dict[str, str]:
    """Why a row is missing."""
    missing = {}
    for name, _, file in NETWORKS:
        if not (LDCT / "models" / file).is_file():
            missing[name] = f"not run: no weights ({LDCT.name}/models/{file})"
        elif name in SLOW and not args.slow:
            missing[name] = "not run: seconds a slice; it comes with --slow"
    return missing


def wanted(restorations: Iterable[str]) -> list[tuple[Dose, str]]:
    """The versions of a slice: full dose, and every lower one as it is and restored."""
    return [(FULL, AS_IT_IS), *((dose, name) for dose in LOWERED for name in (AS_IT_IS, *restorations))]


def key_of(dose: Dose, restoration: str) -> str:
    """The name of a version of the slices, which other weights or settings change: old ones do not pass for theirs."""
    return f"{dose} | {restoration}" + ("" if restoration == AS_IT_IS else f" {mark_of_restoration(restoration)}")


@cache
def mark_of_restoration(restoration: str) -> str:
    """Eight digits that tell a restoration from the same one with other weights or settings."""
    if restoration == NLM:
        return f"{zlib.crc32(repr(TUNED).encode()):08x}"
    overlay, file = next((overlay, file) for name, overlay, file in NETWORKS if name == restoration)
    parser = inference_config(overlay)
    settings = repr([parser[key] for key in ("strength", "told_dose", "clip_hu")])
    return f"{zlib.crc32(settings.encode(), int(mark_of(LDCT / 'models' / file), 16)):08x}"


@cache
def mark_of(weights: Path) -> str:
    """Eight digits that tell weights from others."""
    return f"{zlib.crc32(weights.read_bytes()):08x}"


def versions(
    entry: dict[str, Any], i: int, args: argparse.Namespace, found: dict[str, Callable[[Dose], Restorer]]
) -> dict[str, Tensor]:
    """What the classifier is shown of a test slice, ``(1, x, y)`` each; from --out what is there already."""
    path = args.out / f"test_{args.image_size}" / f"{entry['subject']}-{i:04d}.pt"
    ready = torch.load(path, weights_only=True) if path.is_file() else {}
    if missing := [(dose, name) for dose, name in wanted(found) if key_of(dose, name) not in ready]:
        hu, scanned = slice_of(entry, args)
        images = {FULL: hu, **lowered(hu, LOWERED, seed=(args.seed, SEEDS["test"], i), **scanned)}
        for dose, name in missing:
            image = images[dose] if name == AS_IT_IS else found[name](dose)(images[dose])
            ready[key_of(dose, name)] = prepared(image, args).half()
        path.parent.mkdir(parents=True, exist_ok=True)
        save_atomically(ready, path)
    return ready


def slice_of(entry: dict[str, Any], args: argparse.Namespace) -> tuple[np.ndarray, dict[str, Any]]:
    """The middle slice of a scan in HU, axes to the front and the right, and its pixels in mm and photons, if known."""
    scan = open_scan(entry["image"], range_hu=entry.get("range_hu"))
    [middle] = spread_evenly(scan.shape[2], 1)
    hu, sizes_mm = slice_in_ras(scan, middle)
    spacing_mm = args.fov_mm / max(hu.shape) if is_picture(entry["image"]) else sizes_mm[::-1]
    return np.ascontiguousarray(hu.T), {
        "spacing_mm": spacing_mm,
        "photons_per_ray": entry.get("photons_per_ray", PHOTONS_PER_RAY),
    }


def source_of(args: argparse.Namespace) -> tuple[Path, Path]:
    """The data list, and the folder that its paths start from: the lung phantoms, made on first use, by default."""
    if args.data_list is not None:
        return args.data_list, args.dataset_dir or args.data_list.parent
    default = args.out / "phantoms" if args.quick else Path(embedded_data_dir(str(BUNDLE), "lung_phantoms"))
    folder = args.dataset_dir or default
    path = folder / LIST
    if not path.is_file():
        counts = QUICK if args.quick else LUNG_COHORT
        write_json(write_lung_cohort(folder, **counts, n_processes=args.threads), path)
    return path, folder


def entries(args: argparse.Namespace, section: str) -> list[dict[str, Any]]:
    """Scans of a section of the data list."""
    path, folder = source_of(args)
    found = read_data_list(path, section, folder)
    return [{"range_hu": args.picture_hu, **entry} if is_picture(entry["image"]) else entry for entry in found]


def list_of(args: argparse.Namespace, name: str) -> Path:
    """What a classifier learns from, in --out: scans at full dose, or each at one of the doses in the projections."""
    folder = args.out / name.replace(" ", "_")
    path = folder / LIST
    if path.is_file():
        return path

    def listed(section: str, i: int, entry: dict[str, Any]) -> dict[str, Any]:
        known: dict[str, Any] = {key: entry[key] for key in ("subject", "label", "class", "range_hu") if key in entry}
        if name == FULL_DOSE:
            return {**known, "image": str(Path(entry["image"]).absolute())}
        image = f"{section}-{i:04d}.nii.gz"
        if not (folder / image).is_file():
            dose = IN_PROJECTIONS[i % len(IN_PROJECTIONS)]
            hu, scanned = slice_of(entry, args)
            low = lowered(hu, [dose], seed=(args.seed, SEEDS[section], i), **scanned)[dose]
            row_mm, column_mm = np.broadcast_to(scanned["spacing_mm"], 2)
            affine = np.diag([float(column_mm), float(row_mm), 1.0, 1.0])
            stored = np.rint(low.T[..., None]).clip(*INT16).astype(np.int16)
            write_nifti(nib.Nifti1Image(stored, affine), folder / image, description=str(dose))
        return {**known, "image": image}

    writable_folder(folder)
    source = read_json(source_of(args)[0])
    content: dict[str, Any] = {"description": name, "classes": source.get("classes")}
    for section in LISTED:
        if section == "calibration" and not source.get(section):
            continue
        content[section] = in_threads(partial(listed, section), entries(args, section), args, f"{name}, {section}")
    write_json(content, path)
    return path


def in_threads(function: Callable[..., Any], items: Sequence[Any], args: argparse.Namespace, what: str) -> list[Any]:
    """``function(i, item)`` of all items in order, by threads: the work is done outside Python's lock."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(args.threads) as pool:
            return list(tqdm(pool.map(function, range(len(items)), items), what, len(items), delay=2, disable=None))
    finally:
        torch.set_num_threads(before)


def probabilities(args: argparse.Namespace, trained: Classifier, images: Sequence[Tensor]) -> np.ndarray:
    """Of the classes for images ``(1, x, y)``: ``(n, classes)``."""
    logits = []
    with torch.inference_mode():
        for start in range(0, len(images), 16):
            batch = torch.stack(list(images[start : start + 16])).float().to(args.device)
            logits.append(trained.inferer(batch, trained.network).float().cpu())
    return probabilities_at(torch.cat(logits).double().numpy(), trained.temperature)


def classify(args: argparse.Namespace) -> pd.DataFrame:
    """A row for each version of each test slice and each of the two classifiers, with its probabilities."""
    listed, found = entries(args, "test")[: args.test_slices], restorers(args)
    shown = in_threads(lambda i, entry: versions(entry, i, args, found), listed, args, "test slices")
    tables = []
    for name in TRAININGS:
        trained = classifier(args, name)
        for dose, restoration in wanted(found if name == FULL_DOSE else ()):
            guessed = probabilities(args, trained, [one[key_of(dose, restoration)] for one in shown])
            table = pd.DataFrame(guessed, columns=[f"p{c}" for c in range(guessed.shape[1])])
            table = table.assign(
                training=name, dose=str(dose), fraction=dose.fraction, noise=dose.noise, restoration=restoration,
                subject=[entry["subject"] for entry in listed], label=[int(entry["label"]) for entry in listed],
            )  # fmt: skip
            tables.append(table)
    return pd.concat(tables, ignore_index=True)


def scores(predictions: pd.DataFrame) -> pd.DataFrame:
    """The measures of each row of the table, with intervals, and McNemar against full dose of the same training."""
    columns, found = [name for name in predictions if name.startswith("p") and name[1:].isdigit()], []
    groups = predictions.groupby(["training", "dose", "restoration"], sort=False)
    right = {names: (of[columns].to_numpy().argmax(axis=1) == of["label"]).to_numpy() for names, of in groups}
    for (training, dose, restoration), of in groups:
        row: dict[str, Any] = {"training": training, "dose": dose, "restoration": restoration}
        row |= {"fraction": of["fraction"].iloc[0], "noise": of["noise"].iloc[0], "n": len(of)}
        values = score_intervals(of[columns].to_numpy(), of["label"].to_numpy(), of["subject"].to_numpy())
        for name, interval in values.items():
            row |= {name: interval.mean, f"{name} low": interval.low, f"{name} high": interval.high}
        change = mcnemar(right[FULL_DOSE, str(FULL), AS_IT_IS], right[training, dose, restoration])
        found.append({**row, **change._asdict()})
    return pd.DataFrame(found)


def table(found: pd.DataFrame, missing: dict[str, str]) -> str:
    """The scores in Markdown."""
    head = ["trained on", "tested on", "restored by", *CLASSIFICATION_MEASURES, "lost", "gained", "McNemar p"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for row in found.to_dict("records"):
        cells = [row["training"], row["dose"], row["restoration"] if row["fraction"] < 1 else ""]
        for name in CLASSIFICATION_MEASURES:
            cells.append(f"{row[name]:.3f} [{row[f'{name} low']:.3f}, {row[f'{name} high']:.3f}]")
        cells += [str(row["n_lost"]), str(row["n_gained"]), f"{row['p_value']:.2g}"]
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", *(f"- {name}: {why}" for name, why in missing.items())]
    return "\n".join(lines) + (
        f"\n\n{found['n'].iloc[0]} test slices. Intervals: 95 %, bootstrap by subject. Lost: slices "
        "that are right at full dose with the network trained on it, and wrong in the row; gained: the other way "
        "round; p: McNemar's exact test."
    )


def figure(found: pd.DataFrame, path: Path) -> None:
    """Accuracy against dose, a line for each restoration, and one for the control."""
    drawing = Figure(figsize=(7.5, 4.8), layout="constrained")
    axes = drawing.subplots()
    control = f"trained on {LOW_DOSE}, {AS_IT_IS}"
    full = found[(found["fraction"] == 1) | (found["noise"] == PROJECTIONS)]
    of_full = full[full["training"] == FULL_DOSE]
    lines = [(name, of_full[of_full["restoration"] == name]) for name in full["restoration"].unique()]
    lines.append((control, full[(full["training"] == LOW_DOSE) & (full["restoration"] == AS_IT_IS)]))
    reference = of_full[of_full["fraction"] == 1]
    for i, (name, line) in enumerate(lines):
        if name not in (AS_IT_IS, control):
            line = pd.concat([reference, line])
        line = line.sort_values("fraction")
        centre, low, high = (100 * line[column].to_numpy() for column in ("accuracy", "accuracy low", "accuracy high"))
        beside = line["fraction"].to_numpy() * 1.03 ** (i - (len(lines) - 1) / 2)  # so that the bars do not overlap
        axes.errorbar(beside, centre, (centre - low, high - centre), marker="o", capsize=3, label=name)
    axes.set(xscale="log", xlabel="dose, simulated in the projections", ylabel="accuracy, %, with 95 % intervals")
    axes.set_xticks(sorted(full["fraction"].unique()), [f"{a:g}" for a in sorted(full["fraction"].unique())])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend()
    with written_whole(path) as draft:
        drawing.savefig(draft, dpi=150, format="png")


def config_of(args: argparse.Namespace, stage: str = RELEASE, name: str = FULL_DOSE) -> ConfigParser:
    """The bundle's train.json under the overlay of a stage of the training, with the budget of the command line."""
    parser = ConfigParser()
    parser.read_config([str(BUNDLE / "configs" / f"{part}.json") for part in ("train", stage)])
    data_list = args.out / name.replace(" ", "_") / LIST
    options: dict[str, Any] = {
        "bundle_root": str(BUNDLE), "data_list": str(data_list), "dataset_dir": str(data_list.parent),
        "image_size": args.image_size // (2 if stage == COARSE else 1), "slices_per_scan": 1,
        "ckpt_dir": str(args.out / f"{name.replace(' ', '_')}_{args.image_size}_{stage}"), "resume": True,
        "seed": args.seed, "device": torch.device(args.device), "amp": args.amp,
    }  # fmt: skip
    if args.epochs is not None:
        options |= {"max_epochs": args.epochs, "val_interval": min(int(parser["val_interval"]), args.epochs)}
    parser.update(options)
    return parser


def prepared(hu: np.ndarray, args: argparse.Namespace) -> Tensor:
    """A slice ``(y, x)`` in HU as the bundle shows it to the classifier: ``(1, x, y)``."""
    _, *steps = config_of(args).get_parsed_content("preprocessing_steps")  # the first one reads files
    image = torch.from_numpy(np.ascontiguousarray(hu.T, dtype=np.float32))[None]
    return torch.as_tensor(Compose(steps)({"image": image})["image"]).as_subclass(Tensor)


class Classifier(NamedTuple):
    """A trained network and how its logits become probabilities."""

    network: nn.Module
    inferer: Inferer
    temperature: float


def classifier_weights(args: argparse.Namespace, name: str) -> Path:
    """Those that know full dose, or that went on from there on low dose."""
    if name == LOW_DOSE:
        return trained(args, name, RELEASE, start_from=classifier_weights(args, FULL_DOSE))
    if takes_released(args):
        return RELEASED
    return trained(args, name, RELEASE, start_from=trained(args, name, COARSE))


def classifier(args: argparse.Namespace, name: str) -> Classifier:
    """The bundle's network with the weights of a training."""
    weights = classifier_weights(args, name)
    list_of(args, name)
    parser = config_of(args, RELEASE, name)
    network = parser.get_parsed_content("network")
    load_weights(weights, network)
    return Classifier(network.eval(), parser.get_parsed_content("validate#inferer"), read_card(weights)["temperature"])


def takes_released(args: argparse.Namespace) -> bool:
    """Whether the released weights are what a training would give: of the embedded phantoms, as large as asked for."""
    if args.retrain or args.quick or args.data_list is not None:
        return False
    return bool(read_card(RELEASED)["image_size"] == args.image_size)


def trained(args: argparse.Namespace, name: str, stage: str, start_from: Path | None = None) -> Path:
    """The weights of a training: from --out, going on where it stopped."""
    list_of(args, name)
    parser = config_of(args, stage, name)
    if start_from is not None:  # a training that went on from other weights is another training
        parser.update({"start_from": str(start_from), "ckpt_dir": f"{parser['ckpt_dir']}_{mark_of(start_from)}"})
    if name == LOW_DOSE and args.epochs is None:
        parser["max_epochs"] = CONTROL_EPOCHS
    weights = Path(parser["ckpt_dir"]) / BEST
    if not card_path(weights).is_file():  # which a training writes last
        print(f"training on {name}, {parser['image_size']} pixels", flush=True)
        parser.get_parsed_content("initialize")
        parser.get_parsed_content("run")
    return weights


def arguments(given: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data_list", type=Path, help="with classes; default: the embedded lung phantoms")
    parser.add_argument("--dataset_dir", type=Path, help="where the list's paths start, or the phantoms are made")
    parser.add_argument("--out", type=Path, help="default: .data/dose_study, or .data/dose_study_quick")
    parser.add_argument("--image_size", type=int, help="pixels a side that the classifier sees; default 256, quick 64")
    parser.add_argument("--epochs", type=int, help="of each training; default: as in the overlays, quick 2")
    parser.add_argument("--retrain", action="store_true", help="instead of taking the released weights for full dose")
    parser.add_argument("--test_slices", type=int, help="only so many, the first ones; default: all")
    parser.add_argument(
        "--picture_hu", type=float, nargs=2, default=(-1000, 400), metavar=("BLACK", "WHITE"),
        help="what black and white mean in pictures, where the list does not say",
    )  # fmt: skip
    parser.add_argument("--fov_mm", type=float, default=350.0, help="longer side of a picture")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=n_cores())
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--amp", action=argparse.BooleanOptionalAction, default="auto", help="bfloat16")
    parser.add_argument("--slow", action="store_true", help=f"also {', '.join(SLOW)}, which takes an hour and a half")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--table", action="store_true", help="print what is finished, and do nothing else")
    args = parser.parse_args(given)
    args.image_size = args.image_size or (QUICK_SETTINGS["image_size"] if args.quick else 256)
    args.epochs = args.epochs or (QUICK_SETTINGS["epochs"] if args.quick else None)
    args.out = args.out or Path(".data") / ("dose_study_quick" if args.quick else "dose_study")
    return args


def main(given: list[str] | None = None) -> None:
    """Do what is missing, and print the table."""
    args = arguments(given)
    if not args.table:
        start = time.monotonic()
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s", datefmt="%H:%M:%S")
        logging.getLogger("ignite").setLevel(logging.WARNING)
        writable_folder(args.out)
        predictions = classify(args)
        with written_whole(args.out / PREDICTIONS) as draft:
            predictions.to_csv(draft, index=False)
        write_json(remarks(args), args.out / REMARKS)
        print(f"{(time.monotonic() - start) / 60:.1f} minutes", flush=True)
    if not (args.out / PREDICTIONS).is_file():
        raise SystemExit(f"{args.out / PREDICTIONS}: nothing finished yet. Remedy: run it without --table.")
    found = scores(pd.read_csv(args.out / PREDICTIONS))
    text = table(found, read_json(args.out / REMARKS))
    with written_whole(args.out / TABLE) as draft:
        draft.write_text(text + "\n", encoding="utf-8")
    figure(found, args.out / FIGURE)
    print(f"{text}\n\nFigure: {args.out / FIGURE}")


if __name__ == "__main__":
    main()
