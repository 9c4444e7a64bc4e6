"""Embedded data: chest and abdominal CT phantoms in HU, with labels."""

from ctrestore.phantoms.ct.lung_classes import LungPhantom, lung_slice
from ctrestore.phantoms.ct.lung_writing import LUNG_COHORT, write_lung_cohort
from ctrestore.phantoms.ct.phantom import KINDS, CTPhantom, Finding, Kind, abdomen, chest
from ctrestore.phantoms.ct.torso import Tissue
from ctrestore.phantoms.ct.tumours import LUNG_CLASSES, LungClass
from ctrestore.phantoms.ct.volumes import CLASSES, FORMATS, write_ct_cohort, write_dicom, write_hu, write_labels

__all__ = [
    "CLASSES",
    "FORMATS",
    "KINDS",
    "LUNG_CLASSES",
    "LUNG_COHORT",
    "CTPhantom",
    "Finding",
    "Kind",
    "LungClass",
    "LungPhantom",
    "Tissue",
    "abdomen",
    "chest",
    "lung_slice",
    "write_ct_cohort",
    "write_dicom",
    "write_hu",
    "write_labels",
    "write_lung_cohort",
]
