"""What do the attentions of RED-CNN and U-Net select, and in which layers? From the networks of `ldct_ablation.py`.

    python benchmarks/attention_analysis.py --trained .data/ldct_ablation --data_list LIST --dataset_dir DATA

The study of RED-CNN with attention says of channels: RED-CNN selects in its shallow layers, U-Net in its deep ones; and
of places: shallow layers attend to edges, deep ones to texture or abstract content. Both networks have nine gates: five
on the way in, of depth 0 to 4, four on the way out, of depth 3 to 0. A claim holds here if the contrast

    mean over the gates of depth 0 and 1  minus  mean over the gates of depth 3 and 4

has its sign in every seed, with a 95 % interval by patient that excludes 0. The contrast is of

- selection: the standard deviation over channels of a channel gate's weights (slice by slice);
- edges: the absolute correlation, over the body, of a spatial gate's weights with the gradient of the full-dose slice;
- content: the same with the full-dose slice smoothed by a Gaussian of 8 pixels, which tells tissues and not details.

Networks as they were before training stand beside them: a gate of many channels has another spread from the start.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from ldct_ablation import VARIANTS, Data, Scan, add_data_arguments, config_of, data_of, log, scans_to_score
from monai.transforms import CenterSpatialCropd
from scipy import ndimage
from torch import Tensor, nn

from ctrestore.metrics import bootstrap_by_patient
from ctrestore.networks import ChannelGate, SpatialGate
from ctrestore.training.weights import load_weights
from ctrestore.transforms.low_dose import body_mask

DEPTH = (0, 1, 2, 3, 4, 3, 2, 1, 0)
LAYERS = tuple(f"in {d}" for d in DEPTH[:5]) + tuple(f"out {d}" for d in DEPTH[5:])
SHALLOW, DEEP = (np.isin(DEPTH, depths) for depths in ((0, 1), (3, 4)))
CHANNEL = ("redcnn_channel_attention", "unet_channel_attention")
SPATIAL = ("redcnn_spatial_attention", "unet_spatial_attention")
UNTRAINED = "untrained"
#: variant, measure, the sign that the published claim gives to shallow minus deep, in words
CLAIMS = (
    ("redcnn_channel_attention", "selection", 1, "RED-CNN selects channels in shallow layers"),
    ("unet_channel_attention", "selection", -1, "U-Net selects channels in deep layers"),
    ("redcnn_spatial_attention", "edges", 1, "RED-CNN attends to edges in shallow layers"),
    ("redcnn_spatial_attention", "content", -1, "RED-CNN attends to content in deep layers"),
    ("unet_spatial_attention", "edges", 1, "U-Net attends to edges in shallow layers"),
    ("unet_spatial_attention", "content", -1, "U-Net attends to content in deep layers"),
)
Measured = dict[str, np.ndarray]  # of a slice: what was measured, for each of the nine gates


def gates_of(network: nn.Module, image: Tensor) -> list[Tensor]:
    """The weights of every gate for one image ``(1, 1, x, y)``, in the order in which it passes them."""
    seen: list[Tensor] = []
    hooks = [
        module.register_forward_hook(lambda _, __, weights: seen.append(weights[0].float().cpu()))
        for module in network.modules()
        if isinstance(module, ChannelGate | SpatialGate)
    ]
    with torch.inference_mode():
        network(image)
    for hook in hooks:
        hook.remove()
    return seen


def on_image(weights: Tensor, shape: tuple[int, int], unpadded: bool) -> tuple[np.ndarray, tuple[slice, slice]]:
    """A spatial gate's weights ``(1, x', y')`` in pixels of the image, and the part of the image that they cover.

    RED-CNN loses as many pixels at every side, U-Net has a coarser grid on the image padded to a multiple of 16.
    """
    if unpadded:
        lost = [(n - m) // 2 for n, m in zip(shape, weights.shape[1:])]
        return weights[0].numpy(), (slice(lost[0], shape[0] - lost[0]), slice(lost[1], shape[1] - lost[1]))
    padded = [-(-n // 16) * 16 for n in shape]
    fine = F.interpolate(weights[None], size=padded, mode="bilinear", align_corners=False)[0, 0]
    first = [(p - n) // 2 for p, n in zip(padded, shape)]
    return fine[first[0] : first[0] + shape[0], first[1] : first[1] + shape[1]].numpy(), (slice(None), slice(None))


def correlation(a: np.ndarray, b: np.ndarray, where: np.ndarray) -> float:
    """Absolute value of Pearson's correlation in a mask; 0 where one does not vary."""
    a, b = (x[where].astype(np.float64) - x[where].mean() for x in (a, b))
    norm = float(np.sqrt((a**2).sum() * (b**2).sum()))
    return abs(float((a * b).sum())) / norm if norm > 0 else 0.0


