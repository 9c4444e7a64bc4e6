"""``ctrestore upscale``: what goes in comes out on a finer grid that covers the same patient, in its own form."""

from __future__ import annotations

import io
import json
import shutil
from contextlib import redirect_stderr
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
import torch
from nibabel.affines import apply_affine
from PIL import Image

from ctrestore.commands import main as cli
from ctrestore.ct import coarser_affine, finer_affine, lower_resolution, pixels_as_blocks
from ctrestore.io.dicom import load_series, write_phantom_series
from tests.commands.test_denoise import read, write
from tests.conftest import ROOT

CONFIGS = ROOT / "bundles" / "ct_super_resolution" / "configs"
LANCZOS = {"_target_": "ctrestore.networks.Interpolation", "scale": "@scale", "kernel": "lanczos"}
FINE = np.array([[-0.7, 0, 0, 11], [0, -0.7, 0, 12], [0, 0, 2.5, -30], [0, 0, 0, 1.0]])
COARSE = coarser_affine(FINE, factors=(2, 2))
CENTRE_MM = np.array([-10.3, -16.9, -25.0])


class Blocks(torch.nn.Module):
    """A network that repeats every pixel, so that what comes out is known to the last bit."""

    def __init__(self, scale: int) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return pixels_as_blocks(x, factors=(self.scale, self.scale))


BLOCKS = {"_target_": f"{__name__}.Blocks", "scale": "@scale"}


@pytest.fixture
def bundle(tmp_path):
    """Make a bundle of inference.json with a given network and no weights."""

    def make(network: dict | None = None, **changes) -> Path:
        folder = tmp_path / "bundles" / "ct_super_resolution"
        (folder / "configs").mkdir(parents=True, exist_ok=True)
        config = json.loads((CONFIGS / "inference.json").read_text())
        config |= {"network_def": network or LANCZOS, "weights": "none", "device": "cpu", "amp": False} | changes
        (folder / "configs" / "inference.json").write_text(json.dumps(config))
        shutil.copy(CONFIGS / "logging.conf", folder / "configs")
        (folder / "configs" / "metadata.json").write_text(json.dumps({"version": "1.2.3"}))
        return folder

    return make


def upscale(*arguments) -> int:
    """Exit status 0; where it is another, what the command printed to stderr is raised as SystemExit."""
    with redirect_stderr(io.StringIO()) as printed:
        status = cli.main(["upscale", *map(str, arguments)])
    if status:
        raise SystemExit(printed.getvalue())
    return status


@pytest.fixture
def fine() -> np.ndarray:
    """A smooth ball of a known centre in a body, HU ``(x, y, z)``; nothing is symmetric about the middle."""
    grid = np.stack(np.mgrid[:96, :80, :5], axis=-1)
    distance_mm = np.linalg.norm((apply_affine(FINE, grid) - CENTRE_MM)[..., :2], axis=-1)
    x, y = grid[..., 0], grid[..., 1]
    body = ((x - 45) / 42) ** 2 + ((y - 37) / 33) ** 2 < 1
    return np.where(body, 0.0, -1000.0) + 300 * np.exp(-((distance_mm / 3.5) ** 2))


@pytest.fixture
def volume(fine) -> np.ndarray:
    """The scan: its means over blocks of 2 x 2, whole HU."""
    return np.rint(lower_resolution(fine, factors=(2, 2, 1)))


