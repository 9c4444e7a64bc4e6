"""Losses of GAN-CIRCLE: two generators and two critics learn from unpaired scans.

The critics are 1-Lipschitz in the Euclidean norm over all ``n`` pixels of an image, so their response to a constant
error ``e`` grows as ``e sqrt(n)``. Distances of images and total variations are therefore sums over pixels divided by
``sqrt(n)``: then all terms have one unit (HU / 1000 times sqrt(pixels), as the images are HU / 1000), and their
weights mean the same for patches of any size. With means instead, the critics outweigh the cycle 64
times on patches of 64 x 64; with sums, the cycle outweighs the critics as much, and the images cannot change.

References:
    You et al., IEEE Trans Med Imaging 39(1):188, 2020 (GAN-CIRCLE).
    Gulrajani et al., NeurIPS 30, 2017 (gradient penalty).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ctrestore.losses.tissue_bias import bias_penalty, tissue_biases

#: Side of the local mean that defines the tissue of a noisy pixel.
LOCAL_MEAN_PIXELS = 7

Critic = Callable[[Tensor], Tensor]


def _per_root_pixel(values: Tensor) -> Tensor:
    """Sum of each sample divided by the square root of its number of values: ``(batch, ...)`` to ``(batch,)``."""
    return values.flatten(1).mean(dim=1) * math.sqrt(values[0].numel())


def image_distance(one: Tensor, other: Tensor) -> Tensor:
    """Absolute differences of each pair of images, summed, divided by sqrt(pixels): to ``(batch,)``.

    Raises:
        ValueError: the images differ in shape.
    """
    if one.shape != other.shape:
        raise ValueError(f"expected two batches of one shape; got {tuple(one.shape)} and {tuple(other.shape)}.")
    return _per_root_pixel((one - other).abs())


def total_variation(image: Tensor) -> Tensor:
    """Anisotropic total variation of each image, ``(batch, channel, *spatial)`` to ``(batch,)``, over sqrt(pixels)."""
    found = torch.zeros(image.shape[0], device=image.device)
    for axis in range(2, image.ndim):
        found = found + image.diff(dim=axis).abs().flatten(1).sum(dim=1)
    return found / math.sqrt(image[0].numel())


def joint_sparsity(restored: Tensor, image: Tensor, *, tau: float = 0.5) -> Tensor:
    """The joint sparsifying transform: ``tau TV(restored) + (1 - tau) TV(image - restored)``, to ``(batch,)``.

    Small when the image splits into a restored part and a removed part that are both piecewise flat.
    """
    if not 0 <= tau <= 1:
        raise ValueError(f"tau is a share between 0 and 1; got {tau!r}.")
    return tau * total_variation(restored) + (1 - tau) * total_variation(image - restored)


def mean_drift(made: Tensor, image: Tensor) -> Tensor:
    """The change of the mean HU of tissues from an image to the generator's output, summed over tissues: a scalar.

    In HU / 1000 times sqrt(pixels), as all terms here, of slices ``(batch, 1, y, x)`` in HU / 1000. Neither a lower
    dose nor its restoration changes a mean, so this needs no pairs. The tissue is defined by a mean of 7 x 7 pixels of
    ``image``. Some noise is left in that mean, so some pixels are in a tissue because of their noise. Their removal
    looks like a bias; a bias of less than 1 HU therefore hardly counts.

    Raises:
        ValueError: the inputs are not slices, or have two shapes.
    """
    if made.shape != image.shape or image.ndim != 4:
        raise ValueError(
            f"expected two batches of slices (batch, 1, y, x); got {tuple(made.shape)}, {tuple(image.shape)}."
        )
    half = LOCAL_MEAN_PIXELS // 2
    local = F.avg_pool2d(image, LOCAL_MEAN_PIXELS, stride=1, padding=half, count_include_pad=False)
    return math.sqrt(image[0].numel()) * bias_penalty(tissue_biases(made, image, tissue=local))


def gradient_norms(critic: Critic, images: Tensor) -> Tensor:
    """Euclidean norm, over all pixels of each image, of the critic's gradient there: to ``(batch,)``.

    In float32 even under autocast, because the gradient is differentiated again.
    """
    with torch.autocast(images.device.type, enabled=False):
        images = images.detach().float().requires_grad_()
        # One sample's value does not depend on the others, so the gradient of the sum holds all the gradients.
        (gradient,) = torch.autograd.grad(critic(images).sum(), images, create_graph=True)
    return gradient.flatten(1).norm(dim=1)


def gradient_penalty(critic: Critic, real: Tensor, fake: Tensor) -> Tensor:
    """``(norm of the critic's gradient - 1)^2`` at a random place between each real and each fake image: ``(batch,)``.

    The norm is over all pixels of a sample, not over one axis.
    """
    return (gradient_norms(critic, _between(real, fake)) - 1).square()


def _between(real: Tensor, fake: Tensor) -> Tensor:
    share = torch.rand((real.shape[0], *[1] * (real.ndim - 1)), device=real.device)
    return torch.lerp(fake.detach().float(), real.detach().float(), share)


class CriticTerms(NamedTuple):
    """The loss of one critic and the measures of its state; scalars."""

    loss: Tensor
    wasserstein: Tensor  # its estimate of the distance of the domains: mean over real minus mean over fake images
    gradient_norm: Tensor  # mean, between real and fake; near one if the penalty works


class CriticLoss(nn.Module):
    """Wasserstein loss of a critic with gradient penalty: fake minus real, plus ``penalty_weight`` times the penalty.

    Args:
        penalty_weight: of the gradient penalty.
        offset_weight: of the squared mean of the critic's values. Only their differences matter, so without it the
            values may drift without limit.
    """

    def __init__(self, penalty_weight: float = 10.0, offset_weight: float = 1e-3) -> None:
        super().__init__()
        self.penalty_weight, self.offset_weight = penalty_weight, offset_weight

    def forward(self, critic: Critic, real: Tensor, fake: Tensor) -> CriticTerms:
        n = len(real)
        numbers = critic(torch.cat([real, fake.to(real)])).float()
        of_real, of_fake = numbers[:n].mean(), numbers[n:].mean()
        norms = gradient_norms(critic, _between(real, fake))
        penalty = (norms - 1).square().mean()
        loss = of_fake - of_real + self.penalty_weight * penalty + self.offset_weight * numbers.mean().square()
        return CriticTerms(loss, (of_real - of_fake).detach(), norms.detach().mean())


class GeneratorTerms(NamedTuple):
    """Terms of the generators' loss before their weights; scalars. A term with weight zero is not computed: zero."""

    adversarial: Tensor
    cycle: Tensor
    identity: Tensor
    sparsity: Tensor
    drift: Tensor


class GeneratorLoss(nn.Module):
    """``adversarial + cycle + identity + sparsity``, each times its weight: the loss of GAN-CIRCLE's two generators.

    ``drift``, with weight zero by default, is not in the paper: without it the mean HU of tissues change by several HU
    from one epoch to the next, because critics that see noise hardly see the means.

    ``sparsity_weight=0`` gives IdentityGAN's loss; ``identity_weight=0`` as well gives CycleGAN's. The defaults are the
    paper's values from memory, not verified. As far as we know the paper states neither the unit of its images nor
    whether its norms are sums; without these, weights mean little.

    Args:
        adversarial_weight: of ``-critic(fake)``.
        cycle_weight: of the distance between an image and the same image there and back.
        identity_weight: of the distance between a full-dose image and the restoring generator's output for it, and
            between a low-dose image and the other generator's output.
        sparsity_weight: of the joint sparsifying transform, only of the restoring generator.
        tau: the share of the restored image in it.
        drift_weight: of :func:`mean_drift` of both generators.

    Raises:
        ValueError: a weight is negative.
    """

    def __init__(
        self,
        adversarial_weight: float = 1.0,
        cycle_weight: float = 1.0,
        identity_weight: float = 0.5,
        sparsity_weight: float = 0.001,
        tau: float = 0.5,
        drift_weight: float = 0.0,
    ) -> None:
        super().__init__()
        self.weights = GeneratorTerms(adversarial_weight, cycle_weight, identity_weight, sparsity_weight, drift_weight)  # type: ignore[arg-type]
        self.tau = tau
        for name, weight in self.weights._asdict().items():
            if not weight >= 0:
                raise ValueError(f"{name}_weight must not be negative; got {weight!r}.")

    def forward(self, terms: GeneratorTerms) -> Tensor:
        return sum(weight * term for weight, term in zip(self.weights, terms))  # type: ignore[return-value]
