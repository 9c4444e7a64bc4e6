"""Super-resolution of real slices: bicubic, Lanczos and every network, with what they gain in resolution.

    python benchmarks/sr_table.py --data_list LIST --dataset_dir DATA --out .data/sr_table
    python benchmarks/sr_table.py --data_list LIST --dataset_dir DATA --section test --out .data/sr_table_test

A network has a row where it has weights: those released with the bundle, and RUNS/NAME_xSCALE/model.pt with --runs RUNS
(the row `SubPixelUNet` at x3 would be `RUNS/train_x3/model.pt`, NAME being that of the overlay). The commands of what
is missing are printed. Without a data list, the embedded phantoms.

The coarse images are the means of blocks, clean or with noise of 28 HU: white, or coloured as a scanner's. PSNR and
SSIM in the soft-tissue window -160..240 HU, RMSE over the range of 12 bits, means over patients; the difference to
Lanczos is paired by patient, with a bootstrap interval of 95 %. f50 in 1/mm: where the task transfer of a disc of
--contrast_hu falls to a half, the disc being put into --disc_slices of the fine slices, coarsened with it, restored,
and the restored slice without it subtracted; contrast: what is left of it. A method that only smooths less loses f50;
one that only sharpens raises the transfer above 1 (peak).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from monai.bundle import ConfigParser
from torch import Tensor, nn
from tqdm import tqdm

from ctrestore.ct import STORED_RANGE_HU, add_noise, lower_resolution, whole_blocks
from ctrestore.io.ct_scan import open_scan, spread_evenly
from ctrestore.io.whole import writable_folder, written_whole
from ctrestore.metrics import Disc, compare_by_patient, insert_disc, patient_means, scores, task_transfer
from ctrestore.metrics.uniform_regions import uniform_regions
from ctrestore.networks import Interpolation
from ctrestore.tasks.ct_super_resolution.evaluation import weights_at
from ctrestore.training.inferers import MixedPrecisionInferer
from ctrestore.training.precision import Amp
from ctrestore.training.weights import load_weights

BUNDLE = Path(__file__).resolve().parent.parent / "bundles" / "ct_super_resolution"
CONFIGS = BUNDLE / "configs"
BASELINE = "Lanczos"
INTERPOLATIONS = {"bicubic": "cubic", BASELINE: "lanczos"}
NETWORKS = {  # overlay (train: none) to name
    "srcnn": "SRCNN",
    "fsrcnn": "FSRCNN",
    "espcn": "ESPCN",
    "vdsr": "VDSR",
    "unet": "U-Net",
    "gan_circle": "GAN-CIRCLE",
    "train": "SubPixelUNet",
}
PROTOCOL = "hu400_soft_tissue"
RADIUS_PIXELS = 14.0
Restore = Callable[[Tensor], Tensor]
Methods = dict[str, tuple[Restore, int]]  # and the number of parameters


def parser_of(overlay: str, scale: int, **overrides: Any) -> ConfigParser:
    """The training config with an overlay, unresolved."""
    parser = ConfigParser()
    parser.read_config([str(CONFIGS / f"{name}.json") for name in dict.fromkeys(("train", overlay))])
    parser.update({"bundle_root": str(BUNDLE), "scale": scale, **overrides})
    return parser


def weights_of(overlay: str, scale: int, runs: Path | None) -> Path | None:
    """The weights of a network at a scale: of one's own runs, or the released ones."""
    name = "model" if overlay == "train" else overlay
    own = None if runs is None else str(runs / f"{overlay}_x{scale}")
    path = Path(weights_at(scale, str(BUNDLE), name, own, must_exist=False))
    return path if path.is_file() else None


def restorer(network: nn.Module, device: str, amp: Amp) -> Restore:
    """What makes a fine slice ``(1, 1, x, y)`` in HU / 1000 of a coarse one."""
    network, run = network.to(device).eval(), MixedPrecisionInferer(amp)

    def restore(image: Tensor) -> Tensor:
        with torch.inference_mode():
            return run(image.to(device), network).cpu()

    return restore


def methods_at(scale: int, runs: Path | None, device: str) -> Methods:
    """Every method with its number of parameters; says which networks lack weights."""
    found: Methods = {}
    for name, kernel in INTERPOLATIONS.items():
        found[name] = (restorer(Interpolation(scale, kernel), device, False), 0)  # type: ignore[arg-type]
    for overlay, name in NETWORKS.items():
        path = weights_of(overlay, scale, runs)
        if not (CONFIGS / f"{overlay}.json").is_file():
            continue
        if path is None:
            files = ["train"] if overlay == "train" else ["train", overlay]
            listed = "[" + ",".join(f"'bundles/ct_super_resolution/configs/{file}.json'" for file in files) + "]"
            print(f'x{scale}: no weights of {name}. To train it: python -m monai.bundle run --config_file "{listed}" '
                  f"--scale {scale} --ckpt_dir RUNS/{overlay}_x{scale}", flush=True)  # fmt: skip
            continue
        parser = parser_of(overlay, scale)
        network = parser.get_parsed_content("network_def")
        load_weights(path, network)
        n = sum(parameter.numel() for parameter in network.parameters())
        found[name] = (restorer(network, device, parser["amp"]), n)
    return found


