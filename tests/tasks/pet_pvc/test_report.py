"""The evaluation of corrected scans, on a tiny head whose truth is known voxel by voxel."""

import json

import matplotlib.image
import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from scipy import ndimage

from ctrestore.io.nifti import fwhm_from_sidecar, fwhm_of_array_axes
from ctrestore.metrics import grey_white_contrast
from ctrestore.psf import blur
from ctrestore.tasks.pet_pvc.evaluated_scans import find_scans
from ctrestore.tasks.pet_pvc.figure import _head_box, figure_pet_pvc
from ctrestore.tasks.pet_pvc.published_protocol import compare_by_published_protocol
from ctrestore.tasks.pet_pvc.report import METRICS, evaluate_pet_pvc
from ctrestore.tasks.pet_pvc.with_mri import TissueMaps
from tests.conftest import image_in

AFFINE = np.diag([2.0, 2.0, 2.0, 1.0])
FWHM_MM = 6.0
GREY, WHITE, LESION = 4000.0, 1000.0, 9000.0


def head():
    """Maps of a 32-cube of 2 mm: a shell of grey matter in two parcels around white matter with one hot lesion."""
    at = np.indices((32, 32, 32)) - 15.5
    radius = np.sqrt(np.sum(at**2, axis=0))
    maps = {
        "grey_matter": (radius < 11) & (radius >= 8),
        "white_matter": radius < 8,
        "lesions": np.sqrt(np.sum((at - [[[[3]]], [[[0]]], [[[0]]]]) ** 2, axis=0)) < 2.5,
    }
    maps["parcels"] = np.where(maps["grey_matter"], 1 + (at[0] > 0), 0)
    truth = GREY * maps["grey_matter"] + WHITE * maps["white_matter"]
    truth[maps["lesions"]] = LESION
    return truth.astype(np.float32), maps


def write_scan(folder, subject="sub-01", *, sidecar=True, affine=AFFINE, **changed):
    """Write the head as a scan and return its data-list entry; ``key=array`` replaces or adds a file."""
    folder.mkdir(parents=True, exist_ok=True)
    truth, maps = head()
    volumes = {"image": blur(truth, fwhm_mm=FWHM_MM, spacing_mm=2.0), "label": truth, "truth": truth, **maps, **changed}
    entry = {"subject": subject}
    for key, volume in volumes.items():
        if volume is None:
            continue
        path = folder / f"{subject}_{key}.nii.gz"
        nib.save(nib.Nifti1Image(np.asarray(volume, dtype=np.float32), affine), path)
        entry[key] = str(path)
    if np.array_equal(volumes["label"], truth) and "truth" in entry:
        entry["label"] = entry["truth"]
    if sidecar:
        (folder / f"{subject}_image.json").write_text(json.dumps({f"FWHM_{axis}": FWHM_MM for axis in "xyz"}))
    return entry


def of_row(metrics, row, reference="truth"):
    chosen = metrics[(metrics["row"] == row) & (metrics["reference"] == reference)]
    assert len(chosen) == 1
    return chosen.iloc[0]


@pytest.fixture
def entry(tmp_path):
    return write_scan(tmp_path / "data")


def evaluate(entries, predictions, output_dir, **settings):
    return evaluate_pet_pvc(
        entries, predictions, output_dir, **{"published_protocol": False, "classical_rows": False, **settings}
    )


