"""/v1/responses, tested with OpenAI's client."""

from __future__ import annotations

import json
from typing import Any

import pytest
from openai import OpenAI
from support.running_server import RunningServer
from support.sample_adapters import TOKENS, SampleAdapters
from support.server_requests import MODELS, TEXT, expect_400

BODY: dict[str, Any] = {"input": TEXT, "max_output_tokens": TOKENS}


@pytest.mark.parametrize("model", MODELS)
def test_a_response_is_the_chat_s_answer(client: OpenAI, sample_adapters: SampleAdapters, model: str) -> None:
    response = client.responses.create(model=model, **BODY)
    assert response.output_text == sample_adapters.answer(model, TEXT)
    assert (
        response.usage is not None
        and response.usage.output_tokens <= TOKENS
        and response.status in ("completed", "incomplete")
    )
    assert (response.incomplete_details is None) == (response.status == "completed")


@pytest.mark.parametrize("model", MODELS)
def test_a_stream_s_events_have_the_same_answer(client: OpenAI, sample_adapters: SampleAdapters, model: str) -> None:
    events: list[Any] = list(client.responses.create(model=model, stream=True, **BODY))
    final = events[-1].response
    assert final.output_text == sample_adapters.answer(model, TEXT)
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == final.output_text
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert events[0].type == "response.created" and events[-1].type == f"response.{final.status}"


def test_instructions_are_the_system_message_and_items_the_history(client: OpenAI) -> None:
    first = client.responses.create(model="base", instructions="You sort.", **BODY)
    history: Any = [
        {"role": "user", "content": TEXT},
        *[item.model_dump() for item in first.output],
        {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c1", "output": "3"},
        {"role": "user", "content": [{"type": "input_text", "text": "And now?"}]},
    ]
    response = client.responses.create(model="base", instructions="You sort.", input=history, max_output_tokens=9)
    messages: Any = [
        {"role": "system", "content": "You sort."},
        {"role": "user", "content": TEXT},
        {"role": "assistant", "content": first.output_text},
        {"role": "assistant", "content": '{"name": "f", "arguments": "{}"}'},
        {"role": "user", "content": "Result of c1:\n3"},
        {"role": "user", "content": "And now?"},
    ]
    chat = client.chat.completions.create(model="base", messages=messages, max_tokens=9)
    assert response.output_text == chat.choices[0].message.content


@pytest.mark.parametrize(
    "wrong",
    [{"previous_response_id": "resp_1"}, {"store": True}, {"background": True}, {"reasoning": {"effort": "low"}},
     {"tools": [{"type": "web_search"}]}, {"input": []}, {"truncation": "auto"}, {"max_output_tokens": 0},
     {"input": [{"type": "item_reference", "id": "x"}]}, {"include": ["message.output_text.logprobs"]}],
    ids=lambda wrong: next(iter(wrong)),
)  # fmt: skip
def test_an_invalid_request_is_refused(running: RunningServer, wrong: dict[str, Any]) -> None:
    assert expect_400(running, "/v1/responses", {"model": "base", **BODY, **wrong})["message"]


def test_a_response_matches_a_schema(client: OpenAI) -> None:
    schema = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"]}
    form: Any = {"format": {"type": "json_schema", "name": "reply", "schema": schema, "strict": True}}
    response = client.responses.create(model="base", input=TEXT, max_output_tokens=40, text=form)
    assert json.loads(response.output_text)["ok"] in (True, False) and response.status == "completed"
    assert response.text is not None and response.text.to_dict() == form


def test_a_response_has_vllm_s_stop_strings_and_ignores_the_end(
    client: OpenAI, sample_adapters: SampleAdapters
) -> None:
    body: dict[str, Any] = {"model": "base", "input": "x", "max_output_tokens": 40}
    response = client.responses.create(**body, extra_body={"ignore_eos": True, "stop": None})
    assert response.usage is not None and response.usage.output_tokens == 40
    whole = sample_adapters.answer("docstring", TEXT)
    stop = whole[2:5]
    response = client.responses.create(model="docstring", **BODY, extra_body={"stop": ["zzz", stop]})
    assert (response.output_text, response.status) == (whole[: whole.index(stop)], "completed")
