"""Right programs pass tests of many forms; wrong programs, and tests that assert nothing, never pass."""

from __future__ import annotations

from pathlib import Path

import pytest

from bilora.records import Outcome, Program
from bilora.sandbox import ProcessSandbox

PROGRAMS = Path(__file__).parent / "programs"


def read(name: str) -> dict[str, Program]:
    """Return the programs of a file: `## NAME`, code, then sections `-- tests` and `-- setup`."""
    programs = {}
    for block in ("\n" + (PROGRAMS / name).read_text(encoding="utf-8")).split("\n## ")[1:]:
        title, _, source = block.partition("\n")
        code, *parts = source.split("\n-- ")
        sections = [part.partition("\n")[::2] for part in parts]
        programs[title] = Program(
            code=code,
            tests=tuple(text for kind, text in sections if kind == "tests"),
            setup="".join(text for kind, text in sections if kind == "setup"),
        )
    return programs


RIGHT, WRONG = read("right.txt"), read("wrong.txt")


@pytest.fixture(scope="module")
def outcomes() -> dict[Program, Outcome]:
    programs = [*RIGHT.values(), *WRONG.values()]
    with ProcessSandbox(workers=2, cpu_s=4, wall_s=20, memory_mb=512) as sandbox:
        return dict(zip(programs, sandbox.run_many(programs), strict=True))


@pytest.mark.parametrize("name", RIGHT)
def test_a_right_program_passes(outcomes: dict[Program, Outcome], name: str) -> None:
    outcome = outcomes[RIGHT[name]]
    assert (outcome.status, outcome.detail) == ("passed", "")
    assert outcome.outside == outcome.asserts > 0


@pytest.mark.parametrize("name", WRONG)
def test_a_program_that_proves_nothing_does_not_pass(outcomes: dict[Program, Outcome], name: str) -> None:
    assert outcomes[WRONG[name]].status != "passed"
