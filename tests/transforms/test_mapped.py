"""Laws of the dictionary transforms: they do to each key what their array form does, with one draw for all."""

from __future__ import annotations

import importlib
import pkgutil
from dataclasses import dataclass, field, replace
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.data import CacheDataset, MetaTensor
from monai.transforms import Compose, RandomizableTransform

from ctrestore import transforms
from ctrestore.ct import FLASH
from ctrestore.transforms import low_dose, pet, resolution, slices
from ctrestore.transforms.mapped import Mapped, RandMapped

SCANNER = replace(FLASH, n_views=36, n_detectors=123, detector_pitch_mm=6 * FLASH.detector_pitch_mm)


def random(*shape: int, seed: int = 0) -> MetaTensor:
    values = torch.rand(shape, generator=torch.Generator().manual_seed(seed)) + 0.1
    return MetaTensor(values, affine=torch.diag(torch.tensor([2.0] * (len(shape) - 1) + [1.0])))


@dataclass
class Case:
    """A dictionary transform: the options of its array form, an image, and what else the call gets of the sample."""

    form: type[Mapped]
    options: dict[str, Any] = field(default_factory=dict)
    image: Any = field(default_factory=lambda: random(1, 16, 16, 16))
    extras: dict[str, tuple[str, Any]] = field(default_factory=dict)  # argument: (default key, value)

    def sample(self, **keys: Any) -> dict[str, Any]:
        return keys | dict(self.extras.values())

    def array_result(self, image: Any) -> Any:
        array = self.form.array_transform(**self.options)
        if issubclass(self.form, RandMapped):
            array.set_random_state(5)
        return array(image, **{argument: value for argument, (_, value) in self.extras.items()})

    def transform(self, keys: Any, **more: Any) -> Mapped:
        transform = self.form(keys, **self.options, **more)
        return transform.set_random_state(5) if isinstance(transform, RandMapped) else transform


FWHM = {"fwhm_mm": ("fwhm_mm", [5.0, 6.0, 7.0])}
INPUT = {"image": ("image", random(2, 16, 16, 16, seed=1))}
DOSE = {"dose_fraction": ("dose_fraction", 0.2)}
PHOTONS = {"photons_per_ray": ("photons_per_ray", 5e4)}
SLICE = 100 * random(1, 32, 32) - 60  # HU
CT = {"geometry": SCANNER}
CASES = [
    Case(pet.CheckVolumed),
    Case(pet.SplitAtClipd, image=2 * random(1, 4, 4, 4)),
    Case(pet.AppendVanCittertd, {"default_fwhm_mm": 5.0}, random(2, 16, 16, 16)),
    Case(pet.AppendVanCittertd, {}, random(2, 16, 16, 16), FWHM),
    Case(pet.YangStepsd, {"n_steps": 2}, extras=INPUT | FWHM),
    Case(pet.ChangeFromInputd, {"image_channels": 1}, extras=INPUT),
    Case(pet.AddToScand, extras={"scan": ("scan", random(1, 16, 16, 16, seed=1) - 0.5)}),
    Case(pet.RandOctantd),
    Case(low_dose.LowDosed, {"dose_fraction": 0.25} | CT, SLICE),
    Case(low_dose.RandLowDosed, {"prob": 0.9} | CT, SLICE, PHOTONS),
    Case(low_dose.TakeOverd, {"strength": 0.5}, SLICE, {"before": ("scan", 100 * random(1, 32, 32, seed=1))}),
    Case(low_dose.ForgetUnknownd, {}, SLICE, {"known_hu": ("known_hu", [-20.0, 30.0])}),
    Case(low_dose.AtDosed, CT, SLICE, DOSE | PHOTONS),
    Case(low_dose.AppendDosed, {}, SLICE, DOSE),
    Case(low_dose.AppendDosed, {"dose_fraction": 0.5}, SLICE, DOSE),
    Case(resolution.RandImageNoised, {"noises": ["gaussian"]}, SLICE),
    Case(resolution.AtNoised, {"seed": 1}, SLICE, {"noise": ("noise", "gaussian")}),
    Case(slices.LoadSliced, {}, "scan.nii", {"k": ("slice", 2)}),
]
every_form = pytest.mark.parametrize("case", CASES, ids=lambda case: case.form.__name__)


