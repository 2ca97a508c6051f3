"""The sandbox on MBPP: every reference passes, and functions that do nothing fail."""

from __future__ import annotations

import ast
import json
import warnings

import pytest
from support.shared_data import shared_file

from bilora.records import Outcome, Program
from bilora.sandbox import ProcessSandbox
from bilora.sandbox.splitting import split_assert


@pytest.fixture(scope="module")
def programs() -> list[Program]:
    rows = [json.loads(line) for line in shared_file("mbpp/mbpp.jsonl").read_text(encoding="utf-8").splitlines()]
    return [Program(code=row["code"], setup=row["test_setup_code"], tests=tuple(row["test_list"])) for row in rows]


class Emptied(ast.NodeTransformer):
    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        node.body = [ast.Pass()]
        return node


def emptied_code(code: str) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # references have "\\w" in strings that are not raw
        return ast.unparse(Emptied().visit(ast.parse(code)))


@pytest.fixture(scope="module")
def outcomes(programs: list[Program]) -> list[Outcome]:
    with ProcessSandbox(workers=2, cpu_s=30, wall_s=120) as sandbox:
        return list(sandbox.run_many(programs))


def test_every_reference_passes(outcomes: list[Outcome]) -> None:
    assert len(outcomes) == 974 and [outcome for outcome in outcomes if outcome.status != "passed"] == []


def test_the_official_test_split_passes(outcomes: list[Outcome]) -> None:
    assert [outcome.status for outcome in outcomes[10:510]] == ["passed"] * 500


def test_the_sanitized_references_pass() -> None:
    rows = json.loads(shared_file("mbpp/sanitized-mbpp.json").read_text(encoding="utf-8"))
    programs = [
        Program(code="\n".join([*row["test_imports"], row["code"]]), tests=tuple(row["test_list"])) for row in rows
    ]
    with ProcessSandbox(workers=2, cpu_s=30, wall_s=120) as sandbox:
        assert [outcome.status for outcome in sandbox.run_many(programs)] == ["passed"] * 427


def test_every_assert_is_decided_outside_including_those_that_are_not_split(
    programs: list[Program], outcomes: list[Outcome]
) -> None:
    asserts = [test for program in programs for test in program.tests]
    whole = [test for test in asserts if split_assert(test) is None]
    assert (len(asserts), len(whole)) == (2922, 3) and all("getsizeof" in test for test in whole)
    assert all(
        (outcome.asserts, outcome.outside) == (len(outcome.results), len(outcome.results)) for outcome in outcomes
    )


def constant_code(program: Program) -> str | None:
    """Return a program whose function always returns what the first test expects."""
    try:
        (comparison,) = [ast.parse(program.tests[0]).body[0].test]  # type: ignore[attr-defined]
        name, value = comparison.left.func.id, ast.unparse(comparison.comparators[0])
    except AttributeError:
        return None
    if f"def {name}(" not in program.code:
        return None
    return f"def {name}(*arguments):\n    return {value}"


def test_one_constant_answer_fails(programs: list[Program]) -> None:
    varied = [program for program in programs[::5] if len({test.rpartition("==")[2] for test in program.tests}) > 1]
    constant = [
        program.model_copy(update={"code": code}) for program in varied if (code := constant_code(program)) is not None
    ]
    with ProcessSandbox(workers=2) as sandbox:
        outcomes = list(sandbox.run_many(constant))
    assert len(outcomes) >= 100 and {outcome.status for outcome in outcomes} == {"failed"}
    first = sum(outcome.results[0] is True for outcome in outcomes)
    assert first > 0.9 * len(outcomes), "they give what their first test wants"


def test_functions_that_do_nothing_fail(programs: list[Program]) -> None:
    emptied = [
        program.model_copy(update={"code": emptied_code(program.code)})
        for program in programs[3::10][:100]
        if "is None" not in str(program.tests) and "== None" not in str(program.tests)
    ]
    with ProcessSandbox(workers=2) as sandbox:
        statuses = [outcome.status for outcome in sandbox.run_many(emptied)]
    assert len(statuses) >= 95
    assert set(statuses) == {"failed"}
