"""A derived series keeps the study, names its source, and holds the given values."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tracemalloc
from datetime import datetime
from pathlib import Path

import numpy as np
import pydicom
import pytest
import torch
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from ctrestore.io.dicom import find_series, load_series, open_series, write_derived_series

HOW = {"description": "denoised", "model": "ldct_denoising", "version": "1.2.0"}


def stored_of(paths) -> np.ndarray:
    return np.stack([pydicom.dcmread(path).pixel_array for path in paths])


def source_pixels(series) -> np.ndarray:
    return stored_of([item.path for item in series.slices])


@pytest.mark.parametrize("kind", [{"signed": True}, {"signed": False}, {"signed": False, "bits": 12}])
def test_an_unchanged_series_is_written_bit_by_bit_as_it_was(write_ct, tmp_path, kind):
    series = load_series(write_ct(**kind))
    written = write_derived_series(torch.as_tensor(series.volume), series, tmp_path / "out", **HOW)
    np.testing.assert_array_equal(stored_of(written.paths), source_pixels(series))
    assert written.n_clipped == 0
    again = load_series(tmp_path / "out")
    np.testing.assert_array_equal(again.volume, series.volume)
    np.testing.assert_array_equal(again.affine, series.affine)


def test_an_unchanged_series_stays_the_same_with_any_rescale_and_with_padding(write_ct, tmp_path):
    def odd(k, image):
        image.RescaleSlope, image.RescaleIntercept = f"{0.53 + 0.1 * k:.6f}", f"{-1024.7 + k:.3f}"
        stored = image.pixel_array.copy()
        stored[:4], stored[4, :5] = -2000, -1995
        image.PixelData = stored.tobytes()
        image.add_new("PixelPaddingValue", "SS", -2000)
        image.add_new("PixelPaddingRangeLimit", "SS", -1990)

    series = load_series(write_ct(edit=odd))
    written = write_derived_series(series.volume, series, tmp_path / "out", **HOW)
    np.testing.assert_array_equal(stored_of(written.paths), source_pixels(series))
    np.testing.assert_array_equal(load_series(tmp_path / "out").padding, series.padding)


def test_all_int16_values_survive_conversion_to_hounsfield_units_and_back(write_ct, tmp_path):
    def all_values(k, image):
        image.Rows = image.Columns = 256
        image.PixelData = np.arange(-(2**15), 2**15, dtype="<i2").tobytes()
        image.RescaleSlope, image.RescaleIntercept = "0.0625", "-1024.7"

    series = load_series(write_ct(n=2, edit=all_values))
    written = write_derived_series(series.volume, series, tmp_path / "out", **HOW)
    np.testing.assert_array_equal(stored_of(written.paths), source_pixels(series))


def test_padding_is_restored_for_any_network_output(write_ct, tmp_path):
    def pad(k, image):
        stored = image.pixel_array.copy()
        stored[:4] = -2000
        image.PixelData = stored.tobytes()
        image.add_new("PixelPaddingValue", "SS", -2000)

    series = load_series(write_ct(edit=pad))
    written = write_derived_series(series.volume + 100, series, tmp_path / "out", **HOW)
    stored = stored_of(written.paths)
    assert (stored[:, :4] == -2000).all()
    np.testing.assert_array_equal(stored[:, 4:], source_pixels(series)[:, 4:] + 100)


def test_a_measured_value_never_becomes_padding(write_ct, tmp_path):
    def zero_is_padding(k, image):
        stored = image.pixel_array.copy()
        stored[0] = 0
        image.PixelData = stored.tobytes()
        image.add_new("PixelPaddingValue", "US", 0)

    series = load_series(write_ct(signed=False, edit=zero_is_padding))
    hu = np.full(series.shape, -1024.0)
    hu[:, :12] = -3000.0  # clipped, too, and counted once
    written = write_derived_series(hu, series, tmp_path / "out", **HOW)
    np.testing.assert_array_equal(load_series(tmp_path / "out").padding, series.padding)
    assert stored_of(written.paths)[:, 1:].min() == 1
    assert written.n_clipped == 5 * 23 * 32


def test_values_are_rounded_not_truncated_and_clipping_is_counted(write_ct, tmp_path):
    series = load_series(write_ct(signed=False, bits=12))
    hu = np.zeros(series.shape)
    hu[0, 0, 0], hu[1, 0, 0], hu[2, 0, 0], hu[3, 0, 0] = 40.6, -1.9, 5000.0, -2000.0
    written = write_derived_series(hu, series, tmp_path / "out", **HOW)
    assert load_series(tmp_path / "out").volume[:5, 0, 0].tolist() == [41.0, -2.0, 3071.0, -1024.0, 0.0]
    assert written.n_clipped == 2


def test_identity_of_the_patient_and_place_are_kept_and_the_objects_are_new(write_ct, tmp_path):
    series = load_series(write_ct())
    written = write_derived_series(series.volume, series, tmp_path / "out", **HOW, now=datetime(2026, 1, 2, 3, 4, 5))
    derived = [pydicom.dcmread(path) for path in written.paths]
    for old, new in zip(series.datasets, derived):
        for kept in ("StudyInstanceUID", "FrameOfReferenceUID", "PatientName", "PatientID", "ImagePositionPatient",
                     "ImageOrientationPatient", "PixelSpacing", "SliceThickness", "ConvolutionKernel", "KVP",
                     "InstanceNumber", "AcquisitionTime", "RescaleSlope", "RescaleIntercept", "StudyDate"):  # fmt: skip
            assert new[kept].value == old[kept].value, kept
        assert new.SOPClassUID == new.file_meta.MediaStorageSOPClassUID == pydicom.uid.CTImageStorage
        assert new.file_meta.MediaStorageSOPInstanceUID == new.SOPInstanceUID != old.SOPInstanceUID
        assert new.ImageType == ["DERIVED", "SECONDARY", "AXIAL"]
        assert (new.SeriesDate, new.SeriesTime, new.RescaleType) == ("20260102", "030405", "HU")
        [source] = new.SourceImageSequence
        assert source.ReferencedSOPInstanceUID == old.SOPInstanceUID
        assert (source.SpatialLocationsPreserved, source.PurposeOfReferenceCodeSequence[0].CodeValue) == (
            "YES",
            "121322",
        )
    assert {d.SeriesInstanceUID for d in derived} == {written.series_uid} != {series.series_uid}
    assert len({d.SOPInstanceUID for d in derived}) == 5
    assert derived[0].SeriesNumber == 1003
    assert derived[0].SeriesDescription == "Thorax 1.0 B30f denoised"


def test_the_header_says_what_was_done_by_which_model_and_weights(write_ct, tmp_path):
    def earlier(k, image):
        workstation = Dataset()
        workstation.Manufacturer, image.LossyImageCompression = "ACME", "01"
        image.ContributingEquipmentSequence = [workstation]
        image.SeriesDescription = "x" * 64

    series = load_series(write_ct(edit=earlier))
    written = write_derived_series(series.volume, series, tmp_path / "out", **HOW, weights_sha256="ab" * 32)
    image = pydicom.dcmread(written.paths[0])
    assert image.DerivationDescription.startswith(
        f"denoised: ldct_denoising 1.2.0, weights sha256 {'ab' * 32}; ctrestore"
    )
    before, ours = image.ContributingEquipmentSequence
    assert (before.Manufacturer, ours.Manufacturer, ours.ManufacturerModelName) == (
        "ACME",
        "ctrestore",
        "ldct_denoising",
    )
    assert ours.PurposeOfReferenceCodeSequence[0].CodeValue == "109102"
    assert image.LossyImageCompression == "01"
    assert len(image.SeriesDescription) == 64
    assert image.SeriesDescription.endswith("x denoised")


def test_a_description_longer_than_dicom_allows_is_cut_and_text_stays_readable_in_any_character_set(write_ct, tmp_path):
    series = load_series(write_ct())
    how = {**HOW, "description": "rauscharm für\\alle " + "y" * 80}
    image = pydicom.dcmread(write_derived_series(series.volume, series, tmp_path / "out", **how).paths[0])
    assert image.SeriesDescription == ("rauscharm f?r/alle " + "y" * 80)[:64]
    assert image.PatientName == "Müller^Anna"


def test_elements_about_the_old_pixels_are_not_copied(write_ct, tmp_path):
    def vendor(k, image):
        image.private_block(0x0029, "ACME CSA", create=True).add_new(0x10, "OB", b"old pixels")
        image.add_new("SmallestImagePixelValue", "SS", -5)
        image.add_new(0x60000010, "US", 24)

    series = load_series(write_ct(edit=vendor))
    written = write_derived_series(series.volume, series, tmp_path / "out", **HOW)
    image = pydicom.dcmread(written.paths[0])
    assert not [element.tag for element in image if element.tag.is_private or element.tag.group == 0x6000]
    assert "SmallestImagePixelValue" not in image


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian])
def test_private_elements_are_removed_at_any_depth_and_all_others_are_copied(write_ct, tmp_path, syntax):
    def vendor(k, image):
        inner, outer = Dataset(), Dataset()
        for item in (inner, outer, image):
            item.private_block(0x0029, "ACME CSA", create=True).add_new(0x10, "OB", b"old pixels")
            item.ProtocolName = "K\u00f6rper"
        image.SpecificCharacterSet = "ISO_IR 100"
        outer.RequestAttributesSequence, image.RequestAttributesSequence = [inner], [outer]

    source = write_ct(edit=vendor)
    for path in source.iterdir():
        image = pydicom.dcmread(path)
        meta, image = image.file_meta, Dataset(image)  # without the encoding in which it was read
        if syntax == ExplicitVRBigEndian:
            image.PixelData = np.frombuffer(image.PixelData, "<u2").astype(">u2").tobytes()
        meta.TransferSyntaxUID, image.file_meta = syntax, meta
        image.save_as(path, enforce_file_format=True)
    series = load_series(source)
    written = write_derived_series(series.volume, series, tmp_path / "out", **HOW)
    before, after = series.datasets[0], pydicom.dcmread(written.paths[0])
    for found in (after, after.RequestAttributesSequence[0], after.RequestAttributesSequence[0][0x00400275].value[0]):
        assert not [element.tag for element in found if element.tag.is_private]
        assert found.ProtocolName == "K\u00f6rper"
    new = re.compile(
        "Series|Content|Creation|SOPInstance|ImageType|Derivation|SourceImage|Equipment|Rescale|Pixel|Burned"
    )
    kept = [element for element in before if not element.tag.is_private and not new.search(element.keyword)]
    assert len(kept) > 20
    assert [element for element in kept if element.VR != "SQ" and after.get(element.tag) != element] == []


def test_frames_of_an_enhanced_object_become_single_images(write_enhanced, tmp_path):
    series = load_series(write_enhanced())
    written = write_derived_series(series.volume, series, tmp_path / "out", **HOW)
    again = load_series(tmp_path / "out")
    np.testing.assert_array_equal(again.volume, series.volume)
    np.testing.assert_array_equal(again.affine, series.affine)
    image = pydicom.dcmread(written.paths[0])
    assert image.SOPClassUID == pydicom.uid.CTImageStorage
    assert "PerFrameFunctionalGroupsSequence" not in image
    assert image.SourceImageSequence[0].ReferencedFrameNumber == 2  # frame 1, counted from 0, is the lowest


def test_another_grid_in_the_plane_moves_the_first_pixel(write_ct, tmp_path):
    """Twice the pixels: the centre of the first lies a quarter of the old spacing before the old one's."""
    series = load_series(write_ct())
    fine = series.volume.repeat(2, axis=0).repeat(2, axis=1)
    affine = series.affine @ np.array([[0.5, 0, 0, -0.25], [0, 0.5, 0, -0.25], [0, 0, 1, 0], [0, 0, 0, 1]])
    write_derived_series(fine, series, tmp_path / "out", **HOW, affine=affine)
    again = load_series(tmp_path / "out")
    np.testing.assert_allclose(again.affine, affine, atol=1e-6)
    np.testing.assert_array_equal(again.volume, fine)
    image = again.datasets[0]
    assert image.SourceImageSequence[0].SpatialLocationsPreserved == "NO"
    np.testing.assert_allclose(image.ImagePositionPatient, [-11 - 0.175, -12 - 0.2, 30])


