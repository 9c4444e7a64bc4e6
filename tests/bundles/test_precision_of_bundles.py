"""The precision that the first convolution of every bundle really runs in, on processors and GPUs of all kinds."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.bundle import ConfigParser
from torch import nn

from ctrestore.tasks.runtime import error_inside
from ctrestore.training import precision
from ctrestore.training.precision import Hardware
from tests.bundles.test_every_bundle import BUNDLES, parser_of

CONVOLUTIONS = (nn.Conv2d, nn.Conv3d)
MACHINES = {
    "AVX2": (Hardware("cpu", x86=True), torch.float32),
    "Skylake": (Hardware("cpu", x86=True), torch.float32),  # AVX-512 alone, which emulates bfloat16
    "Zen 4": (Hardware("cpu", x86=True, avx512_bf16=True), torch.bfloat16),
    "AMX": (Hardware("cpu", x86=True, avx512_bf16=True, amx_bf16=True), torch.bfloat16),
    "x86 without oneDNN": (Hardware("cpu", x86=True, avx512_bf16=True, onednn=False), torch.float32),
    "ARM with bfloat16": (Hardware("cpu", probe_s=(0.004, 0.002)), torch.bfloat16),
    "ARM without": (Hardware("cpu", probe_s=(0.004, 0.030)), torch.float32),
    "ARM, not measured": (Hardware("cpu"), torch.float32),
    "GPU with bfloat16": (Hardware("cuda", gpu_bf16=True), torch.bfloat16),
    "GPU without": (Hardware("cuda"), torch.float32),
    "Apple's GPU": (Hardware("mps"), torch.float32),
}
INFERERS = {"inference": ["inferer"], "train": ["train#inferer", "validate#inferer"]}


def first_dtypes(parser: ConfigParser, inferer: str) -> set[torch.dtype]:
    """Types of what the first convolution gives when this inferer runs the network on a tiny image."""
    parser["classes"] = ["ill", "well"]  # of the data, where a network has to know them
    network = parser.get_parsed_content("network_def").eval()
    first = next(layer for layer in network.modules() if isinstance(layer, CONVOLUTIONS))
    seen = set()
    first.register_forward_hook(lambda layer, inputs, output: seen.add(output.dtype))
    spatial_dims = 3 if isinstance(first, nn.Conv3d) else 2
    n_channels = parser.get("network_def").get("in_channels", 1)
    image = torch.rand(1, n_channels, *[16 if spatial_dims == 3 else 32] * spatial_dims)
    with torch.no_grad():
        parser.get_parsed_content(inferer)(image, network)
    return seen


def on(machine: Hardware, monkeypatch) -> None:
    monkeypatch.setattr(precision, "detect", lambda device: machine)


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("name", INFERERS)
@pytest.mark.parametrize("bundle", BUNDLES, ids=lambda path: path.name)
def test_auto_takes_what_the_machine_computes_in_hardware(bundle: Path, name: str, machine, monkeypatch):
    hardware, expected = MACHINES[machine]
    on(hardware, monkeypatch)
    parser = parser_of(bundle, name)
    assert parser["amp"] == "auto"
    for inferer in INFERERS[name]:
        assert first_dtypes(parser, inferer) == {expected}


@pytest.mark.parametrize(
    ("machine", "amp", "expected"), [("AVX2", True, torch.bfloat16), ("AMX", False, torch.float32)]
)
@pytest.mark.parametrize("name", INFERERS)
@pytest.mark.parametrize("bundle", BUNDLES, ids=lambda path: path.name)
def test_what_the_user_says_goes_before(bundle: Path, name: str, machine, amp, expected, monkeypatch):
    on(MACHINES[machine][0], monkeypatch)
    parser = parser_of(bundle, name)
    parser["amp"] = amp
    for inferer in INFERERS[name]:
        assert first_dtypes(parser, inferer) == {expected}


@pytest.mark.parametrize("overlay", ["srcnn", "fsrcnn", "espcn"])
def test_a_network_that_needs_float32_keeps_it_where_bfloat16_is_fast(overlay, monkeypatch):
    on(MACHINES["AMX"][0], monkeypatch)
    (bundle,) = (path for path in BUNDLES if path.name == "ct_super_resolution")
    for name, inferers in INFERERS.items():
        parser = ConfigParser()
        parser.read_config([str(bundle / "configs" / f"{file}.json") for file in (name, overlay)])
        parser["bundle_root"] = str(bundle)
        for inferer in inferers:
            assert first_dtypes(parser, inferer) == {torch.float32}


def test_the_critics_and_generators_of_unpaired_training_follow(monkeypatch):
    (bundle,) = (path for path in BUNDLES if path.name == "ldct_denoising")
    for machine in ("AVX2", "AMX"):
        on(MACHINES[machine][0], monkeypatch)
        parser = ConfigParser()
        parser.read_config([str(bundle / "configs" / f"{file}.json") for file in ("train", "gan_circle")])
        assert parser.get_parsed_content("mixed_precision") is (machine == "AMX")
        assert parser.get("train#trainer#mixed_precision") == "@mixed_precision"


@pytest.mark.parametrize("amp", ["false", "true", "treu", "Auto", 1, 0, None, ""])
def test_a_misspelt_switch_is_refused_in_one_line(amp: Any):
    parser = parser_of(BUNDLES[0], "inference")
    parser["amp"] = amp
    with pytest.raises(RuntimeError) as caught:
        parser.get_parsed_content("inferer")
    assert re.fullmatch(
        r"amp is auto, True or False; got .*\. Remedy: --amp auto, --amp True or --amp False\.",
        str(error_inside(caught.value)),
    )
