"""What a classifier is shown, and what it refuses to look at."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from ctrestore.tasks.lung_ct_classification import LoadClassifiedd, read_grey
from tests.conftest import write_nifti

GREY = np.arange(12 * 8, dtype=np.uint8).reshape(12, 8)  # (rows, columns)


def saved(path, image: Image.Image):
    image.save(path)
    return path


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P"])
def test_a_grey_picture_reads_alike_in_every_mode(mode, tmp_path):
    path = saved(tmp_path / "a.png", Image.fromarray(GREY).convert(mode))
    np.testing.assert_array_equal(read_grey(path), GREY.T)


def test_colour_becomes_its_luminance(tmp_path):
    red = np.zeros((4, 4, 3), np.uint8)
    red[..., 0] = 200
    assert read_grey(saved(tmp_path / "a.png", Image.fromarray(red))).mean() == pytest.approx(0.299 * 200, abs=1)


def test_what_is_no_8_bit_picture_is_refused_by_name(tmp_path):
    empty = tmp_path / "empty.png"
    empty.write_bytes(b"")
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"\xff\xd8 no picture")
    deep = saved(tmp_path / "deep.png", Image.fromarray(GREY.astype(np.uint16) * 200))
    clear = Image.fromarray(GREY).convert("RGBA")
    clear.putalpha(128)
    clear = saved(tmp_path / "clear.png", clear)
    scan = write_nifti(tmp_path / "scan.nii.gz", np.zeros((4, 4, 1), np.int16))
    cases = {
        empty: "empty file", broken: "cannot be read as a picture", deep: "more than 8 bits",
        clear: "transparent", scan: "a scan in HU",
    }  # fmt: skip
    for path, fault in cases.items():
        with pytest.raises(ValueError, match=fault) as caught:
            read_grey(path)
        assert path.name in str(caught.value)


def test_slices_and_volumes_of_a_scan_keep_their_hu(tmp_path):
    hu = np.random.default_rng(0).integers(-1000, 400, (6, 5, 4)).astype(np.int16)
    entry = {"image": str(write_nifti(tmp_path / "scan.nii.gz", hu))}
    load, load_volume = LoadClassifiedd("image"), LoadClassifiedd("image", volume=True)
    np.testing.assert_array_equal(load({**entry, "slice": 3})["image"][0], hu[..., 3])
    np.testing.assert_array_equal(load(entry)["image"][0], hu[..., 2])  # the middle one
    np.testing.assert_array_equal(load_volume(entry)["image"][0], hu)


def test_kinds_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="hu, grey"):
        LoadClassifiedd("image", input_kind="colour")
    with pytest.raises(ValueError, match="volume of 8-bit pictures"):
        LoadClassifiedd("image", input_kind="grey", volume=True)
