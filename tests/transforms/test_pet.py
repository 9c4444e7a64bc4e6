"""A scan is found, put into its cube, scaled, and comes back as it was: same grid, same unit, every voxel."""

import re

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, CropForegroundd, Invertd, SpatialResample
from scipy.ndimage import affine_transform
from scipy.spatial.transform import Rotation

from ctrestore.psf import blur
from ctrestore.pvc import Regions, correct, reblurred_van_cittert, yang
from ctrestore.transforms.pet import (
    AddToScand,
    AppendVanCittertd,
    ChangeFromInputd,
    CheckVolume,
    CheckVolumed,
    CorrectByTissuesd,
    ResliceToCubed,
    ScaleByPercentiled,
    SplitAtClip,
    SplitAtClipd,
    YangStepsd,
    above_half,
    affine_of,
    append_rest,
    append_van_cittert,
    copy_to_grid,
    cube_affine,
    head_mask,
    interpolate_to_grid,
    one_brain,
    positive_percentile,
)


def affine(columns, *, origin=(0.0, 0.0, 0.0)):
    out = np.eye(4)
    out[:3, :3], out[:3, 3] = columns, origin
    return out


OBLIQUE = Rotation.from_euler("xyz", [12, -8, 20], degrees=True).as_matrix()
AFFINES = {
    "straight": affine(np.diag([4.0, 4.0, 4.0]), origin=(-60, -70, -50)),
    "flipped": affine(np.diag([-4.0, 4.0, -5.0]), origin=(60, -70, 80)),
    "permuted": affine([[0, 0, 4.0], [-5.0, 0, 0], [0, 3.0, 0]], origin=(-60, 90, -40)),
    "oblique": affine(OBLIQUE @ np.diag([4.0, 4.0, 5.0]), origin=(-50, -60, -70)),
    "sheared": affine(
        np.array([[1, 0.2, 0], [0, 1, 0.1], [0, 0, 1]]) @ np.diag([4.0, 4.0, 4.0]), origin=(-70, -60, -60)
    ),
}


def world(shape, matrix):
    """World coordinates (mm) of every voxel: ``(3, *shape)``."""
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij")).reshape(3, -1)
    return (matrix[:3, :3] @ grid + matrix[:3, 3:]).reshape(3, *shape)


def centre_of(shape, matrix):
    return matrix[:3, :3] @ ((np.array(shape) - 1) / 2) + matrix[:3, 3]


def blob(shape, matrix, *, fwhm_mm=50.0, amplitude=1000.0):
    """A smooth head in the middle of the matrix, ``(1, x, y, z)``."""
    away = world(shape, matrix) - centre_of(shape, matrix).reshape(3, 1, 1, 1)
    values = amplitude * np.exp(-4 * np.log(2) * (away**2).sum(0) / fwhm_mm**2)
    return MetaTensor(torch.from_numpy(values[None]).float(), affine=torch.from_numpy(matrix))


def ball(shape=(32, 36, 30), centre=(14, 20, 13), radius=8.0, *, noise=0.0, seed=0):
    away = world(shape, np.eye(4)) - np.array(centre, dtype=float).reshape(3, 1, 1, 1)
    values = 100.0 * ((away**2).sum(0) <= radius**2)
    return torch.from_numpy(values[None] + np.random.default_rng(seed).normal(0, noise, (1, *shape))).float()


# Finding the head


def test_the_head_mask_finds_a_ball_in_noise_to_within_a_block():
    image, truth = ball(noise=5.0), ball() > 0
    mask = head_mask(image)
    assert mask.dtype == torch.bool
    assert mask[truth].float().mean() > 0.98  # blocks that hold only a tip of the ball are left out
    inside = torch.nonzero(mask[0])
    lowest, highest = inside.amin(0), inside.amax(0)
    for axis, middle in enumerate((14, 20, 13)):
        assert abs(lowest[axis] - (middle - 8)) <= 4
        assert abs(highest[axis] - (middle + 8)) <= 4


