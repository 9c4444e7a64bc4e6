"""Deconvolution inside regions sharpens what lies in a region, and lets nothing across its border."""

import numpy as np
import pytest

from ctrestore.psf import blur
from ctrestore.pvc import richardson_lucy_within, van_cittert_within
from tests.pvc.conftest import PSF, TRUE_MEANS

pytestmark = pytest.mark.parametrize("deconvolve", [richardson_lucy_within, van_cittert_within])


def test_uniform_regions_are_left_alone_up_to_their_borders(deconvolve, head):
    np.testing.assert_allclose(deconvolve(head.truth, head.regions, **PSF), head.truth, rtol=1e-4)


def test_a_hot_spot_inside_a_region_is_sharpened(deconvolve, head):
    spot = np.zeros_like(head.truth)
    spot[20:24, 25:29, 17:21] = 8000.0
    seen = head.truth + blur(spot, **PSF)
    corrected = deconvolve(seen, head.regions, **PSF)
    middle = (slice(21, 23), slice(26, 28), slice(18, 20))
    assert corrected[middle].mean() - TRUE_MEANS[1] > 1.2 * (seen[middle].mean() - TRUE_MEANS[1])
    np.testing.assert_allclose(corrected[head.labels >= 2], seen[head.labels >= 2], rtol=0.05)


def test_what_happens_in_one_region_is_not_seen_in_another(deconvolve, head):
    changed = head.truth.copy()
    changed[head.labels == 3] = np.random.default_rng(0).random((head.labels == 3).sum()) * 9000
    others = head.labels != 3
    np.testing.assert_allclose(
        deconvolve(changed, head.regions, **PSF)[others], deconvolve(head.truth, head.regions, **PSF)[others], rtol=1e-5
    )
