from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from ctrestore.transforms.resolution import AtNoised, LowResolutiond, RandImageNoised


def fine(*shape: int) -> MetaTensor:
    affine = torch.diag(torch.tensor([0.5, 0.5, 2.0, 1.0], dtype=torch.float64))
    return MetaTensor(torch.arange(float(np.prod(shape))).reshape(1, *shape), affine=affine)


def test_the_coarse_image_covers_what_the_label_keeps():
    made = LowResolutiond(keys="image", scale=2)({"label": fine(7, 6)})
    assert made["image"].shape == (1, 3, 3)
    assert made["label"].shape == (1, 6, 6)
    torch.testing.assert_close(made["image"].as_tensor()[0, 0, 0], made["label"].as_tensor()[0, :2, :2].mean())
    np.testing.assert_allclose(np.asarray(made["image"].affine)[:3, 3], [0.25, 0.25, 0])
    np.testing.assert_allclose(np.diag(made["image"].affine), [1, 1, 2, 1])


def test_slices_become_thicker_by_the_mean_along_z():
    made = LowResolutiond(keys="image", scale=1, through_plane=3)({"label": fine(4, 4, 6)})
    torch.testing.assert_close(made["image"].as_tensor(), made["label"].as_tensor().reshape(1, 4, 4, 2, 3).mean(dim=-1))
    np.testing.assert_allclose(np.asarray(made["image"].affine)[:3, 3], [0, 0, 2])  # the middle of three slices


def test_noise_is_drawn_from_its_kinds_and_strengths_and_a_seed_repeats_it():
    add = RandImageNoised(keys="image", noises=["clean", "gaussian"], strength=(0.5, 1.0))
    water = torch.zeros(1, 60, 60)
    add.set_random_state(0)
    spreads = [float(add({"image": water})["image"].std()) for _ in range(60)]
    noisy = [s for s in spreads if s > 0]
    assert 15 <= len(noisy) <= 45
    assert 13.0 < min(noisy) < max(noisy) < 29.5
    add.set_random_state(0)
    assert [float(add({"image": water})["image"].std()) for _ in range(60)] == spreads


def test_an_entry_names_its_noise_and_every_image_gets_its_own():
    add = AtNoised(keys="image")
    water = torch.zeros(1, 60, 60)
    first, other = (add({"image": water + hu, "noise": "gaussian"})["image"] - hu for hu in (0.0, 1.0))
    assert float(first.std()) == pytest.approx(28.0, rel=0.05)
    assert abs(np.corrcoef(first.ravel(), other.ravel())[0, 1]) < 0.1
    assert torch.equal(first, add({"image": water, "noise": "gaussian"})["image"])
    assert torch.equal(add({"image": water})["image"], water)


def test_a_noise_that_is_none_is_refused_when_the_transform_is_made():
    with pytest.raises(ValueError, match="noise is one of clean"):
        RandImageNoised(keys="image", noises=["snow"])
    with pytest.raises(ValueError, match="list of names"):
        RandImageNoised(keys="image", noises="gaussian")
    with pytest.raises(ValueError, match=r"strength is \(lowest, highest\)"):
        RandImageNoised(keys="image", strength=(1.0, 0.0))
