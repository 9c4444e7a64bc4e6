"""RED-CNN, its variants, U-Net and attention on low-dose CT: every variant trained alike, and compared by patient.

    python benchmarks/ldct_ablation.py --quick                                       # to try: five minutes on two cores
    python benchmarks/ldct_ablation.py --data_list LIST --dataset_dir DATA --vgg_weights vgg16-397923af.pth
    python benchmarks/ldct_ablation.py --table --out .data/ldct_ablation             # from what is finished

Networks, losses, learning rates, data and transforms are those of the bundle `ldct_denoising`: `own` is its train.json,
every other variant the overlay of that name on it. All variants of a seed see the same patches in the same order, drawn
once; `own` differs in its loss and learning rate, too. Without a data list, the embedded phantoms.

A run (variant, seed) ends with `VARIANT-SEED.json` and `VARIANT-SEED.pt` in --out and is not done again; one that was
interrupted goes on from its last checkpoint, two minutes old at most. RMSE, PSNR and SSIM are of whole slices at a
quarter of the dose (in bfloat16 on CPUs, as inference does), beside the figures that the study of RED-CNN with
attention published (its own data, one epoch, 1 mm slices). Both the validation and the test patients are scored:
nothing is chosen by their scores.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.bundle import ConfigParser
from monai.transforms import CenterSpatialCropd
from torch import Tensor, nn

from ctrestore.ct import denormalise
from ctrestore.io.ct_scan import spread_evenly
from ctrestore.io.whole import read_json, writable_folder, write_json
from ctrestore.metrics import PROTOCOLS, bootstrap_by_patient, compare_by_patient, scores
from ctrestore.training.imagenet import vgg16_relu3_3, weights_file
from ctrestore.training.inferers import MixedPrecisionInferer
from ctrestore.training.precision import Amp
from ctrestore.training.prepared_data import prepared_dataset
from ctrestore.training.weights import save_atomically

BUNDLE = Path(__file__).resolve().parent.parent / "bundles" / "ldct_denoising"
VARIANTS = {
    "own": "UnshuffledUNet (own)",
    "redcnn": "RED-CNN",
    "redcnn_kaiming": "RED-CNN, Kaiming",
    "redcnn_vgg": "RED-CNN, VGG loss",
    "redcnn_batchnorm": "RED-CNN, batch norm",
    "redcnn_channel_attention": "RED-CNN, channel attention",
    "redcnn_spatial_attention": "RED-CNN, spatial attention",
    "unet": "U-Net",
    "unet_channel_attention": "U-Net, channel attention",
    "unet_spatial_attention": "U-Net, spatial attention",
    "unet_residual": "U-Net, input added",
}
QUICK_VARIANTS = ("own", "redcnn", "redcnn_kaiming", "unet")
INPUT = "input"
#: What the study published: RMSE in HU (500 times its numbers), PSNR and SSIM of its six groups of slices.
PUBLISHED = {
    "redcnn": "20.1; 27.62-30.34; 0.673-0.745",
    "redcnn_kaiming": "20.4; 27.50-30.23; 0.673-0.745",
    "redcnn_vgg": "20.9; 27.28-29.94; 0.677-0.745",
    "redcnn_batchnorm": "23.6; 26.01-28.12; 0.660-0.725",
}
#: Better and worse, as the study found; then what else one would ask.
CLAIMS = (
    ("redcnn", "redcnn_kaiming", "published"),
    ("redcnn_kaiming", "redcnn_vgg", "published"),
    ("redcnn_vgg", "redcnn_batchnorm", "published"),
    ("redcnn", "redcnn_batchnorm", "published"),
    ("redcnn", "unet", "published"),
    ("redcnn_channel_attention", "redcnn", ""),
    ("redcnn_spatial_attention", "redcnn", ""),
    ("unet_channel_attention", "unet", ""),
    ("unet_spatial_attention", "unet", ""),
    ("unet_residual", "unet", ""),
    ("redcnn", "unet_residual", ""),
    ("own", "redcnn", ""),
)
THEIRS, USUAL = "hu500_notebook", "hu400_soft_tissue"
DOSE = 0.25
N_CURVE_POINTS, N_CURVE_SLICES, CURVE_SIDE = 10, 6, 192
CHECKPOINT_EVERY_S = 120.0
Scan = dict[str, Any]


@dataclass(frozen=True)
class Data:
    """What is trained on and scored, and where; None leaves what train.json says."""

    data_list: Path | None
    dataset_dir: Path | None
    cache_dir: Path
    device: str
    patch_size: int = 55
    training_subjects: int | None = None
    slices_per_scan: int | None = None
    n_noise: int | None = None
    vgg_weights: Path | None = None


def add_data_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments that `data_of` reads."""
    parser.add_argument("--data_list", type=Path, help="as for train.json; without: the embedded phantoms")
    parser.add_argument("--dataset_dir", type=Path, help="folder that the list's paths start from")
    parser.add_argument("--cache_dir", type=Path, help="of prepared slices; default: the folder of the study")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")