def test_a_bright_spot_apart_from_the_head_is_no_part_of_it():
    image = ball()
    image[0, 28:, :4, 24:] = 100.0
    assert torch.equal(head_mask(image), head_mask(ball()))


def test_negative_voxels_and_frames_of_noise_do_not_hide_the_head():
    image = ball()
    frames = torch.cat([image, torch.full_like(image, -3000.0)])
    assert torch.equal(head_mask(frames), head_mask(image))


def test_a_size_that_is_no_multiple_of_a_block_is_covered_to_its_last_voxel():
    mask = head_mask(torch.ones(1, 9, 10, 11))
    assert mask.shape == (1, 9, 10, 11)
    assert bool(mask.all())


# Placing the cube


@pytest.mark.parametrize("name", AFFINES)
def test_the_cube_is_centred_on_the_head_in_the_world(name):
    image = blob((32, 36, 28), AFFINES[name])
    cube = cube_affine(image, size=64, spacing_mm=4.0)
    np.testing.assert_array_equal(cube[:3, :3], 4.0 * np.eye(3))  # axes R, A, S
    middle = centre_of((64, 64, 64), cube)
    # the mask consists of blocks of four voxels, whose bounds are off by up to half a block
    np.testing.assert_allclose(middle, centre_of((32, 36, 28), AFFINES[name]), atol=2.5 * 4.0)


def test_a_scan_down_to_the_shoulders_keeps_the_top_of_the_head():
    matrix = affine(np.diag([4.0, 4.0, 4.0]))
    image = MetaTensor(torch.zeros(1, 20, 20, 80), affine=torch.from_numpy(matrix))
    image[0, 4:16, 4:16, :72] = 1.0  # 288 mm of body, its top at 284 mm
    cube = cube_affine(image, size=40, spacing_mm=4.0)
    top_of_cube_mm = cube[2, 3] + 4.0 * 39
    assert 284.0 <= top_of_cube_mm <= 284.0 + 8.0 + 4.0


def test_a_head_that_just_fits_is_not_moved_against_one_that_just_does_not():
    def bottom(n_slices):
        image = MetaTensor(torch.zeros(1, 16, 16, 80), affine=torch.diag(torch.tensor([4.0, 4.0, 4.0, 1.0])))
        image[0, 4:12, 4:12, 80 - n_slices :] = 1.0
        return cube_affine(image, size=64, spacing_mm=4.0)[2, 3]

    # 60 slices of 4 mm fill the cube but for its margins of 8 mm
    assert abs(bottom(60) - bottom(64)) <= 4.0 * 2


@pytest.mark.parametrize(
    "columns",
    [np.eye(3), np.diag([-1.0, 1.0, -1.0]), np.array([[0, 0, 1.0], [-1.0, 0, 0], [0, 1.0, 0]])],
    ids=["straight", "flipped", "permuted"],
)
def test_a_scan_whose_voxels_have_the_cubes_size_is_copied_not_interpolated(columns):
    matrix = affine(columns, origin=(3.3, -17.8, 40.45))
    noise = torch.from_numpy(
        np.random.default_rng(0).random((1, 25, 20, 27))
    ).float()  # odd sides: the centre is off the grid
    image = MetaTensor(noise, affine=torch.from_numpy(matrix))
    out = ResliceToCubed("image", size=64)({"image": image})["image"]
    canonical = nib.as_closest_canonical(nib.Nifti1Image(noise[0].numpy(), matrix))
    first = np.linalg.solve(affine_of(out), canonical.affine)[:3, 3]
    np.testing.assert_allclose(first, np.round(first), atol=1e-9)
    expected = np.zeros((64, 64, 64), dtype=np.float32)
    expected[tuple(slice(i, i + n) for i, n in zip(np.round(first).astype(int), canonical.shape))] = canonical.dataobj
    np.testing.assert_array_equal(out.numpy()[0], expected)


# There and back


