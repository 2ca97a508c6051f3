"""Replies are read in any known form; a reply without an answer is reported in one phrase."""

from __future__ import annotations

import json
from collections.abc import Generator
from typing import Any

import pytest

from bilora.inference.endpoint.replies import ONLY_REASONING, ChatReply, UnusableReply, read_reply, read_stream


def body(message: Any, finish: Any = "stop", **more: Any) -> bytes:
    return json.dumps({"choices": [{"index": 0, "message": message, "finish_reason": finish}], **more}).encode()


def read(message: Any, finish: Any = "stop") -> ChatReply:
    return read_reply(body(message, finish), "application/json")


@pytest.mark.parametrize(
    ("ending", "finish"),
    [
        ("stop", "stop"), ("eos", "stop"), ("STOP", "stop"), ("stop_sequence", "stop"), ("", "stop"), (None, "stop"),
        ("COMPLETE", "stop"), (7, "stop"), ("tool_calls", "stop"), ("length", "length"), ("max_tokens", "length"),
        ("MAX_TOKENS", "length"), ("model_context_window_exceeded", "length"), ("token_limit", "length"),
        ("content_filter", "error"), ("SAFETY", "error"), ("error", "error"), ("abort", "error"),
    ],
)  # fmt: skip
def test_an_ending_is_read_by_its_meaning(ending: Any, finish: str) -> None:
    reply = read({"content": "text"}, ending)
    assert reply.text == "text"
    assert reply.outcome()[0] == finish
    assert bool(reply.outcome()[1]) == (finish == "error")


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ({"content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}, "ab"),
        ({"content": ["a", {"text": "b"}]}, "ab"),
        ({"content": {"type": "text", "text": "a"}}, "a"),
        ({"content": [{"type": "thinking", "thinking": [{"text": "hm"}]}, {"type": "text", "text": "a"}]}, "a"),
        ({"content": [{"type": "image_url", "image_url": {}}, {"type": "text", "text": "a"}]}, "a"),
        ({"content": "a", "reasoning_content": "hm"}, "a"),
        ({"content": None, "refusal": "I will not."}, "I will not."),
        ({"content": "half \ud800"}, "half ?"),
        ({"content": None}, ""),
        ("a", "a"),
    ],
)
def test_a_content_is_text_or_parts_of_it(message: Any, text: str) -> None:
    reply = read(message)
    assert (reply.text, reply.outcome()) == (text, ("stop", ""))


@pytest.mark.parametrize(
    ("message", "ending", "outcome"),
    [
        ({"content": None, "reasoning": "hm"}, "stop", ("error", ONLY_REASONING)),
        ({"content": "\n", "reasoning_content": "hm"}, "max_tokens", ("length", ONLY_REASONING)),
        ({"content": [{"type": "reasoning", "text": "hm"}]}, "stop", ("error", ONLY_REASONING)),
        ({"tool_calls": [{}]}, "tool_calls", ("error", "the model called a tool and gave no answer")),
    ],
)
def test_no_answer_has_a_reason(message: Any, ending: str, outcome: tuple[str, str]) -> None:
    assert read(message, ending).outcome() == outcome


@pytest.mark.parametrize(
    ("reply", "kind", "reason"),
    [
        (b"", "application/json", "the reply is empty"),
        (b" \n ", "", "the reply is empty"),
        (b"<!DOCTYPE html><p>Sign in", "text/plain", "web page"),
        (b"anything", "text/html; charset=utf-8", "web page"),
        (b"upstream says hello", "text/plain", "not JSON"),
        (b"\xff\xfe{", "application/json", "not JSON"),
        (b"[" * 100_000, "application/json", "not JSON"),
        (b"null", "application/json", "not an object"),
        (b"{}", "application/json", "no choices"),
        (b'{"object": "error", "message": "no", "code": 400}', "application/json", "replied with an error"),
        (b'{"choices": [{"message": {"content": ' + b"[" * 900 + b"]" * 900 + b"}}]}", "application/json", "not JSON"),
        (b'{"choices": {"0": {}}}', "application/json", "no choices"),
        (b'{"choices": [null]}', "application/json", "not an object"),
        (b'{"choices": [{}]}', "application/json", "no message"),
        (b'{"choices": [{"message": null}]}', "application/json", "no message"),
        (body({"content": 5}), "application/json", "not text"),
        (body({"content": [True]}), "application/json", "not text"),
        (b'{"error": {"message": "loading"}}', "application/json", "replied with an error"),
    ],
)
def test_what_is_no_answer_is_reported_in_one_phrase(reply: bytes, kind: str, reason: str) -> None:
    with pytest.raises(UnusableReply, match=reason) as caught:
        read_reply(reply, kind)
    assert "Error" not in str(caught.value)


@pytest.mark.parametrize(
    ("usage", "counts"),
    [
        ({"prompt_tokens": 4, "completion_tokens": 0}, (4, 0)),
        ({"prompt_tokens": "4", "completion_tokens": -1}, (None, None)),
        ({"prompt_tokens": True}, (None, None)),
        ({"prompt_tokens": 10**400, "completion_tokens": 1}, (None, 1)),
        (None, (None, None)),
        ([], (None, None)),
    ],
)
def test_counts_that_are_none_are_unknown(usage: Any, counts: tuple[int | None, int | None]) -> None:
    reply = read_reply(body({"content": "a"}, usage=usage), "application/json")
    assert (reply.prompt_tokens, reply.output_tokens) == counts