@pytest.fixture(autouse=True)
def scan_on_disk(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    nib.save(nib.Nifti1Image(np.arange(48, dtype=np.int16).reshape(4, 4, 3), np.eye(4)), "scan.nii")


def test_every_form_has_a_case():
    for module in pkgutil.iter_modules(transforms.__path__, "ctrestore.transforms."):
        importlib.import_module(module.name)
    forms = {*Mapped.__subclasses__(), *RandMapped.__subclasses__()} - {RandMapped}
    assert {form for form in forms if form.__module__.startswith("ctrestore.")} == {case.form for case in CASES}


@every_form
def test_the_dictionary_form_does_to_a_key_what_the_array_form_does_to_an_image(case):
    given = case.sample(pred=case.image)
    out = case.transform("pred")(given)["pred"]
    torch.testing.assert_close(out, case.array_result(case.image), rtol=0, atol=0, equal_nan=True)
    assert given["pred"] is case.image  # the sample that was given stays as it was


@every_form
def test_a_misspelt_argument_fails_at_construction(case):
    with pytest.raises(TypeError, match="'misspelt'|takes no arguments"):
        case.form("pred", **case.options, misspelt=1)


@every_form
def test_a_key_may_be_missing_only_if_that_is_allowed(case):
    with pytest.raises(KeyError, match="other"):
        case.transform(["pred", "other"])(case.sample(pred=case.image))
    out = case.transform(["pred", "other"], allow_missing_keys=True)(case.sample(pred=case.image))
    torch.testing.assert_close(out["pred"], case.array_result(case.image), rtol=0, atol=0, equal_nan=True)
    assert "other" not in out


@pytest.mark.parametrize("argument", ["image", "scan", "before", "k"])
def test_what_an_array_form_needs_is_missed_by_its_key(argument):
    case = next(case for case in CASES if argument in case.extras)
    sample = case.sample(pred=case.image)
    key = case.extras[argument][0]
    del sample[key]
    with pytest.raises(KeyError, match=key):
        case.transform("pred")(sample)


class RandAdd(RandomizableTransform):
    """Add a number that is drawn for all keys, and one of the sample."""

    def randomize(self, data: Any = None) -> None:
        super().randomize(data)
        self.drawn = self.R.uniform()

    def __call__(self, img: float, more: float | None = None, randomize: bool = True) -> float:
        if randomize:
            self.randomize()
        return img + self.drawn + (more or 0.0) if self._do_transform else img


class RandAddd(RandMapped):
    array_transform = RandAdd


def test_one_draw_holds_for_all_keys_of_a_sample_and_the_next_sample_has_another():
    transform = RandAddd(["a", "b"], prob=1.0).set_random_state(0)
    first, second = (transform({"a": 0.0, "b": 1.0}) for _ in range(2))
    assert first["b"] == first["a"] + 1.0
    assert first["a"] != second["a"]


def test_a_seed_repeats_the_draws_alone_and_in_a_chain():
    sample = {"a": 0.0}
    for chain in (RandAddd("a", prob=0.5), Compose([RandAddd("a", prob=0.5), RandAddd("a", prob=0.5)])):
        first, again, other = ([chain(sample)["a"] for _ in range(8)] for _ in map(chain.set_random_state, (1, 1, 2)))
        assert first == again != other


def test_the_draws_are_those_of_the_array_form_with_the_same_seed():
    form, array = RandAddd("a", prob=0.5).set_random_state(3), RandAdd(prob=0.5).set_random_state(3)
    assert [form({"a": 0.0})["a"] for _ in range(8)] == [array(0.0) for _ in range(8)]


def test_prob_is_that_of_the_array_form():
    transform = RandAddd("a", prob=0.25).set_random_state(0)
    n_changed = sum(transform({"a": 0.0})["a"] > 0 for _ in range(400))
    assert n_changed == pytest.approx(100, abs=4 * (400 * 0.25 * 0.75) ** 0.5)  # four standard deviations


def test_a_cache_does_not_keep_what_is_drawn():
    data = CacheDataset([{"a": 0.0}], Compose([RandAddd("a", prob=1.0)]).set_random_state(0), progress=False)
    assert data[0]["a"] != data[0]["a"]


def test_what_a_sample_may_lack_reaches_the_array_form_under_the_key_that_was_named():
    transform = RandAddd("a", prob=1.0, optional_extras={"more": "offset"}).set_random_state(0)
    with_offset, without = transform({"a": 0.0, "offset": 10.0})["a"], transform({"a": 0.0})["a"]
    assert 10 <= with_offset < 11 and 0 <= without < 1


def test_noise_is_the_same_for_all_keys_of_one_dose_but_not_that_of_a_detector():
    image = SLICE.clone()
    dose = low_dose.RandLowDosed(["a", "b"], **CT).set_random_state(0)({"a": image, "b": image})
    assert torch.equal(dose["a"], dose["b"])
    noise = resolution.RandImageNoised(["a", "b"], noises=["gaussian"], strength=(1.0, 1.0)).set_random_state(0)
    noisy = noise({"a": image, "b": image})
    assert abs(np.corrcoef((noisy["a"] - image).ravel(), (noisy["b"] - image).ravel())[0, 1]) < 0.15  # of 1024 pixels
    octant = pet.RandOctantd(["a", "b"]).set_random_state(0)({"a": random(1, 4, 4, 4), "b": random(1, 4, 4, 4)})
    assert torch.equal(octant["a"], octant["b"])


@pytest.mark.parametrize("disabled", [False, True])
def test_a_config_makes_a_form_and_disables_it(disabled):
    form = {"_target_": "ctrestore.transforms.low_dose.AppendDosed", "keys": "image", "dose_fraction": 0.1}
    chain = {"_target_": "Compose", "transforms": [form | {"_disabled_": disabled}]}
    made = ConfigParser({"chain": chain}).get_parsed_content("chain")
    assert made({"image": torch.zeros(1, 2, 2)})["image"].shape[0] == (1 if disabled else 2)
