"""Loading a folder of DICOM, case by case; each refusal with its message."""

from __future__ import annotations

import shutil
import tracemalloc

import numpy as np
import pydicom
import pytest

from ctrestore.io.dicom import find_series, load_series, open_series


def refused(message: str):
    return pytest.raises(ValueError, match=message)


# Accepted series


@pytest.mark.parametrize("kind", [{"signed": True}, {"signed": False}, {"signed": False, "bits": 12}])
def test_stored_values_become_hounsfield_units_signed_or_not(write_ct, expected_hu, kind):
    series = load_series(write_ct(**kind))
    np.testing.assert_array_equal(series.volume, expected_hu())
    assert (series.volume.dtype, series.modality, series.unit) == (np.float32, "CT", "HU")
    assert series.padding is None


def test_the_affine_takes_voxels_to_ras_millimetres(write_ct):
    series = load_series(write_ct())
    # Worked by hand: LPS origin (-11, -12, 30), columns 0.7 mm to the left, rows 0.8 mm to the back, slices 2.5 mm up.
    np.testing.assert_allclose(
        series.affine, [[-0.7, 0, 0, 11], [0, -0.8, 0, 12], [0, 0, 2.5, 30], [0, 0, 0, 1]], atol=1e-12
    )
    assert series.shape == series.volume.shape == (32, 24, 5)
    np.testing.assert_allclose(series.spacing_mm, (0.7, 0.8, 2.5))


def test_slices_are_sorted_by_position_whatever_their_names_and_numbers(write_ct, expected_hu):
    def renumber(k, image):
        image.InstanceNumber = 5 - k

    series = load_series(write_ct(edit=renumber))
    np.testing.assert_array_equal(series.volume, expected_hu())
    heights = [float(d.ImagePositionPatient[2]) for d in series.datasets]
    assert heights == sorted(heights)
    assert [d.InstanceNumber for d in series.datasets[1:3]] == [4, 3]


def test_coronal_slices_have_an_affine_of_their_own(write_ct):
    def coronal(k, image):
        image.ImageOrientationPatient = [1, 0, 0, 0, 0, -1]
        image.ImagePositionPatient = [-11, 40 - 2.5 * k, 30]

    affine = load_series(write_ct(edit=coronal)).affine
    normal_lps = np.cross([1, 0, 0], [0, 0, -1])  # to the back
    np.testing.assert_allclose(affine[:3, 2], np.diag([-1, -1, 1]) @ normal_lps * 2.5, atol=1e-12)
    np.testing.assert_allclose(affine[:3, 1], [0, 0, -0.8], atol=1e-12)


def test_each_slice_has_its_own_rescale(write_ct):
    def rescale(k, image):
        image.RescaleSlope, image.RescaleIntercept = 0.5 + k, -1000 - k

    folder = write_ct(edit=rescale)
    series = load_series(folder)
    for k, dataset in enumerate(series.datasets):
        stored = pydicom.dcmread(dataset.filename).pixel_array
        np.testing.assert_allclose(series.volume[..., k].T, stored * (0.5 + k) - 1000 - k, rtol=1e-6)


@pytest.mark.parametrize("vr", ["SS", "US"])
def test_padding_becomes_air_and_is_masked_even_if_its_value_has_the_wrong_sign(write_ct, expected_hu, vr):
    def pad(k, image):
        stored = image.pixel_array.copy()
        stored[:4, :4] = -2000
        image.PixelData = stored.tobytes()
        image.add_new("PixelPaddingValue", vr, -2000 if vr == "SS" else 63536)

    series = load_series(write_ct(edit=pad))
    expected = np.zeros(series.shape, dtype=bool)
    expected[:4, :4] = True
    np.testing.assert_array_equal(series.padding, expected)
    assert (series.volume[expected] == -1000).all()
    np.testing.assert_array_equal(series.volume[~expected], expected_hu()[~expected])


def test_a_range_of_padding_values_is_masked(write_ct):
    def pad(k, image):
        stored = image.pixel_array.copy()
        stored[0, :3] = [-2000, -1990, -1989]
        image.PixelData = stored.tobytes()
        image.add_new("PixelPaddingValue", "SS", -1990)
        image.add_new("PixelPaddingRangeLimit", "SS", -2000)

    assert load_series(write_ct(edit=pad)).padding[:4, 0, 0].tolist() == [True, True, False, False]


