"""Streamed answers equal complete ones, and can be stopped."""

from __future__ import annotations

import threading
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
import torch
from support.fake_openai_server import Reply, Server, answer

from bilora.errors import BadData, Unreachable
from bilora.external_services import Endpoint
from bilora.inference.endpoint.engine import EndpointEngine
from bilora.inference.torch.engine import TorchEngine
from bilora.records import Completion, Message
from bilora.requests import Request, SamplingParams


def request(text: str = "Write a function that adds.", tokens: int = 24) -> Request:
    return Request("s", (Message(role="user", content=text),), SamplingParams(max_tokens=tokens))


def read_all(stream: Generator[str, None, Completion]) -> tuple[str, Completion]:
    texts = []
    while True:
        try:
            texts.append(next(stream))
        except StopIteration as end:
            return "".join(texts), end.value


@pytest.fixture(scope="module")
def engine(smoke_loaded: Any) -> TorchEngine:
    return TorchEngine(smoke_loaded, {}, batch_size=4)


def test_the_pieces_are_the_answer(engine: TorchEngine) -> None:
    (whole,) = engine.generate("base", [request()])
    text, completion = read_all(engine.stream("base", request()))
    assert (text, completion.text, completion.output_tokens, completion.finish) == (
        whole.text,
        whole.text,
        whole.output_tokens,
        whole.finish,
    )


def test_closing_ends_the_work_and_frees_the_model(engine: TorchEngine) -> None:
    stream = engine.stream("base", request(tokens=400))
    next(stream)
    stream.close()
    for thread in threading.enumerate():
        if thread.name == "batch":
            thread.join(5)
    assert engine.queue_depth() == (0, 0)
    assert engine.generate("base", [request(tokens=2)])[0].output_tokens == 2


def test_an_unknown_model_is_refused_before_anything_is_made(engine: TorchEngine) -> None:
    with pytest.raises(BadData, match="no such model"):
        next(engine.stream("poetry", request()))
    assert engine.generate("base", [request(tokens=2)])


def test_a_failure_in_the_model_reaches_the_reader(engine: TorchEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("out of memory")

    with monkeypatch.context() as during:
        during.setattr(torch.nn.Embedding, "forward", broken)
        with pytest.raises(RuntimeError, match="out of memory"):
            list(engine.stream("base", request()))
        with pytest.raises(RuntimeError, match="out of memory"):
            engine.generate("base", [request(), request("again")])
    assert engine.generate("base", [request(tokens=2)])[0].output_tokens == 2


def events(*lines: str) -> bytes:
    return "".join(f"data: {line}\n\n" for line in (*lines, "[DONE]")).encode()


CHUNK = '{{"id": "1", "object": "chat.completion.chunk", "created": 0, "model": "m", "choices": [{0}]{1}}}'
SAID = '{{"index": 0, "delta": {{"content": "{0}"}}, "finish_reason": {1}}}'


def remote(server: Server) -> EndpointEngine:
    return EndpointEngine(Endpoint(name="r", base_url=server.url, model="m", timeout_s=2), "key", retries=0)


def test_a_server_s_events_are_pieces(server: Server) -> None:
    usage = ', "usage": {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9}'
    body = events(
        CHUNK.format(SAID.format("Hello", "null"), ""),
        CHUNK.format(SAID.format(" there", '"length"'), ""),
        CHUNK.format("", usage),
    )
    server.respond = lambda *_: (200, {"Content-Type": "text/event-stream"}, body)
    text, completion = read_all(remote(server).stream("codegen", request()))
    assert (text, completion.text, completion.finish, completion.output_tokens) == (
        "Hello there",
        "Hello there",
        "length",
        2,
    )
    assert server.bodies[0]["model"] == "codegen" and server.bodies[0]["stream"] is True


def test_a_server_that_fails_is_one_sentence(server: Server) -> None:
    server.respond = lambda *_: (500, {}, {})
    with pytest.raises(Unreachable, match="HTTP 500"):
        list(remote(server).stream("codegen", request()))


STREAM = {"Content-Type": "text/event-stream"}


def test_a_server_that_does_not_stream_is_asked_for_a_whole_answer(server: Server) -> None:
    def respond(body: dict[str, Any], number: int) -> Reply:
        for name in ("stream_options", "stream"):
            if name in body:
                return 400, {}, {"error": {"message": f"unsupported: {name}"}}
        return answer("whole")

    server.respond = respond
    text, completion = read_all(remote(server).stream("codegen", request()))
    assert (text, completion.text, completion.finish, completion.output_tokens) == ("whole", "whole", "stop", 3)
    assert len(server.bodies) == 3


def test_a_refusal_inside_a_stream_is_a_refusal(server: Server) -> None:
    def respond(body: dict[str, Any], number: int) -> Reply:
        if "seed" in body:
            return 200, STREAM, events('{"error": {"message": "seed?", "param": "seed"}}')
        return 200, STREAM, events(CHUNK.format(SAID.format("Hello", '"eos"'), ""))

    server.respond = respond
    text, completion = read_all(remote(server).stream("codegen", request()))
    assert (text, completion.finish, completion.remark, completion.output_tokens) == (
        "Hello",
        "stop",
        "without seed",
        None,
    )


def test_an_error_after_the_first_words_is_one_sentence(server: Server) -> None:
    body = events(CHUNK.format(SAID.format("Hel", "null"), ""), '{"error": {"message": "out of memory"}}')
    server.respond = lambda *_: (200, STREAM, body)
    stream = remote(server).stream("codegen", request())
    assert next(stream) == "Hel"
    with pytest.raises(Unreachable, match='the server says: "out of memory"'):
        next(stream)


def test_a_stream_that_is_cut_off_is_one_sentence(server: Server) -> None:
    body = events(CHUNK.format(SAID.format("Hel", "null"), ""))[:-20]
    server.respond = lambda *_: (200, {**STREAM, "Content-Encoding": "gzip"}, body)
    with pytest.raises(Unreachable, match=r"^Endpoint 'r' gave no usable answer: [a-z ]+\.$"):
        list(remote(server).stream("codegen", request()))


def test_two_readers_take_turns(engine: TorchEngine, tmp_path: Path) -> None:
    expected = engine.generate("base", [request("one"), request("two")])
    texts: dict[str, str] = {}

    def read(text: str) -> None:
        texts[text] = read_all(engine.stream("base", request(text)))[0]

    threads = [threading.Thread(target=read, args=(text,)) for text in ("one", "two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [texts["one"], texts["two"]] == [completion.text for completion in expected]
