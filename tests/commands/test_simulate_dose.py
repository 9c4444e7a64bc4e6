"""``ctrestore simulate-dose``: noise of the right size in the right place, and everything else as it was."""

import nibabel as nib
import numpy as np
import pydicom
import pytest

from ctrestore.commands import main as cli
from ctrestore.io.dicom import load_series, write_phantom_series

AFFINE = np.diag([-4.0, 4.0, 5.0, 1.0])


@pytest.fixture
def body() -> np.ndarray:
    """A water cylinder of 200 mm in air, ``(x, y, z)`` of 4 x 4 x 5 mm."""
    x, y = np.meshgrid(*[4.0 * (np.arange(64) - 31.5)] * 2, indexing="ij")
    return np.where(np.hypot(x, y) < 100, 0.0, -1000.0)[..., None] * np.ones(3)


def simulate(*arguments) -> int:
    return cli.main(["simulate-dose", *map(str, arguments)])


def write(path, volume, affine=AFFINE):
    nib.save(nib.Nifti1Image(volume.astype(np.int16), affine), path)
    return path


def read(path):
    return nib.load(path).get_fdata(dtype=np.float32)


def test_the_noise_follows_the_dose_and_the_mean_stays(body, tmp_path, capsys):
    scan = write(tmp_path / "scan.nii.gz", body)
    inside, added = body > -500, {}
    for dose in (0.5, 0.25, 0.1):
        assert simulate(scan, tmp_path / f"{dose}.nii.gz", "--dose", dose) == 0
        noise = read(tmp_path / f"{dose}.nii.gz") - body
        added[dose] = noise[inside].std()
        assert abs(noise[inside].mean()) < 0.2 * added[dose]
    # inserted noise grows like sqrt(1 / dose - 1); electronic noise adds a little at the lowest dose
    assert added[0.25] / added[0.5] == pytest.approx(np.sqrt(3.0), rel=0.03)
    assert added[0.1] / added[0.5] == pytest.approx(3.0, rel=0.05)
    assert "added in soft tissue" in capsys.readouterr().out


def test_full_dose_changes_nothing_and_a_seed_gives_its_noise_again(body, tmp_path):
    scan = write(tmp_path / "scan.nii.gz", body)
    for name, *options in (("full", "--dose", 1), ("a", "--dose", 0.2), ("b", "--dose", 0.2), ("c", "--dose", 0.2)):
        assert simulate(scan, tmp_path / f"{name}.nii.gz", *options, "--seed", 7 if name != "c" else 8) == 0
    np.testing.assert_array_equal(read(tmp_path / "full.nii.gz"), body)
    np.testing.assert_array_equal(read(tmp_path / "a.nii.gz"), read(tmp_path / "b.nii.gz"))
    assert not np.array_equal(read(tmp_path / "a.nii.gz"), read(tmp_path / "c.nii.gz"))
    slices = np.moveaxis(read(tmp_path / "a.nii.gz") - body, -1, 0)
    assert abs(np.corrcoef(slices[0][body[..., 0] > -500], slices[1][body[..., 0] > -500])[0, 1]) < 0.1


def test_a_volume_stored_with_the_slices_first_is_projected_across_the_patient(body, tmp_path):
    sagittal = np.moveaxis(body, 2, 0)
    affine = np.zeros((4, 4))
    affine[2, 0], affine[0, 1], affine[1, 2], affine[3, 3] = 5.0, -4.0, 4.0, 1.0
    write(tmp_path / "as_is.nii.gz", body)
    write(tmp_path / "moved.nii.gz", sagittal, affine)
    for name in ("as_is", "moved"):
        assert simulate(tmp_path / f"{name}.nii.gz", tmp_path / f"{name}_low.nii.gz", "--dose", 0.25) == 0
    moved = nib.load(tmp_path / "moved_low.nii.gz")
    np.testing.assert_array_equal(moved.affine, affine)
    np.testing.assert_array_equal(np.moveaxis(moved.get_fdata(), 0, 2), read(tmp_path / "as_is_low.nii.gz"))


def test_a_folder_of_files_keeps_their_names_and_a_bad_one_is_named_while_the_others_finish(body, tmp_path, capsys):
    (tmp_path / "in").mkdir()
    for name in ("a.nii.gz", "c.nii"):
        write(tmp_path / "in" / name, body)
    write(tmp_path / "in" / "b.nii.gz", 0 * body)
    assert simulate(tmp_path / "in", tmp_path / "out", "--dose", 0.5) == 1
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.nii.gz", "c.nii"]
    assert "b.nii.gz: its values go from 0 to 0; a CT in HU has air near -1000" in capsys.readouterr().err


def test_a_dicom_series_gives_a_derived_series_with_the_same_noise(body, tmp_path):
    write_phantom_series(body.astype(np.float32), AFFINE, tmp_path / "series")
    assert simulate(tmp_path / "series", tmp_path / "low", "--dose", 0.25) == 0
    source, low = load_series(tmp_path / "series"), load_series(tmp_path / "low")
    assert low.series_uid != source.series_uid
    np.testing.assert_allclose(low.affine, source.affine)
    noise = low.volume - source.volume
    write(tmp_path / "scan.nii.gz", source.volume, source.affine)
    assert simulate(tmp_path / "scan.nii.gz", tmp_path / "low.nii.gz", "--dose", 0.25) == 0
    same = read(tmp_path / "low.nii.gz") - source.volume
    inside = source.volume > -500
    assert noise[inside].std() == pytest.approx(same[inside].std(), rel=0.05)
    header = pydicom.dcmread(next((tmp_path / "low").iterdir()))
    assert list(header.ImageType)[:2] == ["DERIVED", "SECONDARY"]
    assert "0.25 of the dose" in header.SeriesDescription


@pytest.mark.parametrize(
    ("arguments", "words", "status"),
    [
        (("scan.nii.gz", "out.nii.gz", "--dose", "0"), "dose", 2),
        (("scan.nii.gz", "out.nii.gz", "--dose", "1.5"), "dose", 2),
        (("scan.nii.gz", "out.nii.gz", "--dose", "0.5", "--photons", "0.5"), "photons_per_ray", 1),
        (("none", "out", "--dose", "0.5"), "no such file or folder", 2),
        (("scan.png", "out", "--dose", "0.5"), "expected a NIfTI file", 2),
        (("scan.nii.gz", "scan.nii.gz", "--dose", "0.5"), "would be overwritten", 1),
        (("frames.nii.gz", "out.nii.gz", "--dose", "0.5"), "expected a volume", 1),
    ],
)
def test_a_mistake_is_one_line_with_the_remedy_and_writes_nothing(
    arguments, words, status, body, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "scan.nii.gz", body)
    write(tmp_path / "frames.nii.gz", np.stack([body, body], axis=-1))
    (tmp_path / "scan.png").touch()
    before = sorted(path.name for path in tmp_path.iterdir())
    assert simulate(*arguments) == status
    assert words in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == before
