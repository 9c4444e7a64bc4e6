"""Individual brain anatomies made from the ICBM 152 maps inside nilearn (no download; notice in NOTICE).

Three families of cortex, different in thickness, folding, ventricles and sulci (`describe` measures them):

``template``  the ICBM grey and white matter, deformed, sharpened to a crisp ribbon and roughened;
``folded``    the ICBM hull, deep nuclei and cerebellum, but sulci of a random folding field, thin cortex on both banks;
``ribbon``    a ribbon of constant depth around the ICBM white matter, open sulci and wide ventricles (as in an
              atrophied brain).

Arrays are ``(x, y, z)`` in RAS order at 1 mm, float32; fractions are in 0..1. Voxels are 1 mm, so lengths in voxels and
in mm are the same numbers here.

The widths and levels below were set by eye and by `describe`, so that every head looks like one and the families
differ. Released weights were trained on exactly these heads: another number or another order of draws is another
cohort.

Known, and kept for that reason: the generators of anatomy (seed, the family's number), uptake (seed, 1), noise (seed,
2) and T1 (seed, 3) are not all different: in ``folded`` heads the uptake repeats the draws of the anatomy, and in
``ribbon`` heads the noise does. The next version of the generator should give each its own key.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import Literal, get_args

import nibabel as nib
import numpy as np
import torch
import torch.nn.functional as F
from scipy.cluster.vq import kmeans2
from scipy.ndimage import distance_transform_edt, gaussian_filter
from scipy.spatial import cKDTree

from ctrestore.errors import InputError

Family = Literal["template", "folded", "ribbon"]
FAMILIES: tuple[Family, ...] = get_args(Family)
N_PARCELS = 68
SHAPE = (184, 224, 200)  # 1 mm voxels: the ICBM brain with room for the scalp
# Voxel (0, 0, 0) of the grid in ICBM world coordinates (mm). Half voxels put the midline (x = 0) in the middle of the
# matrix; `_template` rounds to whole voxels, so the maps are copied and not interpolated.
ORIGIN_MM = (-91.5, -129.5, -88.5)


@dataclass(frozen=True)
class Anatomy:
    """Tissue fractions and parcels of one head, ``(x, y, z)`` at 1 mm, RAS.

    Grey matter, white matter and CSF add up to at most 1; the rest of a voxel is outside the brain.
    """

    family: Family
    grey_matter: np.ndarray
    white_matter: np.ndarray
    csf: np.ndarray
    parcels: np.ndarray  # uint8, 1..N_PARCELS inside the brain, 0 outside and in a few voxels under the hull
    cerebellum: np.ndarray  # bool
    depth_mm: np.ndarray  # distance below the brain's hull, negative outside; never between -1 and 1
    networks: tuple[str, ...]  # functional network of each parcel, in the order of the labels
    affine: np.ndarray  # voxel to ICBM world, mm


@dataclass(frozen=True)
class _Template:
    """The basis of every head, on the phantom grid; as in `Anatomy`, ``brain`` and ``cerebellum`` boolean."""

    grey_matter: np.ndarray
    white_matter: np.ndarray
    brain: np.ndarray
    parcels: np.ndarray
    cerebellum: np.ndarray
    networks: tuple[str, ...]


@lru_cache(maxsize=1)
def _template() -> _Template:
    """The ICBM 152 maps on the phantom grid, with Voronoi parcels around the Dosenbach seeds."""
    data = resources.files("nilearn") / "datasets" / "data"

    def load(tissue: str) -> tuple[np.ndarray, np.ndarray]:
        with resources.as_file(data / f"mni_icbm152_{tissue}_tal_nlin_sym_09a_converted.nii.gz") as path:
            image = nib.Nifti1Image.from_filename(path)
            return np.asarray(image.dataobj), image.affine

    def embed(values: np.ndarray, affine: np.ndarray) -> np.ndarray:
        out = np.zeros(SHAPE, dtype=np.float32)
        start = np.round(affine[:3, 3] - np.asarray(ORIGIN_MM)).astype(int)
        source = tuple(slice(max(0, -s), min(n, size - s)) for s, n, size in zip(start, values.shape, SHAPE))
        target = tuple(slice(c.start + s, c.stop + s) for c, s in zip(source, start))
        out[target] = values[source]
        return out

    grey, white = (embed(*load(tissue)) / 255.0 for tissue in ("gm", "wm"))
    brain = embed(*load("t1")) > 0  # nilearn's T1 has no skull
    with resources.as_file(data / "dosenbach_2010.csv") as path:
        import pandas as pd  # imported here: inference on existing phantoms does not need it

        seeds = pd.read_csv(path)
    centres, cluster = kmeans2(seeds[["x", "y", "z"]].to_numpy(float), N_PARCELS, seed=0, minit="++", iter=50)
    networks = tuple(
        str(seeds["network"][cluster == k].mode().iloc[0]) if (cluster == k).any() else "default"
        for k in range(N_PARCELS)
    )
    inside = np.argwhere(brain)
    _, nearest = cKDTree(centres).query(inside + np.asarray(ORIGIN_MM), workers=-1)
    parcels = np.zeros(SHAPE, dtype=np.uint8)
    parcels[tuple(inside.T)] = nearest + 1
    is_cerebellar = np.array([False] + [n == "cerebellum" for n in networks])
    return _Template(grey, white, brain, parcels, is_cerebellar[parcels], networks)


def noise_field(rng: np.random.Generator, sigma_voxels: float, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    """Gaussian random field of mean 0, smooth over ``sigma_voxels``; float32.

    The standard deviation is 1 below 4 voxels. Wider fields are drawn on a coarser grid and interpolated, in a fraction
    of the time; interpolation lowers their standard deviation by 3 to 7 %.
    """
    step = max(1, int(sigma_voxels / 2))
    coarse = tuple(-(-n // step) + 4 for n in shape)
    field = gaussian_filter(rng.standard_normal(coarse, dtype=np.float32), sigma_voxels / step, mode="wrap")
    field /= field.std()
    if step == 1:
        return field[tuple(slice(n) for n in shape)]
    size = tuple(n * step for n in coarse)
    full = F.interpolate(torch.from_numpy(field)[None, None], size=size, mode="trilinear")[0, 0].numpy()
    return np.ascontiguousarray(full[tuple(slice(n) for n in shape)])


def scalp_and_skull(depth_mm: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Fractions of scalp (5 to 11 mm outside the brain's hull) and skull (0 to 5 mm) in each voxel."""
    outer_mm = -depth_mm
    scalp = np.clip(outer_mm - 5.0, 0, 1) * np.clip(11.0 - outer_mm, 0, 1)
    skull = np.clip(outer_mm + 0.5, 0, 1) * np.clip(5.0 - outer_mm, 0, 1)
    return scalp, skull


