"""The geometric transfer matrix: blurred region means go in, true ones come out, or an error that names the region."""

import numpy as np
import pytest

from ctrestore.psf import blur
from ctrestore.pvc import Regions, gtm, labbe, transfer_matrix
from tests.pvc.conftest import PSF, TRUE_MEANS, mixed, one_hot

METHODS = pytest.mark.parametrize("means_of", [gtm, labbe])


@METHODS
@pytest.mark.parametrize("kernel", ["exact", "itk"])
def test_blurred_uniform_regions_give_back_their_true_means(means_of, kernel, head):
    pet = blur(head.truth, **PSF, kernel=kernel)
    assert pet[head.labels == 2].mean() < 0.85 * TRUE_MEANS[2]  # spill-out is visible before correction
    np.testing.assert_allclose(means_of(pet, head.regions, **PSF, kernel=kernel), TRUE_MEANS, rtol=1e-4, atol=0.1)


@METHODS
def test_mixed_voxels_give_back_the_true_means_too(means_of, soft):
    pet = blur(mixed(soft), **PSF)
    np.testing.assert_allclose(means_of(pet, Regions.from_masks(soft), **PSF), TRUE_MEANS, rtol=1e-3)


@METHODS
def test_a_psf_much_narrower_than_a_voxel_changes_nothing(means_of, head):
    means = means_of(head.pet, head.regions, fwhm_mm=0.1, spacing_mm=2.0)
    np.testing.assert_allclose(means, head.regions.means(head.pet), rtol=1e-6)


@METHODS
def test_the_parts_of_a_region_split_in_two_have_the_mean_of_the_whole(means_of, head):
    split = np.where((head.labels == 1) & (np.arange(54)[None, :, None] > 27), 4, head.labels)
    means = means_of(head.pet, Regions.from_labels(split), **PSF)
    np.testing.assert_allclose(means, [*TRUE_MEANS, TRUE_MEANS[1]], rtol=1e-4)


def test_the_memory_order_of_the_volumes_does_not_matter(head):
    expected = gtm(np.ascontiguousarray(head.pet), Regions.from_labels(np.ascontiguousarray(head.labels)), **PSF)
    for labels in (np.asfortranarray(head.labels), np.ascontiguousarray(head.labels)):
        for pet in (np.asfortranarray(head.pet), np.ascontiguousarray(head.pet)):
            np.testing.assert_allclose(gtm(pet, Regions.from_labels(labels), **PSF), expected, rtol=1e-6)


@pytest.mark.parametrize("kernel", ["exact", "itk"])
def test_the_matrix_built_in_boxes_is_that_of_whole_blurred_masks(kernel, head, soft):
    for masks, regions in ((one_hot(head.labels, 4), head.regions), (soft, Regions.from_masks(soft))):
        seen = blur(masks, **PSF, kernel=kernel).reshape(4, -1).astype(np.float64)
        flat = masks.reshape(4, -1).astype(np.float64)
        expected = flat @ seen.T / flat.sum(axis=1, keepdims=True)
        np.testing.assert_allclose(transfer_matrix(regions, **PSF, kernel=kernel), expected, atol=2e-6)
        expected = seen @ seen.T / seen.sum(axis=1, keepdims=True)
        np.testing.assert_allclose(transfer_matrix(regions, **PSF, kernel=kernel, reblurred=True), expected, atol=2e-6)


def test_each_row_of_the_matrix_adds_up_to_one(head):
    np.testing.assert_allclose(transfer_matrix(head.regions, **PSF).sum(axis=1), 1.0, rtol=1e-6)


def test_a_matrix_asked_for_twice_is_computed_once_and_cannot_be_spoilt(head):
    first = transfer_matrix(head.regions, **PSF)
    first[:] = 0
    np.testing.assert_allclose(transfer_matrix(head.regions, **PSF).sum(axis=1), 1.0, rtol=1e-6)
    n_kept = len(head.regions.matrices)
    transfer_matrix(head.regions, **PSF)
    assert len(head.regions.matrices) == n_kept


@METHODS
def test_noise_leaves_the_means_unbiased(means_of, head):
    rng = np.random.default_rng(0)
    noise_sd, n_scans = 2000.0, 5
    errors = [
        means_of(head.pet + rng.normal(0, noise_sd, head.pet.shape).astype(np.float32), head.regions, **PSF)
        - TRUE_MEANS
        for _ in range(n_scans)
    ]
    # white noise averages out over a region's voxels, and comes back at most as often as the inverse matrix amplifies
    largest_gain = np.abs(np.linalg.inv(transfer_matrix(head.regions, **PSF))).sum(axis=1).max()
    expected_sd = largest_gain * noise_sd / np.sqrt(head.regions.totals().min() * n_scans)
    assert np.abs(np.mean(errors, axis=0)).max() < 4 * expected_sd


@METHODS
def test_a_region_of_one_voxel_is_named_with_the_condition_number(means_of, head):
    labels = head.labels.copy()
    labels[22, 27, 19] = 9
    regions = Regions.from_labels(labels, names={9: "subthalamic nucleus"})
    with pytest.raises(ValueError, match=r"(?s)condition number [\d.e+]+.*subthalamic nucleus.*join the region"):
        means_of(head.pet, regions, fwhm_mm=14.0, spacing_mm=1.0)


@METHODS
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fwhm_mm": None}, "fwhm_mm must be one number"),
        ({"fwhm_mm": 0.0}, "fwhm_mm must be greater than 0"),
        ({"fwhm_mm": -6.0}, "fwhm_mm must be one number"),
        ({"spacing_mm": 0.0}, "spacing_mm must be positive"),
        ({"kernel": "gauss"}, "kernel is 'exact' or 'itk'"),
    ],
)
def test_an_impossible_psf_is_refused(means_of, change, message, head):
    with pytest.raises(ValueError, match=message):
        means_of(head.pet, head.regions, **{**PSF, **change})


@METHODS
def test_nan_and_dynamic_images_are_refused(means_of, head):
    with pytest.raises(ValueError, match="1 of .* are NaN"):
        bad = head.pet.copy()
        bad[3, 3, 3] = np.nan
        means_of(bad, head.regions, **PSF)
    with pytest.raises(ValueError, match=r"one volume \(x, y, z\)"):
        means_of(np.stack([head.pet] * 2, axis=-1), head.regions, **PSF)
