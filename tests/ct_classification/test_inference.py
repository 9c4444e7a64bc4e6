"""The table of inference, written without pandas, which takes a quarter of a second to import."""

import numpy as np
import pandas as pd
import pytest

from ctrestore.tasks.lung_ct_classification.inference import rows_of, write_table

CLASSES = ["tumour", "none, as far as seen"]


@pytest.mark.parametrize(
    "entries", [[{"slice": 0}], [{"slice": 4}, {"slice": 5}], [{}, {}], [{"image": "a"}]], ids=lambda e: str(e)
)
def test_the_table_equals_that_of_pandas(entries, tmp_path):
    probabilities = np.random.default_rng(0).dirichlet([1, 1], len(entries)).astype(np.float32)
    rows = rows_of("a, b/\u00fc.nii.gz", entries, probabilities, CLASSES)
    write_table(rows, tmp_path / "ours.csv")
    pd.DataFrame(rows).to_csv(tmp_path / "pandas.csv", index=False, float_format="%.4f")
    assert (tmp_path / "ours.csv").read_bytes() == (tmp_path / "pandas.csv").read_bytes()


def test_a_picture_has_no_slice(tmp_path):
    write_table([{"file": "a.png", "slice": None, "class": "none", "none": 1.0}] * 2, tmp_path / "ours.csv")
    assert (tmp_path / "ours.csv").read_text().splitlines()[1:] == ["a.png,,none,1.0000"] * 2
