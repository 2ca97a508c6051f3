"""Concurrent requests to one engine, and a count of the answers that are not their adapter version's."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any

from bilora.inference.engine import BatchedEngine
from bilora.records import Completion
from bilora.requests import Chunk, Submission
from bilora.storage import adapter_sha256
from support.sample_adapters import SampleAdapters, chat_request, prompts

SYSTEMS = ("base", "codegen", "docstring")


def stream_answer(
    engine: BatchedEngine[Any], system: str, text: str, *, stop_after: int | None = None
) -> tuple[str, list[int]] | None:
    """Stream one answer; return the adapter's sha256 and the token ids, or None if it was cancelled."""
    told: SimpleQueue[Any] = SimpleQueue()
    [job] = engine.prepare([Submission(system, chat_request(text), told.put)])
    engine.submit([job])
    pieces: list[str] = []
    while True:
        outcome = told.get(timeout=60)
        if isinstance(outcome, Completion):
            assert "".join(pieces) == outcome.text
            assert outcome.text == engine._tokenizer.decode(job.output_ids, skip_special_tokens=True)
            return job.sha256, job.output_ids
        assert isinstance(outcome, Chunk), outcome
        pieces.append(outcome.text)
        if stop_after is not None and len(pieces) > stop_after:
            job.cancel()
            return None


def count_wrong_answers(
    engine: BatchedEngine[Any],
    sample_adapters: SampleAdapters,
    asked: list[tuple[str, str]],
    *,
    reload_at: int | None = None,
) -> int:
    """Send all requests from eight threads, some cancelled; return how many answers are not their version's."""
    versions = {adapter_sha256(folder): name for name, folder in sample_adapters.folders.items()} | {"": "base"}

    def one(place: int) -> tuple[str, str, list[int]]:
        system, text = asked[place]
        if place == reload_at:
            engine.load_adapter("codegen", sample_adapters.folders["codegen2"])
        if place % 7 == 0:
            stream_answer(engine, system, text, stop_after=place % 3)
        found = stream_answer(engine, system, text)
        assert found is not None
        return versions[found[0]], text, found[1]

    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(one, range(len(asked))))
    assert all(version.startswith(system) for (system, _), (version, _, _) in zip(asked, made, strict=True))
    if reload_at is not None:
        assert {version for version, _, _ in made} == {*SYSTEMS, "codegen2"}
    return sum(not sample_adapters.is_answer(version, text, new) for version, text, new in made)


def shuffled_requests(count: int) -> list[tuple[str, str]]:
    """Return `count` prompts for every system, in random order."""
    asked = [(system, text) for system in SYSTEMS for text in prompts(count)]
    random.Random(1).shuffle(asked)
    return asked