def coarse(hu: np.ndarray, scale: int, noise: str, seed: int) -> Tensor:
    """The network's input ``(1, 1, x, y)`` from a fine slice ``(x, y)`` in HU."""
    low = add_noise(lower_resolution(hu, factors=(scale, scale)), noise, seed=seed)
    return torch.from_numpy(low.clip(*STORED_RANGE_HU).astype(np.float32) / 1000)[None, None]


def disc_in(hu: np.ndarray, spacing_mm: Sequence[float], contrast_hu: float) -> Disc | None:
    """A disc in the most uniform soft tissue of a slice; None where there is no room for it."""
    side = int(4 * RADIUS_PIXELS)
    try:
        [square] = uniform_regions(hu, size_pixels=side, n_regions=1, band_hu=(-150.0, 150.0))
    except ValueError:
        return None
    centre = [(part.start + part.stop - 1) / 2 * step for part, step in zip(square, spacing_mm)]
    return Disc((centre[0], centre[1]), RADIUS_PIXELS * max(spacing_mm), contrast_hu)


def transfer(
    hu: np.ndarray, disc: Disc, spacing_mm: Sequence[float], restore: Restore, scale: int, noise: str, seed: int
) -> dict[str, float]:
    """f50, the transfer's largest value, and the contrast that is left, of a disc put into a fine slice."""
    with_disc = insert_disc(hu, disc, spacing_mm=spacing_mm)
    shown, bare = (1000 * restore(coarse(image, scale, noise, seed))[0, 0].numpy() for image in (with_disc, hu))
    found = task_transfer(shown - bare, disc, spacing_mm=spacing_mm)
    return {
        "f50_per_mm": found.frequency_at(0.5),
        "transfer_peak": float(np.max(found.transfer)),
        "contrast_recovery": found.contrast_recovery,
    }


def measure(args: argparse.Namespace, methods_by_scale: dict[int, Methods]) -> pd.DataFrame:
    """A row for each slice, scale, noise and method."""
    places = {"data_list": args.data_list, **({"dataset_dir": args.dataset_dir} if args.dataset_dir else {})}
    parser = parser_of("train", 1, slices_per_scan=args.slices_per_scan, **places)
    parser["validate#dataset#data#data#section"] = args.section
    entries = parser.get_parsed_content("validate#dataset#data#data")
    if args.exact_range:
        entries = [entry for entry in entries if "known_hu" not in entry]
    print(f"{args.section}: {len(entries)} slices of {len({e['subject'] for e in entries})} patients", flush=True)
    with_disc = set(spread_evenly(len(entries), args.disc_slices)) if args.disc_slices else set()
    rows: list[dict[str, Any]] = []
    for scale, methods in methods_by_scale.items():
        for i, entry in enumerate(tqdm(entries, desc=f"x{scale}", unit="slice")):
            scan = open_scan(entry["label"], range_hu=entry.get("range_hu"))
            hu = scan.slice_hu(entry["slice"]).clip(*STORED_RANGE_HU)
            fine = np.ascontiguousarray(whole_blocks(hu, factors=(scale, scale)))
            spacing = np.linalg.norm(scan.affine[:3, :2], axis=0).tolist()
            disc = disc_in(fine, spacing, args.contrast_hu) if i in with_disc else None
            for noise in args.noises:
                image = coarse(fine, scale, noise, i)
                for name, (restore, n) in methods.items():
                    pred = 1000 * restore(image)[0, 0].numpy()
                    score = scores(pred, fine, protocol=PROTOCOL)
                    row = {"subject": entry["subject"], "scale": scale, "noise": noise, "method": name, "parameters": n}
                    row |= {"psnr_db": score.psnr_db, "ssim": score.ssim}
                    row["rmse_hu"] = float(np.sqrt(np.mean((pred - fine) ** 2)))
                    if disc is not None:
                        row |= transfer(fine, disc, spacing, restore, scale, noise, i)
                    rows.append(row)
    return pd.DataFrame(rows)


