from __future__ import annotations

import ast

import pytest

from bilora.python_code.candidate import candidate_name, replace_candidate

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
def test_candidate_is_replaced_and_check_is_called(tests: tuple[str, ...], expected: tuple[str, ...]) -> None:
    assert replace_candidate(tests, "f") == expected


CODE = "def helper(x): pass\ndef g(x): pass\nX = 1\ndef f(x): return g(x)\nY = 2"


@pytest.mark.parametrize(
    ("code", "tests", "name"),
    [
        (CODE, (CHECK,), "f"),
        (CODE, (CHECK, "check(g)"), "g"),
        (CODE, (CHECK.replace("2", "helper(2)") + "\ncheck(g)",), "g"),
        (CODE, (CHECK.replace("2", "helper(2)"),), "f"),
        (CODE, ("assert candidate(1) == helper(2)",), "f"),
        (CODE, ("assert g(1) == 2", CHECK), "g"),
        (CODE, ("assert other(1) == 2",), ""),
        ("f = lambda x: 1", (CHECK,), "f"),
        ("class A: pass", (CHECK,), ""),
        ("class A: pass", ("assert A()",), "A"),
        ("", ("assert f(1)",), ""),
    ],
)
def test_the_tests_name_the_function_under_test_or_it_is_the_last(code: str, tests: tuple[str, ...], name: str) -> None:
    assert candidate_name(ast.parse(code), tests) == name
