"""The outside, as protocols. Rooms depend on these; the CLI's wiring builds the real ones."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from bilora.records import Completion, Message, Outcome, Program, Row, Sample, Score

Progress = Callable[[int], None]
"""Called with the number of items just finished."""


def silent(_: int) -> None:
    """The progress that nobody watches."""


@dataclass(frozen=True)
class Request:
    """One question to an engine; greedy when `temperature` is 0."""

    sample_id: str
    messages: tuple[Message, ...]
    max_new_tokens: int
    temperature: float = 0.0
    seed: int = 0


class Engine(Protocol):
    """Answers requests as one named system: the base, an adapter, or a remote model."""

    def generate(self, system: str, requests: Sequence[Request], *, progress: Progress = silent) -> list[Completion]:
        """Answer every request as `system`, in the order given; an unknown system is an error."""
        ...


class Streamer(Protocol):
    """Answers one request piece by piece."""

    def stream(self, system: str, request: Request) -> Generator[str, None, Completion]:
        """Yield text as it is made; the generator's value is the whole answer. Closing it stops the work."""
        ...


class Sandbox(Protocol):
    """Runs model-written code away from everything that matters."""

    def run_many(self, programs: Iterable[Program], *, progress: Progress = silent) -> Iterator[Outcome]:
        """Yield one outcome a program, in order; our own failure is `infrastructure`, never a fail."""
        ...


class Judge(Protocol):
    """Rates answers 1 to 5; a failed call is unscored."""

    def rate(self, sample: Sample, answers: dict[str, str]) -> dict[str, Score]:
        """Rate the answers of all systems to one sample in one blinded call."""
        ...


@dataclass(frozen=True)
class Referees:
    """What metrics may need in order to score."""

    sandbox: Sandbox


class Metric(Protocol):
    """Scores answers. One look at an answer may yield several numbers, named in `names`."""

    @property
    def names(self) -> tuple[str, ...]:
        """Keys in results and charts; the first is the one that may be a headline."""
        ...

    def score(
        self,
        pairs: Sequence[tuple[Sample, str]],
        referees: Referees,
        *,
        system: str,
        progress: Progress = silent,
    ) -> list[tuple[Score, ...]]:
        """Score extracted answers: one tuple a pair, its scores in the order of `names`."""
        ...


class Source(Protocol):
    """Delivers raw rows in a fixed order."""

    def rows(self, *, progress: Progress = silent) -> Iterator[Row]:
        """Yield rows; equal settings give equal rows on every machine."""
        ...


@dataclass(frozen=True)
class Published:
    """Where a bundle lies, pinned to just this version, and whether anything had to change for it."""

    location: str
    changed: bool


class Hub(Protocol):
    """Where bundles are published."""

    def digest(self) -> str | None:
        """Return the manifest digest of what is published now, or None."""
        ...

    def publish(self, files: dict[str, bytes], *, message: str) -> Published:
        """Replace what is published by `files` in one atomic step; equal bytes again change nothing."""
        ...

    def versions(self) -> list[str]:
        """Return what was published, the newest first; the first is what is served."""
        ...

    def read(self, version: str) -> dict[str, bytes]:
        """Return the files of a version, as they lie there."""
        ...
