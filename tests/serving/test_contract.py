"""OpenAI's API, tested with OpenAI's client."""

from __future__ import annotations

import json
from http.client import HTTPConnection
from typing import Any
from urllib.parse import urlsplit

import pytest
from openai import APIStatusError, AuthenticationError, BadRequestError, NotFoundError, OpenAI
from support.running_server import KEY, RunningServer
from support.sample_adapters import TOKENS, SampleAdapters, chat_request
from support.server_requests import CHAT, MODELS, TEXT, expect_400, send, stream_chunks

from bilora.requests import Request, SamplingParams
from bilora.storage import adapter_sha256


def test_models_are_the_base_and_its_adapters(
    client: OpenAI, running: RunningServer, sample_adapters: SampleAdapters
) -> None:
    models = {model.id: model for model in client.models.list()}
    assert list(models) == MODELS
    assert [models[name].to_dict()["parent"] for name in MODELS] == [None, "base", "base"]
    assert {models[name].to_dict()["max_model_len"] for name in MODELS} == {running.engine.context_length}
    assert models["codegen"].to_dict()["sha256"] == adapter_sha256(sample_adapters.folders["codegen"])
    assert client.models.retrieve("docstring").id == "docstring"


@pytest.mark.parametrize("model", MODELS)
def test_a_chat_is_answered_by_the_model_that_was_named(
    client: OpenAI, sample_adapters: SampleAdapters, model: str
) -> None:
    reply = client.chat.completions.create(model=model, **CHAT)
    assert reply.choices[0].message.content == sample_adapters.answer(model, TEXT)
    assert (reply.model, reply.object, reply.choices[0].message.role) == (model, "chat.completion", "assistant")
    assert reply.usage is not None and reply.usage.completion_tokens <= TOKENS
    assert reply.usage.total_tokens == reply.usage.prompt_tokens + reply.usage.completion_tokens
    version = reply.system_fingerprint or ""
    assert model == "base" or version.endswith(adapter_sha256(sample_adapters.folders[model])[:12])


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("include_usage", [True, False])
def test_a_stream_has_the_same_answer(
    client: OpenAI, sample_adapters: SampleAdapters, model: str, include_usage: bool
) -> None:
    chunks = stream_chunks(client, model=model, stream_options={"include_usage": include_usage}, **CHAT)
    texts = [choice.delta.content or "" for chunk in chunks for choice in chunk.choices]
    assert "".join(texts) == sample_adapters.answer(model, TEXT)
    assert chunks[0].choices[0].delta.role == "assistant"
    assert len({chunk.id for chunk in chunks}) == 1
    finishes = [choice.finish_reason for chunk in chunks for choice in chunk.choices if choice.finish_reason]
    assert finishes == [client.chat.completions.create(model=model, **CHAT).choices[0].finish_reason]
    usages = [chunk.usage for chunk in chunks if chunk.usage]
    assert len(usages) == int(include_usage)
    if include_usage:
        assert chunks[-1].choices == [] and usages[0].total_tokens > TOKENS


def test_a_stream_ends_in_done(running: RunningServer) -> None:
    response, text = send(running, "POST", "/v1/chat/completions", {"model": "base", "stream": True, **CHAT})
    assert response.getheader("Content-Type", "").startswith("text/event-stream")
    lines = [line for line in text.decode().split("\n\n") if line]
    assert lines[-1] == "data: [DONE]" and all(line.startswith("data: ") for line in lines)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("stream", [True, False])
def test_legacy_completions_continue_the_text(client: OpenAI, running: RunningServer, model: str, stream: bool) -> None:
    prompt = "def add(a, b):"
    expected = running.engine.generate(model, [Request("x", (), SamplingParams(max_tokens=9), text=prompt)])[0]
    if stream:
        parts = client.completions.create(model=model, prompt=prompt, max_tokens=9, stream=True)
        assert "".join(part.choices[0].text for part in parts if part.choices) == expected.text
    else:
        reply = client.completions.create(model=model, prompt=prompt, max_tokens=9)
        assert (reply.choices[0].text, reply.object) == (expected.text, "text_completion")
        assert reply.usage is not None and reply.usage.prompt_tokens == expected.prompt_tokens


