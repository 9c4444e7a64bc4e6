"""A killed run resumes exactly, and the best weights are never lost."""

import json
import logging
import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from ignite.engine import Engine, Events
from ignite.metrics import Metric
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedEvaluator, SupervisedTrainer
from monai.handlers import LrScheduleHandler, MeanSquaredError, ValidationHandler, from_engine
from monai.transforms import Compose, RandGaussianNoised, RandSpatialCropd

from ctrestore.training import epochs
from ctrestore.training import state as handlers
from ctrestore.training.epochs import ClipGradientNorm, EpochLog, SeedEachEpoch
from ctrestore.training.state import TrainingState
from ctrestore.training.weights import BEST, LAST, LoadWeights, load_weights, release_weights, save_atomically

EPOCHS, BATCHES = 4, 3


class Killed(BaseException):
    """What no handler may catch: the process ends here."""


class Scripted(Metric):
    """A validation metric with given values, epoch by epoch."""

    def __init__(self, evaluator_of, values):
        self.evaluator_of, self.values = evaluator_of, values
        super().__init__()

    def reset(self):
        pass

    def update(self, output):
        pass

    def compute(self):
        return self.values[self.evaluator_of().state.epoch - 1]


def tiny_network(seed=0, width=2):
    torch.manual_seed(seed)
    return torch.nn.Sequential(torch.nn.Conv3d(1, width, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv3d(width, 1, 1))


class Training:
    """A training of a second with all state that must survive a kill: patches, momenta, schedule, best validation."""

    def __init__(self, folder, *, resume=False, patience_epochs=None, metrics=None, planned=EPOCHS, width=2):
        self.folder = folder
        images = torch.rand((2 * BATCHES, 1, 8, 8, 8), generator=torch.Generator().manual_seed(0))
        items = [{"image": x, "label": 2 * x - 0.3} for x in images]
        self.network = tiny_network(width=width)
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=0.05)
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(self.optimizer, max_lr=0.05, total_steps=planned * BATCHES)
        augment = Compose(
            [RandSpatialCropd(["image", "label"], roi_size=6, random_size=False), RandGaussianNoised("image", prob=0.5)]
        )
        if metrics is None:
            metric = MeanSquaredError(output_transform=from_engine(["pred", "label"]))
        else:
            metric = Scripted(lambda: self.evaluator, metrics)
        self.evaluator = SupervisedEvaluator(
            device="cpu",
            val_data_loader=DataLoader(Dataset(items[:2]), batch_size=1),
            network=self.network,
            key_val_metric={"score": metric},
            metric_cmp_fn=(lambda new, best: new < best) if metrics is None else (lambda new, best: new > best),
        )
        self.trainer = SupervisedTrainer(
            device="cpu",
            max_epochs=planned,
            train_data_loader=DataLoader(Dataset(items, augment), batch_size=2, shuffle=True),
            network=self.network,
            optimizer=self.optimizer,
            loss_function=torch.nn.MSELoss(),
            train_handlers=[
                SeedEachEpoch(seed=7, transforms=[augment]),
                ClipGradientNorm(self.network),
                LrScheduleHandler(self.schedule, print_lr=False, epoch_level=False),
                EpochLog(self.optimizer),
                ValidationHandler(interval=1, validator=self.evaluator),
                TrainingState(
                    str(folder), self.network, self.optimizer, self.schedule, self.evaluator, resume, patience_epochs
                ),
            ],
        )

    def run(self):
        self.trainer.run()
        return self

    def killed(self, event):
        """Run until ``event``."""

        def kill(engine):
            raise Killed

        self.trainer.add_event_handler(event, kill)
        with pytest.raises(Killed):
            self.trainer.run()

    def result(self):
        """Weights, momenta, learning rates, best validation: everything, from memory and from the two files."""
        files = {name: torch.load(self.folder / name, weights_only=True) for name in (LAST, BEST)}
        return {**files, "network": self.network.state_dict(), "optimizer": self.optimizer.state_dict()}


