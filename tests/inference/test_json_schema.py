"""Answers match their JSON schema in every engine, and other answers in the batch do not change."""

from __future__ import annotations

import json
import sys
import time
from queue import SimpleQueue
from typing import Any

import jsonschema
import pytest
import torch
from support.checkouts import ROOT
from support.sample_adapters import SMOKE, chat_request, prompts

from bilora.bases.loading import LoadedBase
from bilora.errors import BadSchema, NotReady
from bilora.inference import grammar_compiler
from bilora.inference.engine import ContinuousBatchingEngine
from bilora.inference.json_grammar import JsonGrammars
from bilora.inference.json_schema import MAX_SCHEMA_CHARS, read_schema
from bilora.inference.llamacpp.engine import LlamaEngine
from bilora.inference.torch.engine import TorchEngine
from bilora.records import Completion
from bilora.requests import Chunk, Request, Submission

TOKENS = 400
SCHEMAS: dict[str, Any] = {
    row["name"]: row["schema"] for row in json.loads((ROOT / "studies" / "json_schemas.json").read_text("utf-8"))
}
"""Nesting, enum, array bounds, optional fields, bounded numbers, const, pattern, anyOf, $ref, additionalProperties."""
SHORT = {"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"]}
DIGITS = {"type": "integer", "minimum": 0, "maximum": 99_999}
MODES: dict[str, dict[str, Any]] = {
    "greedy": {},
    "sampled": {"temperature": 1.0, "seed": 5},
    "nucleus": {"temperature": 1.5, "top_p": 0.9, "seed": 6},
    "penalised": {"temperature": 1.0, "frequency_penalty": 2.0, "presence_penalty": 2.0, "seed": 7},
}


@pytest.fixture(scope="module", params=["torch", "llamacpp"])
def engine(
    request: pytest.FixtureRequest, another_smoke: LoadedBase, tmp_path_factory: pytest.TempPathFactory
) -> ContinuousBatchingEngine[Any]:
    """The torch and the llama.cpp engine of the smoke base, in 32-bit."""
    if request.param == "torch":
        return TorchEngine(another_smoke, {}, batch_size=16)
    pytest.importorskip("llama_cpp", reason='llama.cpp is not installed: pip install "bilora[llamacpp]"')
    return LlamaEngine(SMOKE, "f32", {}, batch_size=16, cache=tmp_path_factory.mktemp("gguf"))


@pytest.fixture(scope="module")
def grammars(another_smoke: LoadedBase) -> JsonGrammars:
    return JsonGrammars(another_smoke.tokenizer.backend_tokenizer.to_str, another_smoke.stop_ids)


def schema_request(text: str, schema: object, tokens: int = TOKENS, **sampling: Any) -> Request:
    return chat_request(text, tokens, json_schema=json.dumps(schema), **sampling)


def answer(
    engine: ContinuousBatchingEngine[Any], *requests: Request, streamed: bool = False
) -> list[tuple[str, str, list[int]]]:
    """Return each answer's text, finish reason and token ids; all requests run in one batch."""
    events: list[SimpleQueue[Any]] = [SimpleQueue() for _ in requests]
    submissions = [Submission("base", request, queue.put) for request, queue in zip(requests, events, strict=True)]
    jobs = engine.prepare(submissions, streamed=streamed)
    engine.submit(jobs)
    results = []
    for job, queue in zip(jobs, events, strict=True):
        text = ""
        while isinstance(event := queue.get(timeout=60), Chunk):
            text += event.text
        if isinstance(event, Exception):
            raise event
        assert isinstance(event, Completion) and (not streamed or event.text == text)
        results.append((event.text, event.finish, job.output_ids))
    return results


@pytest.mark.parametrize("streamed", [True, False], ids=["streamed", "whole"])
@pytest.mark.parametrize("mode", MODES)
def test_every_answer_fits_its_schema(engine: ContinuousBatchingEngine[Any], mode: str, streamed: bool) -> None:
    requests = [schema_request(f"{name} please", schema, **MODES[mode]) for name, schema in SCHEMAS.items()]
    for schema, (text, finish, _) in zip(SCHEMAS.values(), answer(engine, *requests, streamed=streamed), strict=True):
        assert finish == "stop", text
        jsonschema.validate(json.loads(text), schema)


