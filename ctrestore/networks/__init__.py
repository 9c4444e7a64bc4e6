"""Networks that MONAI lacks, one paper a file."""

from ctrestore.networks.gan_circle import GANCircleCritic, GANCircleGenerator
from ctrestore.networks.homogeneous_unet import HomogeneousUNet
from ctrestore.networks.res_unet import ResUNet
from ctrestore.networks.tissue_unet import TISSUES, TissueUNet
from ctrestore.networks.unshuffled_unet import UnshuffledUNet

__all__ = [
    "TISSUES",
    "GANCircleCritic",
    "GANCircleGenerator",
    "HomogeneousUNet",
    "ResUNet",
    "TissueUNet",
    "UnshuffledUNet",
]
