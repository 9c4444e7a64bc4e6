"""Output files are written atomically, in a folder that can be written to."""

import json

import pytest

from ctrestore.io.whole import read_json, writable_folder, write_json, written_whole


def test_a_writable_folder_is_made_and_left_empty(tmp_path):
    folder = writable_folder(tmp_path / "new" / "folder")
    assert folder.is_dir()
    assert not list(folder.iterdir())


@pytest.mark.parametrize("place", ["file", "file/folder"])
def test_a_folder_that_cannot_be_written_is_refused_with_the_remedy(tmp_path, place):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=rf"{place}: cannot write into this folder .*Remedy: another output folder"):
        writable_folder(tmp_path / place)


def test_a_file_appears_under_its_name_when_it_is_complete(tmp_path):
    path = tmp_path / "new" / "table.csv"
    with written_whole(path) as draft:
        draft.write_text("half")
        assert not path.exists()
        assert draft.suffix == ".csv"  # writers choose the format by the ending
    assert path.read_text() == "half"
    assert list(path.parent.iterdir()) == [path]


def test_a_failed_write_leaves_only_the_old_file(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("the old one")

    def fail():
        with written_whole(path) as draft:
            draft.write_text("half")
            raise OSError("No space left on device")

    with pytest.raises(OSError, match="No space left"):
        fail()
    assert path.read_text() == "the old one"
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
