"""The training loop that MONAI's engines cannot express: two generators and two critics on unpaired scans.

``monai.engines.GanTrainer`` and ``AdversarialTrainer`` train one generator against one discriminator. The first makes
images from noise; the second needs a reference for a reconstruction loss, and gives the discriminator's loss only two
logits, so a gradient penalty, which needs the discriminator itself, is not possible. Neither supports two domains,
several critic steps, or mixed precision without CUDA. Only their base class, ``Trainer``, with its events and
handlers is usable.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from itertools import chain
from typing import Any

import torch
import torch.distributed as dist
from monai.engines import Trainer
from monai.engines.utils import IterationEvents, default_prepare_batch
from monai.utils.enums import AdversarialIterationEvents
from monai.utils.enums import CommonKeys as Keys
from torch import Tensor, nn

from ctrestore.errors import InputError
from ctrestore.losses import CriticLoss, GeneratorLoss, GeneratorTerms, image_distance, joint_sparsity, mean_drift
from ctrestore.training.precision import Amp, check_amp, mixed_precision


class ImagePool:
    """Earlier restored images; a critic gets them instead of half of the new ones (Shrivastava et al., CVPR 2017).

    A critic that gets only the newest images may forget older ones, and the training goes in circles. Random
    numbers come from torch's global generator, which :class:`ctrestore.training.epochs.SeedEachEpoch` seeds. With
    several processes only the first one's pool is kept in a checkpoint.

    Args:
        size: images kept of each domain; 0: none, new images are used.
    """

    def __init__(self, size: int = 0) -> None:
        if size < 0:
            raise InputError(f"size is a number of images, 0 or more; got {size!r}.")
        self.size = size
        self.kept: dict[str, list[Tensor]] = {"full": [], "low": []}

    def __call__(self, images: Tensor, domain: str) -> Tensor:
        kept = self.kept[domain]
        if not self.size:
            return images
        shown = []
        for image in images:
            if len(kept) < self.size:
                kept.append(image.clone())
            elif torch.rand(()) < 0.5:
                place = int(torch.randint(self.size, ()))
                image, kept[place] = kept[place].to(image.device), image.clone()  # a resumed pool is on the CPU
            shown.append(image)
        return torch.stack(shown)

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs."""
        return {domain: [image.cpu() for image in images] for domain, images in self.kept.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue with the images of an earlier run."""
        self.kept = {domain: list(images) for domain, images in state.items()}


def _bare(network: nn.Module) -> nn.Module:
    """The network inside DistributedDataParallel, which expects one forward for each backward; here there are more."""
    return network.module if isinstance(network, nn.parallel.DistributedDataParallel) else network


def _distributed() -> bool:
    return dist.is_available() and dist.is_initialized()


def average_gradients(networks: Iterable[nn.Module]) -> None:
    """Replace the gradients in each process by the mean of all processes, in one exchange."""
    if not _distributed():
        return
    gradients = [p.grad for network in networks for p in network.parameters() if p.grad is not None]
    together = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(together)
    together /= dist.get_world_size()
    for gradient, mean in zip(gradients, together.split([gradient.numel() for gradient in gradients])):
        gradient.copy_(mean.view_as(gradient))


def _diversity(images: Tensor) -> Tensor:
    """The difference between the images of a batch, apart from their means: mean standard deviation over the batch."""
    centred = images - images.mean(dim=tuple(range(1, images.ndim)), keepdim=True)
    return centred.std(dim=0, correction=0).mean()


class UnpairedTrainer(Trainer):
    """Train a generator to restore low-dose scans on low-dose and full-dose scans of different people.

    Every iteration is a step of both critics; in the first of every ``critic_steps`` a step of both generators
    follows. A batch has low-dose patches under ``image`` and full-dose patches of other people under
    ``label``; no loss compares the two.

    Under ``torchrun`` every process gets its own batches and the gradients are averaged before each step; networks
    may be plain or in DistributedDataParallel.

    ``state.output`` holds ``image``, ``label``, ``pred`` (the restored patches) and scalars: ``loss`` of the
    generators and its terms, ``cycle_hu`` and ``identity_hu`` (mean absolute errors), ``removed_hu`` (mean absolute
    change of the low-dose patches), ``diversity`` (difference between the restored patches of a batch, divided by that
    between the low-dose ones), ``generator_gradient``; for each critic its ``wasserstein`` estimate and
    ``critic_gradient``, with the ending ``_full`` or ``_low``; ``critic_loss``.

    Events: ``IterationEvents.BACKWARD_COMPLETED`` before the generators' step, and
    ``AdversarialIterationEvents.DISCRIMINATOR_BACKWARD_COMPLETED`` before the critics'; a handler may clip or drop
    the gradients there.

    Args:
        device: of the networks.
        max_epochs: of the run.
        train_data_loader: of batches with ``image`` and ``label``.
        network: the generator from low to full dose, the released one.
        backward_network: the generator from full to low dose.
        critic: of full dose, ``(batch, 1, *spatial)`` to ``(batch,)``.
        backward_critic: of low dose.
        optimizer: of both generators.
        critic_optimizer: of both critics.
        loss_function: weights the terms of the generators' loss.
        critic_loss: of each critic.
        critic_steps: critic steps per generator step.
        pool: of earlier restored images; None: none.
        mixed_precision: ``"auto"``, True or False: bfloat16 autocast; the gradient penalty stays in float32.
        hu_per_unit: of the images.
        prepare_batch: MONAI's.
        train_handlers: MONAI's.

    Raises:
        InputError: fewer than one critic step, or ``mixed_precision`` is something else.
    """

    def __init__(
        self,
        device: str | torch.device,
        max_epochs: int,
        train_data_loader: Any,
        network: nn.Module,
        backward_network: nn.Module,
        critic: nn.Module,
        backward_critic: nn.Module,
        optimizer: torch.optim.Optimizer,
        critic_optimizer: torch.optim.Optimizer,
        loss_function: GeneratorLoss,
        critic_loss: CriticLoss,
        critic_steps: int = 1,
        pool: ImagePool | None = None,
        mixed_precision: Amp = "auto",
        hu_per_unit: float = 1000.0,
        prepare_batch: Callable[..., Any] = default_prepare_batch,
        train_handlers: Sequence[Any] | None = None,
    ) -> None:
        if critic_steps < 1:
            raise InputError(f"critic_steps is a number of steps, 1 or more; got {critic_steps!r}.")
        super().__init__(
            device=torch.device(device),
            max_epochs=max_epochs,
            data_loader=train_data_loader,
            prepare_batch=prepare_batch,
            event_names=[AdversarialIterationEvents],
            handlers=train_handlers,
            decollate=False,  # the output is for logs, not for postprocessing
        )
        self.network, self.backward_network = _bare(network), _bare(backward_network)
        self.critic, self.backward_critic = _bare(critic), _bare(backward_critic)
        self.optimizer, self.critic_optimizer = optimizer, critic_optimizer
        self.loss_function, self.critic_loss = loss_function, critic_loss
        self.critic_steps, self.pool = critic_steps, ImagePool() if pool is None else pool
        self.mixed_precision, self.hu_per_unit = check_amp(mixed_precision), hu_per_unit
        self._of_generators: dict[str, Tensor] = {}
        self.generators = (self.network, self.backward_network)
        self.critics = (self.critic, self.backward_critic)

    def run(self) -> None:  # type: ignore[override]  # as in MONAI
        """Train; all processes start from the weights of the first."""
        if _distributed():
            for network in (*self.generators, *self.critics):
                for tensor in chain(network.parameters(), network.buffers()):
                    dist.broadcast(tensor.data, src=0)
        super().run()

    def _iteration(self, engine: UnpairedTrainer, batchdata: dict[str, Tensor]) -> dict[str, Tensor]:
        low, full = engine.prepare_batch(batchdata, engine.state.device, engine.non_blocking, **engine.to_kwargs)
        if low.ndim == 4:
            low, full = (images.contiguous(memory_format=torch.channels_last) for images in (low, full))
        for network in (*self.generators, *self.critics):
            network.train()
        # Counted within the epoch, so that a resumed run also begins with the generators.
        of_generators = (engine.state.iteration - 1) % engine.state.epoch_length % self.critic_steps == 0
        engine.state.output = output = {} if of_generators else self._of_generators.copy()
        output |= {Keys.IMAGE: low, Keys.LABEL: full}
        with torch.set_grad_enabled(of_generators):
            restored, same_full = self._both(self.network, low, full)
            lowered, same_low = self._both(self.backward_network, full, low)
        output[Keys.PRED] = restored.detach()
        self._critics_step(engine, real=(full, low), fake=(restored.detach(), lowered.detach()))
        if of_generators:
            before = set(output)
            self._generators_step(engine, low, full, restored, lowered, same_full, same_low)
            # Repeated in the iterations with only critic steps.
            self._of_generators = {name: value for name, value in output.items() if name not in before}
        engine.fire_event(IterationEvents.MODEL_COMPLETED)
        return output

    def _autocast(self, device: torch.device) -> AbstractContextManager[None]:
        return mixed_precision(device, self.mixed_precision)

    def _both(self, generator: nn.Module, images: Tensor, own: Tensor) -> tuple[Tensor, Tensor | None]:
        """A generator's output for the images of its own domain, and for those that it should not change."""
        with self._autocast(images.device):
            if not (self.loss_function.weights.identity and torch.is_grad_enabled()):
                return generator(images).float(), None
            made, same = generator(torch.cat([images, own])).float().split([len(images), len(own)])
        return made, same

    def _critics_step(self, engine: UnpairedTrainer, real: tuple[Tensor, Tensor], fake: tuple[Tensor, Tensor]) -> None:
        self.critic_optimizer.zero_grad(set_to_none=True)
        output, losses = engine.state.output, []
        for critic, domain, of_domain, made in zip(self.critics, ("full", "low"), real, fake):
            critic.requires_grad_(True)
            with self._autocast(of_domain.device):
                terms = self.critic_loss(critic, of_domain, self.pool(made, domain))
            losses.append(terms.loss)
            output[f"wasserstein_{domain}"] = terms.wasserstein
            output[f"critic_gradient_{domain}"] = terms.gradient_norm
        loss = torch.stack(losses).sum()
        loss.backward()
        output["critic_loss"] = loss.detach()
        average_gradients(self.critics)
        engine.fire_event(AdversarialIterationEvents.DISCRIMINATOR_BACKWARD_COMPLETED)
        self.critic_optimizer.step()

    def _generators_step(
        self,
        engine: UnpairedTrainer,
        low: Tensor,
        full: Tensor,
        restored: Tensor,
        lowered: Tensor,
        same_full: Tensor | None,
        same_low: Tensor | None,
    ) -> None:
        weights, output, none = self.loss_function.weights, engine.state.output, low.new_zeros(())
        for critic in self.critics:
            critic.requires_grad_(False)  # critics are only evaluated here
        with self._autocast(low.device):
            asked = -self.critic(restored).float().mean() - self.backward_critic(lowered).float().mean()
            low_again = self.backward_network(restored).float() if weights.cycle else None
            full_again = self.network(lowered).float() if weights.cycle else None
        pairs = ((low_again, low), (full_again, full), (same_full, full), (same_low, low))
        distances = [none if one is None else image_distance(one, other).mean() for one, other in pairs]
        sparse = joint_sparsity(restored, low, tau=self.loss_function.tau).mean() if weights.sparsity else none
        drift = mean_drift(restored, low) + mean_drift(lowered, full) if weights.drift else none
        terms = GeneratorTerms(asked, distances[0] + distances[1], distances[2] + distances[3], sparse, drift)
        loss = self.loss_function(terms)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        average_gradients(self.generators)
        gradients = [p.grad for network in self.generators for p in network.parameters() if p.grad is not None]
        per_distance = self.hu_per_unit / low[0].numel() ** 0.5
        output |= {Keys.LOSS: loss.detach(), **{name: term.detach() for name, term in terms._asdict().items()}}
        output |= {
            "cycle_hu": terms.cycle.detach() / 2 * per_distance,
            "identity_hu": terms.identity.detach() / 2 * per_distance,
            "removed_hu": (restored.detach() - low).abs().mean() * self.hu_per_unit,
            "diversity": _diversity(restored.detach()) / _diversity(low).clamp(min=1e-6),
            "generator_gradient": torch.nn.utils.get_total_norm(gradients).detach(),
        }
        engine.fire_event(IterationEvents.BACKWARD_COMPLETED)
        self.optimizer.step()


def scalars(output: dict[str, Any]) -> dict[str, float]:
    """The scalars of a trainer's output by name: ``output_transform`` of a handler that plots them."""
    return {name: float(value) for name, value in output.items() if getattr(value, "ndim", None) == 0}