def test_answers_without_a_schema_are_as_without_other_requests(engine: ContinuousBatchingEngine[Any]) -> None:
    free = [chat_request(text, 40, temperature=temperature) for text in prompts(4) for temperature in (0.0, 1.0)]
    alone = [answer(engine, request)[0] for request in free]
    bound = [schema_request("x", schema, temperature=1.0) for schema in list(SCHEMAS.values())[:8]]
    mixed = answer(engine, *[request for pair in zip(bound, free, strict=True) for request in pair])
    assert mixed[1::2] == alone
    assert mixed[::2] == [answer(engine, request)[0] for request in bound]


@pytest.mark.parametrize("early", [{"min_tokens": 200}, {"ignore_eos": True}], ids=["min_tokens", "ignore_eos"])
def test_an_answer_that_is_complete_ends_in_any_case(
    engine: ContinuousBatchingEngine[Any], early: dict[str, Any]
) -> None:
    [(text, finish, _)] = answer(engine, schema_request("x", SHORT, 300, **early))
    assert (finish, json.loads(text).keys()) == ("stop", {"a"})


def test_where_an_answer_may_end_or_continue_min_tokens_and_ignore_eos_decide(
    engine: ContinuousBatchingEngine[Any],
) -> None:
    short = [schema_request("x", DIGITS, temperature=2.0, seed=seed) for seed in range(30)]
    lengths = {len(ids) for *_, ids in answer(engine, *short)}
    assert min(lengths) <= 2
    for early in ({"min_tokens": 4}, {"ignore_eos": True}):
        requests = [schema_request("x", DIGITS, temperature=2.0, seed=seed, **early) for seed in range(30)]
        for text, finish, ids in answer(engine, *requests):
            assert finish == "stop" and 0 <= int(text) <= 99_999
            assert len(ids) >= 4 or len(text) == 5 or text == "0", (text, ids)


@pytest.mark.parametrize("start", ["0.", "-0."])
@pytest.mark.parametrize("schema", [{"type": "number"}, {"type": "number", "minimum": -90, "maximum": 60}])
def test_a_number_ends(grammars: JsonGrammars, another_smoke: LoadedBase, schema: object, start: str) -> None:
    matcher = grammars.matcher(json.dumps(schema))
    ids = {text: another_smoke.tokenizer(text, add_special_tokens=False)["input_ids"][0] for text in "-0.7"}
    for text in start:
        assert not matcher.add(ids[text])
    for _ in range(24):
        assert matcher.allowed(2048)[ids["0"]] and not matcher.add(ids["0"])
    assert not matcher.allowed(2048)[ids["0"]]
    if not matcher.allowed(2048)[another_smoke.stop_ids].any():  # after a minus sign not all digits may be zeros
        assert not matcher.add(ids["7"])
    assert matcher.allowed(2048)[another_smoke.stop_ids].all() and not matcher.allowed(2048)[ids["7"]]


def test_a_schema_may_want_many_digits(engine: ContinuousBatchingEngine[Any]) -> None:
    [(text, _, _)] = answer(engine, schema_request("x", {"type": "string", "pattern": "^[0-9]{60}$"}))
    assert len(json.loads(text)) == 60


def test_a_stop_string_ends_an_answer_in_json_too(engine: ContinuousBatchingEngine[Any]) -> None:
    [(text, finish, _)] = answer(engine, schema_request("x", SHORT, stop=(":",)))
    assert (text, finish) == ('{"a"', "stop")


def test_an_answer_is_cut_at_max_tokens(engine: ContinuousBatchingEngine[Any]) -> None:
    [(text, finish, ids)] = answer(engine, schema_request("x", SHORT, 2))
    assert finish == "length" and len(ids) == 2 and not text.endswith("}")


def test_a_failing_answer_ends_alone(engine: ContinuousBatchingEngine[Any]) -> None:
    hard = {"type": "string", "pattern": "^(a?){1000}a{1000}$"}
    free = [chat_request(text, 30) for text in prompts(2)]
    alone = [answer(engine, request)[0] for request in free]
    events: list[SimpleQueue[Any]] = [SimpleQueue() for _ in range(3)]
    requests = [free[0], schema_request("x", hard, temperature=1.0), free[1]]
    jobs = engine.prepare(
        [Submission("base", request, queue.put) for request, queue in zip(requests, events, strict=True)],
        streamed=False,
    )
    engine.submit(jobs)
    first, failed, last = (queue.get(timeout=60) for queue in events)
    assert [first.text, last.text] == [text for text, *_ in alone]
    assert isinstance(failed, BadSchema) and "cannot continue" in str(failed)
    assert engine.queue_depth()[1] == 0


