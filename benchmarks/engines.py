"""Whether another engine would run the networks faster than eager PyTorch on one core of a CPU.

    python benchmarks/engines.py                          (pip install onnx onnxruntime openvino)
    python benchmarks/engines.py --repeats 3 --only UnshuffledUNet

PyTorch runs in channels-last order, as inference does; ONNX Runtime and OpenVINO run what torch exports, all in float32
on one thread. They take turns, because machines are noisy, and the median of the processor seconds counts, of the
second run on; building and compiling is not in them. The difference is the largest of any voxel, in the network's unit
(HU / 1000 for CT). What is not installed is left out.
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from ctrestore.networks import REDCNN, HomogeneousUNet, UnshuffledUNet

BUNDLES = Path(__file__).resolve().parent.parent / "bundles"
NEEDED = ("onnx", "onnxruntime", "openvino")
Run = Callable[[], np.ndarray]


class Case(NamedTuple):
    """A network as its bundle's inference.json makes it, its weights and the shape of one input."""

    network: Callable[[], nn.Module]
    weights: Path
    shape: tuple[int, ...]


CASES = {
    "UnshuffledUNet": Case(
        lambda: UnshuffledUNet(in_channels=2), BUNDLES / "ldct_denoising/models/model.pt", (1, 2, 512, 512)
    ),
    "RED-CNN": Case(REDCNN, BUNDLES / "ldct_denoising/models/redcnn.pt", (1, 1, 512, 512)),
    "HomogeneousUNet": Case(
        lambda: HomogeneousUNet(spatial_dims=3, in_channels=3, image_channels=3),
        BUNDLES / "pet_pvc/models/model.pt",
        (1, 3, 96, 96, 96),
    ),
}


def eager(network: nn.Module, x: torch.Tensor) -> Run:
    """The network as it is, in the memory order that convolutions are fastest in."""
    order: Any = torch.channels_last if x.ndim == 4 else torch.channels_last_3d
    network, x = network.to(memory_format=order), x.contiguous(memory_format=order)

    def run() -> np.ndarray:
        with torch.inference_mode():
            return network(x).numpy()

    return run


def export(network: nn.Module, x: torch.Tensor, path: Path) -> None:
    """The network for one size of input, as ONNX."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch about its exporter, and of sizes that become constants
        torch.onnx.export(network, (x,), path, input_names=["x"], output_names=["y"], opset_version=17, dynamo=False)


def onnx_runtime(path: Path, x: np.ndarray) -> Run:
    """ONNX Runtime on one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, {"x": x})[0]


def openvino(path: Path, x: np.ndarray) -> Run:
    """OpenVINO on one thread; it would choose bfloat16 by itself where a processor has it."""
    import openvino as ov

    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1}
    compiled = ov.Core().compile_model(str(path), "CPU", settings)
    return lambda: compiled(x)[0].copy()


def compared(case: Case, repeats: int, missing: set[str]) -> dict[str, tuple[float, float]]:
    """Median seconds of each engine, and the largest difference of its output from that of eager PyTorch."""
    network = case.network().eval()
    network.load_state_dict({k: v.float() for k, v in torch.load(case.weights, weights_only=True).items()})
    x = 0.1 * torch.randn(case.shape, generator=torch.Generator().manual_seed(0))
    with tempfile.TemporaryDirectory() as folder:
        path, runs = Path(folder) / "network.onnx", dict[str, Run]()
        if "onnx" not in missing:
            export(network, x, path)
            if "onnxruntime" not in missing:
                runs["ONNX Runtime"] = onnx_runtime(path, x.numpy())
            if "openvino" not in missing:
                runs["OpenVINO"] = openvino(path, x.numpy())
        runs = {"PyTorch": eager(network, x), **runs}
        outputs = {name: run() for name, run in runs.items()}  # the first run of each is not timed
        seconds: dict[str, list[float]] = {name: [] for name in runs}
        for _ in range(repeats):
            for name, run in runs.items():
                start = time.process_time()
                run()
                seconds[name].append(time.process_time() - start)
    return {
        name: (statistics.median(seconds[name]), float(np.abs(outputs[name] - outputs["PyTorch"]).max()))
        for name in runs
    }


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--only", choices=CASES, help="one network")
    args = parser.parse_args()
    torch.set_num_threads(1)
    missing = {name for name in NEEDED if importlib.util.find_spec(name) is None}
    if missing:
        print(f"not installed: {', '.join(sorted(missing))}. Remedy: pip install {' '.join(NEEDED)}")
    print("| network | input | engine | seconds | times as fast | largest difference |\n|" + " --- |" * 6)
    for name in [args.only] if args.only else CASES:
        found = compared(CASES[name], args.repeats, missing)
        for engine, (seconds, difference) in found.items():
            size = " x ".join(map(str, CASES[name].shape[1:]))
            faster = found["PyTorch"][0] / seconds
            print(f"| {name} | {size} | {engine} | {seconds:.3f} | {faster:.2f} | {difference:.1e} |", flush=True)


if __name__ == "__main__":
    main()
