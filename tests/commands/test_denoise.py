"""``ctrestore denoise``: what goes in comes out restored, in its own form, and nothing else of it changes."""

from __future__ import annotations

import hashlib
import importlib.util
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
from PIL import Image

from ctrestore.commands import main as cli
from ctrestore.io.dicom import load_series, open_series, write_phantom_series
from ctrestore.tasks.ct_restoration.changes import Changes
from tests.conftest import ROOT

SCRIPT = ROOT / "benchmarks" / "dicom_matrix.py"
spec = importlib.util.spec_from_file_location("dicom_matrix_for_inference", SCRIPT)
assert spec is not None
assert spec.loader is not None
matrix = importlib.util.module_from_spec(spec)
spec.loader.exec_module(matrix)

CONFIGS = ROOT / "bundles" / "ldct_denoising" / "configs"
IDENTITY = {"_target_": "torch.nn.Identity"}
# A network without weights that takes noise out: the mean of 3 x 3 pixels.
SMOOTHING = {"_target_": "torch.nn.AvgPool2d", "kernel_size": 3, "stride": 1, "padding": 1, "count_include_pad": False}
AFFINE = np.array([[-0.7, 0, 0, 11], [0, -0.7, 0, 12], [0, 0, 2.5, -30], [0, 0, 0, 1.0]])


class Failing(torch.nn.Module):
    """A network that raises an error on the slices whose brightest pixel is a given value."""

    def __init__(self, error: str, brightest_hu: float) -> None:
        super().__init__()
        self.error, self.brightest = error, brightest_hu / 1000

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if (x.amax(dim=(1, 2, 3)) - self.brightest).abs().min() < 1e-4:
            raise {"RuntimeError": RuntimeError("out of memory"), "KeyboardInterrupt": KeyboardInterrupt()}[self.error]
        return x


@pytest.fixture
def bundle(tmp_path):
    """Make a bundle of inference.json with a given network and no weights."""

    def make(network: dict | None = None, name: str = "ldct_denoising", **changes) -> Path:
        folder = tmp_path / "bundles" / name
        (folder / "configs").mkdir(parents=True, exist_ok=True)
        config = json.loads((CONFIGS / "inference.json").read_text())
        config |= {"network_def": network or IDENTITY, "weights": "none", "told_dose": False, "strength": 1.0}
        config |= {"device": "cpu"} | changes
        (folder / "configs" / "inference.json").write_text(json.dumps(config))
        shutil.copy(CONFIGS / "logging.conf", folder / "configs")
        (folder / "configs" / "metadata.json").write_text(json.dumps({"version": "1.2.3"}))
        return folder

    return make


def denoise(*arguments) -> int:
    """Exit status 0; where it is another, the error that the command printed is raised as SystemExit."""
    with redirect_stderr(io.StringIO()) as printed:
        status = cli.main(["denoise", *map(str, arguments)])
    if status:
        said = printed.getvalue()  # after the progress, which names every scan
        raise SystemExit(said[said.index("ctrestore: error:") :])
    return status


@pytest.fixture
def volume() -> np.ndarray:
    """A noisy body in air with a bone in it, whole HU, ``(x, y, z)``; different in every direction."""
    x, y, z = np.mgrid[:48, :40, :5]
    hu = np.where(((x - 22) / 20) ** 2 + ((y - 18) / 16) ** 2 < 1, 40.0, -1000.0)
    hu += np.random.default_rng(0).normal(0, 20, hu.shape) + 0.5 * x
    hu[30:34, 8:12] = 900 + 10 * z[30:34, 8:12]
    return np.rint(hu).clip(-1024, 1900)


def write(path: Path, volume: np.ndarray, affine: np.ndarray = AFFINE, dtype: type = np.int16, **scaling) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(volume.astype(dtype), affine)
    image.header.set_xyzt_units("mm", "sec")
    if scaling:
        image.header.set_slope_inter(scaling["slope"], scaling["intercept"])
    nib.save(image, path)
    return path


def read(path: Path) -> np.ndarray:
    return nib.load(path).get_fdata(dtype=np.float32)


