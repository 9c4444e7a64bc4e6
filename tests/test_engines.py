"""Two generators and two critics learn from scans without partners, resume to the bit, and say when they collapse."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from ignite.engine import Events
from monai.data import DataLoader, Dataset
from monai.handlers import LrScheduleHandler
from monai.utils.enums import AdversarialIterationEvents

from ctrestore.engines import ImagePool, UnpairedTrainer, scalars
from ctrestore.handlers import LAST, ClipGradientNorm, EpochLog, SeedEachEpoch, TrainingState, WatchCritics
from ctrestore.losses import CriticLoss, GeneratorLoss
from ctrestore.networks import GANCircleCritic, GANCircleGenerator
from tests.conftest import ROOT

SIDE, BATCH = 32, 8
FEATURES, CRITIC_FEATURES = (12, 10, 8), (16, 32, 32, 32)


def bodies(n, seed, noise):
    """Clean phantoms of smooth blobs in HU / 1000, ``(n, 1, 32, 32)``, and the same with white noise."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn((n, 1, 4, 4), generator=generator)
    clean = 0.06 * torch.nn.functional.interpolate(coarse, size=(SIDE, SIDE), mode="bicubic", align_corners=False)
    return clean, clean + noise * torch.randn(clean.shape, generator=generator)


class Training:
    """A tiny unpaired training: noise of 50 HU on some phantoms, of 10 HU on others."""

    def __init__(
        self, folder=None, *, n=16, epochs=2, resume=False, features=(4, 4), critic_features=(4, 4, 4, 4), lr=1e-3,
        critic_lr=2e-3, critic_steps=1, pool=4, mixed_precision=True, handlers=(), batch=BATCH, **weights,
    ):  # fmt: skip
        torch.manual_seed(0)
        items = [{"image": a, "label": b} for a, b in zip(bodies(n, 1, 0.05)[1], bodies(n, 2, 0.01)[1])]
        self.networks = torch.nn.ModuleList(GANCircleGenerator(dropout=0.0, features=features) for _ in range(2))
        self.critics = torch.nn.ModuleList(
            GANCircleCritic(features=critic_features, hidden=16, instance_norm=False) for _ in range(2)
        )
        self.optimizer = torch.optim.Adam(self.networks.parameters(), lr=lr, betas=(0.5, 0.9))
        self.critic_optimizer = torch.optim.Adam(self.critics.parameters(), lr=critic_lr, betas=(0.5, 0.9))
        steps = epochs * n // batch
        schedules = [
            torch.optim.lr_scheduler.PolynomialLR(optimizer, total_iters=2 * steps if folder is None else 4 * n // batch)
            for optimizer in (self.optimizer, self.critic_optimizer)
        ]
        self.pool, self.log = ImagePool(pool), []
        more = [] if folder is None else [
            TrainingState(
                str(folder), self.networks[0], self.optimizer, schedules[0], resume=resume,
                companions={
                    "backward_network": self.networks[1], "critic": self.critics[0], "backward_critic": self.critics[1],
                    "critic_optimizer": self.critic_optimizer, "critic_lr_scheduler": schedules[1], "pool": self.pool,
                },
            )
        ]  # fmt: skip
        self.trainer = UnpairedTrainer(
            device="cpu",
            max_epochs=epochs,
            train_data_loader=DataLoader(Dataset(items), batch_size=batch, shuffle=True),
            network=self.networks[0],
            backward_network=self.networks[1],
            critic=self.critics[0],
            backward_critic=self.critics[1],
            optimizer=self.optimizer,
            critic_optimizer=self.critic_optimizer,
            loss_function=GeneratorLoss(**weights),
            critic_loss=CriticLoss(),
            critic_steps=critic_steps,
            pool=self.pool,
            mixed_precision=mixed_precision,
            train_handlers=[
                SeedEachEpoch(seed=3, transforms=[]),
                ClipGradientNorm(self.networks),
                ClipGradientNorm(
                    self.critics, 10.0, event=AdversarialIterationEvents.DISCRIMINATOR_BACKWARD_COMPLETED
                ),
                *(LrScheduleHandler(schedule, print_lr=False, epoch_level=False) for schedule in schedules),
                EpochLog(self.optimizer),
                WatchCritics(),
                *handlers,
                *more,
            ],
        )
        self.trainer.add_event_handler(
            Events.ITERATION_COMPLETED, lambda engine: self.log.append(scalars(engine.state.output))
        )

    def run(self):
        self.trainer.run()
        return self
