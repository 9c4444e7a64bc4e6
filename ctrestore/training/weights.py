"""State dicts on disk: loaded strictly, saved atomically, released in half precision."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from torch import nn

from ctrestore.errors import InputError
from ctrestore.io.whole import read_json, write_json, written_whole

LAST, BEST = "last.pt", "model.pt"


def _bare(network: nn.Module) -> nn.Module:
    """The network inside DistributedDataParallel."""
    return network.module if isinstance(network, nn.parallel.DistributedDataParallel) else network


def save_atomically(state: Mapping[str, Any], path: Path) -> None:
    """``torch.save``, atomically."""
    with written_whole(path) as draft:
        torch.save(dict(state), draft)


class LoadWeights:
    """Load released or trained weights once, before an evaluator starts or when it does, and say which; strict.

    Args:
        path: state dict; None, which the command line says by ``none``: the network has no weights.
        network: to load them into.

    Raises:
        InputError: the file is missing, is not a weights file, or belongs to another network.
    """

    def __init__(self, path: str | None, network: nn.Module) -> None:
        self.path, self.network = None if path in (None, "none") else Path(str(path)), network
        self.logger, self.loaded = logging.getLogger("ctrestore.weights"), False

    def attach(self, engine: Engine) -> None:
        """Register with an evaluator."""
        engine.add_event_handler(Events.STARTED, self)

    def __call__(self, engine: Engine) -> None:
        self.load()

    def load(self) -> None:
        """Load them, unless that was done: an evaluator that runs scan by scan starts many times."""
        if self.path is not None and not self.loaded:
            load_weights(self.path, self.network)
            self.logger.info("weights: %s", self.path)
        self.loaded = True


def load_weights(path: str | Path, network: nn.Module) -> None:
    """Load a state dict (half precision or float) into a network, strictly, on the network's device."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"there are no weights at {path}. Remedy: train first, or name them with --weights FILE.")
    try:
        state = _weights_in(path)
        _bare(network).load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in state.items()})
    except Exception as error:  # for damaged or foreign files torch raises a dozen kinds
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"{path} does not fit {type(_bare(network)).__name__}: {reason}. Usual cause: weights of another network "
            "or overlay, or a damaged file. Remedy: name the right file with --weights FILE."
        ) from error


def _weights_in(path: Path) -> dict[str, torch.Tensor]:
    """The state dict of a network, from its own file or from the state of a training."""
    state = torch.load(path, map_location="cpu", weights_only=True)
    return state.get("network", state)


def release_weights(trained: Path, released: Path) -> int:
    """Write the weights of a training in half precision, as plain tensors; return the number of their values.

    A JSON file of the same name, which describes the weights, is copied with them.

    Raises:
        InputError: the file holds no weights, or weights that are not finite in half precision.
    """
    if not trained.is_file():
        raise InputError(f"there is no file {trained}. Remedy: train first, or name the model.pt of a training.")
    try:
        state = _weights_in(trained)
        if not state or not all(isinstance(value, torch.Tensor) for value in state.values()):
            raise InputError("no tensors")
    except Exception as error:  # for damaged or foreign files torch raises a dozen kinds
        raise InputError(
            f"{trained} holds no weights ({' '.join(str(error).split())[:200]}). Remedy: name the model.pt or last.pt "
            "of a training."
        ) from error
    half = {name: value.half() if value.is_floating_point() else value for name, value in state.items()}
    bad = [name for name, value in half.items() if value.is_floating_point() and not torch.isfinite(value).all()]
    if bad:
        raise InputError(f"{trained}: {', '.join(bad)} are not finite in half precision. Remedy: train again.")
    save_atomically(half, released)
    if (card := trained.with_suffix(".json")).is_file():
        write_json(read_json(card), released.with_suffix(".json"))
    return sum(value.numel() for value in half.values())