def test_a_matcher_that_cannot_continue_says_why_and_leaves_all_tokens(
    grammars: JsonGrammars, another_smoke: LoadedBase
) -> None:
    matcher = grammars.matcher('{"type":"string","pattern":"^(a?){1000}a{1000}$"}')
    matcher.add(another_smoke.tokenizer('"', add_special_tokens=False)["input_ids"][0])
    assert matcher.allowed(2048).all() and "cannot continue" in str(matcher.error)


def test_rows_that_only_pad_the_embedding_are_never_chosen(grammars: JsonGrammars) -> None:
    matcher = grammars.matcher('{"type":"string"}')
    narrow, wide = matcher.allowed(2048), matcher.allowed(2048 + 100)
    assert narrow.any() and not wide[2048:].any() and torch.equal(wide[:2048], narrow)
    assert not matcher.allowed(1000)[matcher.allowed(2048)[:1000].logical_not()].any()


def test_end_tokens_are_allowed_where_an_answer_may_end_even_if_they_are_text(another_smoke: LoadedBase) -> None:
    tokenizer = another_smoke.tokenizer
    quote, text = (tokenizer(character, add_special_tokens=False)["input_ids"][0] for character in ('"', "a"))
    matcher = JsonGrammars(tokenizer.backend_tokenizer.to_str, [text, 3]).matcher('{"type":"string","maxLength":3}')
    assert not matcher.add(quote)
    assert matcher.allowed(2048)[[3, text]].tolist() == [False, False]
    assert matcher.add(quote)
    assert matcher.allowed(2048).nonzero()[:, 0].tolist() == sorted([3, text])


def test_control_tokens_are_no_text(grammars: JsonGrammars, another_smoke: LoadedBase) -> None:
    matcher = grammars.matcher('{"type":"string"}')
    matcher.add(another_smoke.tokenizer('"', add_special_tokens=False)["input_ids"][0])
    assert not matcher.allowed(2048)[:8].any() and matcher.allowed(2048).sum() > 1000


