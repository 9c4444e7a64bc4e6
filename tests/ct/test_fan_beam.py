"""Projection and reconstruction against closed forms, their laws, and other implementations."""

from __future__ import annotations

import multiprocessing
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.interpolate import RegularGridInterpolator

from ctrestore.ct import FILTERS, FLASH, WATER_PER_MM, ZENG, FanBeam, attenuation_to_hu, project, reconstruct

SIDE, SPACING_MM = 128, 2.5
BOTH = pytest.mark.parametrize("implementation", ["torch", "compiled"])


def random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def chords_mm(geometry: FanBeam, *, diameter_mm: float, x_mm: float = 0.0, y_mm: float = 0.0) -> np.ndarray:
    """Length of each ray inside a disc: ``(view, detector)``, from the ray's distance to the disc's centre."""
    view = geometry.view_angles_rad[:, None]
    direction = view + geometry.fan_angles_rad  # the ray runs against it
    source_x, source_y = (geometry.source_to_isocentre_mm * f(view) for f in (np.cos, np.sin))
    distance = (source_x - x_mm) * np.sin(direction) - (source_y - y_mm) * np.cos(direction)
    return 2 * np.sqrt(np.clip((diameter_mm / 2) ** 2 - distance**2, 0, None))


@BOTH
def test_a_disc_has_its_closed_form_sinogram(geometry, implementation):
    """Off centre, on pixels of different height and width."""
    spacing_mm, x_mm, y_mm = (2.0, 3.0), 40.0, -25.0
    y, x = ((np.arange(SIDE) - (SIDE - 1) / 2) * size for size in spacing_mm)
    fine = 4  # sub-pixels, so that the disc's rim is right
    y, x = ((along[:, None] + (np.arange(fine) - 1.5) / fine * size).ravel() for along, size in zip((y, x), spacing_mm))
    inside = np.hypot(y[:, None] - y_mm, x - x_mm) < 60
    image = inside.reshape(SIDE, fine, SIDE, fine).mean(axis=(1, 3)).astype(np.float32)
    sinogram = project(image, spacing_mm=spacing_mm, geometry=geometry, implementation=implementation)
    exact = chords_mm(geometry, diameter_mm=120, x_mm=x_mm, y_mm=y_mm)
    within = exact > 60  # a grazing ray meets the pixels of the rim
    np.testing.assert_allclose(sinogram[within], exact[within], atol=1.5)  # half a pixel
    assert abs((sinogram - exact)[within].mean()) < 0.1
    assert np.abs(sinogram[exact == 0]).mean() < 0.05


@pytest.mark.parametrize("shape", [(40, 56), (49, 49), (48, 48)], ids=str)
def test_torch_and_the_compiled_loops_agree(geometry, shape):
    """Square images use another path through the loops."""
    image, spacing_mm = random(2, *shape), (4, 3) if shape[0] != shape[1] else 4
    first, second = (
        project(image, spacing_mm=spacing_mm, geometry=geometry, implementation=name) for name in ("torch", "compiled")
    )
    assert first.shape == (2, geometry.n_views, geometry.n_detectors)
    np.testing.assert_allclose(first, second, atol=1e-5 * np.abs(first).max())
    sinogram = random(2, geometry.n_views, geometry.n_detectors)
    images = [
        reconstruct(sinogram, shape=shape, spacing_mm=spacing_mm, geometry=geometry, implementation=name)
        for name in ("torch", "compiled")
    ]
    assert images[0].shape == (2, *shape)
    np.testing.assert_allclose(*images, atol=3e-5 * np.abs(images[0]).max())  # 288 sums in float32


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_gradient_of_the_projection_is_its_adjoint(geometry, dtype):
    """<A x, y> = <x, A^T y>: A x by the compiled loops, A^T y by torch's gradient."""
    x = torch.from_numpy(random(48, 64)).to(dtype)
    y = torch.from_numpy(random(geometry.n_views, geometry.n_detectors, seed=1)).to(dtype)
    wanted = torch.zeros_like(x, requires_grad=True)
    project(wanted, spacing_mm=4.0, geometry=geometry).backward(y)
    forward = project(x, spacing_mm=4.0, geometry=geometry, implementation="compiled")
    left, right = (forward.double() * y).sum(), (x.double() * wanted.grad).sum()
    scale = forward.double().norm() * y.double().norm()
    assert abs(left - right) < (1e-6 if dtype == torch.float32 else 1e-7) * scale  # rays are kept in float32


def test_the_gradient_of_the_reconstruction_is_its_adjoint(geometry):
    y = torch.from_numpy(random(geometry.n_views, geometry.n_detectors))
    x = torch.from_numpy(random(48, 64, seed=1))
    kwargs = {"shape": (48, 64), "spacing_mm": 4.0, "geometry": geometry, "filter": "hann"}
    wanted = torch.zeros_like(y, requires_grad=True)
    reconstruct(wanted, **kwargs).backward(x)
    forward = reconstruct(y, implementation="compiled", **kwargs)
    left, right = (forward.double() * x).sum(), (y.double() * wanted.grad).sum()
    assert abs(left - right) < 1e-6 * forward.double().norm() * x.double().norm()


