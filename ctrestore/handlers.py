"""Ignite handlers that MONAI lacks: exact resume, early stop, gradient clipping, a line an epoch with the time left."""

from __future__ import annotations

import logging
import math
import random
import time
from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, EventEnum, Events
from monai.engines.utils import IterationEvents
from torch import nn

from ctrestore.files import read_json, write_json, written_whole

LAST, BEST = "last.pt", "model.pt"


def _rank() -> int:
    return (
        torch.distributed.get_rank() if torch.distributed.is_available() and torch.distributed.is_initialized() else 0
    )


def _bare(network: nn.Module) -> nn.Module:
    """The network inside DistributedDataParallel."""
    return network.module if isinstance(network, nn.parallel.DistributedDataParallel) else network


def save_atomically(state: Mapping[str, Any], path: Path) -> None:
    """``torch.save``, whole or not at all."""
    with written_whole(path) as draft:
        torch.save(dict(state), draft)


class SeedEachEpoch:
    """Seed every generator from ``seed`` and the epoch, so that epoch n is the same in a resumed run.

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
    """Scale the gradients down to a norm of ``max_norm`` before the optimizer's step; leave out one that is not finite.

    bfloat16 convolutions on CPUs give, rarely, a NaN gradient from finite numbers (seen with torch 2.13 on patches of
    16 voxels); one such step would ruin the weights. CUDA's gradient scaler leaves such steps out, too.

    Args:
        network: whose gradients; several in a ``torch.nn.ModuleList``.
        max_norm: of all of them together.
        patience: bad steps in a row that are borne.
        event: fired between the gradients and the step; that of a trainer's second optimizer differs.

    Raises:
        FloatingPointError: ``patience`` steps in a row were not finite, so it is no accident.
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
        self.logger.warning("iteration %d: gradient is not finite, its step is left out", engine.state.iteration)
        if self.in_a_row >= self.patience:
            raise FloatingPointError(
                f"the gradient was not finite in {self.patience} steps in a row, up to iteration "
                f"{engine.state.iteration}. Usual cause: too large a learning rate. Remedy: start again with a lower "
                "--learning_rate."
            )
        for parameter in self.network.parameters():
            parameter.grad = None  # optimizers pass over parameters without a gradient