def stored_of(folder: Path) -> dict[float, np.ndarray]:
    """Pixels of a series by the position of the slice."""
    images = [pydicom.dcmread(path) for path in folder.iterdir()]
    return {float(image.ImagePositionPatient[2]): image.pixel_array for image in images}


def smoothed(volume: np.ndarray) -> np.ndarray:
    """What the smoothing network makes of slices ``(x, y, z)``."""
    slices = torch.from_numpy(volume.astype(np.float32)).permute(2, 0, 1)[:, None].clip(-1200, 2000)
    options = {key: value for key, value in SMOOTHING.items() if key != "_target_"}
    return torch.nn.AvgPool2d(**options)(slices)[:, 0].permute(1, 2, 0).numpy()


# ---- The DICOM matrix through a network that changes nothing

RESTORED = (matrix.loaded, matrix.masked, matrix.round_trip)
OTHERWISE = {  # by slices, what a volume cannot do is no obstacle
    "gantry tilt": "HU equal",
    "one slice": "HU equal",
    "two series, none named": "HU equal",
    "PET, another slope a slice": "refused: expected CT, found 6 slices of PT",
    "PET in counts": "refused: expected CT, found 6 slices of PT",
    "MR": "refused: expected CT, found 6 x MR",
}
CASES = [
    (case, OTHERWISE.get(case, expected), make)
    for case, expected, make, act in matrix.CASES
    if act in RESTORED or case in OTHERWISE
]


@pytest.mark.parametrize(("case", "expected", "make"), CASES, ids=[case[0] for case in CASES])
def test_a_network_that_changes_nothing_gives_the_stored_values_back(bundle, tmp_path, case, expected, make):
    source, out = make(tmp_path / "series"), tmp_path / "out"
    if expected.startswith("refused: "):
        with pytest.raises(SystemExit, match="ctrestore: error") as refusal:
            denoise(source, out, "--bundle", bundle())
        assert expected.removeprefix("refused: ") in str(refusal.value)
        assert not out.exists() or not any(out.iterdir())
        return
    assert denoise(source, out, "--bundle", bundle()) == 0
    if case == "gantry tilt":
        for z, pixels in stored_of(out).items():
            np.testing.assert_array_equal(pixels, stored_of(source)[z])
    elif case == "two series, none named":
        assert sum(len(list(folder.iterdir())) for folder in out.iterdir()) == 7
    else:
        before, after = (load_series(folder, modality="CT", single_slice=True) for folder in (source, out))
        np.testing.assert_array_equal(after.volume, before.volume)
        np.testing.assert_array_equal(after.affine, before.affine)
        assert (before.padding is None) == (after.padding is None)


# ---- The same HU, whatever the scan is stored as

STORED_AS = {
    "as DICOM has it": np.eye(4),
    "upside down, as dcm2niix writes it": np.array([[1, 0, 0, 0], [0, -1, 0, 39], [0, 0, 1, 0], [0, 0, 0, 1.0]]),
    "slices first": np.array([[0, 1, 0, 0], [0, 0, 1, 0], [1, 0, 0, 0], [0, 0, 0, 1.0]]),
    "rows and columns swapped, feet first": np.array([[0, 1, 0, 0], [1, 0, 0, 0], [0, 0, -1, 4], [0, 0, 0, 1.0]]),
}


def stored_as(volume: np.ndarray, to_original: np.ndarray) -> np.ndarray:
    """The array whose voxel v is voxel ``to_original @ v`` of the volume."""
    axes = np.abs(to_original[:3, :3]).argmax(axis=0)
    flips = [slice(None, None, int(to_original[axis, k])) for k, axis in enumerate(axes)]
    return np.transpose(volume, axes)[tuple(flips)]