def test_a_large_problem_in_chunks_has_the_same_result_and_gradient(small_arc, monkeypatch):
    image = torch.from_numpy(random(32, 32)).requires_grad_()

    def round_trip() -> tuple[torch.Tensor, torch.Tensor]:
        sinogram = project(image, spacing_mm=6.0, geometry=small_arc)
        back = reconstruct(sinogram, shape=(32, 32), spacing_mm=6.0, geometry=small_arc)
        (gradient,) = torch.autograd.grad((back**2).sum(), image)
        return back.detach(), gradient

    whole = round_trip()
    monkeypatch.setattr("ctrestore.ct.fan_beam.CHUNK", 1 << 16)
    for cut, uncut in zip(round_trip(), whole):
        torch.testing.assert_close(cut, uncut, rtol=1e-4, atol=1e-5 * float(uncut.abs().max()))


@BOTH
def test_a_water_disc_comes_back_within_two_hu(geometry, implementation, disc, radius_mm):
    image = WATER_PER_MM * disc(200.0)
    sinogram = project(image, spacing_mm=SPACING_MM, geometry=geometry, implementation=implementation)
    for filter in FILTERS:
        back = reconstruct(
            sinogram,
            shape=image.shape,
            spacing_mm=SPACING_MM,
            geometry=geometry,
            filter=filter,
            implementation=implementation,
        )
        assert abs(attenuation_to_hu(back)[radius_mm < 80].mean()) < 2.0, filter
        ring = (radius_mm > 115) & (radius_mm < 150)
        assert abs(attenuation_to_hu(back)[ring].mean() + 1000) < 2.0, filter


def test_white_noise_in_the_views_has_its_closed_form_deviation_at_the_isocentre(geometry):
    """sigma^2 = pi^2 / (12 views pitch^2) of each unit of variance, pitch at the isocentre (Kak and Slaney, eq. 5.53).

    The gradient holds the weight of every ray in the pixel; an odd number of channels has one there.
    """
    geometry = replace(geometry, n_detectors=245)
    sinogram = torch.zeros(geometry.n_views, geometry.n_detectors, dtype=torch.float64, requires_grad=True)
    centre = reconstruct(sinogram, shape=(3, 3), spacing_mm=1.0, geometry=geometry)[1, 1]
    (weights,) = torch.autograd.grad(centre, sinogram)
    pitch_mm = geometry.step * geometry.source_to_isocentre_mm
    # The weights of oblique rays by cos(gamma)^2, and the finite detector, take away less than a percent.
    assert float((weights**2).sum()) == pytest.approx(np.pi**2 / (12 * geometry.n_views * pitch_mm**2), rel=0.01)


@pytest.mark.parametrize("preset", [FLASH, ZENG], ids=["FLASH", "ZENG"])
def test_the_presets_reconstruct_the_closed_form_of_a_disc_within_two_hu(preset, radius_mm):
    """No projector of ours is involved; the views are thinned to save time."""
    preset = replace(preset, n_views=360)
    sinogram = np.float32(WATER_PER_MM * chords_mm(preset, diameter_mm=200))
    back = reconstruct(sinogram, shape=(SIDE, SIDE), spacing_mm=SPACING_MM, geometry=preset)
    assert abs(attenuation_to_hu(back)[radius_mm < 80].mean()) < 2.0
    rim = np.interp(100.0, *profile(attenuation_to_hu(back), radius_mm))
    assert rim == pytest.approx(-500, abs=40)  # the rim lies where it should: 40 HU are 0.1 mm of its slope