def data_of(args: argparse.Namespace, folder: Path, **more: Any) -> Data:
    """The data that a command line names, prepared in a folder unless it names one."""
    return Data(args.data_list, args.dataset_dir, args.cache_dir or folder / "cache", args.device, **more)


def config_of(data: Data, variant: str = "own") -> ConfigParser:
    """train.json, under a variant's overlay, with these data."""
    files = [BUNDLE / "configs" / "train.json"]
    files += [] if variant == "own" else [BUNDLE / "configs" / f"{variant}.json"]
    parser = ConfigParser()
    parser.read_config([str(file) for file in files])
    parser["bundle_root"] = str(BUNDLE)
    parser["patch_size"] = [data.patch_size] * 2
    parser["validation_doses"] = [DOSE]
    parser["told_dose"] = False  # the others are not told, either
    if variant == "own":
        parser["network_def#in_channels"] = 1
    parser["train#dataset#n_threads"] = os.cpu_count()
    for name, value in asdict(data).items():
        known = name != "patch_size" and (name != "vgg_weights" or name in parser)
        if value is not None and known:
            parser[name] = str(value) if isinstance(value, Path) else value
    return parser


def draw_patches(data: Data, n: int, seed: int) -> tuple[Tensor, Tensor]:
    """Low- and full-dose patches ``(n, 1, side, side)`` in HU / 1000, the same for all variants of a seed."""
    start = time.perf_counter()
    dataset = config_of(data).get_parsed_content("train#dataset")
    dataset.transform.set_random_state(seed)
    order = np.random.default_rng(seed)
    images = torch.empty(n, 1, data.patch_size, data.patch_size)
    labels = torch.empty_like(images)
    slices: list[int] = []
    for i in range(n):
        slices = slices or order.permutation(len(dataset)).tolist()  # every slice gives as many
        drawn = dataset[slices.pop()]
        images[i], labels[i] = drawn["image"], drawn["label"]
    seconds = time.perf_counter() - start
    log(f"seed {seed}: {n} patches of {len(dataset)} slices drawn in {seconds:.0f} s")
    return images, labels


def scans_to_score(data: Data, section: str, *, n: int | None = None, per_patient: int | None = None) -> list[Scan]:
    """Slices of a section at a quarter of the dose: ``image`` and ``label`` in HU / 1000, and their ``subject``."""
    parser = config_of(data)
    parser["validate#dataset#data#section"] = section
    entries = parser.get_parsed_content("validate#dataset#data")
    of_patient = defaultdict(list)
    for entry in entries:
        of_patient[entry["subject"]].append(entry)
    chosen = [found[i] for found in of_patient.values() for i in spread_evenly(len(found), per_patient)]
    chosen = [chosen[i] for i in spread_evenly(len(chosen), n)]
    steps = parser.get_parsed_content("validate#preprocessing")
    dataset = prepared_dataset(chosen, steps, parser["cache_dir"], n_threads=os.cpu_count() or 1)
    return [{**entry, **dataset[i]} for i, entry in enumerate(chosen)]


