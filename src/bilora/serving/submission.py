"""From the engine's thread to the server's event loop."""

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
"""The index of an answer, and one of its events."""


@dataclass(frozen=True)
class TokenLimits:
    """How many tokens an answer has: at most `most`, and `default` if `wanted`, the request's own number, is None.

    None: only the context limits it.
    """

    most: int | None = None
    default: int | None = None
    wanted: int | None = None


@dataclass
class PendingAnswers:
    """The answers to one HTTP request, which may want several."""

    jobs: Sequence[Job]
    queue: asyncio.Queue[AnswerEvent]
    completed: dict[int, Completion] = field(default_factory=dict)

    async def events(self) -> AsyncGenerator[tuple[int, Chunk | Completion]]:
        """Yield the chunks and completions of all answers; closing the generator cancels what is not finished.

        Raises:
            ApiError: the engine failed, or an answer cannot go on within its JSON schema.
        """
        try:
            while len(self.completed) < len(self.jobs):
                index, event = await self.queue.get()
                if isinstance(event, BadSchema):
                    raise _refused_format(event)
                if isinstance(event, Exception):
                    raise ApiError(500, "The model failed at this request.", "engine_failed", kind="server_error")
                if isinstance(event, Completion):
                    self.completed[index] = event
                yield index, event
        finally:
            self.cancel()

    def cancel(self) -> None:
        """Cancel the answers that are not finished."""
        for job in self.jobs:
            job.cancel()

    def completions(self) -> list[Completion]:
        """Return all answers, in order."""
        return [self.completed[index] for index in range(len(self.jobs))]


async def submit(
    engine: BatchEngine, model: str, requests: Sequence[Request], limits: TokenLimits, *, streamed: bool
) -> PendingAnswers:
    """Queue the requests; `streamed` asks for chunks, not only for whole answers.

    Raises:
        ApiError: 404 for an unknown model, 400 for more tokens than fit or an unsupported JSON schema, 429 if the
            queue is full.
    """
    loop, queue = asyncio.get_running_loop(), asyncio.Queue[AnswerEvent]()

    def put(index: int, event: Chunk | Completion | Exception) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed, so nobody waits
            loop.call_soon_threadsafe(queue.put_nowait, (index, event))

    if limits.most is not None and limits.wanted is not None and limits.wanted > limits.most:
        raise ApiError(
            400, f"An answer has at most {limits.most} tokens here; {limits.wanted} were asked for.", "too_many_tokens"
        )
    submissions = [Submission(model, request, partial(put, index)) for index, request in enumerate(requests)]
    try:
        jobs = await asyncio.to_thread(engine.prepare, submissions, streamed=streamed)
        for request, job in zip(requests, jobs, strict=True):
            job.allow(_max_tokens(job, request.sampling, engine.context, limits))
        engine.submit(jobs)
    except UnknownModel:
        known = ", ".join(engine.models())
        raise ApiError(
            404, f"The model {model[:80]!r} is not served here; there are {known}.", "model_not_found", param="model"
        ) from None
    except (BadSchema, NotReady) as error:
        raise _refused_format(error) from None
    except BadData as error:
        raise ApiError(400, str(error), "invalid_value") from None
    except Busy as busy:
        raise ApiError(
            429, str(busy), "queue_full", kind="rate_limit_error", headers={"Retry-After": str(RETRY_AFTER_S)}
        ) from None
    return PendingAnswers(jobs, queue)


def _refused_format(error: BiloraError) -> ApiError:
    return ApiError(400, str(error), "invalid_value", param="response_format")


def _max_tokens(job: Job, sampling: SamplingParams, context: int, limits: TokenLimits) -> int:
    """Return how long an answer may become."""
    remaining = context - job.prompt_tokens
    least = 1 if limits.wanted is None else limits.wanted
    if remaining < least:
        raise ApiError(  # its first words are those by which litellm and others know this error
            400,
            f"This model's maximum context length is {context} tokens, of prompt and answer together; the prompt has "
            f"{job.prompt_tokens}, and {least} more were asked for. Shorten the prompt or ask for fewer.",
            "context_length_exceeded",
        )
    bounds = [remaining, *(limit for limit in (limits.most, limits.default) if limit is not None)]
    tokens = min(bounds) if limits.wanted is None else limits.wanted
    if sampling.min_tokens > tokens:
        raise ApiError(
            400,
            f"min_tokens is {sampling.min_tokens}, but this answer has at most {tokens} tokens; "
            "lower min_tokens or raise max_tokens.",
            "invalid_value",
            param="min_tokens",
        )
    return tokens
