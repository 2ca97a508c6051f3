"""What counts as a test, decided before a program runs."""

from __future__ import annotations

import ast

import pytest

from bilora.sandbox.assertions import constant_truth, entry_points, silent_test
from bilora.sandbox.program_names import (
    defined_names,
    function_under_test,
    module_names,
    names_of_program,
    top_level_names,
)


@pytest.mark.parametrize(
    "tests",
    [
        ("assert (twice(2) == 4, 'twice')",),
        ("assert [twice(2) == 4]",),
        ("assert True",),
        ("assert 'twice works'",),
        ("assert lambda: twice(2) == 4",),
        ("assert (x for x in [twice(2) == 4])",),
        ("assert twice(2) == 4 or True",),
        ("assert not (twice(2) and False)",),
        ("assert twice(2) == twice(2)",),
        ("twice(2) == 4",),
        ("print(twice(2) == 4)",),
        ("print(twice(2))",),
        ("twice(2)",),
        ("# assert twice(2) == 4",),
        ("def helper():\n    assert twice(2) == 4",),
        ("async def helper(f):\n    assert f(2) == 4",),
        ("class Cases:\n    def test_twice(self):\n        assert twice(2) == 4",),
        ("import math", "x = twice(2)"),
        ("def test_twice():\n    print(twice(2) == 4)",),
        ("",),
    ],
    ids=str,
)
def test_a_test_that_asserts_nothing_is_returned(tests: tuple[str, ...]) -> None:
    assert silent_test(tests) == tests[0]


@pytest.mark.parametrize(
    "tests",
    [
        ("assert twice(2) == 4",),
        ("assert twice(2)",),
        ("assert not twice(0), 'nothing'",),
        ("x = twice(2)", "assert x == 4"),
        ("print('testing')", "assert twice(2) == 4"),
        ("for n in range(3):\n    assert twice(n) == 2 * n",),
        ("if __name__ == '__main__':\n    assert twice(2) == 4",),
        ("def check(candidate):\n    assert candidate(2) == 4",),
        ("def check(candidate):\n    assert True\n    assert candidate(2) == 4", "check(twice)"),
        ("def helper(f):\n    assert f(2) == 4", "helper(twice)"),
        ("def test_twice():\n    assert twice(2) == 4",),
        (
            "import unittest",
            "class Cases(unittest.TestCase):\n    def test(self):\n        self.assertEqual(twice(2), 4)",
        ),
        ("try:\n    twice(None)\n    assert False\nexcept TypeError:\n    pass",),
    ],
    ids=str,
)
def test_tests_that_assert_are_accepted(tests: tuple[str, ...]) -> None:
    assert silent_test(tests) is None


def test_of_several_tests_the_silent_one_is_returned() -> None:
    assert silent_test(("assert f(1) == 1", "f(2) == 2")) == "f(2) == 2"


@pytest.mark.parametrize(
    ("expression", "truth"),
    [
        ("1", True),
        ("''", False),
        ("()", False),
        ("(*x,)", None),
        ("{**x}", None),
        ("f'{x}'", None),
        ("f'a{x}'", True),
        ("x and False", False),
        ("x or 1", True),
        ("x and True", None),
        ("1 if x else 2", True),
        ("1 if x else 0", None),
        ("x if True else 1", None),
        ("not ()", True),
        ("(y := 3)", True),
        ("x is x", True),
        ("x != x", None),
        ("x == y", None),
    ],
)
def test_a_constant_truth_value_is_recognised(expression: str, truth: bool | None) -> None:
    assert constant_truth(ast.parse(expression, mode="eval").body) is truth


def test_names_are_those_of_the_module_not_of_its_functions() -> None:
    check = "import math\ndef check(f):\n    y = math.pi\n    assert f(y) == g(x)"
    names = top_level_names([check, "x = [z for z in h]"])
    assert names.binds == {"math", "check", "x"}
    assert names.uses == {"g", "h"}


def test_a_builtin_is_the_program_s_only_if_it_defines_it() -> None:
    used = {"sum", "len", "f"}
    assert names_of_program(used, (), "def f(): ...") == {"f"}
    assert names_of_program(used, (), "def sum(a, b):\n    return a") == {"f", "sum"}
    assert names_of_program(used, {"f"}, "  sum = 1  # indented") == set()


def test_definitions_are_found_in_code_that_does_not_parse() -> None:
    assert defined_names("class A:\nasync def f(:\nx: int = 3\ny == 4\nlen = 5") == ["A", "f", "x", "len"]
    assert (function_under_test("def a(): ...\ndef b(): ..."), function_under_test("x = 1")) == ("b", None)


def test_a_library_module_is_distinguished_from_a_function_of_its_name() -> None:
    tests = ["assert math.isclose(copy(1), 1)", "assert string.digits"]
    assert module_names(tests, {"math", "copy", "string", "f"}) == {"math", "string"}


def test_entry_points_of_a_test_runner_are_recognised() -> None:
    source = (
        "def check(candidate): ...\ndef check2(a): ...\ndef test_a(): ...\nclass T(TestCase): ...\nclass U: ...\n"
        "async def test_b(): ..."
    )
    assert [node.name for node in entry_points(ast.parse(source))] == ["check", "test_a", "T", "test_b"]