def test_a_tilted_series_is_written_upright(write_ct, tmp_path):
    def tilt(k, image):
        image.ImageOrientationPatient = [1, 0, 0, 0, float(np.cos(0.3)), float(np.sin(0.3))]

    series = load_series(write_ct(edit=tilt), untilt=True)
    write_derived_series(series.volume, series, tmp_path / "out", **HOW)
    again = load_series(tmp_path / "out")
    np.testing.assert_allclose(again.affine, series.affine, atol=1e-5)
    assert np.abs(again.volume - series.volume).max() <= 0.5


def test_slices_can_be_written_one_by_one_in_little_memory(write_ct, tmp_path):
    n, side = 30, 256

    def larger(k, image):
        image.Rows = image.Columns = side
        image.PixelData = np.full((side, side), k, dtype="<i2").tobytes()

    source = open_series(write_ct(n=n, edit=larger))
    tracemalloc.start()
    written = write_derived_series((values for values, _ in source), source, tmp_path / "out", **HOW)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < n * side * side * 4 / 2  # of the volume in float32
    np.testing.assert_array_equal(stored_of(written.paths)[:, 0, 0], np.arange(n))


@pytest.mark.parametrize(
    ("volume", "message"),
    [
        (np.zeros((24, 32, 5)), r"expected a volume of shape \(32, 24, 5\) \(x, y, z\), got \(24, 32, 5\)"),
        (np.full((32, 24, 5), np.nan), "slice 0: NaN or infinity"),
        ([np.zeros((24, 32))] * 4, "expected 5 slices, got 4"),
        ([np.zeros((24, 32))] * 6, "expected 5 slices, got more"),
        ([np.zeros((32, 24))] * 5, r"slice 0: expected shape \(24, 32\) \(y, x\), got \(32, 24\)"),
    ],
)
def test_a_volume_that_does_not_fit_is_refused_and_leaves_nothing_behind(write_ct, tmp_path, volume, message):
    source = open_series(write_ct())
    with pytest.raises(ValueError, match=message):
        write_derived_series(volume, source, tmp_path / "new" / "out", **HOW)
    assert not (tmp_path / "new").exists() or not list((tmp_path / "new").iterdir())


