"""The published study: networks of super-resolution as denoisers of small CT pictures, under three noises.

    python benchmarks/noise_study.py                                  # small networks, on two cores
    python benchmarks/noise_study.py --full --device cuda             # the published sizes, long
    python benchmarks/noise_study.py --dataset_dir COVID-CT/Images    # PNG and JPEG; or DICOM: PATIENT/.../SERIES/*
    python benchmarks/noise_study.py --data_list LIST --dataset_dir DATA    # a list of ct_super_resolution
    python benchmarks/noise_study.py --tune 8                         # searches rate, loss and batch first (Optuna)

Pictures of 299 x 299 grey levels, brought to that size with their aspect kept and the rest black (the published study
squeezed them), in one channel, never stored between the steps (it stored JPEGs). The noises of `ctrestore.ct.NOISES`
at the published levels, which nobody sees, and at visible ones; scale 1. Training, validation and test share no
patient (of pictures: no file; a file's name decides, and COVID-CT's do not tell its patients reliably).

Every training ends with a line in OUT/results.json and weights beside it, and is not done again. Without data: the
embedded phantoms of the chest, -1000 (black) to 400 HU (white).
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from monai.transforms import Compose, Resize, SpatialPad
from torch import Tensor, nn
from tqdm import tqdm

from ctrestore.ct import NOISES, add_noise
from ctrestore.ct.image_noise import BLACK_HU, WHITE_HU
from ctrestore.data_lists import read_data_list
from ctrestore.io.ct_scan import PICTURES, open_scan, spread_evenly
from ctrestore.io.whole import read_json, writable_folder, write_json, written_whole
from ctrestore.losses import BoundedBCELoss, LogRMSELoss
from ctrestore.metrics import bootstrap_by_patient, compare_by_patient, patient_means, scores
from ctrestore.networks import ESPCN, FSRCNN, SRCNN, VDSR, ClassicUNet, SubPixelUNet
from ctrestore.tasks.ct_slices import embedded_list, slices
from ctrestore.tasks.runtime import embedded_data_dir
from ctrestore.training.weights import save_atomically

BUNDLE = Path(__file__).resolve().parent.parent / "bundles" / "ct_super_resolution"
SIDE = 299
INPUT = "input"
PUBLISHED = {  # PSNR in dB, as published; its unsigned bytes wrapped around, which gives any two images about 28 dB
    "gaussian": {"SRCNN": 30.79, "FSRCNN": 36.02, "ESPCN": 30.11},
    "salt-and-pepper": {"SRCNN": 30.13, "FSRCNN": 31.10, "ESPCN": 27.71},
    "poisson": {"SRCNN": 30.11, "FSRCNN": 35.74, "ESPCN": 29.77},
}
#: Learning rate, loss, batch and the factor of the last layer, where nothing is tuned.
RECIPES: dict[str, dict[str, Any]] = {
    "SRCNN": {"learning_rate": 1e-3, "loss": "mse", "batch_size": 16, "last_layer": 0.1},
    "FSRCNN": {"learning_rate": 2e-3, "loss": "mse", "batch_size": 16, "last_layer": 0.1},
    "ESPCN": {"learning_rate": 1e-3, "loss": "mse", "batch_size": 16, "last_layer": 0.1},
    "VDSR": {"learning_rate": 5e-4, "loss": "mse", "batch_size": 16, "last_layer": 1.0},
    "U-Net": {"learning_rate": 5e-4, "loss": "mse", "batch_size": 16, "last_layer": 1.0},
    "SubPixelUNet": {"learning_rate": 1e-3, "loss": "log_rmse", "batch_size": 16, "last_layer": 1.0},
}
LOSSES: dict[str, nn.Module] = {
    "mse": nn.MSELoss(),
    "l1": nn.L1Loss(),
    "bce": BoundedBCELoss(low=0.0, high=1.0),
    "log_rmse": LogRMSELoss(),
}


def network_of(name: str, full: bool) -> nn.Module:
    """A network of scale 1; VDSR and U-Net, which its authors could not finish, are narrow unless ``full``."""
    if name == "VDSR":
        return VDSR(scale=1) if full else VDSR(scale=1, depth=8, features=24)
    if name == "U-Net":
        return ClassicUNet() if full else ClassicUNet(features=(8, 16, 32, 64, 128))
    if name == "SubPixelUNet":
        return SubPixelUNet(scale=1) if full else SubPixelUNet(scale=1, features=(16, 24, 32), decoder_blocks=(1, 1))
    return {"SRCNN": SRCNN, "FSRCNN": FSRCNN, "ESPCN": ESPCN}[name](scale=1)


def letterbox(picture: np.ndarray) -> Tensor:
    """``(x, y)`` in HU to ``(1, 299, 299)``: the longer side fits, the shorter one is filled up with black."""
    steps = Compose(
        [
            Resize(SIDE, size_mode="longest", mode="bilinear", anti_aliasing=max(picture.shape) > SIDE),
            SpatialPad((SIDE, SIDE), value=BLACK_HU),
        ]
    )
    return torch.as_tensor(steps(torch.from_numpy(np.ascontiguousarray(picture))[None]))


def section_of(name: str) -> str:
    """Training (70 %), validation or test, by the name alone."""
    drawn = hashlib.sha256(name.encode()).digest()[0]
    return "training" if drawn < 179 else "validation" if drawn < 217 else "test"


def entries_of(args: argparse.Namespace) -> list[dict[str, Any]]:
    """``{"section", "subject", "label", "slice", "range_hu"}`` of every picture."""
    if args.data_list is not None:
        sections = ("training", "validation", "test")
        place = args.dataset_dir or str(Path(args.data_list).parent)
        listed = {section: slices(section, args.data_list, place, None, args.slices_per_scan) for section in sections}  # type: ignore[arg-type]
        return [{**entry, "section": section} for section, entries in listed.items() for entry in entries]
    if args.dataset_dir is None:
        folder = embedded_data_dir(str(BUNDLE), "ct_phantoms")
        found = []
        for section in ("training", "validation", "test"):
            chests = {e["subject"] for e in read_data_list(embedded_list(folder), section, folder) if "class" in e}
            listed = slices(section, None, folder, slices_per_scan=args.slices_per_scan)  # type: ignore[arg-type]
            found += [{**entry, "section": section} for entry in listed if entry["subject"] in chests]
        return found
    root = Path(args.dataset_dir)
    pictures = sorted(path for path in root.rglob("*") if path.suffix.lower() in PICTURES)
    if pictures:
        return [
            {"section": section_of(path.stem), "subject": path.stem, "label": path, "slice": 0,
             "range_hu": (BLACK_HU, WHITE_HU)}
            for path in pictures
        ]  # fmt: skip
    found = []
    for folder in sorted({path.parent for path in root.rglob("*") if path.is_file()}):
        patient = folder.relative_to(root).parts[0] if folder != root else folder.name
        for k in spread_evenly(open_scan(folder).shape[2], args.slices_per_scan):
            found.append({"section": section_of(patient), "subject": patient, "label": folder, "slice": k})
    return found


def grey_pictures(args: argparse.Namespace) -> dict[str, tuple[Tensor, list[str]]]:
    """Pictures ``(n, 1, 299, 299)`` in HU from black to white, and their patients, of every section."""
    listed, kept = entries_of(args), {}
    for section, most in (("training", args.n_training), ("validation", args.n_test), ("test", args.n_test)):
        chosen = [entry for entry in listed if entry["section"] == section]
        chosen = [chosen[i] for i in spread_evenly(len(chosen), most)]
        if len({entry["subject"] for entry in chosen}) < 2:
            raise SystemExit(f"noise_study: error: two patients or more are needed for {section}; got {len(chosen)}.")
        made = []
        for entry in tqdm(chosen, desc=section, unit="picture", delay=2):
            made.append(letterbox(open_scan(entry["label"], range_hu=entry.get("range_hu")).slice_hu(entry["slice"])))
        pictures = torch.stack(made).clip(BLACK_HU, WHITE_HU)
        kept[section] = (pictures, [str(entry["subject"]) for entry in chosen])
        print(f"{section}: {len(chosen)} pictures of {len(set(kept[section][1]))} patients", flush=True)
    return kept


def as_input(hu: Tensor) -> Tensor:
    """0 (black) to 1 (white), which the published cross-entropy wants; noise may go beyond."""
    return (hu - BLACK_HU) / (WHITE_HU - BLACK_HU)


def fit(name: str, noise: str, recipe: dict[str, Any], steps: int, pictures: Tensor, args: Any) -> tuple[Any, float]:
    """A trained network and the seconds it took."""
    torch.manual_seed(args.seed)
    generator = np.random.default_rng(args.seed)
    network = network_of(name, args.full).to(args.device)
    layers = [layer for layer in network.modules() if list(layer.parameters(recurse=False))]
    last, rate = list(layers[-1].parameters(recurse=False)), recipe["learning_rate"]
    others = [p for p in network.parameters() if all(p is not q for q in last)]
    groups = [{"params": others, "lr": rate}, {"params": last, "lr": rate * recipe["last_layer"]}]
    optimizer = torch.optim.Adam(groups)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, [group["lr"] for group in groups], total_steps=max(steps, 20), pct_start=0.1
    )
    loss_function, start = LOSSES[recipe["loss"]], time.perf_counter()
    for _ in range(steps):
        rows = generator.integers(len(pictures), size=recipe["batch_size"])
        corners = generator.integers(SIDE - args.patch + 1, size=(recipe["batch_size"], 2))
        fine = torch.stack([pictures[i][:, x : x + args.patch, y : y + args.patch] for i, (x, y) in zip(rows, corners)])
        noisy = add_noise(fine, noise, seed=generator)
        loss = loss_function(network(as_input(noisy).to(args.device)), as_input(fine).to(args.device))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return network.eval(), time.perf_counter() - start


def noisy_pictures(pictures: Tensor, noise: str, seed: int) -> Tensor:
    """The pictures with noise, within black and white, as a picture stores them."""
    noisy = [add_noise(picture, noise, seed=seed + i) for i, picture in enumerate(pictures)]
    return torch.stack(noisy).clip(BLACK_HU, WHITE_HU)


def restored(network: nn.Module | None, noisy: Tensor, device: str) -> tuple[Tensor, float]:
    """The pictures in 0..1 and the seconds a picture took."""
    if network is None:
        return as_input(noisy), 0.0
    with torch.inference_mode():
        network(as_input(noisy[:1]).to(device))  # the first call is slower
        start = time.perf_counter()
        found = torch.cat([network(as_input(picture[None]).to(device)).cpu() for picture in noisy])
    return found.clip(0, 1), (time.perf_counter() - start) / len(noisy)


def judge(pred: Tensor, pictures: Tensor) -> dict[str, list[float]]:
    """PSNR and SSIM on grey levels of 0..255 in floating point, of each picture."""
    pairs = zip(255.0 * pred[:, 0].double().numpy(), 255.0 * as_input(pictures)[:, 0].double().numpy())
    found = [scores(np.asarray(one), np.asarray(other), protocol="grey8_course") for one, other in pairs]
    return {"psnr_db": [score.psnr_db for score in found], "ssim": [score.ssim for score in found]}


def tuned(name: str, noise: str, data: dict[str, tuple[Tensor, list[str]]], args: argparse.Namespace) -> dict[str, Any]:
    """The best of ``args.tune`` recipes by the validation pictures, each trained a third as long."""
    if importlib.util.find_spec("optuna") is None:
        raise SystemExit("noise_study: error: --tune needs Optuna. Remedy: pip install 'ctrestore[study]'")
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    pictures = data["validation"][0]
    noisy = noisy_pictures(pictures, noise, args.seed)

    def objective(trial: Any) -> float:
        recipe = {
            **RECIPES[name],
            "learning_rate": trial.suggest_float("learning_rate", 1e-4, 2e-2, log=True),
            "loss": trial.suggest_categorical("loss", sorted(LOSSES)),
            "batch_size": trial.suggest_categorical("batch_size", [8, 16, 32]),
        }
        # as many patches whatever the batch
        steps = max(20, args.steps * 16 // (3 * recipe["batch_size"]))
        network, _ = fit(name, noise, recipe, steps, data["training"][0], args)
        value = float(np.mean(judge(restored(network, noisy, args.device)[0], pictures)["psnr_db"]))
        return value if np.isfinite(value) else -1e9

    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=args.seed))
    study.enqueue_trial({key: RECIPES[name][key] for key in ("learning_rate", "loss", "batch_size")})
    study.optimize(objective, n_trials=args.tune)
    return {**RECIPES[name], **study.best_params}


def run(args: argparse.Namespace, data: dict[str, tuple[Tensor, list[str]]]) -> dict[str, Any]:
    """Results by noise and network; what a former run finished is taken from its file."""
    path = args.out / "results.json"
    size = {
        "full": args.full,
        "steps": args.steps,
        "tune": args.tune,
        "patch": args.patch,
        "data": args.data_list or args.dataset_dir,
    }
    results: dict[str, Any] = read_json(path) if path.is_file() else {"settings": size, "runs": {}}
    if results["settings"] != size:
        raise SystemExit(
            f"noise_study: error: {path} was made with {results['settings']}, now {size}. Remedy: another --out."
        )
    pictures, patients = data["test"]
    for noise in args.noises:
        noisy = noisy_pictures(pictures, noise, args.seed + 1000)
        for name in (INPUT, *args.networks):
            key = f"{noise}|{name}"
            if key in results["runs"]:
                continue
            network, row = None, {"parameters": 0, "training_s": 0.0, "recipe": {}}
            if name != INPUT:
                recipe = tuned(name, noise, data, args) if args.tune else RECIPES[name]
                network, seconds = fit(name, noise, recipe, args.steps, data["training"][0], args)
                n = sum(parameter.numel() for parameter in network.parameters())
                row = {"parameters": n, "training_s": round(seconds, 1), "recipe": recipe}
                save_atomically(network.state_dict(), args.out / f"{noise}-{name}.pt")
            pred, seconds = restored(network, noisy, args.device)
            results["runs"][key] = {**row, "s_a_picture": seconds, "patients": patients, **judge(pred, pictures)}
            write_json(results, path)
            print(f"{noise}, {name}: {np.mean(results['runs'][key]['psnr_db']):.2f} dB", flush=True)
    return results


def table(results: dict[str, Any], noises: Sequence[str], names: Sequence[str]) -> str:
    """Means over patients with their intervals, and the published numbers."""
    lines = []
    for noise in noises:
        lines.append(f"\n{noise}")
        lines.append(
            f"{'':<14}{'parameters':>11}{'PSNR dB, 95 % interval':>26}{'over the input':>26}{'SSIM':>8}"
            f"{'s/picture':>11}{'published':>11}"
        )
        baseline = results["runs"][f"{noise}|{INPUT}"]
        for name in (INPUT, *names):
            row = results["runs"][f"{noise}|{name}"]
            level = bootstrap_by_patient(row["psnr_db"], row["patients"])
            text = f"{name:<14}{row['parameters']:>11,}{f'{level.mean:.2f} ({level.low:.2f} to {level.high:.2f})':>26}"
            gain = ""
            if name != INPUT:
                found = compare_by_patient(row["psnr_db"], baseline["psnr_db"], row["patients"]).difference
                gain = f"{found.mean:+.2f} ({found.low:+.2f} to {found.high:+.2f})"
            level, _, kind = noise.partition("-")
            published = PUBLISHED.get(kind, {}).get(name) if level == "published" else None
            ssim = float(patient_means(row["ssim"], row["patients"]).mean())
            text += f"{gain:>26}{ssim:>8.4f}{row['s_a_picture']:>11.4f}"
            lines.append(text + (f"{published:>11.2f}" if published else f"{'-':>11}"))
    lines.append(
        "\nPublished: PSNR, of unsigned bytes, where any two images have about 28 dB. Its inputs, which it "
        "did not measure, had 48 and 51 dB (Gaussian, Poisson)."
    )
    return "\n".join(lines)


def figure(args: argparse.Namespace, data: dict[str, tuple[Tensor, list[str]]], path: Path) -> None:
    """One crop a row (a noise each), one network a column."""
    pictures = data["test"][0]
    start = (SIDE - 96) // 2
    crop = (slice(start, start + 96),) * 2
    columns = [INPUT, *args.networks, "truth"]
    drawn = Figure(figsize=(1.6 * len(columns), 1.75 * len(args.noises)), layout="constrained")
    axes = drawn.subplots(len(args.noises), len(columns), squeeze=False)
    for i, (noise, line) in enumerate(zip(args.noises, axes)):
        picture = pictures[i % len(pictures)][None]
        noisy = noisy_pictures(picture, noise, args.seed + 1000 + i % len(pictures))
        for axis, name in zip(line, columns):
            shown = as_input(picture)
            if name != "truth":
                network = None
                if name != INPUT:
                    network = network_of(name, args.full).to(args.device).eval()
                    state = torch.load(args.out / f"{noise}-{name}.pt", map_location=args.device, weights_only=True)
                    network.load_state_dict(state)
                shown = restored(network, noisy, args.device)[0]
            axis.imshow(shown[0, 0].numpy()[crop].T, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            axis.set_xticks([])
            axis.set_yticks([])
            if i == 0:
                axis.set_title(name, fontsize=8)
            if name == INPUT:
                axis.set_ylabel(noise, fontsize=7)
    with written_whole(path) as draft:
        drawn.savefig(draft, dpi=150, format="png")


def main() -> None:
    """Train what is missing; print the table; write it and the figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset_dir", help="pictures or DICOM series; default: phantoms")
    parser.add_argument(
        "--data_list", help="as `ctrestore data-list ct_super_resolution` makes; paths from dataset_dir"
    )
    parser.add_argument("--full", action="store_true", help="published sizes of VDSR and U-Net, 20000 steps")
    parser.add_argument("--steps", type=int, help="batches of a training (400, or 20000 with --full)")
    parser.add_argument("--patch", type=int, default=32, help="side of a training patch in pixels")
    parser.add_argument("--tune", type=int, default=0, metavar="N", help="recipes to try for each training")
    parser.add_argument("--noises", nargs="+", choices=list(NOISES)[1:], default=[
        f"{level}{kind}" for level in ("published-", "") for kind in PUBLISHED
    ])  # fmt: skip
    parser.add_argument("--networks", nargs="+", choices=list(RECIPES), default=list(RECIPES))
    parser.add_argument("--n_training", type=int, default=None, help="pictures; default: all")
    parser.add_argument("--n_test", type=int, default=16, help="pictures of validation and test each")
    parser.add_argument("--slices_per_scan", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path, default=Path(".data/noise_study"))
    args = parser.parse_args()
    args.steps = args.steps or (20_000 if args.full else 400)
    writable_folder(args.out)
    data = grey_pictures(args)
    results = run(args, data)
    text = table(results, args.noises, args.networks)
    (args.out / "table.txt").write_text(text + "\n", encoding="utf-8")
    figure(args, data, args.out / "figure.png")
    print(text)


if __name__ == "__main__":
    sys.exit(main())