def with_body(scan: Scan, side: int | None) -> Scan:
    """The scan with its ``body``, lungs and all; of both only the middle, if a side in pixels is given."""
    hu = 1000.0 * scan["label"]
    body = torch.from_numpy(ndimage.binary_fill_holes(body_mask(hu[0]).numpy()))[None]
    if side is None:
        return {**scan, "body": body}
    crop = CenterSpatialCropd(keys=["image", "label", "body"], roi_size=(side, side))
    return {**scan, **crop({"image": scan["image"], "label": scan["label"], "body": body})}


def measure(network: nn.Module, scan: Scan, kind: str, device: torch.device) -> Measured:
    """What the gates do on one slice."""
    gates = gates_of(network, scan["image"][None].to(device))
    if len(gates) != len(DEPTH):
        raise ValueError(f"expected {len(DEPTH)} gates; got {len(gates)}.")
    if kind == "channel":
        return {"selection": np.array([float(weights.std(correction=0)) for weights in gates])}
    full, body = 1000.0 * scan["label"][0].numpy(), scan["body"][0].numpy()
    targets = {
        "edges": ndimage.gaussian_gradient_magnitude(full, sigma=1.0),
        "content": ndimage.gaussian_filter(full, sigma=8.0),
    }
    found: dict[str, list[float]] = defaultdict(list)
    for weights in gates:
        image, part = on_image(weights, full.shape, unpadded=hasattr(network, "smallest_side"))
        for name, target in targets.items():
            found[name].append(correlation(image, target[part], body[part]))
    return {name: np.array(values) for name, values in found.items()}


def measure_all(network: nn.Module, scans: list[Scan], kind: str, device: torch.device) -> dict[str, np.ndarray]:
    """The measures of every slice: ``(n, 9)`` each."""
    rows = [measure(network, scan, kind, device) for scan in scans]
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def contrast(values: np.ndarray) -> np.ndarray:
    """Shallow minus deep of ``(..., 9)``."""
    return values[..., SHALLOW].mean(axis=-1) - values[..., DEEP].mean(axis=-1)


def verdict(by_published: list[np.ndarray], patients: list[str], sign: int) -> str:
    """Whether shallow minus deep has this sign: ``by_published`` holds ``(n_slices, 9)`` of each seed."""
    found = [contrast(values) for values in by_published]
    interval = bootstrap_by_patient(np.concatenate(found), patients * len(found))
    agree = all(np.sign(values.mean()) == sign for values in found)
    opposite = all(np.sign(values.mean()) == -sign for values in found)
    clear = interval.low > 0 or interval.high < 0
    answer = "holds" if agree and clear else "the other way round" if opposite and clear else "not shown"
    numbers = f"{interval.mean:+.4f} ({interval.low:+.4f} to {interval.high:+.4f})"
    return f"**{answer}**: shallow minus deep {numbers}, {len(found)} seed{'s' if len(found) > 1 else ''}"


def table(measured: dict[str, dict[str, list[Any]]], name: str) -> str:
    """A measure, gate by gate: mean over slices and seeds, trained and untrained, in Markdown."""
    heads = ["network", "", *LAYERS]
    lines = ["| " + " | ".join(heads) + " |", "|" + " --- |" * len(heads)]
    for variant, runs in measured.items():
        for state in ("trained", UNTRAINED):
            values = [run[name] for run in runs[state] if name in run]
            if values:
                means = np.concatenate(values).mean(axis=0)
                lines.append("| " + " | ".join([VARIANTS[variant], state, *(f"{v:.3f}" for v in means)]) + " |")
    return "\n".join(lines)


def draw_spread(measured: dict[str, dict[str, list[Any]]], path: Path) -> None:
    """Measures by layer: every seed a line, untrained dashed."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    panels = [(v, name) for v, name, _, _ in CLAIMS if v in measured]
    rows = -(-len(panels) // 3)
    drawing, axes = plt.subplots(rows, 3, figsize=(13, 3.8 * rows), layout="constrained", squeeze=False)
    for axis in axes.flat[len(panels) :]:
        axis.set_axis_off()
    labels = {"selection": "SD over channels of the weights", "edges": "|r| with edges", "content": "|r| with content"}
    for axis, (variant, name) in zip(axes.flat, panels):
        for state, style, colour in (("trained", "o-", "tab:blue"), (UNTRAINED, "s--", "0.6")):
            for seed, run in enumerate(measured[variant][state]):
                axis.plot(run[name].mean(axis=0), style, color=colour, alpha=0.8, label=None if seed else state)
        axis.set(title=VARIANTS[variant], ylabel=labels[name], ylim=(0, None))
        axis.set_xticks(range(len(LAYERS)), LAYERS, rotation=60)
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    drawing.savefig(path, dpi=110)
    plt.close(drawing)


def draw_maps(networks: dict[str, nn.Module], scan: Scan, device: torch.device, path: Path) -> None:
    """The spatial weights of every gate for one slice, each from its 2nd to its 98th percentile."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    drawing, axes = plt.subplots(
        len(networks), len(LAYERS) + 1, figsize=(2.1 * (len(LAYERS) + 1), 2.5 * len(networks)),
        layout="constrained", squeeze=False,
    )  # fmt: skip
    for row, (variant, network) in zip(axes, networks.items()):
        row[0].imshow(1000 * scan["image"][0].numpy().T, cmap="gray", vmin=-160, vmax=240)
        row[0].set_title(f"{VARIANTS[variant]}\nlow dose, -160..240 HU", fontsize=7)
        for axis, layer, weights in zip(row[1:], LAYERS, gates_of(network, scan["image"][None].to(device))):
            # the zeros beyond the edge make extremes there
            low, high = (float(x) for x in np.quantile(weights[0].numpy(), (0.02, 0.98)))
            axis.imshow(weights[0].numpy().T, cmap="viridis", vmin=low, vmax=high)
            axis.set_title(f"{layer}: {low:.2f}..{high:.2f}", fontsize=8)
        for axis in row:
            axis.set_axis_off()
    drawing.savefig(path, dpi=110)
    plt.close(drawing)


