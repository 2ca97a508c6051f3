"""Validity of JSON-schema answers, and whether requests without a schema in the same batch are unaffected.

    python studies/json_schema.py [--checkout .] [--base FOLDER] [--engine torch] [--temperature 0] [--tokens 400]

The base answers each question of studies/json_schemas.json in 32-bit with its schema, and one question per schema also
without, all in one batch. An answer is valid if it is JSON, conforms to the schema by the library jsonschema, and was
not cut at --tokens. The answers without a schema are then repeated, each alone, and compared token for token.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from queue import SimpleQueue
from typing import Any, get_args

import jsonschema

from bilora.bases.kinds.folder import FolderBase
from bilora.cli.progress import bar
from bilora.inference.engine import BASE_SYSTEM
from bilora.inference.engines import ENGINES, EngineOptions, LocalEngine, load_local_engine
from bilora.library_logs import silence_libraries
from bilora.params import Quantization
from bilora.records import Completion, Message
from bilora.requests import Chunk, Request, SamplingParams, Submission
from bilora.workspace import Workspace

SCHEMAS = Path(__file__).with_name("json_schemas.json")
BATCH_SIZE, FREE_TOKENS = 16, 48


@dataclass(frozen=True)
class Answer:
    """One answer, and its token ids."""

    completion: Completion
    output_ids: list[int]


def answer_batch(engine: LocalEngine, requests: Sequence[Request], title: str) -> list[Answer]:
    """Answer all requests in one batch; return the answers in the order of the requests."""
    events: SimpleQueue[Chunk | Completion | Exception] = SimpleQueue()
    jobs: Any = engine.prepare([Submission(BASE_SYSTEM, request, events.put) for request in requests], streamed=False)
    engine.submit(jobs)
    completions: dict[str, Completion] = {}
    with bar(title, len(jobs), "answers") as progress:
        for _ in jobs:
            event = events.get()
            if not isinstance(event, Completion):
                raise SystemExit(f"An answer failed: {event}")
            completions[event.sample_id] = event
            progress(1)
    return [Answer(completions[job.request.sample_id], job.output_ids) for job in jobs]


def find_fault(answer: Completion, schema: dict[str, Any]) -> str:
    """Return why an answer is not valid; empty if it is."""
    if answer.finish != "stop":
        return "cut at the token limit"
    try:
        jsonschema.validate(json.loads(answer.text), schema)
    except (ValueError, jsonschema.ValidationError) as error:
        return str(error).partition("\n")[0]
    return ""


def main() -> None:
    """Answer, check and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkout", type=Path, default=Path())
    parser.add_argument("--base", type=Path, help="a base's folder; default: the base of the checkout")
    parser.add_argument("--engine", choices=ENGINES, default="torch")
    parser.add_argument("--quantization", choices=get_args(Quantization), default="f32", help="for llamacpp")
    parser.add_argument("--temperature", type=float, default=0.0)
    parser.add_argument("--tokens", type=int, default=400)
    options = parser.parse_args()
    silence_libraries()
    workspace = Workspace(options.checkout)
    base = FolderBase.at(options.base) if options.base else workspace.base()
    quantization = options.quantization if options.engine == "llamacpp" else None
    engine_options = EngineOptions(batch_size=BATCH_SIZE, cache=workspace.cache("gguf"), quantization=quantization)
    engine = load_local_engine(options.engine, replace(base, dtype="float32"), {}, engine_options)

    constrained: list[Request] = []
    free: list[Request] = []
    rows = json.loads(SCHEMAS.read_text(encoding="utf-8"))
    for row in rows:
        for number, question in enumerate(row["questions"]):
            sampling = SamplingParams(
                options.tokens, temperature=options.temperature, seed=number, json_schema=json.dumps(row["schema"])
            )
            messages = (Message(role="user", content=question),)
            constrained.append(Request(f"{row['name']}/{number}", messages, sampling))
        free.append(Request(row["name"], messages, SamplingParams(FREE_TOKENS)))
    mixed = [*constrained, *free]
    mixed[::2], mixed[1::2] = mixed[: (len(mixed) + 1) // 2], mixed[(len(mixed) + 1) // 2 :]
    answers = {answer.completion.sample_id: answer for answer in answer_batch(engine, mixed, "All in one batch")}
    alone = [answer for request in free for answer in answer_batch(engine, [request], f"{request.sample_id} alone")]

    print("| schema | answers | valid | tokens |", "|---|---:|---:|---:|", sep="\n")
    total_valid = 0
    faults: list[str] = []
    for row in rows:
        completions = [answers[f"{row['name']}/{number}"].completion for number in range(len(row["questions"]))]
        invalid = {
            completion.sample_id: f"{fault}: {completion.text}"
            for completion in completions
            if (fault := find_fault(completion, row["schema"]))
        }
        faults += [f"{sample_id}: {fault}" for sample_id, fault in invalid.items()]
        valid = len(completions) - len(invalid)
        total_valid += valid
        tokens = sum(completion.output_tokens or 0 for completion in completions)
        print(f"| {row['name']} | {len(completions)} | {valid} | {tokens} |")
    equal = sum(answer.output_ids == answers[answer.completion.sample_id].output_ids for answer in alone)
    print(f"\nvalid: {total_valid} of {len(constrained)}; without a schema, equal in a batch and alone: ", end="")
    print(f"{equal} of {len(free)}", *faults, sep="\n")


if __name__ == "__main__":
    main()
