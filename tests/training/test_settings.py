"""A setting is true or false, whether Python or the command line hands it over; nothing else passes for either."""

from __future__ import annotations

import pytest

from ctrestore.errors import InputError
from ctrestore.training.settings import is_true


@pytest.mark.parametrize("value", [True, False])
def test_the_text_of_a_bool_means_the_bool(value):
    assert is_true(value) is is_true(str(value)) is is_true(str(value).lower()) is value


@pytest.mark.parametrize("value", ["", "yes", "no", "TRUE", " true", "1", 1, 0, None, [True]], ids=repr)
def test_anything_else_is_refused_in_one_line_with_its_name_and_value(value):
    with pytest.raises(InputError) as refused:
        is_true(value, "resume")
    message = str(refused.value)
    assert message.startswith(f"resume is True or False; got {value!r}. Remedy:")
    assert "\n" not in message
