"""Requests to a running server, by OpenAI's client or over plain HTTP."""

from __future__ import annotations

import json
from http.client import HTTPConnection, HTTPResponse
from typing import Any
from urllib.parse import urlsplit

from openai import OpenAI

from support.running_server import KEY, RunningServer
from support.sample_adapters import TOKENS

MODELS = ["base", "codegen", "docstring"]
TEXT = "sum of numbers in the list"
CHAT: dict[str, Any] = {"messages": [{"role": "user", "content": TEXT}], "max_tokens": TOKENS}


def send(running: RunningServer, method: str, path: str, body: Any = None, **headers: str) -> tuple[HTTPResponse, Any]:
    """Send an HTTP request without OpenAI's client; return the response and its body, decoded if it is JSON."""
    connection = HTTPConnection(urlsplit(running.url).netloc, timeout=30)
    data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {KEY}", **headers}
    connection.request(method, path, data, {name.replace("_", "-"): value for name, value in headers.items() if value})
    response = connection.getresponse()
    text = response.read()
    connection.close()
    return response, json.loads(text) if text[:1] in (b"{", b"[") else text


def expect_400(running: RunningServer, path: str, body: Any) -> dict[str, Any]:
    """Return the error of a request that the server must reject with status 400."""
    response, answer = send(running, "POST", path, body)
    assert response.status == 400, answer
    assert set(answer) == {"error"} and set(answer["error"]) == {"message", "type", "param", "code"}
    error: dict[str, Any] = answer["error"]
    return error


def stream_chunks(client: OpenAI, **parameters: Any) -> list[Any]:
    """Return all chunks of a streamed chat completion."""
    return list(client.chat.completions.create(stream=True, **parameters))