def _displaced_grid(rng: np.random.Generator) -> torch.Tensor:
    """The position in the template of each voxel of an individual head: ``(x, y, z, 3)``, voxels.

    An affine about the centre (rotations up to 6 degrees, sizes of 92 to 108 %) and a smooth deformation: 3.5 mm of
    whole lobes (sigma 22 mm) and 1.3 mm of single gyri (sigma 9 mm).
    """
    centre = (np.asarray(SHAPE) - 1) / 2
    angles = np.deg2rad(rng.uniform(-6, 6, 3))
    turn = np.eye(3)
    for axis, angle in enumerate(angles):
        i, j = (axis + 1) % 3, (axis + 2) % 3
        step = np.eye(3)
        step[i, i] = step[j, j] = np.cos(angle)
        step[i, j], step[j, i] = -np.sin(angle), np.sin(angle)
        turn = turn @ step
    matrix = turn @ np.diag(1 / rng.uniform(0.92, 1.08, 3))
    axes = [torch.arange(n, dtype=torch.float32) - float(c) for n, c in zip(SHAPE, centre)]
    grid = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)
    grid = grid @ torch.from_numpy(matrix.T.astype(np.float32))
    for i in range(3):
        for sigma, amplitude_mm in ((22.0, 3.5), (9.0, 1.3)):
            grid[..., i] += amplitude_mm * torch.from_numpy(noise_field(rng, sigma))
    return grid + torch.from_numpy(centre.astype(np.float32))


