"""Tracer uptake: a brain PET from a perfect scanner, one activity per voxel.

Values are relative: for amyloid tracers to the cerebellar cortex, for FDG as in standardised uptake values. Only ratios
matter, because `cohort` scales every scan to Bq/ml. Regional means vary by functional network, with jitter between
parcels, texture inside them, and hot and cold lesions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ctrestore.phantoms.anatomy import Anatomy, noise_field, scalp_and_skull

HOT, COLD = 1, 101  # labels of the first hot and the first cold lesion


@dataclass(frozen=True)
class Tracer:
    """Ranges (lowest, highest) from which a subject's mean uptake is drawn, relative units."""

    name: str  # BIDS label of the tracer
    cortex: tuple[float, float]
    white_matter: tuple[float, float]
    csf: tuple[float, float]
    cerebellum: tuple[float, float]
    scalp: tuple[float, float]
    factor_of_network: dict[str, tuple[float, float]]  # multiplies the cortex of some functional networks


TRACERS = {
    # Training: florbetapir (amyloid negative and positive) and FDG, plus contrasts of no particular tracer.
    "AV45neg": Tracer("18FAV45", (1.05, 1.3), (1.6, 2.1), (0.1, 0.4), (0.95, 1.05), (0.3, 0.7), {}),
    "AV45pos": Tracer(
        "18FAV45", (1.4, 2.0), (1.6, 2.1), (0.1, 0.4), (0.95, 1.05), (0.3, 0.7),
        {"sensorimotor": (0.75, 0.95), "occipital": (0.75, 1.0)},
    ),
    "FDG": Tracer("18FFDG", (5.6, 7.4), (1.7, 2.4), (0.2, 0.9), (5.0, 6.5), (0.8, 2.0), {"occipital": (1.0, 1.15)}),
    "contrast": Tracer("18F", (1.0, 6.0), (0.6, 3.0), (0.05, 0.9), (0.8, 5.0), (0.2, 1.5), {}),
    # Only for test: FDG of Alzheimer's disease, and Pittsburgh compound B.
    "FDGAD": Tracer(
        "18FFDG", (5.2, 6.4), (1.8, 2.3), (0.3, 0.8), (5.2, 6.2), (0.8, 1.6),
        {"default": (0.62, 0.8), "fronto-parietal": (0.75, 0.9)},
    ),
    "PIBneg": Tracer("11CPIB", (1.05, 1.25), (1.7, 2.2), (0.1, 0.3), (0.95, 1.05), (0.3, 0.6), {}),
    "PIBpos": Tracer(
        "11CPIB", (2.0, 2.9), (1.7, 2.3), (0.1, 0.3), (0.95, 1.1), (0.3, 0.6),
        {"sensorimotor": (0.6, 0.8), "occipital": (0.6, 0.85)},
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Uptake:
    """True activity of a head in relative units, ``(x, y, z)`` at 1 mm.

    The activity of a voxel is the sum over its tissues of fraction times concentration.
    """

    activity: np.ndarray
    grey_matter_concentration: np.ndarray  # of the grey part of each voxel; 0 if that is at most 1 % of the voxel
    lesions: np.ndarray  # uint8: HOT, HOT + 1, ... and COLD, COLD + 1, ...; 0 elsewhere


def _ball(shape: tuple[int, ...], centre: np.ndarray, radius_mm: float) -> tuple[tuple[slice, ...], np.ndarray]:
    """The box around a ball (centre in voxels of 1 mm) and the fraction of each of its voxels inside the ball."""
    box = tuple(slice(max(0, int(c - radius_mm - 2)), min(n, int(c + radius_mm + 3))) for c, n in zip(centre, shape))
    axes = np.meshgrid(*(np.arange(s.start, s.stop) - c for s, c in zip(box, centre)), indexing="ij", sparse=True)
    distance = np.sqrt(sum(a**2 for a in axes))
    return box, np.clip(radius_mm - distance + 0.5, 0.0, 1.0).astype(np.float32)


def draw_uptake(anatomy: Anatomy, tracer: Tracer, *, seed: int, n_hot: int = 2, n_cold: int = 1) -> Uptake:
    """Uptake of a tracer in one head, the same for the same seed.

    Lesions are balls of 3 to 8 mm radius centred in grey matter; hot ones have 1.6 to 3 times the mean uptake of the
    cortex, cold ones 0.3 to 0.6 times.
    """
    rng = np.random.default_rng([seed, 1])
    cortex, white, csf = (rng.uniform(*r) for r in (tracer.cortex, tracer.white_matter, tracer.csf))
    cerebellar, scalp = rng.uniform(*tracer.cerebellum), rng.uniform(*tracer.scalp)
    means = np.full(len(anatomy.networks) + 1, cortex, dtype=np.float32)  # first: grey matter outside the parcels
    factors = {network: rng.uniform(*limits) for network, limits in sorted(tracer.factor_of_network.items())}
    for parcel, network in enumerate(anatomy.networks, start=1):
        means[parcel] = cerebellar if network == "cerebellum" else cortex * factors.get(network, 1.0)
    # 8 % between parcels; 6 % (grey) and 4 % (white) inside them, smooth over 8 mm.
    means *= 1 + 0.08 * rng.standard_normal(means.size).astype(np.float32)
    texture = 8.0 / 2.3548  # 8 mm FWHM as a standard deviation in voxels of 1 mm
    grey = means[anatomy.parcels] * (1 + 0.06 * noise_field(rng, texture, anatomy.grey_matter.shape))
    white_map = white * (1 + 0.04 * noise_field(rng, texture, anatomy.grey_matter.shape))

    lesions = np.zeros(grey.shape, dtype=np.uint8)
    factor = np.ones(grey.shape, dtype=np.float32)
    # Not right under the hull, where half of a ball would be outside the brain.
    candidates = np.argwhere((anatomy.grey_matter > 0.6) & (anatomy.depth_mm > 6) & (anatomy.parcels > 0))
    for index in range(n_hot + n_cold):
        centre, radius_mm = candidates[rng.integers(len(candidates))], rng.uniform(3.0, 8.0)
        hot = index < n_hot
        strength = rng.uniform(1.6, 3.0) if hot else rng.uniform(0.3, 0.6)
        box, share = _ball(grey.shape, centre, radius_mm)
        share = share * (lesions[box] == 0)  # where two overlap, the first one stays
        factor[box] = factor[box] * (1 - share) + strength * share
        lesions[box][share > 0.5] = HOT + index if hot else COLD + index - n_hot
    # A lesion replaces the tissue that it grows in: the same value in grey and in white matter. CSF keeps its own.
    local = cortex * factor
    in_lesion = lesions > 0
    grey, white_map = np.where(in_lesion, local, grey), np.where(in_lesion, local, white_map)

    skin, skull = scalp_and_skull(anatomy.depth_mm)
    outside = scalp * skin * (1 + 0.15 * noise_field(rng, 6.0, grey.shape)) + 0.25 * scalp * skull
    activity = anatomy.grey_matter * grey + anatomy.white_matter * white_map + anatomy.csf * csf + outside
    concentration = np.where(anatomy.grey_matter > 0.01, grey, 0.0)
    return Uptake(np.maximum(activity, 0).astype(np.float32), concentration.astype(np.float32), lesions)
