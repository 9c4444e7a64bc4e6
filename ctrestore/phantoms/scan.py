"""The scanner: point spread function, count noise, matrix, voxel size and orientation of a PET acquisition."""

from __future__ import annotations

from dataclasses import dataclass

import nibabel as nib
import numpy as np
from nibabel.orientations import axcodes2ornt, inv_ornt_aff, ornt_transform
from scipy.ndimage import affine_transform

from ctrestore.phantoms.anatomy import noise_field
from ctrestore.psf import Scalars, blur, fwhm_to_sigma

NOISE_FWHM_MM = 4.0  # reconstruction correlates the noise of neighbouring voxels


@dataclass(frozen=True)
class Grid:
    """The grid of an image: matrix and voxel size along its own axes, their directions, and their tilt."""

    matrix: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    axes: str = "RAS"  # axis codes as in nibabel: where each axis goes
    tilt_deg: tuple[float, float] = (0.0, 0.0)  # about the world's x axis, then about its z axis

    def affine(self, centre_mm: np.ndarray) -> np.ndarray:
        """Voxel-to-world affine ``(4, 4)`` (RAS mm) with ``centre_mm`` in the middle of the matrix."""
        to_codes = ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(self.axes))
        # ornt_transform lists, for every RAS axis, the axis it becomes: matrix and spacing brought into RAS order.
        matrix_ras = np.array([self.matrix[int(k)] for k in to_codes[:, 0]])
        spacing_ras = np.array([self.spacing_mm[int(k)] for k in to_codes[:, 0]])
        rx, rz = np.deg2rad(self.tilt_deg)
        about_x = np.array([[1, 0, 0], [0, np.cos(rx), -np.sin(rx)], [0, np.sin(rx), np.cos(rx)]])
        about_z = np.array([[np.cos(rz), -np.sin(rz), 0], [np.sin(rz), np.cos(rz), 0], [0, 0, 1]])
        ras = np.eye(4)
        ras[:3, :3] = about_z @ about_x @ np.diag(spacing_ras)
        ras[:3, 3] = centre_mm - ras[:3, :3] @ ((matrix_ras - 1) / 2)
        return ras @ inv_ornt_aff(to_codes, tuple(matrix_ras))


def resample_to_grid(volume: np.ndarray, affine: np.ndarray, grid: Grid, *, order: int = 1) -> nib.Nifti1Image:
    """The volume on another grid with the same centre, zero outside; the data type stays.

    Values are interpolated at voxel centres, not averaged over coarser voxels. A grid of 1 mm is moved by at most half
    a voxel onto the voxels of a 1 mm volume, so that without tilt values are copied.

    Args:
        volume: ``(x, y, z)``.
        affine: voxel-to-world affine ``(4, 4)`` of the volume, RAS mm.
        grid: of the output image.
        order: 1 interpolates linearly; 0 takes the nearest voxel, for labels.
    """
    centre_mm = (affine @ np.append((np.asarray(volume.shape) - 1) / 2, 1.0))[:3]
    target = grid.affine(centre_mm)
    offset = np.linalg.solve(affine, target)[:3, 3]
    target[:3, 3] += (affine[:3, :3] @ (np.round(offset) - offset)) if grid.spacing_mm == (1.0, 1.0, 1.0) else 0.0
    mapping = np.linalg.solve(affine, target)
    copies = np.allclose(mapping, np.round(mapping), atol=1e-6)  # a flip or permutation: nothing to interpolate
    out = affine_transform(
        volume, mapping[:3, :3], mapping[:3, 3], output_shape=grid.matrix, order=0 if copies else order, prefilter=False
    )
    image = nib.Nifti1Image(out, target)
    image.header.set_xyzt_units("mm", "sec")
    image.set_qform(target, code=1)
    image.set_sform(target, code=1)
    return image


def acquire(activity: np.ndarray, *, fwhm_mm: Scalars, noise: float, seed: int, spacing_mm: float = 1.0) -> np.ndarray:
    """The activity as PET sees it: blurred, never negative, with a noise variance that follows the blurred activity.

    The standard deviation at an activity ``a`` is ``noise * sqrt(a * head_mean)``: the fraction ``noise``
    of the activity where the activity equals the mean of the head.

    Args:
        activity: true activity ``(x, y, z)``, any unit.
        fwhm_mm: point spread function, one width or one per axis.
        noise: relative standard deviation at the mean of the head, after the correlation over `NOISE_FWHM_MM`.
        seed: of the noise.
        spacing_mm: voxel size, the same along every axis.

    Returns:
        PET ``(x, y, z)`` in the unit of the activity, float32.
    """
    pet = blur(activity, fwhm_mm=fwhm_mm, spacing_mm=spacing_mm)
    head_mean = float(pet[pet > 0.2 * pet.max()].mean())  # a fifth of the maximum separates the head from the air
    speckle = noise_field(np.random.default_rng([seed, 2]), fwhm_to_sigma(NOISE_FWHM_MM) / spacing_mm, pet.shape)
    return np.maximum(pet + noise * np.sqrt(np.maximum(pet, 0) * head_mean) * speckle, 0).astype(np.float32)
