"""Every transfer syntax in use gives the same Hounsfield units, or says what to install."""

from __future__ import annotations

import numpy as np
import pydicom
import pytest
from pydicom import uid
from pydicom.pixels.decoders import base

from ctrestore.io.dicom import load_series, open_series, write_derived_series

LARGER = 2  # the default JPEG 2000 encoder needs 32 pixels per side


def enlarged(image, syntax):
    pixels = image.pixel_array.repeat(LARGER, 0).repeat(LARGER, 1)
    image.Rows, image.Columns, image.PixelData = *pixels.shape, pixels.tobytes()
    image.compress(syntax, generate_instance_uid=False)


@pytest.mark.parametrize("kind", [{"signed": True}, {"signed": False, "bits": 12}], ids=["signed", "12bit"])
@pytest.mark.parametrize(
    ("syntax", "needs"),
    [(uid.RLELossless, "numpy"), (uid.JPEGLSLossless, "jpeg_ls"), (uid.JPEG2000Lossless, "pylibjpeg")],
    ids=["RLE", "JPEG-LS", "JPEG 2000"],
)
def test_lossless_compression_changes_nothing(write_ct, expected_hu, syntax, needs, kind):
    pytest.importorskip(needs)
    folder = write_ct(edit=lambda k, image: enlarged(image, syntax), **kind)
    expected = expected_hu().repeat(LARGER, 0).repeat(LARGER, 1)
    np.testing.assert_array_equal(load_series(folder).volume, expected)


def test_jpeg_lossless_changes_nothing(write_ct, expected_hu):
    gdcm = pytest.importorskip("gdcm")
    folder = write_ct(signed=False)
    for path in list(folder.iterdir()):
        reader, writer, change = gdcm.ImageReader(), gdcm.ImageWriter(), gdcm.ImageChangeTransferSyntax()
        reader.SetFileName(str(path))
        assert reader.Read()
        change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGLosslessProcess14_1))
        change.SetInput(reader.GetImage())
        assert change.Change()
        writer.SetFile(reader.GetFile())
        writer.SetImage(change.GetOutput())
        writer.SetFileName(str(path))
        assert writer.Write()
    assert pydicom.dcmread(path).file_meta.TransferSyntaxUID == uid.JPEGLosslessSV1
    np.testing.assert_array_equal(load_series(folder).volume, expected_hu())


@pytest.mark.parametrize(
    "syntax", [uid.ImplicitVRLittleEndian, uid.ExplicitVRBigEndian, uid.DeflatedExplicitVRLittleEndian],
    ids=lambda value: value.name,
)  # fmt: skip
def test_the_encoding_of_the_file_changes_nothing_and_its_series_can_be_derived(
    write_ct, expected_hu, tmp_path, syntax
):
    def encode(k, image):
        image.file_meta.TransferSyntaxUID = syntax

    series = load_series(write_ct(edit=encode))
    np.testing.assert_array_equal(series.volume, expected_hu())
    write_derived_series(series.volume, series, tmp_path / "out", description="copy", model="none", version="0")
    np.testing.assert_array_equal(load_series(tmp_path / "out").volume, expected_hu())
    assert str(pydicom.dcmread(tmp_path / "out" / "00001.dcm").PatientName) == "Müller^Anna"


def test_old_exports_without_preamble_and_meta_information_are_read(write_ct, expected_hu, tmp_path):
    folder = write_ct()
    for path in folder.iterdir():
        image = pydicom.dcmread(path)
        del image.file_meta
        pydicom.dcmwrite(path, image, implicit_vr=True, little_endian=True)
    series = load_series(folder)
    np.testing.assert_array_equal(series.volume, expected_hu())
    write_derived_series(series.volume, series, tmp_path / "out", description="copy", model="none", version="0")
    np.testing.assert_array_equal(load_series(tmp_path / "out").volume, expected_hu())


def test_without_a_decoder_the_message_names_what_to_install(write_ct, monkeypatch):
    folder = write_ct(edit=lambda k, image: image.compress(uid.RLELossless, generate_instance_uid=False))
    monkeypatch.setattr(base.Decoder, "is_available", property(lambda self: False))
    with pytest.raises(
        ValueError, match=r'compressed as RLE Lossless, and no decoder.*pip install "ctrestore\[dicom\]"'
    ):
        open_series(folder)


def test_video_is_refused(write_ct):
    def video(k, image):
        image.PixelData = pydicom.encaps.encapsulate([b"\0" * 10])
        image.file_meta.TransferSyntaxUID = uid.MPEG2MPML
        image["PixelData"].VR = "OB"

    with pytest.raises(ValueError, match="MPEG2.*no decoder of single images exists"):
        open_series(write_ct(edit=video))


def test_a_damaged_code_stream_is_named_when_it_is_read(write_ct):
    folder = write_ct(edit=lambda k, image: image.compress(uid.RLELossless, generate_instance_uid=False))
    path = sorted(folder.iterdir())[1]
    path.write_bytes(path.read_bytes()[:-300])
    with pytest.raises(ValueError, match=rf"{path.name}: its pixels cannot be decoded"):
        load_series(folder)
