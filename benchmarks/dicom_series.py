"""Seconds for a CT series in, its volume in HU, and a derived series out, and the memory that takes.

    python benchmarks/dicom_series.py                    # 300 slices of 512 x 512, as they lie on the disk
    python benchmarks/dicom_series.py --syntax rle       # compressed: rle, jpegls or jpeg2000 (extra "dicom")
    python benchmarks/dicom_series.py --stream           # slice by slice, without the volume in memory

Writing the made-up series is not timed. Reading follows writing, so the files come from the disk's cache.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pydicom
from pydicom.uid import JPEG2000Lossless, JPEGLSLossless, RLELossless

from ctrestore.io.dicom import load_series, open_series, write_derived_series, write_phantom_series

SYNTAXES = {"rle": RLELossless, "jpegls": JPEGLSLossless, "jpeg2000": JPEG2000Lossless}
HOW = {"description": "benchmark", "model": "none", "version": "0"}


def made_up_series(folder: Path, n: int, side: int, syntax: str) -> None:
    """A noisy water cylinder in air, ``n`` slices; only a few different ones, which is enough for the decoders."""
    y, x = np.mgrid[:side, :side] / side - 0.5
    slices = [np.where(x**2 + y**2 < 0.16, 0.0, -1000.0) for _ in range(4)]
    rng = np.random.default_rng(0)
    noisy = [np.clip(hu + rng.normal(0, 20, hu.shape), -1024, 3000).T.astype(np.float32) for hu in slices]
    volume = np.broadcast_to(np.stack(noisy, axis=-1)[..., None], (side, side, 4, -(-n // 4)))
    hu = volume.transpose(0, 1, 3, 2).reshape(side, side, -1)[..., :n]
    paths = write_phantom_series(hu, np.diag([-0.7, -0.7, 1.0, 1.0]), folder)
    for path in paths if syntax != "none" else []:
        image = pydicom.dcmread(path)
        image.compress(SYNTAXES[syntax], generate_instance_uid=False)
        image.save_as(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slices", type=int, default=300)
    parser.add_argument("--side", type=int, default=512, help="rows and columns")
    parser.add_argument("--syntax", choices=["none", *SYNTAXES], default="none")
    parser.add_argument("--stream", action="store_true", help="slice by slice")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        source, target = Path(work) / "in", Path(work) / "out"
        # In a process of its own, which takes its memory with it.
        maker = multiprocessing.get_context("spawn").Process(
            target=made_up_series, args=(source, args.slices, args.side, args.syntax)
        )
        maker.start()
        maker.join()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        start = time.perf_counter()
        if args.stream:
            series = open_series(source)
            loaded = time.perf_counter()
            written = write_derived_series((values for values, _ in series), series, target, **HOW)
        else:
            whole = load_series(source)
            loaded = time.perf_counter()
            written = write_derived_series(whole.volume, whole, target, **HOW)
        end = time.perf_counter()
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        same = all(
            np.array_equal(pydicom.dcmread(a).pixel_array, pydicom.dcmread(b).pixel_array)
            for a, b in zip(written.paths, sorted(source.iterdir()))
        )
    print(f"{args.slices} slices of {args.side} x {args.side}, {args.syntax} compression")
    print(f"{'headers only' if args.stream else 'load':<14} {loaded - start:6.1f} s")
    print(f"{'read and write' if args.stream else 'write':<14} {end - loaded:6.1f} s")
    print(f"{'total':<14} {end - start:6.1f} s, stored values {'equal' if same else 'DIFFERENT'}")
    print(f"memory beyond the imports: {(after - before) / 2**10:.0f} MB")
    sys.exit(not same)


if __name__ == "__main__":
    main()
