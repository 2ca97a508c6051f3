"""What the packages need of each other and of the outside, as protocols; `Workspace` builds the real objects."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from bilora.records import Completion, Outcome, Program, Row, Sample, Scale, Score
from bilora.requests import Request, Submission

Progress = Callable[[int], None]
"""Called with the number of items just finished."""


def no_progress(_: int) -> None:
    """Report no progress."""


ProgressBars = Callable[[str, int], AbstractContextManager[Progress]]
"""Shows the progress of a long operation with this title and total while its block runs."""


def no_bar(title: str, total: int) -> AbstractContextManager[Progress]:
    """Show no progress bar."""
    return nullcontext(no_progress)


class Engine(Protocol):
    """Answers requests as one named system: the base, an adapter, or a remote model."""

    def generate(
        self, system: str, requests: Sequence[Request], *, progress: Progress = no_progress
    ) -> list[Completion]:
        """Answer every request as `system`, in the order given; an unknown system is an error."""
        ...


class Streamer(Protocol):
    """Streams the answer to one request."""

    def stream(self, system: str, request: Request) -> Generator[str, None, Completion]:
        """Yield text as it is generated; the generator's value is the whole answer. Closing it stops the work."""
        ...


class Job(Protocol):
    """A request that an engine has accepted for one system, bound to that system's version of this moment."""

    @property
    def prompt_tokens(self) -> int:
        """Length of the prompt in tokens."""
        ...

    @property
    def sha256(self) -> str:
        """Which adapter answers; empty for the base."""
        ...

    def allow(self, tokens: int) -> None:
        """Set how long the answer may become; only before it is submitted."""
        ...

    def cancel(self) -> None:
        """End it at the next token; no further event is sent. May be called at any time, and repeatedly."""
        ...


class BatchEngine(Protocol):
    """Answers many callers' requests in one batch that they join and leave at any token: what a server needs."""

    @property
    def context(self) -> int:
        """How many tokens prompt and answer may have together."""
        ...

    def models(self) -> dict[str, str]:
        """Return the systems that answer now, each with its adapter's sha256; empty for the base."""
        ...

    def queue_depth(self) -> tuple[int, int]:
        """Return how many requests are being answered, and how many wait."""
        ...

    def load_adapter(self, name: str, folder: Path) -> None:
        """Serve an adapter, or another version of it; what has begun ends with the version it began with."""
        ...

    def unload_adapter(self, name: str) -> None:
        """Serve an adapter no longer; what has begun is finished."""
        ...

    def encode(self, request: Request, *, special_tokens: bool = True) -> list[int]:
        """Return a prompt's tokens; a text has special ones at its ends only with `special_tokens`."""
        ...

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the text of tokens, control tokens included."""
        ...

    def prepare(self, submissions: Sequence[Submission], *, streamed: bool) -> Sequence[Job]:
        """Encode the prompts and bind them to the adapter versions of one moment; an unknown system is an error.

        Chunks are sent only if `streamed`; the completion always is.
        """
        ...

    def submit(self, jobs: Sequence[Job]) -> None:
        """Queue all of these jobs, or none and raise Busy."""
        ...


class Sandbox(Protocol):
    """Runs model-written code away from everything that matters."""

    def run_many(self, programs: Iterable[Program], *, progress: Progress = no_progress) -> Iterator[Outcome]:
        """Yield one outcome per program, in order; our own failure is `infrastructure`, never a fail."""
        ...


class Judge(Protocol):
    """Rates answers 1 to 5; a failed call is unscored."""

    def rate(self, sample: Sample, answers: dict[str, str]) -> dict[str, Score]:
        """Rate the answers of all systems to one sample in one blinded call."""
        ...


@dataclass(frozen=True)
class Referees:
    """What scoring may need; `judge` is None where none is configured."""

    sandbox: Sandbox
    judge: Judge | None = None


class Metric(Protocol):
    """Scores answers, each by one number or several."""

    @property
    def scales(self) -> Mapping[str, Scale]:
        """How each number is written for people, by its name in results; the first may be a headline."""
        ...

    @property
    def runs_answers(self) -> bool:
        """Whether answers are run; the first number is then 1.0 for an answer that passes, else 0.0."""
        ...

    def score(
        self,
        pairs: Sequence[tuple[Sample, str]],
        referees: Referees,
        *,
        system: str,
        progress: Progress = no_progress,
    ) -> list[tuple[Score, ...]]:
        """Score extracted answers: one tuple per pair, its scores in the order of `scales`."""
        ...


class Source(Protocol):
    """Delivers raw rows in a fixed order."""

    def rows(self, *, progress: Progress = no_progress) -> Iterator[Row]:
        """Yield rows; equal settings give equal rows on every machine."""
        ...


@dataclass(frozen=True)
class Published:
    """Where a bundle was published, pinned to this version, and whether that changed anything."""

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
        """Return the files of a version (name → bytes)."""
        ...
