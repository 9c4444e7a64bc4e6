"""Networks with ImageNet weights from torchvision's files, without torchvision.

The weights are read from a given file, or from torchvision's download folder. Nothing is downloaded
here: many machines with patients' scans have no network.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch
from monai.networks.nets import resnet50
from torch import Tensor, nn

from ctrestore.errors import InputError
from ctrestore.networks import VGG16Features

Name = Literal["vgg16", "resnet50"]
#: torchvision's names for its weights IMAGENET1K_V1
FILES: dict[Name, str] = {"vgg16": "vgg16-397923af.pth", "resnet50": "resnet50-0676ba61.pth"}


def weights_file(name: Name, file: str | Path | None = None) -> Path:
    """The given file, or torchvision's download.

    Raises:
        InputError: there is none.
    """
    path = Path(file) if file is not None else Path(torch.hub.get_dir()) / "checkpoints" / FILES[name]
    if not path.is_file():
        raise InputError(
            f"there are no ImageNet weights at {path}. Expected: {FILES[name]} of torchvision. Remedy: on a machine "
            f"with torchvision and a network, torchvision.models.{name}(weights='IMAGENET1K_V1') saves it to "
            "torch/hub/checkpoints in the user's cache folder; copy it here, or name it as the weights."
        )
    return path


def _state(name: Name, file: str | Path | None) -> tuple[Path, dict[str, Tensor]]:
    path = weights_file(name, file)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        if not all(isinstance(value, Tensor) for value in state.values()):
            raise InputError("not a state dict")
    except Exception as error:  # for damaged or foreign files torch raises a dozen kinds
        # torch's own message is a page long and recommends loading the file without a check
        raise InputError(
            f"{path} holds no weights ({type(error).__name__}). Usual cause: a broken download, or a web page "
            f"instead of the file. Remedy: fetch {FILES[name]} again."
        ) from error
    return path, state


def _fitted(network: nn.Module, state: dict[str, Tensor], path: Path, name: Name) -> nn.Module:
    """The network with these weights, frozen."""
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{path} does not fit {name}: {reason}. Remedy: {FILES[name]} of torchvision.") from error
    return network.eval().requires_grad_(False)


def vgg16_relu3_3(weights: str | Path | None = None) -> nn.Module:
    """VGG16 up to relu3_3 with ImageNet weights, frozen.

    Args:
        weights: torchvision's ``vgg16-397923af.pth``; None: torchvision's download.

    Raises:
        InputError: there is no such file, or it holds something else; the message names the file to fetch.
    """
    path, state = _state("vgg16", weights)
    network = VGG16Features()
    prefix = "features."
    ours = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    return _fitted(network, {key: ours[key] for key in network.state_dict() if key in ours}, path, "vgg16")


def resnet50_features(weights: str | Path | None = None) -> nn.Module:
    """ResNet50 (He et al., CVPR 2016) up to its average pooling, frozen: ``(batch, 3, y, x)`` to ``(batch, 2048)``.

    Args:
        weights: torchvision's ``resnet50-0676ba61.pth``; None: torchvision's download.

    Raises:
        InputError: there is no such file, or it holds something else; the message names the file to fetch.
    """
    path, state = _state("resnet50", weights)
    without_head = {key: value for key, value in state.items() if not key.startswith("fc.")}
    return _fitted(resnet50_without_head(), without_head, path, "resnet50")


def resnet50_without_head() -> nn.Module:
    """MONAI's ResNet50 in torchvision's form, weights drawn at random: ``(batch, 3, y, x)`` to ``(batch, 2048)``."""
    return resnet50(
        spatial_dims=2,
        n_input_channels=3,
        feed_forward=False,
        conv1_t_stride=2,
        shortcut_type="B",
        bias_downsample=False,
    )
