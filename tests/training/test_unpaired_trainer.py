"""Two generators and two critics learn from unpaired scans, resume to the bit, and warn when they collapse."""

from __future__ import annotations

import logging
import os
import subprocess
import sys

import pytest
import torch
from ignite.engine import Events
from monai.data import DataLoader, Dataset
from monai.engines.utils import IterationEvents
from monai.handlers import LrScheduleHandler
from monai.utils.enums import AdversarialIterationEvents

from ctrestore.losses import CriticLoss, GeneratorLoss
from ctrestore.networks import GANCircleCritic, GANCircleGenerator
from ctrestore.training.critics import WatchCritics
from ctrestore.training.epochs import ClipGradientNorm, EpochLog, SeedEachEpoch
from ctrestore.training.state import TrainingState
from ctrestore.training.unpaired_trainer import ImagePool, UnpairedTrainer, average_gradients, scalars
from ctrestore.training.weights import LAST
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
        critic_lr=2e-3, critic_steps=1, pool=4, mixed_precision=True, handlers=(), batch=BATCH, detail_pixels=None,
        **weights,
    ):  # fmt: skip
        torch.manual_seed(0)
        items = [{"image": a, "label": b} for a, b in zip(bodies(n, 1, 0.05)[1], bodies(n, 2, 0.01)[1])]
        self.networks = torch.nn.ModuleList(GANCircleGenerator(dropout=0.0, features=features) for _ in range(2))
        self.critics = torch.nn.ModuleList(
            GANCircleCritic(features=critic_features, hidden=16, instance_norm=False, detail_pixels=detail_pixels)
            for _ in range(2)
        )
        self.optimizer = torch.optim.Adam(self.networks.parameters(), lr=lr, betas=(0.5, 0.9))
        self.critic_optimizer = torch.optim.Adam(self.critics.parameters(), lr=critic_lr, betas=(0.5, 0.9))
        planned = (epochs if folder is None else 4) * n // batch  # a resumed run must have planned the same
        schedules = [
            torch.optim.lr_scheduler.PolynomialLR(optimizer, total_iters=planned)
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
                ClipGradientNorm(self.critics, 10.0, event=AdversarialIterationEvents.DISCRIMINATOR_BACKWARD_COMPLETED),
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


def assert_equal_to_the_bit(one, other):
    assert type(one) is type(other)
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_equal_to_the_bit(one[key], other[key])
    elif isinstance(one, list | tuple):
        assert len(one) == len(other)
        for value, expected in zip(one, other):
            assert_equal_to_the_bit(value, expected)
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    else:
        assert one == other


def states(run):
    """Of two generators, two critics, two optimizers, the pool, and what the file says of them and of the schedules."""
    parts = (run.networks, run.critics, run.optimizer, run.critic_optimizer, run.pool)
    return [part.state_dict() for part in parts]


# What is learned


def test_an_unpaired_training_restores_without_ever_seeing_a_reference():
    """RMSE against the hidden truth falls by a third at least; the two domains share no phantom."""
    run = Training(
        n=64, epochs=8, features=FEATURES, critic_features=CRITIC_FEATURES, lr=1e-3, critic_lr=2e-3, pool=0,
        mixed_precision=False, detail_pixels=7, cycle_weight=0.3, identity_weight=0.3,
    ).run()  # fmt: skip
    clean, noisy = bodies(32, 9, 0.05)
    with torch.no_grad():
        restored = run.networks[0].eval()(noisy)
    before, after = ((one - clean).square().mean().sqrt() for one in (noisy, restored))
    assert after < 0.67 * before
    assert (restored - noisy).mean().abs() < 0.004  # 4 HU


# The loop


def test_every_iteration_is_a_step_of_the_critics_and_every_third_one_of_the_generators():
    fired = []
    run = Training(n=32, epochs=2, critic_steps=3)  # four batches an epoch
    for event, name in (
        (AdversarialIterationEvents.DISCRIMINATOR_BACKWARD_COMPLETED, "critics"),
        (IterationEvents.BACKWARD_COMPLETED, "generators"),
    ):
        run.trainer.add_event_handler(event, lambda engine, name=name: fired.append((engine.state.iteration, name)))
    run.run()
    assert [i for i, name in fired if name == "critics"] == list(range(1, 9))
    assert [i for i, name in fired if name == "generators"] == [1, 4, 5, 8]  # an epoch begins with one


def test_a_generator_step_does_not_change_the_critics_and_the_other_way_round():
    run = Training(epochs=1, n=BATCH, batch=BATCH)
    seen = {}

    def keep(name):
        def of(engine):
            weights = [p.detach().clone() for p in (*run.networks.parameters(), *run.critics.parameters())]
            seen[name] = weights

        return of

    n = len(list(run.networks.parameters()))
    run.trainer.add_event_handler(AdversarialIterationEvents.DISCRIMINATOR_BACKWARD_COMPLETED, keep("start"))
    run.trainer.add_event_handler(IterationEvents.BACKWARD_COMPLETED, keep("critics stepped"))
    run.trainer.add_event_handler(IterationEvents.MODEL_COMPLETED, keep("both stepped"))
    run.run()
    start, critics, both = seen.values()
    assert all(torch.equal(a, b) for a, b in zip(start[:n], critics[:n]))
    assert not all(torch.equal(a, b) for a, b in zip(start[n:], critics[n:]))
    assert all(torch.equal(a, b) for a, b in zip(critics[n:], both[n:]))
    assert not all(torch.equal(a, b) for a, b in zip(critics[:n], both[:n]))


@pytest.mark.parametrize("name", ["cycle", "identity", "sparsity"])
def test_a_part_of_weight_zero_is_not_computed(name):
    run = Training(epochs=1, n=16, **{f"{name}_weight": 0.0}).run()
    last = run.log[-1]
    assert last[name] == 0
    assert all(last[other] > 0 for other in {"cycle", "identity", "sparsity"} - {name})


def test_drift_is_a_term_if_requested():
    assert Training(epochs=1, n=16).run().log[-1]["drift"] == 0
    assert Training(epochs=2, n=16, drift_weight=1.0).run().log[-1]["drift"] > 0


def test_an_untrained_generator_has_no_cycle_error_and_removes_nothing():
    first = Training(epochs=1, n=BATCH).run().log[0]
    assert [first[name] for name in ("cycle_hu", "identity_hu", "removed_hu")] == [0.0, 0.0, 0.0]
    assert first["diversity"] == pytest.approx(1.0)


def test_fewer_than_one_critic_step_is_refused():
    with pytest.raises(ValueError, match="critic_steps is a number of steps"):
        Training(critic_steps=0)


# Resuming


@pytest.mark.parametrize("critic_steps", [1, 3])
def test_four_steps_in_one_go_are_two_and_two_after_a_resume_to_the_bit(tmp_path, critic_steps):
    at_once = Training(tmp_path / "one", epochs=2, critic_steps=critic_steps).run()
    Training(tmp_path / "two", epochs=1, critic_steps=critic_steps).run()
    resumed = Training(tmp_path / "two", epochs=2, critic_steps=critic_steps, resume=True).run()
    assert len(resumed.log) == 2
    assert at_once.log[2:] == resumed.log
    assert_equal_to_the_bit(states(at_once), states(resumed))
    assert_equal_to_the_bit(*(torch.load(tmp_path / name / LAST, weights_only=True) for name in ("one", "two")))


def test_a_state_without_the_critics_is_refused(tmp_path):
    Training(tmp_path, epochs=1).run()
    state = torch.load(tmp_path / LAST, weights_only=True)
    del state["companions"]
    torch.save(state, tmp_path / LAST)
    with pytest.raises(ValueError, match="companions"):
        Training(tmp_path, epochs=2, resume=True).run()


# The pool


def test_a_pool_shows_older_images_about_every_second_time_and_an_empty_one_lets_all_pass():
    torch.manual_seed(0)
    pool, images = ImagePool(50), torch.arange(2000.0).view(-1, 1, 1, 1)
    shown = torch.cat([pool(batch, "full") for batch in images.split(10)])[:, 0, 0, 0]
    assert torch.equal(shown[:50], torch.arange(50.0))
    older = (shown != torch.arange(2000.0))[50:].float().mean()
    assert 0.45 < older < 0.55
    assert not pool.kept["low"]
    assert torch.equal(ImagePool()(images, "full"), images)


# Collapse


def healthy(**more):
    means = {f"{name}_{domain}": 1.0 for name in ("wasserstein", "critic_gradient") for domain in ("full", "low")}
    return {**means, "diversity": 0.9, "cycle_hu": 12.0, **more}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"critic_gradient_full": 0.01}, "critic of full dose has died"),
        ({"critic_gradient_low": float("nan")}, "critic of low dose has died"),
        ({"critic_gradient_low": 5.0}, "critic of low dose diverges"),
        ({"wasserstein_full": -0.1}, "critic of full dose has lost"),
        ({"diversity": 0.1}, "mode collapse"),
        ({"cycle_hu": 300.0}, "cycle error is 300 HU"),
    ],
)
def test_each_kind_of_collapse_is_named_with_its_remedy(change, said):
    watch = WatchCritics()
    assert watch.findings(healthy()) == []
    [found] = watch.findings(healthy(**change))
    assert said in found
    assert "Remedy" in found


