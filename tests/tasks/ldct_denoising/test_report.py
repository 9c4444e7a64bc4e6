"""Evaluation of CT denoising: closed forms for shifts, blurs and perfect results, and what is left out of a mean."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest
import torch
from monai.data import MetaTensor
from scipy.ndimage import gaussian_filter

from ctrestore.metrics import TISSUE_BANDS_HU, insert_disc
from ctrestore.tasks.ct_report import discs as inserted_discs
from ctrestore.tasks.ct_report.discs import Task, evaluate_discs, insert_discs
from ctrestore.tasks.ct_report.pairs import as_seen
from ctrestore.tasks.ct_report.scores import INPUT, SlicePair, edge_correlation, evaluate_slices, false_discs_hu
from ctrestore.tasks.ct_report.tables import as_markdown, summarise, summarise_discs
from ctrestore.tasks.ldct_denoising.classical import (
    NLM,
    TUNED,
    bilateral,
    classical_restorers,
    noise_level_hu,
    non_local_means,
    svd_shrinkage,
    total_variation,
    tuned_for,
)
from ctrestore.tasks.ldct_denoising.report import evaluate_ldct_denoising
from tests.conftest import image_in

SPACING_MM, PIXELS = 2.0, 128
NOISE_HU = 20.0


def noise(seed, sigma_hu=NOISE_HU):
    return (sigma_hu * np.random.default_rng(seed).standard_normal((PIXELS, PIXELS))).astype(np.float32)


def body(lungs=True):
    """A slice in HU: air, fat, soft tissue, bone and, in a chest, lungs, with edges one or two pixels wide."""
    y, x = np.meshgrid(np.arange(PIXELS) - 64.0, np.arange(PIXELS) - 64.0, indexing="ij")
    hu = np.full((PIXELS, PIXELS), -950.0)  # so that no protocol clips its noise
    hu[np.hypot(y / 56, x / 62) < 1] = -100
    hu[np.hypot(y / 50, x / 56) < 1] = 40
    hu[np.hypot(y - 40, x) < 9] = 600
    if lungs:
        hu[np.hypot((y + 4) / 24, (x - 34) / 18) < 1] = -850
    return gaussian_filter(hu, 0.7).astype(np.float32)


def pair(patient, lungs=True, dose_fraction=0.25):
    full = body(lungs) + noise(hash_of(patient), 5.0)
    return SlicePair(
        full + noise(hash_of(patient) + 1), full, (SPACING_MM, SPACING_MM), patient, patient, dose_fraction
    )


def hash_of(patient):
    return 10 * sum(map(ord, patient))


@pytest.fixture(scope="module")
def pairs():
    return [pair("anna"), pair("boris"), pair("carla", lungs=False), pair("dora", lungs=False)]


@pytest.fixture
def same_noise(monkeypatch):
    """A low dose without projections: the same noise whatever the slice shows."""
    monkeypatch.setattr(
        inserted_discs, "simulate_low_dose", lambda hu, **arguments: hu + noise(7) / arguments["dose_fraction"]
    )


def row_of(metrics, row):
    return metrics[metrics["row"] == row].set_index("slice")


def records_of(metrics, **which):
    return [r for r in summarise(metrics, baselines=(INPUT,)) if all(r[k] == v for k, v in which.items())]


def test_a_shift_of_3_hu_is_a_bias_of_3_hu_in_every_tissue_and_no_noise(pairs):
    by_name = {one.low.tobytes(): one.full for one in pairs}
    metrics = evaluate_slices(pairs, {"shifted": lambda low: by_name[low.tobytes()] + 3})
    [record] = records_of(metrics, region="all", row="shifted")
    for tissue in TISSUE_BANDS_HU:
        assert record[f"bias_hu[{tissue}]"] == pytest.approx({"mean": 3, "low": 3, "high": 3}, abs=1e-4)
    assert record["residual_sd_hu"] == pytest.approx(0, abs=1e-3)
    assert record["rmse[full4096]"] == pytest.approx(3, abs=0.01)  # bone near the clip does not exist here
    assert record["noise_sd_ratio"] == pytest.approx(1)


def test_to_do_nothing_gains_exactly_0_db_and_is_never_worse(pairs):
    metrics = evaluate_slices(pairs, {"nothing": np.copy})
    [record] = records_of(metrics, region="all", row="nothing")
    assert record["gain_db"][INPUT] == {"mean": 0, "low": 0, "high": 0, "median": 0}
    assert record["n_worse"] == 0
    assert (record["n_slices"], record["n_patients"]) == (4, 4)


def test_half_of_the_noise_gains_6_db_and_a_slice_with_more_noise_is_counted(pairs):
    truth = {one.low.tobytes(): one.full for one in pairs}
    metrics = evaluate_slices(
        pairs,
        {
            "half": lambda low: (low + truth[low.tobytes()]) / 2,
            "more": lambda low: low + (low - truth[low.tobytes()]) * 0.5,
        },
    )
    wide = metrics.assign(
        **{"psnr_db[hu400_soft_tissue]": metrics["psnr_db[full4096]"]}
    )  # without the clipping of a window
    [half] = records_of(wide, region="all", row="half")
    assert half["gain_db"][INPUT]["mean"] == pytest.approx(20 * np.log10(2), abs=5e-3)
    [more] = records_of(metrics, region="all", row="more")
    assert more["n_worse"] == 4


def test_the_share_of_lung_in_the_body_tells_chest_from_abdomen(pairs):
    metrics = evaluate_slices(pairs, {})
    assert row_of(metrics, INPUT)["region"].to_dict() == {
        "anna": "chest", "boris": "chest", "carla": "abdomen", "dora": "abdomen",
    }  # fmt: skip
    ellipses = (18 * 24) / (56 * 62)
    assert row_of(metrics, INPUT).loc["anna", "lung_share"] == pytest.approx(ellipses, rel=0.1)  # edges are no lung
    assert {r["region"] for r in summarise(metrics, baselines=())} == {"all", "chest", "abdomen"}


def test_pixels_of_unknown_truth_count_nowhere(pairs):
    whole = pairs[0]
    unknown = whole.full > 400
    partly = dataclasses.replace(whole, full=np.where(unknown, np.nan, whole.full))
    spoilt = dataclasses.replace(partly, low=np.where(unknown, 3000, whole.low).astype(np.float32))
    clean, wrong = (evaluate_slices([one], {}).iloc[0] for one in (partly, spoilt))
    for protocol in ("hu400_soft_tissue", "full4096"):
        assert wrong[f"psnr_db[{protocol}]"] == pytest.approx(clean[f"psnr_db[{protocol}]"])
        # windows of known neighbours reach over unknown pixels, where both slices show the same
        assert wrong[f"ssim[{protocol}]"] == pytest.approx(clean[f"ssim[{protocol}]"], abs=1e-3)
    assert wrong["bias_hu[soft tissue]"] == pytest.approx(clean["bias_hu[soft tissue]"], abs=0.02)
    error = (whole.low - whole.full)[~unknown]
    assert clean["rmse[full4096]"] == pytest.approx(np.sqrt(np.mean(np.clip(error, -100, 100) ** 2)), rel=1e-3)


def test_a_slice_without_any_known_pixel_is_refused_by_name():
    nothing = np.full((32, 32), np.nan, dtype=np.float32)
    with pytest.raises(ValueError, match="anna: no pixel of the full dose is known"):
        SlicePair(np.zeros((32, 32), dtype=np.float32), nothing, (1.0, 1.0), "anna", "anna")


def test_a_method_that_gives_nan_or_another_shape_is_named(pairs):
    with pytest.raises(ValueError, match="broken made"):
        evaluate_slices(pairs[:1], {"broken": lambda low: low * np.nan})
    with pytest.raises(ValueError, match="cropped made"):
        evaluate_slices(pairs[:1], {"cropped": lambda low: low[1:]})


def test_noise_that_was_halved_keeps_its_frequency_and_blurred_noise_becomes_coarser(pairs):
    truth = {one.low.tobytes(): body(one.region == "chest") for one in pairs}

    def of_noise(change):
        return lambda low: (truth[low.tobytes()] + change(low - truth[low.tobytes()])).astype(np.float32)

    methods = {"half": of_noise(lambda n: n / 2), "blurred": of_noise(lambda n: gaussian_filter(n, 1.0))}
    metrics = evaluate_slices(pairs, methods)
    before, half, blurred = (row_of(metrics, row) for row in (INPUT, "half", "blurred"))
    np.testing.assert_allclose(half["noise_hu2"], before["noise_hu2"] / 4, rtol=0.01)
    np.testing.assert_allclose(half["noise_per_mm"], before["noise_per_mm"], rtol=0.01)
    assert (blurred["noise_per_mm"] < 0.7 * before["noise_per_mm"]).all()
    np.testing.assert_allclose(before["full_noise_hu2"], 25, rtol=0.3)  # noise of 5 HU, in a few hundred pixels


def test_blur_and_sharpening_correlate_with_edges_by_their_sign_and_noise_does_not():
    full = body()
    one = SlicePair(full, full, (SPACING_MM, SPACING_MM), "a", "a")
    blurred = gaussian_filter(full, 1.5) - full
    assert edge_correlation(blurred, one) < -0.8
    assert edge_correlation(-blurred, one) > 0.8
    assert abs(edge_correlation(noise(3), one)) < 0.1  # some 800 edge pixels
    assert np.isnan(edge_correlation(np.zeros_like(full), one))


def test_a_disc_that_the_anatomy_does_not_have_is_found_with_its_contrast():
    full = np.full((PIXELS, PIXELS), 40.0, dtype=np.float32)
    one = SlicePair(full, full, (0.5, 0.5), "a", "a")
    place = insert_disc(np.zeros_like(full), inserted_discs.Disc((30.0, 30.0), 3.0, 30.0), spacing_mm=0.5)
    assert false_discs_hu(np.zeros_like(full), one)["soft tissue"] == pytest.approx(0, abs=1e-9)
    found = false_discs_hu(place, one)
    assert 20 < found["soft tissue"] <= 30.01  # the percentile leaves out some ten places around the peak
    assert np.isnan(found["lung"])


def test_an_untouched_disc_keeps_its_contrast_and_passes_every_frequency(pairs, same_noise):
    discs = evaluate_discs(pairs[:2], {}, doses=(0.5, 0.1))
    assert set(discs["task"]) == {
        "-100 HU in soft tissue", "+50 HU in soft tissue", "+300 HU in soft tissue", "+700 HU in lung",
    }  # fmt: skip
    np.testing.assert_allclose(discs["contrast_recovery"], 1, atol=1e-4)
    np.testing.assert_allclose(discs["transfer_at_half_nyquist"], 1, atol=0.01)
    assert discs["f50_per_mm"].isna().all()


def test_a_blurred_disc_loses_half_its_transfer_where_the_gaussian_does(pairs, same_noise):
    sigma_pixels = 0.7
    discs = evaluate_discs(pairs[:1], {"blur": lambda hu: gaussian_filter(hu, sigma_pixels)}, doses=(0.5,))
    blurred = discs[discs["row"] == "blur"]
    expected = np.sqrt(np.log(2) / 2) / (np.pi * sigma_pixels * SPACING_MM)
    np.testing.assert_allclose(blurred["f50_per_mm"], expected, rtol=0.05)  # a disc of 6 sigma: see task_transfer


def test_an_erased_disc_has_no_contrast_left(pairs, same_noise):
    discs = evaluate_discs(pairs[:1], {"erased": np.zeros_like}, doses=(0.5,))
    erased = discs[discs["row"] == "erased"]
    assert (erased["contrast_recovery"] == 0).all()
    assert erased["transfer_at_half_nyquist"].isna().all()
    [record] = [r for r in summarise_discs(erased) if r["task"].startswith("+50")]
    assert record["f50_per_mm"] is None and record["contrast_recovery"] == 0


def test_a_disc_lies_where_its_tissue_is(pairs):
    chest, abdomen = pairs[0], pairs[2]
    nodule = Task("lung", 700.0)
    image, placed = insert_discs(chest, [nodule])
    y, x = (int(round(mm / SPACING_MM)) for mm in placed[nodule].centre_mm)
    assert chest.tissue[y, x] < -800 and image[y, x] == pytest.approx(chest.full[y, x] + 700, abs=1e-3)
    assert insert_discs(abdomen, [nodule])[1] == {}


def test_an_interval_needs_two_patients_and_one_of_them_alone_has_a_mean(pairs):
    metrics = evaluate_slices(pairs[:1], {"nothing": np.copy})
    [record] = records_of(metrics, row="nothing")
    assert record["bias_hu[lung]"]["low"] is None and record["bias_hu[lung]"]["mean"] is not None
    assert record["gain_db"][INPUT] == {"mean": 0, "low": None, "high": None, "median": 0}


def test_a_bias_above_its_bar_is_printed_bold(pairs):
    by_name = {one.low.tobytes(): one.full for one in pairs}
    metrics = evaluate_slices(pairs, {"2.5 HU": lambda low: by_name[low.tobytes()] + 2.5})
    text = as_markdown(summarise(metrics, baselines=(INPUT,)), [])
    [line] = [line for line in text.splitlines() if line.startswith("| 0.25 | 2.5 HU") and "**" in line]
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells[2].startswith("**+2.5") and cells[-1].startswith("+2.5")  # bone may be off by 3


# classical methods


def test_the_noise_level_is_that_of_soft_tissue_whatever_lies_around():
    assert noise_level_hu(body() + noise(1)) == pytest.approx(NOISE_HU, rel=0.12)  # the 20th percentile lies lower
    assert noise_level_hu(np.zeros((32, 32))) == 1.0


@pytest.mark.parametrize("dose", TUNED)
def test_every_classical_method_brings_a_noisy_slice_nearer_to_the_truth(dose):
    truth = body()
    noisy = truth + noise(2)
    for row, restore in classical_restorers(dose).items():
        restored = restore(noisy)
        assert restored.dtype == np.float32, row
        # Tuned for half the dose they leave most of it: the full dose that they were tuned by has noise of its own.
        assert np.sqrt(np.mean((restored - truth) ** 2)) < 0.97 * NOISE_HU, row


def test_settings_are_relative_to_the_noise():
    """Twice the contrast and twice the noise give twice the result, and an offset only moves it."""
    noisy, tuned = body() + noise(2), tuned_for(0.25)
    for restore in (
        lambda hu, n: non_local_means(hu, parameters=tuned.non_local_means, noise_hu=n),
        lambda hu, n: total_variation(hu, weight=tuned.total_variation, noise_hu=n),
        lambda hu, n: bilateral(hu, parameters=tuned.bilateral, noise_hu=n),
    ):
        once = restore(noisy, NOISE_HU)
        np.testing.assert_allclose(restore(2 * noisy + 500, 2 * NOISE_HU), 2 * once + 500, atol=1.0)


def test_a_share_of_non_local_means_is_that_share_of_its_change():
    noisy, whole = body() + noise(2), TUNED[0.25].non_local_means._replace(share=1.0)
    full, half = (non_local_means(noisy, parameters=whole._replace(share=share)) for share in (1.0, 0.5))
    np.testing.assert_allclose(half, (noisy + full) / 2, atol=0.01)


def test_an_unknown_dose_gets_the_setting_of_a_quarter():
    assert tuned_for(float("nan")) is TUNED[0.25]
    assert tuned_for(0.45) is TUNED[0.5]


# files


@pytest.mark.parametrize("direction", [(1, 1), (-1, -1), (1, -1)])
def test_a_slice_is_seen_from_the_feet_with_the_nose_up(direction):
    affine = np.diag([direction[0] * 1.0, direction[1] * 1.0, 1.0, 1.0])
    img = torch.zeros(1, 4, 6)
    rightmost = 3 if direction[0] > 0 else 0  # x of RAS grows to the patient's right, y to the front
    hindmost = 0 if direction[1] > 0 else 5
    img[0, rightmost, hindmost] = 1
    seen = as_seen(img, affine)
    assert seen.shape == (6, 4)
    assert seen[-1, 0] == 1  # the back below, the patient's right on the left


def sample(patient, lungs, dose):
    full = (body(lungs) + noise(hash_of(patient), 5.0)).T
    meta = {"filename_or_obj": f"{patient}.nii"}
    low, full = (
        MetaTensor(torch.from_numpy(np.ascontiguousarray(hu))[None], affine=np.diag([-2.0, -2, 1, 1]), meta=meta)
        for hu in (full + noise(hash_of(patient) + 1).T, full)
    )
    return {"image": low, "label": full, "subject": patient, "slice": 0, "dose_fraction": dose}


def test_an_evaluation_writes_its_tables_and_a_picture_of_chest_and_abdomen(tmp_path, capsys, same_noise, drawings):
    samples = [sample(name, name < "c", dose) for name in ("anna", "boris", "carla") for dose in (0.25, 0.1)]
    found = evaluate_ldct_denoising(
        iter(samples), {"network": lambda hu: gaussian_filter(hu, 0.6)}, tmp_path, doses=(0.25,), n_panels=2,
        n_disc_slices=2, remarks=["RED-CNN: not run."],
    )  # fmt: skip
    written = pd.read_csv(tmp_path / "metrics.csv")
    assert len(written) == len(found) == 6 * 6  # slices and doses; input, four classical rows, network
    summary = json.loads((tmp_path / "summary.json").read_text())
    [record] = [r for r in summary["slices"] if (r["dose_fraction"], r["region"], r["row"]) == (0.1, "all", "network")]
    assert set(record["gain_db"]) == {INPUT, NLM, "NLM in part"}
    text = (tmp_path / "table.md").read_text()
    assert "## Dose 0.1, chest: 2 slices of 2 patients" in text and "RED-CNN: not run." in text
    assert "hu400_soft_tissue: HU clipped to -160..240" in text
    assert text in capsys.readouterr().out
    pictures = sorted(path.name for path in tmp_path.glob("panel_*.png"))
    assert pictures == ["panel_abdomen_carla_000_0.25.png", "panel_chest_anna_000_0.25.png"]
    chest, abdomen = drawings
    assert chest.get_suptitle() == "anna_000, 25% of the dose"
    assert abdomen.get_suptitle() == "carla_000, 25% of the dose"
    names = [INPUT, NLM, "network", "full dose"]
    for panel, n_rows in ((chest, 5), (abdomen, 3)):  # the slice; soft tissue and its difference; in chests the lung
        grid = np.reshape(panel.axes, (n_rows, len(names)))
        assert [axes.get_title().split("\n")[0] for axes in grid[0]] == names
        for row in range(1, n_rows, 2):
            *images, full = map(image_in, grid[row])
            for image, difference in zip(images, grid[row + 1]):
                np.testing.assert_allclose(image_in(difference), image - full, atol=1e-3)
    shown = written[(written["patient"] == "anna") & (written["dose_fraction"] == 0.25)].set_index("row")
    for axes, name in zip(chest.axes, names[:-1]):
        assert axes.get_title() == f"{name}\n{shown['psnr_db[hu400_soft_tissue]'][name]:.1f} dB"


def test_pairs_as_listed_have_no_dose(tmp_path, same_noise):
    listed = [{k: v for k, v in sample(name, True, 0.25).items() if k != "dose_fraction"} for name in ("anna", "boris")]
    evaluate_ldct_denoising(listed, {"network": np.copy}, tmp_path, n_disc_slices=0, n_panels=0, classical_rows=False)
    assert "## Dose as listed, all: 2 slices of 2 patients" in (tmp_path / "table.md").read_text()


def test_no_slice_at_all_is_an_error_and_not_an_empty_table(tmp_path):
    with pytest.raises(ValueError, match="there is no test slice"):
        evaluate_ldct_denoising([], {"network": np.copy}, tmp_path)


def test_shrinking_singular_values_removes_noise_and_leaves_a_slice_without_noise_alone():
    clean = body()
    noisy = clean + 3 * gaussian_filter(noise(5), 0.8)  # 22 HU, its neighbours alike
    before, after = (np.sqrt(np.mean((one - clean) ** 2)) for one in (noisy, svd_shrinkage(noisy)))
    assert after < 0.9 * before
    np.testing.assert_allclose(svd_shrinkage(clean, noise_hu=1e-6), clean, atol=0.01)


def test_a_slice_smaller_than_the_windows_of_the_singular_values_is_refused():
    with pytest.raises(ValueError, match="window_pixels, 24"):
        svd_shrinkage(np.zeros((16, 64)))
