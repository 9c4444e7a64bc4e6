"""Regions share out a volume: what goes in, what is refused, sums that are right."""

import numpy as np
import pytest
import torch

from ctrestore.pvc import Regions
from ctrestore.pvc.regions import dot

RNG = np.random.default_rng(0)


@pytest.fixture
def labels():
    """Random labels 3, 7 and 250 in a box of 250s."""
    volume = np.full((12, 10, 9), 250, dtype=np.int16)
    volume[2:9, 3:8, 1:6] = RNG.choice([3, 7, 250], (7, 5, 5))
    return volume


def orders(volume):
    """The same values with x, or z, running fastest in memory, and as a view of something larger."""
    padded = np.zeros([n + 3 for n in volume.shape], dtype=volume.dtype)
    padded[1:-2, 2:-1, :-3] = volume
    return [np.asfortranarray(volume), np.ascontiguousarray(volume), padded[1:-2, 2:-1, :-3]]


def test_a_label_map_gives_one_region_a_value_in_ascending_order_with_the_names_given(labels):
    regions = Regions.from_labels(labels, names={7: "putamen"})
    assert regions.names == ("region-3", "putamen", "region-250")
    np.testing.assert_array_equal(regions.totals(), [(labels == v).sum() for v in (3, 7, 250)])


@pytest.mark.parametrize("dtype", [np.int16, np.uint8, np.uint64, np.float32, np.float64])
def test_the_type_the_labels_are_stored_in_does_not_matter(labels, dtype):
    np.testing.assert_array_equal(
        Regions.from_labels(labels.astype(dtype)).totals(), Regions.from_labels(labels).totals()
    )


def test_a_mask_of_true_and_false_is_two_regions():
    volume = np.zeros((3, 3, 3), dtype=bool)
    volume[1] = True
    np.testing.assert_array_equal(Regions.from_labels(volume).totals(), [18, 9])
    np.testing.assert_array_equal(Regions.from_labels(torch.from_numpy(volume)).totals(), [18, 9])


def test_negative_labels_and_more_than_256_of_them_are_regions_too():
    labels = np.arange(-20, 380).repeat(2).reshape(20, 10, 4)
    regions = Regions.from_labels(labels)
    assert len(regions) == 400
    assert regions.names[0] == "region--20"
    np.testing.assert_array_equal(regions.sums(labels.astype(np.float32)), 2.0 * np.arange(-20, 380))


@pytest.mark.parametrize("kind", ["numpy", "torch"])
def test_sums_over_regions_are_those_of_masks_written_out(labels, kind):
    image = RNG.random(labels.shape).astype(np.float32)
    expected = [image[labels == v].sum(dtype=np.float64) for v in (3, 7, 250)]
    for ordered in orders(labels) if kind == "numpy" else [torch.from_numpy(labels)]:
        for seen in orders(image) if kind == "numpy" else [torch.from_numpy(image)]:
            regions = Regions.from_labels(ordered)
            np.testing.assert_allclose(regions.sums(seen), expected, rtol=1e-6)
            assert [[(s.start, s.stop) for s in box] for box in regions.boxes()] == [
                [(int(line.min()), int(line.max()) + 1) for line in np.nonzero(labels == v)] for v in (3, 7, 250)
            ]


def test_soft_masks_and_label_maps_agree_where_the_masks_are_hard(labels):
    image = RNG.random(labels.shape).astype(np.float32)
    masks = np.stack([labels == v for v in (3, 7, 250)]).astype(np.float32)
    hard, soft = Regions.from_labels(labels), Regions.from_masks(masks)
    np.testing.assert_allclose(soft.means(image), hard.means(image), rtol=1e-6)
    np.testing.assert_array_equal(soft.paint(np.arange(3.0)), hard.paint(np.arange(3.0)))
    assert soft.boxes() == hard.boxes()
    for region in range(3):
        np.testing.assert_array_equal(soft.mask(region), hard.mask(region))


def test_what_masks_leave_over_becomes_the_background():
    masks = np.zeros((2, 6, 6, 6), dtype=np.float32)
    masks[0, 1:3], masks[1, 3:5] = 0.75, 1.0
    regions = Regions.from_masks(masks, names=["grey", "white"])
    assert regions.background_added
    assert regions.names == ("grey", "white", "background")
    np.testing.assert_allclose(regions.totals(), [54, 72, 216 - 54 - 72])
    assert regions.partition_error() < 1e-6


def test_masks_that_add_up_to_one_get_no_background():
    half = np.full((2, 5, 5, 5), 0.5, dtype=np.float32)
    assert not Regions.from_masks(half).background_added


def test_parcels_take_their_share_of_grey_matter_and_the_rest_of_it_is_a_region_of_its_own():
    parcels = np.zeros((8, 8, 8), dtype=np.int16)
    parcels[2:4, 2:6, 2:6], parcels[4:6, 2:5, 2:6] = 5, 9
    grey, white = np.zeros((2, 8, 8, 8), dtype=np.float32)
    grey[2:6, 2:6, 2:6], white[2:6, 2:6, 2:6] = 0.7, 0.2
    regions = Regions.from_parcels(parcels, grey=grey, white=white, names={9: "cuneus"})
    assert regions.names == ("grey-unparcelled", "region-5", "cuneus", "white-matter", "background")
    np.testing.assert_allclose(regions.totals(), [0.7 * 8, 0.7 * 32, 0.7 * 24, 0.2 * 64, 512 - 0.9 * 64], rtol=1e-6)
    assert regions.partition_error() < 1e-6
    np.testing.assert_allclose(sum(regions.mask(i) for i in range(5)), 1.0, rtol=1e-6)