class TestRows:
    def test_a_prediction_equal_to_the_truth_has_no_error_and_full_recovery(self, entry, tmp_path):
        network = of_row(evaluate([entry], [entry["truth"]], tmp_path / "out"), "network")
        assert network["ssim"] == pytest.approx(1)
        assert network["hot_recovery"] == pytest.approx(1)
        assert network["total_ratio"] == pytest.approx(1)
        errors = ["gm_nrmse", "brain_nrmse", "gm_bias_mean", "gm_bias_max", "wm_bias", "rmse"]
        assert network[[*errors, "gm_nrmse_over_van_cittert"]].eq(0).all()

    def test_a_prediction_10_percent_too_high_is_so_in_every_region(self, entry, tmp_path):
        truth, _ = head()
        prediction = write_scan(tmp_path / "high", image=1.1 * truth)["image"]
        network = of_row(evaluate([entry], [prediction], tmp_path / "out"), "network")
        biases = network[["gm_bias_mean", "gm_bias_max", "wm_bias"]].to_list()
        np.testing.assert_allclose(biases, 0.1, rtol=1e-5)
        np.testing.assert_allclose([network["hot_recovery"], network["total_ratio"]], 1.1, rtol=1e-5)
        assert network["gm_nrmse"] == pytest.approx(0.1, rel=1e-5)  # the truth is uniform in grey matter
        assert network["rmse"] == pytest.approx(0.1 * np.sqrt(np.mean(truth.astype(float) ** 2)), rel=1e-5)

    def test_deconvolution_with_the_true_psf_beats_the_input_and_sharpening(self, entry, tmp_path):
        metrics = evaluate([entry], [entry["truth"]], tmp_path / "out")
        rows = [
            "input",
            "sharpened (fitted)",
            "sharpened (SciPy)",
            "Richardson-Lucy",
            "Van Cittert",
            "network",
        ]
        assert list(metrics["row"]) == rows
        error = {row: of_row(metrics, row)["gm_nrmse"] for row in rows}
        assert max(error["Richardson-Lucy"], error["Van Cittert"]) < min(error["input"], error["sharpened (fitted)"])
        ratio = of_row(metrics, "input")["gm_nrmse_over_van_cittert"]
        assert ratio == pytest.approx(error["input"] / error["Van Cittert"])

    def test_ssim_has_one_range_for_all_rows_of_a_scan(self, entry, tmp_path):
        metrics = evaluate([entry], [entry["truth"]], tmp_path / "out")
        truth, maps = head()
        in_brain = truth[maps["grey_matter"] | maps["white_matter"]]
        assert metrics["ssim_range"].eq(np.percentile(in_brain, 99)).all()

    def test_a_label_that_is_another_file_is_a_second_reference(self, tmp_path):
        truth, maps = head()
        entry = write_scan(tmp_path / "data", label=GREY * maps["grey_matter"])  # nothing outside grey matter
        metrics = evaluate([entry], [entry["truth"]], tmp_path / "out")
        assert list(metrics["reference"].unique()) == ["truth", "label"]
        against_label = of_row(metrics, "network", "label")
        assert against_label["gm_nrmse"] == 0
        assert against_label[["wm_bias", "hot_recovery"]].isna().all()  # the label says nothing about them

    def test_without_a_truth_the_label_is_the_reference(self, tmp_path):
        entry = write_scan(tmp_path / "data", truth=None)
        metrics = evaluate([entry], [entry["label"]], tmp_path / "out")
        assert set(metrics["reference"]) == {"label"}

    def test_without_tissue_maps_the_head_is_measured_and_grey_matter_left_open(self, tmp_path, capsys):
        gone = dict.fromkeys(("grey_matter", "white_matter", "lesions", "parcels"))
        entry = write_scan(tmp_path / "data", **gone)
        network = of_row(evaluate([entry], [entry["truth"]], tmp_path / "out"), "network")
        assert (network["ssim"], network["brain_nrmse"]) == (pytest.approx(1), 0)
        assert network[["gm_nrmse", "gm_bias_mean", "wm_bias", "hot_recovery"]].isna().all()
        assert "By NRMSE in the brain" in capsys.readouterr().out

    def test_an_empty_pet_is_named(self, tmp_path):
        entry = write_scan(tmp_path / "data", image=np.zeros((32, 32, 32)))
        with pytest.raises(ValueError, match=r"sub-01_image\.nii\.gz\) cannot be evaluated: its PET has no"):
            evaluate([entry], [entry["truth"]], tmp_path / "out")
        with pytest.raises(ValueError, match=r"sub-01_image\.nii\.gz: no voxel is above zero"):
            figure_pet_pvc(entry["image"], entry["truth"], tmp_path / "scan.png")


