"""An Ignite handler that MONAI lacks: exact resume, best weights, early stop."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from itertools import count
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from torch import nn

from ctrestore.errors import InputError
from ctrestore.training.epochs import _rank
from ctrestore.training.settings import is_true
from ctrestore.training.weights import BEST, LAST, _bare, load_weights, save_atomically


def _planned_steps(schedule: Mapping[str, Any]) -> int | None:
    """The number of batches for which a learning rate was planned, if its schedule stores it."""
    return schedule.get("total_steps", schedule.get("total_iters"))


class TrainingState:
    """Save after every epoch the complete state of a run, and separately the best weights; load the state to resume.

    ``last.pt`` holds network, optimizer, schedule, epoch and best validation; ``model.pt`` the weights of the best
    validation, plain tensors. Both are replaced atomically. MONAI's CheckpointSaver writes in place and forgets the
    best validation on resume, so the first validation afterwards would replace better weights.

    Attach it last: it saves the result of the other handlers of ``EPOCH_COMPLETED`` (validation, schedule).

    Args:
        folder: of the two files.
        network: trained network, plain or in DistributedDataParallel.
        optimizer: its optimizer.
        lr_scheduler: its schedule, or None.
        evaluator: of the validation; its key metric (larger is better unless its ``metric_cmp_fn`` says otherwise)
            chooses the best weights.
        resume: continue from ``last.pt``; without that file the run starts from the beginning, and logs it.
        patience_epochs: stop this many epochs after the best validation; None: never.
        companions: other objects to save, by name, with ``state_dict`` and ``load_state_dict``: the other
            networks, optimizers and schedules of an adversarial training.
        start_from: initial weights, for a second stage: a ``model.pt``, or the ``last.pt`` of an adversarial
            training, from which the companions that are networks are also loaded. Ignored in a resumed run.

    Raises:
        InputError: ``last.pt`` belongs to another network, optimizer or length of schedule, or is damaged; or
            ``start_from`` is missing or does not fit.
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
        self.resume, self.patience_epochs = is_true(resume, "resume"), patience_epochs
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
                    raise InputError(f"its learning rate was planned for {planned} batches, now for {now}")
                self.lr_scheduler.load_state_dict(state["lr_scheduler"])
            for name, companion in self.companions.items():
                _bare(companion).load_state_dict(state["companions"][name])
        except Exception as error:  # for damaged or foreign files torch raises a dozen kinds
            reason = " ".join(str(error).split())[:200]
            raise InputError(
                f"{path} belongs to another network, optimizer or schedule: {reason}. Remedy: resume with the overlays "
                "and overrides (also --max_epochs) of that run, or start a new one with another --ckpt_dir."
            ) from error
        engine.state.epoch, engine.state.iteration = state["epoch"], state["iteration"]
        if self.evaluator is not None:
            self.evaluator.state.best_metric = state["best_metric"]
            self.evaluator.state.best_metric_epoch = state["best_metric_epoch"]
        self.logger.info("resumed after epoch %d from %s", state["epoch"], path)

    def _begin_with(self, path: Path) -> None:
        """Load the networks of a first stage, not its optimizers and schedules."""
        if not path.is_file():
            raise InputError(f"there is no {path}. Remedy: train the first stage, or name its file with --start_from.")
        load_weights(path, self.network)
        state = torch.load(path, map_location="cpu", weights_only=True).get("companions", {})
        for name, companion in self.companions.items():
            if not isinstance(companion, nn.Module):
                continue
            try:
                _bare(companion).load_state_dict(state[name])
            except (KeyError, RuntimeError) as error:
                raise InputError(
                    f"{path} holds no {name} that fits: {' '.join(str(error).split())[:200]}. Usual cause: the weights "
                    f"alone, or another overlay's training. Remedy: --start_from the {LAST} of the first stage."
                ) from error
        self.logger.info("beginning with the networks of %s", path)

    def _keep_previous(self) -> None:
        """Move the files of an earlier run to another folder: a new run must not replace them."""
        if _rank() > 0 or not (self.folder / LAST).is_file():
            return
        places = (self.folder / f"previous_{number}" for number in count(1))
        aside = next(place for place in places if not place.exists())
        aside.mkdir(parents=True)
        for name in (LAST, BEST):
            if (self.folder / name).is_file():
                (self.folder / name).rename(aside / name)
        self.logger.info("an earlier run is kept in %s; to continue a run add --resume True", aside)

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
