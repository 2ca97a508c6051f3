"""A fake OpenAI-compatible server on loopback, whose responses a test sets, correct or not."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any

from support.http_servers import serving_http

Reply = tuple[int, dict[str, str], Any]


def answer(text: str | None, finish: str = "stop") -> Reply:
    """Return the response with a chat completion."""
    return (
        200,
        {},
        {
            "id": "1",
            "object": "chat.completion",
            "created": 0,
            "model": "m",
            "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish}],
            "usage": {"prompt_tokens": 11, "completion_tokens": 3, "total_tokens": 14},
        },
    )


@dataclass
class Server:
    """Replies with `respond(body, number of the request)`, and records the requests.

    `models_response` replaces the list of models.
    """

    url: str = ""
    respond: Callable[[dict[str, Any], int], Reply] = lambda body, number: answer("hello")
    bodies: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    models: Sequence[str] = ("b", "a")
    models_response: Reply | None = None
    active_requests: int = 0
    max_active_requests: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


@contextlib.contextmanager
def serving() -> Iterator[Server]:
    """Serve for the length of the block."""
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with state.lock:
                state.bodies.append(body)
                state.headers.append({key.lower(): value for key, value in self.headers.items()})
                number = len(state.bodies)
                state.active_requests += 1
                state.max_active_requests = max(state.max_active_requests, state.active_requests)
            reply = state.respond(body, number)
            with state.lock:
                state.active_requests -= 1
            self.send(*reply)

        def do_GET(self) -> None:
            state.paths.append(self.path)
            if state.models_response:
                return self.send(*state.models_response)
            self.send(200, {}, {"object": "list", "data": [{"id": name, "object": "model"} for name in state.models]})

        def send(self, status: int, headers: dict[str, str], body: Any) -> None:
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            for key, value in {"Content-Type": "application/json", **headers}.items():
                self.send_header(key, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            pass

    with serving_http(Handler) as port:
        state.url = f"http://127.0.0.1:{port}/v1"
        yield state