class TestClassicalRows:
    """What an MRI is worth: a head of uniform regions, which the methods with its true masks restore exactly."""

    def entry(self, folder, **changed):
        truth, maps = head()
        truth[maps["lesions"]] = WHITE
        concentration = GREY * maps["grey_matter"]
        image = blur(truth, fwhm_mm=FWHM_MM, spacing_mm=2.0)
        volumes = {"image": image, "truth": truth, "label": truth, "lesions": None, **changed}
        return write_scan(folder, grey_matter_concentration=concentration, **volumes)

    def rows(self, entry, tmp_path):
        metrics = evaluate([entry], [entry["image"]], tmp_path / "out", classical_rows=True)
        return metrics[metrics["reference"] == "truth"].set_index("row")

    def test_true_masks_give_the_truth_back_and_imperfect_ones_do_not(self, tmp_path):
        rows = self.rows(self.entry(tmp_path / "data"), tmp_path)
        bias = rows["gm_bias_mean"]
        assert bias["input"] > 0.25
        for method in ("GTM", "mMG", "RBV", "IY"):
            exact, imperfect = bias[f"{method}, exact masks"], bias[f"{method}, imperfect masks"]
            # IY stops after ten iterations; the others solve the same equations as the phantom obeys.
            assert exact < (0.02 if method == "IY" else 1e-3)
            assert 2 * exact < imperfect < bias["input"]
        assert rows["gm_nrmse"]["RBV, exact masks"] < 1e-3
        assert rows["gm_nrmse"]["mMG, exact masks"] < 1e-3
        assert rows["ssim"]["RBV, exact masks"] == pytest.approx(1, abs=1e-3)

    def test_what_a_method_does_not_give_stays_empty(self, tmp_path, capsys):
        rows = self.rows(self.entry(tmp_path / "data"), tmp_path)
        regional = {"gm_bias_mean", "gm_bias_max"}
        given = {row: set(rows.loc[row, list(METRICS)].dropna().index) for row in rows.index}
        assert given["GTM, exact masks"] == regional
        assert given["mMG, imperfect masks"] == regional | {"gm_nrmse"}
        assert set(METRICS) - given["RBV, exact masks"] == {"hot_recovery"}  # this head has no lesion
        said = capsys.readouterr().out
        assert "Imperfect masks: 1 mm off, smoothed by 2 mm, FWHM 1 mm too large" in said
        assert "By NRMSE in grey matter" in said  # empty columns of others do not change what the network is judged by

    def test_mmg_is_judged_by_the_concentration_and_not_by_the_mixture_in_a_voxel(self, tmp_path):
        """In voxels that are half air the activity is half the concentration: no error of mMG's."""
        truth, maps = head()
        grey = maps["grey_matter"] * np.where(np.indices(truth.shape)[0] % 2, 1.0, 0.7)
        white = 1.0 * maps["white_matter"]
        activity = GREY * grey + WHITE * white
        entry = self.entry(
            tmp_path / "data",
            image=blur(activity.astype(np.float32), fwhm_mm=FWHM_MM, spacing_mm=2.0),
            truth=activity, label=activity, grey_matter=grey, white_matter=white,
        )  # fmt: skip
        rows = self.rows(entry, tmp_path)
        assert rows["gm_nrmse"]["mMG, exact masks"] < 1e-3
        assert rows["gm_bias_max"]["mMG, exact masks"] < 1e-3

    def test_scans_without_maps_have_no_such_rows_and_without_concentration_no_gtm(self, tmp_path, capsys):
        entry = self.entry(tmp_path / "data")
        del entry["grey_matter_concentration"]
        rows = self.rows(entry, tmp_path)
        assert [row for row in rows.index if "masks" in row] == [
            "RBV, exact masks", "IY, exact masks", "RBV, imperfect masks", "IY, imperfect masks"
        ]  # fmt: skip
        assert "these two are left out" in capsys.readouterr().out
        del entry["white_matter"]
        assert not [row for row in self.rows(entry, tmp_path).index if "masks" in row]

    def test_maps_that_no_gtm_can_use_are_said_and_the_other_rows_stay(self, tmp_path, caplog):
        entry = self.entry(tmp_path / "data", white_matter=1.0 * head()[1]["grey_matter"])  # the same map twice
        rows = self.rows(entry, tmp_path)
        assert "network" in rows.index
        assert not [row for row in rows.index if "masks" in row]
        assert "sub-01: no rows with exact masks: " in caplog.text

    def test_shift_and_smoothing_keep_the_volume_of_every_tissue(self):
        _, maps = head()
        tissue = TissueMaps(*(1.0 * maps[key] for key in ("grey_matter", "white_matter")), None, maps["parcels"])
        changed = tissue.moved(1.0, AFFINE).smoothed(2.0, (2.0, 2.0, 2.0))
        for before, after in zip(tissue.tissues.values(), changed.tissues.values()):
            assert after.sum() == pytest.approx(before.sum(), rel=1e-6)
        where = [ndimage.center_of_mass(maps.grey) for maps in (tissue, changed)]
        assert np.linalg.norm(2.0 * np.subtract(*where)) == pytest.approx(1.0, rel=1e-3)  # 2 mm voxels, 1 mm