@pytest.mark.parametrize("layout", STORED_AS)
def test_dicom_and_nifti_of_the_same_volume_give_the_same_hu(bundle, tmp_path, volume, layout):
    # Asymmetric, so that a network that sees the picture turned makes something else of it.
    kernel = torch.tensor([[0.0, 0.11, 0.23], [0.0, 0.47, 0.13], [0.0, 0.0, 0.06]])
    network = torch.nn.Conv2d(1, 1, 3, padding=1, bias=False)
    network.weight.data[0, 0] = kernel
    torch.save(network.state_dict(), tmp_path / "weights.pt")
    conv = {"_target_": "torch.nn.Conv2d", "in_channels": 1, "out_channels": 1, "kernel_size": 3, "padding": 1}
    folder = bundle({**conv, "bias": False}, weights=str(tmp_path / "weights.pt"), amp=False)

    write_phantom_series(volume, AFFINE, tmp_path / "series")
    to_original = STORED_AS[layout]
    write(tmp_path / "scan.nii.gz", stored_as(volume, to_original), AFFINE @ to_original)
    assert denoise(tmp_path / "series", tmp_path / "out", "--bundle", folder) == 0
    assert denoise(tmp_path / "scan.nii.gz", tmp_path / "out.nii.gz", "--bundle", folder) == 0
    restored = load_series(tmp_path / "out").volume
    assert np.abs(restored - volume).max() > 50
    difference = np.abs(read(tmp_path / "out.nii.gz") - stored_as(restored, to_original))
    assert difference.max() <= 1
    assert difference.mean() < 0.001  # where a value lies between two whole HU, the order of a sum decides
    np.testing.assert_array_equal(nib.load(tmp_path / "out.nii.gz").affine, nib.load(tmp_path / "scan.nii.gz").affine)


# ---- What must not change


def with_extremes(volume: np.ndarray) -> np.ndarray:
    """With metal, and padding around a round field of view."""
    hu = volume.copy()
    x, y, _ = np.mgrid[:48, :40, :5]
    hu[np.hypot(x - 23, y - 19) > 26] = -3024
    hu[20:24, 20:24] = 3071
    return hu


@pytest.mark.parametrize(
    ("dtype", "scaling"),
    [
        (np.int16, {}),
        (np.uint16, {"slope": 1.0, "intercept": -4096.0}),
        (np.int16, {"slope": 0.5, "intercept": -1000.0}),
        (np.float32, {}),
        (np.float64, {}),
        (np.dtype(">i2"), {}),
    ],
)
def test_metal_and_padding_of_a_nifti_stay_bit_for_bit_and_so_do_header_and_type(
    bundle, tmp_path, volume, dtype, scaling
):
    hu = with_extremes(volume)
    slope, intercept = scaling.get("slope", 1.0), scaling.get("intercept", 0.0)
    scan = write(tmp_path / "in" / "scan.nii.gz", (hu - intercept) / slope, dtype=dtype, **scaling)
    assert denoise(tmp_path / "in", tmp_path / "out", "--bundle", bundle(SMOOTHING, amp=False)) == 0
    before, after = nib.load(scan), nib.load(tmp_path / "out" / "scan.nii.gz")
    assert after.get_data_dtype() == before.get_data_dtype()
    assert (after.dataobj.slope, after.dataobj.inter) == (before.dataobj.slope, before.dataobj.inter)
    for name in ("pixdim", "sform_code", "qform_code", "xyzt_units", "dim"):
        np.testing.assert_array_equal(after.header[name], before.header[name])
    outside = (hu < -1200) | (hu > 2000)
    assert outside.any()
    np.testing.assert_array_equal(after.dataobj.get_unscaled()[outside], before.dataobj.get_unscaled()[outside])
    expected = smoothed(np.where(hu == -3024, -1000, hu))  # padding is air to the network
    np.testing.assert_allclose(read(tmp_path / "out" / "scan.nii.gz")[~outside], expected[~outside], atol=0.51 * slope)


