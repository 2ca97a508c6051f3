from __future__ import annotations

import ast

import pytest

from bilora.python_code.candidate import calls_candidate, candidate_name, named_tests

CHECK = "def check(candidate):\n    assert candidate(1) == 2"


@pytest.mark.parametrize(
    ("tests", "expected"),
    [
        ((CHECK,), (CHECK, "check(f)")),
        ((CHECK, "check(f)"), (CHECK, "check(f)")),
        ((CHECK + "\n\ncheck(f)",), (CHECK + "\n\ncheck(f)",)),
        ((CHECK + "\ndef test():\n    check(f)",), (CHECK + "\ndef test():\n    check(f)", "check(f)")),
        (("async def check(x):\n    assert x",), ("async def check(x):\n    assert x", "check(f)")),
        (("def check():\n    assert f(1)",), ("def check():\n    assert f(1)",)),
        (("assert candidate([1]) == candidate( 2 )",), ("assert f([1]) == f( 2 )",)),
        (("assert candidate('é') == 'candidate(é)'",), ("assert f('é') == 'candidate(é)'",)),
        (("for x in (1,\n 2):\n    assert candidate(x)",), ("for x in (1,\n 2):\n    assert f(x)",)),
        (("assert (",), ("assert (",)),
    ],
)
def test_the_candidate_gets_its_name_and_check_its_call(tests: tuple[str, ...], expected: tuple[str, ...]) -> None:
    assert named_tests(tests, "f") == expected


@pytest.mark.parametrize(
    ("test", "open_"),
    [(CHECK, True), (CHECK + "\ncheck(f)", False), ("assert candidate(1)", True), ("assert f(1)", False)],
)
def test_only_tests_without_a_name_leave_it_open(test: str, open_: bool) -> None:
    assert calls_candidate([test]) is open_


@pytest.mark.parametrize(
    ("code", "name"),
    [("def g(): pass\nX = 1\ndef f(): pass\nY = 2", "f"), ("f = lambda: 1", "f"), ("class A: pass", ""), ("", "")],
)
def test_the_last_function_is_meant(code: str, name: str) -> None:
    assert candidate_name(ast.parse(code)) == name
