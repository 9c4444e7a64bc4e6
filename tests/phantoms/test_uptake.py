"""True activity: the sum of its tissues, lesions of the requested sizes and strengths, tracers as published."""

from __future__ import annotations

import numpy as np
import pytest

from ctrestore.phantoms import COLD, HOT, TRACERS, acquire, draw_uptake


@pytest.fixture(scope="session")
def fdg(anatomies):
    """FDG in a head of each family."""
    return {family: draw_uptake(head, TRACERS["FDG"], seed=5) for family, head in anatomies.items()}


def mean_in_networks(anatomy, uptake, *networks):
    """Mean grey-matter concentration over the parcels of some functional networks."""
    labels = 1 + np.flatnonzero(np.isin(anatomy.networks, networks))
    inside = np.isin(anatomy.parcels, labels) & (anatomy.grey_matter > 0.5) & (uptake.lesions == 0)
    return uptake.grey_matter_concentration[inside].mean(dtype=float)


@pytest.mark.parametrize("family", ["template", "folded", "ribbon"])
def test_activity_is_grey_matter_times_its_concentration_plus_the_other_tissues(anatomies, fdg, family):
    head, uptake = anatomies[family], fdg[family]
    rest = uptake.activity - head.grey_matter * uptake.grey_matter_concentration
    top = uptake.activity.max()
    assert rest.min() > -1e-6 * top  # what other tissues add is not negative
    pure = head.grey_matter > 0.999
    assert np.abs(rest[pure]).max() < 1e-3 * top  # and nothing where there is no other tissue
    no_grey = head.grey_matter == 0
    assert not uptake.grey_matter_concentration[no_grey].any()
    white = (head.white_matter > 0.999) & (uptake.lesions == 0)
    lowest, highest = TRACERS["FDG"].white_matter
    assert lowest < uptake.activity[white].mean() < highest


def test_lesions_have_the_sizes_and_strengths_asked(anatomies, fdg):
    head, uptake = anatomies["template"], fdg["template"]
    assert sorted(np.unique(uptake.lesions)) == [0, HOT, HOT + 1, COLD]
    cortex = mean_in_networks(head, uptake, *set(head.networks) - {"cerebellum"})
    for lesion in (HOT, HOT + 1, COLD):
        inside = uptake.lesions == lesion
        radius_mm = (inside.sum() * 3 / (4 * np.pi)) ** (1 / 3)
        assert 2.8 < radius_mm < 8.2  # drawn from 3 to 8, counted in whole voxels
        ratio = uptake.activity[inside & (head.csf < 0.01)].mean() / cortex
        # A voxel half inside has half of the strength, hence the wider ranges than 1.6 to 3 and 0.3 to 0.6.
        assert (0.25 < ratio < 0.85) if lesion >= COLD else (1.25 < ratio < 3.3)


def test_a_lesion_replaces_grey_and_white_matter_alike(anatomies, fdg):
    head, uptake = anatomies["template"], fdg["template"]
    inside = (uptake.lesions == HOT) & (head.csf < 0.01)
    np.testing.assert_allclose(
        uptake.activity[inside & (head.grey_matter > 0.01)],
        uptake.grey_matter_concentration[inside & (head.grey_matter > 0.01)],
        rtol=0.02,  # the last percent is CSF
    )


# Of the fixture, with scipy 1.17 and torch 2.13: mean activity, and mean square of the PET. Other numbers are another
# cohort than that which the released weights have learned from; raise GENERATOR_VERSION with them.
SEED_5 = {"template": (1.19978, 5.29638), "folded": (1.01302, 3.81165), "ribbon": (0.81450, 2.78092)}


@pytest.mark.parametrize("family", SEED_5)
def test_scans_are_still_made_as_when_the_weights_were_trained(fdg, family):
    activity = fdg[family].activity
    pet = acquire(activity, fwhm_mm=6.0, noise=0.05, seed=5).astype(float)
    assert (activity.mean(dtype=float), (pet**2).mean()) == pytest.approx(SEED_5[family], rel=1e-3)
    assert (fdg[family].lesions > 0).sum() == 2845


def test_no_lesions_when_none_are_asked(anatomies):
    assert not draw_uptake(anatomies["template"], TRACERS["FDG"], seed=5, n_hot=0, n_cold=0).lesions.any()


def test_the_same_seed_gives_the_same_uptake_and_another_seed_another_one(anatomies, fdg):
    head = anatomies["template"]
    again, other = (draw_uptake(head, TRACERS["FDG"], seed=seed) for seed in (5, 6))
    for name in ("activity", "grey_matter_concentration", "lesions"):
        np.testing.assert_array_equal(getattr(again, name), getattr(fdg["template"], name))
        assert (getattr(other, name) != getattr(again, name)).any()


def test_alzheimers_disease_lowers_the_default_network(anatomies):
    head = anatomies["ribbon"]
    uptake = draw_uptake(head, TRACERS["FDGAD"], seed=5)
    ratio = mean_in_networks(head, uptake, "default") / mean_in_networks(head, uptake, "sensorimotor")
    lowest, highest = TRACERS["FDGAD"].factor_of_network["default"]
    # Ten parcels or more of 8 % jitter a network: their means are known to 3 % each.
    assert 0.9 * lowest < ratio < 1.1 * highest


def test_amyloid_is_read_against_the_cerebellum(anatomies):
    head = anatomies["ribbon"]
    suvr = {}
    for tracer in ("PIBneg", "PIBpos"):
        uptake = draw_uptake(head, TRACERS[tracer], seed=5)
        suvr[tracer] = mean_in_networks(head, uptake, "default") / mean_in_networks(head, uptake, "cerebellum")
    # 1.42 is the usual border between negative and positive PiB scans (Jack et al., Alzheimers Dement 13(3):205, 2017).
    assert suvr["PIBneg"] < 1.42 < suvr["PIBpos"]
