"""What every local engine shares: systems by name, one batch for all callers, whole answers or pieces."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Generic, cast

from bilora.bases.prompt import encode_prompt, template_remarks
from bilora.errors import BadData, UnknownModel
from bilora.inference.decoder import Row, V
from bilora.inference.openmp import rest
from bilora.inference.scheduler import Batch, Loop
from bilora.protocols import Job, Progress, no_progress
from bilora.records import Completion
from bilora.requests import Chunk, Request, Submission

BASE = "base"


class BatchedEngine(Generic[V]):
    """A base and its adapters in one batch that all callers share; its rows may each have another adapter or none.

    Implements `protocols.Engine`, `protocols.Streamer` and `protocols.BatchEngine`; any thread may call. Greedy answers
    are deterministic on CPU; sampled ones follow their request's seed, whatever the batch around them.
    """

    def __init__(
        self,
        tokenizer: Any,
        batch: Batch,
        read: Callable[[str, Path], V],
        adapters: Mapping[str, Path],
        *,
        context: int,
        carries: str | None = None,
        max_waiting: int | None = None,
    ) -> None:
        """Put every adapter of `adapters` (task name → PEFT folder) beside the base that `batch` asks.

        Args:
            read: loads one version of an adapter for that base, from its name and its folder.
            context: how many tokens prompt and answer may have together.
            carries: name under which an adapter that the base already has answers.
            max_waiting: so many requests may wait besides those in the batch; None for any number.

        Raises:
            BadData: an adapter cannot be served.
        """
        self._tokenizer = tokenizer
        self._read = read
        self._context = context
        self._carries = carries
        self._reading = threading.Lock()
        self._adapters: dict[str, V] = {}
        for name, folder in adapters.items():
            self.load_adapter(name, folder)
        self._loop = Loop(batch, max_waiting=max_waiting)
        rest()

    @property
    def context(self) -> int:
        """How many tokens prompt and answer may have together."""
        return self._context

    def models(self) -> dict[str, str]:
        """Return the systems that answer now, each with its adapter's sha256; empty for the base."""
        carried = {self._carries: ""} if self._carries else {}
        return {BASE: "", **carried, **{name: adapter.sha256 for name, adapter in self._adapters.items()}}

    def remarks(self) -> list[str]:
        """Return in sentences what a user must know of the base's chat template; of most there is nothing."""
        return template_remarks(self._tokenizer)

    def load_adapter(self, name: str, folder: Path) -> None:
        """Load an adapter, or another version of it: later requests have the new one, earlier ones keep the old.

        Raises:
            BadData: it does not fit the base; what was served before still is.
        """
        if name in (BASE, self._carries):
            raise BadData(folder, f"an adapter cannot be called {name!r}; rename its task.")
        adapter = self._read(name, folder)
        rest()
        self._adapters = {**self._adapters, name: adapter}

    def unload_adapter(self, name: str) -> None:
        """Serve an adapter no longer; answers that have begun are finished."""
        self._adapters = {key: adapter for key, adapter in self._adapters.items() if key != name}

    def queue_depth(self) -> tuple[int, int]:
        """Return how many requests are being answered, and how many wait."""
        return self._loop.load()

    def prepare(self, submissions: Sequence[Submission], *, streamed: bool = True) -> list[Row[V]]:
        """Read the prompts and bind them to this moment's versions of their systems, all to the same moment's.

        An answer that the context would end is as long as that lets it be.

        Raises:
            UnknownModel: no such system is loaded; it is never answered by the base instead.
            BadData: a prompt is empty.
        """
        adapters = self._adapters
        rows: list[Row[V]] = []
        read: dict[Any, list[int]] = {}
        for submission in submissions:
            system, request = submission.system, submission.request
            if system not in adapters and system not in (BASE, self._carries):
                raise UnknownModel(system, tuple(self.models()))
            text = request.messages if request.text is None else request.text
            prompt = read[text] = read.get(text) or self._read_prompt(request)
            room = max(1, self._context - len(prompt))
            sampling = replace(request.sampling, max_tokens=min(request.sampling.max_tokens, room))
            request = replace(request, sampling=sampling)
            rows.append(Row(system, adapters.get(system), request, prompt, submission.on_event, streamed))
        return rows

    def _read_prompt(self, request: Request) -> list[int]:
        with self._reading:  # a tokenizer is not made for two threads at once
            if request.text is not None:
                prompt: list[int] = self._tokenizer(request.text)["input_ids"]
            else:
                prompt = encode_prompt(self._tokenizer, request.messages)
        if not prompt:
            raise BadData("prompt", "it is empty; give at least one token.")
        return prompt

    def submit(self, jobs: Sequence[Job]) -> None:
        """Queue all of these jobs, or none.

        Raises:
            BadData: a prompt leaves no room for an answer in the context.
            Busy: they do not fit into the queue.
        """
        rows = cast("Sequence[Row[V]]", jobs)
        for row in rows:
            if row.prompt_tokens >= self._context:
                problem = f"the prompt has {row.prompt_tokens} tokens; {self._context - 1} are read at most."
                raise BadData(row.request.sample_id, problem)
        rest()
        self._loop.submit(rows)

    def generate(
        self, system: str, requests: Sequence[Request], *, progress: Progress = no_progress
    ) -> list[Completion]:
        """Answer all requests as `system` (`base` or an adapter's name), longest prompts first."""
        return self.generate_mixed([(system, request) for request in requests], progress=progress)

    def generate_mixed(
        self, asked: Sequence[tuple[str, Request]], *, progress: Progress = no_progress
    ) -> list[Completion]:
        """Answer requests to any systems in shared batches, in the order given."""
        told: SimpleQueue[tuple[int, Any]] = SimpleQueue()
        jobs = self.prepare(
            [
                Submission(system, request, partial(_place, told, place))
                for place, (system, request) in enumerate(asked)
            ],
            streamed=False,
        )
        answers: dict[int, Completion] = {}
        try:
            self.submit(sorted(jobs, key=lambda job: -job.prompt_tokens))
            while len(answers) < len(jobs):
                place, outcome = told.get()
                if isinstance(outcome, Exception):
                    raise outcome
                answers[place] = outcome
                progress(1)
        finally:
            for job in jobs:
                job.cancel()
        return [answers[place] for place in range(len(jobs))]

    def stream(self, system: str, request: Request) -> Generator[str, None, Completion]:
        """Answer one request piece by piece; the generator's value is the whole answer.

        Closing the generator frees its row at the next token.
        """
        told: SimpleQueue[Chunk | Completion | Exception] = SimpleQueue()
        [job] = self.prepare([Submission(system, request, told.put)])
        try:
            self.submit([job])
            while True:
                match told.get():
                    case Chunk() as piece:
                        if piece.text:
                            yield piece.text
                    case Completion() as made:
                        return made
                    case Exception() as fault:
                        raise fault
        finally:
            job.cancel()


def _place(told: SimpleQueue[tuple[int, Any]], place: int, outcome: Any) -> None:
    told.put((place, outcome))
