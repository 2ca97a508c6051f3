"""Refused parameters are recognized in any form, and only these are changed."""

from __future__ import annotations

from typing import Any

import pytest

from bilora.inference.endpoint.parameters import (
    SYSTEM_ROLE,
    LearnedRefusals,
    adapt_request,
    applies_to_all,
    error_message,
    find_refusals,
)

SCHEMA = {"type": "object", "required": ["A"]}


def parameters_with(**more: Any) -> dict[str, Any]:
    return {
        "model": "m-7b",
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What is a seed?"}],
        "temperature": 0.0,
        "seed": 3,
        "max_tokens": 50,
        **more,
    }


def judged() -> dict[str, Any]:
    kind = {"type": "json_schema", "json_schema": {"name": "reply", "strict": True, "schema": SCHEMA}}
    return parameters_with(response_format=kind)


def openai(message: str, **more: Any) -> dict[str, Any]:
    return {"error": {"message": message, **more}}


@pytest.mark.parametrize(
    ("document", "names"),
    [
        (openai("Unsupported.", param="max_tokens", code="unsupported_parameter"), ["max_tokens"]),
        (openai("bad", param="body.seed"), ["seed"]),
        ({"detail": [{"loc": ["body", "frequency_penalty"], "msg": "no"}]}, ["frequency_penalty"]),
        (
            {"detail": [{"loc": ["body", "seed"], "msg": "x"}, {"loc": ["body", "frequency_penalty"], "msg": "x"}]},
            ["frequency_penalty", "seed"],
        ),
        ({"detail": "Unknown field: seed"}, ["seed"]),
        ({"message": "frequencyPenalty is not supported"}, ["frequency_penalty"]),
        ('Unknown name "seed": Cannot find field.', ["seed"]),
        ([{"error": {"code": 400, "message": 'Invalid JSON payload. Unknown name "max_tokens"'}}], ["max_tokens"]),
        (openai("Supported fields: temperature, max_tokens. Not known: seed."), ["seed"]),
        (openai("Use max_completion_tokens instead of max tokens."), ["max_tokens"]),
        (openai("penalties are not available for this model"), ["frequency_penalty"]),
        (openai("temperature must be strictly positive"), ["temperature"]),
        ({"errors": {"seed": ["Unknown field."]}}, ["seed"]),
        ({"errors": [{"field": "seed", "message": "is not allowed"}]}, ["seed"]),
        ({"Message": "extraneous key [seed] is not permitted"}, ["seed"]),
        (openai("System role not supported"), [SYSTEM_ROLE]),
        (openai("'messages[0].role' does not support 'system'", param="messages[0].role"), [SYSTEM_ROLE]),
        (openai("The prompt is too long", param="messages"), []),
        (openai("No such model; seed and temperature were fine", param="model"), []),
        (openai("something went wrong"), []),
        ({}, []),
        (None, []),
        ("", []),
    ],
)
def test_a_refusal_names_its_parameter(document: object, names: list[str]) -> None:
    refusals = find_refusals(400, document, parameters_with(frequency_penalty=0.5))
    assert sorted(name for name, _ in refusals) == names


@pytest.mark.parametrize("status", [401, 404, 429, 500, None])
def test_another_status_refuses_nothing(status: int | None) -> None:
    assert not find_refusals(status, openai("seed", param="seed"), parameters_with())


def test_what_was_not_sent_is_not_refused() -> None:
    assert not find_refusals(400, openai("logit_bias", param="logit_bias"), parameters_with())


@pytest.mark.parametrize(
    "message",
    ["json_schema is not enabled", "Structured outputs are unsupported", "failed to compile grammar", "JSON mode: no"],
)
def test_a_response_format_is_refused_in_many_words(message: str) -> None:
    assert find_refusals(422, openai(message), judged()) == {("response_format", "json_schema")}


def sent_after(parameters: dict[str, Any], *refusals: tuple[str, str]) -> dict[str, Any]:
    return adapt_request(parameters, frozenset(refusals)).parameters


def test_a_limit_goes_by_its_newer_name_and_then_not_at_all() -> None:
    assert sent_after(parameters_with(), ("max_tokens", ""))["max_completion_tokens"] == 50
    assert adapt_request(parameters_with(), frozenset({("max_tokens", "")})).remarks == ()
    gone = adapt_request(parameters_with(), frozenset({("max_tokens", ""), ("max_completion_tokens", "")}))
    assert not {"max_tokens", "max_completion_tokens"} & set(gone.parameters)
    assert gone.remarks == ("without a limit on the answer's length",)


def test_a_temperature_is_refused_by_its_value() -> None:
    refused = frozenset({("temperature", "0.0")})
    left = adapt_request(parameters_with(), refused)
    assert "temperature" not in left.parameters and "not greedy" in left.remarks[0]
    assert adapt_request(parameters_with(temperature=0.7), refused).parameters["temperature"] == 0.7


def test_a_schema_goes_into_the_prompt_when_it_cannot_be_enforced() -> None:
    half = sent_after(judged(), ("response_format", "json_schema"))
    assert half["response_format"] == {"type": "json_object"}
    system = half["messages"][0]["content"]
    assert system.startswith("Be brief.") and '"required": ["A"]' in system
    none = sent_after(judged(), ("response_format", "json_schema"), ("response_format", "json_object"))
    assert "response_format" not in none and none["messages"] == half["messages"]


def test_a_system_text_moves_to_the_first_question() -> None:
    moved = sent_after(parameters_with(), (SYSTEM_ROLE, ""))
    assert moved["messages"] == [{"role": "user", "content": "Be brief.\n\nWhat is a seed?"}]


def test_a_question_is_never_dropped() -> None:
    sent = sent_after(parameters_with(), ("model", ""), ("messages", ""), ("seed", ""))
    assert sent == {name: value for name, value in parameters_with().items() if name != "seed"}


def test_the_request_itself_is_left_alone() -> None:
    before = judged()
    sent_after(before, ("max_tokens", ""), ("response_format", "json_schema"), (SYSTEM_ROLE, ""), ("seed", ""))
    assert before == judged()


def test_a_limit_too_large_for_one_prompt_is_refused_for_that_one_alone() -> None:
    document = openai("max_tokens is too large: 50. The context length is 60 and the prompt has 40 tokens.")
    assert not applies_to_all(find_refusals(400, document, parameters_with()), document)
    document = openai("max_tokens is no longer supported")
    assert applies_to_all(find_refusals(400, document, parameters_with()), document)


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({"error": {"message": "one"}}, "one"),
        ({"error": "two"}, "two"),
        ({"detail": [{"loc": ["body", "seed"], "msg": "three"}]}, "seed: three"),
        ({"message": "four", "code": 3}, "four"),
        ("five", "five"),
        ({"error": {"code": 5}}, ""),
        ([1, None, {"title": "six"}], "six"),
        ({"fault": {"faultstring": "seven"}}, "seven"),
        ({"errors": {"model": ["eight", "nine"], "seed": ["ten"]}}, "model: eight; seed: ten"),
    ],
)
def test_the_server_s_words_are_found(document: object, words: str) -> None:
    assert error_message(document) == words


def test_what_was_learned_is_kept() -> None:
    learned = LearnedRefusals()
    learned.learn([("seed", "")])
    learned.learn([("stop", "")])
    assert learned.known == {("seed", ""), ("stop", "")}
