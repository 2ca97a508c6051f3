"""The page's sentence about an answer that was run with its question's asserts."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from bilora.app.assert_runs import AssertResult, AssertRunner, assert_result
from bilora.errors import WeakSandbox
from bilora.records import Outcome, Program
from bilora.sandbox import ProcessSandbox

TESTS = ("assert f(1) == 2", "assert f(2) == 3")


@pytest.fixture(scope="module")
def runner() -> Iterator[AssertRunner]:
    with ProcessSandbox(workers=1, cpu_s=1, wall_s=4) as sandbox:
        yield AssertRunner(sandbox.run)


@pytest.mark.parametrize(
    ("code", "verdict", "message"),
    [
        ("def f(x):\n    return x + 1", "passes", "Passes your 2 asserts."),
        ("def f(x):\n    return 2", "fails", "Passes only 1 of your 2 asserts: test 2: assert f(2) == 3 gave 2, not 3"),
        ("def f(x):\n    return x", "fails", "Fails your 2 asserts: test 1: assert f(1) == 2 gave 1, not 2"),
        ("def f(x):\n    return y", "fails", "NameError: name 'y' is not defined"),
        ("def f(x)\n    return x", "fails", "SyntaxError"),
        ("def g(x):\n    return x", "fails", "name 'f' is not defined"),
        ("def f(x):\n    while True: pass", "fails", "Timed out with your 2 asserts"),
        ("import os\ndef f(x):\n    return open('/etc/passwd').read()", "fails", "Error"),
        ("import numpy\ndef f(x):\n    return x + 1", "unknown", "no module numpy"),
    ],
)
def test_a_program_is_run_in_the_sandbox_and_the_result_is_a_sentence(
    runner: AssertRunner, code: str, verdict: str, message: str
) -> None:
    result = runner.start(code, TESTS).result(timeout=30)
    assert result.verdict == verdict and message in result.sentence


def test_start_returns_at_once(runner: AssertRunner) -> None:
    began = time.monotonic()
    run = runner.start("def f(x):\n    while True: pass", TESTS)
    assert time.monotonic() - began < 0.5 and not run.done()
    assert run.result(timeout=30).verdict == "fails"


@pytest.mark.parametrize(
    ("outcome", "result"),
    [
        (
            Outcome(status="passed-in-process", results=(True,)),
            AssertResult("passes", "Passes your assert, but the answer's own process could influence the result."),
        ),
        (
            Outcome(status="untested", results=(True,)),
            AssertResult("unknown", "The answer defines no function that your assert would call."),
        ),
        (
            Outcome(status="infrastructure", results=(None,), detail="it died"),
            AssertResult("unknown", "The sandbox failed, so your assert decided nothing: it died"),
        ),
        (
            Outcome(status="crashed", results=(False,), detail="first\nlast line"),
            AssertResult("fails", "Fails your assert: last line"),
        ),
    ],
    ids=lambda value: value.status if isinstance(value, Outcome) else "",
)
def test_an_undecided_run_is_not_a_failure(outcome: Outcome, result: AssertResult) -> None:
    assert assert_result(outcome) == result


def test_a_machine_that_cannot_confine_the_answer_does_not_run_it() -> None:
    def run(program: Program) -> Outcome:
        raise WeakSandbox("This machine cannot confine it.")

    result = AssertRunner(run).start("def f(x): return x", TESTS[:1]).result(timeout=30)
    assert result == AssertResult("unknown", "The answer was not run with your assert: This machine cannot confine it.")


def test_an_unexpected_error_is_raised_by_the_result() -> None:
    def run(program: Program) -> Outcome:
        raise ValueError("a fault")

    with pytest.raises(ValueError, match="a fault"):
        AssertRunner(run).start("def f(x): return x", TESTS).result(timeout=30)