def middle_of(scan: Scan, side: int) -> Scan:
    """The scan cut to a square about its middle."""
    crop = CenterSpatialCropd(keys=["image", "label"], roi_size=(side, side))
    return {**scan, **crop({key: scan[key] for key in ("image", "label")})}


def score(scan: Scan, pred: Tensor) -> dict[str, float]:
    """RMSE in HU, PSNR in dB and SSIM of a prediction under both protocols.

    What lies beyond the range of an 8-bit picture counts as its limit: nobody knows more of it.
    """
    low, high = scan.get("known_hu", (-np.inf, np.inf))
    pair = [denormalise(x[0].cpu().double().numpy()).clip(low, high) for x in (pred, scan["label"])]
    found = {}
    for name in (THEIRS, USUAL):
        numbers = scores(*pair, protocol=name)
        found[f"rmse_hu[{name}]"] = numbers.rmse * PROTOCOLS[name].scale
        found[f"psnr_db[{name}]"] = numbers.psnr_db
        found[f"ssim[{name}]"] = numbers.ssim
    return found


def score_all(network: nn.Module | None, scans: list[Scan], *, amp: Amp = False) -> list[dict[str, Any]]:
    """Scores of every scan; without a network those of the low dose itself.

    Args:
        network: left in evaluation mode.
        scans: to restore and score.
        amp: in bfloat16 instead of float32, for the curves.
    """
    preds = [scan["image"] for scan in scans]
    if network is not None:
        device, infer = next(network.parameters()).device, MixedPrecisionInferer(enabled=amp)
        network.eval()
        with torch.inference_mode():
            preds = [infer(image[None].to(device), network)[0].cpu() for image in preds]
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # SSIM takes longer than a network on a GPU
        found = list(pool.map(score, scans, preds))
    return [{"subject": scan["subject"], "slice": scan["slice"], **row} for scan, row in zip(scans, found)]


def mean_of(rows: list[dict[str, Any]]) -> dict[str, float]:
    """The mean scores of slices."""
    return {key: statistics.fmean(row[key] for row in rows) for key in rows[0] if "[" in key}


def train(
    args: argparse.Namespace, variant: str, seed: int, patches: tuple[Tensor, Tensor], curve_scans: list[Scan]
) -> tuple[nn.Module, dict[str, Any]]:
    """The trained network, and what there is to say about its training.

    Raises:
        FloatingPointError: the loss became infinite or NaN.
    """
    parser, n_steps = config_of(args.data, variant), args.n_patches // args.batch_size
    torch.manual_seed(seed)
    parser["lr_scheduler#total_steps"] = n_steps
    network, loss_of, optimizer, scheduler, infer = (
        parser.get_parsed_content(key) for key in ("network", "loss", "optimizer", "lr_scheduler", "train#inferer")
    )
    device, largest = next(network.parameters()).device, parser["max_gradient_norm"]
    done: dict[str, Any] = {"step": 0, "seconds": 0.0, "curve": []}
    checkpoint = args.out / f"{variant}-{seed}.checkpoint.pt"
    if checkpoint.is_file():
        state = torch.load(checkpoint, map_location=device, weights_only=True)
        for part, name in ((network, "network"), (optimizer, "optimizer"), (scheduler, "scheduler")):
            part.load_state_dict(state[name])
        done = state["done"]
        log(f"{variant} seed {seed}: goes on at step {done['step']} of {n_steps}")
    points = {round(n_steps * (i + 1) / N_CURVE_POINTS) for i in range(N_CURVE_POINTS)}
    saved, lap = time.perf_counter(), time.perf_counter()
    network.train()
    for step in range(done["step"] + 1, n_steps + 1):
        batch = slice((step - 1) * args.batch_size, step * args.batch_size)
        image, label = (part[batch].to(device) for part in patches)
        loss = loss_of(infer(image, network), label)
        if not torch.isfinite(loss):
            raise FloatingPointError(f"the loss was {loss.item()} at step {step} of {n_steps}")
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), largest)
        optimizer.step()
        scheduler.step()
        done["step"] = step
        if step in points:
            done["seconds"] += time.perf_counter() - lap
            rows = score_all(network, curve_scans, amp="auto")
            means = mean_of(rows)
            done["curve"].append({"n_patches": step * args.batch_size, "loss": loss.item(), **means})
            log(
                f"{variant} seed {seed}: {step * args.batch_size} patches, {done['seconds']:.0f} s, "
                f"loss {loss.item():.3g}, RMSE {means[f'rmse_hu[{THEIRS}]']:.2f} HU"
            )
            network.train()
            lap = time.perf_counter()
        if time.perf_counter() - saved > CHECKPOINT_EVERY_S and step < n_steps:
            done["seconds"] += time.perf_counter() - lap
            parts = {"network": network, "optimizer": optimizer, "scheduler": scheduler}
            save_atomically({**{name: part.state_dict() for name, part in parts.items()}, "done": done}, checkpoint)
            saved = lap = time.perf_counter()
    done["patches_per_second"] = done["step"] * args.batch_size / max(done["seconds"], 1e-9)
    return network, done


