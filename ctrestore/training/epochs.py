"""Ignite handlers of one epoch: its seed, its log line, and the clipping of its gradients."""

from __future__ import annotations

import logging
import math
import random
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, EventEnum, Events
from monai.engines.utils import IterationEvents
from torch import nn

from ctrestore.errors import TrainingError


def _rank() -> int:
    return (
        torch.distributed.get_rank() if torch.distributed.is_available() and torch.distributed.is_initialized() else 0
    )


class SeedEachEpoch:
    """Seed every generator with ``seed`` and the epoch, so that epoch n is the same in a resumed run.

    Args:
        seed: of the run.
        transforms: the random transform chains of the training set (``set_random_state``).
    """

    def __init__(self, seed: int, transforms: Sequence[Any]) -> None:
        self.seed, self.transforms = seed, transforms

    def attach(self, engine: Engine) -> None:
        """Register with a trainer."""
        engine.add_event_handler(Events.EPOCH_STARTED, self)

    def __call__(self, engine: Engine) -> None:
        # Ignite draws the batches of an epoch from an iterator it makes after this event.
        seed = self.seed + 1000 * engine.state.epoch + 100_000_000 * _rank()
        random.seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002  (MONAI and third-party transforms draw from the global state)
        torch.manual_seed(seed)
        for i, transform in enumerate(self.transforms):
            transform.set_random_state((seed + i) % 2**32)


class ClipGradientNorm:
    """Scale the gradients down to a norm of ``max_norm`` before the optimizer's step; skip steps that are not finite.

    bfloat16 convolutions on CPUs sometimes give a NaN gradient from finite numbers (seen with torch 2.13 on patches of
    16 voxels); one such step would ruin the weights. CUDA's gradient scaler also skips such steps.

    Args:
        network: owner of the gradients; several in a ``torch.nn.ModuleList``.
        max_norm: of all of them together.
        patience: number of bad steps in a row that are tolerated.
        event: fired between the gradients and the step; that of a trainer's second optimizer differs.

    Raises:
        TrainingError: ``patience`` steps in a row were not finite, which is not chance.
    """

    def __init__(
        self,
        network: nn.Module,
        max_norm: float = 1.0,
        patience: int = 5,
        event: EventEnum = IterationEvents.BACKWARD_COMPLETED,
    ) -> None:
        self.network, self.max_norm, self.patience, self.in_a_row = network, max_norm, patience, 0
        self.event = event
        self.logger = logging.getLogger("ctrestore.train")

    def attach(self, engine: Engine) -> None:
        """Register with a MONAI trainer."""
        engine.add_event_handler(self.event, self)

    def __call__(self, engine: Engine) -> None:
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), self.max_norm)
        if math.isfinite(float(norm)):
            self.in_a_row = 0
            return
        self.in_a_row += 1
        self.logger.warning("iteration %d: gradient is not finite, its step is skipped", engine.state.iteration)
        if self.in_a_row >= self.patience:
            raise TrainingError(
                f"the gradient was not finite in {self.patience} steps in a row, up to iteration "
                f"{engine.state.iteration}. Usual cause: too large a learning rate. Remedy: start again with a lower "
                "--learning_rate."
            )
        for parameter in self.network.parameters():
            parameter.grad = None  # optimizers skip parameters without a gradient


class EpochLog:
    """One line per epoch: mean loss, learning rate, seconds, time left; in long epochs also every ``every_s`` s.

    Raises:
        TrainingError: the loss is NaN or infinite (the usual cause: too large a learning rate).
    """

    def __init__(self, optimizer: torch.optim.Optimizer, every_s: float = 30.0, name: str = "ctrestore.train") -> None:
        self.optimizer, self.every_s, self.logger = optimizer, every_s, logging.getLogger(name)
        self.losses: list[float] = []
        self.run_start = self.epoch_start = self.last_line = time.monotonic()
        self.iterations_before: int | None = None

    def attach(self, engine: Engine) -> None:
        """Register with a trainer."""
        engine.add_event_handler(Events.STARTED, self._started)
        engine.add_event_handler(Events.EPOCH_STARTED, self._epoch_started)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._iteration)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._epoch_completed)

    def _started(self, engine: Engine) -> None:
        self.run_start, self.iterations_before = time.monotonic(), None

    def _epoch_started(self, engine: Engine) -> None:
        self.losses, self.epoch_start = [], time.monotonic()
        self.last_line = self.epoch_start
        if self.iterations_before is None:  # by now TrainingState has set where a resumed run continues
            self.iterations_before = engine.state.iteration

    def _time_left(self, engine: Engine) -> str:
        state: Any = engine.state
        done = state.iteration - (self.iterations_before or 0)
        left = state.max_epochs * state.epoch_length - state.iteration
        minutes = left * (time.monotonic() - self.run_start) / max(done, 1) / 60
        return f"{minutes / 60:.1f} h left" if minutes > 90 else f"{minutes:.1f} min left"

    def _iteration(self, engine: Engine) -> None:
        state: Any = engine.state
        output = state.output
        loss = float(output[0]["loss"] if isinstance(output, list) else output["loss"])
        if not math.isfinite(loss):
            raise TrainingError(
                f"the loss became {loss} in iteration {engine.state.iteration}. Usual cause: too large a learning "
                "rate. Remedy: start again with a lower --learning_rate."
            )
        self.losses.append(loss)
        if _rank() == 0 and time.monotonic() - self.last_line > self.every_s:
            self.last_line = time.monotonic()
            done = (state.iteration - 1) % state.epoch_length + 1
            self.logger.info(
                "epoch %d/%d, batch %d/%d: loss %.5f, %s", state.epoch, state.max_epochs, done,
                state.epoch_length, np.mean(self.losses), self._time_left(engine),
            )  # fmt: skip

    def _epoch_completed(self, engine: Engine) -> None:
        if _rank() > 0:
            return
        self.logger.info(
            "epoch %d/%d: loss %.5f, learning rate %.2e, %.0f s, %s", engine.state.epoch, engine.state.max_epochs,
            np.mean(self.losses), self.optimizer.param_groups[0]["lr"], time.monotonic() - self.epoch_start,
            self._time_left(engine),
        )  # fmt: skip
