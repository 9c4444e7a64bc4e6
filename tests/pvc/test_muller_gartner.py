"""Müller-Gärtner: grey matter freed from its neighbours, in one of two conventions that are never mixed up."""

import numpy as np
import pytest

from ctrestore.psf import blur
from ctrestore.pvc import (
    Regions,
    correct,
    eroded_white_value,
    meltzer,
    modified_muller_gartner,
    muller_gartner,
    tissues,
)
from tests.pvc.conftest import PSF, SPACING_MM, TRUE_MEANS, mixed

GREY, WHITE, AIR = 9000.0, 4000.0, 100.0


@pytest.fixture
def maps(soft):
    """Fractions of grey matter, white matter and air, and the PET of uniform activity in each."""
    grey, white, air = soft[2] + soft[3], soft[1], soft[0]
    pet = blur(GREY * grey + WHITE * white + AIR * air, **PSF)
    return grey, white, air, pet


def test_with_the_true_values_of_its_neighbours_grey_matter_gets_its_concentration_back(maps):
    grey, white, air, pet = maps
    corrected = muller_gartner(pet, grey, white, air, **PSF, white_value=WHITE, csf_value=AIR)
    inside = grey > 0.5
    assert pet[inside].mean() < 0.85 * GREY
    np.testing.assert_allclose(corrected[inside], GREY, rtol=1e-3)
    assert not corrected[~inside].any()


def test_the_other_convention_is_the_concentration_times_the_fraction(maps):
    grey, white, air, pet = maps
    values = {"white_value": WHITE, "csf_value": AIR}
    product = muller_gartner(pet, grey, white, air, **PSF, **values, convention="fraction")
    np.testing.assert_allclose(product[grey > 0.1], GREY * grey[grey > 0.1], rtol=2e-3)
    assert product[grey > 0.5].mean() < 0.95 * GREY  # which is why the convention has a name


def test_with_the_values_of_the_gtm_nothing_has_to_be_given(maps):
    grey, white, _, pet = maps
    regions = Regions.from_masks(np.stack([grey, white]))
    np.testing.assert_allclose(modified_muller_gartner(pet, regions, **PSF)[grey > 0.5], GREY, rtol=2e-3)


def test_parcels_keep_their_own_activity(soft):
    parcels = np.where(np.arange(44)[:, None, None] < 22, 1, 2) * np.ones(soft.shape[1:], dtype=np.int16)
    grey = soft[2] + soft[3]
    truth = mixed(soft)
    regions = Regions.from_parcels(parcels, grey=grey, white=soft[1])
    corrected = modified_muller_gartner(blur(truth, **PSF), regions, **PSF)
    for half, value in ((slice(0, 17), TRUE_MEANS[2]), (slice(27, 44), TRUE_MEANS[3])):
        inside = grey[half] > 0.5
        np.testing.assert_allclose(corrected[half][inside].mean(), value, rtol=0.02)


def test_deep_white_matter_gives_its_value_where_there_is_some():
    white = np.zeros((40, 40, 40), dtype=np.float32)
    white[5:35, 5:35, 5:35] = 1.0
    pet = blur(WHITE * white, fwhm_mm=5.0, spacing_mm=1.0)
    assert eroded_white_value(pet, white, spacing_mm=1.0) == pytest.approx(WHITE, rel=1e-3)


@pytest.mark.parametrize(("spacing_mm", "radius"), [(1.0, 6), (1.5, 5), (2.0, 4), (2.5, 3), (4.0, 3)])
def test_deep_means_a_ball_of_petpvcs_radius(spacing_mm, radius):
    """A cube of 2 r + 1 voxels holds one voxel of that depth, its middle; one voxel less holds none."""
    white = np.zeros((21, 21, 21), dtype=np.float32)
    middle = slice(10 - radius, 11 + radius)
    white[middle, middle, middle] = 1.0
    value = np.random.default_rng(0).random(white.shape).astype(np.float32)
    assert eroded_white_value(value, white, spacing_mm=spacing_mm) == value[10, 10, 10]
    white[10 - radius] = 0
    with pytest.raises(ValueError, match=rf"no white matter lies {radius} voxels deep.*white_value.*mMG"):
        eroded_white_value(value, white, spacing_mm=spacing_mm)


def test_soft_white_matter_works_where_petpvc_gives_zeros(soft, maps):
    grey, white, _, pet = maps
    regions = Regions.from_masks(np.stack([grey, white]))
    result = correct(pet, regions, "MG", fwhm_mm=PSF["fwhm_mm"], spacing_mm=SPACING_MM)
    assert 0.9 * WHITE < result.white_value < 1.2 * WHITE
    assert result.image[grey > 0.5].mean() == pytest.approx(GREY, rel=0.05)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"convention": "density"}, "convention is 'concentration' or 'fraction'"),
        ({"white_value": np.nan}, "must be finite"),
        ({"white_value": WHITE, "csf_value": np.inf}, "must be finite"),
    ],
)
def test_impossible_values_are_refused(change, message, maps):
    grey, white, air, pet = maps
    with pytest.raises(ValueError, match=message):
        muller_gartner(pet, grey, white, air, **PSF, **{"white_value": WHITE, **change})


def test_masks_on_another_grid_are_refused(maps):
    grey, white, _, pet = maps
    with pytest.raises(ValueError, match="mask grey has .* voxels, the image .*resample"):
        muller_gartner(pet, grey[1:], white, **PSF, white_value=WHITE)


def test_a_label_map_has_no_tissues(head):
    with pytest.raises(ValueError, match="needs tissue maps.*label map.*probability maps"):
        tissues(head.regions)


def test_meltzer_undoes_the_dilution_of_the_brain_by_what_is_around_it(soft):
    brain = 1 - soft[0]
    pet = blur(5000.0 * brain, **PSF)
    corrected = meltzer(pet, brain, **PSF)
    inside = brain > 0.5
    assert pet[inside].mean() < 4800
    np.testing.assert_allclose(corrected[inside], 5000.0, rtol=1e-4)
    assert not corrected[~inside].any()


def test_meltzer_takes_a_brain_mask_alone_or_grey_and_white_matter(soft, maps):
    grey, white, _, pet = maps
    both = correct(pet, Regions.from_masks(np.stack([grey, white])), "MELTZER", **PSF)
    one = correct(pet, Regions.from_masks((grey + white)[None]), "MELTZER", **PSF)
    np.testing.assert_allclose(one.image, both.image, rtol=1e-5)