def test_several_prompts_have_several_choices(client: OpenAI) -> None:
    first, second = (client.completions.create(model="base", prompt=text, max_tokens=5) for text in ("def", "return"))
    both = client.completions.create(model="base", prompt=["def", "return"], max_tokens=5)
    assert [choice.text for choice in both.choices] == [first.choices[0].text, second.choices[0].text]
    assert both.usage is not None and first.usage is not None and second.usage is not None
    assert both.usage.prompt_tokens == first.usage.prompt_tokens + second.usage.prompt_tokens
    assert client.completions.create(model="base", prompt="def").usage.completion_tokens <= 16


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("n", [1, 2, 5])
def test_n_answers_have_seeds_of_their_own(client: OpenAI, n: int, stream: bool) -> None:
    body = {**CHAT, "model": "codegen", "n": n, "seed": 7, "temperature": 1.5, "max_tokens": 12}
    reply = client.chat.completions.create(**body)
    texts = [choice.message.content for choice in reply.choices]
    assert len(set(texts)) == n and [choice.index for choice in reply.choices] == list(range(n))
    if stream:
        streamed_texts = [""] * n
        for chunk in stream_chunks(client, **body):
            for choice in chunk.choices:
                streamed_texts[choice.index] += choice.delta.content or ""
        assert streamed_texts == texts
    alone = client.chat.completions.create(**{**body, "n": 1})
    assert alone.choices[0].message.content == texts[0]
    assert reply.usage is not None and alone.usage is not None
    assert reply.usage.prompt_tokens == alone.usage.prompt_tokens


def test_a_seed_repeats_and_no_seed_does_not(client: OpenAI) -> None:
    def answer_text(**extra: Any) -> str | None:
        reply = client.chat.completions.create(model="base", temperature=2.0, **{**CHAT, "max_tokens": 20}, **extra)
        return reply.choices[0].message.content

    assert answer_text(seed=-5) == answer_text(seed=-5)
    assert len({answer_text() for _ in range(3)}) > 1


@pytest.mark.parametrize("penalty", ["frequency_penalty", "presence_penalty"])
def test_penalties_change_the_answer(client: OpenAI, running: RunningServer, penalty: str) -> None:
    reply = client.chat.completions.create(model="base", **{**CHAT, "max_tokens": 40}, **{penalty: 2.0})
    (expected,) = running.engine.generate("base", [chat_request(TEXT, 40, **{penalty: 2.0})])
    assert reply.choices[0].message.content == expected.text
    assert not expected.text.startswith(running.engine.generate("base", [chat_request(TEXT, 40)])[0].text)


@pytest.mark.parametrize("temperature", [0, 1e-30, 0.5, 2])
@pytest.mark.parametrize("top_p", [1e-9, 0.5, 1])
def test_any_temperature_and_nucleus_give_an_answer(
    client: OpenAI, sample_adapters: SampleAdapters, temperature: float, top_p: float
) -> None:
    reply = client.chat.completions.create(model="base", temperature=temperature, top_p=top_p, seed=1, **CHAT)
    if temperature < 0.1 or top_p < 0.1:
        assert reply.choices[0].message.content == sample_adapters.answer("base", TEXT)
    assert reply.choices[0].finish_reason in ("stop", "length")


@pytest.mark.parametrize("as_list", [True, False])
@pytest.mark.parametrize("stream", [True, False])
def test_stop_strings_end_the_answer(
    client: OpenAI, sample_adapters: SampleAdapters, as_list: bool, stream: bool
) -> None:
    whole = sample_adapters.answer("docstring", TEXT)
    stop = whole[2:5]
    body: dict[str, Any] = {**CHAT, "model": "docstring", "stop": [stop, "zzz"] if as_list else stop}
    if stream:
        chunks = stream_chunks(client, **body)
        text = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
        finish = chunks[-1].choices[0].finish_reason
    else:
        choice = client.chat.completions.create(**body).choices[0]
        text, finish = choice.message.content or "", choice.finish_reason
    assert (text, finish) == (whole[: whole.index(stop)], "stop")


