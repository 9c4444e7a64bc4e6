"""`ctrestore pvc` gives the true means of a blurred phantom back, writes all or nothing, and says what is wrong."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from ctrestore import __version__
from ctrestore.commands.main import main
from ctrestore.commands.pvc.running import alpha_and_stop
from ctrestore.psf import blur
from ctrestore.pvc import METHODS, gtm
from ctrestore.pvc_methods import CHAINS
from tests.commands.pvc.conftest import AFFINE, FWHM_MM, MEANS, PSF, SHAPE, SPACING_MM, read, save, sidecar
from tests.conftest import ROOT


def table(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def column(path, name):
    return {row["name"]: float(row[name]) for row in table(path)}


# What it gives


@pytest.mark.parametrize("masks", ["4-D", "3-D"])
@pytest.mark.parametrize("method", ["GTM", "LABBE"])
def test_the_table_of_a_blurred_phantom_holds_the_true_means(head, method, masks, capsys):
    files = [head.path("masks.nii.gz")] if masks == "4-D" else head.tissues
    assert head.command("-m", *files, "-p", method, "-o", head.path("out.tsv")) == 0
    means = [float(row["mean_corrected"]) for row in table(head.path("out.tsv"))]
    assert means[:3] == pytest.approx(list(MEANS.values()), rel=2e-4)  # float32 files
    assert means[3] == pytest.approx(0, abs=1)
    grey = table(head.path("out.tsv"))[0]
    assert float(grey["mean_uncorrected"]) < 0.9 * MEANS["grey"]  # spill-out is there before the correction
    volume_ml = head.masks["grey"].sum() * np.prod(SPACING_MM) / 1000
    assert float(grey["volume_ml"]) == pytest.approx(volume_ml, rel=1e-4)
    assert "one of them added: the background" in capsys.readouterr().out


@pytest.mark.parametrize("method", ["RBV", "IY", "MTC", "LABBE+RBV"])
def test_the_image_of_a_blurred_phantom_is_the_truth(head, method):
    assert head.command("-m", *head.tissues, "-p", method, "-n", "30", "-o", head.path("out.nii.gz")) == 0
    inside = head.truth > 100
    np.testing.assert_allclose(read(head.path("out.nii.gz"))[inside], head.truth[inside], rtol=0.02)


@pytest.mark.parametrize("method", ["MG", "mMG"])
def test_grey_matter_of_a_blurred_phantom_is_the_truth_by_either_convention(head, method):
    grey = head.masks["grey"]
    value = ["--white-value", "3000"] if method == "MG" else []
    outputs = {}
    for convention in ("concentration", "fraction"):
        out = head.path(f"{convention}.nii.gz")
        assert head.command("-m", *head.tissues, "-p", method, *value, "--convention", convention, "-o", out) == 0
        outputs[convention] = read(out)
    inside = grey > 0.9
    # MG takes CSF to be without activity, and its 500 are seen in the innermost grey matter.
    assert outputs["concentration"][inside].mean() == pytest.approx(MEANS["grey"], rel=0.02)
    np.testing.assert_allclose(outputs["fraction"][inside], (outputs["concentration"] * grey)[inside], rtol=1e-4)
    written = json.loads(head.path("fraction.json").read_text())
    assert written["PVCWhiteMatterValue"] == pytest.approx(3000, rel=1e-3)
    assert written["PVCConvention"] == "fraction"
    assert written["SkullStripped"] is True


def test_a_label_map_gets_its_names_from_the_table_beside_it(head):
    labels = read(head.path("labels.nii.gz"))
    painted = np.select([labels == 7, labels == 40, labels == 4], [9.0, 5.0, 1.0]).astype(np.float32)
    save(head.pet, blur(painted, fwhm_mm=FWHM_MM, spacing_mm=SPACING_MM))
    out = head.path("out.tsv")
    assert head.command("-m", head.path("labels.nii.gz"), "-p", "GTM", "-o", out) == 0
    expected = {"outside": 0.0, "ventricle": 1.0, "cortex": 9.0, "white": 5.0}
    assert column(out, "mean_corrected") == pytest.approx(expected, rel=1e-4, abs=1e-4)


def test_soft_parcels_share_out_grey_matter(head):
    side = 1 + (np.arange(SHAPE[0]) >= SHAPE[0] // 2)[:, None, None] * np.ones(SHAPE, dtype=np.int16)
    truth = head.truth + 2000 * (side == 2) * head.masks["grey"]
    save(head.pet, blur(truth.astype(np.float32), fwhm_mm=FWHM_MM, spacing_mm=SPACING_MM))
    parcels, out = save(head.path("parcels.nii.gz"), side.astype(np.int16)), head.path("out.tsv")
    head.path("parcels.tsv").write_text("index\tname\n1\tright\n2\tleft\n")
    assert head.command("-m", *head.tissues, "--parcels", parcels, "-p", "GTM", "-o", out) == 0
    means = column(out, "mean_corrected")
    assert list(means)[:2] == ["right", "left"]
    assert (means["right"], means["left"]) == pytest.approx((10000, 12000), rel=1e-3)


def test_uptake_ratios_refer_to_the_volume_weighted_mean_of_the_named_regions(head):
    out = head.path("t.tsv")
    arguments = ["-m", *head.tissues, "-p", "RBV", "-o", head.path("out.nii.gz"), "--table", out]
    assert head.command(*arguments, "--reference-region", "white", "csf") == 0
    volumes, means = column(out, "volume_ml"), column(out, "mean_corrected")
    reference = np.average([means["white"], means["csf"]], weights=[volumes["white"], volumes["csf"]])
    assert column(out, "suvr_corrected")["grey"] == pytest.approx(means["grey"] / reference, rel=1e-4)


def test_every_frame_of_a_dynamic_scan_is_corrected_and_keeps_its_time(head):
    still = read(head.pet)
    save(head.pet, np.stack([0 * still, still, 2 * still], axis=-1))
    sidecar(head.folder, FrameTimesStart=[0, 60, 180], FrameDuration=[60, 120, 300], Units="Bq/mL")
    out = head.path("out.nii.gz")
    assert head.command("-m", *head.tissues, "-p", "RBV", "-o", out, "--table", head.path("t.tsv")) == 0
    frames = read(out)
    assert not frames[..., 0].any()  # before the tracer came
    np.testing.assert_allclose(frames[..., 2], 2 * frames[..., 1], rtol=1e-4, atol=1e-2)
    rows = table(head.path("t.tsv"))
    assert len(rows) == 3 * 4
    last = rows[-4]
    assert (last["frame"], last["frame_start_s"], last["frame_duration_s"], last["name"]) == ("3", "180", "300", "grey")
    assert float(last["mean_corrected"]) == pytest.approx(20000, rel=1e-3)
    written = json.loads(head.path("out.json").read_text())
    assert written["PVCReblurredResidual"][0] is None
    assert written["PVCRegionMeans"]["grey"] == pytest.approx([0, 10000, 20000], rel=1e-3)
    assert written["Units"] == "Bq/mL"


def test_the_residual_is_next_to_nothing_where_the_model_holds_and_large_with_a_wrong_psf(head, capsys):
    for widths in (PSF, ["-x", "12", "-y", "14", "-z", "16"]):
        assert (
            main(["pvc", "-i", str(head.pet), "-m", *head.tissues, "-p", "GTM", *widths, "-o", f"{head.pet}.tsv"]) == 0
        )
    said = [
        float(line.split()[-1].rstrip("%"))
        for line in capsys.readouterr().out.splitlines()
        if line.startswith("residual")
    ]
    assert said[0] < 0.1 < 5 < said[1]


def test_gtm_as_an_image_is_painted_and_says_so(head, capsys):
    assert head.command("-m", *head.tissues, "-p", "GTM", "-o", head.path("out.nii.gz")) == 0
    np.testing.assert_allclose(read(head.path("out.nii.gz")), head.truth, atol=5)
    assert "painted" in capsys.readouterr().out


def test_the_output_keeps_the_header_of_the_pet(head):
    image = nib.load(head.pet)
    image.header.set_xyzt_units("mm", "msec")
    image.set_qform(AFFINE, 2)
    image.set_sform(AFFINE, 3)
    nib.save(nib.Nifti1Image(read(head.pet).astype(np.int16), None, image.header), head.pet)
    assert head.command("-p", "VC", "-o", head.path("out.nii")) == 0
    out = nib.load(head.path("out.nii"))
    assert out.get_data_dtype() == np.float32
    np.testing.assert_array_equal(out.affine, image.affine)
    assert out.header.get_xyzt_units() == ("mm", "msec")
    assert (int(out.header["qform_code"]), int(out.header["sform_code"])) == (2, 3)


def test_the_sidecar_holds_the_pets_and_what_was_done(head):
    sidecar(head.folder, TracerName="FDG", Units="Bq/mL")
    assert head.command("-m", *head.tissues, "-p", "IY+VC", "-k", "3", "-o", head.path("out.nii.gz")) == 0
    written = json.loads(head.path("out.json").read_text())
    assert {"TracerName": "FDG", "Units": "Bq/mL"}.items() <= written.items()
    assert (written["PVCMethod"], written["PVCIterations"], written["PVCDeconvolutionIterations"]) == ("IY+VC", 10, 3)
    assert [written[f"FWHM_{axis}"] for axis in "xyz"] == [6, 7, 8]
    assert (written["SoftwareName"], written["SoftwareVersion"]) == ("ctrestore", __version__)
    assert written["CommandLine"].startswith("ctrestore pvc -i ")
    assert written["Sources"] == ["sub-01_pet.nii.gz", "grey.nii.gz", "white.nii.gz", "csf.nii.gz"]
    assert written["SkullStripped"] is False


def test_without_a_given_fwhm_the_sidecars_counts_along_the_patients_axes(head):
    """The array's first axis runs along the patient's z here, so that it takes FWHM_z."""
    image = nib.as_closest_canonical(nib.load(head.pet)).as_reoriented([[1, 1], [2, 1], [0, 1]])
    masks = nib.as_closest_canonical(nib.load(head.path("masks.nii.gz"))).as_reoriented([[1, 1], [2, 1], [0, 1]])
    nib.save(image, head.pet)
    nib.save(masks, head.path("masks.nii.gz"))
    assert nib.aff2axcodes(image.affine) == ("S", "R", "A")
    sidecar(head.folder, FWHM_x=6, FWHM_y=7, FWHM_z=8)
    out = head.path("out.tsv")
    arguments = ["pvc", "-i", str(head.pet), "-m", str(head.path("masks.nii.gz")), "-p", "GTM", "-o", str(out)]
    assert main(arguments) == 0
    means = [float(row["mean_corrected"]) for row in table(out)]
    assert means[:3] == pytest.approx(list(MEANS.values()), rel=1e-3)
    assert [json.loads(head.path("out.json").read_text())[f"FWHM_{axis}"] for axis in "xyz"] == [6, 7, 8]


def test_masks_on_another_grid_are_resampled_on_request(head):
    """The same masks, shifted by whole voxels in a larger array: interpolation gives exactly them back."""
    affine = AFFINE.copy()
    affine[:3, 3] -= AFFINE[:3, :3] @ [2, 3, 1]
    padded = np.pad(read(head.path("masks.nii.gz")), ((2, 4), (3, 0), (1, 1), (0, 0)))
    elsewhere = save(head.path("elsewhere.nii.gz"), padded, affine)
    out = head.path("out.tsv")
    assert head.command("-m", elsewhere, "-p", "GTM", "-o", out, "--resample-masks") == 0
    means = [float(row["mean_corrected"]) for row in table(out)]
    assert means[:3] == pytest.approx(list(MEANS.values()), rel=1e-3)


def test_a_header_off_by_less_than_a_hundredth_of_a_millimetre_is_taken(head):
    affine = AFFINE.copy()
    affine[:3, 3] += 0.004
    save(head.path("masks.nii.gz"), read(head.path("masks.nii.gz")), affine)
    assert head.command("-m", head.path("masks.nii.gz"), "-p", "GTM", "-o", head.path("out.tsv")) == 0


def test_tensors_give_what_arrays_give(head):
    for device, out in ([], "numpy.nii"), (["--device", "cpu"], "torch.nii"):
        assert head.command("-m", *head.tissues, "-p", "RBV", *device, "-o", head.path(out)) == 0
    np.testing.assert_allclose(read(head.path("torch.nii")), read(head.path("numpy.nii")), rtol=1e-4, atol=0.1)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_writes_a_finite_result(head, method):
    masks = ["-m", *head.tissues]
    value = ["--white-value", "3000"] if "white_value" in CHAINS[method].options else []
    assert head.command(*masks, "-p", method.lower(), *value, "-n", 2, "-k", 2, "-o", head.path("out.nii.gz")) == 0
    out = read(head.path("out.nii.gz"))
    assert np.isfinite(out).all() and out.max() > 5000


# What it refuses


def refused(head, capsys, *arguments):
    """The one line of an error, after which nothing is there that was not before."""
    before = sorted(head.folder.iterdir())
    capsys.readouterr()
    assert head.command(*arguments) == 2
    assert sorted(head.folder.iterdir()) == before
    message = capsys.readouterr().err
    assert message.startswith("ctrestore: error: ") and message.count("\n") == 1
    return message


def test_an_unknown_method_is_answered_with_all_there_are(head, capsys):
    message = refused(head, capsys, "-m", *head.tissues, "-p", "RVB", "-o", head.path("out.nii.gz"))
    assert "'RVB'" in message and all(method in message for method in METHODS)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("-p GTM -o out.tsv", "GTM needs masks on the grid of the PET: -m MASKS"),
        ("-p RL -o out.nii.gz --table t.tsv", "--table needs regions: add -m"),
        ("-p RL -o out.nii.gz --reference-region white", "--reference-region needs regions"),
        ("-p RBV -m masks.nii.gz -o out.tsv", "RBV gives an image"),
        ("-p GTM -m masks.nii.gz -o out.tsv --table other.tsv", "is a table already"),
        ("-p GTM -m masks.nii.gz -o out.mhd", "expected a NIfTI"),
        ("-p RBV -m masks.nii.gz -o sub-01_pet.nii.gz", "is an input, and would be replaced"),
        ("-p RBV -m masks.nii.gz -o out.nii.gz --table masks.nii.gz", "is an input, and would be replaced"),
        ("-p GTM -m masks.nii.gz -o labels.tsv/out.tsv", "cannot write into this folder"),
        ("-p RBV -m none.nii.gz -o out.nii.gz", "none.nii.gz: not a readable NIfTI"),
        ("-p RBV -m labels.tsv -o out.nii.gz", "labels.tsv: not a readable NIfTI"),
        ("-p RBV -m masks.nii.gz grey.nii.gz -o out.nii.gz", "masks.nii.gz: expected a mask of three axes, got 4"),
        ("-p RBV -m grey.nii.gz grey.nii.gz white.nii.gz -o out.nii.gz", "grey.nii.gz, grey.nii.gz, white.nii.gz: the"),
        ("-p mMG -m labels.nii.gz -o out.nii.gz", "needs tissue maps"),
        ("-p RBV -m grey.nii.gz --parcels labels.nii.gz -o o.nii.gz", "--parcels needs masks of grey"),
        ("-p RBV -m masks.nii.gz -o out.nii.gz --reference-region white", "needs a table for its SUVR"),
        ("-p RBV -m masks.nii.gz --parcels grey.nii.gz -o out.nii.gz", "without any label above 1"),
        ("-p GTM -m masks.nii.gz -o out.tsv --reference-region cerebellum", "no region is named 'cerebellum'"),
        ("-p GTM -m labels.nii.gz -o out.tsv --lut sub-01_pet.nii.gz", "cannot be read as a table of labels"),
        ("-p RBV -m masks.nii.gz -o out.nii.gz --device cuda:7", "device 'cuda:7' cannot be used"),
        ("-p RBV -m masks.nii.gz -o out.nii.gz --device warp", "device 'warp' cannot be used"),
        ("-p RBV -m masks.nii.gz -o out.nii.gz --white-value 3", "--white-value is for MG"),
        ("-p IY -m masks.nii.gz -o out.nii.gz -n 0", "-n must be 1 or more"),
        ("-p VC -o out.nii.gz -a 0", "-a must be above 0"),
        ("-p VC -o out.nii.gz -a 1 -a 2 -s 0.1", "-a was given 2 times"),
    ],
)
def test_a_mistake_is_one_line_with_the_remedy(head, capsys, monkeypatch, arguments, words):
    monkeypatch.chdir(head.folder)
    assert words in refused(head, capsys, *arguments.split())


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("", "sub-01_pet.nii.gz: the FWHM of its PSF is neither given nor in a sidecar"),
        ("-x 6 -y 6", "missing: -z"),
        ("-x 6 -y 0 -z 6", "above 0 mm along every axis; got 6 x 0 x 6"),
        ("-x -6 -y -6 -z -6", "above 0 mm"),
        ("-x nan -y 6 -z 6", "above 0 mm"),
        ("-x 1.9 -y 2 -z 2", "smaller than the voxels (2 x 2.5 x 3 mm)"),
        ("-x 6 -y 6 -z 6mm", "-z: invalid float value: '6mm'"),
    ],
)
def test_an_fwhm_that_is_missing_or_none_is_refused(head, capsys, given, words):
    arguments = ["pvc", "-i", head.pet, "-m", *head.tissues, "-p", "GTM", "-o", head.path("out.tsv"), *given.split()]
    try:
        status = main([str(argument) for argument in arguments])
    except SystemExit as error:
        status = error.code
    assert status == 2
    assert words in capsys.readouterr().err
    assert not head.path("out.tsv").exists()


def test_an_fwhm_in_a_sidecar_that_is_none_is_refused_with_the_sidecars_name(head, capsys):
    sidecar(head.folder, FWHM_x=6, FWHM_y="wide", FWHM_z=6)
    assert main(["pvc", "-i", str(head.pet), "-p", "VC", "-o", str(head.path("out.nii.gz"))]) == 2
    assert "sub-01_pet.json: cannot read the PSF" in capsys.readouterr().err


def break_pet(head, how):
    voxels = read(head.pet)
    if how == "NaN":
        voxels[3, 4, 5] = np.nan
    elif how == "NaN frame":
        voxels = np.stack([voxels, voxels * np.where(voxels > 1, np.nan, 1)], axis=-1)
    elif how == "zero":
        voxels[:] = 0
    save(head.pet, voxels)
    if how == "truncated":
        head.pet.write_bytes(head.pet.read_bytes()[:-2000])
    elif how == "bit flip":
        content = bytearray(head.pet.read_bytes())
        content[len(content) // 2] ^= 255
        head.pet.write_bytes(content)
    elif how == "text":
        head.pet.write_text("no image")
    elif how == "metres":
        save(head.pet, voxels, np.diag([0.002, 0.002, 0.002, 1]))
    elif how == "missing":
        head.pet.unlink()


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("NaN", "1 of 23040 are NaN or infinite"),
        ("NaN frame", "frame 2 of 2: "),
        ("zero", "every voxel is zero"),
        ("truncated", "truncated"),
        ("bit flip", "damaged"),
        ("text", "not a readable NIfTI"),
        ("metres", "its header gives voxels of"),
        ("missing", "not a readable NIfTI"),
    ],
)
def test_a_bad_pet_is_refused_by_name(head, capsys, how, words):
    break_pet(head, how)
    message = refused(head, capsys, "-p", "RBV", "-m", *head.tissues, "-o", head.path("out.nii.gz"))
    assert "sub-01_pet.nii.gz" in message and words in message


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda masks: masks[1:], "its shape is (31, 30, 24), that of the PET (32, 30, 24)"),
        (lambda masks: masks * 255, "0..255"),
        (lambda masks: masks * np.nan, "are NaN or infinite"),
        (lambda masks: masks * [1, 1, 0], "regions without a voxel: region-3"),
        (lambda masks: np.clip(masks + [0, 0.3, 0], 0, 1), "overlap"),
    ],
)
def test_bad_masks_are_refused_by_name(head, capsys, change, words):
    save(head.path("masks.nii.gz"), change(read(head.path("masks.nii.gz"))).astype(np.float32))
    message = refused(head, capsys, "-p", "RBV", "-m", head.path("masks.nii.gz"), "-o", head.path("out.nii.gz"))
    assert "masks.nii.gz" in message and words in message


def test_masks_off_the_grid_are_refused_with_both_names_and_the_option_that_helps(head, capsys):
    affine = AFFINE.copy()
    affine[0, 3] += 0.5
    save(head.path("masks.nii.gz"), read(head.path("masks.nii.gz")), affine)
    message = refused(head, capsys, "-p", "RBV", "-m", head.path("masks.nii.gz"), "-o", head.path("out.nii.gz"))
    assert "masks.nii.gz: not on the grid of" in message and "sub-01_pet.nii.gz" in message
    assert "up to 0.5 mm" in message and "--resample-masks" in message


def test_an_image_in_the_place_of_a_label_map_is_noticed(head, capsys):
    noise = np.random.default_rng(0).integers(0, 30000, SHAPE)
    for scale, words in ((1, "different numbers"), (10000, "is no label")):
        image = save(head.path("t1.nii.gz"), (noise * scale).astype(np.int32))
        assert words in refused(head, capsys, "-p", "GTM", "-m", image, "-o", head.path("out.tsv"))


def test_a_failure_while_writing_leaves_what_was_there(head, capsys, monkeypatch):
    out = head.path("out.nii.gz")
    out.write_bytes(b"the result of yesterday")

    def fails(image, stream):
        stream.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(nib.Nifti1Image, "to_stream", fails)
    assert head.command("-p", "VC", "-o", out) == 2
    assert "No space left" in capsys.readouterr().err
    assert out.read_bytes() == b"the result of yesterday"
    assert not [path for path in head.folder.iterdir() if path.name.startswith(".")]


def test_debug_shows_where_an_error_arose(head, capsys):
    assert head.command("-d", "-m", *head.tissues, "-p", "GTM", "-o", head.path("out.tsv")) == 0
    assert "  grey  " in capsys.readouterr().out
    assert head.command("-d", "-p", "GTM", "-o", head.path("out.tsv")) == 2
    assert "Traceback" in capsys.readouterr().err


def test_the_second_alpha_of_nipype_is_its_stopping_criterion(capsys):
    assert alpha_and_stop([], None) == (1.5, 0.01)
    assert alpha_and_stop([1.2], 0.1) == (1.2, 0.1)
    assert not capsys.readouterr().err
    assert alpha_and_stop([1.5, 0.02], None) == (1.5, 0.02)
    assert "nipype" in capsys.readouterr().err


# As programs


def program(name, *arguments, **more):
    code = f"import sys; from ctrestore.commands.main import {name}; sys.exit({name}())"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, **more)


def test_numpy_corrects_without_the_seconds_that_torch_monai_and_pandas_take_to_import(head):
    code = (
        "import sys; from ctrestore.commands.main import main; status = main(sys.argv[1:]);"
        "print('heavy:', sorted({'torch', 'monai', 'pandas', 'matplotlib'} & set(sys.modules))); sys.exit(status)"
    )
    arguments = ["pvc", "-i", head.pet, "-m", *head.tissues, "-p", "GTM", *PSF, "-o", head.path("out.tsv")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code, *arguments], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("heavy: []\n")


def test_the_drop_in_writes_petpvcs_table_with_petpvcs_kernel_and_nothing_else(head):
    before = set(head.folder.iterdir())
    out = head.path("out.nii.gz")  # nipype names it so, and PETPVC writes text to it
    done = program("petpvc", "-i", head.pet, "-m", head.path("masks.nii.gz"), "-o", out, "-p", "GTM", *PSF)
    assert done.returncode == 0, done.stderr
    assert set(head.folder.iterdir()) - before == {out}
    lines = out.read_text().splitlines()
    assert lines[0] == "REGION\tMEAN"
    regions, means = zip(*(line.split("\t") for line in lines[1:]))
    assert regions == ("1", "2", "3", "4")
    from ctrestore.pvc import Regions

    masks = Regions.from_masks(np.moveaxis(read(head.path("masks.nii.gz")), -1, 0))
    expected = gtm(read(head.pet), masks, fwhm_mm=FWHM_MM, spacing_mm=SPACING_MM, kernel="itk")
    assert [float(mean) for mean in means] == pytest.approx(expected, rel=1e-4, abs=0.1)


def test_the_drop_in_fails_with_a_status_that_says_so(head):
    done = program("petpvc", "-i", head.pet, "-m", head.path("none.nii"), "-o", head.path("o.nii"), "-p", "MG", *PSF)
    assert done.returncode == 2
    assert done.stderr.startswith("petpvc: error: ") and "none.nii" in done.stderr
    done = program("petpvc", "-i", head.pet, "-o", head.path("o.nii"), *PSF)
    assert done.returncode == 2
    assert "-p/--pvc" in done.stderr
    assert not head.path("o.nii").exists()


def test_the_drop_in_takes_petpvcs_long_names_and_its_convention(head):
    out = head.path("out.nii.gz")
    names = ["--input", head.pet, "--mask", head.path("masks.nii.gz"), "--output", out, "--pvc", "MG", *PSF]
    done = program("petpvc", *names, "--iter", 3, "--alpha", 1.5, "--stop", 0.01, "--debug", "--white-value", 3000)
    assert done.returncode == 0, done.stderr
    fraction = head.path("fraction.nii.gz")
    arguments = ["-p", "MG", "--white-value", 3000, "--kernel", "itk", "--convention", "fraction"]
    assert head.command("-m", head.path("masks.nii.gz"), *arguments, "-o", fraction) == 0
    np.testing.assert_array_equal(read(out), read(fraction))


def test_the_drop_in_refuses_an_image_name_that_is_no_nifti(head):
    done = program("petpvc", "-i", head.pet, "-o", head.path("out.txt"), "-p", "VC", *PSF)
    assert done.returncode == 2
    assert "ends in .nii or .nii.gz" in done.stderr


def test_nipypes_interface_runs_on_the_drop_in(head, tmp_path_factory, monkeypatch):
    monkeypatch.setenv("NO_ET", "1")  # nipype would ask the network for its newest version
    petpvc = pytest.importorskip("nipype.interfaces.petpvc")
    programs = tmp_path_factory.mktemp("bin")
    script = programs / "petpvc"
    script.write_text(
        f"#!{sys.executable}\nimport sys\nfrom ctrestore.commands.main import petpvc\nsys.exit(petpvc())\n"
    )
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.chdir(head.folder)
    run = petpvc.PETPVC(
        in_file=str(head.pet), mask_file=str(head.path("masks.nii.gz")), fwhm_x=6.0, fwhm_y=7.0, fwhm_z=8.0
    )
    outputs = {method: run.run(pvc=method).outputs.out_file for method in ("GTM", "RBV", "VC")}
    assert Path(outputs["GTM"]).read_text().startswith("REGION\tMEAN\n1\t")
    grey = head.masks["grey"] > 0.9
    assert read(Path(outputs["RBV"]))[grey].mean() == pytest.approx(MEANS["grey"], rel=0.05)
    assert read(Path(outputs["VC"]))[grey].mean() > read(head.pet)[grey].mean()


@pytest.mark.skipif("CTRESTORE_DATA" not in os.environ, reason="set CTRESTORE_DATA to compare with PETPVC")
@pytest.mark.parametrize(
    ("method", "masks", "theirs"),
    [
        ("GTM", "masks_soft", "GTM_soft"),
        ("LABBE", "masks_soft", "LABBE_soft"),
        ("GTM", "masks_hard", "GTM_hard"),
        ("GTM", "labels", "GTM_labels"),
    ],
)
def test_the_drop_ins_table_is_petpvcs_to_1e_4(tmp_path, method, masks, theirs):
    from ctrestore.commands.main import petpvc

    folder, out = Path(os.environ["CTRESTORE_DATA"]) / "petpvc_reference", tmp_path / "out.txt"
    arguments = [
        "-i",
        folder / "pet.nii.gz",
        "-m",
        folder / f"{masks}.nii.gz",
        "-o",
        out,
        "-p",
        method,
        "-x",
        6,
        "-y",
        6,
        "-z",
        6,
    ]
    assert petpvc([str(argument) for argument in arguments]) == 0
    ours, reference = (np.loadtxt(path, skiprows=1) for path in (out, folder / f"petpvc_{theirs}.txt"))
    np.testing.assert_allclose(ours, reference, rtol=1e-4)
