"""Heads: fractions add up, a seed gives the same head, and families differ in their measures."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import label

from ctrestore.phantoms import FAMILIES, build_anatomy, describe
from ctrestore.phantoms.anatomy import N_PARCELS, ORIGIN_MM, SHAPE, noise_field, scalp_and_skull

VOLUMES = ("grey_matter", "white_matter", "csf", "parcels", "cerebellum", "depth_mm")

# Seed 0 of each family, measured by `describe` with scipy 1.17 and torch 2.13. A change here means that the embedded
# cohort is another one than that which the released weights have learned from; raise GENERATOR_VERSION with it.
SEED_0 = {
    "template": {
        "grey_matter_ml": 1103.9,
        "white_matter_ml": 623.62,
        "csf_ml": 218.86,
        "thickness_mm": 5.8198,
        "folding": 1.5966,
        "inner_csf_ml": 34.352,
        "sulcal_csf_ml": 143.37,
    },
    "folded": {
        "grey_matter_ml": 850.56,
        "white_matter_ml": 760.92,
        "csf_ml": 205.1,
        "thickness_mm": 2.5664,
        "folding": 2.3544,
        "inner_csf_ml": 31.496,
        "sulcal_csf_ml": 142.78,
    },
    "ribbon": {
        "grey_matter_ml": 614.85,
        "white_matter_ml": 683.59,
        "csf_ml": 340.07,
        "thickness_mm": 3.505,
        "folding": 1.9053,
        "inner_csf_ml": 69.578,
        "sulcal_csf_ml": 191.21,
    },
}


@pytest.fixture(scope="session")
def measured(anatomies):
    return {family: describe(anatomy) for family, anatomy in anatomies.items()}


def test_fractions_of_tissue_add_up_to_at_most_one(anatomy):
    total = np.zeros(SHAPE)
    for fraction in (anatomy.grey_matter, anatomy.white_matter, anatomy.csf):
        assert fraction.dtype == np.float32
        assert fraction.shape == SHAPE
        assert fraction.min() >= 0 and fraction.max() <= 1
        total += fraction
    assert total.max() <= 1 + 1e-6  # float32 sums
    inner = anatomy.depth_mm > 3
    np.testing.assert_allclose(total[inner], 1, atol=1e-3)  # nothing but tissue inside
    assert total[anatomy.depth_mm < -3].max() < 1e-3  # and none outside


def test_the_head_is_one_piece_in_the_middle_of_its_grid(anatomy):
    brain = anatomy.depth_mm > 0
    pieces, n = label(brain)
    assert np.bincount(pieces.ravel())[1:].max() > 0.999 * brain.sum(), f"{n} pieces"
    scalp, skull = scalp_and_skull(anatomy.depth_mm)
    # The scalp may touch the lower face, where the neck would be, and no other.
    for axis, side in ((0, 0), (0, -1), (1, 0), (1, -1), (2, -1)):
        assert np.take(brain | (skull > 0), side, axis=axis).sum() == 0, (axis, side)
    np.testing.assert_array_equal(anatomy.affine[:3, 3], ORIGIN_MM)
    assert (scalp * skull).max() < 0.3  # they share voxels only at their border


def test_every_parcel_has_its_place(anatomy):
    labels, sizes = np.unique(anatomy.parcels, return_counts=True)
    np.testing.assert_array_equal(labels, np.arange(N_PARCELS + 1))
    assert sizes.min() > 500  # a cube of 8 mm: enough for a mean
    assert len(anatomy.networks) == N_PARCELS
    inside = anatomy.depth_mm > 0
    assert not anatomy.parcels[~inside].any()
    assert (anatomy.parcels[inside] == 0).mean() < 0.01
    in_cerebellum = np.isin(anatomy.parcels, 1 + np.flatnonzero(np.array(anatomy.networks) == "cerebellum"))
    # The mask was interpolated and the labels were not: they differ at the surface alone.
    assert (in_cerebellum != anatomy.cerebellum).sum() < 0.05 * anatomy.cerebellum.sum()


def test_the_same_seed_gives_the_same_head(anatomies):
    again = build_anatomy("template", seed=0)
    for name in VOLUMES:
        np.testing.assert_array_equal(getattr(again, name), getattr(anatomies["template"], name), err_msg=name)


@pytest.mark.slow
def test_another_seed_gives_another_head(anatomies):
    other = build_anatomy("template", seed=1)
    grey, other_grey = anatomies["template"].grey_matter > 0.5, other.grey_matter > 0.5
    overlap = 2 * (grey & other_grey).sum() / (grey.sum() + other_grey.sum())
    assert 0.5 < overlap < 0.8  # both are brains, and not the same one


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES[1:])
def test_the_same_seed_gives_the_same_head_in_the_other_families(anatomies, family):
    again = build_anatomy(family, seed=0)
    for name in VOLUMES:
        np.testing.assert_array_equal(getattr(again, name), getattr(anatomies[family], name), err_msg=name)


@pytest.mark.parametrize("family", FAMILIES)
def test_heads_are_still_made_as_when_the_weights_were_trained(measured, family):
    for quantity, value in SEED_0[family].items():
        assert measured[family][quantity] == pytest.approx(value, rel=2e-3), quantity  # rounding differs by machine


def share_of_csf(numbers):
    return numbers["csf_ml"] / (numbers["grey_matter_ml"] + numbers["white_matter_ml"] + numbers["csf_ml"])


def test_families_differ_in_their_measures(measured):
    """Thresholds lie between the ranges that benchmarks/phantom_families.py prints.

    Thickness 2.1 to 2.6, 3.1 to 3.5 and 4.6 to 6.0 mm; folding up to 1.9 against 2.1 or more.
    """
    template, folded, ribbon = (measured[family] for family in ("template", "folded", "ribbon"))
    assert folded["thickness_mm"] < 2.8 < ribbon["thickness_mm"] < 4.0 < template["thickness_mm"]
    assert max(template["folding"], ribbon["folding"]) < 2.0 < folded["folding"]
    # The test family is also apart in what surrounds the cortex, the ventricles and sulci of an atrophied brain: CSF is
    # 20 % or more of the head in it and at most 15 % in the others, whatever the size of the head.
    assert max(share_of_csf(template), share_of_csf(folded)) < 0.17 < share_of_csf(ribbon)
    for place in ("inner_csf_ml", "sulcal_csf_ml"):
        assert max(template[place], folded[place]) < ribbon[place]


@pytest.mark.slow
def test_families_also_differ_for_other_seeds():
    for seed in (1, 2):
        test_families_differ_in_their_measures({f: describe(build_anatomy(f, seed=seed)) for f in FAMILIES})


def test_volumes_are_those_of_adult_brains(measured):
    for family, numbers in measured.items():
        brain_ml = numbers["grey_matter_ml"] + numbers["white_matter_ml"]
        assert 1200 < brain_ml < 2100, family  # adults: about 900 to 1700; the ICBM maps are generous
        assert 0.6 < numbers["grey_matter_ml"] / numbers["white_matter_ml"] < 2.2, family


def test_an_unknown_family_is_refused_and_the_known_ones_are_listed():
    with pytest.raises(ValueError, match="template, folded, ribbon; got 'smooth'"):
        build_anatomy("smooth", seed=0)


@pytest.mark.parametrize(("sigma", "lowest"), [(1.7, 0.99), (9.0, 0.9)])
def test_a_noise_field_has_unit_deviation_and_the_width_asked(sigma, lowest):
    field = noise_field(np.random.default_rng(0), sigma, (96, 100, 104))
    assert field.dtype == np.float32 and field.shape == (96, 100, 104)
    assert lowest < field.std() < 1.01  # interpolation of wide fields takes some away
    # White noise smoothed by a Gaussian correlates over a lag as exp(-(lag / 2 sigma)^2).
    lag = round(sigma)
    correlation = np.corrcoef(field[:-lag].ravel(), field[lag:].ravel())[0, 1]
    assert correlation == pytest.approx(np.exp(-((lag / (2 * sigma)) ** 2)), abs=0.06)