def run(args: argparse.Namespace) -> None:
    """Train and score what is not there yet: all variants of one seed, then of the next."""
    result: dict[str, Any]
    settings = {
        "n_patches": args.n_patches,
        "batch_size": args.batch_size,
        "patch_size": args.patch_size,
        "data_list": "embedded phantoms" if args.data_list is None else args.data_list.name,
        "sections": args.sections,
        "slices_per_patient": args.slices_per_patient,
        "quick": args.quick,
    }
    pending = [(seed, variant) for seed in range(args.seeds) for variant in args.variants]
    pending = [(seed, variant) for seed, variant in pending if not finished(args.out, variant, seed, settings)]
    if "redcnn_vgg" in args.variants:
        try:
            vgg16_relu3_3(args.vgg_weights)
        except ValueError as error:
            log(f"redcnn_vgg is not run: {error}")
            pending = [(seed, variant) for seed, variant in pending if variant != "redcnn_vgg"]
    if not pending and finished(args.out, INPUT, 0, settings):
        return
    crop = args.crop
    scans = [
        s for section in args.sections for s in scans_to_score(args.data, section, per_patient=args.slices_per_patient)
    ]
    scans = scans if crop is None else [middle_of(scan, crop) for scan in scans]
    curve_scans = scans_to_score(args.data, "validation", n=N_CURVE_SLICES)
    curve_scans = [middle_of(scan, CURVE_SIDE) for scan in curve_scans]
    if not finished(args.out, INPUT, 0, settings):
        rows = score_all(None, scans)
        curve = [{"n_patches": 0, **mean_of(score_all(None, curve_scans))}]
        result = {"variant": INPUT, "seed": 0, "settings": settings, "curve": curve, "scores": rows}
        write_json(result, args.out / f"{INPUT}-0.json")
    drawn: tuple[int, Any] = (-1, None)
    for seed, variant in pending:
        if drawn[0] != seed:
            drawn = (seed, None)  # the last seed's go before the next ones come
            drawn = (seed, draw_patches(args.data, args.n_patches, seed))
        result = {"variant": variant, "seed": seed, "settings": settings}
        try:
            network, done = train(args, variant, seed, drawn[1], curve_scans)
            result |= {
                "parameters": sum(p.numel() for p in network.parameters()),
                **done,
                "scores": score_all(network, scans, amp="auto" if args.device.startswith("cpu") else False),
            }
            half = {key: v.half() if v.is_floating_point() else v for key, v in network.state_dict().items()}
            save_atomically({key: value.cpu() for key, value in half.items()}, args.out / f"{variant}-{seed}.pt")
        except (FloatingPointError, ValueError) as error:  # scores refuse images that are not finite
            log(f"{variant} seed {seed}: {error}")
            result["failed"] = str(error)
        write_json(result, args.out / f"{variant}-{seed}.json")
        (args.out / f"{variant}-{seed}.checkpoint.pt").unlink(missing_ok=True)


