"""Submit requests to the engine, and pass the events of its thread to the server's event loop."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from functools import partial

from bilora.errors import BadData, BadSchema, BiloraError, Busy, NotReady, UnknownModel
from bilora.protocols import BatchEngine, Job
from bilora.records import Completion
from bilora.requests import Chunk, Request, SamplingParams, Submission
from bilora.serving.replies import ApiError

RETRY_AFTER_S = 1

AnswerEvent = tuple[int, Chunk | Completion | Exception]
"""An answer's index, and one of its events."""


@dataclass(frozen=True)
class TokenLimits:
    """The limits of an answer's length in tokens, each None for no limit.

    `maximum`: the server's. `requested`: the request's `max_tokens`. `default`: for requests without it.
    """

    maximum: int | None = None
    default: int | None = None
    requested: int | None = None


@dataclass
class PendingAnswers:
    """The answers to one HTTP request."""

    jobs: Sequence[Job]
    queue: asyncio.Queue[AnswerEvent]
    completed: dict[int, Completion] = field(default_factory=dict)

    async def events(self) -> AsyncGenerator[tuple[int, Chunk | Completion]]:
        """Yield the chunks and completions of all answers; closing the generator cancels unfinished ones.

        Raises:
            ApiError: the engine failed, or an answer cannot continue within its JSON schema.
        """
        try:
            while len(self.completed) < len(self.jobs):
                index, event = await self.queue.get()
                if isinstance(event, BadSchema):
                    raise _format_error(event)
                if isinstance(event, Exception):
                    raise ApiError(500, "The model failed.", "engine_failed", kind="server_error")
                if isinstance(event, Completion):
                    self.completed[index] = event
                yield index, event
        finally:
            self.cancel()

    def cancel(self) -> None:
        """Cancel unfinished answers."""
        for job in self.jobs:
            job.cancel()

    def completions(self) -> list[Completion]:
        """Return all completions, in order."""
        return [self.completed[index] for index in range(len(self.jobs))]


async def submit(
    engine: BatchEngine, model: str, requests: Sequence[Request], limits: TokenLimits, *, streamed: bool
) -> PendingAnswers:
    """Queue the requests; with `streamed` the answers have chunks, not only completions.

    Raises:
        ApiError: 404 for an unknown model, 400 for too many tokens or an unsupported JSON schema, 429 for a full queue.
    """
    loop, queue = asyncio.get_running_loop(), asyncio.Queue[AnswerEvent]()

    def put(index: int, event: Chunk | Completion | Exception) -> None:
        with contextlib.suppress(RuntimeError):  # the event loop is closed
            loop.call_soon_threadsafe(queue.put_nowait, (index, event))

    if limits.maximum is not None and limits.requested is not None and limits.requested > limits.maximum:
        problem = f"{limits.requested} tokens are requested, but an answer has at most {limits.maximum} tokens here."
        raise ApiError(400, problem, "too_many_tokens")
    submissions = [Submission(model, request, partial(put, index)) for index, request in enumerate(requests)]
    try:
        jobs = await asyncio.to_thread(engine.prepare, submissions, streamed=streamed)
        for request, job in zip(requests, jobs, strict=True):
            job.set_max_tokens(_max_tokens(job, request.sampling, engine.context_length, limits))
        engine.submit(jobs)
    except UnknownModel:
        served = ", ".join(engine.models())
        raise ApiError(
            404, f"The model {model[:80]!r} is not served here; choose from {served}.", "model_not_found", param="model"
        ) from None
    except (BadSchema, NotReady) as error:
        raise _format_error(error) from None
    except BadData as error:
        raise ApiError(400, str(error), "invalid_value") from None
    except Busy as busy:
        raise ApiError(
            429, str(busy), "queue_full", kind="rate_limit_error", headers={"Retry-After": str(RETRY_AFTER_S)}
        ) from None
    return PendingAnswers(jobs, queue)


def _format_error(error: BiloraError) -> ApiError:
    return ApiError(400, str(error), "invalid_value", param="response_format")


def _max_tokens(job: Job, sampling: SamplingParams, context_length: int, limits: TokenLimits) -> int:
    """Return the maximum number of tokens of an answer."""
    remaining = context_length - job.prompt_tokens
    required = 1 if limits.requested is None else limits.requested
    if remaining < required:
        raise ApiError(  # litellm and others recognize this error by its first words
            400,
            f"This model's maximum context length is {context_length} tokens for prompt and answer; the prompt has "
            f"{job.prompt_tokens}, and {required} more are requested. Shorten the prompt or lower max_tokens.",
            "context_length_exceeded",
        )
    bounds = [remaining, *(limit for limit in (limits.maximum, limits.default) if limit is not None)]
    tokens = min(bounds) if limits.requested is None else limits.requested
    if sampling.min_tokens > tokens:
        raise ApiError(
            400,
            f"min_tokens is {sampling.min_tokens}, but this answer has at most {tokens} tokens; "
            "lower min_tokens or raise max_tokens.",
            "invalid_value",
            param="min_tokens",
        )
    return tokens
