"""Evaluation of corrected and restored scans: tables and figures."""

from ctrestore.nifti import fwhm_from_sidecar, fwhm_of_array_axes
from ctrestore.report.ct_super_resolution import evaluate_ct_super_resolution
from ctrestore.report.figure import figure_pet_pvc
from ctrestore.report.ldct_denoising import evaluate_ldct_denoising
from ctrestore.report.lung_classification import evaluate_lung_classification
from ctrestore.report.pet_pvc import METRICS, evaluate_pet_pvc

__all__ = [
    "METRICS",
    "evaluate_ct_super_resolution",
    "evaluate_ldct_denoising",
    "evaluate_lung_classification",
    "evaluate_pet_pvc",
    "figure_pet_pvc",
    "fwhm_from_sidecar",
    "fwhm_of_array_axes",
]
