"""The lower half of VGG16, the features for a perceptual loss."""

from __future__ import annotations

from torch import nn

RELU3_3 = ((3, 64), (64, 64), None, (64, 128), (128, 128), None, (128, 256), (256, 256), (256, 256))


class VGG16Features(nn.Sequential):
    """VGG16 up to relu3_3 (Simonyan and Zisserman, ICLR 2015): 1,735,488 parameters.

    Maps ``(batch, 3, y, x)``, normalised as for ImageNet, to ``(batch, 256, y // 4, x // 4)``. The layers are numbered
    as in ``features`` of torchvision's vgg16, so its weights fit without their prefix.
    """

    def __init__(self) -> None:
        layers: list[nn.Module] = []
        for widths in RELU3_3:
            if widths is None:
                layers.append(nn.MaxPool2d(2))
            else:
                layers += [nn.Conv2d(*widths, kernel_size=3, padding=1), nn.ReLU()]
        super().__init__(*layers)