def finished(out: Path, variant: str, seed: int, settings: dict[str, Any]) -> bool:
    """Whether a run is done.

    Raises:
        SystemExit: it was done with other settings, so that its numbers do not belong beside those of this command.
    """
    path = out / f"{variant}-{seed}.json"
    if not path.is_file():
        return False
    if (theirs := read_json(path)["settings"]) != settings:
        differ = ", ".join(f"{key} {theirs.get(key)!r}" for key in settings if theirs.get(key) != settings[key])
        raise SystemExit(f"{path} is of a run with {differ}. Remedy: the same settings, or another --out.")
    return True


def results_in(out: Path) -> dict[str, list[dict[str, Any]]]:
    """The finished runs of each variant, by seed."""
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for path in sorted(out.glob("*-[0-9]*.json")):
        result = read_json(path)
        found[result["variant"]].append(result)
    return found


def scored(results: list[dict[str, Any]], key: str, seeds: set[int] | None = None) -> tuple[list[float], list[str]]:
    """One number of every slice of every seed, and the patients."""
    rows = [row for r in results if "scores" in r and (seeds is None or r["seed"] in seeds) for row in r["scores"]]
    return [row[key] for row in rows], [row["subject"] for row in rows]


def cell(results: list[dict[str, Any]], key: str, digits: int) -> str:
    """Mean over patients with its interval."""
    values, patients = scored(results, key)
    if len(set(patients)) < 2:
        return f"{np.mean(values):.{digits}f}"
    interval = bootstrap_by_patient(values, patients)
    return f"{interval.mean:.{digits}f} ({interval.low:.{digits}f}-{interval.high:.{digits}f})"


def table(out: Path, variants: list[str], vgg_weights: Path | None) -> str:
    """The scores of every variant under both protocols, in Markdown."""
    found = results_in(out)
    if not found:
        raise SystemExit(f"there are no finished runs in {out}.")
    settings = next(iter(found.values()))[0]["settings"]
    columns = [(name, key, n) for name in (THEIRS, USUAL) for key, n in (("rmse_hu", 2), ("psnr_db", 2), ("ssim", 3))]
    units = {"rmse_hu": "RMSE HU", "psnr_db": "PSNR dB", "ssim": "SSIM"}
    heads = ["network", "parameters", "seeds", "s a run", "patches/s"]
    heads += [f"{units[key]} [{name}]" for name, key, _ in columns] + ["published RMSE HU; PSNR; SSIM"]
    lines = ["| " + " | ".join(heads) + " |", "|" + " --- |" * len(heads)]
    for variant in (INPUT, *variants):
        results, title = found.get(variant, []), VARIANTS.get(variant, "low dose, untouched")
        good = [result for result in results if "scores" in result]
        if good:
            row = [title, *([""] * 4)]
            if variant != INPUT:
                seconds, rate = (statistics.fmean(r[key] for r in good) for key in ("seconds", "patches_per_second"))
                failed = f" ({len(results) - len(good)} failed)" if len(good) < len(results) else ""
                row = [title, f"{good[0]['parameters']:,}", f"{len(good)}{failed}", f"{seconds:.0f}", f"{rate:.0f}"]
            row += [cell(good, f"{key}[{name}]", digits) for name, key, digits in columns]
        else:
            row = [title, f"not run: {why_not(variant, results, vgg_weights)}", *([""] * (len(heads) - 3))]
        lines.append("| " + " | ".join([*row, PUBLISHED.get(variant, "")][: len(heads)]) + " |")
    patients = len({row["subject"] for row in found[INPUT][0]["scores"]}) if INPUT in found else 0
    n_slices = len(found[INPUT][0]["scores"]) if INPUT in found else 0
    lines += [
        "",
        f"Data: {settings['data_list']}; {n_slices} slices of {patients} patients ({', '.join(settings['sections'])}) "
        f"at dose {DOSE}. Every run: {settings['n_patches']} patches of {settings['patch_size']} pixels a side, in "
        f"batches of {settings['batch_size']}. Mean over patients (95 % interval by patient), all seeds alike. "
        "What lies beyond the range of an 8-bit picture counts as its limit.",
        *(f"{PROTOCOLS[name]}" for name in (THEIRS, USUAL)),
    ]
    if settings["quick"]:
        lines.append(
            "QUICK: few patches, one seed, some variants, the middle of each slice. It shows that everything runs; "
            "nothing follows about the networks."
        )
    return "\n".join(lines)


