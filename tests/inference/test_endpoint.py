"""The endpoint engine against a small server, over real HTTP."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from support.fake_openai_server import Reply, Server, answer

from bilora.errors import BadData, BiloraError, Unreachable
from bilora.external_services import Endpoint
from bilora.inference.endpoint.client import duration_seconds
from bilora.inference.endpoint.engine import EndpointEngine
from bilora.records import Message
from bilora.requests import Request, SamplingParams

KEY = "sk-very-secret-key"


def engine(server: Server, *, retries: int = 1, cache: Path | None = None, **changes: Any) -> EndpointEngine:
    settings = {"name": "remote", "base_url": server.url, "model": "m-7b", "timeout_s": 5.0, **changes}
    return EndpointEngine(Endpoint(**settings), KEY, retries=retries, cache=cache)


def requests(count: int = 1, **sampling: Any) -> list[Request]:
    return [
        Request(
            sample_id=f"s{number}",
            messages=(
                Message(role="system", content="Answer."),
                Message(role="user", content=f"question {number}"),
            ),
            sampling=SamplingParams(**{"max_tokens": 64, "temperature": 0.5, "seed": 9, **sampling}),
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


OPTIONAL = {
    "top_p": 0.5,
    "frequency_penalty": 0.5,
    "presence_penalty": 0.5,
    "stop": ["\n"],
    "min_tokens": 3,
    "ignore_eos": True,
}


@pytest.mark.parametrize(("name", "value"), OPTIONAL.items())
def test_what_not_every_server_knows_is_sent_where_it_is_set(server: Server, name: str, value: object) -> None:
    with engine(server) as remote:
        remote.generate("remote", requests(**{name: value}))
        remote.generate("remote", requests())
    assert [body.get(name) for body in server.bodies] == [value, None]


@pytest.mark.parametrize(("name", "value"), OPTIONAL.items())
def test_a_refused_parameter_is_left_out_with_a_remark(server: Server, name: str, value: object) -> None:
    def respond(body: dict[str, Any], number: int) -> Reply:
        if name in body:
            return 400, {}, {"error": {"message": f"Unrecognized request argument supplied: {name}"}}
        return answer("fine")

    server.respond = respond
    with engine(server) as remote:
        (completion,) = remote.generate("remote", requests(**{name: value}))
    assert (completion.text, completion.remark) == ("fine", f"without {name}")


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
    assert [completion.text for completion in completions] == [f"to question {number}" for number in range(6)]
    assert [completion.sample_id for completion in completions] == [f"s{number}" for number in range(6)]


@pytest.mark.parametrize("concurrency", [1, 3])
def test_no_more_requests_are_open_than_allowed(server: Server, concurrency: int) -> None:
    def slow(body: dict[str, Any], number: int) -> Reply:
        deadline = time.monotonic() + 5
        while server.max_active_requests < concurrency and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.05)  # for one more than allowed to come
        return answer("hello")

    server.respond = slow
    with engine(server, concurrency=concurrency) as remote:
        remote.generate("remote", requests(6))
    assert server.max_active_requests == concurrency


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
        finishes = [completion.finish for completion in remote.generate("remote", requests(3))]
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
    assert [completion.finish for completion in completions] == ["error"] * 3


def test_another_system_is_refused(server: Server) -> None:
    with engine(server) as remote, pytest.raises(BiloraError, match="does not serve 'base'"):
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


def test_a_request_with_a_schema_asks_for_it_too(server: Server) -> None:
    with engine(server) as remote:
        remote.generate("remote", requests(1, json_schema=json.dumps(SCHEMA)))
        remote.generate("remote", requests(1))
    bound, free = server.bodies
    assert bound["response_format"]["json_schema"]["schema"] == SCHEMA and "response_format" not in free


def test_how_tokens_are_chosen_is_sent_under_vllms_names_and_only_if_it_is_set(server: Server) -> None:
    chosen = {"top_k": 5, "min_p": 0.1, "repetition_penalty": 1.2}
    with engine(server) as remote:
        remote.generate("remote", requests(1, stop_token_ids=(7,), logit_bias=((3, -1.0),), **chosen))
        remote.generate("remote", requests(1))
    full, bare = server.bodies
    assert {name: full[name] for name in chosen} == chosen
    assert (full["stop_token_ids"], full["logit_bias"]) == ([7], {"3": -1.0})
    assert bare.keys().isdisjoint({*chosen, "stop_token_ids", "logit_bias"})


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
    completions = [engine(server, cache=tmp_path, retries=0).generate("remote", requests())[0] for _ in range(2)]
    assert [(completion.finish, completion.reason) for completion in completions] == [
        ("error", "HTTP 500: the server failed"),
        ("stop", ""),
    ]


def test_a_spent_budget_leaves_the_rest_unanswered(server: Server, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"budget_tokens": 28, "concurrency": 1, "cache": tmp_path}
    completions = engine(server, **settings).generate("remote", requests(4))
    assert [completion.finish for completion in completions] == ["stop", "stop", "error", "error"]
    assert completions[3].reason == "the budget of 28 tokens is spent" and len(server.bodies) == 2
    more = engine(server, **settings).generate("remote", requests(4))
    assert [completion.finish for completion in more] == ["stop"] * 4 and len(server.bodies) == 4


def test_a_server_that_counts_is_given_its_pause(server: Server) -> None:
    limited = {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "300ms"}
    request_times: list[float] = []

    def respond(body: dict[str, Any], number: int) -> Reply:
        request_times.append(time.monotonic())
        status, _, content = answer("hello")
        return status, limited if number == 1 else {}, content

    server.respond = respond
    engine(server, concurrency=1).generate("remote", requests(2))
    assert request_times[1] - request_times[0] >= 0.29


@pytest.mark.parametrize(
    ("text", "expected"), [("7.66s", 7.66), ("2m59.5s", 179.5), ("250ms", 0.25), ("3", 3.0), ("1h", 3600.0), ("?", 0.0)]
)
def test_durations_are_read(text: str, expected: float) -> None:
    assert duration_seconds(text) == pytest.approx(expected)


def test_a_preset_knows_address_and_key() -> None:
    groq = Endpoint(name="g", preset="groq", model="m")
    assert (groq.base_url, groq.key_env) == ("https://api.groq.com/openai/v1", "GROQ_API_KEY")
    assert Endpoint(name="g", preset="vllm", model="m", base_url="http://box:1/v1").base_url == "http://box:1/v1"
    with pytest.raises(ValueError, match="needs a base_url or a preset"):
        Endpoint(name="g", model="m")


def error_body(message: str, **more: Any) -> dict[str, Any]:
    return {"error": {"message": message, **more}}


def refusing(**refused: str) -> Any:
    """Respond as a server that refuses these parameters with these messages, one per request."""

    def respond(body: dict[str, Any], number: int) -> Reply:
        for name, words in refused.items():
            if name in body:
                return 400, {}, {"error": {"message": words, "param": None}}
        return answer("hello")

    return respond


def test_what_a_server_refuses_is_learned_once(server: Server) -> None:
    server.respond = refusing(seed="Unknown field `seed`", max_tokens="max_tokens is called max_completion_tokens here")
    with engine(server, concurrency=1) as remote:
        completions = remote.generate("remote", requests(5))
    assert [(completion.text, completion.finish, completion.remark) for completion in completions] == [
        ("hello", "stop", "without seed")
    ] * 5
    assert [sorted({"seed", "max_tokens", "max_completion_tokens"} & set(body)) for body in server.bodies] == [
        ["max_tokens", "seed"],
        ["max_tokens"],
        *[["max_completion_tokens"]] * 5,
    ]
    assert all(body["model"] == "m-7b" and len(body["messages"]) == 2 for body in server.bodies)


def test_requests_side_by_side_learn_together(server: Server) -> None:
    server.respond = refusing(seed="no seed, please", temperature="temperature is fixed", max_tokens="max_tokens?")
    with engine(server, concurrency=4) as remote:
        completions = remote.generate("remote", requests(24))
    assert {completion.finish for completion in completions} == {"stop"}
    assert len(server.bodies) <= 24 + 4 * 3


def test_a_temperature_that_may_not_be_zero_is_remarked(server: Server) -> None:
    server.respond = lambda body, number: (
        (422, {}, {"detail": [{"loc": ["body", "temperature"], "msg": "must be above 0"}]})
        if body.get("temperature") == 0
        else answer("hello")
    )
    greedy, drawn = requests(temperature=0.0)[0], requests(2)[1]
    with engine(server, concurrency=1) as remote:
        completions = remote.generate("remote", [greedy, drawn])
    assert [completion.remark for completion in completions] == [
        "not at temperature 0, so the answers are sampled, not greedy",
        "",
    ]
    assert [body.get("temperature") for body in server.bodies] == [0.0, None, 0.5]


def test_nothing_is_learned_from_a_request_that_fails_all_the_same(server: Server) -> None:
    server.respond = lambda body, number: (
        (400, {}, {"error": {"message": "cannot read a question on seed and temperature"}})
        if "question 0" in str(body)
        else answer("hello")
    )
    with engine(server, concurrency=1) as remote:
        completions = remote.generate("remote", requests(2))
    assert [(completion.finish, completion.remark) for completion in completions] == [("error", ""), ("stop", "")]
    assert (server.bodies[-1]["seed"], server.bodies[-1]["temperature"]) == (9, 0.5)
    assert len(server.bodies) <= 5


def test_a_server_that_is_never_content_is_asked_a_bounded_number_of_times(server: Server) -> None:
    server.respond = lambda body, number: (
        400,
        {},
        {"error": {"message": f"no {', '.join(body)}", "param": sorted(body)[-1]}},
    )
    with engine(server) as remote:
        (completion,) = remote.generate("remote", requests())
    assert completion.finish == "error" and completion.reason.startswith("HTTP 400: ")
    assert 2 <= len(server.bodies) <= 10


def test_an_answer_asked_otherwise_is_another_file(server: Server, tmp_path: Path) -> None:
    server.respond = refusing(seed="seed is unknown")
    (first,) = engine(server, cache=tmp_path).generate("remote", requests())
    assert first.remark == "without seed" and len(server.bodies) == 2
    (again,) = engine(server, cache=tmp_path).generate("remote", requests())
    assert again == first and len(server.bodies) == 3  # the refusal, which costs nothing
    server.respond = lambda body, number: answer("with a seed")
    (newer,) = engine(server, cache=tmp_path).generate("remote", requests())
    assert (newer.text, newer.remark) == ("with a seed", "")


def test_an_unknown_ending_keeps_its_answer(server: Server) -> None:
    server.respond = lambda body, number: answer("hello", "</s>")
    with engine(server) as remote:
        (completion,) = remote.generate("remote", requests())
    assert (completion.text, completion.finish, completion.reason) == ("hello", "stop", "")


def test_tokens_that_nobody_counted_are_unknown_and_cost_their_bytes(server: Server) -> None:
    def uncounted(body: dict[str, Any], number: int) -> Reply:
        status, headers, content = answer("four")
        return status, headers, {**content, "usage": None}

    server.respond = uncounted
    completions = engine(server, budget_tokens=40, concurrency=1).generate("remote", requests(4))
    assert (completions[0].prompt_tokens, completions[0].output_tokens) == (None, None)
    assert [completion.finish for completion in completions] == ["stop", "stop", "error", "error"]  # 17 + 4 bytes each


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        ((401, {}, error_body("no entry")), 'HTTP 401: the key is refused; check A_KEY (the server says: "no entry")'),
        ((403, {}, {"message": "not yours"}), "HTTP 403: the key has no permission for this"),
        ((404, {}, error_body("model 'm-7b' not found")), "HTTP 404: the server has no model 'm-7b'; it has a, b"),
        ((400, {}, error_body("gone", code="model_decommissioned")), "HTTP 400: the server has no model"),
        ((404, {"Content-Type": "text/html"}, b"<h1>Not here</h1>"), "base_url usually ends in /v1"),
        ((404, {"Content-Type": "text/plain"}, b"404 page not found"), "the server does not know http://"),
        ((405, {}, {"detail": "Method Not Allowed"}), "the server does not know http://"),
        ((429, {"Retry-After": "0"}, {"error": "later"}), "HTTP 429: too many requests"),
        ((503, {"Retry-After": "0"}, b""), "HTTP 503: the server failed"),
        ((400, {}, error_body("bad", param="messages")), "HTTP 400: the server refused the request"),
        ((200, {"Content-Type": "text/html"}, b"<html>sign in</html>"), "the reply is a web page"),
        ((200, {}, b""), "the reply is empty"),
        ((200, {}, error_body("warming up")), 'replied with an error (the server says: "warming up")'),
    ],
)  # fmt: skip
def test_a_failure_says_its_cause_in_plain_words(server: Server, reply: Reply, reason: str) -> None:
    server.respond = lambda body, number: reply
    with engine(server, retries=0, key_env="A_KEY") as remote:
        (completion,) = remote.generate("remote", requests())
    assert completion.finish == "error" and reason in completion.reason
    assert not re.search(r"[A-Z]\w+Error|NoneType", completion.reason)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://host.invalid/v1", "the host name is unknown"),
        ("http://127.0.0.1:1/v1", "the connection was refused: no server listens there"),
        ("http://127.0.0.1:port/v1", "check base_url"),
    ],
)
def test_no_connection_says_why(no_proxy: None, url: str, reason: str) -> None:
    with EndpointEngine(Endpoint(name="remote", base_url=url, model="m"), None, retries=0) as remote:
        (completion,) = remote.generate("remote", requests())
    assert reason in completion.reason


def test_a_secure_address_of_an_open_server_is_reported(server: Server) -> None:
    with engine(server, retries=0, base_url=server.url.replace("http:", "https:")) as remote:
        (completion,) = remote.generate("remote", requests())
    assert completion.reason == "TLS failed; the address may have to begin with http://"


def test_a_slow_server_is_reported(server: Server) -> None:
    released = threading.Event()
    server.respond = lambda body, number: (released.wait(5), answer("too late"))[1]
    with engine(server, retries=0, timeout_s=0.2) as remote:
        (completion,) = remote.generate("remote", requests())
    released.set()
    assert completion.reason == "the server did not answer in time"


def test_the_environment_s_proxy_is_used_and_named(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://user:pass-word-1@127.0.0.1:1")
    with engine(server, retries=0, base_url="http://host.invalid/v1") as remote:
        (completion,) = remote.generate("remote", requests())
    assert completion.reason.endswith("(through the environment's proxy)") and "pass-word" not in completion.reason
    monkeypatch.setenv("HTTP_PROXY", "nonsense://127.0.0.1")
    with engine(server, retries=0) as remote:
        (completion,) = remote.generate("remote", requests())
    assert "proxy" in completion.reason


@pytest.mark.parametrize("form", ["{key}", "Bearer {key}", "…{key}…", "{start}********"])
def test_a_server_that_repeats_the_key_is_not_quoted_on_it(server: Server, form: str) -> None:
    words = form.format(key=KEY, start=KEY[:10]) + "\n\x1b[2Jwrong"
    server.respond = lambda body, number: (401, {}, {"error": {"message": words}})
    with engine(server) as remote:
        (completion,) = remote.generate("remote", requests())
    assert KEY[:10] not in completion.reason and completion.reason.isprintable() and "wrong" in completion.reason


def test_a_key_is_stripped_before_it_is_sent(server: Server) -> None:
    with EndpointEngine(Endpoint(name="remote", base_url=server.url, model="m"), "\n a-key\n") as remote:
        remote.generate("remote", requests())
    assert server.headers[0]["authorization"] == "Bearer a-key"
    with pytest.raises(BadData, match="Copy it again"):
        EndpointEngine(Endpoint(name="remote", base_url=server.url, model="m"), "a\tkey")


@pytest.mark.parametrize("tail", ["/", "//", "/chat/completions", "/chat/completions/", " "])
def test_a_base_url_may_end_as_it_was_copied(server: Server, tail: str) -> None:
    assert Endpoint(name="remote", base_url=server.url + tail, model="m").base_url == server.url
    with engine(server, base_url=server.url + tail) as remote:
        assert remote.generate("remote", requests())[0].text == "hello"


@pytest.mark.parametrize("url", ["localhost:8000/v1", "ftp://box/v1", "http://", "//box/v1"])
def test_what_is_no_address_is_refused_with_the_params(url: str) -> None:
    with pytest.raises(ValueError, match="base_url must begin with http"):
        Endpoint(name="g", model="m", base_url=url)


@pytest.mark.parametrize(
    ("model", "listed", "missing"),
    [("a", "ab", False), ("c", "ab", True), ("c", "", False), ("c", ["org/c"], False), ("c", ["c:latest"], False)],
)
def test_a_model_that_is_not_listed_is_reported(
    server: Server, model: str, listed: Sequence[str], missing: bool
) -> None:
    server.models = listed
    with engine(server, model=model) as remote:
        warning = remote.missing_model()
        assert (warning is not None) == missing
        assert warning is None or warning == "the server does not list the model 'c'; it has a, b"
        remote.missing_model()
    assert server.paths == ["/v1/models"]


@pytest.mark.parametrize(
    "listing",
    [
        (404, {}, {"error": {"message": "model not found", "code": "model_not_found"}}),
        (200, {"Content-Type": "text/html"}, b"<html>"),
        (200, {}, {"data": "none"}),
        (200, {}, {"data": [None, 3, {}, {"id": 5}]}),
    ],
)
def test_a_server_without_a_list_of_models_is_no_hindrance(server: Server, listing: Reply) -> None:
    server.models_response = listing
    server.respond = lambda body, number: (404, {}, {"error": {"message": "model not found"}})
    with engine(server) as remote:
        assert remote.missing_model() is None
        assert "the server has no model 'm-7b'; it lists no models" in remote.generate("remote", requests())[0].reason


def test_a_long_list_of_models_is_cut(server: Server) -> None:
    server.models = [f"model-{number:02}" for number in range(30)]
    server.respond = lambda body, number: (404, {}, {"error": {"message": "model not found"}})
    with engine(server) as remote:
        completions = remote.generate("remote", requests(3))
    assert "model-07 and 22 more" in completions[0].reason and "model-08" not in completions[0].reason
    assert server.paths == ["/v1/models"]


def test_chat_goes_on_without_what_is_refused(server: Server) -> None:
    server.respond = refusing(response_format="json mode is off", temperature="temperature is 1 here")
    with engine(server) as remote:
        assert remote.chat([Message(role="user", content="rate")], schema=SCHEMA, seed=3) == "hello"
        assert remote.remarks == (
            "with the JSON schema in the prompt only",
            "not at temperature 0, so the answers are sampled, not greedy",
        )
    last = server.bodies[-1]
    assert "response_format" not in last and "temperature" not in last
    assert '"additionalProperties": false' in last["messages"][0]["content"]


@pytest.mark.parametrize(
    ("message", "finish", "reason"),
    [
        ({"content": None, "reasoning_content": "hm"}, "stop", "the reply has reasoning, but no answer"),
        ({"content": '{"A": 3'}, "length", "cut off at 1024 tokens"),
        ({"content": "no"}, "content_filter", "withheld the answer"),
    ],
)
def test_a_judge_without_an_answer_was_reached_all_the_same(
    server: Server, message: dict[str, Any], finish: str, reason: str
) -> None:
    reply = {"choices": [{"index": 0, "message": message, "finish_reason": finish}]}
    server.respond = lambda body, number: (200, {}, reply)
    with engine(server) as remote, pytest.raises(BiloraError, match=reason) as caught:
        remote.chat([Message(role="user", content="rate")], schema=SCHEMA, seed=0)
    assert not isinstance(caught.value, Unreachable)
