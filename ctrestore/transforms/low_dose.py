"""MONAI transforms of CT: lower dose, fixed or drawn, and the noise that a cached data set keeps for it.

Images are channel-first in HU, ``(channel, x, y)`` or ``(channel, x, y, z)``, whole slices across the patient: what was
cut off would be missing in the projections, so crop afterwards. Every slice gets noise of its own.

Training draws other noise in every epoch, and projecting a slice takes about a second. With a CacheDataset or
PersistentDataset, :class:`NoiseRealisationsd` does it once a slice, and :class:`RandLowDosed` mixes new noise of it::

    CopyItemsd(keys="label", names="image"),
    NoiseRealisationsd(keys="label", noise_key="noise"),
    RandSpatialCropd(keys=["image", "label", "noise"], roi_size=(96, 96), random_size=False),
    RandLowDosed(keys="image", noise_key="noise", dose_fraction=(0.1, 0.5)),
"""

from __future__ import annotations

import inspect
import math
import zlib
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, RandomizableTransform, Transform
from monai.utils import convert_to_dst_type
from torch import Tensor

from ctrestore.ct import (
    FILTERS,
    PHOTONS_PER_RAY,
    NoiseComponents,
    noise_at_dose,
    noise_components,
    pixels_as_blocks,
    simulate_low_dose,
)
from ctrestore.ct.degrade import check_dose_fraction
from ctrestore.ct.fan_beam import Filter
from ctrestore.ct.low_dose import NOISE_FILTER
from ctrestore.errors import InputError
from ctrestore.metrics.photons import PHOTONS_KEY
from ctrestore.transforms.mapped import Mapped, RandMapped


def in_plane_spacing_mm(img: Tensor, spacing_mm: float | Sequence[float] | None) -> list[float]:
    """Pixel size along x and y: as given, or else that of the image's affine.

    Raises:
        InputError: the image has no affine and nothing is given.
    """
    if spacing_mm is not None:
        return np.broadcast_to(np.asarray(spacing_mm, dtype=float), 2).tolist()
    if not isinstance(img, MetaTensor):
        raise InputError(
            "noise depends on the size of the pixels, and this image has none. Usual cause: a PNG, or an array in "
            "memory. Remedy: spacing_mm=0.7 (typical of CT) or the true one."
        )
    return np.linalg.norm(np.asarray(img.affine, dtype=float)[:-1, :2], axis=0).tolist()


#: What the networks see. Half of the noise of air lies below -1000 HU; scanners pad by values below -1200.
CLIP_HU = (-1200.0, 2000.0)


def _photons(photons_per_ray: float | None) -> dict[str, float]:
    return {} if photons_per_ray is None else {PHOTONS_KEY: float(photons_per_ray)}


def _check_options(function: Callable[..., Any], options: Mapping[str, Any]) -> None:
    """A misspelt option fails when a transform is made, not at its first image."""
    inspect.signature(function).bind_partial(**options)


def body_mask(hu: Tensor) -> Tensor:
    """Where something denser than lung is: fat, soft tissue, bone, the table."""
    return hu > -300.0


def to_slices(img: Tensor) -> Tensor:
    """Slices across the patient: ``(c, x, y)`` as it is, ``(c, x, y, z)`` to ``(c, z, x, y)``; without metadata."""
    if img.ndim not in (3, 4):
        raise InputError(f"expected (channel, x, y) or (channel, x, y, z) in HU; got shape {tuple(img.shape)}.")
    plain = torch.as_tensor(img).as_subclass(Tensor)
    return plain if img.ndim == 3 else plain.movedim(-1, 1)


def from_slices(slices: Tensor, like: Tensor) -> Tensor:
    """The inverse of :func:`to_slices`, with the metadata of ``like``."""
    moved = slices if slices.ndim == 3 else slices.movedim(1, -1)
    return convert_to_dst_type(moved.contiguous(), like, dtype=moved.dtype)[0]


