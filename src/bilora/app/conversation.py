"""What was asked and answered on one page, kept across Streamlit's reruns."""

from __future__ import annotations

import difflib
import re
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field

from bilora.params import Generation
from bilora.protocols import Streamer
from bilora.records import Completion
from bilora.requests import Request
from bilora.tasks.task import Task

MAX_CHARS = 20_000
"""A longer text is not sent: no adapter here reads so much."""


@dataclass(frozen=True)
class Offer:
    """Who answers: an engine, the adapters it has, and which bytes they are (task name → sha256, "" if unknown)."""

    engine: Streamer
    adapters: Mapping[str, str]
    base: str
    base_revision: str
    place: str


@dataclass
class Answer:
    """One system's answer, growing while it is written. `made` is there when it was written to its end.

    `context_full` is whether it had to end before its token limit. `rating` is the event id of the rating it was
    given, or empty.
    """

    id: str
    system: str
    adapter_sha256: str
    base_revision: str
    text: str = ""
    made: Completion | None = None
    context_full: bool = False
    fault: str = ""
    rating: str = ""

    @property
    def state(self) -> str:
        """How it ended, or that it did not."""
        if self.fault:
            return self.fault
        if self.made is None:
            return "stopped by you"
        if self.made.finish == "error":
            return self.made.reason
        if self.made.finish == "stop":
            return ""
        return "cut off, for the question leaves no more room" if self.context_full else "cut off at the token limit"

    @property
    def facts(self) -> str:
        """Tokens, seconds and version, as known."""
        parts = []
        if self.made:
            seconds = max(self.made.latency_s, 1e-9)
            tokens = self.made.output_tokens
            parts += [*([] if tokens is None else [f"{tokens} tokens"]), f"{seconds:.2f} s"]
            parts += [] if tokens is None else [f"{tokens / seconds:.0f} tokens/s"]
        if self.adapter_sha256:
            parts.append(f"adapter {self.adapter_sha256[:12]}")
        return " · ".join([*parts, *([self.state] if self.state else [])])


@dataclass
class Turn:
    """One question and everybody's answers to it."""

    task: str
    typed: str
    prompt: str
    generation: Generation
    answers: list[Answer] = field(default_factory=list)


def problem(typed: str) -> str:
    """Say why a text cannot be asked; empty if it can."""
    if not typed.strip():
        return "Type something first, or take the example."
    if len(typed) > MAX_CHARS:
        return f"This text has {len(typed):,} characters; at most {MAX_CHARS:,} can be asked about."
    if "\0" in typed:
        return "This text holds binary data. Paste source code or a sentence."
    return ""


def plain(text: str) -> str:
    """Escape what Markdown would make of a text: a server's or a file's words are shown, never drawn."""
    return re.sub(r"([\\`*_{}\[\]()#+!|<>~$])", r"\\\1", text)


def answering(engine: Streamer, task: Task, turn: Turn, answer: Answer) -> Generator[str, None, None]:
    """Yield the answer's whole text so far after every piece, and keep it in `answer` all the while."""
    how = turn.generation
    request = Request(answer.id, task.messages(turn.prompt), how.sampling())
    stream = engine.stream(answer.system, request)
    try:
        while True:
            answer.text += next(stream)
            yield task.read_answer(answer.text, turn.prompt)
    except StopIteration as end:
        made: Completion = end.value
        answer.made, answer.context_full = made, _ran_out_of_room(made, how)
    finally:
        stream.close()


def _ran_out_of_room(made: Completion, how: Generation) -> bool:
    """Whether an answer was cut off before its own limit; that is unknown where its tokens were not counted."""
    return made.finish == "length" and made.output_tokens is not None and made.output_tokens < how.max_new_tokens


def difference(typed: str, written: str) -> str:
    """Return the unified diff from what was typed to what came of it."""
    lines = difflib.unified_diff(
        typed.strip("\n").splitlines(), written.splitlines(), "before", "after", lineterm="", n=100
    )
    return "\n".join(lines)
