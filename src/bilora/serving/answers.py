"""From the engine's thread to the server's event loop."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from bilora.errors import BadData, Busy, UnknownModel
from bilora.protocols import BatchEngine, Job
from bilora.records import Completion
from bilora.requests import Chunk, Request, Submission
from bilora.serving.replies import ApiError

RETRY_AFTER_S = 1


@dataclass
class Answers:
    """The answers to one HTTP request, which may want several."""

    jobs: Sequence[Job]
    told: asyncio.Queue[tuple[int, Any]]
    made: dict[int, Completion] = field(default_factory=dict)

    async def outcomes(self) -> AsyncGenerator[tuple[int, Chunk | Completion]]:
        """Yield what is told of each answer; whoever stops listening cancels what is left.

        Raises:
            ApiError: the engine failed.
        """
        try:
            while len(self.made) < len(self.jobs):
                index, outcome = await self.told.get()
                if isinstance(outcome, Exception):
                    raise ApiError(500, "The model failed at this request.", "engine_failed", kind="server_error")
                if isinstance(outcome, Completion):
                    self.made[index] = outcome
                yield index, outcome
        finally:
            self.cancel()

    def cancel(self) -> None:
        """Free the rows of answers that nobody waits for; finished ones are past that."""
        for job in self.jobs:
            job.cancel()

    def completions(self) -> list[Completion]:
        """Return all answers, in order."""
        return [self.made[index] for index in range(len(self.jobs))]


async def asked(
    engine: BatchEngine,
    model: str,
    requests: Sequence[Request],
    *,
    most_tokens: int | None,
    default_tokens: int | None,
    streamed: bool,
) -> Answers:
    """Queue the requests.

    Args:
        most_tokens: what one answer may have at most; None for as many as the context holds.
        default_tokens: what one has that asks for no number of them; None for as many as it may have.
        streamed: whether pieces are wanted, not only whole answers.

    Raises:
        ApiError: 404 for an unknown model, 400 for more tokens than there can be, 429 if the queue is full.
    """
    loop, told = asyncio.get_running_loop(), asyncio.Queue[tuple[int, Any]]()

    def tell(index: int, outcome: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed, so nobody listens
            loop.call_soon_threadsafe(told.put_nowait, (index, outcome))

    most = max(request.sampling.max_tokens for request in requests)
    if most_tokens is not None and most > most_tokens:
        raise ApiError(
            400, f"An answer has at most {most_tokens} tokens here; {most} were asked for.", "too_many_tokens"
        )
    wanted = [Submission(model, request, partial(tell, index)) for index, request in enumerate(requests)]
    try:
        jobs = await asyncio.to_thread(engine.prepare, wanted, streamed=streamed)
        for request, job in zip(requests, jobs, strict=True):
            _limit(job, request.sampling.max_tokens, engine.context, (most_tokens, default_tokens))
        engine.submit(jobs)
    except UnknownModel:
        known = ", ".join(engine.models())
        raise ApiError(
            404, f"The model {model[:80]!r} is not served here; there are {known}.", "model_not_found", param="model"
        ) from None
    except BadData as fault:
        raise ApiError(400, str(fault), "invalid_value") from None
    except Busy as busy:
        raise ApiError(
            429, str(busy), "queue_full", kind="rate_limit_error", headers={"Retry-After": str(RETRY_AFTER_S)}
        ) from None
    return Answers(jobs, told)


def _limit(job: Job, wanted: int, context: int, bounds: Sequence[int | None]) -> None:
    room = context - job.prompt_tokens
    if room < max(wanted, 1):
        raise ApiError(
            400,
            f"Prompt and answer have at most {context} tokens together; the prompt has {job.prompt_tokens}, "
            f"and {wanted or 'at least one'} more were asked for. Shorten the prompt or ask for fewer.",
            "context_length_exceeded",
        )
    job.allow(wanted or min(room, *(bound for bound in bounds if bound is not None), room))
