"""Each metric against truths worked out by hand, on a few voxels or a box of activity."""

import math

import numpy as np
import pytest
from skimage.metrics import structural_similarity

from ctrestore.metrics.pet import (
    hot_lesions,
    lesion_recovery,
    nrmse,
    published_protocol,
    regional_bias,
    rmse,
    structural_similarity_in_mask,
    total_activity_ratio,
)


def row(*values):
    """A volume of one row of voxels."""
    return np.array([[values]], dtype=np.float32)


def noisy(shape, seed):
    return np.random.default_rng(seed).random(shape).astype(np.float32)


class TestRMSE:
    def test_errors_of_3_and_4_give_the_root_of_12_5(self):
        assert rmse(row(3, 0), row(0, 4)) == pytest.approx(math.sqrt(12.5))

    def test_only_voxels_of_the_mask_count(self):
        assert rmse(row(3, 100), row(0, 0), row(1, 0) > 0) == 3.0

    def test_nrmse_is_a_share_of_the_references_mean_in_the_mask(self):
        # errors 1 and 1, mean 4; the third voxel is outside
        assert nrmse(row(4, 4, 9), row(3, 5, 0), row(1, 1, 0) > 0) == pytest.approx(0.25)

    def test_nrmse_does_not_depend_on_the_unit(self):
        pred, reference, mask = noisy((5, 5, 5), 0), noisy((5, 5, 5), 1), noisy((5, 5, 5), 2) > 0.5
        expected = nrmse(pred, reference, mask)
        assert nrmse(1e4 * pred, 1e4 * reference, mask) == pytest.approx(expected, rel=1e-6)

    def test_many_float32_voxels_are_summed_in_float64(self):
        pred = np.full((256, 256, 64), 0.1, dtype=np.float32)
        assert rmse(pred, np.zeros_like(pred)) == pytest.approx(float(np.float32(0.1)), rel=1e-9)

    def test_unsigned_images_are_subtracted_without_wrapping_around(self):
        assert rmse(np.zeros((1, 1, 1), np.uint8), np.ones((1, 1, 1), np.uint8)) == 1.0

    def test_a_reference_that_is_empty_in_the_mask_is_refused(self):
        with pytest.raises(ValueError, match="mean over the mask must be positive"):
            nrmse(row(1, 1), row(0, 1), row(1, 0) > 0)

    @pytest.mark.parametrize(
        ("mask", "fault"),
        [
            (row(1, 0), "mask must be boolean; got float32"),
            (row(0, 0) > 0, "mask holds no voxel"),
            (row(1, 1, 1) > 0, r"Expected mask on the reference's grid, shape \(1, 1, 2\); got \(1, 1, 3\)"),
        ],
    )
    def test_a_mask_that_is_not_boolean_or_empty_is_refused(self, mask, fault):
        with pytest.raises(ValueError, match=fault):
            nrmse(row(1, 1), row(1, 1), mask)

    def test_images_on_different_grids_are_refused_instead_of_broadcast(self):
        with pytest.raises(ValueError, match=r"shape \(1, 1, 2\); got \(1, 1, 1\)"):
            rmse(row(1), row(1, 1))


class TestStructuralSimilarityInMask:
    @pytest.mark.parametrize(
        "box",
        [
            (slice(8, 15), slice(9, 12), slice(5, 14)),  # inside
            (slice(0, 1), slice(0, 2), slice(18, 20)),  # in a corner, thinner than the window
            (slice(None), slice(None), slice(None)),
        ],
    )
    def test_the_cropped_computation_equals_that_of_the_whole_volume(self, box):
        pred, reference = noisy((24, 22, 20), 0), noisy((24, 22, 20), 1)
        mask = np.zeros(pred.shape, dtype=bool)
        mask[box] = True
        _, whole = structural_similarity(
            pred.astype(float), reference.astype(float), win_size=7, data_range=1.0, full=True
        )
        assert structural_similarity_in_mask(pred, reference, mask, data_range=1.0) == pytest.approx(whole[mask].mean())

    def test_equal_images_score_one(self):
        image = noisy((10, 10, 10), 0)
        assert structural_similarity_in_mask(image, image, image > 0.5, data_range=1.0) == pytest.approx(1.0)

    def test_two_flat_images_have_the_closed_form_of_their_means(self):
        a, b, c1 = 2.0, 3.0, (0.01 * 10) ** 2
        score = structural_similarity_in_mask(
            np.full((9, 9, 9), a), np.full((9, 9, 9), b), np.ones((9, 9, 9), bool), data_range=10.0
        )
        assert score == pytest.approx((2 * a * b + c1) / (a**2 + b**2 + c1))

    def test_empty_background_far_from_the_mask_does_not_raise_the_score(self):
        pred, reference = noisy((12, 12, 12), 0), noisy((12, 12, 12), 1)
        mask = np.ones(pred.shape, dtype=bool)
        scores = [
            structural_similarity_in_mask(*(np.pad(v, width) for v in (pred, reference, mask)), data_range=1.0)
            for width in (4, 8)
        ]
        assert scores[0] == pytest.approx(scores[1])

    def test_without_a_range_there_is_no_score(self):
        image = np.ones((8, 8, 8))
        with pytest.raises(ValueError, match="data_range must be positive"):
            structural_similarity_in_mask(image, image, image > 0, data_range=0.0)

    def test_a_volume_thinner_than_the_window_is_refused(self):
        image = np.ones((8, 8, 6))
        with pytest.raises(ValueError, match="needs 7 voxels along every axis"):
            structural_similarity_in_mask(image, image, image > 0, data_range=1.0)


