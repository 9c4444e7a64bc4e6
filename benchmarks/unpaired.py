"""Denoising learned from scans without partners: CycleGAN, IdentityGAN, GAN-CIRCLE, and what they are compared with.

    python benchmarks/unpaired.py --quick                                        # to try: on embedded phantoms
    python benchmarks/unpaired.py --data_list LIST --dataset_dir DATA --cache_dir CACHE --minutes 60
    python benchmarks/unpaired.py ... --trained gan_circle=bundles/ldct_denoising/runs_gan_circle redcnn=redcnn.pt
    python benchmarks/unpaired.py --table --out .data/unpaired                   # from what is finished

The GANs are one trainer with different weights of its losses (the overlays gan_circle.json, gan_circle_means.json,
identitygan.json and cyclegan.json of the bundle `ldct_denoising`), trained on quarter dose simulated in the
projections: low dose of half of the training subjects, full dose of the others. RED-CNN is trained on the pairs of all
of them, with its recipe. Every model gets --steps batches, "means kept" a quarter as many on top of GAN-CIRCLE's, from
which it goes on; --minutes stops a call after so long a model, and the next call goes on. What is trained already is
taken as it is with --trained, whatever it was trained with, and the table says so. Weights of the GANs are chosen by
validation without a reference, those of RED-CNN by PSNR.

Two noises are tested on, of the same test slices: quarter dose in the projections, and the "12-bit Poisson" noise of
the course that this table goes back to, which no model was trained on. It came to 12.08 dB and an SSIM of 0.294 there,
what an input gives that is not divided by its dose again; divided, the input has 36.46 dB and 0.902 on the same kind
of 8-bit images. Both stand below the table, and neither compares with its rows, which are in HU.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
import math
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from ignite.engine import Engine, Events
from monai.bundle import ConfigParser

from ctrestore.ct import add_poisson_12bit
from ctrestore.io.whole import writable_folder
from ctrestore.metrics import PROTOCOLS, bootstrap_by_patient, compare_by_patient
from ctrestore.tasks.ct_report.pairs import pair_of
from ctrestore.tasks.ct_report.scores import INPUT, Restorer, SlicePair, evaluate_slices
from ctrestore.tasks.ct_restoration.restored_slice import restored_slice
from ctrestore.tasks.ldct_denoising.classical import NLM, bm3d, classical_restorers, has_bm3d, svd_shrinkage
from ctrestore.training.inferers import MixedPrecisionInferer
from ctrestore.training.weights import BEST, LAST, load_weights

CONFIGS = Path(__file__).resolve().parent.parent / "bundles" / "ldct_denoising" / "configs"
DOSE = 0.25
MODELS = {
    "cyclegan": ("CycleGAN", ("train", "gan_circle", "cyclegan")),
    "identitygan": ("IdentityGAN", ("train", "gan_circle", "identitygan")),
    "gan_circle": ("GAN-CIRCLE", ("train", "gan_circle")),
    "gan_circle_means": ("GAN-CIRCLE, means kept", ("train", "gan_circle", "gan_circle_means")),
    "redcnn": ("RED-CNN, supervised", ("train", "redcnn")),
}
SECOND_STAGE, FIRST_STAGE, SHARE_OF_STEPS = "gan_circle_means", "gan_circle", 0.25
SVD, BM3D = "SVD of patches", "BM3D"
PROJECTIONS, POISSON = "projection-domain quarter dose", "12-bit Poisson, 0.25"
SCORES, TRAININGS, PROTOCOLS_SHOWN = "scores.csv", "trainings.json", ("hu400_soft_tissue", "full4096")
QUICK: dict[str, Any] = {
    "steps": 24, "patch_size": [32, 32], "batch_size": 4, "patches_per_slice": 2, "training_subjects": 6,
    "slices_per_scan": 1, "n_noise": 1, "val_interval": 2,
}  # fmt: skip


def config_of(args: argparse.Namespace, name: str) -> ConfigParser:
    """The bundle's config of a model, with the data and the budget of the command line."""
    label, stack = MODELS[name]
    parser = ConfigParser()
    parser.read_config([str(CONFIGS / f"{part}.json") for part in stack])
    options: dict[str, Any] = {
        "bundle_root": str(CONFIGS.parent), "data_list": args.data_list, "ckpt_dir": str(args.out / name),
        "cache_dir": args.cache_dir or str(args.out / "cache"), "device": args.device, "seed": args.seed,
        "dose_fraction": [DOSE, DOSE], "photons_factor": [1.0, 1.0], "validation_doses": [DOSE],
        "patience_epochs": None, "resume": True,
    }  # fmt: skip
    if args.dataset_dir is not None:
        options["dataset_dir"] = args.dataset_dir
    if name == SECOND_STAGE:
        options |= {"start_from": str(weights_of(args, FIRST_STAGE).parent / LAST), "seed": args.seed + 1}
    if args.quick:
        options |= {key: value for key, value in QUICK.items() if key != "steps"}
        if name == "redcnn":
            options["network_def#features"] = 12
        else:
            options |= {"network_def#features": [12, 12, 12], "backward_network_def#features": [12, 12, 12]}
            options |= {f"{critic}_def#features": [16, 16, 16, 16] for critic in ("critic", "backward_critic")}
    parser.update(options)
    return parser


