"""A handler that monitors critics and generators, and warns if they fail."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import torch
from ignite.engine import Engine, Events

from ctrestore.training.epochs import _rank


class WatchCritics:
    """One log line per epoch of an adversarial training, and a warning when a part of it has collapsed.

    The line has means over the epoch of the scalars of :class:`ctrestore.training.unpaired_trainer.UnpairedTrainer`;
    they are also in ``state.metrics``, for TensorBoard's handler. The warnings, each with its sign:

    - a critic has died: its gradient norm, which the penalty pulls to one, is near zero, and it teaches nothing;
    - a critic diverges: that norm is far above one, so its penalty does not work;
    - a critic has lost: it finds fake images more like its domain than real ones;
    - mode collapse: restored patches of a batch are more alike than the low-dose patches;
    - the cycle is broken: an image does not come back; the cycle error is above ``max_cycle_hu``.

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
        """The faults of an epoch with these means, in words, with the remedy."""
        found = []
        for domain in ("full", "low"):
            norm, distance = means[f"critic_gradient_{domain}"], means[f"wasserstein_{domain}"]
            who = f"the critic of {domain} dose"
            if not norm >= self.min_gradient:
                found.append(f"{who} has died, its gradient norm is {norm:.3g}. Remedy: a lower --critic_learning_rate")
            elif norm > self.max_gradient:
                found.append(f"{who} diverges, its gradient norm is {norm:.3g}. Remedy: a larger --penalty_weight")
            elif distance < 0:
                found.append(f"{who} has lost, its estimate is {distance:.3g}. Remedy: more --critic_steps")
        if not means["diversity"] >= self.min_diversity:
            found.append(
                f"mode collapse: restored patches differ {means['diversity']:.2f} times as much as their inputs. "
                "Remedy: a larger --cycle_weight or --identity_weight"
            )
        if not means["cycle_hu"] <= self.max_cycle_hu:
            found.append(f"the cycle error is {means['cycle_hu']:.0f} HU. Remedy: a larger --cycle_weight")
        return found