class TestHybrid:
    def write_tissue(self, path, *, shift=0, affine=AFFINE, n=3):
        _, maps = head()
        names = ("grey_matter", "white_matter", "csf")
        volumes = [np.roll(maps.get(key, np.zeros((32, 32, 32))), shift, axis=0) for key in names[:n]]
        nib.save(nib.Nifti1Image(np.stack(volumes, axis=-1).astype(np.float32), affine), path)
        return path

    def test_images_corrected_by_maps_seen_in_the_pet_are_one_more_row(self, entry, tmp_path):
        truth, _ = head()
        high = write_scan(tmp_path / "high", image=1.1 * truth)["image"]
        metrics = evaluate([entry], [entry["truth"]], tmp_path / "out", hybrid=[high])
        assert of_row(metrics, "network")["wm_bias"] == 0
        assert of_row(metrics, "hybrid")["wm_bias"] == pytest.approx(0.1, rel=1e-5)

    def test_dice_of_the_tissues_is_one_for_the_true_maps_and_open_without_a_true_map(self, entry, tmp_path, capsys):
        maps = self.write_tissue(tmp_path / "maps.nii.gz")
        evaluate([entry], [entry["truth"]], tmp_path / "out", tissue=[maps])
        [dice] = pd.read_csv(tmp_path / "out" / "tissue.csv").to_dict("records")
        assert (dice["subject"], dice["grey_matter"], dice["white_matter"]) == ("sub-01", 1, 1)
        assert np.isnan(dice["csf"]), "the head has no map of CSF"
        assert "Dice with the true ones" in capsys.readouterr().out

    def test_dice_counts_the_voxels_that_two_maps_share(self, entry, tmp_path):
        _, maps = head()
        shifted = self.write_tissue(tmp_path / "maps.nii.gz", shift=2)
        evaluate([entry], [entry["truth"]], tmp_path / "out", tissue=[shifted])
        white = maps["white_matter"]
        shared = (white & np.roll(white, 2, axis=0)).sum() / white.sum()
        assert pd.read_csv(tmp_path / "out" / "tissue.csv")["white_matter"][0] == pytest.approx(shared, rel=1e-5)

    @pytest.mark.parametrize("wrong", [{"n": 2}, {"affine": AFFINE + np.eye(4, k=3)}])
    def test_maps_of_another_scan_are_named(self, entry, tmp_path, wrong):
        maps = self.write_tissue(tmp_path / "maps.nii.gz", **wrong)
        with pytest.raises(ValueError, match=r"maps\.nii\.gz: expected maps \(32, 32, 32, 3\) on the grid of"):
            evaluate([entry], [entry["truth"]], tmp_path / "out", tissue=[maps])

    def test_maps_that_are_missing_are_named_with_the_command_that_makes_them(self, entry, tmp_path):
        with pytest.raises(ValueError, match="--save_tissue True"):
            evaluate([entry], [entry["truth"]], tmp_path / "out", tissue=[tmp_path / "none.nii.gz"])


