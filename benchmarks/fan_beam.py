"""Speed and accuracy of projection and reconstruction of one slice, beside itk-rtk where it is installed.

    python benchmarks/fan_beam.py                      (pip install itk-rtk for the comparison)
    python benchmarks/fan_beam.py --torch              also our torch formulas, on the CPU and on a GPU if there is one

512 x 512 pixels, 736 detectors on a plane, 1152 views, ramp filter: a body of water with lungs, bone and a pattern of
rods, every pixel the mean of its 16 parts. RMSE is against that image, within the field of view, in HU. RTK projects
one row of detectors and reconstructs three, the fewest that its filters take. The best of several runs counts;
compiling (numba) and building (RTK) is not in them.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch

from ctrestore.ct import FLASH, FanBeam, attenuation_to_hu, hu_to_attenuation, project, reconstruct
from ctrestore.psf import N_THREADS

SIDE, SPACING_MM = 512, 0.9
SCANNER = replace(FLASH, detector="flat")  # RTK filters planes


class Timed(NamedTuple):
    """Seconds of both steps, and the error of the image in HU."""

    project_s: float
    reconstruct_s: float
    rmse_hu: float


def radius_mm(parts: int = 1) -> np.ndarray:
    along = (np.arange(SIDE * parts) - (SIDE * parts - 1) / 2) * SPACING_MM / parts
    return np.hypot(along[:, None], along)


def phantom(parts: int = 4) -> np.ndarray:
    """The slice in HU, float32."""
    along = (np.arange(SIDE * parts) - (SIDE * parts - 1) / 2) * SPACING_MM / parts
    y, x = along[:, None], along[None]
    hu = np.where((x / 170) ** 2 + (y / 120) ** 2 < 1, 0.0, -1000.0).astype(np.float32)
    for side in (-1, 1):
        hu[((x - side * 80) / 55) ** 2 + ((y + 10) / 75) ** 2 < 1] = -800
    hu[(x / 20) ** 2 + ((y - 85) / 18) ** 2 < 1] = 600
    for row in range(5):
        for column in range(5):
            hu[np.hypot(x - (column - 2) * 8, y - (row - 2) * 8 + 40) < 1 + 0.5 * column] = 40 * (row + 1)
    return hu.reshape(SIDE, parts, SIDE, parts).mean(axis=(1, 3))


def best(function: Callable[[], Any], repeats: int) -> tuple[float, Any]:
    """The shortest wall time and the result."""
    walls = []
    for _ in range(repeats):
        start = time.perf_counter()
        result = function()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        walls.append(time.perf_counter() - start)
    return min(walls), result


def rmse_hu(image: np.ndarray, truth_hu: np.ndarray) -> float:
    inside = radius_mm() < SCANNER.field_of_view_mm / 2 - 5
    return float(np.sqrt(((attenuation_to_hu(image) - truth_hu)[inside] ** 2).mean()))


def ours(truth_hu: np.ndarray, repeats: int, implementation: str, device: str = "cpu") -> Timed:
    image = hu_to_attenuation(torch.from_numpy(truth_hu).to(device))
    kwargs: dict[str, Any] = {"spacing_mm": SPACING_MM, "geometry": SCANNER, "implementation": implementation}
    project_s, sinogram = best(lambda: project(image, **kwargs), repeats)
    reconstruct_s, back = best(lambda: reconstruct(sinogram, shape=image.shape, **kwargs), repeats)
    return Timed(project_s, reconstruct_s, rmse_hu(back.cpu().numpy(), truth_hu))


def rtk(truth_hu: np.ndarray, repeats: int, scanner: FanBeam = SCANNER) -> Timed:
    """The same by RTK, whose axis of rotation is the second one of ITK: our slice lies in its first and third."""
    import itk
    from itk import RTK

    kind = itk.Image[itk.F, 3]
    geometry = RTK.ThreeDCircularProjectionGeometry.New()
    for angle in np.degrees(scanner.view_angles_rad):
        geometry.AddProjection(scanner.source_to_isocentre_mm, scanner.source_to_detector_mm, float(angle))

    def image_of(values: np.ndarray, spacing: tuple[float, float, float], n_views: int | None = None) -> Any:
        image = itk.image_from_array(np.ascontiguousarray(values, dtype=np.float32))
        image.SetSpacing(spacing)
        n = values.shape[::-1]
        centred = [-(size - 1) / 2 * step for size, step in zip(n, spacing)]
        image.SetOrigin(centred[:2] + [0.0] if n_views else centred)
        return image

    slab = np.repeat(hu_to_attenuation(truth_hu)[:, None], 3, axis=1)
    volume = image_of(slab, (SPACING_MM, 5.0, SPACING_MM))

    def projections(rows: np.ndarray) -> Any:
        return image_of(rows, (scanner.detector_pitch_mm, 1.0, 1.0), scanner.n_views)

    def forward() -> np.ndarray:
        projector = RTK.JosephForwardProjectionImageFilter[kind, kind].New()
        projector.SetInput(0, projections(np.zeros((scanner.n_views, 1, scanner.n_detectors))))
        projector.SetInput(1, volume)
        projector.SetGeometry(geometry)
        projector.Update()
        return itk.array_from_image(projector.GetOutput())

    def back(rows: np.ndarray) -> np.ndarray:
        empty = image_of(np.zeros((SIDE, 1, SIDE)), (SPACING_MM, 1.0, SPACING_MM))
        feldkamp = RTK.FDKConeBeamReconstructionFilter[kind].New()
        feldkamp.SetInput(0, empty)
        feldkamp.SetInput(1, projections(rows))
        feldkamp.SetGeometry(geometry)
        feldkamp.GetRampFilter().SetTruncationCorrection(0.0)
        feldkamp.Update()
        return itk.array_from_image(feldkamp.GetOutput())

    project_s, row = best(forward, repeats)
    rows = np.repeat(row, 3, axis=1)
    reconstruct_s, image = best(lambda: back(rows), repeats)
    return Timed(project_s, reconstruct_s, rmse_hu(image[:, 0], truth_hu))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--torch", action="store_true", help="also time the torch formulas, once")
    args = parser.parse_args()
    truth_hu = phantom()
    ours(truth_hu, 1, "compiled")
    results = {"ctrestore, compiled": ours(truth_hu, args.repeats, "compiled")}
    if importlib.util.find_spec("itk") is not None:
        results["itk-rtk"] = rtk(truth_hu, args.repeats)
    else:
        print("itk-rtk is not installed (pip install itk-rtk): no comparison.\n")
    if args.torch:
        results["ctrestore, torch on the CPU"] = ours(truth_hu, 1, "torch")
        if torch.cuda.is_available():
            ours(truth_hu, 1, "auto", "cuda")
            results["ctrestore, torch on the GPU"] = ours(truth_hu, args.repeats, "auto", "cuda")
    first = results["ctrestore, compiled"]
    for name, timed in list(results.items())[1:]:
        steps = zip(timed[:2], first[:2])
        by_step = ", ".join(f"{step} {t / u:.1f}" for step, (t, u) in zip(("projection", "reconstruction"), steps))
        print(f"{name} takes {sum(timed[:2]) / sum(first[:2]):.1f} times as long as ours ({by_step})")
    print(f"\nslice of {SIDE} x {SIDE}, {SCANNER.n_detectors} detectors, {SCANNER.n_views} views")
    print(f"{N_THREADS} threads of {os.cpu_count()} cores\n")
    print("| | projection | reconstruction | together | RMSE |\n| --- | ---: | ---: | ---: | ---: |")
    for name, (project_s, reconstruct_s, rmse) in results.items():
        both = project_s + reconstruct_s
        print(f"| {name} | {project_s:.2f} s | {reconstruct_s:.2f} s | {both:.2f} s | {rmse:.1f} HU |")


if __name__ == "__main__":
    main()
