"""Standardised uptake value by body weight."""

from __future__ import annotations

from datetime import datetime, timedelta

from pydicom.dataset import Dataset
from pydicom.valuerep import DT

from ctrestore.errors import InputError
from ctrestore.io.dicom.loading import SeriesOnDisk

SMALLEST_DOSE_BQ = 1e5  # 0.1 MBq: less is a dose in MBq or mCi


def suv_factor(series: SeriesOnDisk) -> float:
    """Grams per Bq: SUV by body weight = factor x (Bq/ml); 1 if the series already holds SUVs.

    The dose is decayed from injection to the time to which the image is corrected.

    Raises:
        InputError: the header lacks weight, dose, half-life or times; the message names what is missing.

    Reference:
        QIBA FDG-PET Profile, "SUV vendor-neutral pseudo-code" (body weight).
    """
    if series.modality != "PT":
        raise InputError(f"SUVs need a PET series; this series is {series.modality}.")
    if series.unit == "g/ml":
        return 1.0
    header = series.datasets[0]
    path = series.slices[0].path
    infusions = header.get("RadiopharmaceuticalInformationSequence") or [Dataset()]
    drug = infusions[0]
    needed = {
        "PatientWeight": float(header.get("PatientWeight") or 0),  # kg
        "RadionuclideTotalDose": float(drug.get("RadionuclideTotalDose") or 0),  # Bq
        "RadionuclideHalfLife": float(drug.get("RadionuclideHalfLife") or 0),  # s
    }
    missing = [name for name, value in needed.items() if value <= 0]
    if missing:
        raise InputError(
            f"{path}: no {' and no '.join(missing)}, so there is no SUV. Usual cause: an anonymiser, or a field left "
            "empty at the scanner. Remedy: use the volume in Bq/ml with weight (kg) and dose (Bq) from the protocol."
        )
    weight, dose, half_life = needed.values()
    correction = header.get("DecayCorrection")
    if dose < SMALLEST_DOSE_BQ:
        raise InputError(
            f"{path}: RadionuclideTotalDose {dose:g} Bq. Usual cause: a value in MBq. Remedy: correct the header."
        )
    if correction == "ADMIN":
        return 1000.0 * weight / dose
    if correction != "START":
        raise InputError(
            f"{path}: DecayCorrection {correction or 'missing'}, expected START or ADMIN. Without it each slice has "
            "another time. Remedy: export the decay-corrected series."
        )
    elapsed_s = (_scan_start(series, header) - _injection(header, drug)).total_seconds()
    if not 0 <= elapsed_s < 12 * half_life:
        raise InputError(
            f"{path}: {elapsed_s:g} s from injection to scan. Usual cause: dates changed by an anonymiser, or clocks "
            "that differ. Remedy: correct RadiopharmaceuticalStartDateTime."
        )
    return 1000.0 * weight / (dose * 2.0 ** (-elapsed_s / half_life))


def _scan_start(series: SeriesOnDisk, header: Dataset) -> datetime:
    """The time to which decay is corrected: the series', unless a later reconstruction wrote its own there."""
    acquired = min(_moment(h, "AcquisitionDate", "AcquisitionTime") for h in series.datasets)
    started = _moment(header, "SeriesDate", "SeriesTime")
    return min(started, acquired)


def _injection(header: Dataset, drug: Dataset) -> datetime:
    stamp = drug.get("RadiopharmaceuticalStartDateTime")
    if stamp:
        return DT(str(stamp)).replace(tzinfo=None)
    at = str(drug.get("RadiopharmaceuticalStartTime") or "")
    if not at:
        raise InputError(
            f"{header.filename}: no RadiopharmaceuticalStartDateTime nor ...StartTime, so there is no SUV."
        )
    scan = _moment(header, "SeriesDate", "SeriesTime")
    injected = DT(f"{scan:%Y%m%d}{at}").replace(tzinfo=None)
    return injected - timedelta(days=1) if injected > scan else injected  # only a time of day: it was before midnight


def _moment(header: Dataset, date: str, time: str) -> datetime:
    day = header.get(date) or header.get("SeriesDate") or header.get("StudyDate")
    clock = header.get(time)
    if not day or not clock:
        raise InputError(f"{header.filename}: no {time}, so there is no SUV. Usual cause: an anonymiser.")
    return DT(f"{day}{clock}").replace(tzinfo=None)
