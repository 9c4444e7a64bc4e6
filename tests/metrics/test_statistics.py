"""Intervals and tests by patient, against normal theory and counting."""

import numpy as np
import pytest
from scipy.stats import t

from ctrestore.metrics import bootstrap_by_patient, compare_by_patient, patient_means


def cohort(n_patients=12, n_slices=30, seed=0, between=3.0, within=1.0):
    """PSNR-like numbers that differ more between patients than between slices, and the patient of each."""
    rng = np.random.default_rng(seed)
    values = 30 + between * rng.standard_normal((n_patients, 1)) + within * rng.standard_normal((n_patients, n_slices))
    return values.ravel(), np.repeat([f"patient {i:02}" for i in range(n_patients)], n_slices)


class TestBootstrap:
    def test_many_patients_give_the_interval_of_normal_theory(self):
        values, patients = cohort(n_patients=100, n_slices=1)
        found = bootstrap_by_patient(values, patients)
        half = t.ppf(0.975, 99) * values.std(ddof=1) / 10
        assert found.mean == pytest.approx(values.mean())
        assert (found.low, found.high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.1 * half)

    def test_more_slices_of_the_same_patients_make_it_no_narrower(self):
        values, patients = cohort(n_slices=1)
        once = bootstrap_by_patient(values, patients)
        many = bootstrap_by_patient(np.repeat(values, 100), np.repeat(patients, 100))
        assert (many.low, many.high) == pytest.approx((once.low, once.high))
        as_if_patients = bootstrap_by_patient(np.repeat(values, 100), np.arange(1200))
        assert as_if_patients.high - as_if_patients.low < 0.2 * (many.high - many.low)

    def test_a_patient_with_many_slices_counts_once(self):
        assert bootstrap_by_patient([30.0, 40, 40, 40, 40], ["A", "B", "B", "B", "B"]).mean == 35
        assert patient_means([40.0, 30, 40], ["B", "A", "B"]).tolist() == [30, 40]

    def test_it_covers_the_truth_about_as_often_as_it_says(self):
        found = [bootstrap_by_patient(*cohort(20, 2, seed=seed), n_resamples=500) for seed in range(100)]
        covered = np.mean([interval.low <= 30 <= interval.high for interval in found])
        assert 0.85 <= covered <= 1  # of 20 patients BCa covers some 92 %, +- 2 x 2.7 % of 100 trials

    def test_same_seed_same_interval(self):
        assert bootstrap_by_patient(*cohort(), seed=3) == bootstrap_by_patient(*cohort(), seed=3)
        assert bootstrap_by_patient(*cohort(), seed=3) != bootstrap_by_patient(*cohort(), seed=4)

    def test_equal_patients_have_an_interval_of_no_width(self):
        found = bootstrap_by_patient([2.0, 2.0, 2.0], ["A", "B", "C"])
        assert (found.low, found.mean, found.high) == (2, 2, 2)

    def test_it_prints_its_level_and_the_number_of_patients(self):
        assert str(bootstrap_by_patient([2.0, 2.0], ["A", "B"])) == "2 (95% interval 2 to 2, 2 patients)"


class TestPairedComparison:
    def test_a_small_gain_is_found_under_large_differences_between_patients(self):
        values, patients = cohort()
        gain = 0.3 + 0.1 * np.random.default_rng(1).standard_normal(values.size)
        found = compare_by_patient(values + gain, values, patients)
        assert found.difference.mean == pytest.approx(0.3, abs=0.03)
        assert 0.2 < found.difference.low < found.difference.high < 0.4
        unpaired = bootstrap_by_patient(values, patients)
        assert unpaired.high - unpaired.low > 10 * (found.difference.high - found.difference.low)

    def test_twelve_patients_with_one_sign_have_a_p_of_2_in_2_to_the_12(self):
        values, patients = cohort()
        assert compare_by_patient(values + 1 + 0.001 * values, values, patients).p_value == pytest.approx(2 / 2**12)

    def test_five_patients_cannot_be_significant(self):
        values, patients = cohort(n_patients=5)
        assert compare_by_patient(1.1 * values, values, patients).p_value == pytest.approx(2 / 2**5)

    def test_slices_do_not_raise_significance(self):
        few, many = (cohort(n_patients=6, n_slices=n) for n in (2, 200))
        assert {compare_by_patient(1.1 * v, v, p).p_value for v, p in (few, many)} == {2 / 2**6}

    def test_no_difference_has_p_1(self):
        found = compare_by_patient(*[cohort()[0]] * 2, cohort()[1])
        assert (found.difference.mean, found.p_value) == (0, 1)

    def test_it_says_what_it_tested(self):
        assert str(compare_by_patient([2.0, 2.0], [2.0, 2.0], ["A", "B"])) == (
            "0 (95% interval 0 to 0, 2 patients), p = 1 (Wilcoxon, paired by patient)"
        )


@pytest.mark.parametrize(
    ("values", "patients", "arguments", "fault"),
    [
        ([1.0, 2.0], ["A", "A"], {}, "two patients or more; got one"),
        ([1.0, 2.0], ["A"], {}, "a patient for each value"),
        ([], [], {}, "a patient for each value"),
        ([1.0, np.inf], ["A", "B"], {}, "1 of 2 values are not finite.*infinite PSNR"),
        ([1.0, 2.0], ["A", "B"], {"confidence": 95}, "confidence must be between 0 and 1"),
    ],
)
def test_values_without_an_interval_are_refused(values, patients, arguments, fault):
    with pytest.raises(ValueError, match=fault):
        bootstrap_by_patient(values, patients, **arguments)


def test_lists_of_different_slices_are_refused():
    with pytest.raises(ValueError, match=r"same slices; got \(2,\) and \(3,\)"):
        compare_by_patient([1.0, 2.0], [1.0, 2.0, 3.0], ["A", "B"])
