"""Answers in JSON over HTTP, in each form that clients request."""

from __future__ import annotations

import json
import sys
from typing import Any

import jsonschema
import pytest
from openai import BadRequestError, OpenAI
from pydantic import BaseModel
from support.running_server import RunningServer

SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 12}, "big": {"type": "boolean"}},
    "required": ["city", "big"],
}
MESSAGES: Any = [{"role": "user", "content": "Name a city."}]
FORMAT: Any = {"type": "json_schema", "json_schema": {"name": "city", "schema": SCHEMA, "strict": True}}
FORMS: dict[str, dict[str, Any]] = {
    "strict": {"response_format": FORMAT},
    "not strict": {"response_format": {**FORMAT, "json_schema": {"name": "city", "schema": SCHEMA}}},
    "vLLM's": {"structured_outputs": {"json": SCHEMA}},
}


class City(BaseModel):
    """A model for the client's `parse` helper."""

    city: str
    big: bool


def ask(client: OpenAI, stream: bool, fields: dict[str, Any], **more: Any) -> list[str]:
    """Return the texts of a chat's choices."""
    reply: Any = client.chat.completions.create(
        model="base", messages=MESSAGES, max_tokens=100, stream=stream, extra_body=fields, **more
    )
    if not stream:
        return [choice.message.content for choice in reply.choices]
    texts: dict[int, str] = {}
    for chunk in reply:
        for choice in chunk.choices:
            texts[choice.index] = texts.get(choice.index, "") + (choice.delta.content or "")
    return [text for _, text in sorted(texts.items())]


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("form", FORMS)
def test_every_choice_matches_the_schema(client: OpenAI, form: str, stream: bool) -> None:
    texts = ask(client, stream, FORMS[form], n=3, temperature=1.0, seed=4)
    assert len(set(texts)) > 1
    for text in texts:
        jsonschema.validate(json.loads(text), {**SCHEMA, "additionalProperties": False})


@pytest.mark.parametrize("form", FORMS)
def test_a_raw_text_is_continued_in_json_too(client: OpenAI, form: str) -> None:
    reply = client.completions.create(
        model="codegen", prompt="A city: ", max_tokens=100, logprobs=1, extra_body=FORMS[form]
    )
    assert reply.choices[0].finish_reason == "stop"
    jsonschema.validate(json.loads(reply.choices[0].text), SCHEMA)


def test_a_schema_is_a_class_in_the_clients_own_helper(client: OpenAI) -> None:
    reply = client.chat.completions.parse(
        model="base", messages=MESSAGES, response_format=City, max_tokens=300, temperature=1.5, seed=2
    )
    assert reply.choices[0].finish_reason == "stop" and isinstance(reply.choices[0].message.parsed, City)


def test_any_object_is_json(client: OpenAI) -> None:
    ended = []
    for seed in range(12):
        reply = client.chat.completions.create(
            model="base", messages=MESSAGES, max_tokens=200, temperature=1.5, seed=seed,
            response_format={"type": "json_object"},
        ).choices[0]  # fmt: skip
        text = reply.message.content or ""
        assert text.startswith("{")
        ended += [json.loads(text)] if reply.finish_reason == "stop" else []
    assert ended and all(isinstance(value, dict) for value in ended)


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("fields", [{"response_format": {"type": "text"}}, {"response_format": None}, {}])
def test_text_is_what_it_was(client: OpenAI, fields: dict[str, Any], stream: bool) -> None:
    assert ask(client, stream, fields) == ask(client, False, {})


def refusal(client: OpenAI, fields: dict[str, Any], **more: Any) -> dict[str, Any]:
    with pytest.raises(BadRequestError) as error:
        ask(client, False, fields, **more)
    assert isinstance(error.value.body, dict)
    return error.value.body


@pytest.mark.parametrize("form", ["response_format", "structured_outputs"])
def test_an_unsupported_schema_is_refused_by_name(client: OpenAI, running: RunningServer, form: str) -> None:
    schema = {"type": "array", "uniqueItems": True}
    named = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}
    body = refusal(client, {form: named if form == "response_format" else {"json": schema}})
    assert body["param"] == "response_format" and "uniqueItems" in body["message"]
    assert running.engine.queue_depth() == (0, 0)


def test_an_answer_that_cannot_continue_is_refused(client: OpenAI) -> None:
    schema = {"type": "string", "pattern": "^(a?){1000}a{1000}$"}
    fields = {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}}
    body = refusal(client, fields)
    assert body["param"] == "response_format" and "cannot continue" in body["message"]


@pytest.mark.parametrize(
    "fields",
    [
        {"response_format": {"type": "json"}},
        {"response_format": {"type": "json_schema"}},
        {"response_format": {"type": "json_schema", "json_schema": {"schema": SCHEMA}}},
        {"response_format": {"type": "json_schema", "json_schema": {"name": "a b", "schema": SCHEMA}}},
        {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": True}}},
        {"response_format": {"type": "json_object", "schema": SCHEMA}},
        {"structured_outputs": {"regex": "a+"}},
        {"response_format": FORMAT, "structured_outputs": {"json": SCHEMA}},
    ],
    ids=["kind", "none", "nameless", "name", "bool", "object with schema", "regex", "two forms"],
)
def test_an_invalid_form_is_refused(client: OpenAI, fields: dict[str, Any]) -> None:
    assert refusal(client, fields)["message"]


def test_a_deep_schema_is_refused(client: OpenAI) -> None:
    schema: dict[str, Any] = {}
    for _ in range(400):
        schema = {"items": schema}
    named = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}
    assert refusal(client, {"response_format": named})["message"]


def test_without_the_extra_the_refusal_names_it(client: OpenAI, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "llguidance", None)
    schema = {**SCHEMA, "title": "not seen before"}
    body = refusal(client, {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}})
    assert 'pip install "bilora[json]"' in body["message"] and body["param"] == "response_format"