def assert_equal_to_the_bit(one, other):
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key, value in one.items():
            assert_equal_to_the_bit(value, other[key])
    elif isinstance(one, list | tuple):
        assert len(one) == len(other)
        for value, expected in zip(one, other):
            assert_equal_to_the_bit(value, expected)
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    else:
        assert one == other


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    return Training(tmp_path_factory.mktemp("uninterrupted")).run().result()


# Resuming


@pytest.mark.parametrize(
    "event",
    [Events.EPOCH_COMPLETED(once=1), Events.EPOCH_COMPLETED(once=2), Events.EPOCH_STARTED(once=3)]
    + [Events.ITERATION_COMPLETED(once=2 * BATCHES + 2), Events.ITERATION_STARTED(once=4 * BATCHES)],
    ids=["after epoch 1", "after epoch 2", "before epoch 3", "inside epoch 3", "before the last batch"],
)
def test_a_run_killed_at_any_moment_ends_as_the_uninterrupted_one(event, tmp_path, uninterrupted):
    Training(tmp_path).killed(event)
    resumed = Training(tmp_path, resume=True).run()
    assert resumed.trainer.state.epoch == EPOCHS
    assert_equal_to_the_bit(resumed.result(), uninterrupted)


def test_a_run_killed_while_it_saves_ends_as_the_uninterrupted_one(tmp_path, uninterrupted, monkeypatch):
    def die(state, path):
        if path.name == LAST and state["epoch"] == 2:  # after model.pt of that epoch
            raise Killed
        save_atomically(state, path)

    with monkeypatch.context() as patch:
        patch.setattr(handlers, "save_atomically", die)
        with pytest.raises(Killed):
            Training(tmp_path).run()
    assert_equal_to_the_bit(Training(tmp_path, resume=True).run().result(), uninterrupted)


def test_a_run_killed_twice_ends_as_the_uninterrupted_one(tmp_path, uninterrupted):
    Training(tmp_path).killed(Events.EPOCH_COMPLETED(once=1))
    Training(tmp_path, resume=True).killed(Events.ITERATION_COMPLETED(once=2 * BATCHES + 1))
    assert_equal_to_the_bit(Training(tmp_path, resume=True).run().result(), uninterrupted)


def test_resuming_a_finished_run_changes_nothing(tmp_path, uninterrupted):
    Training(tmp_path).run()
    assert_equal_to_the_bit(Training(tmp_path, resume=True).run().result(), uninterrupted)


def test_without_resume_a_run_starts_from_the_beginning(tmp_path, uninterrupted):
    Training(tmp_path).killed(Events.EPOCH_COMPLETED(once=2))
    assert_equal_to_the_bit(Training(tmp_path).run().result(), uninterrupted)


def test_earlier_runs_are_kept_even_if_the_first_was_deleted(tmp_path):
    (tmp_path / "previous_2").mkdir()
    for _ in range(3):
        Training(tmp_path).killed(Events.EPOCH_COMPLETED(once=1))
    kept = {path.parent.name for path in tmp_path.glob(f"previous_*/{LAST}")}
    assert kept == {"previous_1", "previous_3"}


def test_nothing_to_resume_is_logged_and_the_run_starts(tmp_path, uninterrupted, caplog):
    with caplog.at_level(logging.INFO, "ctrestore.train"):
        result = Training(tmp_path, resume=True).run().result()
    assert "nothing to resume" in caplog.text
    assert_equal_to_the_bit(result, uninterrupted)


def test_a_worse_validation_after_a_resume_does_not_replace_the_best_weights(tmp_path):
    scores = [1.0, 5.0, 3.0, 2.0]
    Training(tmp_path, metrics=scores).killed(Events.EPOCH_COMPLETED(once=2))
    best = torch.load(tmp_path / BEST, weights_only=True)
    resumed = Training(tmp_path, metrics=scores, resume=True).run()
    assert_equal_to_the_bit(torch.load(tmp_path / BEST, weights_only=True), best)
    assert (resumed.evaluator.state.best_metric, resumed.evaluator.state.best_metric_epoch) == (5.0, 2)