@pytest.mark.parametrize("name", AFFINES)
def test_a_marker_keeps_its_place_in_the_world(name):
    matrix, shape = AFFINES[name], (32, 36, 28)
    marker = np.array([18, 15, 12])
    image = blob(shape, matrix)
    spot = MetaTensor(torch.zeros(1, *shape), affine=torch.from_numpy(matrix))
    spot[(0, *marker)] = 1.0
    out = ResliceToCubed(["image", "spot"], spacing_mm=2.0, size=96)({"image": image, "spot": spot})["spot"]
    position = np.average(world((96,) * 3, affine_of(out)).reshape(3, -1), axis=1, weights=out.numpy().ravel())
    # trilinear interpolation keeps the centre of a spot up to the sampling by the cube's voxels
    np.testing.assert_allclose(position, matrix[:3, :3] @ marker + matrix[:3, 3], atol=0.5)


@pytest.mark.parametrize("name", AFFINES)
def test_a_smooth_scan_survives_the_way_there_and_back(name):
    image = blob((32, 36, 28), AFFINES[name])
    reslice = ResliceToCubed("image", spacing_mm=2.0, size=96)
    back = reslice.inverse(reslice({"image": image.clone()}))["image"]
    assert back.shape == image.shape
    np.testing.assert_allclose(affine_of(back), AFFINES[name], atol=1e-6)
    inside = image > 300.0  # well inside the cube, however the matrix lies
    # two linear interpolations of a blob 50 mm wide on voxels of 2 to 5 mm
    assert float((back - image)[inside].abs().max()) < 0.02 * 1000.0


@pytest.mark.parametrize(
    "columns", [np.eye(3), np.diag([-1.0, 1.0, -1.0]), np.array([[0, 0, 1.0], [-1.0, 0, 0], [0, 1.0, 0]])]
)
def test_a_scan_whose_voxels_have_the_cubes_size_comes_back_bit_by_bit(columns):
    matrix = affine(columns, origin=(3.3, -17.8, 40.45))
    noise = torch.rand(2, 25, 20, 27, generator=torch.Generator().manual_seed(0))
    reslice = ResliceToCubed("image", size=64)
    back = reslice.inverse(reslice({"image": MetaTensor(noise, affine=torch.from_numpy(matrix))}))["image"]
    assert torch.equal(back.as_tensor(), noise)
    np.testing.assert_allclose(affine_of(back), matrix)
    assert not back.applied_operations


def test_a_copy_to_another_grid_is_what_resampling_to_it_gives():
    rng = np.random.default_rng(0)
    for _ in range(20):
        turns = np.eye(3)[rng.permutation(3)] * rng.choice([-1, 1], 3)
        steps = np.eye(4)
        steps[:3, :3], steps[:3, 3] = turns, rng.integers(-6, 16, 3)
        volume = torch.from_numpy(rng.random((1, 9, 11, 10)))
        copied = copy_to_grid(volume, steps, (8, 12, 7))
        expected = affine_transform(volume[0].numpy(), steps[:3, :3], steps[:3, 3], output_shape=(8, 12, 7), order=0)
        np.testing.assert_array_equal(copied[0], expected)


@pytest.mark.parametrize("name", ["straight", "flipped", "permuted"])
def test_interpolation_axis_by_axis_is_what_general_resampling_gives(name):
    """Also where the new grid reaches beyond the scan; MONAI in float64, as its float32 coordinates are 1e-5 off."""
    values = torch.from_numpy(np.random.default_rng(0).normal(size=(2, 22, 26, 18))).float()
    image = MetaTensor(values, affine=torch.from_numpy(AFFINES[name]))
    target = np.diag([1.7, 2.3, 2.9, 1.0])
    target[:3, 3] = centre_of(image.shape[1:], AFFINES[name]) - [35.0, 33.1, 60.0]
    shape = (44, 40, 30)
    expected = SpatialResample(mode="bilinear", padding_mode="zeros", align_corners=True, dtype=torch.float64)(
        image, dst_affine=torch.from_numpy(target), spatial_size=shape
    )
    resliced = interpolate_to_grid(values, np.linalg.solve(AFFINES[name], target), shape)
    assert float((expected == 0).float().mean()) > 0.05  # a part lies outside
    np.testing.assert_allclose(resliced, expected.as_tensor(), atol=2e-6)


