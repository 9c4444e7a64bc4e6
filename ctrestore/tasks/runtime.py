"""What the configs of every bundle call: the folder of the bundle, its device, its embedded data, one run."""

from __future__ import annotations

import errno
import functools
import os
import re
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, ParamSpec, TypeVar

import torch
from monai.bundle import run as bundle_run
from monai.data import CacheDataset, Dataset, PersistentDataset
from torch import nn

from ctrestore.training import precision
from ctrestore.training.imagenet import vgg16_relu3_3

Section = Literal["training", "validation", "test"]
Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def ends_cleanly(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Turn the errors of a user's input into a message and exit status 1."""

    @functools.wraps(function)
    def wrapped(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        try:
            return function(*args, **kwargs)
        except (ValueError, OSError, FloatingPointError) as error:
            raise SystemExit(f"ctrestore: error: {error}") from error

    return wrapped


def find_bundle(named: Path | None, name: str) -> Path:
    """A bundle's folder: as named, or ``bundles/NAME`` of the working directory or of the checkout of this package.

    Raises:
        ValueError: there is none.
    """
    places = [named] if named else [Path("bundles") / name, Path(__file__).parent.parent / "bundles" / name]
    for place in places:
        if (place / "configs" / "metadata.json").is_file():
            return place
    looked = " or ".join(str(place) for place in places)
    raise ValueError(
        f"there is no bundle in {looked}. Remedy: run it in a checkout, or name the folder with --bundle DIR."
    )


def run_bundle(bundle: Path, configs: Sequence[str], **overrides: Any) -> None:
    """Run configs of a bundle, one on top of the other.

    Args:
        bundle: its folder.
        configs: names of files in its ``configs``, or paths of others.
        overrides: of ids.

    Raises:
        ValueError: there is no such config.
        SystemExit: what the configs' own functions end with.
    """
    places = [bundle / "configs" / f"{name}.json" for name in configs]
    files = [place if place.is_file() else Path(name) for place, name in zip(places, configs)]
    for file in files:
        if not file.is_file():
            variants = sorted(path.stem for path in (bundle / "configs").glob("*.json"))
            raise ValueError(f"there is no config {file}. The bundle has: {', '.join(variants)}; or name a JSON file.")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*parsing config_file")  # the configs are our own, or named
        bundle_run(config_file=[str(file) for file in files], bundle_root=str(bundle), **overrides)


def embedded_data_dir(bundle_root: str, name: str) -> str:
    """Folder of an embedded data set: ``.data/NAME`` of the checkout that the bundle lies in, or of the bundle."""
    root = Path(bundle_root).resolve()
    checkout = root.parent.parent
    ours = (checkout / "pyproject.toml").is_file() and (checkout / "ctrestore").is_dir()
    return str((checkout if ours else root) / ".data" / name)


def cached_dataset(data: list[dict[str, Any]], transform: Any, in_memory: int, cache_dir: str | None = None) -> Dataset:
    """Dataset that prepares each subject once, up to the first random transform.

    Args:
        data: entries.
        transform: MONAI transform chain.
        in_memory: so many subjects are kept in memory; those beyond are prepared again for every patch.
        cache_dir: folder that keeps all of them as files instead, also for the next run.
    """
    if cache_dir is not None:
        return PersistentDataset(data, transform, cache_dir=str(cache_dir))
    return CacheDataset(data, transform, cache_num=in_memory, num_workers=2, copy_cache=False)


def waits_for_first_process(path: Path) -> bool:
    """Whether ``torchrun`` started this process after the first one of the machine; if so, once the path is there."""
    if int(os.environ.get("LOCAL_RANK") or 0) == 0:
        return False
    while not path.exists():
        time.sleep(0.5)
    return True


@ends_cleanly
def on_device(network: nn.Module, device: str | torch.device) -> nn.Module:
    """The network on a device, its weights in the memory order that convolutions are fastest in.

    Raises:
        SystemExit: there is no such device here.
    """
    try:
        wanted = torch.device(device)
        torch.zeros(1, device=wanted)
    except (RuntimeError, AssertionError) as error:
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        have = ", ".join(["cpu", *(f"cuda:{i}" for i in range(count))])
        raise ValueError(
            f"device {str(device)!r} is not to be had here; there is {have}. Remedy: --device cpu."
        ) from error
    n_axes = max((weights.ndim for weights in network.parameters()), default=0)
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    network = network.to(wanted)
    if n_axes in formats:
        network.to(memory_format=formats[n_axes])  # type: ignore[call-overload]  # documented; torch's stubs lack it
    return network


@ends_cleanly
def use_bfloat16(amp: precision.Amp, device: str | torch.device) -> bool:
    """The precision of a run: :func:`ctrestore.training.precision.use_bfloat16`, said in one line of the log.

    Raises:
        SystemExit: ``amp`` is neither ``"auto"`` nor a bool.
    """
    return precision.use_bfloat16(amp, device, log=True)


@ends_cleanly
def vgg16_features(weights: str | None, device: str | torch.device) -> nn.Module:
    """VGG16 up to relu3_3 with ImageNet weights, for :class:`ctrestore.losses.FeatureLoss`.

    Args:
        weights: torchvision's file; None: as torchvision downloaded it.
        device: to compute on.

    Raises:
        SystemExit: there is no such file, or it holds something else; what to fetch is named.
    """
    return on_device(vgg16_relu3_3(weights), device)


@ends_cleanly
def of_method(method: str, **choices: Any) -> Any:
    """What ``--method`` chooses in a config: the choice of that name.

    Raises:
        SystemExit: there is no such method.
    """
    if method not in choices:
        raise ValueError(f"method {method!r} is unknown. Remedy: --method with one of {', '.join(choices)}.")
    return choices[method]


def reason(error: BaseException) -> str:
    """The innermost message of a chain of exceptions, on one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    kind, message = type(error).__name__, str(error)
    # LoadImage and SaveImage raise the tracebacks of every reader or writer they tried as one text, ours first.
    tried = re.search(r"^(?:\w+\.)*(\w+): (.*)$", message, re.MULTILINE)
    if "cannot find a suitable" in message and tried is not None:
        kind, message = tried.groups()
    message = " ".join(message.split())
    if kind in ("ImageFileError", "EOFError", "BadGzipFile", "HeaderDataError", "error") or (
        "damaged" in message and "Remedy" not in message
    ):
        return (
            f"cannot be read as NIfTI ({message or kind}). Usual cause: a truncated or damaged copy, or another format "
            "under this name. Remedy: copy or convert it again."
        )
    if f"[Errno {errno.ENOSPC}]" in message:
        return "the disk is full; nothing of this scan was written. Remedy: free space, and run again."
    return message if isinstance(error, ValueError) or kind == "ValueError" else f"{kind}: {message}"


def _is_on(switch: bool | str) -> bool:
    """A switch of the command line, where ``true`` stays a text."""
    return str(switch).lower() == "true"


@ends_cleanly
def train(trainer: Any) -> None:
    """Run a trainer; what a user can mend ends the process with one clean message."""
    trainer.run()
