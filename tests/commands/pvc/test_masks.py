"""Masks and labels are told apart by what they hold, and named by what stands beside them."""

import json

import nibabel as nib
import numpy as np
import pytest

from ctrestore.commands.pvc.masks import as_labels, read_lut, read_regions
from tests.commands.pvc.conftest import AFFINE, FWHM_MM, SHAPE, read, save


def test_whole_numbers_above_one_are_labels_however_they_are_stored():
    labels = np.array([[[0, 2, 5]]])
    for kind in (np.uint8, np.int16, np.int32, np.uint64, np.float32):
        found = as_labels(labels.astype(kind))
        assert found is not None and found.dtype.kind in "iu"
        np.testing.assert_array_equal(found, labels)
    for mask in (np.array([[[0, 1]]], np.uint8), np.array([[[0.0, 0.3, 1.0]]]), np.array([[[0.5, 2.5]]])):
        assert as_labels(mask) is None


def test_several_maps_are_named_after_their_files(head):
    regions = read_regions([head.path("grey.nii.gz"), head.path("white.nii.gz")], pet=head.pet, fwhm_mm=FWHM_MM)
    assert tuple(regions.names) == ("grey", "white", "background")
    assert regions.background_added


def test_a_single_mask_of_zeros_and_ones_is_a_region_and_the_rest_the_background(head):
    brain = (read(head.path("labels.nii.gz")) > 0).astype(np.uint8)
    regions = read_regions([save(head.path("brain.nii.gz"), brain)], pet=head.pet, fwhm_mm=FWHM_MM)
    assert tuple(regions.names) == ("brain", "background")
    assert regions.totals().tolist() == [brain.sum(), brain.size - brain.sum()]


def test_the_volumes_of_a_4_d_file_are_named_by_its_sidecar_or_a_table(head):
    masks = head.path("masks.nii.gz")
    assert read_regions([masks], pet=head.pet, fwhm_mm=FWHM_MM).names[0] == "region-1"
    head.path("masks.json").write_text(json.dumps({"LabelMap": ["GM", "WM", "CSF"]}))
    assert tuple(read_regions([masks], pet=head.pet, fwhm_mm=FWHM_MM).names) == (
        "GM",
        "WM",
        "CSF",
        "background",
    )
    head.path("names.txt").write_text("# index name R G B A\n1 cortex 0 0 0 0\n3 ventricles 0 0 0 0\n")
    names = read_regions([masks], pet=head.pet, fwhm_mm=FWHM_MM, lut=head.path("names.txt")).names
    assert tuple(names) == ("cortex", "region-2", "ventricles", "background")


def test_a_table_beside_a_label_map_is_found_and_another_can_be_named(head):
    assert read_lut(head.path("labels.nii.gz"), None) == {0: "outside", 7: "cortex", 40: "white", 4: "ventricle"}
    assert read_lut(head.path("grey.nii.gz"), None) == {}
    head.path("other.tsv").write_text("name\tindex\tcolour\nA\t7\tred\n")
    assert read_lut(head.path("labels.nii.gz"), head.path("other.tsv")) == {7: "A"}


@pytest.mark.parametrize("content", ["label\tname\n1\tA\n", "index\tname\none\tA\n"])
def test_a_table_without_index_and_name_is_refused(head, content):
    head.path("bad.tsv").write_text(content)
    with pytest.raises(ValueError, match=r"bad\.tsv: cannot be read as a table of labels"):
        read_lut(head.path("labels.nii.gz"), head.path("bad.tsv"))


def test_regions_do_not_depend_on_how_the_file_stores_them(head):
    """Scaled bytes, big-endian labels, and the fifth axis that ANTs writes."""
    masks = read(head.path("masks.nii.gz"))
    image = nib.Nifti1Image(np.round(masks * 255).astype(np.uint8), AFFINE)
    image.header.set_slope_inter(1 / 255, 0)
    nib.save(image, head.path("bytes.nii.gz"))
    of_floats, of_bytes = (
        read_regions([head.path(f"{name}.nii.gz")], pet=head.pet, fwhm_mm=FWHM_MM) for name in ("masks", "bytes")
    )
    assert of_bytes.totals() == pytest.approx(of_floats.totals(), rel=0.01)
    five = read_regions([save(head.path("five.nii.gz"), masks[:, :, :, None])], pet=head.pet, fwhm_mm=FWHM_MM)
    np.testing.assert_array_equal(five.totals(), of_floats.totals())
    labels = nib.load(head.path("labels.nii.gz"))
    big = nib.Nifti1Image(np.asarray(labels.dataobj).astype(">i2"), AFFINE, nib.Nifti1Header(endianness=">"))
    nib.save(big, head.path("big.nii.gz"))
    head.path("big.tsv").write_text(head.path("labels.tsv").read_text())
    little, big = (
        read_regions([head.path(f"{name}.nii.gz")], pet=head.pet, fwhm_mm=FWHM_MM) for name in ("labels", "big")
    )
    assert little.names == big.names
    np.testing.assert_array_equal(little.totals(), big.totals())


def test_labels_are_resampled_to_the_nearest_and_probabilities_linearly(head):
    """On voxels of half the size, shifted by half a voxel: a label stays a label, a fraction becomes a mean."""
    affine = AFFINE.copy()
    affine[:3, 0] /= 2
    affine[:3, 3] -= AFFINE[:3, 0] / 4
    labels = np.repeat(read(head.path("labels.nii.gz")), 2, axis=0).astype(np.int16)
    fine = read_regions([save(head.path("fine.nii.gz"), labels, affine)], pet=head.pet, fwhm_mm=FWHM_MM, resample=True)
    same = read_regions([head.path("labels.nii.gz")], pet=head.pet, fwhm_mm=FWHM_MM)
    np.testing.assert_array_equal(fine.totals(), same.totals())
    step = np.broadcast_to((np.arange(2 * SHAPE[0]) % 2 * 0.5)[:, None, None], (2 * SHAPE[0], *SHAPE[1:]))
    half = read_regions(
        [save(head.path("half.nii.gz"), step.astype(np.float32), affine)],
        pet=head.pet,
        fwhm_mm=(6.0, 6.0, 6.0),
        resample=True,
    )
    assert half.totals()[0] == pytest.approx(0.25 * np.prod(SHAPE), rel=1e-5)