@pytest.mark.parametrize("limit", ["max_tokens", "max_completion_tokens"])
@pytest.mark.parametrize("tokens", [1, 2, 5])
def test_both_limits_are_kept(client: OpenAI, limit: str, tokens: int) -> None:
    reply = client.chat.completions.create(model="codegen", messages=CHAT["messages"], **{limit: tokens})
    assert reply.usage is not None and reply.usage.completion_tokens <= tokens
    assert reply.usage.completion_tokens == tokens or reply.choices[0].finish_reason == "stop"


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("limits", [{"ignore_eos": True}, {"min_tokens": 40}, {"min_tokens": 30, "ignore_eos": True}])
def test_an_answer_is_as_long_as_its_minimum(client: OpenAI, limits: dict[str, Any], stream: bool) -> None:
    body = {"model": "base", "messages": [{"role": "user", "content": "x"}], "max_tokens": 40, "extra_body": limits}
    if stream:
        options = {"include_usage": True}
        usage = stream_chunks(client, **body, stream_options=options)[-1].usage
    else:
        usage = client.chat.completions.create(**body).usage
    assert usage.completion_tokens == 40


def test_a_minimum_above_the_limit_is_refused_in_a_sentence(running: RunningServer) -> None:
    error = expect_400(running, "/v1/chat/completions", {"model": "base", **CHAT, "min_tokens": TOKENS + 1})
    assert error["message"].startswith(f"min_tokens is {TOKENS + 1}, but this answer has at most {TOKENS} tokens; ")
    assert error["param"] == "min_tokens"
    error = expect_400(running, "/v1/completions", {"model": "base", "prompt": "x", "min_tokens": 17})
    assert error["message"].startswith("min_tokens is 17, but this answer has at most 16 tokens; ")


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("top", [0, 3, 20])
def test_chat_logprobs(client: OpenAI, top: int, stream: bool) -> None:
    body: dict[str, Any] = {**CHAT, "model": "base", "logprobs": True, "top_logprobs": top}
    if stream:
        tokens = [
            token
            for chunk in stream_chunks(client, **body)
            for choice in chunk.choices
            if choice.logprobs
            for token in choice.logprobs.content or ()
        ]
    else:
        logprobs = client.chat.completions.create(**body).choices[0].logprobs
        assert logprobs is not None
        tokens = logprobs.content or []
    reply = client.chat.completions.create(model="base", **CHAT)
    assert "".join(token.token for token in tokens) == reply.choices[0].message.content
    assert all(token.logprob <= 0 and len(token.top_logprobs) == top for token in tokens)
    assert all(token.top_logprobs[0].token == token.token for token in tokens if top)
    assert all(bytes(token.bytes).decode() == token.token for token in tokens if token.bytes)


@pytest.mark.parametrize("count", [0, 2, 5])
def test_legacy_logprobs(client: OpenAI, count: int) -> None:
    choice = client.completions.create(model="base", prompt="def add", max_tokens=6, logprobs=count).choices[0]
    logprobs = choice.logprobs
    assert logprobs is not None and logprobs.tokens and logprobs.text_offset is not None
    assert "".join(logprobs.tokens) == choice.text
    pairs = zip(logprobs.text_offset, logprobs.tokens, strict=True)
    assert all(choice.text[offset:].startswith(token) for offset, token in pairs)
    assert all(len(alternatives) <= count for alternatives in logprobs.top_logprobs or ())


def test_no_logprobs_unless_requested(client: OpenAI) -> None:
    assert client.chat.completions.create(model="base", **CHAT).choices[0].logprobs is None


@pytest.mark.parametrize("cuts", [(0,), (0, 9), (0, 3, 12)], ids=len)
def test_text_may_come_in_parts(client: OpenAI, sample_adapters: SampleAdapters, cuts: tuple[int, ...]) -> None:
    content: Any = [{"type": "text", "text": TEXT[a:b]} for a, b in zip(cuts, (*cuts[1:], None), strict=True)]
    reply = client.chat.completions.create(
        model="base", messages=[{"role": "user", "content": content}], max_tokens=TOKENS
    )
    assert reply.choices[0].message.content == sample_adapters.answer("base", TEXT)


