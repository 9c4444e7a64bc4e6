"""Files are there whole or not at all."""

import json

import pytest

from ctrestore.files import read_json, write_json, written_whole


def test_what_fails_half_way_leaves_the_old_file_and_no_draft(tmp_path):
    path = tmp_path / "result"
    path.write_text("old")
    with pytest.raises(RuntimeError), written_whole(path) as draft:
        draft.write_text("ha")
        raise RuntimeError("killed")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_json_reads_back_and_holds_no_nan(tmp_path):
    path = tmp_path / "new" / "a.json"
    write_json({"Müller": [1, None]}, path)
    assert read_json(path) == {"Müller": [1, None]}
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json({"a": float("nan")}, path)
    assert json.loads(path.read_text(encoding="utf-8")) == {"Müller": [1, None]}


@pytest.mark.parametrize(
    ("content", "words"), [("{", "not a JSON file"), ("[1]", "expected a JSON object"), ("", "not")]
)
def test_json_of_another_kind_is_refused_by_name(tmp_path, content, words):
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(ValueError, match=rf"a\.json: .*{words}"):
        read_json(tmp_path / "a.json")