def test_a_better_validation_replaces_the_best_weights(tmp_path):
    run = Training(tmp_path, metrics=[1.0, 2.0, 3.0, 4.0]).run()
    assert_equal_to_the_bit(torch.load(tmp_path / BEST, weights_only=True), dict(run.network.state_dict()))


@pytest.mark.parametrize(
    ("other", "reason"),
    [({"width": 3}, "size mismatch"), ({"planned": 6}, "planned for 12 batches, now for 18")],
    ids=["another network", "another number of epochs"],
)
def test_resuming_another_kind_of_run_is_refused_with_the_file_and_the_remedy(other, reason, tmp_path):
    Training(tmp_path).killed(Events.EPOCH_COMPLETED(once=1))
    with pytest.raises(ValueError, match=rf"{LAST} belongs to another.*{reason}.*--ckpt_dir"):
        Training(tmp_path, resume=True, **other).run()


def test_a_damaged_state_is_refused_with_its_name(tmp_path):
    (tmp_path / LAST).write_bytes(b"not a state")
    with pytest.raises(ValueError, match=LAST):
        Training(tmp_path, resume=True).run()


def test_patience_stops_the_run_so_many_epochs_after_the_best(tmp_path, caplog):
    with caplog.at_level(logging.INFO, "ctrestore.train"):
        run = Training(tmp_path, metrics=[2.0, 1.0, 1.5, 9.0], patience_epochs=2).run()
    assert run.trainer.state.epoch == 3
    assert "no better validation for 2 epochs: stopping" in caplog.text


def test_without_patience_the_run_goes_to_its_end(tmp_path):
    assert Training(tmp_path, metrics=[2.0, 1.0, 1.0, 1.0]).run().trainer.state.epoch == EPOCHS


# Files


def test_a_failed_save_leaves_only_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / LAST
    save_atomically({"epoch": 1}, path)

    def full_disk(state, target):
        target.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full_disk)
    with pytest.raises(OSError, match="No space left"):
        save_atomically({"epoch": 2}, path)
    monkeypatch.undo()
    assert torch.load(path, weights_only=True) == {"epoch": 1}
    assert [p.name for p in tmp_path.iterdir()] == [LAST]


def test_both_files_hold_plain_tensors_and_the_folder_is_made(tmp_path):
    folder = tmp_path / "new" / "folder"
    Training(folder).killed(Events.EPOCH_COMPLETED(once=1))
    assert sorted(p.name for p in folder.iterdir()) == [LAST, BEST]
    weights = torch.load(folder / BEST, weights_only=True)
    assert all(type(value) is torch.Tensor for value in weights.values())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_weights_load_in_full_and_in_half_precision(tmp_path, dtype):
    trained, fresh = tiny_network(seed=1), tiny_network(seed=2)
    torch.save({k: v.to(dtype) for k, v in trained.state_dict().items()}, tmp_path / "w.pt")
    load_weights(tmp_path / "w.pt", fresh)
    for one, other in zip(fresh.parameters(), trained.parameters()):
        assert one.dtype == torch.float32
        assert_equal_to_the_bit(one, other.to(dtype).float())


def test_integer_statistics_are_not_turned_into_floats(tmp_path):
    network = torch.nn.BatchNorm3d(2)
    network.num_batches_tracked += 2**25 + 1  # no float32
    torch.save(network.state_dict(), tmp_path / "w.pt")
    fresh = torch.nn.BatchNorm3d(2)
    load_weights(tmp_path / "w.pt", fresh)
    assert fresh.num_batches_tracked == 2**25 + 1


def test_the_state_of_a_run_is_also_accepted_as_weights(tmp_path):
    run = Training(tmp_path)
    run.killed(Events.EPOCH_COMPLETED(once=1))
    fresh = tiny_network(seed=3)
    load_weights(tmp_path / LAST, fresh)
    assert_equal_to_the_bit(fresh.state_dict(), run.network.state_dict())