def _warp(volume: np.ndarray, grid: torch.Tensor, mode: str = "bilinear") -> np.ndarray:
    """The volume ``(x, y, z)`` sampled at ``grid`` (voxels, ``(x, y, z, 3)``), zero outside."""
    scale = torch.tensor([2.0 / (n - 1) for n in SHAPE])
    normalised = (grid * scale - 1.0).flip(-1)[None]  # grid_sample wants (z, y, x) in -1..1
    values = torch.from_numpy(np.ascontiguousarray(volume, dtype=np.float32))[None, None]
    return F.grid_sample(values, normalised, mode=mode, align_corners=True)[0, 0].numpy()


def _logit(fraction: np.ndarray) -> np.ndarray:
    """Log odds of a fraction, within -6.2..6.2."""
    clipped = np.clip(fraction, 2e-3, 1 - 2e-3)
    return np.log(clipped / (1 - clipped))


def _ramp(distance_mm: np.ndarray) -> np.ndarray:
    """Fraction of a 1 mm voxel on the positive side of a surface at this signed distance."""
    return np.clip(0.5 + distance_mm, 0.0, 1.0, dtype=np.float32)


def _signed_depth(inside: np.ndarray) -> np.ndarray:
    """Distance in mm to the nearest voxel of the other side, positive inside: 1, 2, ... and -1, -2, ..."""
    return (distance_transform_edt(inside) - distance_transform_edt(~inside)).astype(np.float32)


