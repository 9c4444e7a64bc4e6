"""Tables of regions: ratios worked out by hand, unknown names answered with close ones."""

import csv

import numpy as np
import pytest

from ctrestore.commands.pvc.frames import Frame
from ctrestore.commands.pvc.region_tables import region_table, write_petpvc_table, write_table

NAMES, VOLUMES_ML = ["cortex", "cerebellum-left", "cerebellum-right"], np.array([100.0, 10.0, 30.0])


def frame(before, after):
    return Frame(np.array(before), np.array(after), white_value=None, residual=None)


def test_ratios_are_over_the_mean_of_the_reference_weighted_by_volume():
    rows = region_table(NAMES, VOLUMES_ML, [frame([3, 1, 2], [4, 1, 3])], reference=NAMES[1:])
    assert [row["suvr_uncorrected"] for row in rows] == pytest.approx([3 / 1.75, 1 / 1.75, 2 / 1.75])
    assert rows[0]["suvr_corrected"] == pytest.approx(4 / 2.5)


def test_without_a_reference_there_are_no_ratios():
    rows = region_table(NAMES, VOLUMES_ML, [frame([3, 1, 2], [4, 1, 3])])
    assert {row["suvr_corrected"] for row in rows} == {"n/a"}


def test_a_reference_without_activity_is_refused_unless_later_frames_have_some():
    empty, later = frame([0, 0, 0], [0, 0, 0]), frame([3, 1, 2], [4, 1, 3])
    rows = region_table(NAMES, VOLUMES_ML, [empty, later], reference=["cerebellum-left"])
    assert [row["suvr_corrected"] for row in rows[:4]] == ["n/a", "n/a", "n/a", 4]
    with pytest.raises(ValueError, match="is not above 0"):
        region_table(NAMES, VOLUMES_ML, [empty], reference=["cerebellum-left"])


def test_a_misspelt_reference_is_answered_with_names_like_it():
    with pytest.raises(ValueError, match=r"'cerebelum-left'; there are 3, among them cerebellum-left"):
        region_table(NAMES, VOLUMES_ML, [frame([3, 1, 2], [4, 1, 3])], reference=["cerebelum-left"])


@pytest.mark.parametrize(("ending", "delimiter"), [("tsv", "\t"), ("txt", "\t"), ("csv", ",")])
def test_a_table_reads_back(tmp_path, ending, delimiter):
    rows = region_table(["a, b", "c"], np.ones(2), [frame([1 / 3, 2e6], [4, 5])])
    write_table(rows, tmp_path / f"new/table.{ending}")
    with (tmp_path / f"new/table.{ending}").open(newline="") as file:
        back = list(csv.DictReader(file, delimiter=delimiter))
    assert [row["name"] for row in back] == ["a, b", "c"]
    assert [row["mean_uncorrected"] for row in back] == ["0.333333", "2e+06"]


def test_petpvcs_table_counts_regions_from_one_in_six_digits(tmp_path):
    write_petpvc_table([frame([0, 0], [10912.512, 393.2721])], tmp_path / "gtm")
    assert (tmp_path / "gtm").read_text() == "REGION\tMEAN\n1\t10912.5\n2\t393.272\n"
    write_petpvc_table([frame([0, 0], [1, 2]), frame([0, 0], [3, 4])], tmp_path / "gtm")
    assert (tmp_path / "gtm").read_text() == "REGION\tMEAN_1\tMEAN_2\n1\t1\t3\n2\t2\t4\n"
