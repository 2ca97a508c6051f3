"""From a request for answers to its reply, whole or streamed."""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections.abc import AsyncIterator, Awaitable

from fastapi import Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.background import BackgroundTask

from bilora.requests import Chunk
from bilora.serving.chat import ChatRequest
from bilora.serving.completions import CompletionRequest
from bilora.serving.config import ServerConfig
from bilora.serving.metrics import ServerMetrics
from bilora.serving.replies import ApiError, CompletionReply, Reply, Reported
from bilora.serving.responses import ResponseReply, ResponsesRequest
from bilora.serving.submission import PendingAnswers, TokenLimits, submit

AnyRequest = ChatRequest | CompletionRequest | ResponsesRequest


async def answer(config: ServerConfig, metrics: ServerMetrics, body: AnyRequest, request: Request) -> Response:
    """Return the reply to a request for answers, whole or a stream."""
    began = time.perf_counter()
    asked = body.chat() if isinstance(body, ResponsesRequest) else body
    identity = body.id_prefix + uuid.uuid4().hex
    requests = asked.requests(identity, config.system_prompts.get(body.model), config.penalties.get(body.model, 0.0))
    streamed = bool(asked.stream)
    limits = TokenLimits(most=config.max_tokens, default=asked.default_tokens, wanted=asked.limit)
    answers = await submit(config.engine, body.model, requests, limits, streamed=streamed or asked.wants_logprobs)
    reply: Reply
    if isinstance(body, ResponsesRequest):
        reply = ResponseReply(body, identity)
    else:
        fingerprint = "-".join(filter(None, (config.base_revision[:12], answers.jobs[0].sha256[:12])))
        reported = Reported(asked.wants_logprobs, asked.include_usage, asked.continuous_usage)
        lengths = [job.prompt_tokens for job in answers.jobs]
        reply = CompletionReply(identity, body.model, fingerprint, isinstance(body, ChatRequest), reported, lengths)
    if streamed:
        stream = _events(answers, reply, metrics, body.model, began)
        unread = BackgroundTask(answers.cancel)  # if the client disconnected before the first event
        return StreamingResponse(
            stream, media_type="text/event-stream", headers={"Cache-Control": "no-store"}, background=unread
        )
    chunks = await _unless_disconnected(request, _collect_chunks(answers))
    if chunks is None:
        return Response(status_code=499)  # the client is gone
    for completion in answers.completions():
        metrics.answered(completion, time.perf_counter() - began)
    return JSONResponse(reply.whole(chunks, answers.completions()))


async def _collect_chunks(answers: PendingAnswers) -> list[list[Chunk]]:
    chunks: list[list[Chunk]] = [[] for _ in answers.jobs]
    async with contextlib.aclosing(answers.events()) as events:
        async for index, outcome in events:
            if isinstance(outcome, Chunk):
                chunks[index].append(outcome)
    return chunks


async def _unless_disconnected(request: Request, work: Awaitable[list[list[Chunk]]]) -> list[list[Chunk]] | None:
    """Return what `work` returns; None as soon as the client has disconnected."""

    async def disconnected() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    answering, disconnecting = asyncio.ensure_future(work), asyncio.ensure_future(disconnected())
    try:
        await asyncio.wait((answering, disconnecting), return_when=asyncio.FIRST_COMPLETED)
        return answering.result() if answering.done() else None
    finally:
        disconnecting.cancel()
        answering.cancel()


async def _events(
    answers: PendingAnswers, reply: Reply, metrics: ServerMetrics, model: str, began: float
) -> AsyncIterator[bytes]:
    try:
        async with contextlib.aclosing(answers.events()) as events:
            for one in reply.opening():
                yield one
            async for index, outcome in events:
                if isinstance(outcome, Chunk):
                    more = reply.chunk(index, outcome)
                else:
                    metrics.answered(outcome, time.perf_counter() - began)
                    more = reply.closing(index, outcome)
                for one in more:
                    yield one
        last = reply.end(answers.completions())
    except ApiError as error:
        metrics.stream_broke(model)
        last = reply.failure(error)
    finally:
        answers.cancel()
    for one in last:
        yield one
