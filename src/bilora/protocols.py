"""Protocols of the packages' dependencies; `Workspace` creates the objects that implement them."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from bilora.records import Completion, Outcome, Program, Row, Sample, Scale, Score
from bilora.requests import Request, Submission

Progress = Callable[[int], None]
"""Callback for the number of items that were just finished."""


def no_progress(_: int) -> None:
    """Report no progress."""


ProgressBars = Callable[[str, int], AbstractContextManager[Progress]]
"""Returns a context manager that shows the progress of an operation with this title and total."""


def no_bar(title: str, total: int) -> AbstractContextManager[Progress]:
    """Show no progress bar."""
    return nullcontext(no_progress)


class Engine(Protocol):
    """Answers requests as a named system: the base, an adapter, or a remote model."""

    def generate(
        self, system: str, requests: Sequence[Request], *, progress: Progress = no_progress
    ) -> list[Completion]:
        """Return one completion per request, in order; raise for an unknown system."""
        ...


class Streamer(Protocol):
    """Streams the answer to one request."""

    def stream(self, system: str, request: Request) -> Generator[str, None, Completion]:
        """Yield text as it is generated, then return the completion. Closing the generator cancels the request."""
        ...


class Job(Protocol):
    """A request that an engine has prepared, bound to one version of its system."""

    @property
    def prompt_tokens(self) -> int:
        """Number of tokens of the prompt."""
        ...

    @property
    def sha256(self) -> str:
        """Hash of the adapter's version; empty for the base."""
        ...

    def set_max_tokens(self, tokens: int) -> None:
        """Set the maximum length of the answer; only before it is submitted."""
        ...

    def cancel(self) -> None:
        """Stop at the next token and send no further event. May be called at any time, and repeatedly."""
        ...


class BatchEngine(Protocol):
    """An engine for a server: requests of many callers join and leave one batch at any token."""

    @property
    def context_length(self) -> int:
        """Maximum number of tokens of prompt and answer together."""
        ...

    def models(self) -> dict[str, str]:
        """Return the loaded systems (name → the adapter's sha256, empty for the base)."""
        ...

    def queue_depth(self) -> tuple[int, int]:
        """Return the numbers of running and of waiting requests."""
        ...

    def load_adapter(self, name: str, folder: Path) -> None:
        """Load an adapter, or replace its version; prepared requests keep the version before."""
        ...

    def unload_adapter(self, name: str) -> None:
        """Unload an adapter; prepared requests still finish with it."""
        ...

    def encode(self, request: Request, *, special_tokens: bool = True) -> list[int]:
        """Return the tokens of a prompt; `special_tokens` adds the tokenizer's BOS and EOS tokens to a text."""
        ...

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the text of tokens, including control tokens."""
        ...

    def prepare(self, submissions: Sequence[Submission], *, streamed: bool) -> Sequence[Job]:
        """Encode the prompts and bind all requests to the adapter versions loaded now; raise for an unknown system.

        Chunks are sent only if `streamed`; the completion is always sent.
        """
        ...

    def submit(self, jobs: Sequence[Job]) -> None:
        """Queue all jobs, or raise Busy and queue none."""
        ...


class Sandbox(Protocol):
    """Runs model-written code in isolation."""

    def run_many(self, programs: Iterable[Program], *, progress: Progress = no_progress) -> Iterator[Outcome]:
        """Yield one outcome per program, in order; a failure of the sandbox itself is `infrastructure`."""
        ...


class Judge(Protocol):
    """Rates answers 1 to 5; a failed call is unscored."""

    def rate(self, sample: Sample, answers: dict[str, str]) -> dict[str, Score]:
        """Rate all systems' answers to one sample in one blinded call."""
        ...


@dataclass(frozen=True)
class Referees:
    """The services that metrics score with; `judge` is None if none is configured."""

    sandbox: Sandbox
    judge: Judge | None = None


class Metric(Protocol):
    """Scores each answer with one or more numbers."""

    @property
    def scales(self) -> Mapping[str, Scale]:
        """Display format of each number, by its name in results; the first may be a headline metric."""
        ...

    @property
    def runs_answers(self) -> bool:
        """Whether answers are executed; the first number is then 1.0 for an answer that passes, else 0.0."""
        ...

    def score(
        self,
        pairs: Sequence[tuple[Sample, str]],
        referees: Referees,
        *,
        system: str,
        progress: Progress = no_progress,
    ) -> list[tuple[Score, ...]]:
        """Return one tuple per extracted answer, its scores in the order of `scales`."""
        ...


class Source(Protocol):
    """Delivers raw rows in a fixed order."""

    def rows(self, *, progress: Progress = no_progress) -> Iterator[Row]:
        """Yield rows, the same for the same settings on every machine."""
        ...


@dataclass(frozen=True)
class PublishResult:
    """The location of the published version, and whether publishing changed anything."""

    location: str
    changed: bool


class Hub(Protocol):
    """A location that bundles are published to."""

    def digest(self) -> str | None:
        """Return the manifest digest of the current version, or None."""
        ...

    def publish(self, files: dict[str, bytes], *, message: str) -> PublishResult:
        """Publish `files` as the current version in one atomic step; equal bytes change nothing."""
        ...

    def versions(self) -> list[str]:
        """Return the published versions, newest first; the first is the current one."""
        ...

    def read(self, version: str) -> dict[str, bytes]:
        """Return a version's files (name → bytes)."""
        ...
