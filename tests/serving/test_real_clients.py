"""Requests of real clients: neutral values, vLLM's parameters, and browsers."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from http.client import HTTPConnection
from typing import Any
from urllib.parse import urlsplit

import pytest
from openai import OpenAI
from support.running_server import KEY, RunningServer, make_engine, serving
from support.sample_adapters import SampleAdapters
from support.server_requests import CHAT, TEXT, expect_400, send, stream_chunks

from bilora.serving.chat import ChatRequest
from bilora.serving.config import ServerConfig

NEUTRAL: dict[str, Any] = {
    **{"top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0, "functions": None, "service_tier": "auto"},
    **{"parallel_tool_calls": True, "prompt_cache_key": "k", "safety_identifier": "s", "modalities": ["text"]},
    **{"reasoning_effort": None, "logit_bias": {}, "best_of": 1, "use_beam_search": False, "length_penalty": 1.0},
    **{"skip_special_tokens": True, "stop_token_ids": [], "chat_template_kwargs": {}, "tool_choice": "none"},
    **{"tools": [{"type": "function", "function": {"name": "f"}}], "stop": ["§§"] * 7, "metadata": {"a": "b"}},
}


@pytest.mark.parametrize("name", NEUTRAL)
def test_a_value_that_changes_nothing_is_accepted(
    running: RunningServer, sample_adapters: SampleAdapters, name: str
) -> None:
    body = {"model": "base", **CHAT, name: NEUTRAL[name], **({"tool_choice": "none"} if name == "tools" else {})}
    response, answer = send(running, "POST", "/v1/chat/completions", body)
    assert response.status == 200, answer
    assert answer["choices"][0]["message"]["content"] == sample_adapters.answer("base", TEXT)


@pytest.mark.parametrize(
    "changed", [{"logit_bias": {"260": 100}}, {"repetition_penalty": 3.0}, {"stop_token_ids": list(range(300, 330))}]
)
def test_a_value_that_changes_the_answer_does(running: RunningServer, client: OpenAI, changed: dict[str, Any]) -> None:
    body = {"model": "base", "messages": CHAT["messages"], "max_tokens": 30}
    unchanged = client.chat.completions.create(**body).choices[0].message.content  # type: ignore[call-overload]
    _, other = send(running, "POST", "/v1/chat/completions", {**body, **changed})
    assert other["choices"][0]["message"]["content"] != unchanged


def test_top_k_of_one_is_greedy(running: RunningServer, sample_adapters: SampleAdapters) -> None:
    body = {"model": "codegen", **CHAT, "temperature": 2.0, "top_k": 1}
    _, answer = send(running, "POST", "/v1/chat/completions", body)
    assert answer["choices"][0]["message"]["content"] == sample_adapters.answer("codegen", TEXT)


def test_calls_of_tools_in_the_history_are_read(client: OpenAI, running: RunningServer) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}
    turns: list[Any] = [
        *CHAT["messages"],
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "3"},
    ]
    [request] = ChatRequest.model_validate({"model": "base", "messages": turns}).requests("id", None, 0.0)
    assert [message.role for message in request.messages] == ["user", "assistant", "user"]
    answer = client.chat.completions.create(model="base", messages=turns, max_tokens=9).choices[0].message.content
    as_text: list[Any] = [
        *CHAT["messages"],
        {"role": "assistant", "content": '{"name": "add", "arguments": "{\\"a\\": 1}"}'},
        {"role": "user", "content": "Result of c1:\n3"},
    ]
    assert (
        answer
        == client.chat.completions.create(model="base", messages=as_text, max_tokens=9).choices[0].message.content
    )


def test_tools_to_call_are_refused_by_name(running: RunningServer) -> None:
    tools = [{"type": "function", "function": {"name": "f"}}]
    assert (
        "tools: the models here do not call tools"
        in expect_400(running, "/v1/chat/completions", {"model": "base", **CHAT, "tools": tools})["message"]
    )


def test_names_and_cache_marks_are_accepted(client: OpenAI, sample_adapters: SampleAdapters) -> None:
    part = {"type": "text", "text": TEXT, "cache_control": {"type": "ephemeral"}}
    messages: Any = [{"role": "user", "name": "alice", "content": [part]}]
    reply = client.chat.completions.create(**{**CHAT, "messages": messages}, model="base")
    assert reply.choices[0].message.content == sample_adapters.answer("base", TEXT)


def test_twenty_prompts_come_in_one_call(client: OpenAI) -> None:
    reply = client.completions.create(model="base", prompt=[f"def f{i}" for i in range(20)], max_tokens=2)
    assert [choice.index for choice in reply.choices] == list(range(20))


def test_every_chunk_reports_the_usage_so_far(client: OpenAI) -> None:
    options: Any = {"include_usage": True, "continuous_usage_stats": True}
    chunks = stream_chunks(client, model="base", stream_options=options, **CHAT)
    counted = [chunk.usage.completion_tokens for chunk in chunks]
    assert counted == sorted(counted) and counted[0] == 0 and counted[-1] == counted[-2] > 2


def test_the_error_of_a_long_prompt_is_the_one_that_fallbacks_know(running: RunningServer) -> None:
    error = expect_400(running, "/v1/chat/completions", {"model": "base", **CHAT, "max_tokens": 100_000})
    assert error["message"].startswith(f"This model's maximum context length is {running.engine.context_length} tokens")


@pytest.mark.parametrize("path", ["/health", "/v1/models", "/v1/models/base", "/metrics"])
def test_head_is_get_without_a_body(running: RunningServer, path: str) -> None:
    response, body = send(running, "HEAD", path)
    assert (response.status, body) == (200, b"")


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [("http://localhost:3000", True), ("https://127.0.0.1", True), ("http://[::1]:8501", True), ("null", False),
     ("https://example.org", False), ("http://localhost.example.org", False), ("http://evil-localhost:1", False)],
)  # fmt: skip
def test_pages_of_this_machine_may_send_requests(running: RunningServer, origin: str, allowed: bool) -> None:
    headers = {"Access_Control_Request_Method": "POST", "Access_Control_Request_Headers": "authorization,content-type"}
    response, _ = send(running, "OPTIONS", "/v1/chat/completions", None, Authorization="", Origin=origin, **headers)
    assert (response.status == 200) is allowed
    assert response.getheader("Access-Control-Allow-Origin") == (origin if allowed else None)
    wrong, _ = send(running, "POST", "/v1/chat/completions", {"model": "none"}, Origin=origin)
    assert wrong.getheader("Access-Control-Allow-Origin") == (origin if allowed else None)  # errors are readable too


def test_other_pages_are_allowed_by_name(sample_adapters: SampleAdapters) -> None:
    config = ServerConfig(make_engine(sample_adapters), "models/smoke", "0" * 40, origins=("https://example.org",))
    with serving(config) as running:
        for origin, allowed in (("https://example.org", True), ("https://example.com", False)):
            response, _ = send(running, "GET", "/v1/models", None, Origin=origin)
            assert (response.getheader("Access-Control-Allow-Origin") == origin) is allowed


def test_an_incomplete_request_does_not_delay_the_shutdown(sample_adapters: SampleAdapters) -> None:
    config = ServerConfig(make_engine(sample_adapters), "models/smoke", "0" * 40, key=KEY)
    began = time.monotonic()
    with serving(config) as running:
        address = urlsplit(running.url).netloc
        host, port = address.split(":")
        with (
            socket.create_connection((host, int(port)), timeout=10) as half,
            contextlib.closing(HTTPConnection(address, timeout=30)) as whole,
        ):
            head = [
                "POST /v1/completions HTTP/1.1",
                "Host: x",
                f"Authorization: Bearer {KEY}",
                "Content-Length: 99",
                "",
                "",
            ]
            half.sendall("\r\n".join(head).encode() + b'{"model"')
            body = {"model": "base", "prompt": TEXT, "max_tokens": 200, "ignore_eos": True}
            headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
            whole.request("POST", "/v1/completions", json.dumps(body), headers)
            while running.engine.queue_depth() == (0, 0) and time.monotonic() < began + 10:
                time.sleep(0.001)
            running.server.should_exit = True
            answered = whole.getresponse()
            assert answered.status == 200 and answered.read()  # what was accepted is answered
            assert half.recv(100).startswith(b"HTTP/1.1 503")
    assert time.monotonic() - began < 15