@pytest.mark.parametrize("declared", [None, -3000])
def test_a_corner_below_any_hounsfield_unit_is_padding_whatever_the_header_says(write_ct, declared):
    def pad(k, image):
        if declared is not None:
            image.add_new("PixelPaddingValue", "SS", declared)
        stored = image.pixel_array.copy()
        stored[:2], stored[10, 10] = -2000, -1500
        image.PixelData = stored.tobytes()

    series = load_series(write_ct(edit=pad))
    assert series.padding[:, :2].all()
    assert series.padding.sum() == 2 * 32 * 5
    assert (series.volume[10, 10] == -2524).all()  # a streak beside metal is a measurement


def test_monochrome1_only_affects_display_and_not_hounsfield_units(write_ct, expected_hu):
    def inverted(k, image):
        image.PhotometricInterpretation = "MONOCHROME1"

    np.testing.assert_array_equal(load_series(write_ct(edit=inverted)).volume, expected_hu())


def test_an_enhanced_multi_frame_file_is_sorted_by_the_positions_of_its_frames(write_enhanced, expected_hu):
    series = load_series(write_enhanced())
    np.testing.assert_array_equal(series.volume, expected_hu(4))
    np.testing.assert_allclose(series.affine[:3, 3], [11, 12, 30])
    assert [item.frame for item in series.slices] == [1, 3, 0, 2]


def test_localizers_and_objects_without_slices_are_left_out(write_ct, expected_hu, new_uid):
    folder = write_ct()

    def scout(k, image):
        image.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
        image.SOPInstanceUID, image.Rows, image.Columns = new_uid(), 12, 64

    def report(k, image):
        image.SOPClassUID, image.Modality = "1.2.840.10008.5.1.4.1.1.88.33", "SR"
        image.SOPInstanceUID, image.SeriesInstanceUID = new_uid(), new_uid()

    for edit, name in ((scout, "scout"), (report, "report")):
        [path] = write_ct(name, n=1, edit=edit).iterdir()
        shutil.copy(path, folder / f"{name}.dcm")
    (folder / "notes.txt").write_text("no DICOM")
    (folder / ".DS_Store").write_bytes(b"\x08\0\0\0")
    np.testing.assert_array_equal(load_series(folder).volume, expected_hu())


def test_the_named_series_of_several_is_loaded(write_ct, expected_hu):
    def other(k, image):
        image.SeriesInstanceUID, image.SOPInstanceUID = "1.2.3", f"1.2.3.{k}"
        image.SeriesDescription = "Thorax 5.0"

    folder = write_ct("study/thin").parent
    write_ct("study/thick", n=3, edit=other)
    assert load_series(folder, "1.2.3").shape == (32, 24, 3)
    assert {uid: len(slices) for uid, slices in find_series(folder).items()} == {"1.2.3": 3, "1.2.826.0.1.1.1": 5}
    with refused(r"study: 2 series, and none was named.*series_uid(?s:.)*1\.2\.3  CT, 3 slices, Thorax 5\.0"):
        load_series(folder)
    with refused(r"no series 9\.9(?s:.)*1\.2\.3  CT"):
        load_series(folder, "9.9")


def test_positions_of_one_decimal_are_even_enough(write_ct):
    def rounded(k, image):
        image.ImagePositionPatient = [-11, -12, round(30 + 0.625 * k, 1)]

    assert load_series(write_ct(n=9, edit=rounded)).spacing_mm[2] == pytest.approx(0.625, abs=0.02)


def test_spellings_of_hounsfield_unit_that_scanners_use_are_accepted(write_ct):
    def spelt(k, image):
        image.RescaleType = "Houndsfield Unit"

    assert load_series(write_ct(edit=spelt)).unit == "HU"


# Gantry tilt


def tilt(k, image):
    """A gantry tilted by 17 degrees whose table moves along z."""
    angle = np.deg2rad(17)
    image.ImageOrientationPatient = [1, 0, 0, 0, float(np.cos(angle)), float(np.sin(angle))]


def test_gantry_tilt_is_refused_by_name(write_ct):
    with refused(r"gantry tilt of 17\.0 degrees, each slice lies 0\.73 mm beside.*untilt=True"):
        load_series(write_ct(edit=tilt))


