"""Activity in Bq/ml slice by slice, and SUV by body weight against the definition."""

from __future__ import annotations

import numpy as np
import pydicom
import pytest

from ctrestore.io.dicom import load_series, suv_factor

HALF_LIFE_S = 6586.2  # of F-18, as scanners write it
DOSE_BQ, WEIGHT_G = 370e6, 70e3


def drug_of(image):
    return image.RadiopharmaceuticalInformationSequence[0]


def test_every_slice_of_a_pet_has_its_own_slope(write_pet):
    series = load_series(write_pet())
    assert (series.modality, series.unit) == ("PT", "Bq/ml")
    for k, dataset in enumerate(series.datasets):
        stored = pydicom.dcmread(dataset.filename).pixel_array
        np.testing.assert_allclose(series.volume[..., k].T, stored * (0.5 + 0.25 * k))


def test_a_dose_spread_evenly_over_the_body_has_an_suv_of_one(write_pet):
    """One hour after injection the activity of every gram is the decayed dose over the weight."""
    series = load_series(write_pet())
    bq_per_ml = DOSE_BQ * 2 ** (-3600 / HALF_LIFE_S) / WEIGHT_G
    assert suv_factor(series) * bq_per_ml == pytest.approx(1.0, rel=1e-9)


def test_corrected_to_injection_the_whole_dose_counts(write_pet):
    def to_injection(k, image):
        image.DecayCorrection = "ADMIN"

    assert suv_factor(load_series(write_pet(edit=to_injection))) == pytest.approx(WEIGHT_G / DOSE_BQ)


def test_a_later_reconstruction_does_not_move_the_start_of_the_scan(write_pet):
    def reconstructed_at_night(k, image):
        image.SeriesTime = "230000"

    assert suv_factor(load_series(write_pet())) == suv_factor(load_series(write_pet("b", edit=reconstructed_at_night)))


def test_an_injection_before_midnight_was_on_the_day_before(write_pet):
    def midnight(k, image):
        for what in ("Series", "Acquisition"):
            setattr(image, f"{what}Time", "003000")
        del drug_of(image).RadiopharmaceuticalStartDateTime
        drug_of(image).RadiopharmaceuticalStartTime = "233000"

    assert suv_factor(load_series(write_pet(edit=midnight))) == pytest.approx(suv_factor(load_series(write_pet("b"))))


def test_a_series_in_suv_stays_as_it_is(write_pet):
    def in_suv(k, image):
        image.Units = "GML"

    series = load_series(write_pet(edit=in_suv))
    assert (series.unit, suv_factor(series)) == ("g/ml", 1.0)


def test_counts_are_refused_as_activity(write_pet):
    def counts(k, image):
        image.Units = "CNTS"

    with pytest.raises(ValueError, match=r"Units CNTS, expected BQML"):
        load_series(write_pet(edit=counts))


def test_missing_slices_at_the_end_are_detected_by_the_headers_count(write_pet):
    def promise(k, image):
        image.NumberOfSlices = 6

    with pytest.raises(ValueError, match=r"2 of 6 slices are missing \(NumberOfSlices\)"):
        load_series(write_pet(edit=promise))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda image: image.pop("PatientWeight"), "no PatientWeight, so there is no SUV.*anonymiser"),
        (lambda image: image.pop("RadiopharmaceuticalInformationSequence"), "no RadionuclideTotalDose and no Radio"),
        (lambda image: setattr(drug_of(image), "RadionuclideTotalDose", 370), "370 Bq.*a value in MBq"),
        (lambda image: setattr(image, "DecayCorrection", "NONE"), "DecayCorrection NONE, expected START or ADMIN"),
        (
            lambda image: setattr(drug_of(image), "RadiopharmaceuticalStartDateTime", "20230101"),
            "from injection to scan",
        ),
        (lambda image: drug_of(image).pop("RadiopharmaceuticalStartDateTime"), "no RadiopharmaceuticalStartDateTime"),
        (lambda image: image.pop("AcquisitionTime"), "no AcquisitionTime"),
    ],
    ids=["weight", "drug", "MBq", "decay", "date", "start", "acquisition"],
)
def test_without_weight_dose_or_times_there_is_no_suv(write_pet, spoil, message):
    series = load_series(write_pet(edit=lambda k, image: spoil(image) and None))
    with pytest.raises(ValueError, match=message):
        suv_factor(series)


def test_ct_has_no_suv(write_ct):
    with pytest.raises(ValueError, match="SUVs need a PET series; this series is CT"):
        suv_factor(load_series(write_ct()))