def test_a_generator_that_gives_the_same_image_for_all_has_no_diversity(caplog):
    run = Training(epochs=1, n=16, lr=0.0)

    class Constant(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.image = torch.nn.Parameter(torch.zeros(1, 1, SIDE, SIDE))

        def forward(self, x):
            return self.image.expand_as(x)

    run.trainer.network = Constant()
    run.trainer.generators = (run.trainer.network, run.trainer.backward_network)
    with caplog.at_level(logging.INFO, "ctrestore.train"):
        run.run()
    assert "mode collapse" in caplog.text
    assert "Wasserstein full" in caplog.text


# Several processes

IN_TWO_PROCESSES = """
import sys, torch, torch.distributed as dist
from monai.data import DataLoader, Dataset
from tests.training.test_unpaired_trainer import Training, bodies
torch.set_num_threads(1)
dist.init_process_group("gloo")
run = Training(epochs=1, n=8, batch=4, pool=0, mixed_precision=False)
half = slice(dist.get_rank(), None, 2)
items = list(run.trainer.data_loader.dataset)[half]
run.trainer.data_loader = DataLoader(Dataset(items), batch_size=4)
run.trainer.state.epoch_length = 1
if dist.get_rank():  # all begin with the weights of the first
    for p in (*run.networks.parameters(), *run.critics.parameters()):
        p.data.normal_()
run.run()
weights = [p.detach() for p in (*run.networks.parameters(), *run.critics.parameters())]
torch.save(weights, sys.argv[1] + str(dist.get_rank()))
dist.destroy_process_group()
"""


def test_under_torchrun_all_processes_end_with_the_same_weights(tmp_path):
    script = tmp_path / "two.py"
    script.write_text(IN_TWO_PROCESSES)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", str(script)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, str(tmp_path / "weights")], env=environment, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    first, second = (torch.load(tmp_path / f"weights{rank}") for rank in range(2))
    assert_equal_to_the_bit(first, second)
    torch.manual_seed(0)
    untrained = Training(epochs=1, n=8, batch=4)
    assert not all(torch.equal(a, b) for a, b in zip(first, untrained.networks.parameters()))


def test_gradients_of_several_processes_are_averaged(monkeypatch):
    """Two simulated processes: the exchange adds the other's gradient."""
    network = torch.nn.Linear(2, 1)
    network.weight.grad, network.bias.grad = torch.tensor([[2.0, 4.0]]), torch.tensor([6.0])
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda together: together.add_(torch.tensor([0.0, 2.0, 4.0])))
    average_gradients([network])
    assert network.weight.grad.tolist() == [[1.0, 3.0]]
    assert network.bias.grad.tolist() == [5.0]