@pytest.mark.parametrize("name", ["oblique", "sheared"])
def test_a_grid_whose_axes_do_not_run_along_the_scans_is_left_to_the_general_resampling(name):
    assert interpolate_to_grid(torch.ones(1, 9, 9, 9), np.linalg.inv(AFFINES[name]), (9, 9, 9)) is None


def test_a_mask_that_was_interpolated_on_the_way_there_comes_back_by_its_nearest_voxel_on_request():
    reslice = Compose([ResliceToCubed(["image"], spacing_mm=2.0, size=96)])
    data = reslice({"image": blob((32, 36, 28), AFFINES["straight"])})
    data["pred"] = MetaTensor((data["image"].as_tensor() > 300).float())
    back = Invertd("pred", transform=reslice, orig_keys="image", nearest_interp=True)(data)["pred"]
    assert set(back.unique().tolist()) == {0.0, 1.0}


@pytest.mark.parametrize(("scale", "shift"), [(1.01, 0.0), (2.0, 0.0), (1.0, 0.4)])
def test_grids_whose_voxels_do_not_coincide_are_not_copied(scale, shift):
    steps = np.diag([1.0, 1.0, scale, 1.0])
    steps[0, 3] = shift
    assert copy_to_grid(torch.zeros(1, 8, 8, 8), steps, (8, 8, 8)) is None


def test_what_lies_outside_the_cube_comes_back_as_zero():
    matrix = affine(np.diag([4.0, 4.0, 4.0]))
    image = blob((32, 32, 60), matrix, fwhm_mm=60.0) + 1.0
    reslice = ResliceToCubed("image", spacing_mm=4.0, size=32)
    back = reslice.inverse(reslice({"image": image}))["image"]
    seen = (back != 0).numpy()[0]
    assert seen.any(axis=(0, 1)).sum() == 32
    np.testing.assert_allclose(back.numpy()[0][seen], image.numpy()[0][seen], rtol=1e-3)


def test_a_mask_may_be_resliced_by_its_nearest_voxel_beside_a_linear_scan():
    image = blob((32, 36, 28), AFFINES["oblique"])
    data = {"image": image, "mask": (image > 400).float()}
    out = ResliceToCubed(["image", "mask"], spacing_mm=3.0, size=64, mode=["bilinear", "nearest"])(data)
    assert set(np.unique(out["mask"].numpy())) == {0.0, 1.0}
    assert np.unique(out["image"].numpy()).size > 1000


@pytest.mark.parametrize("fault", ["shape", "affine"])
def test_a_label_on_another_grid_is_refused_with_its_name_and_the_remedy(fault):
    matrix = AFFINES["straight"]
    image = blob((32, 36, 28), matrix)
    label = blob((32, 36, 27), matrix) if fault == "shape" else blob((32, 36, 28), matrix + 0.5 * np.eye(4)[:, [0]])
    with pytest.raises(ValueError, match=r"(?s)label has .* and image .*resample it to the scan's grid"):
        ResliceToCubed(["image", "label"], spacing_mm=4.0, size=32)({"image": image, "label": label})


# Scaling


def test_the_scale_is_the_99th_percentile_of_the_images_own_positive_voxels_frame_by_frame():
    image = torch.from_numpy(np.random.default_rng(0).normal(1.0, 2.0, (2, 8, 9, 10))).float()
    image[1] *= 50.0
    expected = [np.percentile(frame[frame > 0], 99) for frame in image.numpy()]
    np.testing.assert_allclose(positive_percentile(image, 99.0), expected, rtol=1e-6)
    scaled = ScaleByPercentiled("image")({"image": MetaTensor(image)})["image"]
    np.testing.assert_allclose(positive_percentile(scaled, 99.0), [1.0, 1.0], rtol=1e-5)


