from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from monai.data import CacheDataset, MetaTensor
from monai.transforms import Compose, CopyItemsd, RandSpatialCropd

from ctrestore.ct import FLASH, simulate_low_dose
from ctrestore.transforms.low_dose import (
    AppendDosed,
    AtDosed,
    ForgetUnknownd,
    LowDose,
    LowDosed,
    NoiseRealisations,
    NoiseRealisationsd,
    RandForgetDosed,
    RandLowDose,
    RandLowDosed,
    TakeOverd,
)

SCANNER = replace(FLASH, n_views=144, n_detectors=123, detector_pitch_mm=6 * FLASH.detector_pitch_mm)
SPACING_MM = 5.0


def water(side: int = 64) -> MetaTensor:
    """A disc of water of 200 mm in air: ``(1, x, y)``."""
    along = (torch.arange(side) - (side - 1) / 2) * SPACING_MM
    inside = torch.hypot(along[:, None], along) < 100
    return MetaTensor(
        torch.where(inside, 0.0, -1000.0)[None], affine=torch.diag(torch.tensor([SPACING_MM] * 2 + [1.0]))
    )


def volume(n_z: int) -> MetaTensor:
    affine = torch.diag(torch.tensor([SPACING_MM, SPACING_MM, 1.0, 1.0]))
    return MetaTensor(water()[..., None].repeat(1, 1, 1, n_z), affine=affine)


def inside(img: torch.Tensor) -> np.ndarray:
    """The values in the central 120 mm, axes x and y first."""
    return np.asarray(img)[..., 20:44, 20:44]


def test_low_dose_takes_the_spacing_of_the_image():
    image = water()
    noisy = LowDose(0.25, geometry=SCANNER)(image)
    assert isinstance(noisy, MetaTensor)
    assert torch.equal(noisy.affine, image.affine)
    assert noisy.dtype == torch.float32
    given = LowDose(0.25, geometry=SCANNER, spacing_mm=SPACING_MM)(image.as_tensor())
    assert torch.equal(noisy.as_tensor(), given)


def test_low_dose_has_the_noise_of_the_pure_function():
    pure = simulate_low_dose(water().numpy(), dose_fraction=0.25, spacing_mm=SPACING_MM, seed=0, geometry=SCANNER)
    noisy = LowDose(0.25, geometry=SCANNER)(water())
    assert inside(noisy).std() == pytest.approx(inside(pure).std(), rel=0.2)  # 576 pixels of other noise


def test_every_image_has_noise_of_its_own_and_the_same_in_every_run():
    transform = LowDose(0.25, geometry=SCANNER)
    first, again = transform(water()), LowDose(0.25, geometry=SCANNER)(water())
    other = transform(water() + 1.0) - 1.0
    assert torch.equal(first, again)
    assert abs(np.corrcoef(inside(first).ravel(), inside(other).ravel())[0, 1]) < 0.3


def test_a_volume_is_projected_slice_by_slice_across_the_patient():
    noisy = LowDose(0.25, geometry=SCANNER)(volume(3))
    assert noisy.shape == (1, 64, 64, 3)
    slices = [inside(noisy[..., z]).ravel() for z in range(3)]
    expected = inside(LowDose(0.25, geometry=SCANNER)(water())).std()
    for noise in slices:
        assert noise.std() == pytest.approx(expected, rel=0.2)
    assert np.abs(np.corrcoef(slices) - np.eye(3)).max() < 0.3


@pytest.fixture(scope="module")
def noise() -> torch.Tensor:
    return NoiseRealisations(n=4, geometry=SCANNER)(water())


def test_realisations_hold_quantum_and_electronic_noise_in_half_precision(noise):
    assert noise.shape == (8, 64, 64)
    assert noise.dtype == torch.float16
    assert inside(noise[:4].float()).std() > 5 * inside(noise[4:].float()).std()  # many photons in 200 mm of water
    assert NoiseRealisations(n=2, geometry=SCANNER)(volume(3)).shape == (4, 64, 64, 3)


