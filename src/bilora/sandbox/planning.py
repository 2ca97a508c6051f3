"""Deciding for each test of a program whether it is split, or run as a whole by the tester."""

from __future__ import annotations

import builtins
from collections.abc import Sequence
from dataclasses import dataclass

from bilora.sandbox import assertions, program_names
from bilora.sandbox.splitting import SplitAssert, split_assert


@dataclass(frozen=True)
class PlannedTest:
    """One test. If it was split, the referee decides it; `counts` is whether it then is an assert about the program."""

    test: str
    split: SplitAssert | None = None
    counts: bool = False


@dataclass(frozen=True)
class TestPlan:
    """All tests of a program, and what the tester needs to run those that are not split."""

    tests: tuple[PlannedTest, ...]
    names: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()
    called: tuple[str, ...] = ()
    candidate: str = ""


def plan_tests(code: str, setup: str, tests: Sequence[str]) -> TestPlan:
    """Decide how each test is run.

    A test is split only if the expression that the program computes uses no name that the tests themselves bind,
    for the program's process does not have those, and no builtin that the program replaces.
    """
    splits = [split_assert(test) for test in tests]
    whole = [test for test, split in zip(tests, splits, strict=True) if split is None]
    bound = program_names.names(whole).binds if whole else frozenset()
    defined = set(program_names.defined_names(code))
    shadowed = {name for name in defined if hasattr(builtins, name)}
    if program_names.CANDIDATE_NAME not in defined:
        bound |= {program_names.CANDIDATE_NAME}  # only the tester binds it
    prepared = program_names.names([setup]).binds if setup.strip() else frozenset()
    planned = []
    for test, split in zip(tests, splits, strict=True):
        if split and not split.names & bound and (split.names <= shadowed or not split.names & shadowed):
            counts = bool(program_names.of_the_program(split.names, prepared, code))
            if counts or not split.names & prepared:
                planned.append(PlannedTest(test, split, counts))
                continue
        planned.append(PlannedTest(test))  # also one that calls only a helper of the setup, which may call the program
    if all(test.split for test in planned):
        return TestPlan(tuple(planned))
    sources = [setup, *tests]
    everything = program_names.names(sources)
    trees = [tree for source in tests if (tree := assertions.parsed(source))]
    called = assertions.called(trees)
    uses = set(everything.uses)
    if assertions.CHECK_FUNCTION in everything.binds - called:
        uses.add(program_names.CANDIDATE_NAME)
    names = program_names.of_the_program(uses, everything.binds, code)
    modules = program_names.used_as_modules(sources, names)
    return TestPlan(
        tuple(planned),
        tuple(sorted(names - modules)),
        tuple(sorted(modules)),
        tuple(sorted(called)),
        program_names.only_function(code) or "",
    )
