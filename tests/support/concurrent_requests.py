"""Concurrent requests to one engine, and a count of the wrong answers."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any

from bilora.inference.engine import ContinuousBatchingEngine
from bilora.records import Completion
from bilora.requests import Chunk, Submission
from bilora.storage import adapter_sha256
from support.sample_adapters import SampleAdapters, chat_request, prompts

SYSTEMS = ("base", "codegen", "docstring")


def stream_answer(
    engine: ContinuousBatchingEngine[Any], system: str, text: str, *, stop_after: int | None = None
) -> tuple[str, list[int]] | None:
    """Stream one answer; return the adapter's sha256 and the token ids, or None if it was cancelled."""
    events: SimpleQueue[Any] = SimpleQueue()
    [job] = engine.prepare([Submission(system, chat_request(text), events.put)])
    engine.submit([job])
    chunks: list[str] = []
    while True:
        event = events.get(timeout=60)
        if isinstance(event, Completion):
            assert "".join(chunks) == event.text
            assert event.text == engine._tokenizer.decode(job.output_ids, skip_special_tokens=True)
            return job.sha256, job.output_ids
        assert isinstance(event, Chunk), event
        chunks.append(event.text)
        if stop_after is not None and len(chunks) > stop_after:
            job.cancel()
            return None


def count_wrong_answers(
    engine: ContinuousBatchingEngine[Any],
    sample_adapters: SampleAdapters,
    requests: list[tuple[str, str]],
    *,
    reload_at: int | None = None,
) -> int:
    """Send all requests from eight threads, some cancelled; return the number of answers that are wrong.

    An answer is right if it is the greedy answer of the adapter version that the engine names. With `reload_at` the
    adapter codegen is replaced before the request of this index.
    """
    versions = {adapter_sha256(folder): name for name, folder in sample_adapters.folders.items()} | {"": "base"}

    def answer(index: int) -> tuple[str, str, list[int]]:
        system, text = requests[index]
        if index == reload_at:
            engine.load_adapter("codegen", sample_adapters.folders["codegen2"])
        if index % 7 == 0:
            stream_answer(engine, system, text, stop_after=index % 3)
        streamed = stream_answer(engine, system, text)
        assert streamed is not None
        sha256, output_ids = streamed
        return versions[sha256], text, output_ids

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(answer, range(len(requests))))
    assert all(version.startswith(system) for (system, _), (version, _, _) in zip(requests, answers, strict=True))
    if reload_at is not None:
        assert {version for version, _, _ in answers} == {*SYSTEMS, "codegen2"}
    return sum(not sample_adapters.is_answer(version, text, output_ids) for version, text, output_ids in answers)


def shuffled_requests(count: int) -> list[tuple[str, str]]:
    """Return (system, prompt) for `count` prompts and every system, in random order."""
    requests = [(system, text) for system in SYSTEMS for text in prompts(count)]
    random.Random(1).shuffle(requests)
    return requests