def generator_of(img: Tensor, seed: int) -> np.random.Generator:
    """A generator that differs from image to image and is the same in every run."""
    content = torch.as_tensor(img).as_subclass(Tensor).detach().cpu().contiguous().numpy()
    return np.random.default_rng([seed, zlib.crc32(content.tobytes())])


class LowDose(Transform):
    """A scan at a fixed fraction of its dose: :func:`ctrestore.ct.simulate_low_dose` as a transform.

    Every image gets other noise, and the same in every run.

    Args:
        dose_fraction: above 0 and at most 1.
        spacing_mm: pixel size along x and y; None takes the image's.
        seed: another one gives other noise.
        simulation: further arguments of ``simulate_low_dose``, such as ``photons_per_ray``.
    """

    def __init__(
        self, dose_fraction: float, spacing_mm: float | Sequence[float] | None = None, seed: int = 0, **simulation: Any
    ) -> None:
        self.dose_fraction = check_dose_fraction(dose_fraction)
        _check_options(simulate_low_dose, simulation)
        self.spacing_mm, self.seed, self.simulation = spacing_mm, seed, simulation

    def __call__(self, img: Tensor) -> Tensor:
        noisy = simulate_low_dose(
            to_slices(img),
            dose_fraction=self.dose_fraction,
            spacing_mm=in_plane_spacing_mm(img, self.spacing_mm),
            seed=generator_of(img, self.seed),
            **self.simulation,
        )
        return from_slices(noisy, img)


class NoiseRealisations(Transform):
    """Noise of an image for later doses: ``(c, x, y[, z])`` in HU to ``(c * 2 n, x, y[, z])`` in HU, float16.

    The first ``c * n`` channels hold quantum noise, the others electronic noise
    (:func:`ctrestore.ct.noise_components`), as :class:`RandLowDose` reads them. Two bytes a value: a slice of 512 x 512
    with four realisations takes 4 MB.

    Args:
        n: realisations.
        lowest_dose_fraction: that will be drawn.
        spacing_mm: pixel size along x and y; None takes the image's.
        filter: of the reconstruction of the noise, one of ``ctrestore.ct.FILTERS``; of several, every image draws one,
            so that a network sees smooth and sharp kernels.
        seed: another one gives other noise.
        simulation: further arguments of ``noise_components``.
    """

    def __init__(
        self,
        n: int = 4,
        lowest_dose_fraction: float = 0.1,
        spacing_mm: float | Sequence[float] | None = None,
        filter: Filter | Sequence[Filter] = NOISE_FILTER,
        seed: int = 0,
        **simulation: Any,
    ) -> None:
        if n < 1:
            raise InputError(f"n is a number of realisations, 1 or more; got {n!r}.")
        self.n, self.lowest_dose_fraction = n, check_dose_fraction(lowest_dose_fraction)
        self.filters: list[Any] = [filter] if isinstance(filter, str) else list(filter)
        if unknown := [name for name in self.filters if name not in FILTERS]:
            raise InputError(f"filter is one or several of {', '.join(FILTERS)}; got {unknown[0]!r}.")
        _check_options(noise_components, simulation)
        self.spacing_mm, self.seed, self.simulation = spacing_mm, seed, simulation

    def __call__(self, img: Tensor, photons_per_ray: float | None = None) -> Tensor:
        slices, generator = to_slices(img), generator_of(img, self.seed)
        simulation = {**self.simulation, **_photons(photons_per_ray)}
        drawn = self.filters[int(generator.integers(len(self.filters)))]
        components = [
            noise_components(
                slices,
                filter=drawn,
                spacing_mm=in_plane_spacing_mm(img, self.spacing_mm),
                seed=generator,
                lowest_dose_fraction=self.lowest_dose_fraction,
                **simulation,
            )
            for _ in range(self.n)
        ]
        stacked = torch.cat([part for parts in zip(*components) for part in parts])
        return from_slices(stacked.half(), img)


