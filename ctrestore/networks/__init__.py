"""Networks that MONAI lacks, one file per paper."""

from ctrestore.networks.attention import ChannelAttention, ChannelGate, SpatialAttention, SpatialGate
from ctrestore.networks.classic_unet import ClassicUNet
from ctrestore.networks.espcn import ESPCN
from ctrestore.networks.fsrcnn import FSRCNN
from ctrestore.networks.gan_circle import GANCircleCritic, GANCircleGenerator
from ctrestore.networks.homogeneous_unet import HomogeneousUNet
from ctrestore.networks.interpolation import Interpolated, Interpolation
from ctrestore.networks.red_cnn import REDCNN
from ctrestore.networks.res_unet import ResUNet
from ctrestore.networks.srcnn import SRCNN
from ctrestore.networks.sub_pixel_unet import SubPixelUNet
from ctrestore.networks.tissue_unet import TISSUES, TissueUNet
from ctrestore.networks.unshuffled_unet import UnshuffledUNet
from ctrestore.networks.vdsr import VDSR
from ctrestore.networks.vgg16 import VGG16Features

__all__ = [
    "ESPCN",
    "FSRCNN",
    "REDCNN",
    "SRCNN",
    "TISSUES",
    "VDSR",
    "ChannelAttention",
    "ChannelGate",
    "ClassicUNet",
    "GANCircleCritic",
    "GANCircleGenerator",
    "HomogeneousUNet",
    "Interpolated",
    "Interpolation",
    "ResUNet",
    "SpatialAttention",
    "SpatialGate",
    "SubPixelUNet",
    "TissueUNet",
    "UnshuffledUNet",
    "VGG16Features",
]
