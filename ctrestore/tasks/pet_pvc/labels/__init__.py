"""Training labels by classical partial volume correction of scans that have an MRI."""

from ctrestore.tasks.pet_pvc.labels.dataset import make_labels, read_fwhm_table
from ctrestore.tasks.pet_pvc.labels.making import make_label
from ctrestore.tasks.pet_pvc.labels.subjects import Sources, find_sources

__all__ = ["Sources", "find_sources", "make_label", "make_labels", "read_fwhm_table"]