class TestPointSpreadFunction:
    @pytest.mark.parametrize(
        ("axes", "expected"), [("RAS", (4, 5, 6)), ("LPI", (4, 5, 6)), ("PIR", (5, 6, 4)), ("SRA", (6, 4, 5))]
    )
    def test_widths_follow_the_patients_axes_into_any_orientation(self, axes, expected):
        codes = nib.orientations.axcodes2ornt(axes)
        to_axes = nib.orientations.ornt_transform(nib.orientations.axcodes2ornt("RAS"), codes)
        affine = nib.orientations.inv_ornt_aff(to_axes, (32, 32, 32))
        assert nib.aff2axcodes(affine) == tuple(axes)
        assert fwhm_of_array_axes((4, 5, 6), affine) == expected

    def test_the_metrics_do_not_depend_on_how_the_file_is_oriented(self, tmp_path):
        truth, _ = head()
        fwhm_mm = (4.0, 6.0, 10.0)
        entry = write_scan(tmp_path / "ras", image=blur(truth, fwhm_mm=fwhm_mm, spacing_mm=2.0), sidecar=False)
        turned = {"subject": "sub-01"}
        (tmp_path / "pir").mkdir()
        codes = nib.orientations.axcodes2ornt("PIR")
        for key in entry.keys() - {"subject", "label"}:
            image = nib.load(entry[key])
            ornt = nib.orientations.ornt_transform(nib.io_orientation(image.affine), codes)
            turned[key] = str(tmp_path / "pir" / f"{key}.nii.gz")
            nib.save(image.as_reoriented(ornt), turned[key])
        settings = {"fwhm_mm": fwhm_mm, "classical_rows": True}
        here = evaluate([entry], [entry["image"]], tmp_path / "out", **settings)
        there = evaluate([turned], [turned["image"]], tmp_path / "out", **settings)
        np.testing.assert_allclose(
            here[list(METRICS)], there[list(METRICS)], rtol=1e-4
        )  # float32 sums in another order

    def test_an_argument_replaces_the_sidecar(self, tmp_path):
        entry = write_scan(tmp_path / "data", sidecar=False)
        sidecar = evaluate([write_scan(tmp_path / "with")], [entry["truth"]], tmp_path / "out")
        argument = evaluate([entry], [entry["truth"]], tmp_path / "out", fwhm_mm=FWHM_MM)
        pd.testing.assert_frame_equal(sidecar, argument)

    def test_a_missing_sidecar_is_named_with_the_remedy(self, tmp_path):
        entry = write_scan(tmp_path / "data", sidecar=False)
        with pytest.raises(ValueError, match=r"sub-01_image\.json: no such sidecar.*give the FWHM"):
            evaluate([entry], [entry["truth"]], tmp_path / "out")

    @pytest.mark.parametrize(
        "content", ["{}", "not json", '{"FWHM_x": 6, "FWHM_y": 6, "FWHM_z": 0}', '{"FWHM_x": null}']
    )
    def test_a_sidecar_without_usable_widths_is_named(self, tmp_path, content):
        (tmp_path / "pet.json").write_text(content)
        with pytest.raises(ValueError, match=r"pet\.json: .*FWHM_x, FWHM_y and FWHM_z"):
            fwhm_from_sidecar(tmp_path / "pet.nii.gz")


