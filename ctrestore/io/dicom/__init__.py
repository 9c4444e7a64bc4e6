"""CT and PET series as volumes in HU and Bq/ml, and derived CT series back, exact to the stored value."""

from ctrestore.io.dicom.as_nifti import pet_as_nifti
from ctrestore.io.dicom.derived import DerivedSeries, Written, write_derived_series
from ctrestore.io.dicom.loading import Series, SeriesOnDisk, load_series, open_series, series_of
from ctrestore.io.dicom.phantom_series import write_phantom_series
from ctrestore.io.dicom.series import find_series
from ctrestore.io.dicom.suv import suv_factor

__all__ = [
    "DerivedSeries",
    "Series",
    "SeriesOnDisk",
    "Written",
    "find_series",
    "load_series",
    "open_series",
    "series_of",
    "pet_as_nifti",
    "suv_factor",
    "write_derived_series",
    "write_phantom_series",
]