class TestRegionalBias:
    def test_each_parcel_compares_its_two_means(self):
        found = regional_bias(row(2, 4, 3, 9), row(1, 3, 4, 1), np.array([[[1, 1, 7, 0]]]))
        np.testing.assert_array_equal(found.labels, [1, 7])
        np.testing.assert_allclose(found.bias, [0.5, -0.25])
        assert found.mean_absolute == pytest.approx(0.375)
        assert found.max_absolute == pytest.approx(0.5)

    def test_errors_that_cancel_within_a_parcel_are_no_bias(self):
        assert regional_bias(row(1, 3), row(2, 2), np.array([[[1, 1]]])).bias == pytest.approx(0.0)

    def test_means_are_weighted_by_grey_matter(self):
        # (1 * 3 + 0.5 * 4) / (1 * 2 + 0.5 * 4) - 1
        found = regional_bias(row(3, 4), row(2, 4), np.array([[[1, 1]]]), grey_matter=row(1, 0.5))
        assert found.bias == pytest.approx(0.25)

    def test_parcels_without_grey_matter_or_activity_are_left_out(self):
        parcels = np.array([[[1, 2, 3]]])
        found = regional_bias(row(1, 1, 1), row(1, 0, 2), parcels, grey_matter=row(0, 1, 1))
        np.testing.assert_array_equal(found.labels, [3])

    def test_no_parcels_give_nan_and_no_warning(self):
        found = regional_bias(row(1), row(1), np.array([[[0]]]))
        assert math.isnan(found.mean_absolute) and math.isnan(found.max_absolute)

    def test_labels_read_as_floats_are_accepted_and_interpolated_ones_refused(self):
        assert regional_bias(row(2), row(1), row(5)).labels == [5]
        with pytest.raises(ValueError, match="parcels must hold whole numbers"):
            regional_bias(row(2), row(1), row(4.5))


@pytest.fixture
def two_lesions():
    """Background 4, a hot lesion of 12 (label 1) and a cold one of 1 (label 2): ``(truth, lesions)``."""
    lesions = np.zeros((20, 12, 12), dtype=np.int16)
    lesions[3:6, 4:7, 4:7] = 1
    lesions[13:16, 4:7, 4:7] = 2
    return np.choose(lesions, [4.0, 12.0, 1.0]), lesions