def test_developer_is_system(client: OpenAI) -> None:
    messages_sent = []
    for role in ("system", "developer"):
        messages: Any = [{"role": role, "content": "You sort."}, *CHAT["messages"]]
        messages_sent.append(
            client.chat.completions.create(model="base", messages=messages, max_tokens=9).choices[0].message
        )
    assert messages_sent[0] == messages_sent[1]


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("model", ["gpt-4o", "Base", "codegen2", "../base", "кодген"])
def test_an_unknown_model_is_not_found_and_never_the_base(
    running: RunningServer, model: str, stream: bool, path: str
) -> None:
    content = {"messages": CHAT["messages"]} if "chat" in path else {"prompt": TEXT}
    response, answer = send(running, "POST", path, {"model": model, "stream": stream, **content})
    assert (response.status, answer["error"]["code"], answer["error"]["param"]) == (404, "model_not_found", "model")


def test_the_client_knows_these_errors(client: OpenAI, running: RunningServer) -> None:
    with pytest.raises(NotFoundError):
        client.chat.completions.create(model="nobody", **CHAT)
    with pytest.raises(NotFoundError):
        client.models.retrieve("nobody")
    with pytest.raises(AuthenticationError):
        running.client("sk-wrong").models.list()
    with pytest.raises(APIStatusError) as refusal:
        client.chat.completions.create(model="base", **{**CHAT, "max_tokens": 100_000})
    assert refusal.value.code == "context_length_exceeded"


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/base", "/v1/chat/completions", "/v1/completions", "/v1/x"])
@pytest.mark.parametrize(
    "authorization", ["", "Bearer", "Bearer ", f"Basic {KEY}", f"Bearer {KEY}x", "Bearer ключ", KEY]
)
def test_without_the_key_nothing_is_reported(running: RunningServer, path: str, authorization: str) -> None:
    header = authorization.encode().decode("latin-1")
    method = "POST" if path.endswith("completions") else "GET"
    response, answer = send(running, method, path, None, Authorization=header)
    assert (response.status, answer["error"]["code"]) == (401, "invalid_api_key")
    assert KEY not in json.dumps(answer)
    assert response.getheader("WWW-Authenticate") == "Bearer"