def test_metal_and_padding_of_a_series_stay_bit_for_bit(bundle, tmp_path, volume):
    hu = with_extremes(volume)
    for path in write_phantom_series(np.maximum(hu, -1024), AFFINE, tmp_path / "in"):
        image = pydicom.dcmread(path)
        pixels = image.pixel_array.copy()
        pixels[hu[..., image.InstanceNumber - 1].T == -3024] = -2000
        image.PixelData = pixels.tobytes()
        image.add_new("PixelPaddingValue", "SS", -2000)
        image.save_as(path)
    assert denoise(tmp_path / "in", tmp_path / "out", "--bundle", bundle(SMOOTHING, amp=False)) == 0
    before, after = stored_of(tmp_path / "in"), stored_of(tmp_path / "out")
    for z, pixels in before.items():
        same = (pixels == -2000) | (pixels > 3024)
        np.testing.assert_array_equal(after[z][same], pixels[same])
        assert (after[z][~same] != pixels[~same]).mean() > 0.5


def test_strength_mixes_the_restored_with_the_original(bundle, tmp_path, volume):
    scan = write(tmp_path / "scan.nii.gz", volume, dtype=np.float32)
    for strength in (0, 0.5, 1):
        options = ("--bundle", bundle(SMOOTHING, amp=False), "--strength", strength)
        assert denoise(scan, tmp_path / f"{strength}.nii.gz", *options) == 0
    none, half, whole = (read(tmp_path / f"{strength}.nii.gz") for strength in (0, 0.5, 1))
    np.testing.assert_array_equal(none, volume)
    np.testing.assert_allclose(half, (volume + whole) / 2, atol=1e-3)
    with pytest.raises(SystemExit):
        denoise(scan, tmp_path / "2.nii.gz", "--strength", 2)


def test_batches_and_tiles_give_the_same_slices(bundle, tmp_path, volume):
    scan = write(tmp_path / "scan.nii.gz", np.pad(volume, ((20, 20), (20, 20), (0, 0)), constant_values=-1000))
    for name, *options in (("a",), ("b", "--batch-slices", 2), ("c", "--tile", 64)):
        folder = bundle(SMOOTHING, amp=False, tile_margin=16)
        assert denoise(scan, tmp_path / f"{name}.nii.gz", "--bundle", folder, *options) == 0
    np.testing.assert_array_equal(read(tmp_path / "a.nii.gz"), read(tmp_path / "b.nii.gz"))
    np.testing.assert_array_equal(read(tmp_path / "a.nii.gz"), read(tmp_path / "c.nii.gz"))


# ---- What is said


def test_a_derived_series_names_the_model_its_version_and_its_weights(bundle, tmp_path, volume):
    write_phantom_series(volume, AFFINE, tmp_path / "in", description="Thorax")
    network = torch.nn.Conv2d(1, 1, 1)
    torch.save(network.state_dict(), tmp_path / "w.pt")
    conv = {"_target_": "torch.nn.Conv2d", "in_channels": 1, "out_channels": 1, "kernel_size": 1}
    assert denoise(tmp_path / "in", tmp_path / "out", "--bundle", bundle(conv), "--weights", tmp_path / "w.pt") == 0
    image = pydicom.dcmread(sorted((tmp_path / "out").iterdir())[0])
    checksum = hashlib.sha256((tmp_path / "w.pt").read_bytes()).hexdigest()
    assert image.SeriesDescription == "Thorax denoised"
    assert f"ldct_denoising 1.2.3, weights sha256 {checksum}" in image.DerivationDescription
    assert list(image.ImageType[:2]) == ["DERIVED", "SECONDARY"]


def test_one_line_tells_what_changed(bundle, tmp_path, volume, capsys):
    scan = write(tmp_path / "scan.nii.gz", volume)
    assert denoise(scan, tmp_path / "out.nii.gz", "--bundle", bundle(SMOOTHING)) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith(str(scan))]
    assert "noise in soft tissue" in line
    assert "mean shift in HU: air" in line
    assert line.endswith(f"written to {tmp_path / 'out.nii.gz'}")


def test_the_summary_measures_noise_and_shift_where_they_are():
    x = np.arange(96)
    truth = np.where(x < 32, -1000.0, np.where(x < 64, 50.0, -90.0))[:, None] * np.ones(96)
    noise = np.random.default_rng(1).normal(0, 20, truth.shape)
    changes = Changes()
    for _ in range(3):
        changes.count(truth + noise, truth + 0.25 * noise + np.where(truth == 50, 2.0, 0.0), np.zeros_like(truth, bool))
    before, after = changes.noise_hu
    assert before == pytest.approx(20, rel=0.15)
    assert after == pytest.approx(before / 4, rel=0.15)
    assert changes.shift_hu["soft tissue"] == pytest.approx(2.0, abs=1.0)  # 1500 pixels of 15 HU
    assert changes.shift_hu["fat"] == pytest.approx(0.0, abs=1.0)
    assert "bone" not in changes.shift_hu


