"""Generator and critic of GAN-CIRCLE (You et al., IEEE Trans Med Imaging 39(1):188, 2020)."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from monai.networks.layers.factories import Conv, Norm
from torch import Tensor, nn

FEATURES = (64, 54, 48, 43, 39, 35, 31, 28, 25, 22, 18, 16)
BRANCHES = (24, 8)  # channels of the reconstruction's two branches
GENERATOR_SLOPE, CRITIC_SLOPE = 0.1, 0.2  # of LeakyReLU below zero


class GANCircleGenerator(nn.Module):
    """Twelve feature convolutions, all of them concatenated, and a narrow reconstruction that is added to the image.

    Maps ``(batch, 1, *spatial)`` in HU / 1000 to the same shape, or to sides twice as long with ``scale=2``. The
    reconstruction: two branches over all 423 features, A of 24 channels (1 x 1) and B of 8 (1 x 1, then 3 x 3), join
    in 32 channels, become 16 and one. 164,536 parameters, or 168,120 with ``scale=2``, as the paper's.

    Differences from the paper: the last convolution starts at zero, so an untrained generator is the identity (cubic
    interpolation with ``scale=2``) and training starts from the right CT numbers; the input and output of the layers
    are scaled by ``gain``, so that noise of some ten HU is of order one for them; padding beyond the edge is water, not
    air. Some ports use half resolution and the super-resolution form, to save time; here denoising keeps every pixel.

    Args:
        spatial_dims: 2 or 3.
        scale: 1 restores at the size of the input; 2 doubles it (with a transposed convolution instead of a plain
            one, and a shortcut of cubic interpolation, linear in 3-D).
        dropout: of the features in training; the paper keeps 0.8 of them. The authors' released code has
            the layers but never uses them.
        features: channels of the feature convolutions.
        gain: multiplies the image at the input; undone at the output.

    Raises:
        ValueError: another scale.
    """

    def __init__(
        self,
        spatial_dims: int = 2,
        scale: int = 1,
        dropout: float = 0.2,
        features: tuple[int, ...] = FEATURES,
        gain: float = 20.0,
    ) -> None:
        super().__init__()
        if scale not in (1, 2):
            raise ValueError(f"scale is 1 (same size) or 2 (sides twice as long); got {scale!r}.")
        conv, upsample = Conv[Conv.CONV, spatial_dims], Conv[Conv.CONVTRANS, spatial_dims]
        self.scale, self.gain, self.interpolation = scale, gain, {2: "bicubic", 3: "trilinear"}[spatial_dims]
        self.features = nn.ModuleList(
            conv(narrow, wide, kernel_size=3, padding=1) for narrow, wide in pairwise((1, *features))
        )
        self.dropout = nn.Dropout(dropout)
        self.branches = conv(sum(features), sum(BRANCHES), kernel_size=1)  # the first layer of A, and of B
        self.branch_b = conv(BRANCHES[1], BRANCHES[1], kernel_size=3, padding=1)
        self.joined = conv(32, 32, kernel_size=3, padding=1)
        self.sized = (
            conv(32, 16, kernel_size=3, padding=1)
            if scale == 1
            else upsample(32, 16, kernel_size=4, stride=2, padding=1)
        )
        self.head = conv(16, 1, kernel_size=3, padding=1, bias=False)
        for layer in self.modules():
            if isinstance(layer, conv | upsample):
                nn.init.kaiming_normal_(layer.weight, a=GENERATOR_SLOPE, nonlinearity="leaky_relu")
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
        nn.init.zeros_(self.head.weight)

    def _of_all(self, found: list[Tensor]) -> Tensor:
        """``self.branches`` of the features concatenated, as a sum over them, without the copy of 423 channels.

        Adding gradients of slices of that copy to those of the next layer took a sixth of a training step on a CPU.
        """
        convolve = {4: F.conv2d, 5: F.conv3d}[found[0].ndim]
        weights = self.branches.weight.split([one.shape[1] for one in found], dim=1)
        total = convolve(found[0], weights[0], self.branches.bias)
        for one, weight in zip(found[1:], weights[1:]):
            total = total + convolve(one, weight)
        return total

    def forward(self, x: Tensor) -> Tensor:
        h, found = self.gain * x, []
        for layer in self.features:
            h = self.dropout(F.leaky_relu(layer(h), GENERATOR_SLOPE))
            found.append(h)
        a, b = F.leaky_relu(self._of_all(found), GENERATOR_SLOPE).split(BRANCHES, dim=1)
        h = torch.cat([a, F.leaky_relu(self.branch_b(b), GENERATOR_SLOPE)], dim=1)
        for layer in (self.joined, self.sized):
            h = F.leaky_relu(layer(h), GENERATOR_SLOPE)
        if self.scale > 1:
            x = F.interpolate(x, scale_factor=float(self.scale), mode=self.interpolation, align_corners=False)
        return x + self.head(h) / self.gain


class GANCircleCritic(nn.Module):
    """Four convolutions of stride 2, pooled, then 1024 units and one number per image.

    Maps ``(batch, 1, *spatial)`` in HU / 1000 to ``(batch,)``, any size (sides below 32 are continued at their edges).
    There is no sigmoid: the number is that of a Wasserstein critic, larger for images of its domain. The input
    is clipped to a range, and no gradient passes beyond it: slices stored with 8 bits end at some value, and a
    critic could recognise the domain by the flat patches there.

    Differences from the paper: stride 2 and a pooled mean instead of stride 1 and all positions, a hundred times
    cheaper and independent of the size of the patch; no normalisation after the first convolution, as in the authors'
    released code; images are first multiplied by ``gain``, so that noise reaches the nonlinear part of the activations.

    ``instance_norm=False`` differs from the paper, and works here. Normalisation divides out the strength of the noise
    of a patch, which the critic should judge. In a test with noise of 50 and of 10 HU on patches of 32 pixels, 1.28
    apart, a critic without it gives 0.86 after 120 steps, one with it 0.00 (with ``gain=1``: 0.07 and 0.00).

    ``detail_pixels`` also differs from the paper. A critic's slope is one over the whole image, and patches of a
    few different people differ far more by the place of lung and tissue than by noise. Critics of whole patches used
    their slope for that, and the generators moved the means. Critics of the difference from the local mean judge noise;
    cycle and identity keep the means, and validation measures their drift.

    Args:
        spatial_dims: 2 or 3.
        features: channels of the convolutions.
        hidden: units of the first fully connected layer.
        instance_norm: after every convolution but the first.
        gain: of the images.
        seen: the input is clipped to these lowest and highest values, in the unit of the images.
        detail_pixels: side of the local mean that is subtracted; None: no subtraction, as in the paper.
        detail_limit: larger differences from the local mean, which are edges of anatomy, are clipped.

    Raises:
        ValueError: the range seen is empty, or ``detail_pixels`` is even or below 3.
    """

    def __init__(
        self,
        spatial_dims: int = 2,
        features: tuple[int, ...] = (64, 128, 256, 512),
        hidden: int = 1024,
        instance_norm: bool = True,
        gain: float = 20.0,
        seen: tuple[float, float] = (-1.024, 2.0),
        detail_pixels: int | None = None,
        detail_limit: float = 0.15,
    ) -> None:
        super().__init__()
        low, high = seen
        if not low < high:
            raise ValueError(f"seen is (lowest, highest), lowest below highest; got {tuple(seen)!r}.")
        if detail_pixels is not None and (detail_pixels < 3 or detail_pixels % 2 == 0):
            raise ValueError(f"detail_pixels is an odd number of pixels, 3 or more; got {detail_pixels!r}.")
        self.detail_pixels, self.detail_limit = detail_pixels, detail_limit
        self.local_mean = {2: F.avg_pool2d, 3: F.avg_pool3d}[spatial_dims]
        conv, norm = Conv[Conv.CONV, spatial_dims], Norm[Norm.INSTANCE, spatial_dims]
        self.seen, self.gain, self.smallest_side = (float(low), float(high)), gain, 2 ** (len(features) + 1)
        stages: list[nn.Module] = []
        for narrow, wide in pairwise((1, *features)):
            stages.append(conv(narrow, wide, kernel_size=4, stride=2, padding=1))
            stages += [norm(wide)] if instance_norm and narrow > 1 else []
            stages.append(nn.LeakyReLU(CRITIC_SLOPE))
        self.stages = nn.Sequential(*stages)
        self.judge = nn.Sequential(nn.Linear(features[-1], hidden), nn.LeakyReLU(CRITIC_SLOPE), nn.Linear(hidden, 1))

    def _detail(self, x: Tensor) -> Tensor:
        if self.detail_pixels is None:
            return x
        side = self.detail_pixels
        mean = self.local_mean(x, side, stride=1, padding=side // 2, count_include_pad=False)
        return (x - mean).clamp(-self.detail_limit, self.detail_limit)

    def forward(self, x: Tensor) -> Tensor:
        x = self.gain * self._detail(x.clamp(*self.seen))
        missing: list[int] = []
        for side in x.shape[:1:-1]:  # torch's pad counts axes from the last
            missing += [0, max(0, self.smallest_side - side)]
        if any(missing):
            x = F.pad(x, missing, mode="replicate")
        return self.judge(self.stages(x).flatten(2).mean(dim=2)).squeeze(1)
