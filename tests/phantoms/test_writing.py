"""Phantoms are written atomically, also if a process is killed or several write."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import platform
import time
from pathlib import Path

import nibabel as nib
import pytest

from ctrestore.errors import StorageError
from ctrestore.phantoms import cohort, files_of, is_written, phantom_entries, write_cohort, write_subject, writing

SUBJECTS = cohort(3, 0, 1)


def hidden(folder):
    return [path for path in folder.iterdir() if path.name.startswith(".")]


def dead_pid():
    """Number of a process that has just ended."""
    process = multiprocessing.get_context("spawn").Process()
    process.start()
    process.join()
    return process.pid


def test_a_cohort_is_a_bids_like_folder_with_every_file_of_its_list(rendered, tmp_path):
    assert write_cohort(tmp_path / "new" / "folder", SUBJECTS, n_processes=1) == tmp_path / "new" / "folder"
    folder = tmp_path / "new" / "folder"
    description = json.loads((folder / "dataset_description.json").read_text(encoding="utf-8"))
    assert {"Name", "BIDSVersion", "DatasetType"} <= description.keys()
    assert description["GeneratedBy"] == [{"Name": "ctrestore phantoms", "Version": writing.GENERATOR_VERSION}]
    for subject in SUBJECTS:
        assert is_written(subject, folder)
        assert (folder / files_of(subject)["image"].replace(".nii.gz", ".json")).is_file()
    assert hidden(folder) == []


def test_existing_subjects_are_not_made_again(rendered, tmp_path, capsys):
    write_cohort(tmp_path, SUBJECTS[:1], n_processes=1)
    write_cohort(tmp_path, SUBJECTS, n_processes=1)
    write_cohort(tmp_path, SUBJECTS, n_processes=1)
    assert rendered == [subject.name for subject in SUBJECTS]
    assert "Making 3 brain PET phantoms" in capsys.readouterr().out


def test_a_subject_with_a_file_missing_is_made_again(rendered, tmp_path):
    subject = SUBJECTS[0]
    write_cohort(tmp_path, [subject], n_processes=1)
    for key in ("truth", "t1"):
        (tmp_path / files_of(subject)[key]).unlink()
        assert not is_written(subject, tmp_path)
        write_cohort(tmp_path, [subject], n_processes=1)
        assert is_written(subject, tmp_path)
    assert hidden(tmp_path) == []


def test_several_processes_write_what_one_writes(rendered, tmp_path):
    if multiprocessing.get_start_method() != "fork":
        pytest.skip("processes that are not forked do not know the quick rendering")
    write_cohort(tmp_path, SUBJECTS, n_processes=2)
    assert all(is_written(subject, tmp_path) for subject in SUBJECTS)


def test_a_process_killed_for_memory_is_reported_with_the_remedy(rendered, tmp_path, monkeypatch):
    if multiprocessing.get_start_method() != "fork":
        pytest.skip("processes that are not forked do not know of their death")
    monkeypatch.setattr(writing, "render", lambda subject: os._exit(137))
    with pytest.raises(ChildProcessError, match=r"lack of memory: 2 processes .* run it again with fewer processes"):
        write_cohort(tmp_path, SUBJECTS, n_processes=2)


@pytest.mark.parametrize("moment", ["rendering", "between the folders"])
def test_two_processes_that_race_on_a_subject_both_succeed(rendered, tmp_path, monkeypatch, moment):
    """The other process finishes the same subject while this one is at the given moment."""
    subject = SUBJECTS[0]
    raced = []

    def other_process():
        if not raced:
            raced.append(True)
            write_subject(subject, tmp_path)

    if moment == "rendering":
        quick = writing.render
        monkeypatch.setattr(writing, "render", lambda subject: (other_process(), quick(subject))[1])
    else:
        rename = Path.rename

        def rename_then_race(self, target):
            moved = rename(self, target)
            other_process()
            return moved

        monkeypatch.setattr(Path, "rename", rename_then_race)
    write_subject(subject, tmp_path)
    assert raced and len(rendered) == 2
    assert is_written(subject, tmp_path)
    assert hidden(tmp_path) == []


def race(folder, barrier):
    barrier.wait()
    write_cohort(folder, SUBJECTS, n_processes=1)


def test_processes_that_start_at_once_all_succeed(rendered, tmp_path):
    if "fork" not in multiprocessing.get_all_start_methods():
        pytest.skip("processes that are not forked do not know the quick rendering")
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(4)
    processes = [context.Process(target=race, args=(tmp_path, barrier)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=60)
    assert [process.exitcode for process in processes] == [0] * 4
    assert all(is_written(subject, tmp_path) for subject in SUBJECTS)
    assert hidden(tmp_path) == []


def test_a_killed_run_leaves_only_hidden_folders_and_the_next_run_removes_them(rendered, tmp_path):
    subject, host = SUBJECTS[0], platform.node()
    write_cohort(tmp_path, [subject], n_processes=1)
    killed = tmp_path / f".{SUBJECTS[1].name}.{host}.{dead_pid()}.abcdefgh"
    running = tmp_path / f".{SUBJECTS[1].name}.{host}.{os.getpid()}.abcdefgh"
    elsewhere = tmp_path / f".{SUBJECTS[1].name}.another.host.{dead_pid()}.abcdefgh"
    old = tmp_path / f".{SUBJECTS[2].name}.another.host.{os.getpid()}.abcdefgh"
    for folder in (killed, running, elsewhere, old):
        (folder / SUBJECTS[1].name / "pet").mkdir(parents=True)
    os.utime(old, (time.time() - 4000,) * 2)
    write_cohort(tmp_path, SUBJECTS, n_processes=1)
    assert sorted(hidden(tmp_path)) == sorted([running, elsewhere])


def test_a_folder_of_other_data_is_not_changed(rendered, tmp_path):
    (tmp_path / "sub-1").mkdir()
    with pytest.raises(ValueError, match="holds other data than the embedded phantoms.*data-list"):
        write_cohort(tmp_path, SUBJECTS, n_processes=1)
    assert [path.name for path in tmp_path.iterdir()] == ["sub-1"]


def test_a_folder_with_only_hidden_files_counts_as_empty(rendered, tmp_path):
    """As when another process is just writing the description."""
    (tmp_path / ".123.dataset_description.json").touch()
    write_cohort(tmp_path, SUBJECTS[:1], n_processes=1)
    assert is_written(SUBJECTS[0], tmp_path)


def test_phantoms_of_another_generator_are_neither_used_nor_mixed_with_ours(rendered, tmp_path, monkeypatch):
    write_cohort(tmp_path, SUBJECTS[:1], n_processes=1)
    monkeypatch.setattr(writing, "GENERATOR_VERSION", "next")
    for subjects in (SUBJECTS[:1], SUBJECTS):
        with pytest.raises(ValueError, match="phantoms of generator version 1; this is version next.*Remedy: remove"):
            write_cohort(tmp_path, subjects, n_processes=1)
    assert rendered == [SUBJECTS[0].name]


def test_a_folder_without_a_version_is_of_the_first_version(rendered, tmp_path, monkeypatch):
    write_cohort(tmp_path, SUBJECTS[:1], n_processes=1)
    description = tmp_path / "dataset_description.json"
    stated = json.loads(description.read_text(encoding="utf-8"))
    del stated["GeneratedBy"]
    description.write_text(json.dumps(stated), encoding="utf-8")
    monkeypatch.setattr(writing, "GENERATOR_VERSION", "1")
    write_cohort(tmp_path, SUBJECTS, n_processes=1)
    assert len(rendered) == len(SUBJECTS)
    monkeypatch.setattr(writing, "GENERATOR_VERSION", "2")
    with pytest.raises(ValueError, match="of generator version 1; this is version 2"):
        write_cohort(tmp_path, SUBJECTS, n_processes=1)


def test_half_a_subject_of_a_killed_run_is_replaced(rendered, tmp_path):
    write_cohort(tmp_path, SUBJECTS[1:2], n_processes=1)
    subject = SUBJECTS[0]
    stale = tmp_path / "derivatives" / "phantom" / subject.name / "stale.txt"
    stale.parent.mkdir(parents=True)
    stale.touch()
    write_cohort(tmp_path, [subject], n_processes=1)
    assert is_written(subject, tmp_path)
    assert not stale.exists()
    assert hidden(tmp_path) == []


def test_a_full_disk_is_named_and_leaves_nothing_behind(rendered, tmp_path, monkeypatch):
    write_cohort(tmp_path, SUBJECTS[:1], n_processes=1)
    save, saved = nib.save, []

    def save_until_full(image, path):
        if len(saved) == 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        saved.append(path)
        save(image, path)

    monkeypatch.setattr(nib, "save", save_until_full)
    with pytest.raises(OSError, match="No space left on device") as caught:
        write_cohort(tmp_path, SUBJECTS, n_processes=1)
    assert caught.value.__cause__.errno == errno.ENOSPC
    assert f"cannot write phantoms to {tmp_path}:" in str(caught.value) and "free space" in str(caught.value)
    assert hidden(tmp_path) == [] and not (tmp_path / SUBJECTS[1].name).exists()
    assert is_written(SUBJECTS[0], tmp_path)  # finished subjects stay


def test_a_folder_that_cannot_be_made_is_named(rendered, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="cannot write phantoms to .*file.phantoms: "):
        write_cohort(tmp_path / "file" / "phantoms", SUBJECTS, n_processes=1)
    assert rendered == []  # before any work


@pytest.mark.parametrize(
    "variables", [{"RANK": "1", "LOCAL_RANK": "1"}, {"RANK": "3"}, {"RANK": "5", "LOCAL_RANK": "1"}]
)
def test_a_later_rank_waits_for_the_first(rendered, tmp_path, monkeypatch, capsys, variables):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(writing, "POLL_S", 0.01)
    waiting = iter(SUBJECTS)

    def first_rank_writes(seconds):
        subject = next(waiting, None)
        assert subject is not None, "still waiting with everything there"
        write_subject(subject, tmp_path)

    monkeypatch.setattr(writing.time, "sleep", first_rank_writes)
    write_cohort(tmp_path, SUBJECTS)
    assert next(waiting, None) is None
    assert "waits for rank 0, which makes 4 phantoms" in capsys.readouterr().out


@pytest.mark.parametrize(
    "variables", [{"RANK": "0", "LOCAL_RANK": "0"}, {"RANK": "8", "LOCAL_RANK": "0"}, {"RANK": ""}]
)
def test_the_first_rank_of_every_machine_writes(rendered, tmp_path, monkeypatch, variables):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    write_cohort(tmp_path, SUBJECTS[:1], n_processes=1)
    assert rendered == [SUBJECTS[0].name]


def test_a_rank_that_waits_in_vain_says_what_to_do(rendered, tmp_path, monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setattr(writing, "PATIENCE_S", 0.0)
    monkeypatch.setattr(writing, "POLL_S", 0.01)
    with pytest.raises(TimeoutError, match="rank 0 failed.*ctrestore phantoms -o"):
        write_cohort(tmp_path, SUBJECTS)


def test_entries_have_absolute_paths_to_existing_files(rendered, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    entries = phantom_entries("phantoms", "training", n=2, n_processes=1)
    assert [entry["subject"] for entry in entries] == ["sub-training00", "sub-training01"]
    assert rendered == ["sub-training00", "sub-training01"]  # neither more of them nor the other splits
    for entry in entries:
        assert entry.keys() == {"subject", *files_of(SUBJECTS[0])}
        for key, file in entry.items():
            assert key == "subject" or (Path(file).is_absolute() and Path(file).is_file())
            assert key == "subject" or Path(file).is_relative_to(tmp_path / "phantoms")


def test_without_a_number_entries_are_those_of_the_embedded_cohort(rendered, tmp_path):
    assert [len(phantom_entries(tmp_path, s, n_processes=1)) for s in ("training", "validation", "test")] == [40, 4, 8]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"section": "train"}, "training, validation, test; got 'train'"),
        ({"section": "test", "n": 0}, "n must be at least 1"),
        ({"section": "test", "n_processes": 0}, "n_processes must be at least 1"),
    ],
)
def test_wrong_arguments_are_refused_before_any_work(rendered, tmp_path, arguments, words):
    with pytest.raises(ValueError, match=words):
        phantom_entries(tmp_path, **arguments)
    assert rendered == [] and list(tmp_path.iterdir()) == []
