"""Embedded data: chest and abdominal CT phantoms in HU, with labels."""

from ctrestore.phantoms.ct.phantom import KINDS, CTPhantom, Finding, Kind, abdomen, chest
from ctrestore.phantoms.ct.torso import Tissue
from ctrestore.phantoms.ct.writing import CLASSES, FORMATS, write_ct_cohort, write_dicom, write_hu, write_labels

__all__ = [
    "CLASSES",
    "FORMATS",
    "KINDS",
    "CTPhantom",
    "Finding",
    "Kind",
    "Tissue",
    "abdomen",
    "chest",
    "write_ct_cohort",
    "write_dicom",
    "write_hu",
    "write_labels",
]