@pytest.mark.parametrize(
    ("schema", "named"),
    [
        ({"type": "array", "uniqueItems": True}, "uniqueItems"),
        ({"not": {"type": "string"}}, '"not"'),
        ({"if": {}, "then": {}}, '"if", "then"'),
        ({"type": "object", "propertyNames": {}}, "propertyNames"),
        ({"type": "object", "additionalProperties": True, "minProperties": 2}, "`minProperties` 2"),
        ({"type": "string", "format": "nonsense"}, "nonsense"),
        ({"type": "string", "pattern": "(?=a)b"}, "look-around"),
        ({"type": "string", "pattern": "["}, "unclosed character class"),
        ({"type": "strng"}, "strng"),
        ({"oneOf": [{"type": "integer"}, {"type": "number"}]}, "oneOf"),
        ({"type": "number", "exclusiveMinimum": 0, "maximum": 0.5}, "exclusive bounds"),
        ({"const": 2**53 + 1}, "9007199254740993"),
        ({"const": "\x01"}, "no answer can match it"),
        ({"const": "\ud800"}, "cannot be read"),
        ({"const": float("nan")}, "cannot be read"),
        ({"enum": []}, "empty"),
        ({"type": "array", "minItems": 3, "maxItems": 2}, "minItems"),
        ({"$ref": "#"}, "no answer can match it"),
        ({"$ref": "https://example.com/schema.json"}, "https://example.com/schema.json"),
        ({"x-guidance": {"lenient": True}, "type": "array", "uniqueItems": True}, "x-guidance"),
        ([1], "not a JSON object"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_an_unsupported_schema_is_refused_by_name(grammars: JsonGrammars, schema: object, named: str) -> None:
    with pytest.raises(BadSchema) as refusal:
        grammars.matcher(json.dumps(schema))
    assert named in str(refusal.value) and "\n" not in str(refusal.value)


def test_a_name_is_never_written_twice_by_an_escape(grammars: JsonGrammars, another_smoke: LoadedBase) -> None:
    schema = {"type": "object", "properties": {"a": {"const": 1}}, "required": ["a"], "additionalProperties": True}
    matcher = grammars.matcher(json.dumps(schema))
    tokenizer = another_smoke.tokenizer
    for token in tokenizer('{"a":1,"', add_special_tokens=False)["input_ids"]:
        assert matcher.allowed(2048)[token]
        matcher.add(token)
    matcher.add(tokenizer("\\", add_special_tokens=False)["input_ids"][0])
    spelled = [tokenizer.decode([token])[:1] for token in matcher.allowed(2048).nonzero()[:, 0].tolist()]
    assert "n" in spelled and "u" not in spelled


@pytest.mark.parametrize(
    ("schema", "closed"),
    [
        (SHORT, True),
        ({**SHORT, "additionalProperties": {"type": "null"}}, False),
        ({"type": "object", "properties": {}}, False),
        ({"type": "object", "properties": {"a": {}}, "required": ["b"]}, False),
        ({"type": "object", "properties": {"a": {}}, "minProperties": 1}, False),
        ({**SHORT, "anyOf": [{"required": ["b"]}, {"required": ["c"]}]}, False),
        ({**SHORT, "allOf": [{"properties": {"b": {}}, "required": ["b"]}]}, False),
    ],
)
def test_an_object_that_names_properties_has_only_these_unless_it_says_more(schema: Any, closed: bool) -> None:
    assert (read_schema(json.dumps(schema)) == {**schema, "additionalProperties": False}) == closed
    assert closed or read_schema(json.dumps(schema)) == schema


def test_data_inside_a_schema_is_left_as_it_is() -> None:
    data = {"properties": {"a": 1}}
    schema = {"type": "array", "items": {"enum": [data]}, "prefixItems": [{"const": data}]}
    assert read_schema(json.dumps(schema)) == schema


CHAIN = {str(number): {"items": {"$ref": f"#/$defs/{number + 1}"}} for number in range(1300)} | {"1300": {}}
PATTERNS = [{"type": "string", "pattern": f".*{letter}.*"} for letter in "abcdefghijklmnopqrst"]
HOSTILE = {
    "deep": '{"items":' * 3000 + "{}" + "}" * 3000,
    "long": json.dumps({"description": "x" * MAX_SCHEMA_CHARS}),
    "chain": json.dumps({"$ref": "#/$defs/0", "$defs": CHAIN}, separators=(",", ":")),
    "patterns": json.dumps({"allOf": PATTERNS}),
    "product": json.dumps(
        {"allOf": [{"anyOf": [{"required": [f"a{i}"]}, {"required": [f"b{i}"]}]} for i in range(20)]}
    ),
    "multiple": json.dumps({"type": "integer", "multipleOf": 1_000_003}),
    "required": json.dumps({"type": "object", "required": [f"p{number}" for number in range(5000)]}),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_schema_is_refused_in_time(grammars: JsonGrammars, name: str) -> None:
    began = time.process_time()
    with pytest.raises(BadSchema):
        grammars.matcher(HOSTILE[name])
    assert time.process_time() - began < 1  # the subprocess computes


@pytest.mark.parametrize(
    "schema",
    [
        {"enum": [f"value {number}" for number in range(4000)]},
        {"type": "string", "pattern": "^.*a.{20}$"},
        {"type": "string", "pattern": "^((x{100}){100}){100}$"},
        {"type": "array", "maxItems": 10**9, "items": {"type": "array", "maxItems": 10**9}},
        {
            "$ref": "#/$defs/0",
            "$defs": {str(i): {"items": {"$ref": f"#/$defs/{i + 1}"}} for i in range(80)} | {"80": {}},
        },
    ],
    ids=["enum", "states", "repetition", "arrays", "chain"],
)
def test_each_token_of_a_large_schema_is_found_in_time(grammars: JsonGrammars, schema: object) -> None:
    matcher, rng = grammars.matcher(json.dumps(schema)), torch.Generator().manual_seed(1)
    slowest = 0.0
    for _ in range(200):
        began = time.thread_time()
        allowed = matcher.allowed(2048).nonzero()[:, 0]
        ended = matcher.add(int(allowed[torch.randint(len(allowed), (1,), generator=rng)]))
        slowest = max(slowest, time.thread_time() - began)
        if ended or matcher.error:
            break
    assert slowest < 0.5


def test_a_schema_is_tried_once(grammars: JsonGrammars, monkeypatch: pytest.MonkeyPatch) -> None:
    schema = '{"type":"boolean","title":"once"}'
    grammars.matcher(schema)
    monkeypatch.setattr(grammar_compiler.subprocess, "run", None)
    grammars.matcher(schema)


def test_without_the_extra_one_sentence_says_what_to_do(
    engine: ContinuousBatchingEngine[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "llguidance", None)
    with pytest.raises(NotReady, match=r'pip install "bilora\[json\]"'):
        engine.generate("base", [schema_request("x", {"type": "null"})])
