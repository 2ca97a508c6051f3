"""Tests of any form that run outside the program's process: right programs pass, wrong and forging ones fail."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from bilora.records import Outcome, Program
from bilora.sandbox import ProcessSandbox


@pytest.fixture(scope="module")
def sandbox() -> Iterator[ProcessSandbox]:
    with ProcessSandbox(workers=2, cpu_s=2, wall_s=20, memory_mb=512) as running:
        yield running


@dataclass(frozen=True)
class Case:
    """A right and a wrong program, and tests that distinguish them, with the number of `asserts` that count."""

    right: str
    wrong: str
    tests: tuple[str, ...]
    asserts: int
    setup: str = ""


DOUBLE, HALVE = "def f(x):\n    return 2 * x", "def f(x):\n    return x / 2"
STACK = """
class Stack:
    def __init__(self):
        self.items = []
    def push(self, item):
        self.items.append(item)
        return self
    def __len__(self):
        return len(self.items)
    def __iter__(self):
        return iter(self.items)
"""
CASES = {
    "a comparison of another kind": Case(DOUBLE, HALVE, ("assert f(3) > 5", "assert 5 < f(3) < 7"), 2),
    "a truth": Case(
        "def f(x):\n    return x > 1", "def f(x):\n    return x < 1", ("assert f(3)", "assert not f(1)"), 2
    ),
    "membership": Case(DOUBLE, HALVE, ("assert f(2) in (4, 5)", "assert f(2) not in [1]"), 2),
    "a tolerance": Case("def f(x):\n    return x / 3", HALVE, ("assert abs(f(1) - 0.3333) < 1e-3",), 1),
    "a tolerance of a module": Case(
        "def f(x):\n    return x / 3", HALVE, ("import math", "assert math.isclose(f(1), 1 / 3)"), 1
    ),
    "a variable": Case(DOUBLE, HALVE, ("x = f(4)", "y = [x, 1]", "assert y == [8, 1]", "assert x == 8"), 2),
    "check, called": Case(DOUBLE, HALVE, ("def check(g):\n    assert g(1) == 2\n    assert True\n\ncheck(f)",), 1),
    "check, called in another test": Case(DOUBLE, HALVE, ("def check(g):\n    assert g(1) == 2", "check(f)"), 1),
    "check, not called": Case(DOUBLE, HALVE, ("def check(candidate):\n    assert candidate(1) == 2",), 1),
    "the name candidate": Case(DOUBLE, HALVE, ("assert candidate(1) == 2",), 1),
    "a loop": Case(DOUBLE, HALVE, ("for n in range(4):\n    assert f(n + 1) == 2 * n + 2",), 4),
    "a test function": Case(DOUBLE, HALVE, ("def test_f():\n    assert f(1) == 2",), 1),
    "an async test function": Case(DOUBLE, HALVE, ("async def test_f():\n    assert f(1) == 2",), 1),
    "a main guard": Case(DOUBLE, HALVE, ("if __name__ == '__main__':\n    assert f(1) == 2",), 1),
    "unittest": Case(
        DOUBLE,
        HALVE,
        (
            "import unittest\nclass Cases(unittest.TestCase):\n    def setUp(self):\n        self.x = f(1)\n"
            "    def test_one(self):\n        self.assertEqual(self.x, 2)\n"
            "    def test_two(self):\n        self.assertAlmostEqual(f(1.5), 3.0)\n"
            "if __name__ == '__main__':\n    unittest.main()",
        ),
        2,
    ),
    "an exception in unittest": Case(
        "def f(x):\n    raise KeyError(x)",
        DOUBLE,
        (
            "from unittest import TestCase\nclass Cases(TestCase):\n    def test(self):\n"
            "        with self.assertRaises(KeyError):\n            f(1)",
        ),
        1,
    ),
    "an exception": Case(
        "def f(x):\n    raise ValueError('no')",
        DOUBLE,
        ("try:\n    f(1)\nexcept ValueError as error:\n    assert str(error) == 'no'\nelse:\n    assert False",),
        2,
    ),
    "an exception of the program's own": Case(
        "class Bad(ValueError):\n    pass\ndef f(x):\n    raise Bad(x)",
        "class Bad(ValueError):\n    pass\ndef f(x):\n    raise ValueError(x)",
        ("try:\n    f(1)\n    raise AssertionError\nexcept Bad:\n    pass",),
        1,
    ),
    "change in place": Case(
        "def f(xs):\n    xs.sort()",
        "def f(xs):\n    xs.reverse()",
        ("xs = [2, 3, 1]", "f(xs)", "assert xs == [1, 2, 3]"),
        1,
    ),
    "change deep in place": Case(
        "def f(grid):\n    grid[0].append(9)",
        "def f(grid):\n    grid.append([9])",
        ("row = [1]", "grid = [row, [2]]", "f(grid)", "assert row == [1, 9] and len(grid) == 2"),
        1,
    ),
    "change of a dictionary and a set": Case(
        "def f(d, s):\n    d.pop('a')\n    s.add(3)",
        "def f(d, s):\n    pass",
        ("d, s = {'a': 1, 'b': 2}, {1}", "f(d, s=s)", "assert (d, s) == ({'b': 2}, {1, 3})"),
        1,
    ),
    "a function of the test": Case(
        "def f(g, xs):\n    return [g(x) for x in xs if x]",
        "def f(g, xs):\n    return list(xs)",
        ("k = 10", "assert f(lambda x: x + k, [1, 0, 2]) == [11, 12]"),
        1,
    ),
    "a function of the test that asks again": Case(
        "def f(g, n):\n    return n and n + g(n - 1)",
        "def f(g, n):\n    return n",
        ("def again(n):\n    return f(again, n)", "assert again(4) == 10"),
        1,
    ),
    "an object": Case(
        STACK,
        STACK.replace("append(item)", "insert(0, item)"),
        (
            "s = Stack()",
            "s.push(1).push(2)",
            "assert len(s) == 2",
            "assert list(s) == [1, 2]",
            "assert s.items[0] == 1",
        ),
        3,
    ),
    "attributes that are set": Case(
        "class P:\n    @property\n    def y(self):\n        return self.x + 1",
        "class P:\n    y = 3",
        ("p = P()", "p.x = 5", "assert p.y == 6"),
        1,
    ),
    "a generator": Case(
        "def f(n):\n    yield from range(n)",
        "def f(n):\n    yield n",
        ("g = f(3)", "assert next(g) == 0", "assert list(g) == [1, 2]", "assert sum(f(4)) == 6"),
        3,
    ),
    "a coroutine": Case(
        "import asyncio\nasync def f(x):\n    await asyncio.sleep(0.001)\n    return x",
        "async def f(x):\n    return None",
        ("import asyncio", "assert asyncio.run(f(3)) == 3", "async def test_f():\n    assert await f(4) == 4"),
        2,
    ),
    "a function that is returned": Case(
        "def f(n):\n    return lambda x: x + n",
        "def f(n):\n    return lambda x: n",
        ("add = f(2)", "assert add(3) == 5"),
        1,
    ),
    "a named tuple": Case(
        "from collections import namedtuple\nP = namedtuple('P', 'x y')\ndef f():\n    return P(1, 2)",
        "from collections import namedtuple\nP = namedtuple('P', 'y x')\ndef f():\n    return P(1, 2)",
        ("p = f()", "assert p.x == 1", "assert p == (1, 2)"),
        2,
    ),
    "a variable of the program": Case(
        "count = 0\ndef f():\n    global count\n    count += 1",
        "count = 0\ndef f():\n    pass",
        ("f()", "f()", "assert count == 2", "assert count > 1"),
        2,
    ),
    "a helper in the setup": Case(
        "def f(xs):\n    return sorted(xs)",
        "def f(xs):\n    return list(xs)",
        ("assert ordered(f([3, 1, 2]))",),
        1,
        setup="def ordered(xs):\n    return all(a <= b for a, b in zip(xs, xs[1:]))",
    ),
    "an object built in the setup": Case(
        "class Node:\n    def __init__(self, v):\n        self.v, self.next = v, None\n"
        "def total(n):\n    return n.v + total(n.next) if n else 0",
        "class Node:\n    def __init__(self, v):\n        self.v, self.next = v, None\ndef total(n):\n    return n.v",
        ("assert total(head) in (3,)",),
        1,
        setup="head = Node(1)\nhead.next = Node(2)",
    ),
    "a helper of the tests": Case(DOUBLE, HALVE, ("def same(a, b):\n    return a == b", "assert same(f(2), 4)"), 1),
    "two answers that must agree": Case(
        "def f(x):\n    return -x",
        "def f(x):\n    return x + 1",
        ("assert f(f(3)) == 3", "assert f(1) + f(2) == f(3)"),
        2,
    ),
    "a builtin's name": Case(
        "def sum(a, b):\n    return a - b", "def sum(a, b):\n    return a", ("assert sum(5, 3) in [2]",), 1
    ),
}


@pytest.fixture(scope="module")
def outcomes(sandbox: ProcessSandbox) -> dict[str, tuple[Outcome, Outcome]]:
    programs = [
        Program(code=code, setup=case.setup, tests=case.tests)
        for case in CASES.values()
        for code in (case.right, case.wrong)
    ]
    ran = list(sandbox.run_many(programs))
    return dict(zip(CASES, zip(ran[::2], ran[1::2], strict=True), strict=True))


@pytest.mark.parametrize("name", CASES)
def test_a_right_program_passes_and_every_assert_is_decided_outside(
    outcomes: dict[str, tuple[Outcome, Outcome]], name: str
) -> None:
    right, _ = outcomes[name]
    assert (right.status, right.detail) == ("passed", "")
    assert right.asserts == right.outside == CASES[name].asserts


@pytest.mark.parametrize("name", CASES)
def test_a_wrong_program_fails(outcomes: dict[str, tuple[Outcome, Outcome]], name: str) -> None:
    _, wrong = outcomes[name]
    assert wrong.status == "failed" and wrong.detail


UNPROVEN = {
    "objects that compare themselves": (
        "class P:\n    def __init__(self, x):\n        self.x = x\n"
        "    def __eq__(self, other):\n        return self.x == other.x",
        ("assert P(1) == P(1.0)",),
    ),
    "an object that is compared with a number": (
        "class N:\n    def __lt__(self, other):\n        return True\ndef f():\n    return N()",
        ("assert f() < 3",),
    ),
    "an object that is calculated with": (
        "class N:\n    def __sub__(self, other):\n        return 0\ndef f():\n    return N()",
        ("assert abs(f() - 2.5) < 1e-6",),
    ),
    "an object that contains": (
        "class N:\n    def __contains__(self, item):\n        return True\ndef f():\n    return N()",
        ("assert 3 in f()",),
    ),
    "a class of the program": ("class A: pass\ndef f():\n    return A()", ("assert isinstance(f(), A)",)),
    "identity": ("def f(xs):\n    return xs", ("xs = [1]", "assert f(xs) is xs")),
    "a class of the test that extends one of the program": (
        "class A:\n    def f(self):\n        return self.g() + 1",
        ("class B(A):\n    def g(self):\n        return 1", "assert B().f() == 2"),
    ),
    "an object of the test": (
        "def f(p):\n    return p.x + 1",
        ("class P:\n    x = 1", "assert f(P()) == 2"),
    ),
    "check with an object of the test": (
        "def f(p):\n    return p.x + 1",
        ("class P:\n    x = 1", "def check(candidate):\n    assert candidate(P()) == 2"),
    ),
}


@pytest.mark.parametrize("name", UNPROVEN)
def test_an_assert_that_only_the_program_can_decide_passes_in_process(sandbox: ProcessSandbox, name: str) -> None:
    code, tests = UNPROVEN[name]
    outcome = sandbox.run(Program(code=code, tests=tests))
    assert outcome.status == "passed-in-process" and outcome.outside < outcome.asserts, outcome


FORGERIES = {
    "replaced exec": "import builtins\nbuiltins.exec = lambda *_: None\ndef f(x):\n    return 0",
    "replaced compile": "import builtins\nbuiltins.compile = lambda *_, **__: '0'\ndef f(x):\n    return 0",
    "swallowed AssertionError": (
        "import builtins\nclass Quiet(Exception):\n    pass\nbuiltins.AssertionError = Quiet\ndef f(x):\n    return 0"
    ),
    "frames": (
        "import sys\ndef f(x):\n    frame = sys._getframe()\n    while frame:\n"
        "        for name, value in frame.f_locals.items():\n"
        "            if 'expected' in name:\n                return value\n        frame = frame.f_back\n    return 0"
    ),
    "tests in memory": (
        "import gc\ndef f(x):\n    for one in gc.get_objects():\n"
        "        if isinstance(one, str) and 'assert' in one and '4242' in one:\n"
        "            return 4242\n    return 0"
    ),
    "a replaced operator": (
        "import operator\noperator.eq = operator.gt = lambda a, b: True\nclass A:\n    pass\ndef f(x):\n    return A()"
    ),
    "helpers that agree": "def abs(x):\n    return 0\ndef len(x):\n    return 1\ndef f(x):\n    return 'x'",
    "a module that agrees": (
        "class math:\n    @staticmethod\n    def isclose(*_, **__):\n        return True\ndef f(x):\n    return 0"
    ),
    "claims of success": (
        'import json, os\nfor text in (\'{"done": {"passed": true}}\', \'{"value": true}\'):\n'
        "    data = text.encode()\n"
        "    os.write(3, len(data).to_bytes(4, 'big') + data)\ndef f(x):\n    return 0"
    ),
    "a call back that does not end": (
        "import sys\nreal = sys.modules['bilora.sandbox.candidate']\n"
        "def f(x):\n    import gc\n    for one in gc.get_objects():\n        if type(one).__name__ == '_Candidate':\n"
        "            one._channel.send({'id': one._id, 'callback': [0, []]})\n    return 0"
    ),
}
FORMS = {
    "an assert": ("expected_value = 4242", "assert f(2) == expected_value"),
    "check": (
        "def check(candidate):\n    expected_value = 4242\n    assert candidate(2) == expected_value",
        "check(f)",
    ),
    "a tolerance": ("import math", "assert math.isclose(f(2), 4242)", "assert abs(f(2) - 4242) < 1e-3"),
    "unittest": (
        "import unittest\nclass Cases(unittest.TestCase):\n    def test(self):\n        self.assertEqual(f(2), 4242)",
    ),
    "an expectation of a failure": ("try:\n    f(2)\n    assert False\nexcept ZeroDivisionError:\n    pass",),
    "a swallowed failure": ("try:\n    assert f(2) == 4242\nexcept Exception:\n    pass",),
}


@pytest.mark.parametrize("form", FORMS)
def test_no_forgery_passes(sandbox: ProcessSandbox, form: str) -> None:
    programs = [Program(code=code, tests=FORMS[form]) for code in FORGERIES.values()]
    statuses = {name: outcome.status for name, outcome in zip(FORGERIES, sandbox.run_many(programs), strict=True)}
    assert not {name: status for name, status in statuses.items() if status.startswith("passed")}


def test_the_expected_values_of_a_test_never_reach_the_program(sandbox: ProcessSandbox) -> None:
    code = (
        "import gc\nseen = []\ndef f(x):\n    return x\ndef g():\n"
        "    return any(one == 'expected secret' for one in gc.get_objects() if type(one) is str) or any(\n"
        "        'expected secret' in one.values() for one in gc.get_objects() if type(one) is dict)"
    )
    tests = ("want = 'expected secret'", "assert f('secret')[0] in want", "assert g() is False and want")
    assert sandbox.run(Program(code=code, tests=tests)).status == "passed"


def test_the_detail_of_a_failure_names_the_assert_and_the_value(sandbox: ProcessSandbox) -> None:
    tests = ("def check(candidate):\n    assert candidate(1) == 2\n    assert candidate(3) == 7", "check(f)")
    assert (
        sandbox.run(Program(code=DOUBLE, tests=tests)).detail
        == "test 2: check(f) assert candidate(3) == 7 gave 6, not 7"
    )


def test_only_the_executed_asserts_of_a_failing_test_are_counted(sandbox: ProcessSandbox) -> None:
    tests = ("for n in (1, 2, 3):\n    assert f(n) < 3",)
    outcome = sandbox.run(Program(code=DOUBLE, tests=tests))
    assert (outcome.status, outcome.asserts, outcome.results) == ("failed", 2, (False,))


@pytest.mark.parametrize(
    ("tests", "status"),
    [
        (("while True:\n    pass\nassert f(1) == 2",), "timeout"),
        (("import os\nos._exit(0)\nassert f(1) == 2",), "crashed"),
        (("open('/etc/passwd')\nassert f(1) == 2",), "denied"),
        (("import pandas\nassert f(1) == 2",), "missing-module"),
        (("assert f(", "assert f(1) == 2"), "failed"),
        (("assert g(1) == 2",), "failed"),
        (("raise SystemExit",), "failed"),
        (("x = [0] * 10**9\nassert f(1) == 2",), "failed"),
    ],
    ids=str,
)
def test_a_broken_test_does_not_pass_and_does_not_affect_the_next_program(
    sandbox: ProcessSandbox, tests: tuple[str, ...], status: str
) -> None:
    broken, after = sandbox.run_many(
        [Program(code=DOUBLE, tests=tests), Program(code=DOUBLE, tests=("assert f(2) in [4]",))]
    )
    assert (broken.status, after.status) == (status, "passed")