def why_not(variant: str, results: list[dict[str, Any]], vgg_weights: Path | None) -> str:
    """Why there are no scores of a variant."""
    if results:
        return results[0]["failed"]
    if variant == "redcnn_vgg":
        try:
            weights_file("vgg16", vgg_weights)
        except ValueError:
            return "weights missing"
    return "no finished run"


def ranking(out: Path) -> str:
    """Which of two variants is better, where patients and seeds agree on it."""
    found, key = results_in(out), f"rmse_hu[{THEIRS}]"
    lines = []
    for better, worse, origin in CLAIMS:
        pair = [[r for r in found.get(variant, []) if "scores" in r] for variant in (better, worse)]
        seeds = {r["seed"] for r in pair[0]} & {r["seed"] for r in pair[1]}
        title = f"{VARIANTS[better]} > {VARIANTS[worse]}" + (f" ({origin})" if origin else "")
        if not seeds:
            lines.append(f"- {title}: not run")
            continue
        (new, patients), (old, _) = (scored(results, key, seeds) for results in pair)
        if len(set(patients)) < 2:
            lines.append(f"- {title}: no interval from one patient")
            continue
        by_published = [
            np.mean(scored(pair[0], key, {seed})[0]) - np.mean(scored(pair[1], key, {seed})[0])
            for seed in sorted(seeds)
        ]
        lines.append(f"- {title}: {verdict(new, old, patients, by_published)}")
    heading = (
        "Difference of RMSE in HU, first minus second, paired by slice; a rank needs two seeds or more, an interval"
    )
    return "\n".join([f"{heading} without 0 and the same sign in every seed.", *lines])


def verdict(new: list[float], old: list[float], patients: list[str], by_published: list[float]) -> str:
    """Whether the first is better (its RMSE lower), worse, or neither is shown."""
    compared = compare_by_patient(new, old, patients)
    low, high = compared.difference.low, compared.difference.high
    agree = len({bool(difference < 0) for difference in by_published}) == 1
    if low <= 0 <= high:
        answer = "no rank, the interval holds 0"
    elif len(by_published) < 2:
        answer = "no rank, one seed alone, whose luck no interval shows"
    elif not agree:
        answer = "no rank, the seeds disagree"
    else:
        answer = "holds" if high < 0 else "the other way round"
    return f"**{answer}**: {compared.difference.mean:+.2f} ({low:+.2f} to {high:+.2f})"