def test_a_folder_with_files_is_refused(write_ct):
    folder = write_ct()
    series = load_series(folder)
    with pytest.raises(ValueError, match="expected a new or empty folder"):
        write_derived_series(series.volume, series, folder, **HOW)


def test_a_pet_series_is_refused(write_pet, tmp_path):
    series = load_series(write_pet())
    with pytest.raises(ValueError, match=r"expected a CT series.*NIfTI"):
        write_derived_series(series.volume, series, tmp_path / "out", **HOW)


# Other people's software


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="needs dciodvfy (Debian: dicom3tools)")
@pytest.mark.parametrize("kind", ["single", "enhanced", "finer"])
def test_dciodvfy_finds_no_error(write_ct, write_enhanced, tmp_path, kind):
    series = load_series(write_enhanced() if kind == "enhanced" else write_ct())
    affine = series.affine @ np.diag([0.7, 0.7, 1, 1]) if kind == "finer" else None
    written = write_derived_series(series.volume, series, tmp_path / "out", **HOW, affine=affine)
    for path in written.paths[:2]:
        said = subprocess.run(["dciodvfy", path], capture_output=True, text=True, check=False)
        lines = (said.stdout + said.stderr).splitlines()
        assert [line for line in lines if line.startswith("Error")] == []
        assert "CTImage" in lines


