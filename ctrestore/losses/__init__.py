"""Losses that MONAI and torch lack."""

from ctrestore.losses.one_logit import OneLogitLoss
from ctrestore.losses.restoration import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    BoundedBCELoss,
    FeatureLoss,
    KnownPixelsLoss,
    LogRMSELoss,
    UnexplainedVarianceLoss,
    as_imagenet,
    bounded_cross_entropy,
    feature_distance,
    log_rmse,
    unexplained_variance,
)
from ctrestore.losses.tissue_bias import TissueBiasLoss, bias_penalty, tissue_biases
from ctrestore.losses.unpaired import (
    CriticLoss,
    GeneratorLoss,
    GeneratorTerms,
    gradient_norms,
    gradient_penalty,
    image_distance,
    joint_sparsity,
    mean_drift,
    total_variation,
)

__all__ = [
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "BoundedBCELoss",
    "CriticLoss",
    "FeatureLoss",
    "GeneratorLoss",
    "GeneratorTerms",
    "KnownPixelsLoss",
    "LogRMSELoss",
    "OneLogitLoss",
    "TissueBiasLoss",
    "UnexplainedVarianceLoss",
    "as_imagenet",
    "bias_penalty",
    "bounded_cross_entropy",
    "feature_distance",
    "gradient_norms",
    "gradient_penalty",
    "image_distance",
    "joint_sparsity",
    "log_rmse",
    "mean_drift",
    "tissue_biases",
    "total_variation",
    "unexplained_variance",
]
