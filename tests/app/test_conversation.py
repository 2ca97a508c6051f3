"""The stored state of an answer, also if it was stopped or failed."""

from __future__ import annotations

from typing import Literal

import pytest
from support.fakes import FakeEngine

from bilora.app.conversation import (
    MAX_QUESTION_CHARS,
    Answer,
    UserQuestion,
    escape_markdown,
    question_problem,
    stream_answer,
    unified_diff,
)
from bilora.errors import Unreachable
from bilora.params import Generation
from bilora.records import Completion
from bilora.tasks.codegen import TASK


@pytest.fixture
def turn() -> UserQuestion:
    return UserQuestion(
        "codegen",
        " Add. ",
        TASK.make_prompt(" Add. "),
        Generation(max_new_tokens=64, batch_size=1, frequency_penalty=0.5),
    )


@pytest.fixture
def answer() -> Answer:
    return Answer("g1", "codegen", "a" * 64, "b" * 40)


def test_the_answer_is_streamed_with_the_task_s_messages(turn: UserQuestion, answer: Answer) -> None:
    engine = FakeEngine("```python\n", "def f():\n", "    pass\n```")
    assert list(stream_answer(engine, TASK, turn, answer)) == ["", "def f():", "def f():\n    pass"]
    assert answer.completion is not None and answer.ending == ""
    assert answer.facts == "8 tokens · 2.00 s · 4 tokens/s · adapter aaaaaaaaaaaa"
    ((system, request),) = engine.requests
    assert system == "codegen" and request.messages == TASK.messages("Add.")
    assert (request.sampling.max_tokens, request.sampling.temperature, request.sampling.frequency_penalty) == (
        64,
        0.0,
        0.5,
    )


def test_unknown_counts_are_omitted_and_a_withheld_answer_says_why(answer: Answer) -> None:
    answer.completion = Completion(
        sample_id="g1", system="codegen", text="", prompt_tokens=None, output_tokens=None, latency_s=2.0,
        finish="error", reason="the server withheld the answer",
    )  # fmt: skip
    assert answer.facts == "2.00 s · adapter aaaaaaaaaaaa · the server withheld the answer"


def test_a_stopped_answer_keeps_its_text_and_closes_the_stream(turn: UserQuestion, answer: Answer) -> None:
    engine = FakeEngine("one ", "two ", "three")
    stream = stream_answer(engine, TASK, turn, answer)
    next(stream)
    stream.close()
    assert (answer.text, answer.completion, answer.ending, engine.closed) == ("one ", None, "stopped by you", True)


def test_a_failed_answer_keeps_its_text(turn: UserQuestion, answer: Answer) -> None:
    with pytest.raises(Unreachable):
        list(stream_answer(FakeEngine("half", error=Unreachable("gone")), TASK, turn, answer))
    assert answer.text == "half" and answer.completion is None


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("", "Type something"),
        ("  \n", "Type something"),
        ("x" * (MAX_QUESTION_CHARS + 1), "20,001 characters"),
        ("a\0b", "binary"),
    ],
)
def test_an_invalid_question_is_reported(typed: str, message: str) -> None:
    assert message in question_problem(typed)


def test_a_valid_question_has_no_problem() -> None:
    assert question_problem("x" * MAX_QUESTION_CHARS) == ""


def test_the_difference_shows_the_new_line() -> None:
    diff = unified_diff("def f():\n    return 1", 'def f():\n    """One."""\n    return 1')
    assert '+    """One."""' in diff and "-" not in diff.splitlines()[3]
    assert unified_diff("same", "same") == ""


def test_a_server_s_text_is_escaped() -> None:
    drawn = escape_markdown("![x](http://elsewhere/x.png) <b>`$y$`</b> and plain words, with a comma.")
    assert drawn.startswith("\\!\\[x\\]\\(http://elsewhere/x.png\\) \\<b\\>\\`\\$y\\$\\`")
    assert drawn.endswith("and plain words, with a comma.")


@pytest.mark.parametrize(
    ("finish", "tokens", "state"),
    [
        ("stop", 5, ""),
        ("length", 64, "cut off at the token limit"),
        ("length", 63, "cut off: the context is full"),
    ],
)
def test_a_cut_off_answer_says_why(
    turn: UserQuestion, answer: Answer, finish: Literal["stop", "length"], tokens: int, state: str
) -> None:
    engine = FakeEngine("x", output_tokens=tokens, finish=finish)
    list(stream_answer(engine, TASK, turn, answer))
    assert answer.ending == state
