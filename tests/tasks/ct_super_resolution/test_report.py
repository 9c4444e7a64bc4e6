"""The super-resolution report: coarse slices as blocks on the fine grid, and whether resolution is gained."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from scipy import ndimage

from ctrestore.ct import coarser_affine, lower_resolution
from ctrestore.tasks.ct_report.discs import Task, evaluate_discs
from ctrestore.tasks.ct_report.scores import SlicePair, evaluate_slices
from ctrestore.tasks.ct_super_resolution.report import LANCZOS, interpolations, made_coarse, of_blocks, pair_of

SPACING_MM = 0.7
SOFT = Task("soft tissue", 300.0)


def body(side: int = 192) -> np.ndarray:
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    return np.where(np.hypot(y / 0.9, x) < 0.48 * side, 40.0, -1000.0) + np.random.default_rng(0).normal(0, 3, x.shape)


def pair(scale: int = 2) -> SlicePair:
    fine = body()
    coarse = made_coarse(fine, None, "clean", 0, scale=scale)  # type: ignore[arg-type]
    return SlicePair(coarse, fine, (SPACING_MM, SPACING_MM), "anna", "slice", noise="clean")


@pytest.mark.parametrize("directions", [(1, 1), (-1, 1), (1, -1), (-1, -1)])
def test_blocks_lie_over_the_pixels_they_are_the_means_of(directions):
    fine = torch.from_numpy(body(48)[:, :40].astype(np.float32))[None]
    affine = np.diag([directions[0] * 0.7, directions[1] * 0.7, 3.0, 1.0])
    sample = {
        "label": MetaTensor(fine, affine=affine),
        "image": MetaTensor(lower_resolution(fine, factors=(2, 2)), affine=coarser_affine(affine, factors=(2, 2))),
        "noise": "gaussian",
        "subject": "anna",
    }
    found = pair_of(sample, 2)
    assert found.low.shape == found.full.shape == (40, 48)
    np.testing.assert_allclose(lower_resolution(found.full, factors=(2, 2)), found.low[::2, ::2], atol=1e-3)
    assert (found.noise, found.patient, found.spacing_mm) == ("gaussian", "anna", pytest.approx((0.7, 0.7)))


def test_a_method_sees_the_coarse_slice_and_gives_the_fine_one():
    seen = []

    def restore(coarse: np.ndarray) -> np.ndarray:
        seen.append(coarse.shape)
        return np.kron(coarse, np.ones((3, 3)))

    pair = np.kron(np.arange(20.0).reshape(4, 5), np.ones((3, 3)))
    np.testing.assert_array_equal(of_blocks(pair, restore=restore, scale=3), pair)
    assert seen == [(4, 5)]


def test_the_discs_tell_resolution_from_smoothness():
    lanczos = partial(of_blocks, restore=interpolations(2)[LANCZOS], scale=2)
    methods = {
        LANCZOS: lanczos,
        "smoothed": lambda hu: ndimage.gaussian_filter(lanczos(hu), 1.5),
        "perfect": lambda hu: hu,
    }

    def worsen(image, pair, noise, seed):  # the last method is given the fine image itself
        return made_coarse(image, pair, noise, seed, scale=2)

    discs = evaluate_discs([pair()], methods, doses=["clean"], worsen=worsen, by="noise", tasks=[SOFT])
    assert list(discs["noise"].unique()) == ["clean"]
    f50 = discs.set_index("row")["f50_per_mm"]
    assert f50["smoothed"] < 0.6 * f50[LANCZOS]
    # half of the fine pixels' Nyquist frequency is all that means of 2 x 2 pixels can hold
    assert f50[LANCZOS] < 1 / (4 * SPACING_MM) + 0.1


def test_rows_carry_the_noise_and_lanczos_is_closer_than_blocks():
    methods = {LANCZOS: partial(of_blocks, restore=interpolations(2)[LANCZOS], scale=2)}
    rows = evaluate_slices([pair()], methods).set_index("row")
    assert set(rows["noise"]) == {"clean"}
    assert rows.loc[LANCZOS, "psnr_db[full4096]"] > rows.loc["input", "psnr_db[full4096]"] + 1