WRONG: dict[str, dict[str, Any]] = {
    "no messages": {"messages": []},
    "null messages": {"messages": None},
    "a role of nobody": {"messages": [{"role": "king", "content": "x"}]},
    "a tool's turn without content": {"messages": [{"role": "tool"}]},
    "a user who calls tools": {
        "messages": [{"role": "user", "content": "x", "tool_calls": [{"function": {"name": "f", "arguments": ""}}]}]
    },
    "no content": {"messages": [{"role": "user", "content": None}]},
    "an image": {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
    "half a surrogate": {"messages": [{"role": "user", "content": "\ud800"}]},
    "hot": {"temperature": 2.1},
    "cold": {"temperature": -0.1},
    "temperature in words": {"temperature": "warm"},
    "temperature none": {"temperature": float("nan")},
    "an empty nucleus": {"top_p": 0},
    "a nucleus too large": {"top_p": 1.1},
    "no choices": {"n": 0},
    "too many choices": {"n": 17},
    "half a choice": {"n": 1.5},
    "no tokens": {"max_tokens": 0},
    "fewer tokens than none": {"max_tokens": -1},
    "two limits": {"max_tokens": 3, "max_completion_tokens": 4},
    "a negative minimum": {"min_tokens": -1},
    "half a minimum": {"min_tokens": 1.5},
    "a minimum above the limit": {"min_tokens": TOKENS + 1},
    "a minimum above the context": {"max_tokens": None, "min_tokens": 5000},
    "an end to ignore in words": {"ignore_eos": "please"},
    "too many stops": {"stop": ["x"] * 33},
    "an empty stop": {"stop": ""},
    "a seed too large": {"seed": 2**63},
    "a seed in words": {"seed": "one"},
    "top without logprobs": {"top_logprobs": 2},
    "too many logprobs": {"logprobs": True, "top_logprobs": 21},
    "options without a stream": {"stream_options": {"include_usage": True}},
    "tools": {"tools": [{"type": "function", "function": {"name": "f"}}]},
    "a penalty": {"presence_penalty": 2.1},
    "another penalty": {"frequency_penalty": -2.1},
    "a bias too large": {"logit_bias": {"5": 101}},
    "a bias of no token": {"logit_bias": {"5000000": 1}},
    "a bias of a word": {"logit_bias": {"the": 1}},
    "fewer than all": {"top_k": -2},
    "a share above one": {"min_p": 1.5},
    "no repetition at all": {"repetition_penalty": 0},
    "a stop that is no token": {"stop_token_ids": [5000000]},
    "an effort": {"reasoning_effort": "low"},
    "sound": {"modalities": ["text", "audio"]},
    "another service": {"service_tier": "priority"},
    "functions": {"functions": [{"name": "f"}]},
    "beams": {"use_beam_search": True},
    "an unknown field": {"top_q": 5},
    "more than the context": {"max_tokens": 5000},
    "no model": {"model": None},
    "an empty model": {"model": ""},
}


@pytest.mark.parametrize("name", WRONG)
def test_an_invalid_request_is_refused(running: RunningServer, name: str) -> None:
    error = expect_400(running, "/v1/chat/completions", {"model": "base", **CHAT, **WRONG[name]})
    assert error["type"] == "invalid_request_error" and error["message"]


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"null", b'"x"', b"\xff\xfe", b"[" * 5000],
    ids=["none", "open", "list", "null", "text", "bytes", "deep"],
)
def test_a_body_that_is_no_request_is_refused(running: RunningServer, body: bytes) -> None:
    response, answer = send(running, "POST", "/v1/chat/completions", body)
    assert response.status == 400 and answer["error"]["message"]


@pytest.mark.parametrize(
    "wrong",
    [{"prompt": []}, {"prompt": [[]]}, {"prompt": ["a"] * 257}, {"max_tokens": 0}, {"best_of": 2}, {"suffix": "x"},
     {"logprobs": 21}, {"prompt": None}, {"prompt": ""}, {"prompt": [5000000]}, {"prompt": [-1]}],
    ids=["none", "no tokens", "many", "nothing", "best", "suffix", "logprobs", "null", "empty", "unknown", "below"],
)  # fmt: skip
def test_legacy_requests_are_checked_too(running: RunningServer, wrong: dict[str, Any]) -> None:
    assert expect_400(running, "/v1/completions", {"model": "base", "prompt": "x", **wrong})["message"]


def test_values_that_change_nothing_are_accepted(client: OpenAI, sample_adapters: SampleAdapters) -> None:
    reply = client.chat.completions.create(
        model="base", **CHAT, presence_penalty=0, frequency_penalty=0.0, logit_bias={}, tools=[], user="u",
        response_format={"type": "text"}, n=1, stop=None, seed=None, temperature=None, stream=False, store=False,
    )  # fmt: skip
    assert reply.choices[0].message.content == sample_adapters.answer("base", TEXT)


@pytest.mark.parametrize("form", ["object", "dump"])
def test_a_reply_goes_back_as_a_turn(client: OpenAI, form: str) -> None:
    message = client.chat.completions.create(model="codegen", **CHAT).choices[0].message
    turn: Any = message if form == "object" else message.model_dump()
    turns = [*CHAT["messages"], turn, {"role": "user", "content": "And now?"}]
    plain_messages = [
        *CHAT["messages"],
        {"role": "assistant", "content": message.content},
        {"role": "user", "content": "And now?"},
    ]
    first, second = (
        client.chat.completions.create(model="codegen", messages=messages, max_tokens=9)
        for messages in (turns, plain_messages)
    )
    assert first.choices[0].message.content == second.choices[0].message.content


def test_a_prompt_longer_than_the_context_is_refused(running: RunningServer) -> None:
    long = {"model": "base", "messages": [{"role": "user", "content": "x y " * 3000}]}
    assert expect_400(running, "/v1/chat/completions", long)["code"] == "context_length_exceeded"