class TestLesionRecovery:
    def test_a_perfect_image_recovers_everything(self, two_lesions):
        truth, lesions = two_lesions
        assert lesion_recovery(truth, truth, lesions) == pytest.approx(1.0)

    def test_a_lesion_at_9_of_12_has_a_recovery_of_three_quarters(self, two_lesions):
        truth, lesions = two_lesions
        assert lesion_recovery(np.choose(lesions, [4.0, 9.0, 3.0]), truth, lesions) == pytest.approx(0.75)

    def test_activity_spilled_out_of_the_lesion_does_not_count(self, two_lesions):
        truth, lesions = two_lesions
        moved = truth.copy()
        moved[3, 4, 4] -= 8.0
        moved[2, 4, 4] += 8.0
        assert lesion_recovery(moved, truth, lesions) == pytest.approx((27 * 12 - 8) / (27 * 12))

    def test_only_lesions_above_their_surroundings_are_hot(self, two_lesions):
        np.testing.assert_array_equal(hot_lesions(*two_lesions), [1])

    def test_the_caller_may_name_the_hot_lesions(self, two_lesions):
        truth, lesions = two_lesions
        pred = np.choose(lesions, [4.0, 9.0, 3.0])
        assert lesion_recovery(pred, truth, lesions, hot_labels=[2]) == pytest.approx(3.0)

    def test_named_labels_that_do_not_occur_are_ignored(self, two_lesions):
        truth, lesions = two_lesions
        assert lesion_recovery(0.8 * truth, truth, lesions, hot_labels=range(1, 101)) == pytest.approx(0.8)
        assert math.isnan(lesion_recovery(truth, truth, lesions, hot_labels=[50]))

    def test_the_median_over_lesions_is_reported(self):
        lesions, truth = np.zeros((30, 8, 8), dtype=int), np.ones((30, 8, 8))
        pred = truth.copy()
        for label, recovery in enumerate([0.2, 0.7, 0.9], start=1):
            box = (slice(10 * label - 7, 10 * label - 4), slice(3, 5), slice(3, 5))
            lesions[box], truth[box], pred[box] = label, 10.0, 10.0 * recovery
        assert lesion_recovery(pred, truth, lesions) == pytest.approx(0.7)

    def test_the_connected_parts_of_a_boolean_mask_are_lesions(self, two_lesions):
        truth, lesions = two_lesions
        assert lesion_recovery(0.5 * truth, truth, lesions > 0) == pytest.approx(0.5)

    def test_without_hot_lesions_there_is_no_number(self, two_lesions):
        truth, lesions = two_lesions
        assert math.isnan(lesion_recovery(truth, truth, np.where(lesions == 2, lesions, 0)))


class TestTotalActivity:
    def test_ten_percent_more_activity_is_a_ratio_of_1_1(self):
        assert total_activity_ratio(row(5, 6), row(10, 0)) == pytest.approx(1.1)

    def test_an_empty_reference_is_refused(self):
        with pytest.raises(ValueError, match="total must be positive"):
            total_activity_ratio(row(1, 1), row(0, 0))


class TestPublishedProtocol:
    @pytest.fixture
    def head(self):
        """Input and target in an otherwise empty volume, in Bq/mL, with noise below zero: ``(pred, target)``."""
        pred, target = np.zeros((2, 40, 36, 32), dtype=np.float32)
        pred[10:30, 0:20, 8:24] = 9e3 * noisy((20, 20, 16), 0) - 100
        target[12:28, 0:18, 9:22] = 1e4 * noisy((16, 18, 13), 1) - 100
        return pred, target

    def test_it_equals_the_published_steps_on_the_whole_volume(self, head):
        pred, target = head
        q99 = np.percentile(target[target > 0], 99)
        clipped_pred, clipped_target = np.clip(pred, 0, q99).astype(float), np.clip(target, 0, q99).astype(float)
        scores = published_protocol(pred, target)
        # their range is the maximum of the image that is compared with the target
        expected = structural_similarity(clipped_target, clipped_pred, data_range=clipped_pred.max())
        assert scores.ssim == pytest.approx(expected, abs=1e-9)
        assert scores.rmse == pytest.approx(np.sqrt(np.mean((clipped_target - clipped_pred) ** 2)), rel=1e-6)
        assert scores.rmse_over_clip == pytest.approx(scores.rmse / q99)

    def test_an_image_made_from_the_clipped_input_keeps_its_own_range(self, head):
        pred, target = head
        sharpened = 3 * pred
        clipped_target = np.clip(target, 0, np.percentile(target[target > 0], 99))
        expected = structural_similarity(
            clipped_target.astype(float), sharpened.astype(float), data_range=float(sharpened.max())
        )
        assert published_protocol(sharpened, target, clip_pred=False).ssim == pytest.approx(expected, abs=1e-9)

    def test_more_empty_background_flatters_the_score(self, head):
        roomy = [np.pad(volume, 20) for volume in head]
        assert published_protocol(*roomy).ssim > published_protocol(*head).ssim + 0.05

    def test_the_clipped_target_itself_scores_one_and_no_error(self, head):
        assert published_protocol(head[1], head[1]) == pytest.approx((1.0, 0.0, 0.0))

    def test_an_image_without_activity_is_refused(self, head):
        with pytest.raises(ValueError, match="pred has no positive voxel"):
            published_protocol(np.zeros_like(head[1]), head[1])
