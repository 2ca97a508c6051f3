"""How each test of a program is decided: cut in two here, or run as a whole by the tester."""

from __future__ import annotations

import builtins
from collections.abc import Sequence
from dataclasses import dataclass

from bilora.sandbox import assertions, program_names
from bilora.sandbox.splitting import Split, split


@dataclass(frozen=True)
class Step:
    """One test. With `part` the referee decides it by itself; `counts` is whether that says anything."""

    test: str
    part: Split | None = None
    counts: bool = False


@dataclass(frozen=True)
class Plan:
    """All tests of a program, and what the tester has to know to run those that are not cut."""

    steps: tuple[Step, ...]
    names: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()
    called: tuple[str, ...] = ()
    candidate: str = ""


def plan(code: str, setup: str, tests: Sequence[str]) -> Plan:
    """Decide how each test is tried.

    A test is cut only if the part that the program computes uses no name that the tests themselves bind, for
    the program's process does not have those, and no builtin that the program replaces.
    """
    parts = [split(test) for test in tests]
    whole = [test for test, part in zip(tests, parts, strict=True) if part is None]
    bound = program_names.names(whole).binds if whole else frozenset()
    defined = set(program_names.defined_names(code))
    shadowed = {name for name in defined if hasattr(builtins, name)}
    if program_names.CANDIDATE not in defined:
        bound |= {program_names.CANDIDATE}  # the tester knows which function is meant
    prepared = program_names.names([setup]).binds if setup.strip() else frozenset()
    steps = []
    for test, part in zip(tests, parts, strict=True):
        if part and not part.names & bound and (part.names <= shadowed or not part.names & shadowed):
            counts = bool(program_names.of_the_program(part.names, prepared, code))
            if counts or not part.names & prepared:
                steps.append(Step(test, part, counts))
                continue
        steps.append(Step(test))  # also what asks only a helper of the setup, which may ask the program
    if all(step.part for step in steps):
        return Plan(tuple(steps))
    sources = [setup, *tests]
    everything = program_names.names(sources)
    trees = [tree for source in tests if (tree := assertions.parsed(source))]
    called = assertions.called(trees)
    uses = set(everything.uses)
    if assertions.CHECK in everything.binds - called:
        uses.add(program_names.CANDIDATE)
    names = program_names.of_the_program(uses, everything.binds, code)
    modules = program_names.used_as_modules(sources, names)
    return Plan(
        tuple(steps),
        tuple(sorted(names - modules)),
        tuple(sorted(modules)),
        tuple(sorted(called)),
        program_names.only_function(code) or "",
    )
