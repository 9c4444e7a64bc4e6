"""Each part of GAN-CIRCLE's loss in closed form: linear critics, constant errors, ramps and boxes."""

import math

import pytest
import torch
from torch import nn

from ctrestore.losses import (
    CriticLoss,
    GeneratorLoss,
    GeneratorTerms,
    gradient_norms,
    gradient_penalty,
    image_distance,
    joint_sparsity,
    mean_drift,
    total_variation,
)

SIDES = (6, 8)


class LinearCritic(nn.Module):
    """``sum(weights * image)``: its gradient is its weights everywhere."""

    def __init__(self, weights):
        super().__init__()
        self.weights = nn.Parameter(weights)

    def forward(self, images):
        return (images * self.weights).flatten(1).sum(dim=1)


def images(batch=3, seed=0):
    return torch.randn((batch, 1, *SIDES), generator=torch.Generator().manual_seed(seed))


# The critics


@pytest.mark.parametrize("slope", [0.0, 0.02, 0.5])
def test_the_penalty_of_a_linear_critic_is_that_of_the_norm_over_all_its_pixels(slope):
    """All weights alike: the norm is slope * sqrt(48), over one axis alone it would be slope * sqrt(6) or sqrt(8)."""
    critic = LinearCritic(torch.full((1, *SIDES), slope))
    norm = slope * math.sqrt(48)
    torch.testing.assert_close(gradient_norms(critic, images()), torch.full((3,), norm))
    found = gradient_penalty(critic, images(), images(seed=1))
    torch.testing.assert_close(found, torch.full((3,), (norm - 1) ** 2))


def test_a_critic_of_slope_one_is_not_penalised():
    weights = images(1, seed=3)[0]
    critic = LinearCritic(weights / weights.norm())
    assert gradient_penalty(critic, images(), images(seed=1)).max() < 1e-10


def test_the_penalty_teaches_the_critic_its_slope():
    """d/dw (|w| - 1)^2 = 2 (|w| - 1) w / |w|: it goes through the gradient of the gradient."""
    critic = LinearCritic(images(1, seed=3)[0])
    gradient_penalty(critic, images(), images(seed=1)).mean().backward()
    weights = critic.weights.detach()
    torch.testing.assert_close(critic.weights.grad, 2 * (weights.norm() - 1) * weights / weights.norm())


def test_the_penalty_is_taken_between_the_real_and_the_fake_image():
    seen = []

    def quadratic(batch):
        seen.append(batch.detach())
        return batch.square().flatten(1).sum(dim=1)

    gradient_penalty(quadratic, torch.ones(50, 1, *SIDES), torch.zeros(50, 1, *SIDES))
    assert (seen[0].flatten(1).std(dim=1) < 1e-6).all()  # one place on the line for each sample
    places = seen[0][:, 0, 0, 0]
    assert places.min() < 0.2
    assert places.max() > 0.8
    assert ((places >= 0) & (places <= 1)).all()


def test_the_penalty_stays_in_float32_under_autocast():
    critic = nn.Sequential(nn.Flatten(), nn.Linear(48, 4), nn.Tanh(), nn.Linear(4, 1))
    plain = gradient_norms(lambda x: critic(x)[:, 0], images())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = gradient_norms(lambda x: critic(x)[:, 0], images())
    assert torch.equal(plain, mixed)


def test_the_estimate_of_a_linear_critic_is_the_difference_of_the_domains():
    """Domains one apart along the critic's unit slope: distance one, no penalty."""
    weights = torch.full((1, *SIDES), 1 / math.sqrt(48))
    terms = CriticLoss(offset_weight=0.0)(LinearCritic(weights), images() + weights, images())
    torch.testing.assert_close(terms.wasserstein, torch.tensor(1.0))
    torch.testing.assert_close(terms.gradient_norm, torch.tensor(1.0))
    torch.testing.assert_close(terms.loss.detach(), torch.tensor(-1.0))


def test_a_trained_critic_finds_the_distance_of_two_domains():
    """The shift's norm, 2; the loss -2 s + 10 (s - 1)^2 of a slope s is smallest at 1.1, so the estimate is 2.2."""
    torch.manual_seed(0)
    critic = nn.Sequential(nn.Flatten(), nn.Linear(48, 16), nn.LeakyReLU(0.2), nn.Linear(16, 1), nn.Flatten(0))
    optimizer, loss = torch.optim.Adam(critic.parameters(), lr=0.01, betas=(0.0, 0.9)), CriticLoss()
    shift = images(1, seed=5)
    shift = 2 * shift / shift.norm()
    for _ in range(200):
        fake = 0.1 * torch.randn(16, 1, *SIDES)
        terms = loss(critic, 0.1 * torch.randn(16, 1, *SIDES) + shift, fake)
        optimizer.zero_grad()
        terms.loss.backward()
        optimizer.step()
    assert terms.wasserstein == pytest.approx(2.2, rel=0.15)