def files_of(args: argparse.Namespace, variant: str) -> list[Path]:
    """The weights of a variant, one file a seed: as given, or as the ablation left them."""
    given = [Path(file) for name, _, file in (item.partition("=") for item in args.weights) if name == variant]
    return given or sorted(args.trained.glob(f"{variant}-[0-9]*.pt"))


def network_of(data: Data, variant: str, file: Path | None, seed: int) -> nn.Module:
    """A variant's network with these weights, or as a training with this seed begins."""
    torch.manual_seed(seed)
    network = config_of(data, variant).get_parsed_content("network")
    if file is not None:
        load_weights(file, network)
    return network.eval()


def main() -> None:
    """Print the tables and the verdicts, and draw the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trained", type=Path, default=Path(".data/ldct_ablation"), help="folder of the ablation")
    parser.add_argument("--weights", nargs="+", default=[], metavar="VARIANT=FILE", help="instead, several a variant")
    add_data_arguments(parser)
    parser.add_argument("--n_slices", type=int, default=8, help="of validation patients, one of each first")
    parser.add_argument("--side", type=int, help="pixels: of each slice only its middle; default: whole slices")
    parser.add_argument("--out", type=Path, help="folder of the figures; default: TRAINED")
    args = parser.parse_args()
    out, data, device = args.out or args.trained, data_of(args, args.trained), torch.device(args.device)
    scans = scans_to_score(data, "validation", n=args.n_slices, per_patient=1)
    scans = [with_body(scan, args.side) for scan in scans]
    patients = [scan["subject"] for scan in scans]
    if len(set(patients)) < 2:
        sys.exit("attention_analysis: an interval needs two validation patients or more.")
    measured: dict[str, dict[str, list[Any]]] = {}
    first: dict[str, nn.Module] = {}
    for variant in (*CHANNEL, *SPATIAL):
        files = files_of(args, variant)
        log(f"{variant}: {len(files)} trained networks, {len(scans)} slices")
        if not files:
            continue
        kind = "channel" if variant in CHANNEL else "spatial"
        measured[variant] = {"trained": [], UNTRAINED: []}
        for seed, file in enumerate(files):
            trained = network_of(data, variant, file, seed)
            first.setdefault(variant, trained)
            measured[variant]["trained"].append(measure_all(trained, scans, kind, device))
            untrained = network_of(data, variant, None, seed)
            measured[variant][UNTRAINED].append(measure_all(untrained, scans, kind, device))
    if not measured:
        sys.exit(
            f"attention_analysis: no trained networks in {args.trained}. Remedy: benchmarks/ldct_ablation.py first."
        )
    part = "whole" if args.side is None else f"the middle {args.side} x {args.side} pixels"
    lines = [f"{len(scans)} validation slices of {len(set(patients))} patients, {part}."]
    for title, name, variants in (
        ("Selection: standard deviation over channels of the channel gate's weights", "selection", CHANNEL),
        ("Edges: |correlation| of the spatial gate's weights with the gradient of the full dose", "edges", SPATIAL),
        ("Content: |correlation| of the spatial gate's weights with the smoothed full dose", "content", SPATIAL),
    ):
        if there := {variant: measured[variant] for variant in variants if variant in measured}:
            lines += [f"\n{title}\n", table(there, name)]
    lines.append("\nClaims of the study")
    for variant, name, sign, claim in CLAIMS:
        if variant not in measured:
            lines.append(f"- {claim}: not run, no trained {variant}")
            continue
        runs = measured[variant]
        by_published = [run[name] for run in runs["trained"]]
        before = contrast(np.concatenate([run[name] for run in runs[UNTRAINED]])).mean()
        lines.append(f"- {claim}: {verdict(by_published, patients, sign)}; before training {before:+.4f}")
    report = "\n".join(lines)
    print(report)
    (out / "attention.md").write_text(report + "\n", encoding="utf-8")
    draw_spread(measured, out / "attention_layers.png")
    if maps := {variant: first[variant] for variant in SPATIAL if variant in first}:
        draw_maps(maps, scans[len(scans) // 2], device, out / "attention_maps.png")


if __name__ == "__main__":
    main()