def test_the_label_is_divided_by_the_number_of_the_image_and_never_sets_it():
    image, label = ball(noise=5.0), 7.0 * ball(noise=5.0, seed=1)
    out = ScaleByPercentiled(["label", "image"])({"image": image, "label": label})
    scale = float(positive_percentile(image, 99.0))
    torch.testing.assert_close(out["image"], image / scale)
    torch.testing.assert_close(out["label"], label / scale)


def test_scaling_back_gives_the_units_of_the_scan_again_negative_voxels_too():
    image = MetaTensor(torch.cat([ball(noise=5.0), 13_700.0 * ball(noise=5.0, seed=1)]))
    scale = ScaleByPercentiled("image")
    back = scale.inverse(scale({"image": image.clone()}))["image"]
    torch.testing.assert_close(back.as_tensor(), image.as_tensor(), rtol=3e-7, atol=0.0)  # two roundings
    assert not back.applied_operations


def test_the_channels_of_a_split_add_up_to_the_positive_part_to_the_bit():
    image = torch.from_numpy(np.random.default_rng(0).normal(0.5, 3.0, (3, 8, 8, 8))).float()
    out = SplitAtClip()(image)
    assert out.shape == (6, 8, 8, 8)
    assert torch.equal(out[0::2] + out[1::2], image.clamp(min=0.0))
    assert out[0::2].max() == 1.0
    assert torch.equal(out[0::2], image.clamp(0.0, 1.0))
    assert not out[1::2][image <= 1.0].any()


def test_above_half_is_strict():
    assert above_half(torch.tensor([0.0, 0.5, 0.51, 1.0])).tolist() == [False, False, True, True]


# Bad scans


def scan_with(shape=(1, 16, 16, 16), sizes_mm=(2.0, 2.0, 2.0), columns=None):
    return MetaTensor(
        torch.ones(shape), affine=torch.from_numpy(affine(np.diag(sizes_mm) if columns is None else columns))
    )


def with_voxel(value):
    image = scan_with()
    image[0, 3, 4, 5] = value
    return image


def one_empty_frame():
    image = scan_with((3, 16, 16, 16))
    image[1] = 0.0
    return image


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (with_voxel(float("nan")), "1 voxels are NaN or infinite.*nan_to_num"),
        (with_voxel(float("inf")), "1 voxels are NaN or infinite"),
        (with_voxel(-float("inf")), "1 voxels are NaN or infinite"),
        (0.0 * scan_with(), "no voxel is above zero.*empty export"),
        (-1.0 * scan_with(), "no voxel is above zero"),
        (one_empty_frame(), r"frames \[1\] hold no voxel above zero"),
        (torch.ones(1, 16, 16), r"3 spatial axes.*shape \(16, 16\).*one NIfTI volume"),
        (torch.ones(1, 16, 16, 16, 2), r"3 spatial axes.*shape \(16, 16, 16, 2\)"),
        (scan_with((1, 64, 64, 1)), r"\(64, 64, 1\) voxels are too few"),
        (scan_with(sizes_mm=(2.0, 2.0, 0.0)), r"voxels of \[2.0, 2.0, 0.0\] mm.*Remedy"),
        (scan_with(sizes_mm=(1000.0, 2.0, 2.0)), r"voxels of \[1000.0, 2.0, 2.0\] mm.*Remedy"),
        (scan_with(sizes_mm=(0.002, 0.002, 0.002)), "in metres"),
        (scan_with(sizes_mm=(float("nan"), 2.0, 2.0)), r"voxels of \[nan, 2.0, 2.0\] mm"),
        (scan_with(columns=[[2.0, 2.0, 0], [0, 0, 0], [0, 0, 2.0]]), "not independent.*Remedy"),
    ],
)
def test_a_scan_that_cannot_be_corrected_is_told_why_and_what_to_do(image, message):
    with pytest.raises(ValueError, match=message):
        CheckVolume()(image)


@pytest.mark.parametrize("name", AFFINES)
def test_a_sound_scan_passes_unchanged_however_its_axes_lie(name):
    image = blob((16, 18, 20), AFFINES[name])
    assert CheckVolumed("image")({"image": image})["image"] is image


