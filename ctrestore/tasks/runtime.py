"""What the configs of every bundle call: the folder of the bundle, its device, its embedded data, one run."""

from __future__ import annotations

import difflib
import functools
import inspect
import logging
import os
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from monai.bundle import ConfigParser, ConfigWorkflow, create_workflow
from monai.bundle import run as bundle_run
from monai.data import CacheDataset, Dataset, PersistentDataset
from torch import nn

import ctrestore
from ctrestore.errors import CTRestoreError, InputError
from ctrestore.io.scan_by_scan import for_each_scan as for_each_scan
from ctrestore.io.scan_by_scan import reason as reason
from ctrestore.training import precision
from ctrestore.training.imagenet import vgg16_relu3_3
from ctrestore.training.settings import is_true as is_true  # configs say runtime.is_true

Section = Literal["training", "validation", "test"]
BUNDLE_ROOT = "$runtime.bundle_root()"  # as configs say it
logger = logging.getLogger("ctrestore")


def prepare() -> None:
    """For ``initialize`` in a config: it knows its folder, and its run raises :mod:`ctrestore.errors`.

    MONAI wraps whatever a component or an expression raises in a RuntimeError of its own. The run of the workflow that
    is being initialised gives the error inside; where the process is ``python -m monai.bundle`` it prints its one line
    and ends with the error's exit status. Other workflows of the process, and MONAI's class, stay as they are. Programs
    that read a config without a workflow are not concerned.
    """
    workflow = _workflow_of_caller()
    if workflow is not None:
        if workflow.parser.get("bundle_root") == BUNDLE_ROOT:
            workflow.parser["bundle_root"] = bundle_root()  # for whoever asks the parser without the workflow
        run, fault = workflow.run, _fault_of_overrides()
        if fault is not None:
            run = functools.partial(_refuse, fault)
        workflow.run = functools.partial(_run, run)  # type: ignore[method-assign]  # of this object alone


def _refuse(fault: str) -> None:
    raise InputError(fault)


def _fault_of_overrides() -> str | None:
    """What is wrong with the ids that the caller of MONAI's ``run`` or ``create_workflow`` overrides; None: nothing.

    MONAI adds an id that no config has without a word, and the run goes on with the default of the id that was meant.
    """
    frame = inspect.currentframe()
    while frame is not None and frame.f_code is not create_workflow.__code__:
        frame = frame.f_back
    if frame is None:
        return None  # the workflow was made in another way, and nobody knows what was overridden
    given = dict(frame.f_locals["_args"])
    files = frame.f_locals["config_file"]
    parser = ConfigParser()
    parser.read_config([files] if isinstance(files, str) else list(files))
    known = {key for key in parser.get() if not key.startswith("_desc")}
    allowed = set(inspect.signature(ConfigWorkflow.__init__).parameters)
    if given.get("tracking") is not None:
        allowed |= {"tracking_uri", "experiment_name", "run_name", "save_execute_config"}
    for identifier in given:
        parent, _, leaf = identifier.rpartition("#")
        if identifier in allowed or identifier in parser or identifier.startswith("_"):
            continue
        if parent and parent in parser and isinstance(parser.get(parent), dict) and "_target_" in parser.get(parent):
            continue  # an argument that the config leaves at its default; a class refuses one that it does not have
        close = difflib.get_close_matches(
            leaf or identifier, list(parser.get(parent)) if parent in parser else known, 1
        )
        meant = f"Did you mean {'#'.join(filter(None, [parent, *close]))}?" if close else "Remedy: an id of the config."
        return f"--{identifier}: no config of this run has such an id. {meant}"
    return None


def _run(monais: Callable[[], Any]) -> Any:
    try:
        return monais()
    except Exception as error:
        found = error_inside(error)
        if found is None:
            raise
        logger.debug("%s", found, exc_info=True)
    if _is_monais_program():
        print(f"ctrestore: error: {found}", file=sys.stderr)
        raise SystemExit(found.exit_status)
    raise found  # outside of the except block: the wrapper around it must not become its own cause


def error_inside(error: BaseException | None) -> CTRestoreError | None:
    """What a user can mend, from the wrappers that MONAI puts around it; None: it is a fault of a program."""
    chain = []
    while error is not None:
        chain.append(error)
        error = error.__cause__
    ours = [e for e in chain if isinstance(e, CTRestoreError)]
    others = [e for e in chain if isinstance(e, (ValueError, OSError, FloatingPointError))]
    if ours:
        return ours[0]
    if not others:
        return None
    text = str(others[0])
    if not _is_raised_here(others[0]):  # a setting that torch or MONAI refuses, or a fault of a program
        text = f"{type(others[0]).__name__}: {text} (the log of ctrestore at level DEBUG has the traceback)"
    found = InputError(text)
    found.__cause__ = others[0]
    return found


def _is_raised_here(error: BaseException) -> bool:
    """Whether a module of this package raised it, whose messages are for users."""
    trace, module = error.__traceback__, ""
    while trace is not None:
        module, trace = trace.tb_frame.f_globals.get("__name__", ""), trace.tb_next
    return module.startswith("ctrestore.")


def _is_monais_program() -> bool:
    """Whether this process is ``python -m monai.bundle``, alone or under torchrun."""
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    return spec is not None and spec.name.startswith("monai.bundle")


def _workflow_of_caller() -> ConfigWorkflow | None:
    """The workflow whose config is being evaluated: MONAI hands it to no expression, but it is on the stack."""
    frame = inspect.currentframe()
    while frame is not None:
        owner = frame.f_locals.get("self")
        if isinstance(owner, ConfigWorkflow):
            return owner
        frame = frame.f_back
    return None


