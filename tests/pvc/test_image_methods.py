"""What RBV, MTC, STC, IY, MG and the others have in common: the truth is met, the far field kept, bad input refused."""

import numpy as np
import pytest
import torch

from ctrestore.psf import blur
from ctrestore.pvc import (
    METHODS,
    TABLES,
    WITHOUT_REGIONS,
    Regions,
    correct,
    iterative_yang,
    mtc,
    rbv,
    residual,
    stc,
)
from ctrestore.pvc_methods import CHAINS
from tests.conftest import cases
from tests.pvc.conftest import PSF, TRUE_MEANS, as_tensor, mixed

WHOLE_IMAGE = pytest.mark.parametrize("method", [rbv, mtc, stc, iterative_yang])
IMAGE_METHODS = cases((name for name in METHODS if name not in TABLES), at_least=20)


def error(image, truth, where):
    """Root mean square error in a region, relative to its mean."""
    return np.sqrt(np.mean((image - truth)[where] ** 2)) / truth[where].mean()


@pytest.mark.parametrize(("method", "largest"), [(rbv, 1e-4), (mtc, 1e-4), (iterative_yang, 0.03), (stc, 0.05)])
def test_blurred_uniform_regions_become_themselves_again(method, largest, head):
    head_voxels = head.labels > 0
    assert error(head.pet, head.truth, head_voxels) > 0.2
    assert error(method(head.pet, head.regions, **PSF), head.truth, head_voxels) < largest


@pytest.mark.parametrize("method", [rbv, mtc])
def test_mixed_voxels_become_themselves_again(method, soft):
    truth = mixed(soft)
    corrected = method(blur(truth, **PSF), Regions.from_masks(soft), **PSF)
    np.testing.assert_allclose(corrected, truth, atol=2e-3 * truth.max())


def test_iterative_yang_comes_closer_with_every_ten_rounds(head):
    errors = [
        error(iterative_yang(head.pet, head.regions, **PSF, n_iterations=n), head.truth, head.labels > 0)
        for n in (1, 10, 30)
    ]
    assert errors[0] > 2 * errors[1] > 4 * errors[2]


@WHOLE_IMAGE
def test_the_box_in_which_regions_meet_is_all_that_needs_work(method, head):
    """The same head in a larger volume gives the same correction, and keeps the image far away from it."""
    wide = np.pad(head.labels, 12)
    pet = blur(TRUE_MEANS[wide].astype(np.float32), **PSF)
    pet += np.random.default_rng(0).normal(0, 5, pet.shape).astype(np.float32)
    corrected = method(pet, Regions.from_labels(wide), **PSF)
    assert corrected.shape == pet.shape
    np.testing.assert_allclose(corrected[:3], pet[:3], rtol=1e-5, atol=1e-3)
    assert not np.array_equal(corrected[20:-20, 20:-20, 20:-20], pet[20:-20, 20:-20, 20:-20])


@WHOLE_IMAGE
def test_without_a_blur_nothing_changes(method, head):
    corrected = method(head.truth, head.regions, fwhm_mm=0.1, spacing_mm=2.0)
    np.testing.assert_allclose(corrected, head.truth, rtol=1e-5)


@pytest.mark.parametrize("name", IMAGE_METHODS)
def test_every_method_gives_a_finite_image_that_explains_the_pet_and_the_input_stays_as_it_was(name, head, soft):
    masks = soft[[2, 1, 3]] + 0  # grey first, then white, as PETPVC wants them
    masks[0] += masks[2]
    regions = Regions.from_masks(masks[:2], names=["grey", "white"])
    hard = Regions.from_masks((masks[:2] > 0.5).astype(np.float32))
    before = head.pet.copy()
    chain = CHAINS[name]
    white_value = 4000.0 if "white_value" in chain.options else None
    result = correct(head.pet, hard if name == "STC" else regions, name, **PSF, white_value=white_value)
    np.testing.assert_array_equal(head.pet, before)
    assert np.isfinite(result.image).all()
    assert result.image.dtype == np.float32
    assert result.image[head.labels >= 2].mean() > 1.05 * head.pet[head.labels >= 2].mean()  # grey matter gains
    assert (result.means is None) == (name in WITHOUT_REGIONS)
    # Some leave out what is not grey, or not brain; a deconvolution sharpens the border of the two greys, too
    if chain.row.gives == "image" and chain.then is None:
        assert residual(head.pet, result.image, **PSF) < residual(head.pet, head.pet, **PSF)


