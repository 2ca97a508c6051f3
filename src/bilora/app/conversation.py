"""The questions and answers of a page visit, stored across Streamlit's reruns."""

from __future__ import annotations

import difflib
import re
from collections.abc import Generator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Literal

from bilora.app.assert_runs import AssertResult
from bilora.params import Generation
from bilora.protocols import Streamer
from bilora.records import Completion
from bilora.requests import Request
from bilora.tasks.task import Task

MAX_QUESTION_CHARS = 20_000
"""A longer question exceeds every base's context and is not sent."""


@dataclass(frozen=True)
class Backend:
    """The engine of the page and its adapters (task name → sha256, "" if unknown). `location` is where it runs."""

    engine: Streamer
    adapters: Mapping[str, str]
    base: str
    base_revision: str
    location: str


@dataclass
class Answer:
    """One system's answer, during streaming and after it.

    Attributes:
        completion: None until the answer is complete.
        context_full: whether the context was full before the token limit.
        rating: the event id of its rating, or empty.
        assert_run: its run with the question's asserts, if there are any.
    """

    id: str
    system: str
    adapter_sha256: str
    base_revision: str
    text: str = ""
    completion: Completion | None = None
    context_full: bool = False
    fault: str = ""
    rating: str = ""
    assert_run: Future[AssertResult] | None = None

    @property
    def ending(self) -> str:
        """Why the answer is incomplete; empty if it is complete."""
        if self.fault:
            return self.fault
        if self.completion is None:
            return "stopped by you"
        if self.completion.finish == "error":
            return self.completion.reason
        if self.completion.finish == "stop":
            return ""
        return "cut off: the context is full" if self.context_full else "cut off at the token limit"

    @property
    def facts(self) -> str:
        """The number of tokens, the time and the adapter, as far as they are known."""
        parts = []
        if self.completion:
            seconds = max(self.completion.latency_s, 1e-9)
            tokens = self.completion.output_tokens
            parts += [*([] if tokens is None else [f"{tokens} tokens"]), f"{seconds:.2f} s"]
            parts += [] if tokens is None else [f"{tokens / seconds:.0f} tokens/s"]
        if self.adapter_sha256:
            parts.append(f"adapter {self.adapter_sha256[:12]}")
        return " · ".join([*parts, *([self.ending] if self.ending else [])])


@dataclass(frozen=True)
class RatingInput:
    """A user's rating of an answer; `supersedes` is the event id of the rating that it replaces."""

    rating: Literal["up", "down"]
    tags: tuple[str, ...]
    edited: str | None
    comment: str
    consent: bool
    supersedes: str | None


@dataclass
class UserQuestion:
    """One question and the systems' answers to it."""

    task: str
    typed: str
    prompt: str
    generation: Generation
    answers: list[Answer] = field(default_factory=list)


def question_problem(typed: str) -> str:
    """Return why a text is not a valid question; empty if it is valid."""
    if not typed.strip():
        return "Type something first, or use the example."
    if len(typed) > MAX_QUESTION_CHARS:
        return f"This text has {len(typed):,} characters; the limit is {MAX_QUESTION_CHARS:,}."
    if "\0" in typed:
        return "This text contains binary data. Paste source code or a sentence."
    return ""


def escape_markdown(text: str) -> str:
    """Escape Markdown, so that a text is displayed unchanged."""
    return re.sub(r"([\\`*_{}\[\]()#+!|<>~$])", r"\\\1", text)


def stream_answer(engine: Streamer, task: Task, question: UserQuestion, answer: Answer) -> Generator[str, None, None]:
    """Yield the whole text so far after every chunk, and store it in `answer`."""
    generation = question.generation
    request = Request(answer.id, task.messages(question.prompt), generation.sampling())
    stream = engine.stream(answer.system, request)
    try:
        while True:
            answer.text += next(stream)
            yield task.read_answer(answer.text, question.prompt)
    except StopIteration as end:
        completion: Completion = end.value
        answer.completion, answer.context_full = completion, _context_full(completion, generation)
    finally:
        stream.close()


def _context_full(completion: Completion, generation: Generation) -> bool:
    """Return whether a completion was cut off before its token limit; False if its tokens are unknown."""
    tokens = completion.output_tokens
    return completion.finish == "length" and tokens is not None and tokens < generation.max_new_tokens


def unified_diff(typed: str, result: str) -> str:
    """Return the unified diff from the typed text to the result."""
    lines = difflib.unified_diff(
        typed.strip("\n").splitlines(), result.splitlines(), "before", "after", lineterm="", n=100
    )
    return "\n".join(lines)