def bundle_root() -> str:
    """The folder of the bundle whose config calls this: the one that the config was read from.

    Raises:
        InputError: nobody knows: the config was read by a parser alone.
    """
    workflow = _workflow_of_caller()
    if workflow is None:
        raise InputError(
            "the bundle's folder is unknown, because its config was read by a parser alone. Remedy: bundle_root, the "
            'folder above configs: parser["bundle_root"] = FOLDER, bundle_root=FOLDER in Python, --bundle_root FOLDER '
            "on the command line."
        )
    folder = Path(workflow.config_root_path).resolve()
    return str(folder.parent if folder.name == "configs" else folder)


def is_later_rank() -> bool:
    """Whether torchrun started this process after the first one, which alone logs."""
    return int(os.environ.get("RANK") or 0) > 0


def first_file(preferred: str, otherwise: str | None) -> str | None:
    """The preferred file where it is there, such as weights of one's own training, or else another."""
    return preferred if Path(preferred).is_file() else otherwise


def find_bundle(named: Path | None, name: str) -> Path:
    """A bundle's folder: as named, or ``bundles/NAME`` of the working directory or of the checkout of this package.

    Raises:
        InputError: there is none.
    """
    places = [named] if named else [Path("bundles") / name, Path(ctrestore.__file__).parent.parent / "bundles" / name]
    for place in places:
        if (place / "configs" / "metadata.json").is_file():
            return place
    looked = " or ".join(str(place) for place in places)
    raise InputError(
        f"there is no bundle in {looked}. Remedy: run it in a checkout, or name the folder with --bundle DIR."
    )


def run_bundle(bundle: Path, configs: Sequence[str], **overrides: Any) -> None:
    """Run configs of a bundle, one on top of the other.

    Args:
        bundle: its folder.
        configs: names of files in its ``configs``, or paths of others.
        overrides: of ids. Texts are data, such as names of files, whatever they begin with: nothing in them is run.

    Raises:
        InputError: there is no such config, or what the configs' own functions refuse.
    """
    places = [bundle / "configs" / f"{name}.json" for name in configs]
    files = [place if place.is_file() else Path(name) for place, name in zip(places, configs)]
    for file in files:
        if not file.is_file():
            variants = sorted(path.stem for path in (bundle / "configs").glob("*.json"))
            raise InputError(f"there is no config {file}. The bundle has: {', '.join(variants)}; or name a JSON file.")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*parsing config_file")  # the configs are our own, or named
        given = {name: _as_data(value) for name, value in overrides.items()}
        bundle_run(config_file=[str(file) for file in files], bundle_root=str(bundle.absolute()), **given)


def _as_data(value: Any) -> Any:
    """A setting that MONAI takes for what it is: ``$`` begins an expression, ``@`` a reference, ``%`` a macro.

    A file of such a name is named by ``./`` before it, which MONAI leaves alone and the file system ignores.
    """
    return f".{os.sep}{value}" if isinstance(value, str) and value[:1] in ("$", "@", "%") else value


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


def device_here(device: str | torch.device) -> torch.device:
    """The device, if this machine has it.

    Raises:
        InputError: there is no such device here.
    """
    try:
        wanted = torch.device(device)
        torch.zeros(1, device=wanted)
    except (RuntimeError, AssertionError) as error:
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        have = ", ".join(["cpu", *(f"cuda:{i}" for i in range(count))])
        raise InputError(f"device {str(device)!r} is not available; there is {have}. Remedy: --device cpu.") from error
    return wanted


def on_device(network: nn.Module, device: str | torch.device) -> nn.Module:
    """The network on a device, its weights in the memory order that convolutions are fastest in.

    Raises:
        InputError: there is no such device here.
    """
    n_axes = max((weights.ndim for weights in network.parameters()), default=0)
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    network = network.to(device_here(device))
    if n_axes in formats:
        network.to(memory_format=formats[n_axes])  # type: ignore[call-overload]  # documented; torch's stubs lack it
    return network


def use_bfloat16(amp: precision.Amp, device: str | torch.device) -> bool:
    """The precision of a run: :func:`ctrestore.training.precision.use_bfloat16`, said in one line of the log.

    Raises:
        InputError: ``amp`` is neither ``"auto"`` nor a bool, or there is no such device here.
    """
    return precision.use_bfloat16(amp, device_here(device), log=True)


def vgg16_features(weights: str | None, device: str | torch.device) -> nn.Module:
    """VGG16 up to relu3_3 with ImageNet weights, for :class:`ctrestore.losses.FeatureLoss`.

    Args:
        weights: torchvision's file; None: as torchvision downloaded it.
        device: to compute on.

    Raises:
        InputError: there is no such file, or it holds something else; what to fetch is named.
    """
    return on_device(vgg16_relu3_3(weights), device)


def slices_at_a_time(device: str | torch.device) -> int:
    """Slices of 512 x 512 in a batch: one on a CPU, where more of them leave the cache and cost 20 % more each."""
    return 1 if device_here(device).type == "cpu" else 4


def of_method(method: str, **choices: Any) -> Any:
    """What ``--method`` chooses in a config: the choice of that name.

    Raises:
        InputError: there is no such method.
    """
    if method not in choices:
        raise InputError(f"method {method!r} is unknown. Remedy: --method with one of {', '.join(choices)}.")
    return choices[method]


def train(trainer: Any) -> None:
    """Run a trainer, as the last entry of a training config."""
    trainer.run()