@pytest.mark.parametrize("fault", ["missing", "folder", "garbage", "other network", "no tensors"])
def test_weights_that_do_not_fit_are_named_with_the_remedy(fault, tmp_path):
    path = tmp_path / "w.pt"
    if fault == "folder":
        path.mkdir()
    elif fault == "garbage":
        path.write_bytes(b"PK\x03\x04 half a zip")
    elif fault == "other network":
        torch.save(tiny_network(width=3).state_dict(), path)
    elif fault == "no tensors":
        torch.save([1, 2, 3], path)
    with pytest.raises(ValueError, match=r"w\.pt.*Remedy: .*--weights FILE"):
        load_weights(path, tiny_network())


def test_an_evaluator_loads_its_weights_when_it_starts_and_says_which(tmp_path, caplog):
    trained, fresh = tiny_network(seed=1), tiny_network(seed=2)
    torch.save(trained.state_dict(), tmp_path / "w.pt")
    engine = Engine(lambda engine, batch: None)
    LoadWeights(str(tmp_path / "w.pt"), fresh).attach(engine)
    with caplog.at_level(logging.INFO, "ctrestore.weights"):
        engine.run([0])
    assert_equal_to_the_bit(fresh.state_dict(), trained.state_dict())
    assert "w.pt" in caplog.text


# Seeds, gradients, log


def draws(transform, epoch):
    """The numbers of every generator in an epoch."""
    engine = SimpleNamespace(state=SimpleNamespace(epoch=epoch))
    SeedEachEpoch(seed=3, transforms=[transform])(engine)
    return random.random(), np.random.rand(), torch.rand(1).item(), transform.R.rand()  # noqa: NPY002


def test_epoch_n_draws_the_same_numbers_whatever_came_before():
    one, other = RandGaussianNoised("image"), RandGaussianNoised("image")
    first, second = draws(one, 1), draws(one, 2)
    assert not set(first) & set(second)
    draws(other, 17)
    assert draws(other, 2) == second


def test_ranks_draw_different_numbers(monkeypatch):
    transform = RandGaussianNoised("image")
    rank_0 = draws(transform, 1)
    monkeypatch.setattr(epochs, "_rank", lambda: 1)
    assert not set(draws(transform, 1)) & set(rank_0)


def test_chains_of_one_run_draw_different_numbers():
    chains = [RandGaussianNoised("image"), RandGaussianNoised("image")]
    SeedEachEpoch(seed=0, transforms=chains)(SimpleNamespace(state=SimpleNamespace(epoch=1)))
    assert chains[0].R.rand() != chains[1].R.rand()


@pytest.mark.parametrize(("size", "expected"), [(100.0, 1.0), (1e-3, 1e-3)])
def test_a_large_gradient_is_scaled_to_the_norm_and_a_small_one_is_not(size, expected):
    network = tiny_network()
    n_weights = sum(p.numel() for p in network.parameters())
    for parameter in network.parameters():
        parameter.grad = torch.full_like(parameter, size / n_weights**0.5)
    direction = torch.cat([p.grad.flatten() for p in network.parameters()])
    ClipGradientNorm(network, max_norm=1.0)(None)
    clipped = torch.cat([p.grad.flatten() for p in network.parameters()])
    torch.testing.assert_close(clipped, direction * expected / size)


def test_the_gradient_is_clipped_between_backward_and_step(tmp_path):
    run = Training(tmp_path)
    norms = []
    run.optimizer.register_step_pre_hook(
        lambda *_: norms.append(torch.cat([p.grad.flatten() for p in run.network.parameters()]).norm().item())
    )
    for parameter in run.network.parameters():
        parameter.data *= 30.0  # a loss with huge gradients
    run.killed(Events.EPOCH_COMPLETED(once=1))
    assert norms == pytest.approx([1.0] * BATCHES, rel=1e-3)


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_loss_that_is_not_a_number_ends_the_run_and_names_the_remedy(loss):
    optimizer = torch.optim.SGD(tiny_network().parameters(), lr=0.1)
    engine = Engine(lambda engine, batch: {"loss": loss if engine.state.iteration == 2 else 1.0})
    EpochLog(optimizer).attach(engine)
    with pytest.raises(FloatingPointError, match=r"became (nan|inf) in iteration 2.*--learning_rate"):
        engine.run([0, 0, 0])