# Change and scan


def noisy_scan(seed=0, n_frames=1):
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.normal(200.0, 400.0, (n_frames, 12, 13, 14))).float()


@pytest.mark.parametrize("n_frames", [1, 3])
def test_an_identity_network_gives_the_scan_back_to_the_bit_negative_voxels_included(n_frames):
    scan = noisy_scan(n_frames=n_frames)
    scaled = ScaleByPercentiled("image")({"image": MetaTensor(scan.clone())})
    data = SplitAtClipd("image")(scaled)
    data |= {"scan": scan, "pred": data["image"][0::2] + data["image"][1::2]}
    data = ChangeFromInputd("pred", input_key="image")(data)
    assert not data["pred"].any()
    out = AddToScand("pred", scan_key="scan")(data)["pred"]
    assert torch.equal(torch.as_tensor(out), scan)
    assert (out < 0).any()


def test_a_t1_beside_the_image_is_no_part_of_the_change():
    image = torch.rand(3, 4, 4, 4)  # clipped, above the clip, T1
    data = {"image": image, "pred": image[:2].sum(dim=0, keepdim=True)}
    assert not ChangeFromInputd()(data)["pred"].any()


def test_a_network_with_one_input_channel_has_its_change_taken_from_that():
    image = torch.rand(1, 4, 4, 4)
    torch.testing.assert_close(
        ChangeFromInputd()({"image": image, "pred": image + 0.25})["pred"], torch.full_like(image, 0.25)
    )


def test_nothing_is_pushed_below_zero_and_no_negative_voxel_further():
    scan, change = noisy_scan(), noisy_scan(seed=1) - 300.0
    out = AddToScand()({"scan": scan, "pred": change})["pred"]
    assert not (out[scan >= 0] < 0).any()
    assert bool((out >= scan)[scan < 0].all())
    kept = scan + change > 0
    assert torch.equal(out[kept], (scan + change)[kept])


@pytest.mark.parametrize("name", AFFINES)
def test_a_correction_reaches_the_scan_in_its_place_and_its_unit(name):
    """The whole chain of the configs around a network that doubles everything."""
    matrix = AFFINES[name]
    scan = blob((32, 36, 28), matrix)
    before = Compose(
        [
            ResliceToCubed("image", spacing_mm=2.0, size=96),
            ScaleByPercentiled("image"),
            CropForegroundd("image", source_key="image", select_fn=head_mask, margin=4, allow_smaller=True),
            SplitAtClipd("image"),
        ]
    )
    data = before({"image": scan.clone()})
    data["pred"] = MetaTensor(2.0 * data["image"].as_tensor().sum(dim=0, keepdim=True))
    data["scan"] = scan
    after = [
        ChangeFromInputd(),
        Invertd("pred", transform=before, orig_keys="image", nearest_interp=False),
        AddToScand(),
    ]
    out = Compose(after)(data)["pred"]
    assert out.shape == scan.shape
    np.testing.assert_allclose(affine_of(out), matrix, atol=1e-6)
    inside = scan > 300.0
    assert float((out / scan)[inside].sub(2.0).abs().max()) < 0.06  # the change was interpolated twice


def test_the_affine_of_a_plain_tensor_is_the_identity():
    np.testing.assert_array_equal(affine_of(torch.zeros(1, 4, 4, 4)), np.eye(4))


def test_the_axes_of_the_cube_are_right_anterior_superior():
    assert nib.aff2axcodes(cube_affine(blob((32, 36, 28), AFFINES["permuted"]), size=32, spacing_mm=8.0)) == tuple(
        "RAS"
    )


def test_messages_start_in_the_middle_of_a_sentence_because_the_file_is_named_before_them():
    with pytest.raises(ValueError) as caught:
        CheckVolume()(0.0 * scan_with())
    assert re.match(r"[a-z0-9(]", str(caught.value))


