"""Scores under a protocol: closed forms for uniform and noisy slices, the original formulas, and what is refused."""

import math

import numpy as np
import pytest
import torch
from monai.metrics import PSNRMetric, SSIMMetric
from scipy.stats import norm
from skimage.metrics import peak_signal_noise_ratio
from torch.nn.functional import conv2d

from ctrestore.metrics import PROTOCOLS, Protocol, SSIMWindow, scores
from tests.conftest import cases

HU_PROTOCOLS = cases(name for name, protocol in PROTOCOLS.items() if protocol.input_unit == "HU")
NOISE_HU = 40.0


def normal(shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


@pytest.fixture(scope="module")
def chest():
    """A slice of 256 x 256 pixels in HU: air, body, lungs, heart, spine, fat."""
    y, x = np.meshgrid(np.linspace(-1, 1, 256), np.linspace(-1, 1, 256), indexing="ij")
    hu = np.full((256, 256), -1000.0)

    def ellipse(centre_y, centre_x, half_y, half_x, value):
        hu[((y - centre_y) / half_y) ** 2 + ((x - centre_x) / half_x) ** 2 <= 1] = value

    ellipse(0, 0, 0.75, 0.95, -100)
    ellipse(0, 0, 0.68, 0.88, 45)
    for side in (-1, 1):
        ellipse(-0.05, 0.45 * side, 0.5, 0.33, -850)
    ellipse(-0.1, 0.12, 0.25, 0.3, 40)
    ellipse(0.5, 0, 0.13, 0.12, 500)
    return hu


@pytest.fixture(scope="module")
def water_with_noise():
    return NOISE_HU * normal((256, 256)), np.zeros((256, 256))


class TestOnePairManyNumbers:
    def test_one_noisy_chest_slice_has_22_to_40_db_depending_on_the_protocol(self, chest):
        noisy = chest + NOISE_HU * normal(chest.shape)
        psnr_db = {name: scores(noisy, chest, protocol=name).psnr_db for name in HU_PROTOCOLS}
        psnr_db.pop("ldctbench-neuro")  # a window for brains, 15 dB
        assert max(psnr_db.values()) - min(psnr_db.values()) > 18
        assert psnr_db["hu500_notebook"] == pytest.approx(20 * math.log10(500 / NOISE_HU), abs=0.1)  # 21.9 dB
        # the noise of air below -1024 HU is clipped away, which adds up to 1.5 dB to the 40.2 of unclipped noise
        assert 40.2 < psnr_db["full4096"] < 41.7

    @pytest.mark.parametrize(
        ("name", "range_hu"),
        [("full4096", 4096), ("hu3000_slides", 3000), ("hu500_notebook", 500), ("ldctbench-chest", 1499)],
    )
    def test_unclipped_noise_gives_20_log_range_over_noise(self, water_with_noise, name, range_hu):
        # 65,536 pixels give the noise within 0.3 % or 0.03 dB; in the chest window 1e-4 of them are clipped
        expected = 20 * math.log10(range_hu / NOISE_HU)
        assert scores(*water_with_noise, protocol=name).psnr_db == pytest.approx(expected, abs=0.05)

    @pytest.mark.parametrize(
        ("name", "low", "high"),
        [("hu400_soft_tissue", -160, 240), ("ldctbench-abdomen", -150, 249), ("ldctbench-neuro", 0, 79)],
    )
    def test_a_window_that_clips_the_noise_leaves_its_censored_part(self, water_with_noise, name, low, high):
        # E[clip(n)^2] for n ~ N(0, s): the inner second moment and the two tails at the limits
        a, b = low / NOISE_HU, high / NOISE_HU
        inner = NOISE_HU**2 * (norm.cdf(b) - norm.cdf(a) - b * norm.pdf(b) + a * norm.pdf(a))
        expected = 10 * math.log10((high - low) ** 2 / (inner + low**2 * norm.cdf(a) + high**2 * norm.sf(b)))
        assert scores(*water_with_noise, protocol=name).psnr_db == pytest.approx(expected, abs=0.05)

    def test_the_published_range_of_1_for_images_of_minus_1_to_5_costs_15_db(self, water_with_noise):
        as_published = scores(*water_with_noise, protocol="hu500_notebook").psnr_db
        own = Protocol("full seed", None, data_range=6.0, ssim_window=SSIMWindow(7), offset=-500.0, scale=500.0)
        difference = scores(*water_with_noise, protocol=own).psnr_db - as_published
        assert difference == pytest.approx(20 * math.log10(6), abs=1e-9)  # 15.6 dB

    def test_rmse_is_in_the_unit_that_the_protocol_states(self):
        shifted, reference = np.full((16, 16), 20.0), np.zeros((16, 16))
        found = {name: scores(shifted, reference, protocol=name) for name in HU_PROTOCOLS}
        expected = {"hu3000_slides": (0.02, "x 1000 HU"), "hu500_notebook": (0.04, "x 500 HU")}
        for name, score in found.items():
            value, unit = expected.get(name, (20.0, "HU"))
            assert (score.rmse, score.protocol.rmse_unit) == (pytest.approx(value), unit)

    def test_rmse_of_ldctbench_is_not_that_of_its_window(self):
        # both saturate the neuro window of 0..79 HU, yet differ by 500 HU, of which 400 remain below 1900
        found = scores(np.full((16, 16), 2000.0), np.full((16, 16), 1500.0), protocol="ldctbench-neuro")
        assert (found.psnr_db, found.rmse) == (math.inf, 400.0)


class TestTheOriginalFormulas:
    def test_hu400_soft_tissue_is_the_padded_convolution_of_its_measure(self, chest):
        noisy = chest + NOISE_HU * normal(chest.shape)
        pred, reference = (torch.from_numpy(np.clip(image, -160, 240))[None, None] for image in (noisy, chest))
        line = torch.exp(-((torch.arange(11, dtype=torch.float64) - 5) ** 2) / (2 * 1.5**2))
        window = torch.outer(line, line)[None, None] / line.sum() ** 2

        def local_mean(image):
            return conv2d(image, window, padding=5)

        mean_p, mean_r = local_mean(pred), local_mean(reference)
        variances = local_mean(pred**2) - mean_p**2 + local_mean(reference**2) - mean_r**2
        covariance = local_mean(pred * reference) - mean_p * mean_r
        c1, c2 = (0.01 * 400) ** 2, (0.03 * 400) ** 2
        ssim = (2 * mean_p * mean_r + c1) * (2 * covariance + c2) / ((mean_p**2 + mean_r**2 + c1) * (variances + c2))
        assert scores(noisy, chest, protocol="hu400_soft_tissue").ssim == pytest.approx(float(ssim.mean()), abs=1e-10)

    def test_psnr_is_scikit_images(self, chest):
        noisy = chest + NOISE_HU * normal(chest.shape)
        clipped = [np.clip(image, -160, 240) for image in (chest, noisy)]
        expected = peak_signal_noise_ratio(*clipped, data_range=400)
        assert scores(noisy, chest, protocol="hu400_soft_tissue").psnr_db == pytest.approx(expected, abs=1e-10)

    def test_full4096_is_monais_ssim_and_psnr(self, chest):
        noisy = chest + NOISE_HU * normal(chest.shape)
        pair = [torch.from_numpy(np.clip(image + 1024, 0, 4096))[None, None] for image in (noisy, chest)]
        found = scores(noisy, chest, protocol="full4096")
        # MONAI works in float32, which costs variances of values of 1000 some digits
        assert found.ssim == pytest.approx(float(SSIMMetric(2, data_range=4096)(*pair)), abs=1e-4)
        assert found.psnr_db == pytest.approx(float(PSNRMetric(4096)(*pair)), abs=1e-4)

    def test_ldctbench_maps_the_ends_of_the_dicom_window_to_0_and_1(self):
        assert PROTOCOLS["ldctbench-abdomen"].scaled(np.array([-900.0, -150, 249, 250])).tolist() == [0, 0, 1, 1]

    @pytest.mark.parametrize("name", PROTOCOLS)
    def test_equal_slices_have_ssim_1_and_no_error(self, name):
        image = np.abs(100 * normal((32, 32)))
        image = np.minimum(image, 255)
        found = scores(image, image, protocol=name)
        assert (found.psnr_db, found.ssim, found.rmse) == (math.inf, pytest.approx(1), 0)

    def test_float32_slices_are_compared_in_float64(self):
        pred, reference = np.full((16, 16), 1024.1, np.float32), np.full((16, 16), 1024, np.float32)
        assert scores(pred, reference, protocol="full4096").rmse == float(np.float32(1024.1) - np.float64(1024))


class TestTheProtocolIsPrinted:
    @pytest.mark.parametrize("name", PROTOCOLS)
    def test_beside_every_number(self, name):
        image = np.full((16, 16), 100.0)
        printed = str(scores(image + 1, image, protocol=name))
        assert printed.count(f"[{name}]") == 3
        assert str(PROTOCOLS[name]) in printed

    def test_in_the_names_of_a_tables_columns(self):
        image = np.full((16, 16), 100.0)
        row = scores(image + 1, image, protocol="grey8_course").as_row()
        assert list(row) == [
            "psnr_db[grey8_course]",
            "ssim[grey8_course]",
            "rmse[grey8_course]",
            "protocol[grey8_course]",
        ]
        assert row["psnr_db[grey8_course]"] == pytest.approx(20 * math.log10(255))
        assert row["protocol[grey8_course]"] == (
            "grey8_course: grey levels not clipped, range 255, SSIM 11x11 Gaussian sigma 1.5, no border"
        )

    @pytest.mark.parametrize(
        ("name", "formula"),
        [
            ("full4096", "HU clipped to -1024..3072, (HU + 1024), range 4096"),
            ("ldctbench-neuro", "HU clipped to 0..79, HU / 79, range 1"),
            ("ldctbench-abdomen", "HU clipped to -150..249, (HU + 150) / 399, range 1"),
        ],
    )
    def test_with_its_formula(self, name, formula):
        assert formula in str(PROTOCOLS[name])

    def test_protocols_cannot_be_changed(self):
        with pytest.raises(AttributeError):
            PROTOCOLS["hu400_soft_tissue"].data_range = 1.0


class TestBadInput:
    def test_unsigned_bytes_would_make_any_two_images_28_db_and_are_refused(self):
        rng = np.random.default_rng(0)
        one, other = rng.integers(0, 256, (2, 256, 256), dtype=np.uint8)
        black = np.zeros_like(one)
        for pair, honest_db in (((one, other), 7.76), ((one, black), 4.77)):
            wrapped = 10 * math.log10(255**2 / np.mean(np.square(pair[0] - pair[1]).astype(float)))
            assert wrapped == pytest.approx(27.9, abs=0.4)  # the mean of k^2 mod 256 is far below 255^2
            with pytest.raises(ValueError, match="must be floating point; got uint8.*28 dB.*astype"):
                scores(*pair, protocol="grey8_course")
            honest = scores(*(image.astype(float) for image in pair), protocol="grey8_course")
            assert honest.psnr_db == pytest.approx(honest_db, abs=0.1)

    @pytest.mark.parametrize("dtype", ["int16", "uint16", "int64", "bool"])
    def test_other_integers_are_refused_on_either_side(self, dtype):
        image = np.zeros((16, 16))
        with pytest.raises(ValueError, match=f"pred must be floating point; got {dtype}"):
            scores(image.astype(dtype), image, protocol="hu400_soft_tissue")
        with pytest.raises(ValueError, match=f"reference must be floating point; got {dtype}"):
            scores(image, image.astype(dtype), protocol="hu400_soft_tissue")

    @pytest.mark.parametrize("protocol", [None, "psnr", "notebook"])
    def test_no_protocol_no_psnr(self, protocol):
        with pytest.raises(ValueError, match=f"need a protocol; got {protocol!r}.*hu400_soft_tissue, ldctbench-chest"):
            scores(np.zeros((16, 16)), np.zeros((16, 16)), protocol=protocol)
        with pytest.raises(ValueError, match="need a protocol; got None"):
            scores(np.zeros((16, 16)), np.zeros((16, 16)))

    def test_normalised_images_are_refused_as_hu(self, chest):
        normalised = chest / 1000
        with pytest.raises(ValueError, match="hu400_soft_tissue needs slices in HU; the reference lies within -1..0.5"):
            scores(normalised, normalised, protocol="hu400_soft_tissue")

    def test_hu_are_refused_as_grey_levels(self, chest):
        with pytest.raises(
            ValueError, match="grey8_course needs grey levels of 0..255; the reference lies within -1000..500"
        ):
            scores(chest, chest, protocol="grey8_course")

    @pytest.mark.parametrize(
        ("pred", "reference", "fault"),
        [
            (np.zeros((16, 15)), np.zeros((16, 16)), r"the same shape; got \(16, 15\) and \(16, 16\)"),
            (np.zeros((2, 16, 16)), np.zeros((2, 16, 16)), r"one slice \(y, x\); got shape \(2, 16, 16\)"),
            (np.zeros((8, 16)), np.zeros((8, 16)), "needs 11 pixels along each axis"),
            (np.full((16, 16), np.nan), np.zeros((16, 16)), "pred holds NaN"),
        ],
    )
    def test_anything_but_a_pair_of_slices_is_refused(self, pred, reference, fault):
        with pytest.raises(ValueError, match=fault):
            scores(pred, reference, protocol="hu400_soft_tissue")

    @pytest.mark.parametrize("wrong", [{"window": (240, -160)}, {"data_range": 0}, {"scale": -1}])
    def test_an_impossible_protocol_is_refused(self, wrong):
        with pytest.raises(ValueError, match="must be"):
            Protocol(**{"name": "mine", "window": None, "data_range": 1.0, "ssim_window": SSIMWindow(7), **wrong})


@pytest.mark.parametrize("name", HU_PROTOCOLS)
def test_pixels_that_are_not_known_count_in_no_mean(chest, name):
    known = np.ones(chest.shape, dtype=bool)
    known[:, 128:] = False
    reference = np.where(known, chest, np.nan)
    noisy = chest + NOISE_HU * normal(chest.shape)
    found = scores(np.where(known, noisy, 1e4), reference, protocol=name, known=known)
    left = scores(noisy[:, :128], chest[:, :128], protocol=name)
    assert found.psnr_db == pytest.approx(left.psnr_db) and found.rmse == pytest.approx(left.rmse)
    assert found.ssim == pytest.approx(left.ssim, abs=0.03)  # windows at the border reach over it


def test_with_every_pixel_known_the_scores_are_those_without_a_mask(chest):
    noisy, known = chest + NOISE_HU * normal(chest.shape), np.ones(chest.shape, dtype=bool)
    for name in HU_PROTOCOLS:
        masked, plain = scores(noisy, chest, protocol=name, known=known), scores(noisy, chest, protocol=name)
        for score in ("psnr_db", "ssim", "rmse"):
            assert getattr(masked, score) == pytest.approx(getattr(plain, score), rel=1e-12)


def test_an_empty_mask_is_refused(chest):
    with pytest.raises(ValueError, match="0 set"):
        scores(chest, chest, protocol="hu400_soft_tissue", known=np.zeros(chest.shape, dtype=bool))