class Clock:
    """Ten minutes an iteration, counted without waiting."""

    def __init__(self):
        self.now = 1000.0

    def monotonic(self):
        return self.now


def logged_run(monkeypatch, caplog, *, resume_after=0, every_s=1e9):
    clock = Clock()
    monkeypatch.setattr(epochs, "time", clock)
    optimizer = torch.optim.SGD(tiny_network().parameters(), lr=0.1)

    def step(engine, batch):
        clock.now += 600.0
        return [{"loss": 0.25}, {"loss": 0.25}]

    engine = Engine(step)
    EpochLog(optimizer, every_s=every_s).attach(engine)

    def resume(engine):  # as TrainingState does, which is attached last
        engine.state.epoch, engine.state.iteration = resume_after, 2 * resume_after

    if resume_after:
        engine.add_event_handler(Events.STARTED, resume)
    with caplog.at_level(logging.INFO, "ctrestore.train"):
        engine.run([0, 0], max_epochs=4)
    return [record.getMessage() for record in caplog.records]


def test_every_epoch_is_one_line_with_loss_rate_seconds_and_time_left(monkeypatch, caplog):
    assert logged_run(monkeypatch, caplog) == [
        "epoch 1/4: loss 0.25000, learning rate 1.00e-01, 1200 s, 60.0 min left",
        "epoch 2/4: loss 0.25000, learning rate 1.00e-01, 1200 s, 40.0 min left",
        "epoch 3/4: loss 0.25000, learning rate 1.00e-01, 1200 s, 20.0 min left",
        "epoch 4/4: loss 0.25000, learning rate 1.00e-01, 1200 s, 0.0 min left",
    ]


def test_the_time_left_of_a_resumed_run_counts_only_its_own_batches(monkeypatch, caplog):
    lines = logged_run(monkeypatch, caplog, resume_after=2)
    assert [line.split(", ")[-1] for line in lines] == ["20.0 min left", "0.0 min left"]


def test_a_long_epoch_logs_its_progress(monkeypatch, caplog):
    lines = logged_run(monkeypatch, caplog, every_s=500.0)
    assert lines[:2] == [
        "epoch 1/4, batch 1/2: loss 0.25000, 70.0 min left",
        "epoch 1/4, batch 2/2: loss 0.25000, 60.0 min left",
    ]


def test_released_weights_are_the_trained_ones_in_half_precision(tmp_path):
    network = torch.nn.Linear(3, 2)
    torch.save({"network": network.state_dict(), "epoch": 3}, tmp_path / "last.pt")
    assert release_weights(tmp_path / "last.pt", tmp_path / "model.pt") == 8
    state = torch.load(tmp_path / "model.pt", weights_only=True)
    assert all(torch.equal(state[name], value.half()) for name, value in network.state_dict().items())


@pytest.mark.parametrize("content", [b"no weights", [1, 2, 3], {}, {"network": {"epoch": 3}}])
def test_a_file_without_weights_is_not_released(tmp_path, content):
    trained = tmp_path / "trained.pt"
    trained.write_bytes(content) if isinstance(content, bytes) else torch.save(content, trained)
    with pytest.raises(ValueError, match=r"trained\.pt holds no weights.*Remedy"):
        release_weights(trained, tmp_path / "model.pt")
    assert not (tmp_path / "model.pt").exists()


def test_the_metadata_of_weights_is_copied_with_them(tmp_path):
    torch.save({"weight": torch.ones(2)}, tmp_path / "trained.pt")
    (tmp_path / "trained.json").write_text('{"classes": ["ill", "normal"]}')
    release_weights(tmp_path / "trained.pt", tmp_path / "model.pt")
    assert json.loads((tmp_path / "model.json").read_text()) == {"classes": ["ill", "normal"]}


def test_weights_that_overflow_half_precision_are_not_released(tmp_path):
    torch.save({"weight": torch.tensor([1e6])}, tmp_path / "trained.pt")
    with pytest.raises(ValueError, match="weight are not finite"):
        release_weights(tmp_path / "trained.pt", tmp_path / "model.pt")
    assert not (tmp_path / "model.pt").exists()
