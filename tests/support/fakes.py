"""Stand-ins for the outside. Add to this file; do not change what another test relies on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from bilora.protocols import Progress, no_progress
from bilora.records import Outcome, Program


@dataclass
class FakeSandbox:
    """Passes every program, except that the first key of `outcomes` found in its code decides."""

    outcomes: Mapping[str, Outcome] = field(default_factory=dict)
    seen: list[Program] = field(default_factory=list)

    def run_many(self, programs: Iterable[Program], *, progress: Progress = no_progress) -> Iterator[Outcome]:
        for program in programs:
            self.seen.append(program)
            progress(1)
            passed = Outcome(status="passed", results=(True,) * len(program.tests), isolation="fake")
            yield next((out for key, out in self.outcomes.items() if key in program.code), passed)