@pytest.mark.parametrize("dose", [0.1, 0.5])
def test_mixed_noise_spreads_like_simulated_noise(noise, dose):
    mixed, simulated = RandLowDose((dose, dose)), RandLowDose((dose, dose), geometry=SCANNER)
    for transform in (mixed, simulated):
        transform.set_random_state(0)
    first = np.stack([inside(mixed(water(), noise)) for _ in range(16)])
    second = np.stack([inside(simulated(water())) for _ in range(16)])
    # Mixtures of four realisations know the spread no better than these: 4 x 576 pixels.
    assert first.std() == pytest.approx(second.std(), rel=0.08)


def test_a_mixture_is_never_the_same_twice(noise):
    transform = RandLowDose((0.25, 0.25)).set_random_state(0)
    first, second = (inside(transform(water(), noise)).ravel() for _ in range(2))
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.99


def test_the_dose_is_drawn_from_its_range(noise):
    transform = RandLowDose((0.1, 0.5)).set_random_state(0)
    drawn = []
    for _ in range(200):
        transform.randomize()
        drawn.append(transform.dose_fraction)
    assert 0.1 <= min(drawn) < 0.12
    assert 0.48 < max(drawn) <= 0.5


def test_sometimes_nothing_happens(noise):
    image = water()
    assert RandLowDose(prob=0.0)(image, noise) is image


def test_a_cached_data_set_pays_for_the_simulation_once(monkeypatch):
    calls = []
    original = NoiseRealisations.__call__

    def counted(self, *given):
        calls.append(1)
        return original(self, *given)

    monkeypatch.setattr(NoiseRealisations, "__call__", counted)
    transforms = Compose(
        [
            CopyItemsd(keys="label", names="image"),
            NoiseRealisationsd(keys="label", n=2, geometry=SCANNER),
            RandSpatialCropd(keys=["image", "label", "noise"], roi_size=(32, 32), random_size=False),
            RandLowDosed(keys="image", noise_key="noise"),
        ]
    ).set_random_state(0)
    data = CacheDataset([{"label": water()}], transforms, progress=False)
    first, second = data[0], data[0]
    assert len(calls) == 1
    assert set(first) == {"image", "label", "dose_fraction"}
    assert first["image"].shape == (1, 32, 32)
    assert not torch.equal(first["image"] - first["label"], second["image"] - second["label"])
    assert not (first["image"] == first["label"]).any()


def test_the_dictionary_forms_do_what_the_array_forms_do(noise):
    image = water()
    assert torch.equal(
        LowDosed("image", dose_fraction=0.25, geometry=SCANNER)({"image": image})["image"],
        LowDose(0.25, geometry=SCANNER)(image),
    )
    array = RandLowDose((0.1, 0.5)).set_random_state(5)
    both = RandLowDosed(["a", "b"], noise_key="noise").set_random_state(5)({"a": image, "b": image, "noise": noise})
    assert torch.equal(both["a"], both["b"])
    assert torch.equal(both["a"], array(image, noise))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: LowDose(0.0), "above 0 and at most 1"),
        (lambda: RandLowDose((0.5, 0.1)), "lowest, highest"),
        (lambda: RandLowDose((0.1, 50)), "percentage"),
        (lambda: NoiseRealisations(n=0), "1 or more"),
        (lambda: NoiseRealisationsd(["image", "label"]), "one key"),
        (lambda: LowDose(0.25)(torch.zeros(1, 8, 8)), "a PNG"),
        (lambda: LowDose(0.25, spacing_mm=1)(torch.zeros(8, 8)), "channel, x, y"),
        (lambda: RandLowDose()(torch.zeros(1, 8, 8), torch.zeros(8, 16, 16)), "not cropped"),
        (lambda: RandLowDose()(torch.zeros(1, 8, 8), torch.zeros(3, 8, 8)), "channels"),
    ],
)
def test_a_mistake_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_misspelt_argument_fails():
    with pytest.raises(TypeError, match="photon_per_ray"):
        LowDose(0.25, spacing_mm=5.0, photon_per_ray=1e5)(water())


