"""Time and memory of pet_pvc inference on a 256-cube of 1 mm, file to file, and the network against a plain run.

    python benchmarks/pet_pvc_inference.py                  # on the CPU, and on the first GPU where there is one
    python benchmarks/pet_pvc_inference.py --repeats 5

Ratios come first: machines are noisy, so the plain run (the same network and weights in float32, eight windows of 128
voxels over the whole cube) and the tuned one (bfloat16, channels last, windows fitted to the head) are timed in turns.
"""

from __future__ import annotations

import argparse
import copy
import os
import sys
import tempfile
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from commands import apart, cost_of
from monai.bundle import ConfigParser
from monai.inferers import SlidingWindowInferer
from nibabel.processing import resample_from_to

from ctrestore.metrics import nrmse
from ctrestore.phantoms import phantom_entries
from ctrestore.phantoms.scan import Grid
from ctrestore.tasks.runtime import embedded_data_dir
from ctrestore.training.weights import load_weights

BUNDLE = Path(__file__).resolve().parent.parent / "bundles" / "pet_pvc"


def cube_scan(folder: Path) -> tuple[Path, Path]:
    """A test phantom and its truth on a 256-cube of 1 mm."""
    entry = phantom_entries(Path(embedded_data_dir(str(BUNDLE), "pet_pvc_phantom")), "test", n=1)[0]
    paths = []
    for key in ("image", "truth"):
        image = nib.as_closest_canonical(nib.load(entry[key]))
        centre = (image.affine @ np.append((np.asarray(image.shape) - 1) / 2, 1.0))[:3]
        target = Grid((256, 256, 256), (1.0, 1.0, 1.0)).affine(centre)
        cube = resample_from_to(image, ((256, 256, 256), target), order=1)
        cube.set_data_dtype(np.float32)
        path = folder / f"cube_{key}.nii.gz"
        nib.save(cube, path)
        paths.append(path)
    (folder / "cube_image.json").write_text(Path(entry["image"].replace(".nii.gz", ".json")).read_text())
    return paths[0], paths[1]


def whole_command(scan: Path, output: Path, device: str) -> tuple[float, float]:
    """Seconds and peak memory (GB) of the inference command, interpreter start and files included."""
    command = [
        sys.executable, "-m", "monai.bundle", "run", "--config_file", str(BUNDLE / "configs" / "inference.json"),
        "--bundle_root", str(BUNDLE), "--dataset_dir", str(scan), "--output_dir", str(output), "--device", device,
    ]  # fmt: skip
    cost = cost_of(command)
    return cost.wall_s, cost.peak_memory_gb


def network_share(scan: Path, device: str, repeats: int) -> dict[str, float]:
    """Seconds of the plain and of the tuned run of the network alone, and how far apart their outputs are."""
    parser = ConfigParser()
    parser.read_config(str(BUNDLE / "configs" / "inference.json"))
    parser["bundle_root"], parser["dataset_dir"], parser["device"] = str(BUNDLE), str(scan), device
    network = parser.get_parsed_content("network").eval()
    load_weights(BUNDLE / "models" / "model.pt", network)
    tuned, item = parser.get_parsed_content("inferer"), parser.get_parsed_content("dataset")[0]
    head = item["image"].as_tensor()[None].to(device)
    cube = torch.zeros(1, head.shape[1], 256, 256, 256, device=device)
    corner = [(256 - side) // 2 for side in head.shape[2:]]
    box = (..., *(slice(c, c + side) for c, side in zip(corner, head.shape[2:])))
    cube[box] = head
    plain = SlidingWindowInferer(roi_size=(128, 128, 128), overlap=0.0)
    plain_network = copy.deepcopy(network).to(memory_format=torch.contiguous_format)
    times: dict[str, list[float]] = {"plain": [], "tuned": []}
    outputs = {}
    with torch.no_grad():
        for _ in range(repeats):
            for name, run, image, net in (("plain", plain, cube, plain_network), ("tuned", tuned, head, network)):
                start = time.perf_counter()
                outputs[name] = run(image, net)
                if device != "cpu":
                    torch.cuda.synchronize()
                times[name].append(time.perf_counter() - start)
        tuned.run.enabled = False
        exact = tuned(head, network).cpu().numpy()[0, 0]  # the same windows in float32
    brain = head[0, 0].cpu().numpy() > 0.3
    plain_output, tuned_output = outputs["plain"][box].cpu().numpy()[0, 0], outputs["tuned"].cpu().numpy()[0, 0]
    differences = {
        "precision": nrmse(tuned_output, exact, brain),  # of bfloat16 where the tuned run took it, else 0
        "seams": nrmse(plain_output, exact, brain),  # what windows without overlap do to the plain run
    }
    return {name: min(values) for name, values in times.items()} | differences


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    repeats = parser.parse_args().repeats
    devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        scan, _ = apart(cube_scan, folder)
        print(f"{os.cpu_count()} cores, torch {torch.__version__}; best of {repeats}; 256-cube at 1 mm\n")
        header = ("plain / tuned", "NRMSE precision", "NRMSE seams", "plain s", "tuned s", "file to file s", "peak GB")
        print(f"{'device':<8}" + "".join(f"{title:>16}" for title in header))
        for device in devices:
            share = apart(network_share, scan, device, repeats)
            whole = [whole_command(scan, folder / "out", device) for _ in range(repeats)]
            print(
                f"{device:<8}{share['plain'] / share['tuned']:>16.1f}{share['precision']:>16.3%}"
                f"{share['seams']:>16.3%}"
                f"{share['plain']:>16.2f}{share['tuned']:>16.2f}"
                f"{min(s for s, _ in whole):>16.1f}{max(m for _, m in whole):>16.2f}"
            )


if __name__ == "__main__":
    main()