def figure(out: Path, path: Path) -> None:
    """RMSE, PSNR and SSIM along training: mean over seeds, and their range as a band."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    shown = ((f"rmse_hu[{THEIRS}]", "RMSE / HU"), (f"psnr_db[{USUAL}]", "PSNR / dB"), (f"ssim[{USUAL}]", "SSIM"))
    drawing, axes = plt.subplots(1, 3, figsize=(16.5, 4.5), layout="constrained")
    colours = plt.get_cmap("tab20").colors[::2] + plt.get_cmap("tab20").colors[1::2]  # type: ignore[attr-defined]
    found = results_in(out)
    for colour, (variant, title) in zip(colours, VARIANTS.items()):
        curves = [result["curve"] for result in found.get(variant, []) if result.get("curve") and "scores" in result]
        if not curves:
            continue
        x = [point["n_patches"] for point in curves[0]]
        for axis, (key, _) in zip(axes, shown):
            values = np.array([[point[key] for point in curve] for curve in curves])
            dashes = "--" if variant.startswith("unet") else "-"
            axis.plot(x, values.mean(axis=0), dashes, color=colour, label=title)
            axis.fill_between(x, values.min(axis=0), values.max(axis=0), color=colour, alpha=0.15, linewidth=0)
    for axis, (key, label) in zip(axes, shown):
        axis.set(xlabel="patches seen", ylabel=f"{label} [{key.split('[')[1]}")
        axis.grid(alpha=0.3)
        if INPUT in found:
            low_dose = found[INPUT][0]["curve"][0][key]
            axis.axhline(low_dose, color="0.4", linestyle=":", label="low dose")
            # A variant far worse than its input would flatten all others.
            bottom, top = axis.get_ylim()
            if key.startswith("rmse"):
                axis.set_ylim(max(bottom, 0.5 * low_dose), min(top, 1.2 * low_dose))
            else:
                axis.set_ylim(bottom=max(bottom, 0.85 * low_dose))
    drawing.legend(*axes[0].get_legend_handles_labels(), fontsize=8, loc="outside right center")
    drawing.suptitle(
        f"Validation along training: the middle of {N_CURVE_SLICES} slices at dose {DOSE}; lines may leave the panels",
        fontsize=11,
    )
    drawing.savefig(path, dpi=110)
    plt.close(drawing)


def log(line: str) -> None:
    """A line with the time of day, at once."""
    print(f"{time.strftime('%H:%M:%S')} {line}", flush=True)


def arguments(command: list[str] | None = None) -> argparse.Namespace:
    """The command line, in its quick form with smaller numbers where none were given."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_data_arguments(parser)
    parser.add_argument("--out", type=Path, help="default: .data/ldct_ablation, or .data/ldct_ablation_quick")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, metavar="NAME", help=", ".join(VARIANTS))
    parser.add_argument("--seeds", type=int, help="default: 3; quick: 1")
    parser.add_argument("--n_patches", type=int, help="of a run; default: 20480; quick: 320")
    parser.add_argument("--batch_size", type=int, help="default: 32; quick: 8, for more steps")
    parser.add_argument("--patch_size", type=int, default=55)
    sections = ["validation", "test"]
    parser.add_argument("--sections", nargs="+", choices=sections, help="to score; default: both; quick: test")
    parser.add_argument("--slices_per_patient", type=int, default=1, help="to score, evenly spread")
    parser.add_argument("--vgg_weights", type=Path, help="torchvision's vgg16-397923af.pth; default: its download")
    parser.add_argument("--quick", action="store_true", help="five minutes on two cores, to try")
    parser.add_argument("--table", action="store_true", help="no training: table, ranks and figure of what is finished")
    args = parser.parse_args(command)
    usual = {"batch_size": 32, "seeds": 3, "n_patches": 20480, "variants": list(VARIANTS), "sections": sections}
    quick = {"batch_size": 8, "seeds": 1, "n_patches": 320, "variants": list(QUICK_VARIANTS), "sections": ["test"]}
    out = Path(".data") / ("ldct_ablation_quick" if args.quick else "ldct_ablation")
    for name, value in {**(quick if args.quick else usual), "out": out}.items():
        if getattr(args, name) is None:
            setattr(args, name, value)
    few = {"training_subjects": 24, "slices_per_scan": 1, "n_noise": 1} if args.quick else {}
    args.data = data_of(args, args.out, patch_size=args.patch_size, vgg_weights=args.vgg_weights, **few)
    args.crop = 256 if args.quick else None
    if args.n_patches < args.batch_size or args.seeds < 1:
        parser.error("a run has one batch or more, and there is one seed or more")
    return args


def main() -> None:
    """Train what is missing, then print the table and the ranks, and draw the curves."""
    args = arguments()
    try:
        writable_folder(args.out)
    except ValueError as error:
        sys.exit(f"ldct_ablation: {error}")
    if not args.table:
        log(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {args.device}; results in {args.out}")
        run(args)
    report = f"{table(args.out, args.variants, args.vgg_weights)}\n\n{ranking(args.out)}\n"
    print(report)
    (args.out / "report.md").write_text(report, encoding="utf-8")
    figure(args.out, args.out / "curves.png")
    print(f"Curves: {args.out / 'curves.png'}")


if __name__ == "__main__":
    main()