def test_one_of_several_kernels_is_drawn_for_every_image():
    options = {"n": 1, "geometry": SCANNER}
    smooth, sharp = (NoiseRealisations(filter=name, **options)(water()) for name in ("hann", "ramp"))
    assert inside(sharp[0]).std() > 1.3 * inside(smooth[0]).std()
    spreads = [
        inside(NoiseRealisations(filter=["hann", "ramp"], seed=seed, **options)(water())[0]).std() for seed in range(8)
    ]
    middle = (inside(sharp[0]).std() + inside(smooth[0]).std()) / 2
    assert 0 < sum(spread > middle for spread in spreads) < 8
    with pytest.raises(ValueError, match="'ram-lak'"):
        NoiseRealisations(filter=["hann", "ram-lak"])


def test_more_photons_are_less_noise_with_and_without_realisations():
    noise = NoiseRealisations(n=2, geometry=SCANNER)(water())
    for options, given in (({}, noise), ({"geometry": SCANNER}, None)):
        spread = [
            inside(
                RandLowDose((0.25, 0.25), photons_factor=(k, k), **options).set_random_state(0)(water(), given)
            ).std()
            for k in (1.0, 4.0)
        ]
        assert spread[0] / spread[1] == pytest.approx(2, rel=0.03)  # quantum noise alone would make it 2
    with pytest.raises(ValueError, match="photons_factor"):
        RandLowDose(photons_factor=(2.0, 1.0))


def test_saturated_pixels_are_forgotten_and_others_kept():
    data = {"label": torch.tensor([[-1000.0, 394.0, 400.0]]), "known_hu": [-1000, 395]}
    assert ForgetUnknownd(keys="label")(data)["label"].isnan().tolist() == [[False, False, True]]
    del data["known_hu"]
    assert not ForgetUnknownd(keys="label")(data)["label"].isnan().any()


def test_a_map_tells_the_dose_or_that_it_is_not_known():
    data = {"image": torch.zeros(1, 3, 4), "dose_fraction": 0.1}
    assert AppendDosed(keys="image")(data)["image"].tolist() == [[[0.0] * 4] * 3, [[-1.0] * 4] * 3]
    assert AppendDosed(keys="image", dose_fraction=1.0)(data)["image"][1].unique().tolist() == [0.0]
    forgotten = RandForgetDosed(prob=1.0)(data)
    assert "dose_fraction" in data and "dose_fraction" not in forgotten
    assert AppendDosed(keys="image")(forgotten)["image"][1].unique().tolist() == [0.5]
    assert "dose_fraction" in RandForgetDosed(prob=0.0)(data)
    with pytest.raises(ValueError, match="dose"):
        AppendDosed(keys="image", dose_fraction=0.0)


def test_an_entry_names_its_dose():
    data = {"image": water(), "dose_fraction": 0.25}
    lowered = AtDosed(keys="image", geometry=SCANNER)(data)["image"]
    assert torch.equal(lowered, LowDose(0.25, geometry=SCANNER)(water()))
    assert torch.equal(AtDosed(keys="image", geometry=SCANNER)({"image": water()})["image"], water())


def test_what_a_network_could_not_see_is_taken_from_the_scan():
    scan = torch.tensor([[[-3024.0, -1024.0, 40.0, 2000.0, 2000.5, 3071.0]]])
    restored = torch.full_like(scan, 7.0)
    taken = TakeOverd(keys="pred", scan_key="scan")({"pred": restored, "scan": scan})["pred"]
    assert taken.tolist() == [[[-3024.0, 7.0, 7.0, 7.0, 2000.5, 3071.0]]]
    half = TakeOverd(keys="pred", scan_key="scan", strength=0.5)({"pred": restored, "scan": scan})["pred"]
    assert half[0, 0, 2] == 23.5
    with pytest.raises(ValueError, match="strength is 0"):
        TakeOverd(keys="pred", strength=1.5)