def test_an_archive_accepts_every_image(write_ct, tmp_path):
    pynetdicom = pytest.importorskip("pynetdicom")
    series = load_series(write_ct())
    written = write_derived_series(series.volume, series, tmp_path / "out", **HOW)
    received = []

    def store(event):
        received.append(event.dataset.SOPInstanceUID)
        return 0x0000

    archive = pynetdicom.AE()
    archive.add_supported_context(pydicom.uid.CTImageStorage)
    server = archive.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(pynetdicom.evt.EVT_C_STORE, store)])
    try:
        sender = pynetdicom.AE()
        sender.add_requested_context(pydicom.uid.CTImageStorage, pydicom.uid.ExplicitVRLittleEndian)
        association = sender.associate("127.0.0.1", server.socket.getsockname()[1])
        assert association.is_established
        statuses = [association.send_c_store(pydicom.dcmread(path)).Status for path in written.paths]
        association.release()
    finally:
        server.shutdown()
    assert statuses == [0x0000] * 5
    assert received == [pydicom.dcmread(path).SOPInstanceUID for path in written.paths]


@pytest.mark.skipif(shutil.which("dcm2niix") is None, reason="needs dcm2niix on the PATH")
def test_dcm2niix_gives_the_same_volume_and_affine(write_ct, tmp_path):
    import nibabel as nib

    series = load_series(write_ct())
    write_derived_series(series.volume, series, tmp_path / "out", **HOW)
    subprocess.run(["dcm2niix", "-f", "ct", "-o", tmp_path, tmp_path / "out"], check=True, capture_output=True)
    image = nib.load(tmp_path / "ct.nii")
    ours = nib.as_closest_canonical(nib.Nifti1Image(series.volume, series.affine))
    theirs = nib.as_closest_canonical(image)
    np.testing.assert_allclose(theirs.affine, ours.affine, atol=1e-4)
    np.testing.assert_array_equal(theirs.get_fdata(dtype=np.float32), ours.get_fdata(dtype=np.float32))


# Real scans


@pytest.mark.skipif("CTRESTORE_DATA" not in os.environ, reason="needs real series: CTRESTORE_DATA")
def test_every_real_series_is_written_bit_by_bit_and_without_new_errors(tmp_path):
    def errors(path):
        said = subprocess.run(["dciodvfy", path], capture_output=True, text=True, check=False).stderr
        return {line for line in said.splitlines() if line.startswith("Error")}

    folder = Path(os.environ["CTRESTORE_DATA"]) / "ct_dicom"
    n_read = 0
    for uid, slices in find_series(folder).items():
        try:
            series = load_series(slices[0].path.parent, uid, single_slice=True)
        except ValueError as error:  # a few slices picked from a scan
            assert re.search("uneven steps|are missing", str(error))
            continue
        written = write_derived_series(series.volume, series, tmp_path / uid, **HOW)
        np.testing.assert_array_equal(stored_of(written.paths), source_pixels(series))
        again = load_series(tmp_path / uid, single_slice=True)
        np.testing.assert_array_equal(again.volume, series.volume)
        np.testing.assert_allclose(again.affine, series.affine, atol=1e-9)
        if shutil.which("dciodvfy"):
            assert errors(written.paths[0]) <= errors(series.slices[0].path)
        n_read += 1
    assert n_read > 0