def epochs_of(args: argparse.Namespace, name: str) -> tuple[int, int]:
    """Epochs of a model's training, and batches of an epoch."""
    parser = config_of(args, name)
    parser["max_epochs"] = 1  # until the length of an epoch is known
    length = len(parser.get_parsed_content("train#dataloader"))
    return math.ceil((SHARE_OF_STEPS if name == SECOND_STAGE else 1) * args.steps / length), length


def is_finished(args: argparse.Namespace, name: str) -> bool:
    """Whether the state of a training that came to its end is there; whatever --trained names has."""
    last = weights_of(args, name).parent / LAST
    if not last.is_file():
        return False
    return name in args.trained or torch.load(last, weights_only=True)["epoch"] >= epochs_of(args, name)[0]


def train(args: argparse.Namespace, name: str) -> None:
    """Train a model, or go on with it, until its steps or the minutes are over."""
    epochs, length = epochs_of(args, name)
    if is_finished(args, name):
        return
    if name == SECOND_STAGE and not is_finished(args, FIRST_STAGE):
        print(
            f"{MODELS[name][0]}: waits for {MODELS[FIRST_STAGE][0]}, whose {LAST} is not there or not finished",
            flush=True,
        )
        return
    parser = config_of(args, name)
    parser["max_epochs"], parser["val_interval"] = epochs, max(1, min(epochs // 10, int(parser["val_interval"])))
    parser.get_parsed_content("initialize")
    trainer, start = parser.get_parsed_content("train#trainer"), time.monotonic()

    def stop_in_time(engine: Engine) -> None:
        if time.monotonic() - start > 60 * args.minutes:
            print(f"{MODELS[name][0]}: {args.minutes:g} minutes are over; call again to go on", flush=True)
            engine.terminate()

    trainer.add_event_handler(Events.EPOCH_COMPLETED, stop_in_time)
    print(f"{MODELS[name][0]}: {epochs} epochs of {length} batches", flush=True)
    trainer.run()


def weights_of(args: argparse.Namespace, name: str) -> Path:
    """Where the weights of a model are, if there are any: in a folder of its own here, or where the user says."""
    given = args.trained.get(name)
    if given is None:
        return args.out / name / BEST
    weights = given / BEST if given.is_dir() else given
    if not weights.is_file():
        raise SystemExit(f"--trained {name}={given}: there is no {weights}. Remedy: a {BEST}, or the folder of one.")
    return weights


def training_of(args: argparse.Namespace, name: str) -> str:
    """How long a model was trained, in words, as far as the state of its training lies beside its weights."""
    weights, where = weights_of(args, name), "trained before" if name in args.trained else "trained here"
    if not (weights.parent / LAST).is_file():
        return where
    state = torch.load(weights.parent / LAST, weights_only=True)
    after = f" after those of {MODELS[FIRST_STAGE][0]}" if name == SECOND_STAGE else ""
    epochs = f"weights of epoch {state['best_metric_epoch']} of {state['epoch']}"
    return f"{where}: {state['iteration']} batches{after}, {epochs}"


def networks(args: argparse.Namespace) -> dict[str, Restorer]:
    """The trained models that there are, from slice to slice."""
    found: dict[str, Restorer] = {}
    for name, (label, _) in MODELS.items():
        weights = weights_of(args, name)
        if weights.is_file():
            network = config_of(args, name).get_parsed_content("network")
            load_weights(weights, network)
            found[label] = partial(restored_slice, network=network.eval(), inferer=MixedPrecisionInferer(args.amp))
    return found


def test_pairs(args: argparse.Namespace, noise: str) -> Iterator[SlicePair]:
    """The test slices under one of the two noises."""
    parser = ConfigParser()
    parser.read_config([str(CONFIGS / "train.json"), str(CONFIGS / "evaluate.json")])
    parser.update({"bundle_root": str(CONFIGS.parent), "data_list": args.data_list, "doses": [DOSE]})
    parser.update(
        {"test_subjects": 4 if args.quick else None, "slices_per_scan": 1, "test_slices#section": args.section}
    )
    if args.dataset_dir is not None:
        parser["dataset_dir"] = args.dataset_dir
    dataset = parser.get_parsed_content("test_dataset")
    for i in range(len(dataset)):
        pair = pair_of(dataset[i])
        if noise == POISSON:
            pair = dataclasses.replace(pair, low=add_poisson_12bit(pair.filled, dose_fraction=DOSE, seed=i))
        yield pair


def evaluate(args: argparse.Namespace) -> pd.DataFrame:
    """All rows on all test slices under both noises."""
    rows = {SVD: svd_shrinkage, NLM: classical_restorers(DOSE)[NLM]}
    if args.bm3d and has_bm3d():
        rows[BM3D] = bm3d
    rows |= networks(args)
    found = [
        evaluate_slices(test_pairs(args, noise), rows, n_threads=args.threads).assign(noise=noise)
        for noise in (PROJECTIONS, POISSON)
    ]
    return pd.concat(found, ignore_index=True)


def _cell(values: pd.Series, patients: pd.Series, digits: int) -> str:
    if patients.nunique() < 2:
        return f"{values.mean():.{digits}f}"
    found = bootstrap_by_patient(values.to_numpy(), patients.to_numpy())
    return f"{found.mean:.{digits}f} [{found.low:.{digits}f}, {found.high:.{digits}f}]"


def table(scores: pd.DataFrame, trained: dict[str, str]) -> str:
    """Means over patients with 95 % intervals, in Markdown, and how each model (of a label) was trained."""
    columns = {f"{score}[{name}]": (title, digits) for name in PROTOCOLS_SHOWN for score, title, digits in (
        ("psnr_db", f"PSNR dB [{name}]", 2), ("ssim", f"SSIM [{name}]", 4), ("rmse", f"RMSE HU [{name}]", 2),
    )}  # fmt: skip
    bias = "bias_hu[soft tissue]"
    lines = []
    for noise, of_noise in scores.groupby("noise", sort=False):
        slices = of_noise[of_noise["row"] == INPUT]
        lines += [f"\n{noise}: {len(slices)} slices of {slices['patient'].nunique()} patients\n"]
        lines += [f"| | {' | '.join(title for title, _ in columns.values())} | soft tissue HU | s |"]
        lines += ["|---" * (len(columns) + 3) + "|"]
        for row, of_row in of_noise.groupby("row", sort=False):
            cells = [_cell(of_row[column], of_row["patient"], digits) for column, (_, digits) in columns.items()]
            drift = f"{of_row[bias].mean():+.2f}"
            lines.append(f"| {row} | {' | '.join(cells)} | {drift} | {of_row['seconds'].mean():.2f} |")
        lines += _comparisons(of_noise)
    protocols = "\n".join(f"- {PROTOCOLS[name]}" for name in PROTOCOLS_SHOWN)
    trainings = "\n".join(f"- {label}, {how}" for label, how in trained.items())
    return "\n".join(lines) + (
        f"\n\n{trainings}\n\nMeans over patients, 95 % intervals bootstrapped by patient. Protocols:\n{protocols}\n\n"
        "The course that this goes back to reports GAN-CIRCLE with 12.08 dB and an SSIM of 0.294 (8-bit images of "
        "unknown window). That is what its noise gives when counts are not divided by the dose (12.27 dB); divided, "
        "the untouched input has 36.46 dB and 0.902 there."
    )


def _comparisons(scores: pd.DataFrame) -> list[str]:
    """Whether each learned row is better than the input and than non-local means, paired by patient."""
    lines, column = [""], "rmse[hu400_soft_tissue]"
    of = {row: found.set_index("slice") for row, found in scores.groupby("row", sort=False)}
    if scores["patient"].nunique() < 2:
        return []
    for label, _ in MODELS.values():
        for baseline in (INPUT, NLM):
            if label in of:
                new, old = of[label], of[baseline].loc[of[label].index]
                found = compare_by_patient(new[column].to_numpy(), old[column].to_numpy(), new["patient"].to_numpy())
                lines.append(f"- {label} minus {baseline}, RMSE HU [hu400_soft_tissue]: {found}")
    return lines


def arguments(given: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data_list", help="full dose or pairs; default: the embedded phantoms")
    parser.add_argument("--dataset_dir", help="where the list's paths start, or the phantoms are made")
    parser.add_argument("--cache_dir", help="keeps the noise of the training slices; default: OUT/cache")
    parser.add_argument("--out", type=Path, help="default: .data/unpaired, or .data/unpaired_quick")
    parser.add_argument("--models", nargs="*", choices=list(MODELS), default=list(MODELS))
    parser.add_argument(
        "--trained", nargs="*", default=[], metavar="MODEL=PATH", help="weights, or folders of them, not to train again"
    )
    parser.add_argument("--section", default="test", help="of the data list, to be scored on")
    parser.add_argument("--steps", type=int, help="batches for each model; default 3000, quick 24")
    parser.add_argument("--minutes", type=float, default=math.inf, help="for each model and call")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=None, help="slices that are measured at once")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--bm3d", action="store_true", help="needs deepinv and ptwt; 20 s a slice")
    parser.add_argument("--amp", action=argparse.BooleanOptionalAction, default=False, help="bfloat16 at test time")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--train_only", action="store_true", help="no scores; for models that train side by side")
    parser.add_argument("--table", action="store_true", help="print what is finished, and do nothing else")
    args = parser.parse_args(given)
    pairs = [one.partition("=") for one in args.trained]
    if wrong := [name for name, _, path in pairs if name not in MODELS or not path]:
        parser.error(f"--trained takes MODEL=PATH with a model of {', '.join(MODELS)}; got {wrong[0]!r}.")
    args.trained = {name: Path(path) for name, _, path in pairs}
    args.steps = args.steps or (QUICK["steps"] if args.quick else 3000)
    args.out = args.out or Path(".data") / ("unpaired_quick" if args.quick else "unpaired")
    return args


def main(given: list[str] | None = None) -> None:
    """Train what is missing, evaluate, and print the table."""
    args = arguments(given)
    if not args.table:
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s", datefmt="%H:%M:%S")
        logging.getLogger("ignite").setLevel(logging.WARNING)
        writable_folder(args.out)
        for name in args.models:
            if name not in args.trained:
                train(args, name)
        if args.train_only:
            return
        evaluate(args).to_csv(args.out / SCORES, index=False)
        how = {
            label: training_of(args, name) for name, (label, _) in MODELS.items() if weights_of(args, name).is_file()
        }
        if not (args.bm3d and has_bm3d()):
            how[BM3D] = "not run" + (": deepinv and ptwt are not installed" if args.bm3d else ", for its time; --bm3d")
        (args.out / TRAININGS).write_text(json.dumps(how, indent=4) + "\n", encoding="utf-8")
    if not (args.out / SCORES).is_file():
        raise SystemExit(f"{args.out / SCORES}: nothing finished yet. Remedy: run it without --table.")
    print(table(pd.read_csv(args.out / SCORES), json.loads((args.out / TRAININGS).read_text(encoding="utf-8"))))


if __name__ == "__main__":
    main()
