"""Which asserts are split, and where."""

from __future__ import annotations

import pytest

from bilora.sandbox.splitting import split_assert


@pytest.mark.parametrize(
    ("test", "expression", "expected"),
    [
        ("assert f(1) == 2", "f(1)", 2),
        ("assert 2 == f(1)", "f(1)", 2),
        ("assert f(1) == -2.5, 'message'", "f(1)", -2.5),
        ("assert set(f(1)) == set([1, 2])", "set(f(1))", {1, 2}),
        ("assert f() == sorted((3, 1))", "f()", [1, 3]),
        ("assert f() == {'a': (1, None)}", "f()", {"a": (1, None)}),
        ("assert f() is None", "f()", None),
        ("  assert f() is True\n", "f()", True),
    ],
)
def test_the_literal_side_is_not_sent(test: str, expression: str, expected: object) -> None:
    part = split_assert(test)
    assert part is not None
    assert (part.expression, part.expected) == (expression, expected)


@pytest.mark.parametrize(
    "test",
    [
        "assert f(1)",
        "assert f(1) != 2",
        "assert f(1) == g(2)",
        "assert f(1) == answer",
        "assert f(1) == 2 == 2",
        "assert f(1) is 2",
        "assert f(1) == sorted",
        "assert f(1) == [x for x in (1, 2)]",
        "assert f(1) == 'a'.upper()",
        "assert f(1) == (2).real",
        "assert f(1) == (lambda: 2)",
        "assert f(1) == int('x')",
        "assert f(1) == 2; assert f(2) == 3",
        "x = 1",
        "assert (",
    ],
)
def test_other_forms_are_not_split(test: str) -> None:
    assert split_assert(test) is None


def test_equality_and_identity_are_distinguished() -> None:
    equal, same = split_assert("assert f() == True"), split_assert("assert f() is True")
    assert equal is not None and same is not None
    assert equal.check(1, equal.expected)
    assert not same.check(1, same.expected)
