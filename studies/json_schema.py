"""Do answers fit their JSON schema, and do their neighbours in the batch stay what they are?

    python studies/json_schema.py [--checkout .] [--base FOLDER] [--engine torch] [--temperature 0] [--tokens 400]

Each question of studies/json_schemas.json is asked of the base in 32-bit with its schema, and one of every ten also
without, all in one batch. An answer counts as valid if it is JSON, fits the schema by the library jsonschema, and was
not cut at --tokens. The answers without a schema are then made again, each alone, and compared token for token.
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
BATCH, FREE_TOKENS = 16, 48


@dataclass(frozen=True)
class Answer:
    """One answer, and its token ids."""

    completion: Completion
    output_ids: list[int]


def ask(engine: LocalEngine, requests: Sequence[Request], title: str) -> list[Answer]:
    """Answer all requests in one batch, in the order given."""
    events: SimpleQueue[Chunk | Completion | Exception] = SimpleQueue()
    jobs: Any = engine.prepare([Submission(BASE_SYSTEM, one, events.put) for one in requests], streamed=False)
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


def problem(answer: Completion, schema: dict[str, Any]) -> str:
    """Return why an answer is not valid; empty if it is."""
    if answer.finish != "stop":
        return "cut at the token limit"
    try:
        jsonschema.validate(json.loads(answer.text), schema)
    except (ValueError, jsonschema.ValidationError) as error:
        return str(error).partition("\n")[0]
    return ""


def main() -> None:
    """Ask, check and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkout", type=Path, default=Path())
    parser.add_argument("--base", type=Path, help="a base's folder; default: the base of the checkout")
    parser.add_argument("--engine", choices=ENGINES, default="torch")
    parser.add_argument("--quantization", choices=get_args(Quantization), default="f32", help="for llamacpp")
    parser.add_argument("--temperature", type=float, default=0.0)
    parser.add_argument("--tokens", type=int, default=400)
    chosen = parser.parse_args()
    silence_libraries()
    workspace = Workspace(chosen.checkout)
    base = FolderBase.at(chosen.base) if chosen.base else workspace.base()
    quantization = chosen.quantization if chosen.engine == "llamacpp" else None
    options = EngineOptions(batch_size=BATCH, cache=workspace.cache("gguf"), quantization=quantization)
    engine = load_local_engine(chosen.engine, replace(base, dtype="float32"), {}, options)

    constrained: list[Request] = []
    free: list[Request] = []
    rows = json.loads(SCHEMAS.read_text(encoding="utf-8"))
    for row in rows:
        for number, question in enumerate(row["questions"]):
            sampling = SamplingParams(
                chosen.tokens, temperature=chosen.temperature, seed=number, json_schema=json.dumps(row["schema"])
            )
            messages = (Message(role="user", content=question),)
            constrained.append(Request(f"{row['name']}/{number}", messages, sampling))
        free.append(Request(row["name"], messages, SamplingParams(FREE_TOKENS)))
    mixed = [*constrained, *free]
    mixed[::2], mixed[1::2] = mixed[: (len(mixed) + 1) // 2], mixed[(len(mixed) + 1) // 2 :]
    answers = {one.completion.sample_id: one for one in ask(engine, mixed, "All in one batch")}
    alone = [answer for request in free for answer in ask(engine, [request], f"{request.sample_id} alone")]

    print("| schema | answers | valid | tokens |", "|---|---:|---:|---:|", sep="\n")
    valid = 0
    problems: list[str] = []
    for row in rows:
        own = [answers[f"{row['name']}/{number}"].completion for number in range(len(row["questions"]))]
        found = [(one, problem(one, row["schema"])) for one in own]
        problems += [f"{one.sample_id}: {reason}: {one.text}" for one, reason in found if reason]
        right = sum(not reason for _, reason in found)
        valid += right
        print(f"| {row['name']} | {len(own)} | {right} | {sum(one.output_tokens or 0 for one in own)} |")
    equal = sum(one.output_ids == answers[one.completion.sample_id].output_ids for one in alone)
    print(f"\nvalid: {valid} of {len(constrained)}; without a schema, equal to the one alone: {equal} of {len(free)}")
    print(*problems, sep="\n")


if __name__ == "__main__":
    main()
