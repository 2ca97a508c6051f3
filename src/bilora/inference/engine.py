"""The part that local engines share: systems by name, one batch for all callers, completions or streams."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Generic, cast

from bilora.bases.prompt import encode_prompt, template_remarks
from bilora.errors import BadData, UnknownModel
from bilora.inference.decoder import AdapterT, SequenceState
from bilora.inference.json_grammar import JsonGrammars
from bilora.inference.openmp import release_openmp_threads
from bilora.inference.scheduler import Batch, Scheduler
from bilora.protocols import Job, Progress, no_progress
from bilora.records import Completion, Message
from bilora.requests import Chunk, Request, Submission

if TYPE_CHECKING:
    from bilora.bases.tokenizer import Tokenizer

BASE_SYSTEM = "base"
"""The name of the system without an adapter."""


class ContinuousBatchingEngine(Generic[AdapterT]):
    """A base model and its adapters, with one batch for all callers; each sequence has one adapter or none.

    Implements `protocols.Engine`, `protocols.Streamer` and `protocols.BatchEngine`; thread-safe. Greedy answers are
    deterministic on CPU; sampled answers depend on the request's seed, not on the batch.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        batch: Batch[AdapterT],
        read_adapter: Callable[[str, Path], AdapterT],
        adapters: Mapping[str, Path],
        *,
        eos_ids: Iterable[int],
        context_length: int,
        max_waiting: int | None = None,
    ) -> None:
        """Load every adapter of `adapters` (task name → PEFT folder).

        Args:
            read_adapter: loads an adapter's version from its name and its folder.
            eos_ids: the tokens that end an answer.
            context_length: maximum number of tokens of prompt and answer together.
            max_waiting: maximum number of requests in the queue; None for no limit.

        Raises:
            BadData: an adapter cannot be loaded.
        """
        self._tokenizer = tokenizer
        self._read_adapter = read_adapter
        self._context_length = context_length
        self._tokenizer_lock = threading.Lock()
        self._grammars = JsonGrammars(self._tokenizer_json, eos_ids)
        self._adapters: dict[str, AdapterT] = {}
        for name, folder in adapters.items():
            self.load_adapter(name, folder)
        self._batch = batch
        self._scheduler = Scheduler(batch, max_waiting=max_waiting)
        release_openmp_threads()

    @property
    def context_length(self) -> int:
        """Maximum number of tokens of prompt and answer together."""
        return self._context_length

    def models(self) -> dict[str, str]:
        """Return the loaded systems (name → the adapter's sha256, empty for the base)."""
        return {BASE_SYSTEM: "", **{name: adapter.sha256 for name, adapter in self._adapters.items()}}

    def remarks(self) -> list[str]:
        """Return warnings about the base's chat template, one sentence each."""
        return template_remarks(self._tokenizer)

    def load_adapter(self, name: str, folder: Path) -> None:
        """Load an adapter, or replace its version: later requests use the new version, prepared ones the old.

        Raises:
            BadData: the adapter does not match the base; the old version stays loaded.
        """
        if name == BASE_SYSTEM:
            raise BadData(folder, f"an adapter cannot be called {name!r}; rename its task.")
        self.add_adapter(name, self._read_adapter(name, folder))
        release_openmp_threads()

    def add_adapter(self, name: str, adapter: AdapterT) -> None:
        """Add an adapter that is in memory, as `load_adapter` does."""
        self._adapters = {**self._adapters, name: adapter}

    def unload_adapter(self, name: str) -> None:
        """Unload an adapter; prepared requests still finish with it."""
        self._adapters = {key: adapter for key, adapter in self._adapters.items() if key != name}

    def set_thread_callback(self, count_threads: Callable[[], int]) -> None:
        """Call `count_threads` before each step for the step's number of threads."""
        self._scheduler.count_threads = count_threads

    def queue_depth(self) -> tuple[int, int]:
        """Return the numbers of running and of waiting requests."""
        return self._scheduler.queue_depth()

    def prepare(self, submissions: Sequence[Submission], *, streamed: bool = True) -> list[SequenceState[AdapterT]]:
        """Encode the prompts and bind all requests to the adapter versions loaded now.

        `max_tokens` is lowered to the remaining context.

        Raises:
            UnknownModel: the system is not loaded.
            BadData: a prompt is empty or too long, a token id is not in the vocabulary, or a JSON schema is not
                supported.
            NotReady: a request has a JSON schema, and the extra for it is not installed.
        """
        adapters = self._adapters
        sequences: list[SequenceState[AdapterT]] = []
        encoded: dict[str | tuple[Message, ...] | tuple[int, ...], list[int]] = {}
        for submission in submissions:
            system, request = submission.system, submission.request
            if system not in adapters and system != BASE_SYSTEM:
                raise UnknownModel(system, tuple(self.models()))
            prompt = request.prompt_ids or (request.messages if request.text is None else request.text)
            prompt_ids = encoded[prompt] = encoded.get(prompt) or self.encode(request)
            remaining = max(1, self._context_length - len(prompt_ids))
            sampling = replace(request.sampling, max_tokens=min(request.sampling.max_tokens, remaining))
            request = replace(request, sampling=sampling)
            schema = sampling.json_schema
            matcher = None if schema is None else self._grammars.matcher(schema)
            adapter, on_event = adapters.get(system), submission.on_event
            sequence = SequenceState(system, adapter, request, prompt_ids, on_event, streamed, matcher)
            self._check(sequence)
            sequences.append(sequence)
        return sequences

    def encode(self, request: Request, *, special_tokens: bool = True) -> list[int]:
        """Return the tokens of a prompt.

        Args:
            special_tokens: add the tokenizer's BOS and EOS tokens to a text.

        Raises:
            BadData: the prompt is empty, or a token id is not in the vocabulary.
        """
        with self._tokenizer_lock:  # tokenizers are not thread-safe
            if request.prompt_ids:
                prompt_ids = list(request.prompt_ids)
            elif request.text is not None:
                prompt_ids = self._tokenizer(request.text, add_special_tokens=special_tokens)["input_ids"]
            else:
                prompt_ids = encode_prompt(self._tokenizer, request.messages)
        if not prompt_ids:
            raise BadData("prompt", "it is empty; send at least one token.")
        self._check_ids("prompt", request.prompt_ids)
        return prompt_ids

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the text of tokens, including control tokens.

        Raises:
            BadData: a token id is not in the vocabulary.
        """
        self._check_ids("tokens", tokens)
        with self._tokenizer_lock:
            text: str = self._tokenizer.decode(list(tokens))
        return text

    def _check(self, sequence: SequenceState[AdapterT]) -> None:
        self._check_ids("logit_bias", [token for token, _ in sequence.sampling.logit_bias])
        self._check_ids("stop_token_ids", sequence.sampling.stop_token_ids)
        limit = self._batch.max_prompt_logprobs
        if sequence.wants_prompt_logprobs and limit is not None and sequence.prompt_tokens > limit:
            raise BadData(
                "echo", f"log probabilities need a prompt of at most {limit} tokens; it has {sequence.prompt_tokens}."
            )

    def _check_ids(self, name: str, tokens: Sequence[int]) -> None:
        size = len(self._tokenizer)
        invalid = next((token for token in tokens if not 0 <= token < size), None)
        if invalid is not None:
            raise BadData(name, f"{invalid} is not a token id; the base has ids from 0 to {size - 1}.")

    def _tokenizer_json(self) -> str:
        with self._tokenizer_lock:
            return self._tokenizer.backend_tokenizer.to_str()

    def submit(self, jobs: Sequence[Job]) -> None:
        """Queue all jobs, or none.

        Raises:
            BadData: a prompt leaves no context for an answer.
            Busy: the queue is full.
        """
        sequences = cast("Sequence[SequenceState[AdapterT]]", jobs)
        for sequence in sequences:
            if sequence.prompt_tokens >= self._context_length:
                limit = self._context_length - 1
                problem = f"the prompt has {sequence.prompt_tokens} tokens; at most {limit} are possible. Shorten it."
                raise BadData(sequence.request.sample_id, problem)
        release_openmp_threads()
        self._scheduler.submit(sequences)

    def generate(
        self, system: str, requests: Sequence[Request], *, progress: Progress = no_progress
    ) -> list[Completion]:
        """Return one completion per request by `system` (`base` or an adapter's name), in order."""
        return self.generate_mixed([(system, request) for request in requests], progress=progress)

    def generate_mixed(
        self, requests: Sequence[tuple[str, Request]], *, progress: Progress = no_progress
    ) -> list[Completion]:
        """Return one completion per (system, request) pair, in order; long prompts run first."""
        events: SimpleQueue[tuple[int, Chunk | Completion | Exception]] = SimpleQueue()
        jobs = self.prepare(
            [
                Submission(system, request, partial(_put, events, index))
                for index, (system, request) in enumerate(requests)
            ],
            streamed=False,
        )
        completions: dict[int, Completion] = {}
        try:
            self.submit(sorted(jobs, key=lambda job: -job.prompt_tokens))
            while len(completions) < len(jobs):
                match events.get():
                    case (_, Exception() as error):
                        raise error
                    case (index, Completion() as completion):
                        completions[index] = completion
                        progress(1)
        finally:
            for job in jobs:
                job.cancel()
        return [completions[index] for index in range(len(jobs))]

    def stream(self, system: str, request: Request) -> Generator[str, None, Completion]:
        """Yield an answer's text as it is generated, then return the completion.

        Closing the generator cancels the request.
        """
        events: SimpleQueue[Chunk | Completion | Exception] = SimpleQueue()
        [job] = self.prepare([Submission(system, request, events.put)])
        try:
            self.submit([job])
            while True:
                match events.get():
                    case Chunk() as chunk:
                        if chunk.text:
                            yield chunk.text
                    case Completion() as completion:
                        return completion
                    case Exception() as error:
                        raise error
        finally:
            job.cancel()


def _put(
    events: SimpleQueue[tuple[int, Chunk | Completion | Exception]],
    index: int,
    event: Chunk | Completion | Exception,
) -> None:
    events.put((index, event))
