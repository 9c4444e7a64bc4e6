"""How close a restored scan is to its reference, and errors that an average difference hides.

PET: :mod:`ctrestore.metrics.pet`. CT: scores under a named protocol, errors by tissue, noise power, task transfer,
contrast, observer. :mod:`ctrestore.metrics.protocol_metric` imports MONAI; bundle configs name it in full.
"""

from ctrestore.metrics.calibration import fit_temperature, probabilities_at
from ctrestore.metrics.classification import (
    CLASSIFICATION_MEASURES,
    McNemar,
    classification_scores,
    mcnemar,
    score_intervals,
)
from ctrestore.metrics.contrast import contrast_to_noise
from ctrestore.metrics.local_noise import local_noise_hu
from ctrestore.metrics.noise_power import NoisePower, noise_power_spectrum
from ctrestore.metrics.observer import (
    Detectability,
    channelized_hotelling,
    difference_of_gaussians_channels,
    laguerre_gauss_channels,
)
from ctrestore.metrics.pet import (
    SSIM_WINDOW_VOXELS,
    PublishedScores,
    RegionalBias,
    grey_white_contrast,
    hot_lesions,
    lesion_recovery,
    nrmse,
    published_protocol,
    regional_bias,
    regional_means,
    rmse,
    structural_similarity_in_mask,
    total_activity_ratio,
)
from ctrestore.metrics.protocols import PROTOCOLS, Protocol, Scores, SSIMWindow, find_protocol, scores
from ctrestore.metrics.statistics import (
    Interval,
    PairedComparison,
    bootstrap_by_patient,
    compare_by_patient,
    patient_means,
)
from ctrestore.metrics.task_transfer import Disc, TaskTransfer, disc_coverage, insert_disc, task_transfer
from ctrestore.metrics.tissue_bands import TISSUE_BANDS_HU, TISSUE_MEDIAN_PIXELS, BandError, tissue_band_errors
from ctrestore.metrics.uniform_regions import uniform_regions

__all__ = [
    "CLASSIFICATION_MEASURES",
    "McNemar",
    "classification_scores",
    "fit_temperature",
    "mcnemar",
    "probabilities_at",
    "score_intervals",
    "PROTOCOLS",
    "SSIM_WINDOW_VOXELS",
    "TISSUE_BANDS_HU",
    "TISSUE_MEDIAN_PIXELS",
    "BandError",
    "Detectability",
    "Disc",
    "Interval",
    "NoisePower",
    "PairedComparison",
    "Protocol",
    "RegionalBias",
    "SSIMWindow",
    "Scores",
    "PublishedScores",
    "TaskTransfer",
    "bootstrap_by_patient",
    "channelized_hotelling",
    "compare_by_patient",
    "contrast_to_noise",
    "difference_of_gaussians_channels",
    "disc_coverage",
    "find_protocol",
    "grey_white_contrast",
    "hot_lesions",
    "insert_disc",
    "laguerre_gauss_channels",
    "lesion_recovery",
    "local_noise_hu",
    "noise_power_spectrum",
    "nrmse",
    "patient_means",
    "regional_bias",
    "regional_means",
    "rmse",
    "scores",
    "published_protocol",
    "structural_similarity_in_mask",
    "task_transfer",
    "tissue_band_errors",
    "total_activity_ratio",
    "uniform_regions",
]