def streamed(*lines: str, kind: str = "text/event-stream", size: int = 7) -> tuple[str, ChatReply]:
    data = "\n".join(lines).encode()
    chunks = [data[start : start + size] for start in range(0, len(data), size)]
    events: Generator[str, None, ChatReply] = read_stream(chunks, kind)
    pieces = []
    while True:
        try:
            pieces.append(next(events))
        except StopIteration as end:
            return "".join(pieces), end.value


def delta(content: Any, finish: Any = None, **more: Any) -> str:
    choice = {"index": 0, "delta": {"content": content}, "finish_reason": finish}
    return "data: " + json.dumps({"choices": [choice], **more}, ensure_ascii=False)


def test_odd_chunks_do_not_stop_a_stream() -> None:
    text, reply = streamed(
        ": keep-alive", "event: message", "data:", "data: ping",
        'data: {"choices": null}', 'data: {"choices": [{"delta": null}]}',
        delta("é\u2028\x85", None), "id: 3", "", delta([{"type": "text", "text": "b"}], None, usage=None), "",
        'data: {"choices": [{"index": 1, "delta": {"content": "another answer"}}]}',
        delta("", "end_turn"), "data: [DONE]", "",
    )  # fmt: skip
    assert text == reply.text == "é\u2028\x85b"
    assert reply.outcome() == ("stop", "") and reply.output_tokens is None


def test_the_answer_is_the_choice_of_index_0() -> None:
    choices = [{"index": number, "message": {"content": text}} for number, text in ((1, "other"), (0, "first"))]
    assert read_reply(json.dumps({"choices": choices}).encode(), "application/json").text == "first"
    assert streamed('data: {"choices": [{"index": "0", "delta": {"content": "a"}}]}')[0] == "a"


def test_a_stream_that_repeats_its_answer_at_the_end_says_it_once() -> None:
    whole = {"choices": [{"index": 0, "message": {"content": "ab"}, "finish_reason": "stop"}]}
    assert streamed(delta("a"), delta("b"), f"data: {json.dumps(whole)}")[0] == "ab"


@pytest.mark.parametrize("end", ["\r", "\r\n"])
def test_a_stream_may_end_its_lines_otherwise(end: str) -> None:
    assert streamed(f"\ufeff{delta('a')}{end}{end}{delta('b')}{end}{end}data: [DONE]")[0] == "ab"


def test_a_line_end_inside_a_text_of_json_is_read() -> None:
    assert read_reply(b'{"choices": [{"message": {"content": "a\nb"}}]}', "application/json").text == "a\nb"


def test_a_server_that_answers_with_an_object_of_its_own_is_quoted() -> None:
    with pytest.raises(UnusableReply) as caught:
        read_reply(b'{"detail": "Not here"}', "application/json")
    assert caught.value.document == {"detail": "Not here"}


def test_a_stream_may_end_without_a_word() -> None:
    text, reply = streamed(delta("a"), delta("b"))
    assert (text, reply.outcome()) == ("ab", ("stop", ""))


def test_a_whole_reply_in_the_place_of_a_stream_is_one_piece() -> None:
    text, reply = streamed(body({"content": "whole"}, "eos").decode(), kind="application/json; charset=utf-8")
    assert text == reply.text == "whole"


def test_a_stream_in_the_place_of_a_whole_reply_is_read() -> None:
    lines = "\n\n".join((delta("a"), delta("b", "max_tokens"), "data: [DONE]")).encode()
    for kind in ("text/event-stream", "application/json"):
        reply = read_reply(lines, kind)
        assert (reply.text, reply.outcome()[0]) == ("ab", "length")


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (('data: {"error": {"message": "out of memory"}}',), "replied with an error"),
        ((delta("a"), "event: error", 'data: {"message": "overloaded"}'), "replied with an error"),
        (("<html>sign in</html>",), "web page"),
        (("nothing here",), "not JSON"),
        ((), "empty"),
        (("data: [DONE]",), "empty"),
        ((delta("a"), 'data: {"choices": [{"del'), "not JSON"),
        ((delta("a"), "data: Internal Server Error"), "not JSON"),
        ((delta("a"), 'data: {"object": "error", "message": "gone"}'), "replied with an error"),
        (('data: {"type": "content_block_delta", "delta": {"text": "a"}}',), "no answer"),
        (('{"message": {"content": "a"}}', '{"done": true}'), "no answer"),
    ],
)
def test_a_stream_without_an_answer_is_reported(lines: tuple[str, ...], reason: str) -> None:
    with pytest.raises(UnusableReply, match=reason):
        streamed(*lines)


def test_a_stream_of_reasoning_alone_is_no_answer() -> None:
    chunk = {"choices": [{"index": 0, "delta": {"reasoning_content": "hm"}, "finish_reason": "length"}]}
    assert streamed("data: " + json.dumps(chunk), "data: [DONE]")[1].outcome() == ("length", ONLY_REASONING)