@pytest.mark.parametrize("n_frames", [1, 2])
def test_the_third_channel_of_each_frame_is_what_van_cittert_would_change(n_frames):
    rng = np.random.default_rng(0)
    frames = blur(rng.random((n_frames, 20, 24, 22), dtype=np.float32), fwhm_mm=6.0, spacing_mm=2.0)
    split = SplitAtClip()(torch.from_numpy(1.3 * frames))
    out = append_van_cittert(split, fwhm_mm=(6.0, 5.0, 4.0), spacing_mm=(2.0, 2.0, 2.0))
    assert out.shape == (3 * n_frames, 20, 24, 22)
    for i, frame in enumerate(1.3 * frames):
        expected = reblurred_van_cittert(frame, fwhm_mm=(6.0, 5.0, 4.0), spacing_mm=2.0)
        np.testing.assert_allclose(out[3 * i : 3 * i + 3].sum(0), expected, atol=1e-5)
        assert torch.equal(out[3 * i : 3 * i + 2], split[2 * i : 2 * i + 2])


def test_the_fwhm_of_the_entry_is_used_and_6_mm_where_there_is_none():
    image = MetaTensor(torch.rand(2, 16, 16, 16), affine=np.diag([2.0, 2.0, 2.0, 1.0]))
    append = AppendVanCittertd("image")
    plain = append({"image": image})["image"]
    assert isinstance(plain, MetaTensor)
    assert torch.equal(plain, append({"image": image, "fwhm_mm": [6.0, 6.0, 6.0]})["image"])
    assert not torch.equal(plain, append({"image": image, "fwhm_mm": [6.0, 6.0, 8.0]})["image"])


