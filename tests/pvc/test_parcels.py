"""Parcels of an atlas, fitted to the grey matter of a head."""

import numpy as np
import pytest

from ctrestore.psf import blur
from ctrestore.pvc import Regions, fit_parcels, gtm

PSF = {"fwhm_mm": 6.0, "spacing_mm": 2.0}


@pytest.fixture
def head():
    """Soft grey matter around white, and an atlas with hard edges that also labels the white matter (9)."""
    at = np.indices((32, 32, 32)) - 15.5
    radius = np.sqrt(np.sum(at**2, axis=0))
    hard = {"grey": (radius < 12) & (radius >= 8), "white": radius < 8}
    grey, white = (blur(mask.astype(np.float32), fwhm_mm=3.0, spacing_mm=2.0) for mask in hard.values())
    atlas = np.where(hard["grey"], 1 + (at[0] > 0), 0) + 9 * hard["white"]
    return atlas, grey, white


def test_no_grey_matter_is_lost_and_none_is_left_to_a_rim(head):
    atlas, grey, _ = head
    fitted = fit_parcels(atlas, grey, **PSF)
    assert set(np.unique(fitted)) == {0, 1, 2, 9}
    # Within the rim of 4 mm; the Gaussian's tail beyond holds next to nothing.
    assert grey[fitted == 0].sum() < 1e-3 * grey.sum()
    inside = np.isin(atlas, (1, 2))
    np.testing.assert_array_equal(fitted[inside], atlas[inside])


def test_the_means_of_parcels_of_a_soft_cortex_come_back(head):
    atlas, grey, white = head
    fitted = np.where(fit_parcels(atlas, grey, **PSF) == 9, 0, fit_parcels(atlas, grey, **PSF))
    regions = Regions.from_parcels(fitted, grey=grey, white=white)
    truth = regions.paint(np.array([{"1": 4.0, "2": 5.0}.get(name[-1], 1.0) for name in regions.names]))
    pet = blur(truth, **PSF)
    means = dict(zip(regions.names, gtm(pet, regions, **PSF)))
    np.testing.assert_allclose([means["region-1"], means["region-2"]], [4.0, 5.0], rtol=1e-4)


def test_a_parcel_smaller_than_what_the_scanner_resolves_is_no_region(head):
    atlas, grey, _ = head
    atlas[4:6, 15, 15] = 7  # two voxels, 16 cubic mm; the PSF's element is 216
    assert 7 not in fit_parcels(atlas, grey, **PSF)
    assert 7 in fit_parcels(atlas, grey, fwhm_mm=2.0, spacing_mm=2.0)


def test_a_structure_that_the_atlas_does_not_know_stays_apart(head):
    atlas, grey, _ = head
    atlas[20:] = 0  # its cortex is far from any parcel
    fitted = fit_parcels(atlas, grey, **PSF)
    assert not fitted[23:].any()
    assert grey[23:].sum() > 100
