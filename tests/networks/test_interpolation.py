"""Interpolation against a straight line, whose values between pixels are known, and against Pillow."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from ctrestore.networks import Interpolated, Interpolation

PILLOW = {"cubic": Image.Resampling.BICUBIC, "lanczos": Image.Resampling.LANCZOS}


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize(("kernel", "error"), [("cubic", 1e-5), ("lanczos", 0.02)])  # Lanczos' kernel ripples
def test_a_ramp_is_continued_between_the_pixels_half_a_pixel_apart(scale, kernel, error):
    """The fine pixel i lies at ``(i + 0.5) / scale - 0.5`` coarse pixels, not at ``i / scale``."""
    ramp = torch.arange(16.0)[None, None, :, None].expand(1, 1, 16, 12).contiguous()
    fine = Interpolation(scale, kernel)(ramp)
    assert fine.shape == (1, 1, 16 * scale, 12 * scale)
    inside = slice(3 * scale, -3 * scale)
    expected = (torch.arange(16.0 * scale) + 0.5) / scale - 0.5
    torch.testing.assert_close(fine[0, 0, inside, 5], expected[inside], atol=error, rtol=0)


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("kernel", ["cubic", "lanczos"])
def test_away_from_the_edge_it_equals_pillows(scale, kernel):
    image = np.random.default_rng(0).normal(0, 300, (20, 24)).astype(np.float32)
    fine = Interpolation(scale, kernel)(torch.from_numpy(image)[None, None])[0, 0].numpy()
    pillow = np.asarray(Image.fromarray(image).resize((24 * scale, 20 * scale), PILLOW[kernel]))
    inside = (slice(3 * scale, -3 * scale),) * 2  # at the edge Pillow leaves out what it lacks
    np.testing.assert_allclose(fine[inside], pillow[inside], atol=2e-3)


def test_a_uniform_image_stays_uniform_up_to_its_edges_in_three_axes_too():
    volume = torch.full((1, 1, 4, 5, 3), 7.0)
    torch.testing.assert_close(Interpolation(2, "lanczos")(volume), torch.full((1, 1, 8, 10, 6), 7.0))


def test_bfloat16_does_not_reach_the_interpolation():
    image = torch.randn(1, 1, 12, 12)
    exact = Interpolation(2)(image)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(Interpolation(2)(image), exact)


def test_a_network_of_one_size_gets_the_fine_image():
    image = torch.randn(1, 1, 8, 8)
    doubled = Interpolated(torch.nn.Conv2d(1, 1, 1), scale=3)
    torch.testing.assert_close(doubled(image), doubled.network(Interpolation(3)(image)))


@pytest.mark.parametrize("bad", [0, -2, 1.5, True])
def test_a_scale_that_is_not_a_whole_number_is_refused(bad):
    with pytest.raises(ValueError, match="scale is a whole number"):
        Interpolation(bad)
    with pytest.raises(ValueError, match="kernel is one of cubic, lanczos"):
        Interpolation(2, "spline")
