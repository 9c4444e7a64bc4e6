"""A second implementation: RTK, where it is installed (pip install itk-rtk)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from ctrestore.ct import FanBeam, project, reconstruct

pytestmark = pytest.mark.filterwarnings("ignore")  # of SWIG and of ITK's lazy imports

SIDE, SPACING_MM = 96, 3.0
ROWS = 3  # the smallest number that RTK's filters accept


@pytest.fixture(scope="module")
def scanner(small_flat) -> FanBeam:
    return replace(small_flat, n_views=120)


@pytest.fixture(scope="module")
def rtk_scan(scanner) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A random image, and its sinogram and reconstruction by RTK, whose axis of rotation is ITK's second one."""
    itk = pytest.importorskip("itk")
    rtk = pytest.importorskip("itk.RTK") if not hasattr(itk, "RTK") else itk.RTK
    kind = itk.Image[itk.F, 3]
    geometry = rtk.ThreeDCircularProjectionGeometry.New()
    for angle in np.degrees(scanner.view_angles_rad):
        # RTK's source starts on the third axis, our y, and rotates towards the first, our x.
        geometry.AddProjection(scanner.source_to_isocentre_mm, scanner.source_to_detector_mm, float(90 - angle))

    def itk_image(values: np.ndarray, *spacing_mm: float, views: bool = False) -> Any:
        image = itk.image_from_array(np.ascontiguousarray(values, dtype=np.float32))
        image.SetSpacing(spacing_mm)
        centred = [-(n - 1) / 2 * step for n, step in zip(values.shape[::-1], spacing_mm)]
        image.SetOrigin([*centred[:2], 0.0] if views else centred)
        return image

    def itk_views(values: np.ndarray) -> Any:
        return itk_image(values, scanner.detector_pitch_mm, 1.0, 1.0, views=True)

    def result(rtk_filter: Any, first: Any, second: Any) -> np.ndarray:
        rtk_filter.SetInput(0, first)
        rtk_filter.SetInput(1, second)
        rtk_filter.SetGeometry(geometry)
        rtk_filter.Update()
        return itk.array_from_image(rtk_filter.GetOutput())[:, 0]

    image = gaussian_filter(np.random.default_rng(0).random((SIDE, SIDE)), 2).astype(np.float32)
    image[:8] = image[-8:] = image[:, :8] = image[:, -8:] = (
        0.0  # RTK ends an image at the centres of its outermost pixels
    )
    volume = itk_image(np.repeat(image[:, None], ROWS, axis=1), SPACING_MM, 5.0, SPACING_MM)
    empty = itk_views(np.zeros((scanner.n_views, 1, scanner.n_detectors)))
    sinogram = result(rtk.JosephForwardProjectionImageFilter[kind, kind].New(), empty, volume)
    feldkamp = rtk.FDKConeBeamReconstructionFilter[kind].New()
    feldkamp.GetRampFilter().SetTruncationCorrection(0.0)
    back = result(
        feldkamp,
        itk_image(np.zeros((SIDE, 1, SIDE)), SPACING_MM, 1.0, SPACING_MM),
        itk_views(np.repeat(sinogram[:, None], ROWS, axis=1)),
    )
    return image, sinogram, back


@pytest.mark.parametrize("implementation", ["torch", "compiled"])
def test_the_projections_equal_those_of_rtk(rtk_scan, scanner, implementation):
    image, expected, _ = rtk_scan
    sinogram = project(image, spacing_mm=SPACING_MM, geometry=scanner, implementation=implementation)
    np.testing.assert_allclose(sinogram, expected, atol=1e-5 * expected.max())


@pytest.mark.parametrize("implementation", ["torch", "compiled"])
def test_the_reconstruction_equals_that_of_rtk(rtk_scan, scanner, implementation):
    _, sinogram, expected = rtk_scan
    back = reconstruct(
        sinogram,
        shape=expected.shape,
        spacing_mm=SPACING_MM,
        geometry=scanner,
        implementation=implementation,
    )
    np.testing.assert_allclose(back[10:-10, 10:-10], expected[10:-10, 10:-10], atol=2e-5 * expected.max())
