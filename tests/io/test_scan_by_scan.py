"""One bad scan costs its own result and no other's."""

from __future__ import annotations

import errno
import logging

import pytest

from ctrestore.errors import InputError, ScansFailed
from ctrestore.io.scan_by_scan import for_each_scan, reason

NUMBERED = [(f"scan-{n}", n) for n in range(5)]


def inverse(n: int) -> float:
    return 1 / (n - 2)


def test_every_scan_has_a_result_or_a_reason(capsys):
    done, failed = for_each_scan(NUMBERED, inverse)
    assert done == [inverse(n) for n in (0, 1, 3, 4)]
    assert failed == {"scan-2": "ZeroDivisionError: division by zero"}
    assert capsys.readouterr().out == "skipped scan-2: ZeroDivisionError: division by zero\n"


def test_a_bad_scan_is_named_before_the_next_one_begins(capsys):
    seen = []

    def work(n: int) -> None:
        seen.append(capsys.readouterr().out)
        if n == 1:
            raise InputError("its voxels are NaN")

    for_each_scan(NUMBERED, work)
    assert seen == ["", "", "skipped scan-1: its voxels are NaN\n", "", ""]


def test_the_order_of_the_scans_is_kept_and_no_scan_is_done_twice():
    order = []
    done, failed = for_each_scan(NUMBERED[::-1], order.append)
    assert order == [4, 3, 2, 1, 0]
    assert (done, failed) == ([None] * 5, {})


@pytest.mark.parametrize("end", [KeyboardInterrupt, SystemExit])
def test_what_ends_a_process_ends_the_work(end):
    order = []

    def work(n: int) -> None:
        order.append(n)
        if n == 1:
            raise end

    with pytest.raises(end):
        for_each_scan(NUMBERED, work)
    assert order == [0, 1]


def test_a_name_stands_once_in_its_reason():
    def work(n: int) -> None:
        raise InputError(f"scan-{n}: damaged. Remedy: copy it again.")

    _, failed = for_each_scan(NUMBERED[:1], work)
    assert str(ScansFailed("corrected", failed)) == "not corrected:\n  scan-0: damaged. Remedy: copy it again."


def test_what_is_known_to_be_bad_comes_first(capsys):
    _, failed = for_each_scan(NUMBERED, inverse, failed={"lost": "no such file"})
    assert list(failed) == ["lost", "scan-2"]
    assert capsys.readouterr().out.startswith("skipped lost: no such file\nskipped scan-2")


def test_progress_is_shown_unless_the_work_shows_its_own(capsys):
    for_each_scan(NUMBERED, inverse, doing="correcting", unit="head")
    assert "correcting: 100%" in capsys.readouterr().err
    for_each_scan(NUMBERED, inverse)
    assert capsys.readouterr().err == ""


def test_the_traceback_is_kept_for_those_who_ask(caplog):
    with caplog.at_level(logging.DEBUG, logger="ctrestore"):
        for_each_scan(NUMBERED, inverse)
    [record] = caplog.records
    assert record.message == "scan-2"
    assert record.exc_info is not None
    assert record.exc_info[0] is ZeroDivisionError


def test_a_reason_is_the_innermost_message_on_one_line():
    try:
        try:
            raise InputError("the inner\n  one")
        except InputError as inner:
            raise RuntimeError("a wrapper") from inner
    except RuntimeError as error:
        assert reason(error) == "the inner one"
    assert "damaged copy" in reason(EOFError("ended early"))
    assert reason(OSError(errno.ENOSPC, "No space left on device")).startswith("the disk is full")