class EpochLog:
    """One line an epoch: mean loss, learning rate, seconds, time left; in long epochs also every ``every_s`` s.

    Raises:
        FloatingPointError: the loss is NaN or infinite (the usual cause: too large a learning rate).
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
        if self.iterations_before is None:  # by now TrainingState has told where a resumed run goes on
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
            raise FloatingPointError(
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


def _planned_steps(schedule: Mapping[str, Any]) -> int | None:
    """For how many batches a learning rate was planned, where its schedule knows it."""
    return schedule.get("total_steps", schedule.get("total_iters"))


class TrainingState:
    """Save after every epoch what a run needs to go on, and the best weights on their own; load it to resume.

    ``last.pt`` holds network, optimizer, schedule, epoch and best validation; ``model.pt`` the weights of the best
    validation, plain tensors. Both are replaced atomically. MONAI's CheckpointSaver writes in place and forgets the
    best validation on resume, so that the first validation afterwards would replace better weights.

    Attach it last: it saves what the other handlers of ``EPOCH_COMPLETED`` (validation, schedule) left.

    Args:
        folder: of the two files.
        network: trained network, plain or in DistributedDataParallel.
        optimizer: its optimizer.
        lr_scheduler: its schedule, or None.
        evaluator: of the validation; its key metric (larger is better unless its ``metric_cmp_fn`` says otherwise)
            chooses the best weights.
        resume: go on from ``last.pt``; without that file the run starts afresh, and says so.
        patience_epochs: stop when the best validation lies so many epochs back; None: never.
        companions: whatever else must survive, by name, with ``state_dict`` and ``load_state_dict``: the other
            networks, optimizers and schedules of an adversarial training.
        start_from: weights to begin with, for a second stage: a ``model.pt``, or the ``last.pt`` of an adversarial
            training, of which the companions that are networks are taken, too. A resumed run has no use for it.

    Raises:
        ValueError: ``last.pt`` belongs to another network, optimizer or length of schedule, or is damaged; or
            ``start_from`` is not there or does not fit.
    """

    def __init__(
        self,
        folder: str,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        lr_scheduler: Any = None,
        evaluator: Any = None,
        resume: bool = False,
        patience_epochs: int | None = None,
        companions: Mapping[str, Any] | None = None,
        start_from: str | None = None,
    ) -> None:
        self.start_from = None if start_from is None else Path(start_from)
        self.folder, self.network, self.optimizer = Path(folder), network, optimizer
        self.companions = dict(companions or {})
        self.lr_scheduler, self.evaluator = lr_scheduler, evaluator
        # The command line hands over "true" as text.
        self.resume, self.patience_epochs = str(resume).lower() == "true", patience_epochs
        self.logger = logging.getLogger("ctrestore.train")

    def attach(self, engine: Engine) -> None:
        """Register with a trainer."""
        engine.add_event_handler(Events.STARTED, self._load)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._save)

    def _load(self, engine: Engine) -> None:
        path = self.folder / LAST
        if self.start_from is not None and not (self.resume and path.is_file()):
            self._begin_with(self.start_from)
        if not self.resume:
            self._keep_previous()
            return
        if not path.is_file():
            self.logger.info("nothing to resume: %s does not exist; starting with epoch 1", path)
            return
        device = next(self.network.parameters()).device
        try:
            state = torch.load(path, map_location=device, weights_only=True)
            _bare(self.network).load_state_dict(state["network"])
            self.optimizer.load_state_dict(state["optimizer"])
            if self.lr_scheduler is not None:
                planned, now = (_planned_steps(s) for s in (state["lr_scheduler"], self.lr_scheduler.state_dict()))
                if planned != now:
                    raise ValueError(f"its learning rate was planned for {planned} batches, now for {now}")
                self.lr_scheduler.load_state_dict(state["lr_scheduler"])
            for name, companion in self.companions.items():
                _bare(companion).load_state_dict(state["companions"][name])
        except Exception as error:  # damaged or foreign, torch raises a dozen kinds
            reason = " ".join(str(error).split())[:200]
            raise ValueError(
                f"{path} belongs to another network, optimizer or schedule: {reason}. Remedy: resume with the overlays "
                "and overrides (--max_epochs, too) of that run, or start a new one with another --ckpt_dir."
            ) from error
        engine.state.epoch, engine.state.iteration = state["epoch"], state["iteration"]
        if self.evaluator is not None:
            self.evaluator.state.best_metric = state["best_metric"]
            self.evaluator.state.best_metric_epoch = state["best_metric_epoch"]
        self.logger.info("resumed after epoch %d from %s", state["epoch"], path)

    def _begin_with(self, path: Path) -> None:
        """Take the networks of a first stage, not its optimizers and schedules."""
        if not path.is_file():
            raise ValueError(f"there is no {path}. Remedy: train the first stage, or name its file with --start_from.")
        load_weights(path, self.network)
        state = torch.load(path, map_location="cpu", weights_only=True).get("companions", {})
        for name, companion in self.companions.items():
            if not isinstance(companion, nn.Module):
                continue
            try:
                _bare(companion).load_state_dict(state[name])
            except (KeyError, RuntimeError) as error:
                raise ValueError(
                    f"{path} holds no {name} that fits: {' '.join(str(error).split())[:200]}. Usual cause: the weights "
                    f"alone, or another overlay's training. Remedy: --start_from the {LAST} of the first stage."
                ) from error
        self.logger.info("beginning with the networks of %s", path)

    def _keep_previous(self) -> None:
        """Move the files of an earlier run aside: a new run must not replace them."""
        if _rank() > 0 or not (self.folder / LAST).is_file():
            return
        places = (self.folder / f"previous_{number}" for number in count(1))
        aside = next(place for place in places if not place.exists())
        aside.mkdir(parents=True)
        for name in (LAST, BEST):
            if (self.folder / name).is_file():
                (self.folder / name).rename(aside / name)
        self.logger.info("an earlier run is kept in %s; to go on with a run say --resume True", aside)

    def _save(self, engine: Engine) -> None:
        best_epoch = self.evaluator.state.best_metric_epoch if self.evaluator is not None else -1
        if _rank() == 0:
            weights = {k: v.detach().cpu() for k, v in _bare(self.network).state_dict().items()}
            if best_epoch == engine.state.epoch:
                save_atomically(weights, self.folder / BEST)
                self.logger.info(
                    "epoch %d: best validation so far, %s %.4f; weights saved to %s", engine.state.epoch,
                    self.evaluator.state.key_metric_name, self.evaluator.state.best_metric, self.folder / BEST,
                )  # fmt: skip
            state = {
                "network": weights,
                "optimizer": self.optimizer.state_dict(),
                "epoch": engine.state.epoch,
                "iteration": engine.state.iteration,
                "best_metric": float(self.evaluator.state.best_metric) if self.evaluator is not None else -1.0,
                "best_metric_epoch": best_epoch,
            }
            if self.lr_scheduler is not None:
                state["lr_scheduler"] = self.lr_scheduler.state_dict()
            if self.companions:
                state["companions"] = {name: _bare(one).state_dict() for name, one in self.companions.items()}
            save_atomically(state, self.folder / LAST)
        if self.patience_epochs and best_epoch > 0 and engine.state.epoch - best_epoch >= self.patience_epochs:
            self.logger.info("no better validation for %d epochs: stopping", self.patience_epochs)
            engine.terminate()


class WatchCritics:
    """One line an epoch on an adversarial training, and a warning when a part of it has collapsed.

    Means over the epoch of the scalars that :class:`ctrestore.engines.UnpairedTrainer` gives; also in
    ``state.metrics``, where TensorBoard's handler finds them. What is warned of, each with its sign:

    - a critic has died: its gradient norm, which the penalty pulls to one, is near zero, and it teaches nothing;
    - a critic runs away: that norm is far above one, so its penalty does not hold;
    - a critic is lost: it finds fake images more like its domain than real ones;
    - mode collapse: restored patches of a batch resemble one another more than the low-dose patches do;
    - the cycle is broken: an image does not come back, by a cycle error above ``max_cycle_hu``.

    Args:
        min_gradient: of a critic.
        max_gradient: of a critic.
        min_diversity: of the restored patches, relative to the low-dose ones.
        max_cycle_hu: mean absolute error of an image there and back.
    """

    def __init__(
        self,
        min_gradient: float = 0.1,
        max_gradient: float = 3.0,
        min_diversity: float = 0.5,
        max_cycle_hu: float = 100.0,
    ) -> None:
        self.min_gradient, self.max_gradient = min_gradient, max_gradient
        self.min_diversity, self.max_cycle_hu = min_diversity, max_cycle_hu
        self.sums: dict[str, list[torch.Tensor]] = {}
        self.logger = logging.getLogger("ctrestore.train")

    def attach(self, engine: Engine) -> None:
        """Register with a trainer."""
        engine.add_event_handler(Events.EPOCH_STARTED, self._clear)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._collect)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._report)

    def _clear(self, engine: Engine) -> None:
        self.sums = {}

    def _collect(self, engine: Engine) -> None:
        output: Any = engine.state.output
        for name, value in output.items():
            if getattr(value, "ndim", None) == 0:
                self.sums.setdefault(name, []).append(value.detach())

    def _report(self, engine: Engine) -> None:
        means = {name: float(torch.stack(values).float().mean()) for name, values in self.sums.items()}
        engine.state.metrics.update({f"train_{name}": value for name, value in means.items()})
        if _rank() > 0:
            return
        self.logger.info(
            "epoch %d: Wasserstein full %.4f, low %.4f; gradients of the critics %.2f, %.2f, of the generators %.3f; "
            "cycle %.1f HU, identity %.1f HU, removed %.1f HU, diversity %.2f",
            engine.state.epoch, *(means[f"wasserstein_{domain}"] for domain in ("full", "low")),
            *(means[f"critic_gradient_{domain}"] for domain in ("full", "low")), means["generator_gradient"],
            means["cycle_hu"], means["identity_hu"], means["removed_hu"], means["diversity"],
        )  # fmt: skip
        for finding in self.findings(means):
            self.logger.warning("epoch %d: %s", engine.state.epoch, finding)

    def findings(self, means: Mapping[str, float]) -> list[str]:
        """What is wrong with an epoch of these means, in words, with the remedy."""
        found = []
        for domain in ("full", "low"):
            norm, distance = means[f"critic_gradient_{domain}"], means[f"wasserstein_{domain}"]
            who = f"the critic of {domain} dose"
            if not norm >= self.min_gradient:
                found.append(f"{who} has died, its gradient norm is {norm:.3g}. Remedy: a lower --critic_learning_rate")
            elif norm > self.max_gradient:
                found.append(f"{who} runs away, its gradient norm is {norm:.3g}. Remedy: a larger --penalty_weight")
            elif distance < 0:
                found.append(f"{who} is lost, its estimate is {distance:.3g}. Remedy: more --critic_steps")
        if not means["diversity"] >= self.min_diversity:
            found.append(
                f"mode collapse: restored patches differ {means['diversity']:.2f} times as much as their inputs. "
                "Remedy: a larger --cycle_weight or --identity_weight"
            )
        if not means["cycle_hu"] <= self.max_cycle_hu:
            found.append(f"images come back with {means['cycle_hu']:.0f} HU of error. Remedy: a larger --cycle_weight")
        return found


class LoadWeights:
    """Load released or trained weights when an evaluator starts, and say which; strict.

    Raises:
        ValueError: the file is missing, is no weights file, or belongs to another network.
    """

    def __init__(self, path: str, network: nn.Module) -> None:
        self.path, self.network = Path(path), network
        self.logger, self.loaded = logging.getLogger("ctrestore.weights"), False

    def attach(self, engine: Engine) -> None:
        """Register with an evaluator."""
        engine.add_event_handler(Events.STARTED, self)

    def __call__(self, engine: Engine) -> None:
        if not self.loaded:  # an evaluator that runs scan by scan starts many times
            load_weights(self.path, self.network)
            self.logger.info("weights: %s", self.path)
            self.loaded = True


def load_weights(path: str | Path, network: nn.Module) -> None:
    """Load a state dict (half precision or float) into a network, strictly, on the network's device."""
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"there are no weights at {path}. Remedy: train first, or name them with --weights FILE.")
    try:
        state = _weights_in(path)
        _bare(network).load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in state.items()})
    except Exception as error:  # damaged or foreign, torch raises a dozen kinds
        reason = " ".join(str(error).split())[:200]
        raise ValueError(
            f"{path} does not fit {type(_bare(network)).__name__}: {reason}. Usual cause: weights of another network "
            "or overlay, or a damaged file. Remedy: name the right file with --weights FILE."
        ) from error


