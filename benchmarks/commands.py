"""What a command costs in time and memory, for the other benchmarks."""

from __future__ import annotations

import multiprocessing
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any, NamedTuple


class Cost(NamedTuple):
    """Of a command, start of the interpreter and files included."""

    wall_s: float
    cpu_s: float
    peak_memory_gb: float


def cost_of(command: list[str]) -> Cost:
    """Run a command; its output is shown only if it fails."""
    start = time.perf_counter()
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
        wall_s = time.perf_counter() - start
        if status:
            log.seek(0)
            raise RuntimeError(f"{shlex.join(command)}\n{log.read().decode()[-2000:]}")
    unit = 1024 if sys.platform == "darwin" else 1  # macOS counts bytes, Linux kilobytes
    return Cost(wall_s, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / unit / 1024**2)


def apart(function: Callable[..., Any], *arguments: Any) -> Any:
    """What a function gives, run in a process of its own: Linux counts a command's memory from its parent's."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        return process.submit(function, *arguments).result()