class TestFiles:
    def test_tables_hold_every_row_and_the_median_over_scans(self, tmp_path, capsys):
        truth, _ = head()
        entries = [write_scan(tmp_path / "data", f"sub-0{i}") for i in (1, 2, 3)]
        factors = (1.0, 1.02, 1.2)
        predictions = [
            write_scan(tmp_path / "pred", f"sub-0{i}", image=factor * truth)["image"]
            for i, factor in enumerate(factors, start=1)
        ]
        metrics = evaluate(entries, predictions, tmp_path / "new" / "out", name="ours")
        written = pd.read_csv(tmp_path / "new" / "out" / "metrics.csv")
        assert list(written.columns) == list(metrics.columns)
        assert list(written.columns[:3]) == ["subject", "row", "reference"]
        assert len(written) == 3 * 6
        np.testing.assert_allclose(written[list(METRICS)], metrics[list(METRICS)], rtol=1e-5)
        ours = of_row(pd.read_csv(tmp_path / "new" / "out" / "summary.csv"), "ours")
        assert ours["n_scans"] == 3
        np.testing.assert_allclose(
            ours[["wm_bias_median", "wm_bias_q25", "wm_bias_q75"]].astype(float), [0.02, 0.01, 0.11], rtol=1e-4
        )
        assert "ours beats input on 3" in capsys.readouterr().out
        assert not [path for path in (tmp_path / "new" / "out").iterdir() if path.suffix != ".csv"]

    def test_predictions_may_be_a_folder_of_stems(self, entry, tmp_path):
        (tmp_path / "pred").mkdir()
        nib.save(nib.load(entry["truth"]), tmp_path / "pred" / "sub-01_image_pvc.nii.gz")
        assert of_row(evaluate([entry], tmp_path / "pred", tmp_path / "out"), "network")["rmse"] == 0

    def test_a_missing_prediction_is_named_before_any_work(self, entry, tmp_path):
        (tmp_path / "pred").mkdir()
        with pytest.raises(ValueError, match=r"sub-01_image_pvc\.nii\.gz: no such file.*sub-01_image\.nii\.gz"):
            evaluate([entry], tmp_path / "pred", tmp_path / "out")
        with pytest.raises(ValueError, match=r"each of 1 scans, in the same order; got 0"):
            evaluate([entry], [], tmp_path / "out")

    def test_a_file_on_another_grid_is_named(self, entry, tmp_path):
        smaller = write_scan(tmp_path / "other", image=np.zeros((31, 32, 32)))["image"]
        with pytest.raises(
            ValueError, match=r"other/sub-01_image\.nii\.gz: not on the grid of .*shape is \(31, 32, 32\)"
        ):
            evaluate([entry], [smaller], tmp_path / "out")
        shifted = write_scan(tmp_path / "shifted", affine=AFFINE + np.eye(4, k=3))["image"]
        with pytest.raises(ValueError, match=r"shifted/sub-01_image\.nii\.gz: not on the grid of .*1 mm"):
            evaluate([entry], [shifted], tmp_path / "out")

    def test_a_prediction_with_nan_is_named_with_its_scan(self, entry, tmp_path):
        truth, _ = head()
        truth[0, 0, 0] = np.nan
        broken = write_scan(tmp_path / "broken", image=truth)["image"]
        with pytest.raises(ValueError, match=r"sub-01 .* cannot be evaluated: .*broken.*1 of 32768 are NaN"):
            evaluate([entry], [broken], tmp_path / "out")

    def test_an_unwritable_output_folder_is_named(self, entry, tmp_path):
        (tmp_path / "taken").write_text("a file")
        with pytest.raises(ValueError, match="taken: cannot write into this folder"):
            evaluate([entry], [entry["truth"]], tmp_path / "taken")

    def test_an_entry_without_truth_and_label_is_refused(self, tmp_path):
        entry = write_scan(tmp_path / "data", truth=None, label=None)
        with pytest.raises(ValueError, match="neither 'truth' nor 'label'"):
            evaluate([entry], [entry["image"]], tmp_path / "out")

    def test_two_scans_of_a_subject_go_by_their_file_names(self, tmp_path):
        entries = [write_scan(tmp_path / "data", f"sub-01_ses-{i}") | {"subject": "sub-01"} for i in (1, 2)]
        metrics = evaluate(entries, [entry["truth"] for entry in entries], tmp_path / "out")
        assert list(metrics["subject"].unique()) == ["sub-01_ses-1_image", "sub-01_ses-2_image"]


class TestPublishedProtocol:
    def test_a_perfect_prediction_scores_one_beside_the_published_table(self, entry, tmp_path, capsys):
        evaluate([entry], [entry["truth"]], tmp_path / "out", published_protocol=True, name="ours")
        table = pd.read_csv(tmp_path / "out" / "published_protocol.csv")
        mean = table[table["subject"] == "mean"].set_index("row")
        assert list(mean.index) == ["input", "sharpened (fitted)", "sharpened (SciPy)", "ours"]
        assert tuple(mean.loc["ours", ["ssim", "rmse"]]) == (1, 0)
        assert list(mean["published_ssim"]) == [0.9831, 0.9710, 0.9710, 0.9948]
        assert mean.loc["input", "ssim"] > 0.98  # the cube is nearly empty, which is why this number says little
        text = capsys.readouterr().out
        assert "published network's own protocol" in text
        assert "no map of grey matter" not in text

    def test_what_lies_outside_grey_matter_counts_for_no_row(self, tmp_path):
        _, maps = head()
        truth = GREY * maps["grey_matter"] + WHITE * maps["white_matter"]
        outside = np.where(maps["grey_matter"], 0, 5000.0)
        # Voxels of 1 mm around a symmetric head fall on those of the cube, so nothing is interpolated across the edge.
        scores = []
        for folder, added in (("plain", 0), ("elsewhere", outside)):
            volumes = {"image": blur(truth, fwhm_mm=FWHM_MM, spacing_mm=1.0) + added, "truth": truth + added}
            entry = write_scan(tmp_path / folder, affine=np.eye(4), label=None, **volumes)
            (scan,) = find_scans([entry], [entry["image"]], fwhm_mm=FWHM_MM)
            scores.append(pd.DataFrame(compare_by_published_protocol(scan, "ours")))
        pd.testing.assert_frame_equal(*scores, rtol=1e-4)  # the activities are kept as float32

    def test_without_a_map_of_grey_matter_the_whole_pet_is_taken_and_that_is_said(self, tmp_path, capsys):
        entry = write_scan(tmp_path / "data", grey_matter=None)
        evaluate([entry], [entry["truth"]], tmp_path / "out", published_protocol=True)
        table = pd.read_csv(tmp_path / "out" / "published_protocol.csv")
        assert not table.loc[table["subject"] != "mean", "grey_matter_masked"].any()
        assert "1 of 1 have no map of grey matter" in capsys.readouterr().out