class RandLowDose(RandomizableTransform):
    """A scan at a fraction of its dose drawn evenly from a range.

    With the output of :class:`NoiseRealisations` the noise is a random mixture of these: by weights whose squares add
    up to one, so that it has the spread of each, and is never the same twice. Without, it is simulated anew.

    Args:
        dose_fraction: lowest and highest.
        prob: of lowering the dose at all.
        photons_factor: lowest and highest; the photons of a ray are drawn between (evenly in their logarithm), as
            scanners and protocols differ in them.
        spacing_mm: pixel size along x and y; None takes the image's.
        simulation: further arguments of :func:`ctrestore.ct.simulate_low_dose`; only for noise that is simulated anew.
    """

    def __init__(
        self,
        dose_fraction: Sequence[float] = (0.1, 0.5),
        prob: float = 1.0,
        photons_factor: Sequence[float] = (1.0, 1.0),
        spacing_mm: float | Sequence[float] | None = None,
        **simulation: Any,
    ) -> None:
        super().__init__(prob)
        lowest, highest = (check_dose_fraction(a) for a in dose_fraction)
        if lowest > highest:
            raise InputError(f"dose_fraction is (lowest, highest); got {tuple(dose_fraction)!r}.")
        fewest, most = (float(factor) for factor in photons_factor)
        if not 0 < fewest <= most < math.inf:
            raise InputError(f"photons_factor is (lowest, highest), above 0; got {tuple(photons_factor)!r}.")
        self.dose_range, self.factor_range = (lowest, highest), (fewest, most)
        _check_options(simulate_low_dose, simulation)
        self.spacing_mm, self.simulation = spacing_mm, simulation
        self.dose_fraction, self.photons_factor, self.seed = highest, 1.0, 0

    def randomize(self, data: Any = None) -> None:
        """Draw the dose, the photons and the seed of the noise."""
        super().randomize(data)
        self.dose_fraction, self.seed = self.R.uniform(*self.dose_range), int(self.R.randint(2**31 - 1))
        self.photons_factor = math.exp(self.R.uniform(*np.log(self.factor_range)))

    def __call__(
        self,
        img: Tensor,
        noise: Tensor | None = None,
        randomize: bool = True,
        photons_per_ray: float | None = None,
    ) -> Tensor:
        if randomize:
            self.randomize()
        if not self._do_transform:
            return img
        if noise is not None:
            quantum, electronic = self._mixed(img, noise)
            # Variances are 1 / N and 1 / N^2 in the photons.
            drawn = NoiseComponents(quantum / math.sqrt(self.photons_factor), electronic / self.photons_factor)
            return img + noise_at_dose(drawn, dose_fraction=self.dose_fraction)
        simulation = {"photons_per_ray": PHOTONS_PER_RAY, **self.simulation, **_photons(photons_per_ray)}
        simulation["photons_per_ray"] *= self.photons_factor
        return LowDose(self.dose_fraction, spacing_mm=self.spacing_mm, seed=self.seed, **simulation)(img)

    def _mixed(self, img: Tensor, noise: Tensor) -> NoiseComponents:
        """New noise of the same spread, from realisations ``(2 n c, ...)`` for an image ``(c, ...)``."""
        n, rest = divmod(noise.shape[0], 2 * img.shape[0])
        if n < 1 or rest or noise.shape[1:] != img.shape[1:]:
            raise InputError(
                f"expected noise (channels * 2 n, *spatial) for an image {tuple(img.shape)}; got {tuple(noise.shape)}. "
                "Usual cause: the noise was not cropped or turned with the image. Remedy: give every spatial transform "
                "the key of the noise, too."
            )
        weights = np.random.default_rng(self.seed).standard_normal((2, n))
        weights /= np.linalg.norm(weights, axis=1, keepdims=True)
        plain = torch.as_tensor(noise).as_subclass(Tensor).float().to(img.device)
        quantum, electronic = plain.reshape(2, n, *img.shape)
        mixed = (
            torch.tensordot(torch.from_numpy(w).to(part), part, dims=1)
            for w, part in zip(weights, (quantum, electronic))
        )
        return NoiseComponents(*mixed)