def test_resampling_a_tilted_stack_puts_every_point_where_it_was(write_ct):
    """A smooth function of world coordinates, sampled on the tilted slices, comes back on the upright grid."""

    def world(lps):
        return 300 * np.sin(lps[0] / 9) + 3 * lps[1] + 5 * lps[2]

    def paint(k, image):
        tilt(k, image)
        y, x = np.mgrid[:24, :32]
        row, column = np.array(image.ImageOrientationPatient, dtype=float).reshape(2, 3)
        origin = np.array(image.ImagePositionPatient, dtype=float)
        points = origin + x[..., None] * 0.7 * row + y[..., None] * 0.8 * column
        hu = world(np.moveaxis(points, -1, 0))
        image.PixelData = np.rint(hu + 1024).astype("<i2").tobytes()

    series = load_series(write_ct(n=9, edit=paint), untilt=True)
    step, normal = series.affine[:3, 2], np.cross(series.affine[:3, 0], series.affine[:3, 1])
    assert np.linalg.norm(np.cross(step, normal)) < 1e-9  # the columns are at right angles
    assert series.spacing_mm[2] == pytest.approx(2.5 * np.cos(np.deg2rad(17)))
    index = np.stack(np.meshgrid(*map(np.arange, series.shape), indexing="ij"))
    ras = np.tensordot(series.affine[:3, :3], index, 1) + series.affine[:3, 3, None, None, None]
    inside = ~series.padding
    assert inside.sum() >= 31 * 22 * 9
    assert np.abs(series.volume - world(ras * np.array([-1, -1, 1])[:, None, None, None]))[inside].max() < 1.5


# Refusals


def test_a_missing_slice_is_counted_and_placed(write_ct):
    with refused(
        r"1 of 6 slices are missing; the largest gap, 5 mm where 2\.5 mm are usual, is between .*IM.*and .*IM"
    ):
        load_series(write_ct(n=6, edit=lambda k, image: k != 3))


def test_a_missing_slice_among_three_is_detected(write_ct):
    with refused("1 of 4 slices are missing"):
        load_series(write_ct(n=4, edit=lambda k, image: k != 1))


def test_uneven_steps_are_refused(write_ct):
    def uneven(k, image):
        image.ImagePositionPatient = [-11, -12, 30 + k * 2.5 + (k > 2) * 1.1]

    with refused(r"uneven steps, 2\.5 to 3\.6 mm"):
        load_series(write_ct(edit=uneven))


def test_a_slice_off_the_line_of_the_others_is_refused(write_ct):
    def moved(k, image):
        image.ImagePositionPatient = [-11 + 4 * (k == 2), -12, 30 + k * 2.5]

    with refused(r"lies 4\.00 mm beside the line"):
        load_series(write_ct(edit=moved))


def test_a_copy_of_a_slice_is_refused(write_ct):
    folder = write_ct()
    path = next(folder.iterdir())
    shutil.copy(path, folder / "copy.dcm")
    with refused(r"duplicate slices, both \d+\.\d+ mm along the normal\. They are copies of one image"):
        load_series(folder)


def test_two_images_at_one_place_are_refused(write_ct):
    def phase(k, image):
        if k == 4:
            image.ImagePositionPatient = [-11, -12, 30]

    with refused(r"duplicate slices, both 30\.00 mm.*several phases"):
        load_series(write_ct(edit=phase))


def test_mixed_sizes_are_refused(write_ct):
    def smaller(k, image):
        if k == 4:
            image.Rows, image.PixelData = 12, image.PixelData[: len(image.PixelData) // 2]

    with refused(r"different sizes in one series, \(\d+, 32\) and \(\d+, 32\)"):
        load_series(write_ct(edit=smaller))


def test_mixed_orientations_are_refused(write_ct):
    def sagittal(k, image):
        if k == 4:
            image.ImageOrientationPatient = [0, 1, 0, 0, 0, -1]

    with refused("different orientations in one series.*reformatted images"):
        load_series(write_ct(edit=sagittal))


def test_mixed_pixel_spacings_are_refused(write_ct):
    def zoomed(k, image):
        if k == 4:
            image.PixelSpacing = [0.5, 0.5]

    with refused("different PixelSpacing in one series"):
        load_series(write_ct(edit=zoomed))


def test_another_modality_is_refused_by_name(write_ct, write_pet):
    def magnetic(k, image):
        image.SOPClassUID, image.Modality = "1.2.840.10008.5.1.4.1.1.4", "MR"

    with refused(r"no slices of CT or PET; found 5 x MR \(MR Image Storage\).*Remedy"):
        load_series(write_ct(edit=magnetic))
    with refused("expected modality CT, found PT"):
        load_series(write_pet(), modality="CT")


def test_a_folder_with_only_localizers_is_refused(write_ct):
    def scout(k, image):
        image.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]

    with refused(r"no slices of CT or PET; found 5 x CT \(localizer\)"):
        load_series(write_ct(edit=scout))


