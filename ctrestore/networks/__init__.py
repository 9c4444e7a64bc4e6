"""Networks that MONAI lacks, one paper a file."""

from ctrestore.networks.homogeneous_unet import HomogeneousUNet
from ctrestore.networks.res_unet import ResUNet

__all__ = ["HomogeneousUNet", "ResUNet"]