# The generators


def test_a_constant_error_costs_itself_times_the_root_of_the_pixels():
    torch.testing.assert_close(image_distance(images(), images() + 0.5), torch.full((3,), 0.5 * math.sqrt(48)))


def test_a_critic_of_slope_one_and_the_distance_weigh_a_constant_error_alike_on_patches_of_any_size():
    for side in (4, 32):
        error = torch.full((1, 1, side, side), 0.01)
        slope_one = LinearCritic(torch.full((1, side, side), 1 / side))
        torch.testing.assert_close(slope_one(error), image_distance(error, torch.zeros_like(error)))


def test_images_of_two_shapes_are_refused():
    with pytest.raises(ValueError, match="one shape"):
        image_distance(images(), images()[..., 1:])


def test_the_variation_of_a_box_is_its_height_times_its_edge():
    """3 x 4 pixels of height 2 inside: 2 * (3 + 3 + 4 + 4), over the root of 48 pixels."""
    box = torch.zeros(1, 1, *SIDES)
    box[..., 1:4, 2:6] = 2.0
    torch.testing.assert_close(total_variation(box), torch.tensor([28 / math.sqrt(48)]))


def test_the_joint_sparsity_weighs_what_is_kept_and_what_is_removed():
    x, kept = images(), images(seed=1)
    expected = 0.3 * total_variation(kept) + 0.7 * total_variation(x - kept)
    torch.testing.assert_close(joint_sparsity(kept, x, tau=0.3), expected)


def test_splitting_an_image_never_makes_it_less_variable():
    """The triangle inequality: at tau = 1/2 no split costs less than half of the variation of the image."""
    x = images()
    for share in (0.0, 0.4, 1.0):
        torch.testing.assert_close(joint_sparsity(share * x, x), total_variation(x) / 2)
    assert (joint_sparsity(images(seed=1), x) > total_variation(x) / 2).all()


def test_a_share_outside_zero_to_one_is_refused():
    with pytest.raises(ValueError, match="between 0 and 1"):
        joint_sparsity(images(), images(), tau=1.5)


def halves():
    """Noisy slices of fat on the left and soft tissue on the right."""
    clean = torch.full((4, 1, 64, 64), -0.1)
    clean[..., 32:] = 0.04
    return clean, clean + 0.04 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))


def test_removing_noise_is_no_drift_and_shifting_a_tissue_is():
    clean, noisy = halves()
    still = mean_drift(clean, noisy).item()
    # 3 HU in one tissue, of which the first half counts for nothing, in the unit of a critic: times 64. The mean of
    # 8,192 values of 40 HU is known to 0.4 HU; twice as much is the tolerance.
    moved = mean_drift(clean + 0.003 * (clean > 0), noisy).item()
    assert still < 64 * 0.0005
    assert moved == pytest.approx(64 * 0.0025, abs=64 * 0.0008)


def test_drift_is_measured_against_the_low_dose_and_pulls_back():
    clean, noisy = halves()
    made = (clean + 0.01 * (clean < 0)).requires_grad_()
    mean_drift(made, noisy).backward()
    assert (made.grad[..., :28] > 0).all()
    assert mean_drift(clean, noisy) < mean_drift(made, noisy) / 10


def test_every_term_is_weighted():
    terms = GeneratorTerms(*torch.tensor([1.0, 10.0, 100.0, 1000.0, 10000.0]))
    loss = GeneratorLoss(
        adversarial_weight=2.0, cycle_weight=3.0, identity_weight=4.0, sparsity_weight=5.0, drift_weight=6.0
    )
    assert loss(terms) == 65432.0


def test_the_defaults_are_the_papers_values_from_memory():
    assert tuple(GeneratorLoss().weights) == (1.0, 1.0, 0.5, 0.001, 0.0)
    assert GeneratorLoss().tau == 0.5
    assert CriticLoss().penalty_weight == 10.0


def test_a_negative_weight_is_refused():
    with pytest.raises(ValueError, match="cycle_weight must not be negative"):
        GeneratorLoss(cycle_weight=-1.0)
