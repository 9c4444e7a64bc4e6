"""Mixed precision that can be trusted on every device."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode


class _ShallowConvolutionsInFloat32(TorchFunctionMode):
    """3-D convolutions whose kernel is deeper than the image leave autocast, for the sake of their gradient.

    The bfloat16 kernel for the gradient of such weights in oneDNN (as in torch 2.13, on CPUs with AVX-512) reads and
    writes beyond its buffers: the gradient is noise or not finite, and now and then the process dies. A U-Net meets
    the case at its bottom, when the patches are small.
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
def mixed_precision(device: torch.device, enabled: bool = True) -> Iterator[None]:
    """Autocast to bfloat16, on the CPU except where its gradients would be wrong.

    Args:
        device: where the network runs.
        enabled: False: everything as it is.
    """
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=enabled):
        if enabled and device.type == "cpu" and torch.is_grad_enabled():
            with _ShallowConvolutionsInFloat32():
                yield
        else:
            yield
