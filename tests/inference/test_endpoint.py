"""The endpoint engine against a small server, over real HTTP."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from loopback import Reply, Server, answer

from bilora.errors import BiloraError, Unreachable
from bilora.inference.endpoint import EndpointEngine, seconds
from bilora.outside import Endpoint
from bilora.ports import Request
from bilora.records import Message

KEY = "sk-very-secret-key"


def engine(server: Server, *, retries: int = 1, cache: Path | None = None, **changes: Any) -> EndpointEngine:
    settings = {"name": "remote", "base_url": server.url, "model": "m-7b", "timeout_s": 5.0, **changes}
    return EndpointEngine(Endpoint(**settings), KEY, retries=retries, cache=cache)


def requests(count: int = 1) -> list[Request]:
    return [
        Request(
            sample_id=f"s{number}",
            messages=(
                Message(role="system", content="Answer."),
                Message(role="user", content=f"question {number}"),
            ),
            max_new_tokens=64,
            temperature=0.5,
            seed=9,
        )
        for number in range(count)
    ]


def test_an_answer_arrives_with_its_counts(server: Server) -> None:
    with engine(server) as remote:
        (completion,) = remote.generate("remote", requests())
    assert (completion.sample_id, completion.system, completion.text) == ("s0", "remote", "hello")
    assert (completion.prompt_tokens, completion.output_tokens) == (11, 3)
    assert completion.finish == "stop"
    assert completion.latency_s > 0


def test_the_settings_and_the_key_are_sent(server: Server) -> None:
    with engine(server) as remote:
        remote.generate("remote", requests())
    assert server.bodies == [
        {
            "model": "m-7b",
            "messages": [
                {"role": "system", "content": "Answer."},
                {"role": "user", "content": "question 0"},
            ],
            "temperature": 0.5,
            "seed": 9,
            "max_tokens": 64,
        }
    ]
    assert server.headers[0]["authorization"] == f"Bearer {KEY}"


def test_a_penalty_is_sent_where_there_is_one(server: Server) -> None:
    with engine(server) as remote:
        remote.generate("remote", [replace(one, frequency_penalty=0.5) for one in requests()])
    assert [body["frequency_penalty"] for body in server.bodies] == [0.5]


def test_nothing_meant_for_another_service_is_sent(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID", "OPENAI_ADMIN_KEY"):
        monkeypatch.setenv(name, "meant-for-openai")
    with EndpointEngine(Endpoint(name="remote", base_url=server.url, model="m"), None) as remote:
        remote.generate("remote", requests())
    assert "meant-for-openai" not in str(server.headers)


@pytest.mark.parametrize(("reason", "finish"), [("stop", "stop"), ("length", "length")])
def test_how_an_answer_ended_is_kept(server: Server, reason: str, finish: str) -> None:
    server.respond = lambda body, number: answer("hello", reason)
    with engine(server) as remote:
        assert remote.generate("remote", requests())[0].finish == finish


def test_order_is_kept_whatever_comes_back_first(server: Server) -> None:
    def slow_first(body: dict[str, Any], number: int) -> Reply:
        question = body["messages"][1]["content"]
        time.sleep(0.1 if question.endswith("0") else 0)
        return answer(f"to {question}")

    server.respond = slow_first
    with engine(server) as remote:
        completions = remote.generate("remote", requests(6))
    assert [one.text for one in completions] == [f"to question {number}" for number in range(6)]
    assert [one.sample_id for one in completions] == [f"s{number}" for number in range(6)]


@pytest.mark.parametrize("concurrency", [1, 3])
def test_no_more_requests_are_open_than_allowed(server: Server, concurrency: int) -> None:
    def slow(body: dict[str, Any], number: int) -> Reply:
        deadline = time.monotonic() + 5
        while server.most_busy < concurrency and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.05)  # for one more than allowed to come
        return answer("hello")

    server.respond = slow
    with engine(server, concurrency=concurrency) as remote:
        remote.generate("remote", requests(6))
    assert server.most_busy == concurrency


def test_too_many_requests_waits_as_asked_and_tries_again(server: Server) -> None:
    server.respond = lambda body, number: (
        (429, {"Retry-After": "0.3"}, {"error": {"message": "slow down"}}) if number == 1 else answer("hello")
    )
    started = time.monotonic()
    with engine(server) as remote:
        (completion,) = remote.generate("remote", requests())
    assert completion.text == "hello"
    assert time.monotonic() - started >= 0.3
    assert completion.latency_s < 0.3


def test_a_server_that_always_fails_is_an_error_completion(server: Server) -> None:
    server.respond = lambda body, number: (500, {"Retry-After": "0.01"}, {"error": {"message": "broken"}})
    with engine(server, retries=2) as remote:
        (completion,) = remote.generate("remote", requests())
    assert (completion.finish, completion.text, completion.sample_id) == ("error", "", "s0")
    assert len(server.bodies) == 3


def test_one_failure_does_not_touch_the_others(server: Server) -> None:
    server.respond = lambda body, number: (
        (400, {}, {"error": {"message": "no"}}) if "question 1" in str(body) else answer("hello")
    )
    with engine(server) as remote:
        finishes = [one.finish for one in remote.generate("remote", requests(3))]
    assert finishes == ["stop", "error", "stop"]


@pytest.mark.parametrize(
    "reply",
    [
        (200, {}, b"<html>not the API</html>"),
        (200, {}, {"choices": []}),
        (200, {}, {"choices": None}),
        (200, {}, {"error": "model is loading"}),
        (200, {}, []),
        answer("text before the filter", "content_filter"),
    ],
    ids=["html", "no choice", "null choices", "error with status 200", "list", "content filter"],
)
def test_an_odd_reply_is_an_error_completion(server: Server, reply: Reply) -> None:
    server.respond = lambda body, number: reply
    with engine(server) as remote:
        (completion,) = remote.generate("remote", requests())
    assert (completion.finish, completion.text) == ("error", "")


def test_a_server_that_is_too_slow_is_an_error_completion(server: Server) -> None:
    released = threading.Event()

    def hang(body: dict[str, Any], number: int) -> Reply:
        released.wait(5)
        return answer("too late")

    server.respond = hang
    with engine(server, retries=0, timeout_s=0.2) as remote:
        (completion,) = remote.generate("remote", requests())
    released.set()
    assert completion.finish == "error"


def test_an_unknown_host_is_an_error_for_every_request(server: Server) -> None:
    with engine(server, retries=0, base_url="http://host.invalid/v1") as remote:
        completions = remote.generate("remote", requests(3))
    assert [one.finish for one in completions] == ["error"] * 3


def test_another_system_is_refused(server: Server) -> None:
    with engine(server) as remote, pytest.raises(BiloraError, match="cannot answer as 'base'"):
        remote.generate("base", requests())
    assert server.bodies == []


def test_progress_counts_every_request(server: Server) -> None:
    counted: list[int] = []
    with engine(server) as remote:
        remote.generate("remote", requests(4), progress=counted.append)
    assert counted == [1, 1, 1, 1]


SCHEMA = {"type": "object", "properties": {}, "required": [], "additionalProperties": False}


def test_chat_asks_for_the_schema_at_temperature_zero(server: Server) -> None:
    with engine(server) as remote:
        assert remote.chat([Message(role="user", content="rate")], schema=SCHEMA, seed=3) == "hello"
    (body,) = server.bodies
    assert (body["temperature"], body["seed"]) == (0.0, 3)
    assert body["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "reply", "strict": True, "schema": SCHEMA},
    }


@pytest.mark.parametrize("echoed", [KEY, "broken"])
def test_a_failed_chat_says_what_to_do_and_never_the_key(server: Server, echoed: str) -> None:
    server.respond = lambda body, number: (401, {}, {"error": {"message": f"Incorrect API key: {echoed}"}})
    with engine(server) as remote, pytest.raises(Unreachable) as caught:
        remote.chat([Message(role="user", content="rate")], schema=SCHEMA, seed=0)
    assert "HTTP 401" in str(caught.value)
    assert KEY not in f"{caught.value!r} {caught.value.__cause__!r} {remote!r}"


def test_the_models_on_offer_are_listed(server: Server) -> None:
    with engine(server) as remote:
        assert remote.models() == ("a", "b")
    assert server.paths == ["/v1/models"]


def test_models_of_an_unknown_host_are_unreachable(server: Server) -> None:
    with engine(server, retries=0, base_url="http://host.invalid/v1") as remote, pytest.raises(Unreachable):
        remote.models()


def test_an_answer_is_paid_for_once(server: Server, tmp_path: Path) -> None:
    first = engine(server, cache=tmp_path).generate("remote", requests(3))
    again = engine(server, cache=tmp_path).generate("remote", requests(4))
    assert again[:3] == first and len(server.bodies) == 4
    engine(server, cache=tmp_path, model="other").generate("remote", requests(1))
    assert len(server.bodies) == 5


def test_a_failure_is_asked_again(server: Server, tmp_path: Path) -> None:
    server.respond = lambda body, number: (500, {}, {}) if number == 1 else answer("hello")
    made = [engine(server, cache=tmp_path, retries=0).generate("remote", requests())[0] for _ in range(2)]
    assert [(one.finish, one.reason) for one in made] == [("error", "HTTP 500: the server failed"), ("stop", "")]


def test_a_spent_budget_leaves_the_rest_unanswered(server: Server, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"budget_tokens": 28, "concurrency": 1, "cache": tmp_path}
    made = engine(server, **settings).generate("remote", requests(4))
    assert [one.finish for one in made] == ["stop", "stop", "error", "error"]
    assert made[3].reason == "the budget of 28 tokens is spent" and len(server.bodies) == 2
    more = engine(server, **settings).generate("remote", requests(4))
    assert [one.finish for one in more] == ["stop"] * 4 and len(server.bodies) == 4


def test_a_server_that_counts_is_given_its_pause(server: Server) -> None:
    limited = {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "300ms"}
    asked: list[float] = []

    def respond(body: dict[str, Any], number: int) -> Reply:
        asked.append(time.monotonic())
        status, _, content = answer("hello")
        return status, limited if number == 1 else {}, content

    server.respond = respond
    engine(server, concurrency=1).generate("remote", requests(2))
    assert asked[1] - asked[0] >= 0.29


@pytest.mark.parametrize(
    ("text", "expected"), [("7.66s", 7.66), ("2m59.5s", 179.5), ("250ms", 0.25), ("3", 3.0), ("1h", 3600.0), ("?", 0.0)]
)
def test_durations_are_read(text: str, expected: float) -> None:
    assert seconds(text) == pytest.approx(expected)


def test_a_preset_knows_address_and_key() -> None:
    groq = Endpoint(name="g", preset="groq", model="m")
    assert (groq.base_url, groq.key_env) == ("https://api.groq.com/openai/v1", "GROQ_API_KEY")
    assert Endpoint(name="g", preset="vllm", model="m", base_url="http://box:1/v1").base_url == "http://box:1/v1"
    with pytest.raises(ValueError, match="needs a base_url or a preset"):
        Endpoint(name="g", model="m")
