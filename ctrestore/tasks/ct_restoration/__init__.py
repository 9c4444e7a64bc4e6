"""CT scans of any kind restored slice by slice by a bundle's evaluator: DICOM series, NIfTI files, pictures."""

from ctrestore.tasks.ct_restoration.finding import Scans, find_scans
from ctrestore.tasks.ct_restoration.restoring import WriteScans, restore_each

__all__ = ["Scans", "WriteScans", "find_scans", "restore_each"]
