"""Fakes of the protocols: an engine, a sandbox, a judge, a hub. They record their arguments."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from bilora.protocols import Progress, PublishResult, no_progress
from bilora.records import Completion, Outcome, Program, Sample, Score
from bilora.requests import Request

Grade = Callable[[Sample, str, int], float | None]
"""Returns points from 1 to 5 for a sample's answer at this index; None if the call failed."""


class FakeEngine:
    """Answers every request with the same chunks of text, or raises `error` after them.

    `requests` are the systems and requests in the order they arrived; `closed` says whether the last stream has ended.
    """

    def __init__(
        self,
        *chunks: str,
        error: Exception | None = None,
        output_tokens: int = 8,
        finish: Literal["stop", "length"] = "stop",
    ) -> None:
        self.requests: list[tuple[str, Request]] = []
        self.closed = False
        self._chunks, self._error = chunks, error
        self._output_tokens, self._finish = output_tokens, finish

    def generate(
        self, system: str, requests: Sequence[Request], *, progress: Progress = no_progress
    ) -> list[Completion]:
        return [self._answer(system, request, progress) for request in requests]

    def stream(self, system: str, request: Request) -> Generator[str, None, Completion]:
        self.requests.append((system, request))
        try:
            yield from self._chunks
            return self._completion(system, request)
        finally:
            self.closed = True

    def _answer(self, system: str, request: Request, progress: Progress) -> Completion:
        self.requests.append((system, request))
        completion = self._completion(system, request)
        progress(1)
        return completion

    def _completion(self, system: str, request: Request) -> Completion:
        if self._error:
            raise self._error
        return Completion(
            sample_id=request.sample_id,
            system=system,
            text="".join(self._chunks),
            prompt_tokens=5,
            output_tokens=self._output_tokens,
            latency_s=2.0,
            finish=self._finish,
        )


@dataclass
class FakeSandbox:
    """Passes every program, unless its code contains a key of `outcomes`; the first such key decides.

    With `scripted`, those are the outcomes, whatever the programs are. `programs` are the programs it was given.
    """

    outcomes: Mapping[str, Outcome] = field(default_factory=dict)
    scripted: Sequence[Outcome] | None = None
    programs: list[Program] = field(default_factory=list)

    def run_many(self, programs: Iterable[Program], *, progress: Progress = no_progress) -> Iterator[Outcome]:
        if self.scripted is not None:
            self.programs += programs
            for outcome in self.scripted:
                progress(1)
                yield outcome
            return
        for program in programs:
            self.programs.append(program)
            progress(1)
            passed = Outcome(status="passed", results=(True,) * len(program.tests), isolation="fake")
            yield next((out for key, out in self.outcomes.items() if key in program.code), passed)


@dataclass
class FakeJudge:
    """Grades each answer by a function; a repeated sample (`…#again`) gets its answers in the other order.

    Scores without a value have `reason` and the evidence `failure`; those with a value have `evidence`. `calls` is the
    number of calls.
    """

    grade: Grade
    reason: str = ""
    failure: Mapping[str, str] = field(default_factory=dict)
    evidence: Mapping[str, str] = field(default_factory=dict)
    calls: int = 0

    def rate(self, sample: Sample, answers: dict[str, str]) -> dict[str, Score]:
        self.calls += 1
        names = sorted(answers, reverse=sample.id.endswith("#again"))
        return {name: self._score(sample, name, answers[name], index) for index, name in enumerate(names)}

    def _score(self, sample: Sample, system: str, answer: str, index: int) -> Score:
        points = self.grade(sample, answer, index)
        return Score(
            sample_id=sample.id,
            system=system,
            metric="judge",
            value=None if points is None else (points - 1) / 4,
            reason=self.reason if points is None else "",
            evidence=dict(self.failure if points is None else self.evidence),
        )


@dataclass
class FakeHub:
    """Accepts every publication and stores none. `published` are the files of each call."""

    published: list[dict[str, bytes]] = field(default_factory=list)

    def digest(self) -> str | None:
        return None

    def publish(self, files: dict[str, bytes], *, message: str) -> PublishResult:
        self.published.append(files)
        return PublishResult("nowhere", True)

    def versions(self) -> list[str]:
        return []

    def read(self, version: str) -> dict[str, bytes]:
        raise AssertionError(version)
