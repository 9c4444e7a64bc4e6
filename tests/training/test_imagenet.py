"""torchvision's files of ImageNet weights fit, and if one is missing the error names the file to fetch."""

import pytest
import torch

from ctrestore.errors import CTRestoreError
from ctrestore.networks import VGG16Features
from ctrestore.tasks.runtime import vgg16_features
from ctrestore.training.imagenet import resnet50_features, resnet50_without_head, vgg16_relu3_3


@pytest.fixture
def vgg16_file(tmp_path):
    """In the layout of torchvision's vgg16; its upper half is not used."""
    torch.manual_seed(0)
    state = {f"features.{key}": value for key, value in VGG16Features().state_dict().items()}
    more = {"features.17.weight": torch.zeros(512, 256, 3, 3), "classifier.0.weight": torch.zeros(8, 8)}
    torch.save(state | more, tmp_path / "vgg16-397923af.pth")
    return tmp_path / "vgg16-397923af.pth"


def test_the_lower_half_of_torchvisions_vgg16_is_loaded_and_frozen(vgg16_file):
    network = vgg16_relu3_3(vgg16_file)
    state = torch.load(vgg16_file, weights_only=True)
    assert torch.equal(network[14].weight, state["features.14.weight"])
    assert not any(parameter.requires_grad for parameter in network.parameters())


def test_torchvisions_download_is_found_automatically(vgg16_file, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    with pytest.raises(ValueError, match=r"no ImageNet weights.*vgg16-397923af\.pth"):
        vgg16_relu3_3()
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    vgg16_file.rename(tmp_path / "hub" / "checkpoints" / vgg16_file.name)
    assert isinstance(vgg16_relu3_3(), VGG16Features)


def test_a_config_without_the_weights_ends_with_what_to_fetch(tmp_path):
    with pytest.raises(CTRestoreError, match=r"Expected: vgg16-397923af\.pth of torchvision.*copy it here"):
        vgg16_features(str(tmp_path / "nothing.pth"), "cpu")


def test_a_file_of_something_else_is_named_with_the_right_one(tmp_path):
    torch.save({"conv.weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"other\.pth does not fit vgg16.*vgg16-397923af\.pth"):
        vgg16_relu3_3(tmp_path / "other.pth")
    (tmp_path / "text.pth").write_text("<html>")
    with pytest.raises(ValueError, match=r"text\.pth holds no weights.*fetch resnet50-0676ba61\.pth again"):
        resnet50_features(tmp_path / "text.pth")


def test_monais_resnet50_takes_torchvisions_weights_and_gives_2048_features(tmp_path):
    """Counts of torchvision's resnet50: 25,557,032 parameters, of them 2,049,000 in the head; its keys and strides."""
    torch.manual_seed(0)
    network = resnet50_without_head().eval()
    assert sum(p.numel() for p in network.parameters()) == 25_557_032 - 2_049_000
    state = network.state_dict()
    assert {"conv1.weight", "bn1.running_var", "layer1.0.downsample.0.weight", "layer4.2.bn3.bias"} <= set(state)
    assert state["layer2.0.conv2.weight"].shape == (128, 128, 3, 3)
    assert "layer1.0.downsample.0.bias" not in state
    head = {"fc.weight": torch.zeros(1000, 2048), "fc.bias": torch.zeros(1000)}
    torch.save(state | head, tmp_path / "resnet50.pth")
    x = torch.randn(1, 3, 64, 64)
    loaded = resnet50_features(tmp_path / "resnet50.pth")
    assert loaded(x).shape == (1, 2048)
    assert torch.equal(loaded(x), network(x))
