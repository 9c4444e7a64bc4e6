"""The choice between float32 and bfloat16, and reliable bfloat16 on every device.

bfloat16 is two to four times as fast on devices that support it, and 5 to 50 times slower on processors that do not:
there torch uses loops on one thread instead of oneDNN. So ``amp: "auto"`` asks the device first.
"""

from __future__ import annotations

import logging
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import torch
from torch.overrides import TorchFunctionMode

from ctrestore.errors import InputError

Amp = bool | Literal["auto"]
X86 = ("x86_64", "amd64", "i386", "i686", "x86")
PROBE_S = 0.05  # for both precisions together
logger = logging.getLogger("ctrestore")


@dataclass(frozen=True)
class Hardware:
    """Arithmetic of a device.

    Attributes:
        device: torch's type of device, such as ``cpu`` or ``cuda``.
        name: of the device, for people.
        x86: whether it is an x86 processor, whose flags are known.
        avx512_bf16: the processor multiplies bfloat16 vectors. AVX-512 without it emulates bfloat16.
        amx_bf16: the processor multiplies bfloat16 tiles.
        onednn: torch is built with oneDNN, the library that uses these instructions.
        gpu_bf16: the GPU computes bfloat16, without emulation.
        probe_s: seconds of one convolution in float32 and in bfloat16, if there are no flags.
    """

    device: str
    name: str = ""
    x86: bool = False
    avx512_bf16: bool = False
    amx_bf16: bool = False
    onednn: bool = True
    gpu_bf16: bool = False
    probe_s: tuple[float, float] | None = None


def has_bfloat16(hardware: Hardware) -> tuple[bool, str]:
    """Whether bfloat16 is the faster precision on this hardware, and why in a few words."""
    if hardware.device == "cuda":
        return hardware.gpu_bf16, "the GPU computes bfloat16" if hardware.gpu_bf16 else "the GPU has no bfloat16"
    if hardware.device != "cpu":
        return False, f"bfloat16 has not been measured on {hardware.device}"
    if not hardware.onednn:
        return False, "this torch has no oneDNN, and without it bfloat16 is slow"
    if hardware.amx_bf16 or hardware.avx512_bf16:
        return True, f"the processor has {'AMX' if hardware.amx_bf16 else 'AVX512_BF16'}"
    if hardware.x86:
        return False, "the processor has no bfloat16 instructions (AVX512_BF16 or AMX)"
    if hardware.probe_s is None:
        return False, "it is not known whether bfloat16 is fast on this processor"
    float32_s, bfloat16_s = hardware.probe_s
    measured = f"a convolution took {1000 * float32_s:.1f} ms in float32 and {1000 * bfloat16_s:.1f} ms in bfloat16"
    return bfloat16_s < 0.9 * float32_s, measured


@lru_cache
def detect(device: torch.device) -> Hardware:
    """The arithmetic of a device; on processors without known flags a convolution is timed, once."""
    if device.type == "cuda":
        with torch.cuda.device(device):
            found = torch.cuda.is_bf16_supported(including_emulation=False)
        return Hardware("cuda", torch.cuda.get_device_name(device), gpu_bf16=found)
    if device.type != "cpu":
        return Hardware(device.type, device.type)
    flags = _flags()
    x86, onednn = platform.machine().lower() in X86, torch.backends.mkldnn.is_available()
    return Hardware(
        "cpu",
        str(flags.get("cpu_name") or platform.machine()),
        x86=x86,
        avx512_bf16=bool(flags.get("avx512_bf16")),
        amx_bf16=bool(flags.get("amx_bf16")),
        onednn=onednn,
        probe_s=None if x86 or not onednn else _probe(),
    )


def _flags() -> dict[str, Any]:
    """The processor's instructions by name; torch before 2.13 reports two of them, by private functions."""
    if hasattr(torch.cpu, "get_capabilities"):
        return dict(torch.cpu.get_capabilities())
    # mkldnn's own _is_mkldnn_bf16_supported is also true where AVX-512 emulates bfloat16.
    asked = {"avx512_bf16": "_is_avx512_bf16_supported", "amx_bf16": "_is_amx_tile_supported"}
    return {flag: bool(getattr(torch.cpu, name, lambda: False)()) for flag, name in asked.items()}