def test_one_slice_is_refused_unless_single_slice_is_set(write_ct):
    folder = write_ct(n=1)
    with refused(r"the series is one slice.*single_slice=True"):
        load_series(folder)
    assert load_series(folder, single_slice=True).spacing_mm[2] == 2.5


def test_one_slice_without_thickness_has_no_spacing_at_all(write_ct):
    folder = write_ct(n=1, edit=lambda k, image: image.pop("SliceThickness"))
    with refused("one slice without SliceThickness"):
        load_series(folder, single_slice=True)


@pytest.mark.parametrize("keyword", ["PixelSpacing", "ImagePositionPatient", "ImageOrientationPatient"])
def test_slices_without_a_place_in_the_patient_are_refused(write_ct, keyword):
    with refused("no PixelSpacing, ImageOrientationPatient or ImagePositionPatient"):
        load_series(write_ct(edit=lambda k, image: image.pop(keyword)))


@pytest.mark.parametrize("kept", [0.5, 0.97])
def test_a_truncated_file_is_named_before_any_pixel_is_read(write_ct, kept):
    folder = write_ct()
    path = sorted(folder.iterdir())[2]
    path.write_bytes(path.read_bytes()[: int(kept * path.stat().st_size)])
    with refused(rf"{path.name}: truncated or damaged \(\d+ bytes of pixels, the header promises 1536\)"):
        open_series(folder)


@pytest.mark.parametrize("n_bytes", [10, 200, 500])
def test_a_file_cut_within_its_header_is_named(write_ct, n_bytes):
    folder = write_ct()
    path = sorted(folder.iterdir())[2]
    path.write_bytes(path.read_bytes()[:n_bytes])
    with refused(rf"{path.name}: truncated or damaged"):
        open_series(folder)


def test_values_that_are_not_numbers_are_named_with_their_file(write_ct):
    folder = write_ct()
    path = sorted(folder.iterdir())[1]
    path.write_bytes(path.read_bytes().replace(b"-1024.0", b"-1O24.0"))  # the letter O
    with refused(rf"{path.name}: its header makes no sense \(.*1O24"):
        load_series(folder)


def test_frames_without_a_geometry_each_are_refused(write_enhanced):
    path = write_enhanced()
    image = pydicom.dcmread(path)
    del image.PerFrameFunctionalGroupsSequence[0]
    image.save_as(path)
    with refused("4 frames, but another number of items"):
        load_series(path)


def test_a_series_without_rescale_is_refused(write_ct):
    with refused(r"RescaleSlope nan, RescaleIntercept -1024 \(nan: missing\).*give no HU"):
        load_series(write_ct(edit=lambda k, image: image.pop("RescaleSlope")))


def test_material_maps_of_spectral_ct_are_refused(write_ct):
    def iodine(k, image):
        image.RescaleType = "MGML"

    with refused("RescaleType MGML, expected HU"):
        load_series(write_ct(edit=iodine))


def test_colour_is_refused(write_ct):
    def colour(k, image):
        image.SamplesPerPixel, image.PhotometricInterpretation = 3, "RGB"

    with refused("colour pixels"):
        load_series(write_ct(edit=colour))


def test_a_missing_or_empty_folder_is_refused(tmp_path):
    with refused("does not exist"):
        load_series(tmp_path / "nowhere")
    with refused("found no DICOM file at all"):
        load_series(tmp_path)


# Size


def test_a_long_series_is_read_slice_by_slice_in_little_memory(write_ct):
    n, side = 30, 256

    def larger(k, image):
        image.Rows = image.Columns = side
        image.PixelData = np.full((side, side), k, dtype="<i2").tobytes()

    folder = write_ct(n=n, edit=larger)
    tracemalloc.start()
    means = [float(values.mean()) for values, _ in open_series(folder)]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < n * side * side * 4 / 2  # of the volume in float32
    assert means == [k - 1024 for k in range(n)]