@pytest.mark.parametrize("name", list(METHODS))
def test_a_tensor_gives_what_an_array_gives(name, head, soft):
    masks = np.stack([soft[2] + soft[3], soft[1]])
    arguments = {**PSF, "white_value": 4000.0, "n_iterations": 2, "n_deconvolutions": 2}
    array = correct(head.pet, Regions.from_masks(masks), name, **arguments)
    tensor = correct(as_tensor(head.pet), Regions.from_masks(as_tensor(masks)), name, **arguments)
    if array.image is not None:
        assert isinstance(tensor.image, torch.Tensor)
        np.testing.assert_allclose(tensor.image.numpy(), array.image, rtol=2e-4, atol=0.05)
    if array.means is not None:
        np.testing.assert_allclose(tensor.means, array.means, rtol=1e-4, atol=0.05)


def test_autocast_around_a_correction_does_not_spoil_it(head):
    pet, regions = as_tensor(head.pet), Regions.from_labels(as_tensor(head.labels))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        corrected = rbv(pet, regions, **PSF)
    np.testing.assert_allclose(corrected.numpy(), rbv(head.pet, head.regions, **PSF), rtol=1e-3, atol=0.5)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", list(METHODS))
def test_a_gpu_gives_what_the_cpu_gives(name, head, soft):
    masks = np.stack([soft[2] + soft[3], soft[1]])
    arguments = {**PSF, "white_value": 4000.0}
    cpu = correct(head.pet, Regions.from_masks(masks), name, **arguments)
    gpu = correct(as_tensor(head.pet).cuda(), Regions.from_masks(as_tensor(masks).cuda()), name, **arguments)
    if cpu.image is not None:
        np.testing.assert_allclose(gpu.image.cpu().numpy(), cpu.image, rtol=1e-3, atol=0.5)
    if cpu.means is not None:
        np.testing.assert_allclose(gpu.means, cpu.means, rtol=1e-4, atol=0.5)


def test_a_mask_that_all_but_vanishes_makes_no_value_explode(head, soft):
    """PETPVC's MTC overflows to 1e31 where a blurred mask is near zero."""
    faint = soft.copy()
    faint[3] *= 1e-12
    faint[0] += soft[3] * (1 - 1e-12)
    corrected = mtc(head.pet, Regions.from_masks(faint), **PSF, means=TRUE_MEANS)
    assert np.isfinite(corrected).all()
    assert np.abs(corrected).max() < 100 * head.pet.max()


def test_regions_whose_mean_is_not_positive_are_left_empty_and_finite(head):
    means = TRUE_MEANS * [-1.0, 1.0, 1.0, 1.0]
    corrected = rbv(head.pet, head.regions, **PSF, means=means)
    assert np.isfinite(corrected).all()
    assert not corrected[head.labels == 0].any()


@pytest.mark.parametrize("name", ["STC", "IY", "MTC", "RBV"])
def test_nan_is_refused_by_number(name, head):
    bad = head.pet.copy()
    bad[0, 0, 0] = np.inf
    with pytest.raises(ValueError, match="1 of .* are NaN or infinite"):
        correct(bad, head.regions, name, **PSF)


def test_an_unknown_method_is_answered_with_all_there_are(head):
    with pytest.raises(ValueError, match="no method 'PVC'. There are: GTM, LABBE, .*MELTZER.*RL, VC"):
        correct(head.pet, head.regions, "PVC", **PSF)


def test_a_method_that_needs_regions_says_so(head):
    with pytest.raises(ValueError, match="method RBV needs regions.*Without: RL, VC"):
        correct(head.pet, None, "RBV", **PSF)


def test_the_residual_of_the_truth_is_nothing_and_that_of_an_empty_image_is_one(head):
    assert residual(head.pet, head.truth, **PSF) < 1e-6
    assert residual(head.pet, np.zeros_like(head.pet), **PSF) == pytest.approx(1.0)