def test_padding_is_no_air_whose_mean_could_move():
    hu = np.full((40, 40), 50.0)
    padding = np.zeros(hu.shape, dtype=bool)
    padding[:10] = True
    changes = Changes()
    changes.count(np.where(padding, -1000.0, hu), np.where(padding, -990.0, hu), padding)
    assert "air" not in changes.shift_hu


def test_an_already_restored_scan_is_restored_with_a_warning(bundle, tmp_path, volume, capsys):
    write_phantom_series(volume, AFFINE, tmp_path / "series")
    write(tmp_path / "scan.nii.gz", volume)
    folder = bundle(SMOOTHING)
    for source, once, twice in (("series", "a", "b"), ("scan.nii.gz", "a.nii.gz", "b.nii.gz")):
        assert denoise(tmp_path / source, tmp_path / once, "--bundle", folder) == 0
        assert "restored before" not in capsys.readouterr().out
        assert denoise(tmp_path / once, tmp_path / twice, "--bundle", folder) == 0
        said = capsys.readouterr().out
        assert "was restored before" in said
        assert "ldct_denoising 1.2.3" in said


def test_a_scan_simulated_at_low_dose_was_not_restored(bundle, tmp_path, volume, capsys):
    write_phantom_series(volume, AFFINE, tmp_path / "full")
    assert cli.main(["simulate-dose", str(tmp_path / "full"), str(tmp_path / "low"), "--dose", "0.5"]) == 0
    assert denoise(tmp_path / "low", tmp_path / "out", "--bundle", bundle()) == 0
    assert "restored before" not in capsys.readouterr().out


# ---- Folders


def test_files_keep_their_names_and_a_bad_one_is_named_while_the_others_finish(bundle, tmp_path, volume, capsys):
    write(tmp_path / "in" / "a.nii.gz", volume)
    write(tmp_path / "in" / "pet.nii.gz", np.abs(volume))
    (tmp_path / "in" / "broken.nii.gz").write_bytes((tmp_path / "in" / "a.nii.gz").read_bytes()[:-200])
    write(tmp_path / "in" / "c.nii", volume)
    write(tmp_path / "in" / "mr.nii", volume)
    (tmp_path / "in" / "mr.json").write_text('{"Modality": "MR"}')
    write(tmp_path / "in" / "time.nii", np.stack([volume, volume], axis=-1))
    with pytest.raises(SystemExit) as end:
        denoise(tmp_path / "in", tmp_path / "out", "--bundle", bundle())
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.nii.gz", "c.nii"]
    message = str(end.value)
    assert "pet.nii.gz: expected Hounsfield units" in message
    assert "broken.nii.gz: cannot be read as NIfTI" in message
    assert "mr.nii: its sidecar says MR, expected CT" in message
    assert "time.nii: expected a volume (x, y, z) or a slice" in message
    assert "a.nii.gz" not in message


def test_series_of_a_folder_go_to_folders_of_their_names_and_a_broken_file_spoils_its_own_series_alone(
    bundle, tmp_path, volume
):
    for name in ("anna/chest", "anna/abdomen", "bert"):
        write_phantom_series(volume, AFFINE, tmp_path / "in" / name, name=name)
    broken = tmp_path / "in" / "anna" / "abdomen" / "00003.dcm"
    broken.write_bytes(broken.read_bytes()[:-100])
    with pytest.raises(SystemExit) as end:
        denoise(tmp_path / "in", tmp_path / "out", "--bundle", bundle())
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["anna_chest", "bert"]
    assert "00003.dcm: truncated or damaged" in str(end.value)
    np.testing.assert_array_equal(load_series(tmp_path / "out" / "bert").volume, volume)


