"""The scanner: point spread function, count noise, Bq/ml, matrix, voxel size and orientation of a PET acquisition."""

from __future__ import annotations

from dataclasses import dataclass

import nibabel as nib
import numpy as np
from nibabel.orientations import axcodes2ornt, inv_ornt_aff, ornt_transform
from scipy.ndimage import affine_transform

from ctrestore.phantoms.anatomy import noise_field
from ctrestore.psf import blur, fwhm_to_sigma


@dataclass(frozen=True)
class Grid:
    """Matrix, voxel size (mm), axis codes and obliquity (degrees about x and z) of an image."""

    matrix: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    axes: str = "RAS"
    tilt_deg: tuple[float, float] = (0.0, 0.0)

    def affine(self, centre_mm: np.ndarray) -> np.ndarray:
        """Voxel-to-world affine (RAS mm) with ``centre_mm`` in the middle of the matrix."""
        to_codes = ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(self.axes))
        # ornt_transform lists, for every RAS axis, the axis it becomes.
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
    """The volume on another grid, zero outside; float32 (or the volume's integer type for ``order=0``)."""
    centre_mm = (affine @ np.append((np.asarray(volume.shape) - 1) / 2, 1.0))[:3]
    # Snap to whole voxels of the source, so that an unrotated 1 mm grid copies values instead of interpolating them.
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


def acquire(
    activity: np.ndarray, *, fwhm_mm: tuple[float, float, float], noise: float, seed: int, spacing_mm: float = 1.0
) -> np.ndarray:
    """The activity as PET sees it: blurred, with noise whose variance follows the local activity; never negative.

    Args:
        activity: true activity ``(x, y, z)``, any unit.
        fwhm_mm: point spread function along each axis.
        noise: standard deviation relative to the mean of the head, after the 4 mm correlation of a reconstruction.
        seed: of the noise.
        spacing_mm: voxel size.
    """
    pet = blur(activity, fwhm_mm=fwhm_mm, spacing_mm=spacing_mm)
    head_mean = float(pet[pet > 0.2 * pet.max()].mean())
    speckle = noise_field(np.random.default_rng([seed, 2]), fwhm_to_sigma(4.0) / spacing_mm, pet.shape)
    return np.maximum(pet + noise * np.sqrt(np.maximum(pet, 0) * head_mean) * speckle, 0).astype(np.float32)