def profile(image: np.ndarray, radius: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean of an image in rings of a pixel: radii and means."""
    bins = (radius / SPACING_MM).astype(int).ravel()
    n = np.bincount(bins)
    return np.bincount(bins, radius.ravel()) / n, np.bincount(bins, image.ravel()) / n


def test_the_filters_leave_different_amounts_of_noise(small_arc):
    noise = random(small_arc.n_views, small_arc.n_detectors)
    left = [
        reconstruct(noise, shape=(SIDE, SIDE), spacing_mm=SPACING_MM, geometry=small_arc, filter=name).std()
        for name in ("ramp", "shepp-logan", "cosine", "hann")
    ]
    assert left == sorted(left, reverse=True)
    assert left[3] < 0.6 * left[0]


def test_the_presets_have_the_field_of_view_of_their_scanners():
    assert FLASH.field_of_view_mm == pytest.approx(502, abs=1)  # 500 mm by the data sheet
    assert np.degrees(np.ptp(FLASH.fan_angles_rad)) == pytest.approx(49.95, abs=0.1)
    assert ZENG.field_of_view_mm == pytest.approx(619, abs=1)


def test_scikit_images_parallel_beam_sees_the_same_line_integrals(small_arc, disc):
    """A ray of the fan at ``beta + gamma`` is a parallel one at the distance ``R sin(gamma)``: there radon is read."""
    from skimage.transform import radon

    image = disc(180.0) + disc(60.0)
    image[50:60, 70:90] += 0.7  # nothing symmetric
    image[80:84, 40:44] += 2.0
    image = image[:-1, :-1]  # radon turns about a pixel: an odd side has the isocentre on one
    angles = np.linspace(0, 360, 481)
    parallel = radon(image, theta=angles, circle=True) * SPACING_MM
    distances = (np.arange(SIDE - 1) - (SIDE - 2) / 2) * SPACING_MM
    read = RegularGridInterpolator((distances, angles), parallel, bounds_error=False, fill_value=0.0)
    fan = project(image, spacing_mm=SPACING_MM, geometry=small_arc)
    # In radon a column is a line towards +y at the distance x, the image turned by theta. A ray of the fan runs against
    # ``direction`` at the distance -R sin(gamma), with y downwards.
    direction = small_arc.view_angles_rad[:, None] + small_arc.fan_angles_rad
    distance = np.broadcast_to(small_arc.source_to_isocentre_mm * np.sin(small_arc.fan_angles_rad), direction.shape)
    other = read((distance, np.degrees(np.pi / 2 - direction) % 360))
    error = np.sqrt(((fan - other) ** 2).mean())
    assert error < 0.01 * fan.max()


def test_two_threads_may_project_at_once(small_arc):
    """As the workers of a ThreadDataLoader do; numba's own threads would crash the process here."""
    image = random(64, 64)
    alone = project(image, spacing_mm=4.0, geometry=small_arc)
    results: list[np.ndarray] = []
    threads = [
        threading.Thread(target=lambda: results.append(project(image, spacing_mm=4.0, geometry=small_arc)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4
    for result in results:
        np.testing.assert_array_equal(result, alone)


class Sinograms(torch.utils.data.Dataset):
    def __init__(self, geometry: FanBeam) -> None:
        self.geometry = geometry

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> torch.Tensor:
        return project(torch.from_numpy(random(64, 64)), spacing_mm=4.0, geometry=self.geometry)


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # it has threads and forks, as tested here
@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="this system does not fork")
def test_a_process_may_fork_after_it_has_projected(small_arc):
    """As a DataLoader does after a first look at the data."""
    data = Sinograms(small_arc)
    loader = torch.utils.data.DataLoader(data, batch_size=None, num_workers=1, multiprocessing_context="fork")
    here = data[0]
    for there in loader:
        assert torch.equal(there, here)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_gives_what_the_cpu_gives(geometry):
    image = torch.from_numpy(random(2, 48, 48))
    scans = [project(image.to(device), spacing_mm=4.0, geometry=geometry) for device in ("cpu", "cuda")]
    assert scans[1].is_cuda
    torch.testing.assert_close(scans[1].cpu(), scans[0], rtol=0, atol=1e-5 * float(scans[0].abs().max()))
    images = [reconstruct(scan, shape=(48, 48), spacing_mm=4.0, geometry=geometry) for scan in scans]
    assert images[1].is_cuda
    torch.testing.assert_close(images[1].cpu(), images[0], rtol=0, atol=3e-5 * float(images[0].abs().max()))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: replace(FLASH, source_to_detector_mm=490.6), "isocentre to the detector"),
        (lambda: replace(FLASH, detector_pitch_mm=0), "positive detector_pitch_mm"),
        (lambda: replace(FLASH, detector_pitch_mm=12.0), "more than 180 degrees"),
        (lambda: replace(FLASH, detector="curved"), "'arc' or 'flat'"),
        (lambda: replace(FLASH, n_views=0), "at least 2 detectors"),
        (lambda: project(random(8, 8), spacing_mm=0), "without spacing"),
        (lambda: project(random(8, 8), spacing_mm=-1), "spacing_mm"),
        (lambda: project(random(8, 8), spacing_mm=800.0), "orbit of the source"),
        (lambda: project(random(8), spacing_mm=1), "(..., y, x)"),
        (lambda: reconstruct(random(8, 8), shape=(8, 8), spacing_mm=1), "(..., 1152, 736)"),
        (lambda: reconstruct(random(1152, 736), shape=(8, 8), spacing_mm=1, filter="hanning"), "'hanning'"),
        (lambda: reconstruct(random(1152, 736), shape=(1, 8, 8), spacing_mm=1), "two axes"),
        (lambda: project(random(8, 8), spacing_mm=1, implementation="cuda"), "'cuda'"),
    ],
)
def test_a_mistake_is_named(call, message):
    with pytest.raises(ValueError, match=message.replace("(", r"\(").replace(")", r"\)").replace(".", r"\.")):
        call()


def test_the_compiled_loops_refuse_to_give_a_gradient(small_arc):
    with pytest.raises(ValueError, match="implementation='auto'"):
        project(torch.zeros(8, 8, requires_grad=True), spacing_mm=1, geometry=small_arc, implementation="compiled")


@pytest.mark.parametrize("wrong", [-1000.0, 700.0, np.nan])
def test_hu_and_nan_are_refused_as_attenuation(wrong):
    image = np.zeros((8, 8), dtype=np.float32)
    image[3, 3] = wrong
    with pytest.raises(ValueError, match=r"expected attenuation per mm.*hu_to_attenuation"):
        project(image, spacing_mm=1.0)