def centre_of_ball_mm(volume: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Where the brightest part of a volume has its centre of mass, in the plane."""
    weight = np.clip(volume - 150, 0, None)  # Lanczos overshoots by less beside the air
    grid = np.stack(np.indices(volume.shape), axis=-1)
    return (apply_affine(affine, grid) * weight[..., None]).sum(axis=(0, 1, 2))[:2] / weight.sum()


# ---- The place in the patient


def test_a_point_of_the_patient_stays_where_it_is(bundle, tmp_path, volume):
    scan = write(tmp_path / "scan.nii.gz", volume, affine=COARSE)
    write_phantom_series(volume, COARSE, tmp_path / "series")
    assert upscale(scan, tmp_path / "out.nii.gz", "--bundle", bundle()) == 0
    assert upscale(tmp_path / "series", tmp_path / "out", "--bundle", bundle()) == 0
    image = nib.load(tmp_path / "out.nii.gz")
    series = load_series(tmp_path / "out")
    for found, affine in ((image.get_fdata(), image.affine), (series.volume, series.affine)):
        assert found.shape == (96, 80, 5)
        np.testing.assert_allclose(affine, FINE, atol=1e-4)
        # a grid that kept the first pixel's centre would be off by a quarter of 1.4 mm, 0.35 mm
        np.testing.assert_allclose(centre_of_ball_mm(found, affine), CENTRE_MM[:2], atol=0.1)


def test_both_grids_have_the_same_outline(bundle, tmp_path, volume):
    write_phantom_series(volume, COARSE, tmp_path / "series")
    before = {d.InstanceNumber: d for d in map(pydicom.dcmread, sorted((tmp_path / "series").iterdir()))}
    for scale in (1, 2, 3):
        assert upscale(tmp_path / "series", tmp_path / f"x{scale}", "--bundle", bundle(), "--scale", scale) == 0
        for path in (tmp_path / f"x{scale}").iterdir():
            after = pydicom.dcmread(path)
            source = before[after.InstanceNumber]
            assert (after.Rows, after.Columns) == (scale * source.Rows, scale * source.Columns)
            corners = [
                np.array(d.ImagePositionPatient, float)
                - 0.5 * float(d.PixelSpacing[1]) * np.array(d.ImageOrientationPatient[:3], float)
                - 0.5 * float(d.PixelSpacing[0]) * np.array(d.ImageOrientationPatient[3:], float)
                for d in (source, after)
            ]
            np.testing.assert_allclose(corners[1], corners[0], atol=1e-5)
            np.testing.assert_allclose(after.Rows * after.PixelSpacing[0], source.Rows * source.PixelSpacing[0])
            assert after.SliceThickness == source.SliceThickness
            assert after.SourceImageSequence[0].SpatialLocationsPreserved == ("YES" if scale == 1 else "NO")


def test_a_tilted_gantry_stays_tilted(bundle, tmp_path, volume):
    source = tmp_path / "series"
    for path in write_phantom_series(volume, COARSE, source):
        image = pydicom.dcmread(path)
        image.ImagePositionPatient[1] += 0.7 * int(image.InstanceNumber)
        image.GantryDetectorTilt = 15.6
        image.save_as(path)
    assert upscale(source, tmp_path / "out", "--bundle", bundle(BLOCKS)) == 0
    before, after = (
        {d.InstanceNumber: d for d in (pydicom.dcmread(path) for path in sorted(folder.iterdir()))}
        for folder in (source, tmp_path / "out")
    )
    assert before.keys() == after.keys()
    moves = [np.subtract(after[k].ImagePositionPatient, before[k].ImagePositionPatient) for k in before]
    spacing = np.array(before[min(before)].PixelSpacing, float)
    directions = np.reshape(np.array(before[min(before)].ImageOrientationPatient, float), (2, 3))
    np.testing.assert_allclose(moves, np.tile(-0.25 * spacing[::-1] @ directions, (len(moves), 1)), atol=1e-5)
    for k in before:
        np.testing.assert_array_equal(after[k].pixel_array, pixels_as_blocks(before[k].pixel_array, factors=(2, 2)))
        assert after[k].get("GantryDetectorTilt") == before[k].get("GantryDetectorTilt")


@pytest.mark.parametrize("axes", ["RAS", "LPS", "SAL", "PIR"])
def test_slices_are_found_and_refined_whichever_way_a_file_stores_its_axes(bundle, tmp_path, volume, axes):
    image = nib.Nifti1Image(volume.astype(np.int16), COARSE)
    turned = image.as_reoriented(
        nib.orientations.ornt_transform(nib.io_orientation(COARSE), nib.orientations.axcodes2ornt(axes))
    )
    nib.save(turned, tmp_path / "scan.nii")
    assert upscale(tmp_path / "scan.nii", tmp_path / "out.nii", "--bundle", bundle()) == 0
    found = nib.load(tmp_path / "out.nii")
    assert "".join(nib.aff2axcodes(found.affine)) == axes
    assert sorted(found.shape) == [5, 80, 96]
    turns = nib.orientations.ornt_transform(nib.io_orientation(found.affine), nib.io_orientation(FINE))
    back = found.as_reoriented(turns)
    np.testing.assert_allclose(back.affine, FINE, atol=1e-4)
    np.testing.assert_allclose(centre_of_ball_mm(back.get_fdata(), back.affine), CENTRE_MM[:2], atol=0.1)


@pytest.mark.parametrize(("sform", "qform"), [(1, 0), (0, 1), (2, 1), (0, 0)])
def test_a_header_says_the_finer_grid_in_every_way_it_said_the_coarse_one(bundle, tmp_path, volume, sform, qform):
    image = nib.Nifti1Image(volume.astype(np.int16), None)
    image.header.set_xyzt_units("mm")
    image.header.set_zooms(nib.affines.voxel_sizes(COARSE))
    image.set_sform(COARSE if sform else None, sform)
    image.set_qform(COARSE if qform else None, qform)
    nib.save(image, tmp_path / "scan.nii")
    before = nib.load(tmp_path / "scan.nii")
    assert upscale(tmp_path / "scan.nii", tmp_path / "out.nii", "--bundle", bundle()) == 0
    after = nib.load(tmp_path / "out.nii")
    assert (int(after.header["sform_code"]), int(after.header["qform_code"])) == (sform, qform)
    np.testing.assert_allclose(after.header.get_zooms(), (0.7, 0.7, 2.5), rtol=1e-6)
    np.testing.assert_allclose(coarser_affine(after.affine, factors=(2, 2)), before.affine, atol=1e-4)
    if sform and qform:
        np.testing.assert_allclose(after.get_qform(), after.get_sform(), atol=1e-4)


# ---- The values


def test_the_means_of_the_finer_pixels_are_the_scan_where_the_network_keeps_them(bundle, tmp_path, volume):
    scan = write(tmp_path / "scan.nii.gz", volume, affine=COARSE)
    for scale in (1, 2, 4):
        assert upscale(scan, tmp_path / f"{scale}.nii.gz", "--bundle", bundle(BLOCKS), "--scale", scale) == 0
        found = read(tmp_path / f"{scale}.nii.gz")
        np.testing.assert_array_equal(lower_resolution(found, factors=(scale, scale, 1)), volume)


def test_metal_and_padding_become_blocks_of_their_own_value(bundle, tmp_path, volume):
    hu = volume.copy()
    hu[:3, :, :] = -2048  # a corner of padding
    hu[20:22, 20:22, 1] = 5000
    scan = write(tmp_path / "scan.nii.gz", hu, affine=COARSE)
    assert upscale(scan, tmp_path / "out.nii.gz", "--bundle", bundle()) == 0
    found = read(tmp_path / "out.nii.gz")
    assert (found[:6] == -2048).all()
    assert (found[40:44, 40:44, 1] == 5000).all()
    assert found[6:].min() > -1200

    for path in write_phantom_series(np.maximum(hu, -1024).clip(max=3000), COARSE, tmp_path / "in"):
        image = pydicom.dcmread(path)
        pixels = image.pixel_array.copy()
        pixels[hu[..., image.InstanceNumber - 1].T == -2048] = -2000
        image.PixelData = pixels.tobytes()
        image.add_new("PixelPaddingValue", "SS", -2000)
        image.save_as(path)
    assert upscale(tmp_path / "in", tmp_path / "out", "--bundle", bundle()) == 0
    for path in (tmp_path / "out").iterdir():
        image = pydicom.dcmread(path)
        assert (image.pixel_array[:, :6] == -2000).all()
        assert (image.pixel_array[:, 6:] != -2000).all()
        assert image.PixelPaddingValue == -2000


def test_a_derived_series_says_what_was_done(bundle, tmp_path, volume):
    write_phantom_series(volume, COARSE, tmp_path / "in", description="Thorax")
    assert upscale(tmp_path / "in", tmp_path / "out", "--bundle", bundle()) == 0
    image = pydicom.dcmread(sorted((tmp_path / "out").iterdir())[0])
    assert image.SeriesDescription == "Thorax upscaled x2"
    assert "upscaled x2: ct_super_resolution 1.2.3" in image.DerivationDescription
    assert list(image.ImageType[:2]) == ["DERIVED", "SECONDARY"]


@pytest.mark.parametrize("network", ["default", "vdsr"])
def test_tiles_and_batches_give_what_whole_slices_give(bundle, tmp_path, network):
    names = {"default": "ctrestore.networks.SubPixelUNet", "vdsr": "ctrestore.networks.VDSR"}
    torch.manual_seed(0)
    made = {"default": {"features": (6, 8, 8)}, "vdsr": {"depth": 4, "features": 6}}[network]
    definition = {"_target_": names[network], "scale": "@scale", **made}
    module = __import__("ctrestore.networks", fromlist=["x"])
    trained = getattr(module, names[network].rsplit(".", 1)[1])(scale=2, **made)
    for parameter in trained.head.parameters():
        torch.nn.init.normal_(parameter, std=0.05)  # an untrained network is an interpolation
    torch.save(trained.state_dict(), tmp_path / "w.pt")
    noisy = np.random.default_rng(0).normal(-500, 200, (150, 170, 2))
    scan = write(tmp_path / "scan.nii.gz", noisy, affine=COARSE, dtype=np.float32)
    folder = bundle(definition)
    for name, *options in (("whole",), ("batch", "--batch-slices", 1), ("tiles", "--tile", 144)):
        arguments = ("--bundle", folder, "--weights", tmp_path / "w.pt", *options)
        assert upscale(scan, tmp_path / f"{name}.nii.gz", *arguments) == 0
    whole = read(tmp_path / "whole.nii.gz")
    assert whole.shape == (300, 340, 2)
    np.testing.assert_allclose(read(tmp_path / "batch.nii.gz"), whole, atol=0.01)
    np.testing.assert_allclose(read(tmp_path / "tiles.nii.gz"), whole, atol=0.01)  # HU


def test_one_line_tells_what_changed_at_the_size_of_the_scan_s_own_pixels(bundle, tmp_path, volume, capsys):
    noisy = volume + np.random.default_rng(0).normal(0, 20, volume.shape)
    scan = write(tmp_path / "scan.nii.gz", noisy, affine=COARSE)
    assert upscale(scan, tmp_path / "out.nii.gz", "--bundle", bundle(BLOCKS)) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith(str(scan))]
    before, after = line.split("noise in soft tissue ")[1].split(" HU")[0].split(" -> ")
    assert before == after
    assert " -0.0," in line or " +0.0," in line


# ---- Thick slices


@pytest.mark.parametrize("n", [2, 3])
@pytest.mark.parametrize("kind", ["nifti", "series"])
def test_slices_between_lie_where_they_should_and_follow_a_ramp(bundle, tmp_path, volume, n, kind):
    """A ramp through the plane is a ramp on the finer grid, but for three slices at its ends."""
    ramp = np.where(volume[..., :1] > -500, 0, -1000) + 10.0 * np.arange(12)
    options = ("--bundle", bundle(BLOCKS), "--scale", 1, "--through-plane", n)
    if kind == "nifti":
        scan = write(tmp_path / "scan.nii.gz", ramp, affine=COARSE, dtype=np.float32)
        assert upscale(scan, tmp_path / "out.nii.gz", *options) == 0
        image = nib.load(tmp_path / "out.nii.gz")
        found, affine = image.get_fdata(), image.affine
    else:
        write_phantom_series(ramp, COARSE, tmp_path / "series")
        assert upscale(tmp_path / "series", tmp_path / "out", *options) == 0
        series = load_series(tmp_path / "out")
        found, affine = series.volume, series.affine
    assert found.shape == (48, 40, 12 * n)
    np.testing.assert_allclose(coarser_affine(affine, factors=(1, 1, n)), COARSE, atol=1e-4)
    z_mm = apply_affine(affine, np.stack([np.zeros(12 * n), np.zeros(12 * n), np.arange(12 * n)], axis=-1))[:, 2]
    expected = 10 * (z_mm - COARSE[2, 3]) / COARSE[2, 2]  # of the ramp at this place
    inner = slice(3 * n, -3 * n)
    np.testing.assert_allclose((found - found[..., :1])[24, 20, inner] + found[24, 20, 0], expected[inner], atol=1.5)


def test_both_planes_at_once_and_padding_stays(bundle, tmp_path, volume):
    hu = volume.copy()
    hu[:3] = -2048
    scan = write(tmp_path / "scan.nii.gz", hu, affine=COARSE)
    assert upscale(scan, tmp_path / "out.nii.gz", "--bundle", bundle(), "--through-plane", 2) == 0
    image = nib.load(tmp_path / "out.nii.gz")
    assert image.shape == (96, 80, 10)
    assert (image.get_fdata()[:6] == -2048).all()
    np.testing.assert_allclose(image.affine, finer_affine(COARSE, factors=(2, 2, 2)), atol=1e-4)


def test_one_slice_has_nothing_between(bundle, tmp_path, volume):
    scan = write(tmp_path / "scan.nii.gz", volume[..., :1], affine=COARSE)
    with pytest.raises(SystemExit, match="one slice has none beside it"):
        upscale(scan, tmp_path / "out.nii.gz", "--bundle", bundle(), "--through-plane", 2)
    assert not (tmp_path / "out.nii.gz").exists()


# ---- Folders, and nothing half


def test_files_keep_their_names_and_a_bad_one_is_named_while_the_others_finish(bundle, tmp_path, volume):
    write(tmp_path / "in" / "a.nii.gz", volume, affine=COARSE)
    write(tmp_path / "in" / "b.nii", volume, affine=COARSE)
    write(tmp_path / "in" / "wide.nii", volume, affine=COARSE @ np.diag([1, 1.2, 1, 1]))
    with pytest.raises(SystemExit, match="wide.nii: expected square pixels, found 1.4 x 1.68 mm"):
        upscale(tmp_path / "in", tmp_path / "out", "--bundle", bundle())
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.nii.gz", "b.nii"]
    assert read(tmp_path / "out" / "b.nii").shape == (96, 80, 5)


def test_an_interrupted_run_leaves_nothing(bundle, tmp_path, volume):
    write_phantom_series(volume, COARSE, tmp_path / "in")
    network = {"_target_": "tests.commands.test_denoise.Failing", "error": "RuntimeError", "brightest_hu": volume.max()}
    with pytest.raises(SystemExit):
        upscale(tmp_path / "in", tmp_path / "out", "--bundle", bundle(network), "--batch-slices", 1)
    assert not list(tmp_path.glob("out*"))


# ---- What is refused


def test_a_series_without_the_size_of_its_pixels_is_refused(bundle, tmp_path, volume):
    for path in write_phantom_series(volume, COARSE, tmp_path / "in"):
        image = pydicom.dcmread(path)
        del image.PixelSpacing
        image.save_as(path)
    with pytest.raises(SystemExit, match="no PixelSpacing"):
        upscale(tmp_path / "in", tmp_path / "out", "--bundle", bundle())


def test_a_series_of_pixels_that_are_not_square_is_refused(bundle, tmp_path, volume):
    write_phantom_series(volume, COARSE @ np.diag([1, 1.5, 1, 1]), tmp_path / "in")
    with pytest.raises(SystemExit, match=r"expected square pixels, found 1.4 x 2.1 mm.*Remedy"):
        upscale(tmp_path / "in", tmp_path / "out", "--bundle", bundle())


def test_a_scale_without_weights_is_refused_with_those_that_there_are(tmp_path, volume):
    folder = tmp_path / "ct_super_resolution"
    shutil.copytree(CONFIGS, folder / "configs")
    (folder / "models").mkdir()
    (folder / "models" / "x4.pt").touch()
    scan = write(tmp_path / "scan.nii.gz", volume, affine=COARSE)
    with pytest.raises(SystemExit, match=r"no weights for scale 3: no .*x3.pt \(there: x4.pt"):
        upscale(scan, tmp_path / "out.nii.gz", "--bundle", folder, "--scale", 3)
    with pytest.raises(SystemExit, match=r"no weights for scale 3: no .*espcn_x3.pt"):
        upscale(scan, tmp_path / "out.nii.gz", "--bundle", folder, "--scale", 3, "--config", "espcn")
    with pytest.raises(SystemExit):  # by argparse
        upscale(scan, tmp_path / "out.nii.gz", "--bundle", folder, "--scale", 0)


def test_weights_of_another_scale_are_refused(bundle, tmp_path, volume):
    definition = {"_target_": "ctrestore.networks.ESPCN", "scale": "@scale", "features": [4, 4]}
    module = __import__("ctrestore.networks", fromlist=["x"])
    torch.save(module.ESPCN(scale=2, features=(4, 4)).state_dict(), tmp_path / "x2.pt")
    scan = write(tmp_path / "scan.nii.gz", volume, affine=COARSE)
    with pytest.raises(SystemExit, match="x2.pt does not fit ESPCN"):
        upscale(scan, tmp_path / "o.nii", "--bundle", bundle(definition), "--scale", 3, "--weights", tmp_path / "x2.pt")


def test_slices_smaller_than_the_network_looks_are_refused(bundle, tmp_path, volume):
    scan = write(tmp_path / "scan.nii.gz", volume[:20], affine=COARSE)
    with pytest.raises(SystemExit, match="slices of 20 x 40 pixels; the network needs 32 a side"):
        upscale(scan, tmp_path / "out.nii.gz", "--bundle", bundle())


# ---- Pictures


@pytest.fixture
def picture(tmp_path) -> Path:
    x, y = np.mgrid[:40, :48]
    grey = np.clip(100 + x + y, 1, 254).astype(np.uint8)
    grey[:8], grey[30:34] = 0, 255
    (tmp_path / "in").mkdir()
    Image.fromarray(grey).save(tmp_path / "in" / "slice.png")
    return tmp_path / "in" / "slice.png"


def test_pictures_become_pngs_of_the_finer_grid(bundle, tmp_path, picture):
    Image.open(picture).convert("RGB").save(tmp_path / "in" / "grey_as_colour.png")
    assert upscale(tmp_path / "in", tmp_path / "out", "--bundle", bundle(BLOCKS), "--window", -600, 1500) == 0
    expected = pixels_as_blocks(np.asarray(Image.open(picture)), factors=(2, 2))
    for name in ("slice.png", "grey_as_colour.png"):
        found = Image.open(tmp_path / "out" / name)
        assert found.mode == "L"
        np.testing.assert_array_equal(np.asarray(found), expected)


def test_an_edge_to_black_is_not_made_of_blocks(bundle, tmp_path, picture):
    assert upscale(picture, tmp_path / "out.png", "--bundle", bundle(), "--window", 40, 400) == 0
    column = np.asarray(Image.open(tmp_path / "out.png"))[8:20, 40].astype(int)  # the edge lies between 15 and 16
    assert (column[:3] == 0).all()
    assert 0 < column[7] < column[8] < column[9]  # it rises within the first black pixel; blocks would not


def test_a_picture_needs_a_window_and_no_colour(bundle, tmp_path, picture):
    with pytest.raises(SystemExit, match="--window LEVEL WIDTH"):
        upscale(picture, tmp_path / "out.png", "--bundle", bundle())
    colour = np.zeros((40, 40, 3), np.uint8)
    colour[..., 0] = 200
    Image.fromarray(colour).save(picture)
    with pytest.raises(SystemExit, match="a picture in colour"):
        upscale(picture, tmp_path / "out.png", "--bundle", bundle(), "--window", -600, 1500)
    assert not (tmp_path / "out.png").exists()
