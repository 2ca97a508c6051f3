"""Decide for each test of a program whether it is split or runs as a whole in the tester."""

from __future__ import annotations

import builtins
from collections.abc import Sequence
from dataclasses import dataclass

from bilora.sandbox import assertions, program_names
from bilora.sandbox.splitting import SplitAssert, split_assert


@dataclass(frozen=True)
class PlannedTest:
    """One test. The referee decides a split test; `counts` says whether that is an assert about the program."""

    test: str
    split: SplitAssert | None = None
    counts: bool = False


@dataclass(frozen=True)
class TestPlan:
    """All tests of a program, and what the tester needs for those that are not split."""

    tests: tuple[PlannedTest, ...]
    names: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()
    called: tuple[str, ...] = ()
    candidate: str = ""


def plan_tests(code: str, setup: str, tests: Sequence[str]) -> TestPlan:
    """Return how each test is run.

    A test is split only if the expression that the program computes uses neither a name that the tests bind, which
    the program's process does not have, nor a builtin that the program redefines.
    """
    # 1) collect the names that tests, setup and program bind
    splits = [split_assert(test) for test in tests]
    whole = [test for test, split in zip(tests, splits, strict=True) if split is None]
    bound = program_names.top_level_names(whole).binds if whole else frozenset()
    defined = set(program_names.defined_names(code))
    shadowed = {name for name in defined if hasattr(builtins, name)}
    if program_names.CANDIDATE_NAME not in defined:
        bound |= {program_names.CANDIDATE_NAME}  # only the tester binds it
    setup_names = program_names.top_level_names([setup]).binds if setup.strip() else frozenset()
    # 2) split what can be split
    planned = []
    for test, split in zip(tests, splits, strict=True):
        if split and not split.names & bound and (split.names <= shadowed or not split.names & shadowed):
            counts = bool(program_names.names_of_program(split.names, setup_names, code))
            if counts or not split.names & setup_names:
                planned.append(PlannedTest(test, split, counts))
                continue
        planned.append(PlannedTest(test))  # also a test that calls only a setup helper, which may call the program
    if all(test.split for test in planned):
        return TestPlan(tuple(planned))
    # 3) find the names of the program that the tester needs
    sources = [setup, *tests]
    all_names = program_names.top_level_names(sources)
    trees = [tree for source in tests if (tree := assertions.parse_or_none(source))]
    called = assertions.called_names(trees)
    uses = set(all_names.uses)
    if assertions.CHECK_FUNCTION in all_names.binds - called:
        uses.add(program_names.CANDIDATE_NAME)
    names = program_names.names_of_program(uses, all_names.binds, code)
    modules = program_names.module_names(sources, names)
    return TestPlan(
        tuple(planned),
        tuple(sorted(names - modules)),
        tuple(sorted(modules)),
        tuple(sorted(called)),
        program_names.function_under_test(code) or "",
    )