def test_several_series_of_one_folder_are_told_apart_by_their_numbers(bundle, tmp_path, volume):
    for number in (3, 7):
        for path in write_phantom_series(volume, AFFINE, tmp_path / "x", name=f"{number}"):
            image = pydicom.dcmread(path)
            image.SeriesNumber = number
            (tmp_path / "in").mkdir(exist_ok=True)
            image.save_as(tmp_path / "in" / f"{number}_{path.name}")
    assert denoise(tmp_path / "in", tmp_path / "out", "--bundle", bundle()) == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["in_series-3", "in_series-7"]
    (uid,) = {item.series_uid for item in open_series(tmp_path / "out" / "in_series-7").slices}
    only = open_series(tmp_path / "in", _uid_of(tmp_path / "in" / "3_00001.dcm")).series_uid
    assert uid != only
    assert denoise(tmp_path / "in", tmp_path / "three", "--bundle", bundle(), "--series", only) == 0
    assert len(list((tmp_path / "three").glob("*.dcm"))) == 5


def test_a_mask_deep_in_a_folder_of_series_is_no_scan_and_what_is_no_ct_is_passed_over_with_a_word(
    bundle, tmp_path, volume, capsys
):
    write_phantom_series(volume, AFFINE, tmp_path / "in" / "ct", name="anna")
    write(tmp_path / "in" / "ct" / "lungs.nii.gz", volume > 0, dtype=np.uint8)
    matrix.series(tmp_path / "in" / "pet", matrix.as_pet)
    assert denoise(tmp_path / "in", tmp_path / "out", "--bundle", bundle()) == 0
    assert {path.suffix for path in (tmp_path / "out").iterdir()} == {".dcm"}
    assert "passed over 6 slices of PT" in capsys.readouterr().out


def test_files_of_sub_folders_stay_in_theirs(bundle, tmp_path, volume):
    for name in ("a/scan.nii.gz", "b/scan.nii.gz"):
        write(tmp_path / "in" / name, volume)
    assert denoise(tmp_path / "in", tmp_path / "out", "--bundle", bundle()) == 0
    for name in ("a/scan.nii.gz", "b/scan.nii.gz"):
        np.testing.assert_array_equal(read(tmp_path / "out" / name), volume)


def _uid_of(path: Path) -> str:
    return str(pydicom.dcmread(path).SeriesInstanceUID)


# ---- Nothing half


@pytest.mark.parametrize("error", ["RuntimeError", "KeyboardInterrupt"])
@pytest.mark.parametrize("kind", ["series", "nifti"])
def test_an_interrupted_run_leaves_nothing_of_the_scan_it_was_at(bundle, tmp_path, volume, error, kind):
    network = {"_target_": f"{__name__}.Failing", "error": error, "brightest_hu": 930.0}  # the fourth slice
    for name, hu in (("a", volume[..., :2]), ("b", volume)):
        if kind == "series":
            write_phantom_series(hu, AFFINE, tmp_path / "in" / name, name=name)
        else:
            write(tmp_path / "in" / f"{name}.nii.gz", hu)
    options = ("--bundle", bundle(network, amp=False), "--batch-slices", 1)
    with pytest.raises(KeyboardInterrupt if error == "KeyboardInterrupt" else SystemExit):
        denoise(tmp_path / "in", tmp_path / "out", *options)
    # hidden files, too
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a" if kind == "series" else "a.nii.gz"]


def test_the_input_is_never_the_output(bundle, tmp_path, volume):
    write_phantom_series(volume, AFFINE, tmp_path / "series")
    write(tmp_path / "scans" / "scan.nii.gz", volume)
    for source in ("series", "scans", "scans/scan.nii.gz"):
        with pytest.raises(SystemExit, match="would be overwritten"):
            denoise(tmp_path / source, tmp_path / source, "--bundle", bundle())
    with pytest.raises(SystemExit, match="would be overwritten"):
        denoise(tmp_path / "scans" / "scan.nii.gz", tmp_path / "scans", "--bundle", bundle())


