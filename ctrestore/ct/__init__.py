"""CT physics on arrays: Hounsfield units, noise, projections, low dose. No files, no MONAI."""

from ctrestore.ct.degrade import add_gaussian, add_poisson, add_poisson_12bit, add_salt_and_pepper
from ctrestore.ct.fan_beam import FILTERS, FLASH, ZENG, FanBeam, project, reconstruct
from ctrestore.ct.hounsfield import (
    WATER_PER_MM,
    WINDOWS,
    Window,
    attenuation_to_hu,
    check_has_air,
    check_hu,
    denormalise,
    hu_to_attenuation,
    hu_to_stored,
    normalise,
    stored_to_hu,
    window,
)
from ctrestore.ct.image_noise import NOISES, add_noise
from ctrestore.ct.low_dose import (
    ELECTRONIC_NOISE,
    PHOTONS_PER_RAY,
    NoiseComponents,
    noise_at_dose,
    noise_components,
    simulate_low_dose,
    simulate_scan,
)
from ctrestore.ct.resolution import (
    STORED_RANGE_HU,
    coarser_affine,
    finer_affine,
    lower_resolution,
    whole_blocks,
)

__all__ = [
    "ELECTRONIC_NOISE",
    "FILTERS",
    "FLASH",
    "NOISES",
    "PHOTONS_PER_RAY",
    "STORED_RANGE_HU",
    "WATER_PER_MM",
    "WINDOWS",
    "ZENG",
    "FanBeam",
    "NoiseComponents",
    "Window",
    "add_gaussian",
    "add_noise",
    "add_poisson",
    "add_poisson_12bit",
    "add_salt_and_pepper",
    "attenuation_to_hu",
    "check_has_air",
    "check_hu",
    "coarser_affine",
    "denormalise",
    "finer_affine",
    "hu_to_attenuation",
    "hu_to_stored",
    "lower_resolution",
    "noise_at_dose",
    "noise_components",
    "normalise",
    "project",
    "reconstruct",
    "simulate_low_dose",
    "simulate_scan",
    "stored_to_hu",
    "whole_blocks",
    "window",
]