class LowDosed(Mapped):
    """Dictionary form of :class:`LowDose`."""

    array_transform = LowDose


class NoiseRealisationsd(MapTransform):
    """Dictionary form of :class:`NoiseRealisations`: the noise of one image under a key of its own.

    An entry with ``photons_per_ray`` (:func:`ctrestore.metrics.photons.photons_of`) has noise of so many.

    Args:
        keys: the image.
        noise_key: of the noise.
        allow_missing_keys: MONAI's.
        kwargs: of the array form.
    """

    def __init__(
        self, keys: KeysCollection, noise_key: str = "noise", allow_missing_keys: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        if len(self.keys) != 1:
            raise InputError(f"one image has the noise of one key; got keys {self.keys!r}.")
        self.noise_key, self.transform = noise_key, NoiseRealisations(**kwargs)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        for key in self.key_iterator(d):
            d[self.noise_key] = self.transform(d[key], d.get(PHOTONS_KEY))
        return d


class RandLowDosed(RandMapped):
    """Dictionary form of :class:`RandLowDose`: one dose and one noise for all keys.

    An entry with ``photons_per_ray``, as for :class:`NoiseRealisationsd`, has noise of so many.

    Args:
        keys: images.
        noise_key: what :class:`NoiseRealisationsd` wrote, removed after use; None simulates the noise anew.
        dose_key: the drawn fraction is written here.
        kwargs: ``allow_missing_keys``, and those of the array form.
    """

    array_transform = RandLowDose

    def __init__(
        self, keys: KeysCollection, noise_key: str | None = None, dose_key: str = "dose_fraction", **kwargs: Any
    ) -> None:
        extras, optional = {} if noise_key is None else {"noise": noise_key}, {"photons_per_ray": PHOTONS_KEY}
        super().__init__(keys, extras=extras, optional_extras=optional, **kwargs)
        self.noise_key, self.dose_key = noise_key, dose_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = super().__call__(data)
        d.pop(self.noise_key, None)
        return d | {self.dose_key: self.transform.dose_fraction}


class TakeOver(Transform):
    """A restored slice in HU, taken over where the network could see: within its range, and as strongly as asked.

    What lies outside the range (metal, padding) stays as it was, bit for bit. Of a restoration on a finer grid, each
    pixel of the slice before it stands for the block of pixels in its place.

    Args:
        range_hu: lowest and highest HU that the network was shown; beyond, its input was clipped.
        strength: 0 leaves the slice as it is, 1 takes the whole restoration; between, a mixture of both.
    """

    def __init__(self, range_hu: Sequence[float] = CLIP_HU, strength: float = 1.0) -> None:
        if not 0 <= float(strength) <= 1:
            raise InputError(f"strength is 0 (as it was) to 1 (as restored); got {strength!r}.")
        self.lowest, self.highest = (float(limit) for limit in range_hu)
        self.strength = float(strength)

    def __call__(self, img: Tensor, before: Tensor) -> Tensor:  # type: ignore[override]  # MONAI's takes one
        before = torch.as_tensor(before).as_subclass(Tensor)
        restored = torch.as_tensor(img).as_subclass(Tensor).to(before)
        before = pixels_as_blocks(before, factors=[fine // n for fine, n in zip(restored.shape, before.shape)])
        if self.strength < 1:
            restored = torch.lerp(before, restored, self.strength)
        return torch.where((before >= self.lowest) & (before <= self.highest), restored, before)


class TakeOverd(Mapped):
    """Dictionary form of :class:`TakeOver`; ``scan_key`` is that of the slice as it was, HU."""

    array_transform = TakeOver

    def __init__(self, keys: KeysCollection, scan_key: str = "scan", **kwargs: Any) -> None:
        super().__init__(keys, extras={"before": scan_key}, **kwargs)


class ForgetUnknown(Transform):
    """Make NaN of the pixels whose HU are not known: those outside the range ``[lowest, highest]`` in HU.

    8-bit pictures of CT end where their window does; what reads 400 HU there may be bone of 1200. Where no range is
    given the image stays as it is. See :class:`ctrestore.losses.KnownPixelsLoss`.
    """

    def __call__(self, img: Tensor, known_hu: Sequence[float] | None = None) -> Tensor:
        if known_hu is None:
            return img
        low, high = (float(value) for value in known_hu)
        return torch.where((img < low) | (img > high), torch.nan, img)


class ForgetUnknownd(Mapped):
    """Dictionary form of :class:`ForgetUnknown`; ``range_key`` is that of the known range, which an entry may lack."""

    array_transform = ForgetUnknown

    def __init__(self, keys: KeysCollection, range_key: str = "known_hu", **kwargs: Any) -> None:
        super().__init__(keys, optional_extras={"known_hu": range_key}, **kwargs)


class AtDose(Transform):
    """An image at the fraction of its dose that comes with it; without one it stays.

    Args:
        kwargs: of :class:`LowDose`; photons that come with an image go before those given here.
    """

    def __init__(self, **kwargs: Any) -> None:
        self.options = kwargs
        LowDose(1.0, **kwargs)  # what is wrong with them is said now

    def __call__(self, img: Tensor, dose_fraction: float | None = None, photons_per_ray: float | None = None) -> Tensor:
        if dose_fraction is None:
            return img
        return LowDose(float(dose_fraction), **{**self.options, **_photons(photons_per_ray)})(img)


class AtDosed(Mapped):
    """Dictionary form of :class:`AtDose`: the fraction under ``dose_key``, the photons under ``photons_per_ray``."""

    array_transform = AtDose

    def __init__(self, keys: KeysCollection, dose_key: str = "dose_fraction", **kwargs: Any) -> None:
        optional = {"dose_fraction": dose_key, "photons_per_ray": PHOTONS_KEY}
        super().__init__(keys, optional_extras=optional, **kwargs)


UNKNOWN_DOSE = 0.5  # of the map; known doses are 0 (full) and below


def dose_map(img: Tensor, dose_fraction: float | None) -> Tensor:
    """A map ``(1, *spatial)`` that tells a network the dose: its logarithm to base 10, or 0.5 where it is not known."""
    value = UNKNOWN_DOSE if dose_fraction is None else math.log10(check_dose_fraction(dose_fraction))
    return torch.full_like(img[:1], value)


class AppendDose(Transform):
    """Append to an image ``(1, *spatial)``, scaled already, the map of its dose: ``(2, *spatial)``.

    Args:
        dose_fraction: of all images, whatever comes with one; None: what comes with it, or else unknown.
    """

    def __init__(self, dose_fraction: float | None = None) -> None:
        self.dose_fraction = None if dose_fraction is None else check_dose_fraction(float(dose_fraction))

    def __call__(self, img: Tensor, dose_fraction: float | None = None) -> Tensor:
        dose = dose_fraction if self.dose_fraction is None else self.dose_fraction
        return torch.cat([img, dose_map(img, dose)])


class AppendDosed(Mapped):
    """Dictionary form of :class:`AppendDose`; ``dose_key`` is that of the dose fraction, which an entry may lack."""

    array_transform = AppendDose

    def __init__(self, keys: KeysCollection, dose_key: str = "dose_fraction", **kwargs: Any) -> None:
        super().__init__(keys, optional_extras={"dose_fraction": dose_key}, **kwargs)


class RandForgetDosed(RandomizableTransform, MapTransform):
    """Take the dose from an entry now and then, so that a network learns to do without being told.

    Args:
        dose_key: of the fraction of the full dose.
        prob: how often.
    """

    def __init__(self, dose_key: str = "dose_fraction", prob: float = 0.2) -> None:
        MapTransform.__init__(self, dose_key, allow_missing_keys=True)
        RandomizableTransform.__init__(self, prob)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        self.randomize(None)
        if self._do_transform:
            for key in list(self.key_iterator(d)):
                del d[key]
        return d
