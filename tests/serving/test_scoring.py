"""Prompts as token ids, and the log probabilities of prompts, as lm_eval requests them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from openai import OpenAI
from support.running_server import RunningServer
from support.sample_adapters import SMOKE, SampleAdapters
from support.server_requests import MODELS, TEXT, expect_400, send
from tokenizers.processors import TemplateProcessing

from bilora.bases.loading import LoadedBase


@pytest.fixture(scope="module")
def base() -> LoadedBase:
    return SMOKE.load(training=False)


def ids_of(running: RunningServer, text: str) -> list[int]:
    _, answer = send(running, "POST", "/tokenize", {"prompt": text})
    ids: list[int] = answer["tokens"]
    return ids


def test_tokens_are_continued_as_their_text_is(client: OpenAI, running: RunningServer) -> None:
    ids = ids_of(running, TEXT)
    as_text, as_ids = (
        client.completions.create(model="codegen", prompt=prompt, max_tokens=9) for prompt in (TEXT, ids)
    )
    assert as_ids.choices[0].text == as_text.choices[0].text
    assert as_ids.usage == as_text.usage
    several = client.completions.create(model="codegen", prompt=[ids, ids_of(running, "def add(a, b):")], max_tokens=9)
    assert several.choices[0].text == as_text.choices[0].text
    assert (
        several.choices[1].text
        == client.completions.create(model="codegen", prompt="def add(a, b):", max_tokens=9).choices[0].text
    )


@pytest.mark.parametrize("max_tokens", [0, 1, 5])
def test_a_prompt_s_log_probabilities_are_the_model_s(
    client: OpenAI, running: RunningServer, base: LoadedBase, max_tokens: int
) -> None:
    ids = ids_of(running, TEXT)
    choice = client.completions.create(model="base", prompt=ids, max_tokens=max_tokens, logprobs=2, echo=True).choices[
        0
    ]
    logprobs = choice.logprobs
    assert (
        logprobs is not None
        and logprobs.token_logprobs is not None
        and logprobs.top_logprobs is not None
        and logprobs.tokens
    )
    assert choice.text.startswith(TEXT) and "".join(logprobs.tokens) == choice.text
    assert len(logprobs.tokens) == len(ids) + max_tokens
    with torch.no_grad():
        model_logprobs = base.model(torch.tensor([ids])).logits[0].float().log_softmax(-1)
    expected = model_logprobs[:-1].gather(1, torch.tensor(ids[1:])[:, None])[:, 0]
    assert logprobs.token_logprobs[0] is None and logprobs.top_logprobs[0] is None
    assert logprobs.token_logprobs[1 : len(ids)] == pytest.approx(expected.tolist(), abs=1e-4)
    best = model_logprobs[:-1].max(-1).values
    assert [max(alternatives.values()) for alternatives in logprobs.top_logprobs[1 : len(ids)]] == pytest.approx(
        best.tolist(), abs=1e-4
    )


def test_each_adapter_scores_by_itself_in_one_batch(running: RunningServer, client: OpenAI) -> None:
    body: dict[str, Any] = {"prompt": [TEXT, "def f(x):"], "max_tokens": 0, "logprobs": 0, "echo": True}
    scores = {
        model: [choice.logprobs.token_logprobs for choice in client.completions.create(model=model, **body).choices]
        for model in MODELS
    }
    assert len({repr(values) for values in scores.values()}) == len(MODELS)
    alone = client.completions.create(model="codegen", **{**body, "prompt": "def f(x):"}).choices[0].logprobs
    assert alone is not None and alone.token_logprobs is not None
    assert scores["codegen"][1][1:] == pytest.approx(alone.token_logprobs[1:], abs=1e-4)


def test_an_answer_that_ends_at_once_is_scored_too(client: OpenAI, running: RunningServer) -> None:
    end = running.engine._batch._decoder._eos_ids  # type: ignore[attr-defined]
    ids = ids_of(running, TEXT)
    reply = client.completions.create(
        model="base", prompt=ids, max_tokens=1, logprobs=0, echo=True, logit_bias={str(token): 100 for token in end}
    )
    logprobs = reply.choices[0].logprobs
    assert logprobs is not None and logprobs.tokens is not None
    assert (reply.choices[0].finish_reason, reply.choices[0].text) == ("stop", TEXT)
    assert len(logprobs.tokens) == len(ids) + 1 and logprobs.tokens[-1] == ""


@pytest.mark.parametrize("stream", [True, False])
def test_an_echo_without_probabilities_begins_with_the_prompt(client: OpenAI, stream: bool) -> None:
    answer = client.completions.create(model="docstring", prompt=TEXT, max_tokens=5).choices[0].text
    reply = client.completions.create(model="docstring", prompt=TEXT, max_tokens=5, echo=True, stream=stream)
    parts: Any = reply if stream else [reply]
    assert "".join(part.choices[0].text for part in parts) == TEXT + answer


def test_a_prompt_too_long_to_be_scored_is_refused(running: RunningServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bilora.inference.torch.batch._PROMPT_LOGITS_BYTES", 4 * 4096 * 5)
    error = expect_400(running, "/v1/completions", {"model": "base", "prompt": TEXT * 9, "echo": True, "logprobs": 0})
    assert "log probabilities need a prompt of at most" in error["message"]


def test_text_becomes_tokens_and_tokens_become_text(
    running: RunningServer, sample_adapters: SampleAdapters, client: OpenAI
) -> None:
    _, answer = send(running, "POST", "/tokenize", {"model": "base", "prompt": TEXT, "return_token_strs": True})
    assert answer["count"] == len(answer["tokens"]) and answer["max_model_len"] == running.engine.context_length
    assert "".join(answer["token_strs"]) == TEXT
    _, back = send(running, "POST", "/detokenize", {"tokens": answer["tokens"]})
    assert back == {"prompt": TEXT}
    messages = [{"role": "user", "content": TEXT}]
    _, chat = send(running, "POST", "/tokenize", {"messages": messages})
    reply = client.chat.completions.create(model="base", messages=messages, max_tokens=1)  # type: ignore[arg-type]
    assert reply.usage is not None and chat["count"] == reply.usage.prompt_tokens


def test_special_tokens_are_added_to_a_text_unless_the_client_wants_none(
    running: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = running.engine._tokenizer
    begin = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    monkeypatch.setattr(tokenizer.backend_tokenizer, "post_processor", begin)
    _, full = send(running, "POST", "/tokenize", {"prompt": TEXT})
    _, bare = send(running, "POST", "/tokenize", {"prompt": TEXT, "add_special_tokens": False})
    assert full["tokens"] == [1, *bare["tokens"]]


def test_clients_can_build_prompts_themselves(running: RunningServer) -> None:
    _, info = send(running, "GET", "/tokenizer_info")
    tokenizer = SMOKE.tokenizer()
    assert (info["chat_template"], info["pad_token"]) == (tokenizer.chat_template, tokenizer.pad_token)
    _, answer = send(running, "POST", "/tokenize", {"prompt": info["eos_token"], "add_special_tokens": False})
    assert answer["tokens"] == [tokenizer.eos_token_id]


CHAT = [{"role": "user", "content": "x"}]


@pytest.mark.parametrize(
    ("path", "wrong"),
    [
        ("/tokenize", {}),
        ("/tokenize", {"prompt": "x", "messages": CHAT}),
        ("/tokenize", {"messages": CHAT, "add_special_tokens": True}),
        ("/detokenize", {"tokens": [5000000]}),
    ],
)
def test_what_has_no_tokens_is_refused(running: RunningServer, path: str, wrong: dict[str, Any]) -> None:
    assert expect_400(running, path, wrong)["message"]


@pytest.mark.parametrize("path", ["/tokenize", "/detokenize", "/tokenizer_info"])
def test_text_needs_the_key(running: RunningServer, path: str) -> None:
    response, _ = send(running, "POST", path, {}, Authorization="")
    assert response.status == 401
