"""The requests of `vllm bench serve`, whose package conflicts with those of .venv.

The bodies are those that vLLM 0.32 builds for the dataset `random`: in vllm/benchmarks/lib/endpoint_request_func.py for
the backends `openai`, `openai-chat` and `openai-responses`, and in vllm/benchmarks/serve.py before the benchmark.
"""

from __future__ import annotations

import json
from http.client import HTTPConnection
from typing import Any
from urllib.parse import urlsplit

import pytest
from conftest import KEY, Server

PROMPT = "Write a Python function that adds two numbers."
TOKENS = 24
STREAM = {"stream": True, "stream_options": {"include_usage": True}}
COMPLETION = {"model": "base", "prompt": PROMPT, "repetition_penalty": 1.0, "max_tokens": TOKENS, "logprobs": None}
RESPONSE = {"model": "base", "input": PROMPT, "max_output_tokens": TOKENS, "stream": True, "store": False}
CONTENT = [{"type": "text", "text": PROMPT}]
CHAT = {"model": "base", "messages": [{"role": "user", "content": CONTENT}], "max_completion_tokens": TOKENS}


def send(server: Server, method: str, path: str, body: dict[str, Any] | None = None) -> tuple[str | None, str]:
    """Return the content type and the text of a response."""
    connection = HTTPConnection(urlsplit(server.address).netloc, timeout=120)
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {KEY}", "x-request-id": "bench-0"}
    connection.request(method, path, json.dumps(body) if body else None, headers)
    response = connection.getresponse()
    text = response.read().decode()
    connection.close()
    assert response.status == 200, text
    return response.getheader("Content-Type"), text


@pytest.mark.parametrize("sampling", [{}, {"temperature": 0.0, "top_p": 1.0, "top_k": -1, "min_p": 0.0}], ids=len)
@pytest.mark.parametrize(
    ("path", "body"), [("/v1/completions", COMPLETION), ("/v1/chat/completions", CHAT)], ids=["openai", "openai-chat"]
)
def test_a_request_streams_the_requested_number_of_tokens(
    server: Server, path: str, body: dict[str, Any], sampling: dict[str, float]
) -> None:
    content_type, text = send(server, "POST", path, {**body, **STREAM, "ignore_eos": True, **sampling})
    assert content_type is not None and content_type.startswith("text/event-stream")
    *events, last_event, after = text.split("\n\n")
    assert (last_event, after) == ("data: [DONE]", "")
    *chunks, last = [json.loads(event.removeprefix("data: ")) for event in events]
    assert last["choices"] == []
    assert last["usage"]["completion_tokens"] == TOKENS
    assert last["usage"]["prompt_tokens"] >= len(PROMPT.split())
    assert last["usage"]["total_tokens"] == last["usage"]["prompt_tokens"] + TOKENS
    choices = [choice for chunk in chunks for choice in chunk["choices"]]
    texts = [choice["delta"].get("content") if path == "/v1/chat/completions" else choice["text"] for choice in choices]
    assert sum(bool(text) for text in texts) > TOKENS // 2  # a chunk per token, unless a character has several tokens
    assert [choice["finish_reason"] for choice in choices] == [None] * (len(choices) - 1) + ["length"]


def test_a_response_streams_the_requested_number_of_tokens(server: Server) -> None:
    _, text = send(server, "POST", "/v1/responses", {**RESPONSE, "ignore_eos": True})
    events = [json.loads(event.partition("data: ")[2]) for event in text.split("\n\n") if event]
    deltas = [event["delta"] for event in events if event["type"] == "response.output_text.delta"]
    assert len(deltas) > TOKENS // 2
    last = events[-1]["response"]
    assert last["output"][0]["content"][0]["text"] == "".join(deltas)
    assert last["usage"]["output_tokens"] == TOKENS
    assert (last["status"], last["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})


def test_the_benchmark_can_look_up_the_model_and_count_prompt_tokens(server: Server) -> None:
    first = json.loads(send(server, "GET", "/v1/models")[1])["data"][0]
    assert first["id"] == "base" and first["root"]
    body = {"model": first["root"], "prompt": PROMPT, "add_special_tokens": False}
    tokens = json.loads(send(server, "POST", "/tokenize", body)[1])["tokens"]
    assert tokens
    text = json.loads(send(server, "POST", "/detokenize", {"model": first["root"], "tokens": tokens})[1])["prompt"]
    assert text == PROMPT