def test_an_answer_without_a_limit_ends_with_the_context(client: OpenAI, running: RunningServer) -> None:
    reply = client.chat.completions.create(model="codegen", messages=[{"role": "user", "content": "of the " * 150}])
    assert reply.usage is not None and reply.usage.total_tokens <= running.engine.context_length


@pytest.mark.parametrize("with_length", [True, False])
def test_a_body_that_is_too_large_is_refused(running: RunningServer, with_length: bool) -> None:
    headers = {} if with_length else {"Transfer_Encoding": "chunked"}
    connection = HTTPConnection(urlsplit(running.url).netloc, timeout=30)
    headers = {"Authorization": f"Bearer {KEY}", **{k.replace("_", "-"): v for k, v in headers.items()}}
    chunks = (b"x" * 50_000 for _ in range(3))
    connection.request(
        "POST", "/v1/completions", b"x" * 150_000 if with_length else chunks, headers, encode_chunked=not with_length
    )
    response = connection.getresponse()
    assert response.status == 413 and json.loads(response.read())["error"]["code"] == "request_too_large"
    connection.close()


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/v1/completions", 405), ("GET", "/v2", 404), ("POST", "/health", 405)]
)
def test_other_paths_and_methods_are_errors_of_the_same_form(
    running: RunningServer, method: str, path: str, status: int
) -> None:
    response, answer = send(running, method, path)
    assert response.status == status and answer["error"]["message"]


@pytest.mark.parametrize("client_id", ["mine-1", "", "a b", "x" * 200])
def test_every_reply_has_a_request_id(running: RunningServer, client_id: str) -> None:
    response, _ = send(running, "GET", "/v1/models", None, X_Request_ID=client_id)
    request_id = response.getheader("X-Request-ID", "")
    assert request_id == client_id if client_id == "mine-1" else len(request_id) == 32


def test_health_names_the_adapters_bytes(running: RunningServer, sample_adapters: SampleAdapters) -> None:
    response, answer = send(running, "GET", "/health", None, Authorization="")
    assert response.status == 200 and answer["status"] == "ok"
    assert answer["adapters"] == {
        name: adapter_sha256(sample_adapters.folders[name]) for name in ("codegen", "docstring")
    }


def test_metrics_count_and_contain_no_text(running: RunningServer, client: OpenAI) -> None:
    client.chat.completions.create(model="codegen", **CHAT)
    _, page = send(running, "GET", "/metrics", None, Authorization="")
    text = page.decode()
    assert 'bilora_tokens_total{kind="answer",model="codegen"}' in text
    assert 'bilora_replies_total{path="/v1/chat/completions",status="200"}' in text
    assert "bilora_running 0.0" in text and "bilora_waiting 0.0" in text
    assert KEY not in text and TEXT not in text and "gpt-4o" not in text


def test_a_stream_s_tokens_have_the_places_that_they_have_in_the_whole(client: OpenAI) -> None:
    body: dict[str, Any] = {"model": "base", "prompt": "def add", "max_tokens": 12, "logprobs": 0}
    first = client.completions.create(**body).choices[0].logprobs
    assert first is not None and first.tokens
    body["stop"] = [token + "§" for token in first.tokens[1:4]]  # pending text may begin one
    whole = client.completions.create(**body).choices[0].logprobs
    chunks = [chunk.choices[0] for chunk in client.completions.create(**body, stream=True)]
    reported = [chunk.logprobs for chunk in chunks if chunk.logprobs]
    assert any(chunk.logprobs and chunk.logprobs.tokens and not chunk.text for chunk in chunks)
    assert whole is not None
    assert [offset for chunk in reported for offset in chunk.text_offset or ()] == whole.text_offset


def test_a_message_has_a_thousand_parts_at_most(client: OpenAI) -> None:
    def send_parts(count: int) -> None:
        parts = [{"type": "text", "text": ""}] * count
        client.chat.completions.create(model="base", messages=[{"role": "user", "content": parts}], max_tokens=1)  # type: ignore

    send_parts(1000)
    with pytest.raises(BadRequestError):
        send_parts(1001)