def test_parcels_that_hold_all_grey_matter_leave_no_region_for_the_rest():
    parcels = np.zeros((8, 8, 8), dtype=np.int16)
    parcels[2:6] = np.arange(3, 7)[:, None, None]
    grey = (parcels > 0).astype(np.float32)
    regions = Regions.from_parcels(parcels, grey=grey, white=np.zeros_like(grey) + 0.5 * (1 - grey), csf=None)
    assert regions.names == ("region-3", "region-4", "region-5", "region-6", "white-matter", "background")
    np.testing.assert_allclose(regions.totals()[:4], 64)


def test_a_mixed_voxel_is_painted_with_the_mixture():
    masks = np.stack([np.full((3, 3, 3), 0.25), np.full((3, 3, 3), 0.75)]).astype(np.float32)
    np.testing.assert_allclose(Regions.from_masks(masks).paint(np.array([4.0, 8.0])), 7.0)


def test_unmixed_values_painted_have_the_means_asked_for():
    share = RNG.random((3, 6, 6, 6)).astype(np.float32)
    regions = Regions.from_masks(share / share.sum(axis=0))
    asked = np.array([1.0, 2.0, 4.0])
    np.testing.assert_allclose(regions.means(regions.paint(regions.unmix(asked))), asked, rtol=1e-4)


def test_a_sum_over_sixteen_million_voxels_keeps_its_digits_where_one_float32_sum_does_not():
    side = 256
    mask = np.full((side, side, side), 0.1, dtype=np.float32)
    image = (1e4 + np.arange(side, dtype=np.float32))[:, None, None] * np.ones_like(mask)
    exact = np.float64(mask[0, 0, 0]) * side**2 * np.sum(1e4 + np.arange(side, dtype=np.float64))
    naive = np.cumsum((mask[:64] * image[:64]).ravel())[-1]  # what a loop over voxels in float32 gives, for a quarter
    exact_quarter = np.float64(mask[0, 0, 0]) * side**2 * np.sum(1e4 + np.arange(64, dtype=np.float64))
    assert abs(naive / exact_quarter - 1) > 1e-4
    assert dot(mask, image) == pytest.approx(exact, rel=1e-6)
    assert Regions.from_masks(mask[None]).sums(image)[0] == pytest.approx(exact, rel=1e-6)
    assert Regions.from_labels(np.zeros(mask.shape, np.uint8)).sums(image)[0] == pytest.approx(
        exact / mask[0, 0, 0], rel=1e-6
    )


def test_a_crop_is_the_regions_of_the_cropped_volumes(labels):
    box = (slice(2, 9), slice(3, 8), slice(0, 5))
    image = RNG.random(labels.shape).astype(np.float32)
    np.testing.assert_allclose(
        Regions.from_labels(labels).crop(box).sums(image[box]), Regions.from_labels(labels[box]).sums(image[box])
    )


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Regions.from_labels(np.full((4, 4, 4), 0.5)), "no whole numbers.*nearest-neighbour"),
        (lambda: Regions.from_labels(np.zeros((4, 4), dtype=int)), r"three axes.*\(4, 4\)"),
        (lambda: Regions.from_masks(np.zeros((4, 4, 4))), r"four axes.*\(4, 4, 4\)"),
        (lambda: Regions.from_masks(np.full((1, 4, 4, 4), 255.0)), "region-1 has values from 255 to 255.*divide"),
        (lambda: Regions.from_masks(np.full((1, 4, 4, 4), np.nan)), "fractions of 0..1 are expected.*NaN by 0"),
        (lambda: Regions.from_masks(np.full((2, 4, 4, 4), 0.8)), "overlap: in 64 voxels .* to 1.600.*divide each"),
        (lambda: Regions.from_masks(np.zeros((1, 4, 4, 4)), ["insula"]), "without a voxel: insula.*leave them out"),
        (lambda: Regions.from_masks(np.ones((1, 4, 4, 4)), ["a", "b"]), "2 names for 1 masks"),
        (
            lambda: Regions.from_parcels(np.ones((4, 4, 4), int), grey=np.ones((4, 4, 5)), white=np.ones((4, 4, 5))),
            "parcels have .4, 4, 4. voxels.*one grid",
        ),
        (
            lambda: Regions.from_labels(np.zeros((4, 4, 4), int)).sums(np.zeros((4, 4, 5))),
            "image has .4, 4, 5. voxels, the regions .4, 4, 4..*resample",
        ),
        (
            lambda: Regions.from_labels(np.zeros((4, 4, 4), int)).sums(torch.zeros(4, 4, 4)),
            "both be numpy arrays or both be tensors",
        ),
    ],
)
def test_what_cannot_be_regions_is_refused_with_the_cause_and_the_remedy(build, message):
    with pytest.raises(ValueError, match=f"(?s){message}"):
        build()


def test_maps_rounded_to_255_steps_are_no_overlap():
    share = RNG.random((3, 8, 8, 8))
    rounded = np.round(255 * share / share.sum(axis=0)) / 255
    assert np.ptp(rounded.sum(axis=0)) > 0
    assert not Regions.from_masks(rounded).background_added