def _sharpened(rng: np.random.Generator, tissue: np.ndarray, white_share: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Brain-tissue fraction and white share of it, sharpened (log odds times 3) and roughened (fields of 3 and 8 mm).

    ``atrophy`` moves the pial surface inwards, ``thickening`` the grey/white boundary: the template's maps are averages
    of many people, and their log odds grow with the distance from the average surface.
    """
    atrophy, thickening = rng.uniform(-0.2, 0.8), rng.uniform(-0.5, 0.5)
    tissue_level = 3.0 * (_logit(tissue) - atrophy + 0.5 * noise_field(rng, 3.0) + 0.5 * noise_field(rng, 8.0))
    white_level = 3.0 * (_logit(white_share) - thickening + 0.5 * noise_field(rng, 3.0) + 0.5 * noise_field(rng, 8.0))
    return 1 / (1 + np.exp(-tissue_level)), 1 / (1 + np.exp(-white_level))


def _folded(
    rng: np.random.Generator, tissue: np.ndarray, white_share: np.ndarray, depth_mm: np.ndarray, deep: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Brain-tissue fraction and white share of it, with sulci along the zero sheets of a random folding field.

    The field is constant along rays from the centre of each hemisphere, so its sheets run inwards from the hull
    like sulci; a second, weaker field bends them. Where ``deep`` is above 0.5 the template's structures stay.
    """
    wavelength = rng.uniform(3.6, 4.6)  # smoothing of the folding field; gyri are about 2.5 times as wide
    thickness = rng.uniform(1.9, 2.6) + 0.2 * noise_field(rng, 8.0)  # of the cortex on either bank, mm
    # CSF between the banks, and how deep sulci reach below the hull, mm.
    width, reach = rng.uniform(0.8, 1.6), rng.uniform(12.0, 19.0) + 2.5 * noise_field(rng, 10.0)
    x, y, z = np.meshgrid(*(np.arange(n, dtype=np.float32) - (n - 1) / 2 for n in SHAPE), indexing="ij", sparse=True)
    side = np.where(x < 0, -18.0, 18.0).astype(np.float32)  # the centre of each hemisphere is 18 mm off the midline
    radius = np.sqrt((x - side) ** 2 + y**2 + z**2) + 1.0
    shell_mm = 62.0  # every ray has the field's value at this radius, where the cortex is
    rays = (side + (x - side) * shell_mm / radius, y * shell_mm / radius, z * shell_mm / radius)
    grid = torch.stack([torch.from_numpy(r + (n - 1) / 2) for r, n in zip(rays, SHAPE)], -1)
    radial = _warp(noise_field(rng, wavelength), grid)
    field = gaussian_filter(radial + 0.6 * noise_field(rng, 4.0), 1.0)
    slope = np.sqrt(sum(g * g for g in np.gradient(field))) + 0.02  # per mm; not 0 where the field is flat
    sheet_mm = np.abs(field) / slope  # first-order distance to the zero sheet
    # The fissure between the hemispheres: the midline plane above the deep nuclei, 30 mm deep.
    fissure_mm = np.where(z > -5, np.abs(x) + 0 * y, 99.0)
    sulcus_mm = np.minimum(np.maximum(sheet_mm, depth_mm - reach), np.maximum(fissure_mm, depth_mm - 30)) - width / 2
    pial_mm = np.minimum(depth_mm - 0.5, sulcus_mm)
    cortex_tissue, cortex_white = _ramp(pial_mm), _ramp(pial_mm - thickness)
    deep_tissue, deep_white = _sharpened(rng, tissue, white_share)
    return (
        np.where(deep > 0.5, deep_tissue, cortex_tissue).astype(np.float32),
        np.where(deep > 0.5, deep_white, cortex_white).astype(np.float32),
    )


def _ribbon(
    rng: np.random.Generator, tissue: np.ndarray, white_share: np.ndarray, depth_mm: np.ndarray, deep: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Brain-tissue fraction and white share of it: a cortex of constant depth around the white matter, open sulci.

    Where ``deep`` is above 0.5 the template's structures stay, with ventricles widened.
    """
    level = tissue * white_share + 0.03 * noise_field(rng, 4.0)
    core = level > rng.uniform(0.25, 0.33)  # a low level, so that the white matter extends far into the gyri
    core &= depth_mm > 2.0
    thickness = rng.uniform(2.5, 3.0) + 0.2 * noise_field(rng, 8.0)  # mm
    # Distances count from voxel to voxel; half a voxel less is the distance from the face between them.
    outside_mm = gaussian_filter(distance_transform_edt(~core).astype(np.float32) - 0.5 * (~core), 0.6)
    inside_mm = gaussian_filter(distance_transform_edt(core).astype(np.float32) - 0.5 * core, 0.6)
    white_mm = inside_mm - outside_mm
    hull = _ramp(depth_mm - 0.5)
    cortex_white = _ramp(white_mm) * hull
    cortex_tissue = np.minimum(_ramp(white_mm + thickness), hull)
    # Inner structures come from the template; ventricles are widened by moving its tissue level.
    wide = _logit(tissue) - rng.uniform(2.0, 3.0)
    deep_tissue = 1 / (1 + np.exp(-3.0 * (wide + 0.4 * noise_field(rng, 5.0))))
    deep_white = 1 / (1 + np.exp(-3.0 * (_logit(white_share) + 0.5 * noise_field(rng, 5.0))))
    tissue_out = np.where(deep > 0.5, deep_tissue, cortex_tissue)
    white_out = np.where(deep > 0.5, deep_white, cortex_white / np.maximum(cortex_tissue, 1e-3))
    return tissue_out.astype(np.float32), np.clip(white_out, 0, 1).astype(np.float32)


def build_anatomy(family: Family, *, seed: int) -> Anatomy:
    """One individual head of a family, the same for the same seed; 5 to 7 s on one core.

    Raises:
        InputError: no such family.
    """
    if family not in FAMILIES:
        raise InputError(f"family must be one of {', '.join(FAMILIES)}; got {family!r}.")
    rng = np.random.default_rng([seed, FAMILIES.index(family)])
    template = _template()
    grid = _displaced_grid(rng)
    grey, white = _warp(template.grey_matter, grid), _warp(template.white_matter, grid)
    brain = gaussian_filter(_warp(template.brain, grid), 2.0) > 0.5
    parcels = _warp(template.parcels, grid, mode="nearest").astype(np.uint8) * brain
    cerebellum = _warp(template.cerebellum, grid, mode="nearest") > 0.5
    depth_mm = _signed_depth(brain)
    tissue = np.clip(grey + white, 0.0, 1.0)
    white_share = white / np.maximum(grey + white, 1e-3)
    if family == "template":
        tissue, white_share = _sharpened(rng, tissue, white_share)
    else:
        below = 24.0 if family == "folded" else 30.0  # mm under the hull, where the template's structures begin
        z = np.arange(SHAPE[2])[None, None, :] + ORIGIN_MM[2]
        stem = np.broadcast_to(z < -38.0, SHAPE)  # brain stem and the foot of the temporal lobes
        deep = gaussian_filter(((depth_mm > below) | cerebellum | stem).astype(np.float32), 2.0)
        build = _folded if family == "folded" else _ribbon
        tissue, white_share = build(rng, tissue, white_share, depth_mm, deep)
    tissue = tissue * _ramp(depth_mm)
    # Surfaces cut voxel by voxel are jagged; this softens them to partial volumes.
    tissue, white = (gaussian_filter(f.astype(np.float32), 0.45) for f in (tissue, tissue * white_share))
    csf = np.clip(gaussian_filter(brain.astype(np.float32), 0.45) - tissue, 0.0, 1.0)
    affine = np.eye(4)
    affine[:3, 3] = ORIGIN_MM
    return Anatomy(
        family,
        np.clip(tissue - white, 0.0, 1.0),
        np.clip(white, 0.0, 1.0),
        csf,
        parcels,
        cerebellum & brain,
        depth_mm,
        template.networks,
        affine,
    )


def describe(anatomy: Anatomy) -> dict[str, float]:
    """Measures that distinguish the families: volumes (ml), cortical thickness (mm), folding, ventricles, sulcal CSF.

    The cortex is everything within 24 mm of the hull, except the cerebellum. Thickness is twice its grey-matter volume
    divided by the area of its grey/white and pial surfaces (both sides of a ribbon); folding is the area of the
    grey/white surface divided by that of the hull; inner CSF, mostly ventricles, is deeper than 24 mm.
    """
    cortex_mm = 24
    cortex_zone = (anatomy.depth_mm > 0) & (anatomy.depth_mm < cortex_mm) & ~anatomy.cerebellum

    def area(inside: np.ndarray, zone: np.ndarray) -> float:
        """Surface in mm2 by Cauchy-Crofton: faces counted along three axes, corrected by 2/3 for random orientation."""
        faces = sum(np.count_nonzero(np.diff(inside, axis=a) & np.delete(zone, -1, axis=a)) for a in range(3))
        return faces * 2.0 / 3.0

    tissue = anatomy.grey_matter + anatomy.white_matter > 0.5
    white = (anatomy.white_matter > 0.5) & tissue
    grey = (anatomy.grey_matter * cortex_zone).sum()
    surfaces = area(white, cortex_zone) + area(tissue, cortex_zone)
    inner = (anatomy.csf > 0.5) & (anatomy.depth_mm > cortex_mm) & ~anatomy.cerebellum
    return {
        "grey_matter_ml": float(anatomy.grey_matter.sum() / 1000),
        "white_matter_ml": float(anatomy.white_matter.sum() / 1000),
        "csf_ml": float(anatomy.csf.sum() / 1000),
        "thickness_mm": float(2 * grey / surfaces),
        "folding": float(area(white, cortex_zone) / area(anatomy.depth_mm > 0, np.ones(SHAPE, dtype=bool))),
        "inner_csf_ml": float(inner.sum() / 1000),
        "sulcal_csf_ml": float((anatomy.csf * cortex_zone).sum() / 1000),
    }