@pytest.mark.parametrize("n_frames", [1, 2])
def test_each_frame_takes_its_own_yang_step(n_frames):
    rng = np.random.default_rng(1)
    frames = blur(rng.random((n_frames, 16, 18, 20), dtype=np.float32), fwhm_mm=5.0, spacing_mm=2.0)
    image = append_van_cittert(SplitAtClip()(torch.from_numpy(frames)), fwhm_mm=(5.0,) * 3, spacing_mm=(2.0,) * 3)
    item = {
        "image": MetaTensor(image, affine=np.diag([2.0, 2.0, 2.0, 1.0])),
        "pred": torch.from_numpy(0.9 * frames),
        "fwhm_mm": [5.0, 5.0, 5.0],
    }
    out = YangStepsd(n_steps=2)(item)["pred"]
    for i, frame in enumerate(frames):
        expected = yang(frame, 0.9 * frame, fwhm_mm=5.0, spacing_mm=2.0, n_steps=2)
        np.testing.assert_allclose(out[i], expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(YangStepsd(n_steps=0)(item)["pred"], item["pred"])


FULL_FRACTIONS = torch.tensor([[0.2, 1.0, 0.0, 0.7], [0.3, 0.0, 0.0, 0.7]]).reshape(2, 4, 1, 1)


def test_what_the_tissues_leave_of_a_voxel_is_the_rest_and_everything_adds_up_to_one():
    out = append_rest(FULL_FRACTIONS)
    torch.testing.assert_close(out.sum(dim=0), torch.ones(4, 1, 1))
    torch.testing.assert_close(out[:, 0].flatten(), torch.tensor([0.2, 0.3, 0.5]))
    torch.testing.assert_close(out[2].flatten(), torch.tensor([0.5, 0.0, 1.0, 0.0]))
    torch.testing.assert_close(out[:2, 3].flatten(), torch.tensor([0.5, 0.5]))  # 1.4 in all, scaled down


@pytest.mark.parametrize("wrong", [100 * FULL_FRACTIONS, FULL_FRACTIONS - 0.1, FULL_FRACTIONS * float("nan")])
def test_percents_and_other_numbers_that_are_no_fractions_are_refused(wrong):
    with pytest.raises(ValueError, match=r"tissue fractions lie in 0\.\.1.*Remedy"):
        append_rest(wrong)


TRUE_MEANS = (4000.0, 1000.0, 100.0, 20.0)


def seen_tissues(n_frames=1, *, with_csf=True):
    """Logits that name the true tissue of each voxel, and the PET that a scanner saw: 32-cube of 2 mm."""
    radius = np.linalg.norm(np.indices((32, 32, 32)) - 15.5, axis=0)
    inner = 4 if with_csf else 0
    masks = np.stack([(radius < 12) & (radius >= 8), (radius < 8) & (radius >= inner), radius < inner, radius >= 12])
    truth = np.tensordot(TRUE_MEANS, masks, axes=1).astype(np.float32)
    frames = np.stack([truth * (0.1 + 0.9 * i) for i in range(n_frames)])
    pet = blur(frames, fwhm_mm=6.0, spacing_mm=2.0)
    image = append_van_cittert(SplitAtClip()(torch.from_numpy(pet)), fwhm_mm=(6.0,) * 3, spacing_mm=(2.0,) * 3)
    return (
        {
            "image": MetaTensor(image, affine=np.diag([2.0, 2.0, 2.0, 1.0])),
            "pred": torch.from_numpy(40.0 * masks.astype(np.float32)).repeat(n_frames, 1, 1, 1),
            "fwhm_mm": [6.0, 6.0, 6.0],
        },
        frames,
        masks,
    )


@pytest.mark.parametrize("n_frames", [1, 2])
def test_tissues_that_are_seen_rightly_give_back_the_true_activity_frame_by_frame(n_frames):
    item, truth, masks = seen_tissues(n_frames)
    out = CorrectByTissuesd()(item)
    assert out["pred"].shape == (n_frames, 32, 32, 32)
    # RBV of uniform regions is exact but for the blur's tails beyond the volume
    np.testing.assert_allclose(out["pred"], truth, atol=0.01 * truth.max())
    np.testing.assert_allclose(out["tissue"], masks[:3], atol=1e-6)
    np.testing.assert_array_equal(affine_of(out["tissue"]), affine_of(item["image"]))


def test_the_correction_is_that_of_the_classical_method_by_name():
    item, _, masks = seen_tissues()
    out = CorrectByTissuesd(method="IY")(item)["pred"]
    regions = Regions.from_masks(masks.astype(np.float32))
    pet = np.ascontiguousarray(item["image"][:2].sum(0), dtype=np.float32)
    expected = correct(pet, regions, "IY", fwhm_mm=(6.0, 6.0, 6.0), spacing_mm=2.0).image
    np.testing.assert_allclose(out[0], expected, rtol=1e-3, atol=1.0)


def test_a_tissue_that_the_network_does_not_see_joins_the_background():
    item, truth, _ = seen_tissues(with_csf=False)
    out = CorrectByTissuesd()(item)
    np.testing.assert_allclose(out["pred"], truth, atol=0.01 * truth.max())
    assert out["tissue"].shape[0] == 3


def test_a_method_without_an_image_is_refused():
    item, _, _ = seen_tissues()
    with pytest.raises(ValueError, match=r"GTM gives regional means and no image\. Remedy"):
        CorrectByTissuesd(method="GTM")(item)


def test_specks_of_tissue_away_from_the_brain_become_background():
    brain = blur(np.pad(np.ones((12, 12, 12), dtype=np.float32), 14), fwhm_mm=4.0, spacing_mm=1.0)
    fractions = torch.from_numpy(np.stack([0.6 * brain, 0.3 * brain, 0.1 * brain, 1 - brain]))
    specked = fractions.clone()
    specked[:, 2:4, 2:4, 2:4] = torch.tensor([0.9, 0.0, 0.0, 0.1])[:, None, None, None]
    cleaned = one_brain(specked)
    assert not cleaned[0, 2:4, 2:4, 2:4].any()
    np.testing.assert_allclose(cleaned.sum(dim=0), 1.0, rtol=1e-6)
    inside = fractions[3] < 0.99
    np.testing.assert_allclose(cleaned[:, inside], fractions[:, inside], atol=1e-6)
