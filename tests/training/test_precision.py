"""The choice of precision and its reason; gradients in bfloat16 equal those of float32 to bfloat16's precision."""

from __future__ import annotations

import logging
import platform
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from ctrestore.training import precision
from ctrestore.training.precision import Hardware, check_amp, detect, has_bfloat16, mixed_precision, use_bfloat16

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def forget_what_was_detected():
    detect.cache_clear()
    precision._probe.cache_clear()
    yield
    detect.cache_clear()
    precision._probe.cache_clear()


def torch_cpu(monkeypatch, **functions) -> None:
    """torch.cpu with these functions alone, as in another version or on another processor."""
    monkeypatch.setattr(torch, "cpu", SimpleNamespace(**functions))


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({"avx2": True, "avx512_f": False, "avx512_bf16": False, "amx_bf16": False}, False),
        ({"avx2": True, "avx512_f": True, "avx512_bf16": False, "amx_bf16": False}, False),  # emulated, and slower
        ({"avx2": True, "avx512_f": True, "avx512_bf16": True, "amx_bf16": False}, True),
        ({"avx2": True, "avx512_f": True, "avx512_bf16": True, "amx_bf16": True}, True),
        ({}, False),
    ],
)
def test_the_flags_of_an_x86_processor_decide(flags, expected, monkeypatch):
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    torch_cpu(monkeypatch, get_capabilities=lambda: flags)
    assert use_bfloat16("auto", CPU) is expected


@pytest.mark.parametrize("answers", [(True, False), (False, True), (False, False)])
def test_older_torch_is_queried_through_its_private_functions(answers, monkeypatch):
    monkeypatch.setattr(platform, "machine", lambda: "AMD64")
    avx, amx = answers
    torch_cpu(monkeypatch, _is_avx512_bf16_supported=lambda: avx, _is_amx_tile_supported=lambda: amx)
    assert use_bfloat16("auto", CPU) is any(answers)


@pytest.mark.parametrize(("seconds", "expected"), [((0.004, 0.002), True), ((0.004, 0.04), False), (None, False)])
def test_a_processor_of_another_kind_is_measured(seconds, expected, monkeypatch):
    monkeypatch.setattr(platform, "machine", lambda: "arm64")
    monkeypatch.setattr(precision, "_probe", lambda: seconds)
    assert use_bfloat16("auto", CPU) is expected


def test_the_probe_times_both_precisions_once():
    first = precision._probe()
    assert first is not None
    assert all(seconds > 0 for seconds in first)
    assert precision._probe() is first


def test_a_processor_that_cannot_do_bfloat16_at_all_gets_float32(monkeypatch):
    def fails(x, *args, **kwargs):
        if x.dtype == torch.bfloat16:
            raise RuntimeError("not implemented for 'BFloat16'")
        return x

    monkeypatch.setattr(torch, "conv3d", fails)
    assert precision._probe() is None


def test_torch_without_onednn_computes_in_float32(monkeypatch):
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    torch_cpu(monkeypatch, get_capabilities=lambda: {"avx512_bf16": True, "amx_bf16": True})
    assert not use_bfloat16("auto", CPU)


def test_the_decision_has_a_reason():
    for hardware in (Hardware("cpu", x86=True), Hardware("cuda"), Hardware("mps"), Hardware("cpu", probe_s=(1, 2))):
        found, why = has_bfloat16(hardware)
        assert not found
        assert why


@pytest.mark.parametrize("amp", ["true", "false", "Auto", "", 1, 0, None])
def test_a_text_never_counts_as_true(amp):
    with pytest.raises(ValueError, match="amp is auto, True or False; got"):
        check_amp(amp)


def test_one_line_names_the_precision(caplog, monkeypatch):
    monkeypatch.setattr(precision, "detect", lambda device: Hardware("cpu", x86=True))
    with caplog.at_level(logging.INFO, "ctrestore"):
        use_bfloat16("auto", CPU, log=True)
    (line,) = caplog.messages
    assert line == "precision: float32, because the processor has no bfloat16 instructions (AVX512_BF16 or AMX)"


def test_forcing_bfloat16_warns_of_the_cost(caplog, monkeypatch):
    monkeypatch.setattr(precision, "detect", lambda device: Hardware("cpu", x86=True))
    with caplog.at_level(logging.WARNING, "ctrestore"):
        assert use_bfloat16(True, CPU, log=True)
    (line,) = caplog.messages
    assert "5 to 50 times the time" in line


def of_weights(layer: nn.Module, image: torch.Tensor, towards: torch.Tensor, *, enabled: bool) -> torch.Tensor:
    with mixed_precision(image.device, enabled):
        out = layer(image)
    assert out.dtype == (torch.bfloat16 if enabled and image.shape[2] >= 8 else torch.float32)
    return torch.autograd.grad((out.float() * towards).sum(), layer.weight)[0]


@pytest.mark.parametrize(("kernel", "depth"), [(3, 1), (3, 2), (5, 4), (7, 3), (3, 8)])
def test_gradients_of_shallow_images(kernel, depth):
    # oneDNN's bfloat16 kernel reads memory that is not its own when the kernel is deeper than the image.
    layer = nn.Conv3d(16, 16, kernel, padding=kernel // 2, bias=False)
    for _ in range(5):
        image, towards = torch.randn(2, 4, 16, depth, 6, 6)
        freed = [torch.full((n,), torch.nan) for n in (100, 1000, 5000, 20000, 100000)]  # what such a read would find
        del freed
        found = of_weights(layer, image, towards, enabled=True)
        exact = of_weights(layer, image, towards, enabled=False)
        assert (found - exact).norm() < 0.01 * exact.norm()


def test_without_gradients_all_is_bfloat16():
    layer = nn.Conv3d(4, 4, 3, padding=1)
    with torch.no_grad(), mixed_precision(CPU, True):
        assert layer(torch.ones(1, 4, 2, 6, 6)).dtype == torch.bfloat16