def _weights_in(path: Path) -> dict[str, torch.Tensor]:
    """The state dict of a network, from a file of its own or from the state of a training."""
    state = torch.load(path, map_location="cpu", weights_only=True)
    return state.get("network", state)


def release_weights(trained: Path, released: Path) -> int:
    """Write the weights of a training in half precision, as plain tensors; return how many values they have.

    A JSON file of the same name, which says what the weights are for, goes with them.

    Raises:
        ValueError: the file holds no weights, or weights that are not finite in half precision.
    """
    if not trained.is_file():
        raise ValueError(f"there is no file {trained}. Remedy: train first, or name the model.pt of a training.")
    try:
        state = _weights_in(trained)
        if not state or not all(isinstance(value, torch.Tensor) for value in state.values()):
            raise ValueError("no tensors")
    except Exception as error:  # damaged or foreign, torch raises a dozen kinds
        raise ValueError(
            f"{trained} holds no weights ({' '.join(str(error).split())[:200]}). Remedy: name the model.pt or last.pt "
            "of a training."
        ) from error
    half = {name: value.half() if value.is_floating_point() else value for name, value in state.items()}
    bad = [name for name, value in half.items() if value.is_floating_point() and not torch.isfinite(value).all()]
    if bad:
        raise ValueError(f"{trained}: {', '.join(bad)} are not finite in half precision. Remedy: train again.")
    save_atomically(half, released)
    if (card := trained.with_suffix(".json")).is_file():
        write_json(read_json(card), released.with_suffix(".json"))
    return sum(value.numel() for value in half.values())
