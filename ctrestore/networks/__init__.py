"""Networks that MONAI lacks, one paper a file."""

from ctrestore.networks.attention import ChannelAttention, ChannelGate, SpatialAttention, SpatialGate
from ctrestore.networks.classic_unet import ClassicUNet
from ctrestore.networks.gan_circle import GANCircleCritic, GANCircleGenerator
from ctrestore.networks.homogeneous_unet import HomogeneousUNet
from ctrestore.networks.red_cnn import REDCNN
from ctrestore.networks.res_unet import ResUNet
from ctrestore.networks.tissue_unet import TISSUES, TissueUNet
from ctrestore.networks.unshuffled_unet import UnshuffledUNet
from ctrestore.networks.vgg16 import VGG16Features

__all__ = [
    "REDCNN",
    "TISSUES",
    "ChannelAttention",
    "ChannelGate",
    "ClassicUNet",
    "GANCircleCritic",
    "GANCircleGenerator",
    "HomogeneousUNet",
    "ResUNet",
    "SpatialAttention",
    "SpatialGate",
    "TissueUNet",
    "UnshuffledUNet",
    "VGG16Features",
]
