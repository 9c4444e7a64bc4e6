"""A parametrised test that lost its cases fails; pytest alone would skip it."""

from __future__ import annotations

import pytest

from tests.conftest import cases


def test_a_search_that_finds_too_little_is_an_error():
    assert cases(iter("ab"), at_least=2) == ["a", "b"]
    with pytest.raises(AssertionError, match=r"expected 1 cases or more; found 0: \[\]"):
        cases([])
    with pytest.raises(AssertionError, match="found 2"):
        cases("ab", at_least=3)


def test_lists_that_are_not_searched_for_may_not_be_empty_either(pytestconfig):
    assert pytestconfig.getini("empty_parameter_set_mark") == "fail_at_collect"
