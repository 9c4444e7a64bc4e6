"""CT and PET series as volumes in HU and Bq/ml, and derived CT series back, exact to the stored value."""

from ctrestore.dicom.as_nifti import pet_as_nifti
from ctrestore.dicom.finding import find_series
from ctrestore.dicom.loading import Series, SeriesOnDisk, load_series, open_series, series_of
from ctrestore.dicom.phantom import write_phantom_series
from ctrestore.dicom.suv import suv_factor
from ctrestore.dicom.writing import DerivedSeries, Written, write_derived_series

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
