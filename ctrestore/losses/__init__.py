"""Losses that MONAI and torch lack."""

from ctrestore.losses.restoration import KnownPixelsLoss, UnexplainedVarianceLoss, unexplained_variance
from ctrestore.losses.unpaired import (
    CriticLoss,
    GeneratorLoss,
    GeneratorTerms,
    gradient_norms,
    gradient_penalty,
    image_distance,
    joint_sparsity,
    total_variation,
)

__all__ = [
    "CriticLoss",
    "GeneratorLoss",
    "GeneratorTerms",
    "KnownPixelsLoss",
    "UnexplainedVarianceLoss",
    "gradient_norms",
    "gradient_penalty",
    "image_distance",
    "joint_sparsity",
    "total_variation",
    "unexplained_variance",
]
