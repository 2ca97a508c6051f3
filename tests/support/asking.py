"""Asking a running server, with OpenAI's client and past it."""

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


def raw(running: RunningServer, method: str, path: str, body: Any = None, **headers: str) -> tuple[HTTPResponse, Any]:
    """Ask past the client: what it would not send, and what it does not show."""
    connection = HTTPConnection(urlsplit(running.url).netloc, timeout=30)
    data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
    given = {"Content-Type": "application/json", "Authorization": f"Bearer {KEY}", **headers}
    connection.request(method, path, data, {name.replace("_", "-"): value for name, value in given.items() if value})
    response = connection.getresponse()
    text = response.read()
    connection.close()
    return response, json.loads(text) if text[:1] in (b"{", b"[") else text


def refused(running: RunningServer, path: str, body: Any) -> dict[str, Any]:
    response, answer = raw(running, "POST", path, body)
    assert response.status == 400, answer
    assert set(answer) == {"error"} and set(answer["error"]) == {"message", "type", "param", "code"}
    error: dict[str, Any] = answer["error"]
    return error


def streamed(client: OpenAI, **asked: Any) -> list[Any]:
    return list(client.chat.completions.create(stream=True, **asked))