@lru_cache(maxsize=1)
def _probe() -> tuple[float, float] | None:
    """Best seconds of one 3-D convolution in float32 and in bfloat16 on the CPU; None if bfloat16 fails."""
    image, weights = torch.ones(1, 8, 16, 16, 16), torch.ones(8, 8, 3, 3, 3)
    best: list[float] = []
    for dtype in (torch.float32, torch.bfloat16):
        x, w, end = image.to(dtype), weights.to(dtype), time.perf_counter() + PROBE_S / 2
        seconds: list[float] = []
        try:
            with torch.no_grad():
                while len(seconds) < 2 or time.perf_counter() < end:  # the first call also prepares
                    start = time.perf_counter()
                    torch.conv3d(x, w, padding=1)
                    seconds.append(time.perf_counter() - start)
        except RuntimeError:
            return None
        best.append(min(seconds))
    return best[0], best[1]


def check_amp(amp: Any) -> Amp:
    """The unchanged switch, checked.

    Raises:
        InputError: it is neither ``"auto"`` nor a bool; a text such as ``"false"`` would count as true.
    """
    if isinstance(amp, bool) or amp == "auto":
        return amp
    raise InputError(f"amp is auto, True or False; got {amp!r}. Remedy: --amp auto, --amp True or --amp False.")


def use_bfloat16(amp: Amp, device: str | torch.device, *, log: bool = False) -> bool:
    """Whether to compute in bfloat16: the only place that decides ``"auto"``.

    Args:
        amp: ``"auto"``: bfloat16 if the device supports it in hardware; True or False: as given.
        device: the device of the network.
        log: log the decision and the reason in one line.

    Raises:
        InputError: ``amp`` is something else.
    """
    if check_amp(amp) is False:
        faster, why = False, "amp is False"
    elif amp is True:
        faster, why = True, "amp is True"
    else:
        faster, why = has_bfloat16(detect(torch.device(device)))
    if log:
        logger.info("precision: %s, because %s", "bfloat16" if faster else "float32", why)
        if amp is True and not (known := has_bfloat16(detect(torch.device(device))))[0]:
            logger.warning(
                "amp is True, but %s: expect 5 to 50 times the time of float32. Remedy: --amp auto.", known[1]
            )
    return faster


class _ShallowConvolutionsInFloat32(TorchFunctionMode):
    """3-D convolutions with a kernel deeper than the image run without autocast, to get the right gradient.

    oneDNN's bfloat16 kernel for the gradient of such weights (as in torch 2.13, on CPUs with AVX-512) reads and
    writes beyond its buffers: the gradient is noise or not finite, and sometimes the process crashes. This happens
    at the bottom of a U-Net if the patches are small.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is torch.conv3d and _is_shallow(args):
            with torch.autocast("cpu", enabled=False):
                return func(*(_to_float32(a) for a in args), **{k: _to_float32(a) for k, a in (kwargs or {}).items()})
        return func(*args, **(kwargs or {}))


def _is_shallow(args: tuple[Any, ...]) -> bool:
    """Whether the first spatial axis of the image, ``args[0]``, is shorter than that of the kernel, ``args[1]``."""
    return len(args) > 1 and bool(args[0].shape[-3] < args[1].shape[-3])


def _to_float32(argument: Any) -> Any:
    return argument.float() if isinstance(argument, torch.Tensor) else argument


@contextmanager
def mixed_precision(device: torch.device, amp: Amp = "auto") -> Iterator[None]:
    """Autocast to bfloat16 where that is faster, on the CPU except where its gradients would be wrong.

    Args:
        device: the device of the network.
        amp: as in :func:`use_bfloat16`; False: no change.

    Raises:
        InputError: ``amp`` is neither ``"auto"`` nor a bool.
    """
    enabled = use_bfloat16(amp, device)
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=enabled):
        if enabled and device.type == "cpu" and torch.is_grad_enabled():
            with _ShallowConvolutionsInFloat32():
                yield
        else:
            yield
