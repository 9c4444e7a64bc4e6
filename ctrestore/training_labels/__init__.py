"""Training labels by classical partial volume correction of scans that have an MRI."""

from ctrestore.training_labels.dataset import make_labels, read_fwhm_table
from ctrestore.training_labels.finding import Sources, find_sources
from ctrestore.training_labels.making import make_label

__all__ = ["Sources", "find_sources", "make_label", "make_labels", "read_fwhm_table"]
