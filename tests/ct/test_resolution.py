"""A coarse pixel is the mean of its block, at the block's centre."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from ctrestore.ct.resolution import coarser_affine, finer_affine, lower_resolution, whole_blocks

OBLIQUE = np.array([[0.6, 0.1, 0.2, -150.0], [-0.1, 0.7, 0.1, 80.0], [0.05, -0.1, 1.5, 30.0], [0, 0, 0, 1]])


def test_a_coarse_pixel_is_the_mean_of_its_block():
    fine = np.array([[0.0, 4.0, 10.0, 30.0], [8.0, 0.0, 20.0, 40.0]])
    np.testing.assert_array_equal(lower_resolution(fine, factors=(2, 2)), [[3.0, 25.0]])
    np.testing.assert_array_equal(lower_resolution(fine, factors=(1, 4)), [[11.0], [17.0]])
    np.testing.assert_array_equal(lower_resolution(fine, factors=(1, 1)), fine)


def test_hu_are_clipped_to_what_twelve_bits_hold_before_the_mean():
    fine = torch.tensor([[-3024.0, -3024.0], [9000.0, 3071.0]])
    assert lower_resolution(fine, factors=(1, 2)).tolist() == [[-1024.0], [3071.0]]


def test_incomplete_blocks_are_left_out_in_the_same_way():
    fine = np.arange(35.0).reshape(1, 5, 7)
    np.testing.assert_array_equal(whole_blocks(fine, factors=(2, 3)), fine[:, :4, :6])
    assert lower_resolution(fine, factors=(2, 3)).shape == (1, 2, 2)


def test_arrays_and_tensors_and_thick_slices_agree():
    volume = np.random.default_rng(0).normal(0, 100, (1, 6, 8, 9)).astype(np.float32)
    coarse = lower_resolution(volume, factors=(2, 2, 3))
    assert coarse.shape == (1, 3, 4, 3)
    np.testing.assert_allclose(lower_resolution(torch.from_numpy(volume), factors=(2, 2, 3)).numpy(), coarse, atol=1e-4)
    np.testing.assert_allclose(coarse.mean(), volume.mean(), atol=1e-3)  # the mean is conserved


@pytest.mark.parametrize("factor", [2, 3, 4])
def test_bicubic_equals_pillows(factor):
    image = np.random.default_rng(0).normal(0, 200, (12 * factor, 10 * factor)).astype(np.float32)
    pillow = Image.fromarray(image).resize((10, 12), Image.Resampling.BICUBIC)
    found = lower_resolution(image, factors=(factor, factor), method="bicubic")
    np.testing.assert_allclose(found, np.asarray(pillow), atol=0.01)


@pytest.mark.parametrize("factors", [(2, 2), (3, 3), (4, 2), (1, 1, 5), (2, 2, 2)])
def test_the_block_of_a_coarse_pixel_lies_around_its_centre(factors):
    """In mm: the centre of the coarse voxel (3, 1, 2) is the mean position of the fine voxels that it covers."""
    step = np.array([*factors, *[1] * (3 - len(factors))])
    voxel = np.array([3, 1, 2])
    covered = np.stack(np.meshgrid(*[v * s + np.arange(s) for v, s in zip(voxel, step)], indexing="ij"), -1)
    fine_mm = covered.reshape(-1, 3) @ OBLIQUE[:3, :3].T + OBLIQUE[:3, 3]
    coarse_mm = (coarser_affine(OBLIQUE, factors=factors) @ [*voxel, 1])[:3]
    np.testing.assert_allclose(coarse_mm, fine_mm.mean(axis=0))
    np.testing.assert_allclose(finer_affine(coarser_affine(OBLIQUE, factors=factors), factors=factors), OBLIQUE)


def test_a_point_in_the_patient_stays_at_the_same_place():
    """A line in mm, sampled on the fine grid and averaged, is the line sampled on the coarse grid."""
    affine = np.diag([0.7, 0.7, 2.0, 1.0])
    affine[:3, 3] = -100, 40, 5
    x_mm = affine[0, 3] + affine[0, 0] * np.arange(12.0)
    coarse = coarser_affine(affine, factors=(3, 3))
    found = lower_resolution(np.broadcast_to(x_mm[:, None], (12, 6)).copy(), factors=(3, 3))
    np.testing.assert_allclose(found[:, 0], coarse[0, 3] + coarse[0, 0] * np.arange(4))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"factors": (2.5, 2)}, "factors are whole numbers"),
        ({"factors": (2, 2, 2)}, "factors are whole numbers"),
        ({"factors": (9, 9)}, "is smaller than a block"),
        ({"factors": (2, 4), "method": "bicubic"}, "two equal factors"),
        ({"factors": (2, 2), "method": "nearest"}, "'mean' or 'bicubic'"),
    ],
)
def test_impossible_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        lower_resolution(np.zeros((8, 8)), **arguments)
    with pytest.raises(ValueError, match="square matrix"):
        coarser_affine(np.eye(3), factors=(2, 2, 2))
