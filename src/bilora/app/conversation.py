"""The questions and answers of one page, stored across Streamlit's reruns."""

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
"""A longer text is not sent: it exceeds every adapter's context."""


@dataclass(frozen=True)
class Backend:
    """What the page offers: an engine, and its adapters (task name → sha256, "" if unknown)."""

    engine: Streamer
    adapters: Mapping[str, str]
    base: str
    base_revision: str
    place: str


@dataclass
class Answer:
    """One system's answer, while it is streamed and after. `completion` is set when it is complete.

    `context_full`: whether the context ended it before its token limit. `rating`: the event id of its rating, or empty.
    `assert_run`: its run with the asserts of the question, if there are any.
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
        """How it ended; empty if it is complete."""
        if self.fault:
            return self.fault
        if self.completion is None:
            return "stopped by you"
        if self.completion.finish == "error":
            return self.completion.reason
        if self.completion.finish == "stop":
            return ""
        return "cut off, for the question leaves no more room" if self.context_full else "cut off at the token limit"

    @property
    def facts(self) -> str:
        """Tokens, seconds and version, as far as they are known."""
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
    """What a person enters about an answer; `supersedes` is the event id of the rating that it replaces."""

    rating: Literal["up", "down"]
    tags: tuple[str, ...]
    edited: str | None
    comment: str
    consent: bool
    supersedes: str | None


@dataclass
class UserQuestion:
    """One question and the answers of all systems to it."""

    task: str
    typed: str
    prompt: str
    generation: Generation
    answers: list[Answer] = field(default_factory=list)


def question_problem(typed: str) -> str:
    """Return why a text is no valid question; empty if it is one."""
    if not typed.strip():
        return "Type something first, or take the example."
    if len(typed) > MAX_QUESTION_CHARS:
        return f"This text has {len(typed):,} characters; at most {MAX_QUESTION_CHARS:,} can be asked about."
    if "\0" in typed:
        return "This text holds binary data. Paste source code or a sentence."
    return ""


def escape_markdown(text: str) -> str:
    """Escape Markdown, so that a server's or a file's text is shown as it is."""
    return re.sub(r"([\\`*_{}\[\]()#+!|<>~$])", r"\\\1", text)


def stream_answer(engine: Streamer, task: Task, question: UserQuestion, answer: Answer) -> Generator[str, None, None]:
    """Yield the answer's whole text so far after every chunk, and store it in `answer`."""
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
    """Return whether an answer was cut off before its token limit; False if its tokens were not counted."""
    tokens = completion.output_tokens
    return completion.finish == "length" and tokens is not None and tokens < generation.max_new_tokens


def unified_diff(typed: str, result: str) -> str:
    """Return the unified diff from the typed text to the result."""
    lines = difflib.unified_diff(
        typed.strip("\n").splitlines(), result.splitlines(), "before", "after", lineterm="", n=100
    )
    return "\n".join(lines)
