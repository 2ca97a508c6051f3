"""The asserts in a question that test the requested function."""

from __future__ import annotations

import pytest

from bilora.app.asserts import typed_asserts
from bilora.tasks.codegen import TASK

ONE = ("assert f(1) == 2",)


@pytest.mark.parametrize(
    ("question", "found"),
    [
        (TASK.example, ("assert sum_even([1, 2, 4]) == 6",)),
        ("Add one.\nassert f(1) == 2", ONE),
        ("Add one.\r\n    assert f(1) == 2\r\n", ONE),
        ("Add one, so that `assert f(1) == 2` holds.", ONE),
        ("Add one:\n- assert f(1) == 2\n* assert f(2) == 3", (*ONE, "assert f(2) == 3")),
        ("Add one.\n>>> assert f(1) == 2.\n", ("assert f(1) == 2.0",)),
        ("Add one.\nassert f(1) == 2;", ONE),
        ("Add one.\nassert f(1) == [2].", ("assert f(1) == [2]",)),
        ("assert f(1) == 2; assert f(2) == 3", (*ONE, "assert f(2) == 3")),
        ("assert f(\n    1,\n) == 2\nassert f(1) == 2", ONE),
        ("Signature: def f(x):\nMust pass: assert abs(f(1) - 2) < 0.1", ("assert abs(f(1) - 2) < 0.1",)),
        ("Signature: def f(x):\nassert list(map(f, [1])) == [2]", ("assert list(map(f, [1])) == [2]",)),
        ("Signature: def f(x):\nGiven:\ndef g(y):\n    assert y > 0\n    return y", ()),
        ("Write f. It should assert that x is positive.", ()),
        ("Write a function named f that asserts its argument.", ()),
        ("assert", ()),
        ("assert 1 == 1", ()),
        ("", ()),
    ],
)
def test_asserts_about_the_requested_function_are_found(question: str, found: tuple[str, ...]) -> None:
    assert typed_asserts(question) == found


def test_a_question_with_many_asserts_is_parsed_quickly() -> None:
    assert typed_asserts("assert (" * 2500) == ()