class TestFigure:
    @pytest.mark.parametrize(("with_truth", "n_columns"), [(True, 4), (False, 3)])
    def test_a_picture_has_a_column_more_with_truth(self, entry, tmp_path, with_truth, n_columns, drawings):
        truth = entry["truth"] if with_truth else None
        path = figure_pet_pvc(
            entry["image"], entry["truth"], tmp_path / "out" / "scan.png", truth=truth, subject="sub-01"
        )
        height, width, _ = matplotlib.image.imread(path).shape
        assert width == n_columns * 384  # 3.2 inches at 120 dots
        assert height > 2 * 384
        assert [file.name for file in path.parent.iterdir()] == ["scan.png"]
        reference = "truth" if with_truth else "input"
        titles = ["input", "corrected", *(["truth"] if with_truth else []), f"corrected - {reference}"]
        grid = np.reshape(drawings[0].axes[: 2 * n_columns], (2, n_columns))
        assert [axes.get_title() for axes in grid[0]] == titles
        assert [axes.get_ylabel() for axes in grid[:, 0]] == ["axial", "coronal"]
        assert len(drawings[0].axes) == 2 * n_columns + 2  # the colour bars of activity and of difference
        whole = {name: nib.load(entry[key]).get_fdata() for name, key in (("input", "image"), ("corrected", "truth"))}
        for axes in grid:
            images = dict(zip(titles, map(image_in, axes)))
            for name, volume in whole.items():
                assert images[name].max() == pytest.approx(volume.max(), rel=0.2)  # through the middle of the head
            np.testing.assert_allclose(images[titles[-1]], images["corrected"] - images[reference])
            limits = [shown.get_clim() for ax in axes for shown in ax.get_images()]
            assert len(set(limits[:-1])) == 1  # one scale of activity
            assert limits[-1][0] == -limits[-1][1]
        if with_truth:  # which is what was given as corrected, too
            assert not image_in(grid[0, -1]).any()

    def test_the_picture_shows_the_head_with_a_margin(self):
        image = np.zeros((80, 80, 80), dtype=np.float32)
        image[20:40, 20:40, 20:40] = 1
        box = _head_box(image, np.array([1.0, 2.0, 4.0]))
        assert box == (slice(10, 50), slice(15, 45), slice(17, 43))  # 10 mm in whole voxels, rounded up

    def test_images_of_different_shapes_are_refused(self, entry, tmp_path):
        other = write_scan(tmp_path / "other", image=np.zeros((31, 32, 32)))["image"]
        with pytest.raises(ValueError, match=r"other/sub-01_image\.nii\.gz: expected one volume on the grid of"):
            figure_pet_pvc(entry["image"], other, tmp_path / "scan.png")


def test_blurring_lowers_the_contrast_between_grey_and_white_matter():
    truth, maps = head()
    grey, white = maps["grey_matter"], maps["white_matter"] & ~maps["lesions"]
    assert grey_white_contrast(truth, grey, white) == pytest.approx(GREY / WHITE)
    assert grey_white_contrast(blur(truth, fwhm_mm=FWHM_MM, spacing_mm=2.0), grey, white) < 0.8 * GREY / WHITE
