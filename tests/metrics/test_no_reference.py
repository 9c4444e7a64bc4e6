"""Noise, mean and edges tell a good restoration from no change, over-smoothing and shifts, without a reference."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from ctrestore.metrics.no_reference import Verdict, log_noise, traces, verdict
from ctrestore.metrics.no_reference_metric import NoReferenceMetric

SIDE = 128


def body(seed=0):
    """Lung, fat and soft tissue with sharp borders, without noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:SIDE, :SIDE] - SIDE / 2 + rng.uniform(-3, 3)
    hu = np.full((SIDE, SIDE), -1000.0)
    hu[np.hypot(x, y) < 60] = -90.0
    hu[np.hypot(x, y) < 52] = 50.0
    hu[np.hypot(x - 20, y) < 18] = -800.0
    return ndimage.gaussian_filter(hu, 0.7)


def noise(sd, seed):
    return np.random.default_rng(seed).normal(0, sd, (SIDE, SIDE))


def full_dose_noise(n=6, sd=10.0):
    return [log_noise(body(i) + noise(sd, 50 + i)) for i in range(n)]


def judged(restore, n=6):
    found = []
    for i in range(n):
        clean, added = body(100 + i), noise(20.0, 200 + i)
        found.append(traces(restore(clean, added), clean + added))
    return verdict(found, full_dose_noise())


def test_noise_is_measured_in_octaves_at_two_scales():
    """White noise: half as much in means of 2 x 2."""
    one, two = (np.array(log_noise(body() + noise(sd, 1))) for sd in (10.0, 20.0))
    np.testing.assert_allclose(two - one, 1.0, atol=0.05)
    assert one[0] - one[1] == pytest.approx(1.0, abs=0.3)


def test_halving_the_noise_to_that_of_full_dose_has_the_best_score():
    found = judged(lambda clean, added: clean + added / 2)
    assert found.noise_octaves < 0.1
    assert max(map(abs, found.drift_hu.values())) < 0.5
    assert abs(found.edges) < 0.01


@pytest.mark.parametrize(
    ("restore", "part"),
    [
        (lambda clean, added: clean + added, "noise_octaves"),
        (lambda clean, added: clean, "noise_octaves"),
        (lambda clean, added: clean + added / 2 + 5.0, "drift_hu"),
        (lambda clean, added: ndimage.gaussian_filter(clean, 1.5) + added / 2, "edges"),
        (lambda clean, added: clean + (clean - ndimage.gaussian_filter(clean, 1.0)) + added / 2, "edges"),
        (lambda clean, added: np.full_like(clean, 40.0) + added / 2, "edges"),
    ],
    ids=["doing nothing", "wiping out", "shifting", "blurring", "sharpening", "always the same"],
)
def test_every_other_result_is_worse_and_its_own_part_shows_why(restore, part):
    good, bad = judged(lambda clean, added: clean + added / 2), judged(restore)
    assert bad.penalty > good.penalty + 1.5
    value = getattr(bad, part)
    value = max(map(abs, value.values())) if part == "drift_hu" else abs(value)
    assert value > {"noise_octaves": 0.8, "drift_hu": 4.0, "edges": 0.05}[part]


def test_a_shift_is_measured_in_hu_in_every_tissue():
    found = judged(lambda clean, added: clean + added + 3.0)
    assert found.drift_hu == pytest.approx({"lung": 3.0, "fat": 3.0, "soft tissue": 3.0})


def test_blotches_of_the_right_strength_are_detected_by_their_grain():
    def blotchy(clean, added):
        coarse = ndimage.gaussian_filter(added, 1.5)
        return clean + 10.0 * coarse / coarse.std()

    assert judged(blotchy).noise_octaves > judged(lambda clean, added: clean + added / 2).noise_octaves + 0.2


def test_the_penalty_is_one_for_each_tolerance_used_up():
    assert Verdict(0.25, {"fat": -2.0, "lung": 1.0}, -0.05).penalty == pytest.approx(3.0)
    assert Verdict(0.0, {"fat": 0.0, "lung": float("nan")}, 0.0).penalty == 0.0


def test_without_soft_tissue_there_is_no_score():
    air = np.full((SIDE, SIDE), -1000.0)
    with pytest.raises(ValueError, match="soft tissue"):
        verdict([traces(air, air)], full_dose_noise())
    with pytest.raises(ValueError, match="one shape"):
        traces(air, air[1:])


def test_the_metric_gives_the_verdict_of_all_slices_whatever_the_batches():
    images = [body(100 + i) + noise(20.0, 200 + i) for i in range(3)]
    preds = [image + 3.0 for image in images]
    expected = verdict([traces(*pair) for pair in zip(preds, images)], full_dose_noise())
    for part, value in (("score", -expected.penalty), ("edges", expected.edges), ("drift_hu", 3.0)):
        metric = NoReferenceMetric(full_dose_noise(), part)
        for pred, image in zip(preds, images):
            metric(*(torch.from_numpy(one)[None, None] for one in (pred, image)))
        assert float(metric.aggregate()) == pytest.approx(value, rel=1e-3, abs=1e-4)


def test_a_part_that_does_not_exist_and_volumes_are_refused():
    with pytest.raises(ValueError, match="part is one of score"):
        NoReferenceMetric([], "psnr")
    with pytest.raises(ValueError, match=r"\(batch, 1, y, x\)"):
        NoReferenceMetric([])(torch.zeros(1, 1, 4, 4, 4), torch.zeros(1, 1, 4, 4, 4))