def table(rows: pd.DataFrame) -> str:
    """The means over patients, and the differences to Lanczos with their intervals."""
    lines = []
    for (scale, noise), part in rows.groupby(["scale", "noise"], sort=False):
        lines.append(f"\nx{scale}, {noise}")
        lines.append(
            f"{'':<14}{'parameters':>11}{'PSNR dB':>9}{'SSIM':>8}{'RMSE HU':>9}{'f50 /mm':>9}{'peak':>7}"
            f"{'contrast':>10}   PSNR over {BASELINE} dB, 95 % interval"
        )
        baseline = part[part.method == BASELINE].reset_index(drop=True)
        for name, found in part.groupby("method", sort=False):
            found = found.reset_index(drop=True)
            text = f"{name:<14}{found.parameters[0]:>11,}"
            for column, form in (("psnr_db", "9.2f"), ("ssim", "8.4f"), ("rmse_hu", "9.1f")):
                text += format(float(patient_means(found[column], found.subject).mean()), form)
            for column, form in (("f50_per_mm", "9.3f"), ("transfer_peak", "7.2f"), ("contrast_recovery", "10.3f")):
                kept = found[np.isfinite(found[column])] if column in found else found[:0]
                values = patient_means(kept[column], kept.subject) if len(kept) else np.array([np.nan])
                text += format(float(values.mean()), form)
            if name != BASELINE and found.subject.nunique() > 1:
                gain = compare_by_patient(found.psnr_db, baseline.psnr_db, found.subject).difference
                text += f"   {gain.mean:+.2f} ({gain.low:+.2f} to {gain.high:+.2f})"
            lines.append(text)
    return "\n".join(lines)


def figure(args: argparse.Namespace, scale: int, methods: Methods, path: Path) -> None:
    """A crop of the first slice: one noise a row, one method a column."""
    places = {"data_list": args.data_list, **({"dataset_dir": args.dataset_dir} if args.dataset_dir else {})}
    parser = parser_of("train", 1, slices_per_scan=1, **places)
    parser["validate#dataset#data#data#section"] = args.section
    entry = parser.get_parsed_content("validate#dataset#data#data")[0]
    hu = open_scan(entry["label"], range_hu=entry.get("range_hu")).slice_hu(entry["slice"]).clip(*STORED_RANGE_HU)
    fine = whole_blocks(hu, factors=(scale, scale))
    side = min(128, *fine.shape)
    start = [(n - side) // 2 for n in fine.shape]
    crop = tuple(slice(s, s + side) for s in start)
    drawn = Figure(figsize=(2 * (len(methods) + 1), 2.2 * len(args.noises)), layout="constrained")
    axes = drawn.subplots(len(args.noises), len(methods) + 1, squeeze=False)
    for noise, line in zip(args.noises, axes):
        image = coarse(fine, scale, noise, 0)
        shown = {name: 1000 * restore(image)[0, 0].numpy() for name, (restore, _) in methods.items()}
        for axis, (name, picture) in zip(line, (shown | {"fine": fine}).items()):
            axis.imshow(picture[crop].T, cmap="gray", vmin=-160, vmax=240, interpolation="nearest")
            axis.set_title(f"{name}, {noise}" if name != "fine" else name, fontsize=7)
            axis.set_axis_off()
    with written_whole(path) as draft:
        drawn.savefig(draft, dpi=150, format="png")


def main() -> None:
    """Print the table; write it, its rows and the figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_list", help="as `ctrestore data-list ct_super_resolution` makes; default: phantoms")
    parser.add_argument("--dataset_dir", help="folder that the list's paths start from")
    parser.add_argument("--section", default="validation", choices=["training", "validation", "test"])
    parser.add_argument("--scales", type=int, nargs="+", default=[2, 3, 4])
    parser.add_argument("--noises", nargs="+", default=["clean", "gaussian", "scanner"])
    parser.add_argument("--slices_per_scan", type=int, default=4)
    parser.add_argument("--runs", type=Path, help="folder of one's own trainings")
    parser.add_argument("--contrast_hu", type=float, default=100.0)
    parser.add_argument("--disc_slices", type=int, default=6, help="that get a disc, evenly spread; 0: none")
    parser.add_argument("--exact_range", action="store_true", help="leave out 8-bit slices, which end at 400 HU")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path, default=Path(".data/sr_table"))
    args = parser.parse_args()
    writable_folder(args.out)
    methods = {scale: methods_at(scale, args.runs, args.device) for scale in args.scales}
    rows = measure(args, methods)
    rows.to_csv(args.out / "rows.csv", index=False)
    text = table(rows)
    (args.out / "table.txt").write_text(text + "\n", encoding="utf-8")
    for scale in args.scales:
        figure(args, scale, methods[scale], args.out / f"figure_x{scale}.png")
    print(text)


if __name__ == "__main__":
    main()