def test_a_series_is_not_mixed_with_what_is_in_a_folder(bundle, tmp_path, volume):
    write_phantom_series(volume, AFFINE, tmp_path / "series")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("mine")
    with pytest.raises(SystemExit, match="expected a new or empty folder"):
        denoise(tmp_path / "series", tmp_path / "out", "--bundle", bundle())
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["notes.txt"]


# ---- What is refused


def test_slices_smaller_than_the_network_looks_are_refused(bundle, tmp_path, volume):
    scan = write(tmp_path / "scan.nii.gz", volume[:20])
    with pytest.raises(SystemExit, match="slices of 20 x 40 pixels; the network needs 32 a side"):
        denoise(scan, tmp_path / "out.nii.gz", "--bundle", bundle())


def test_what_holds_no_scan_is_refused(bundle, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(SystemExit, match="no CT: there is no DICOM"):
        denoise(tmp_path / "empty", tmp_path / "out", "--bundle", bundle())
    with pytest.raises(SystemExit, match="no such file or folder"):
        denoise(tmp_path / "nothing", tmp_path / "out", "--bundle", bundle())
    with pytest.raises(SystemExit, match="there is no bundle in"):
        denoise(tmp_path, tmp_path / "out", "--bundle", tmp_path / "nothing")
    with pytest.raises(SystemExit, match="there is no config"):
        denoise(tmp_path, tmp_path / "out", "--bundle", bundle(), "--config", "unheard-of")


# ---- Pictures


@pytest.fixture
def picture(tmp_path) -> Path:
    """A slice through the window -600 1500, black and white included."""
    x, y = np.mgrid[:40, :48]
    grey = np.clip(100 + x + y + np.random.default_rng(2).normal(0, 8, x.shape), 1, 254).astype(np.uint8)
    grey[:4], grey[30:34] = 0, 255
    Image.fromarray(grey).save(tmp_path / "slice.png")
    return tmp_path / "slice.png"


def test_a_picture_needs_a_window(bundle, tmp_path, picture):
    with pytest.raises(SystemExit, match="--window LEVEL WIDTH"):
        denoise(picture, tmp_path / "out.png", "--bundle", bundle())
    assert not (tmp_path / "out.png").exists()


def test_grey_values_come_back_by_the_same_window_black_and_white_untouched(bundle, tmp_path, picture):
    before = np.asarray(Image.open(picture))
    window = ("--window", 40, 400)
    assert denoise(picture, tmp_path / "same.png", "--bundle", bundle(), *window) == 0
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "same.png")), before)
    assert denoise(picture, tmp_path / "out", "--bundle", bundle(SMOOTHING, amp=False), *window) == 0
    after = np.asarray(Image.open(tmp_path / "out" / "slice.png"))
    saturated = (before == 0) | (before == 255)
    np.testing.assert_array_equal(after[saturated], before[saturated])
    expected = smoothed(before[..., None].astype(float))[..., 0]
    assert np.abs(after - expected)[~saturated].max() <= 0.51


def test_16_bits_stay_16_bits_and_a_jpeg_becomes_a_png(bundle, tmp_path, picture):
    deep = np.asarray(Image.open(picture)).astype(np.uint16) * 257
    (tmp_path / "in").mkdir()
    Image.fromarray(deep).save(tmp_path / "in" / "deep.png")
    Image.open(picture).save(tmp_path / "in" / "photo.jpg", quality=95)
    assert denoise(tmp_path / "in", tmp_path / "out", "--bundle", bundle(), "--window", 40, 400) == 0
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "out" / "deep.png")), deep)
    jpeg = np.asarray(Image.open(tmp_path / "in" / "photo.jpg"))
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "out" / "photo.png")), jpeg)


def test_pictures_beside_a_series_are_its_previews(bundle, tmp_path, volume, picture):
    write_phantom_series(volume, AFFINE, tmp_path / "in")
    shutil.copy(picture, tmp_path / "in")
    assert denoise(tmp_path / "in", tmp_path / "out", "--bundle", bundle()) == 0
    assert {path.suffix for path in (tmp_path / "out").iterdir()} == {".dcm"}
