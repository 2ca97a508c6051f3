"""Answer a request for completions, with a complete reply or a stream."""

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
from bilora.serving.replies import ApiError, CompletionReply, Reply, ReportOptions
from bilora.serving.responses import ResponseReply, ResponsesRequest
from bilora.serving.submission import PendingAnswers, TokenLimits, submit

AnyRequest = ChatRequest | CompletionRequest | ResponsesRequest


async def answer(config: ServerConfig, metrics: ServerMetrics, body: AnyRequest, request: Request) -> Response:
    """Return a complete reply or a stream."""
    start = time.perf_counter()
    # 1) Submit one request per prompt and choice to the engine.
    options = body.chat() if isinstance(body, ResponsesRequest) else body
    reply_id = body.id_prefix + uuid.uuid4().hex
    requests = options.requests(
        reply_id, config.system_prompts.get(body.model), config.frequency_penalties.get(body.model, 0.0)
    )
    streamed = bool(options.stream)
    limits = TokenLimits(config.max_tokens, default=options.default_tokens, requested=options.token_limit)
    answers = await submit(config.engine, body.model, requests, limits, streamed=streamed or options.wants_logprobs)
    # 2) Choose the form of the reply.
    reply: Reply
    if isinstance(body, ResponsesRequest):
        reply = ResponseReply(body, reply_id)
    else:
        fingerprint = "-".join(filter(None, (config.base_revision[:12], answers.jobs[0].sha256[:12])))
        report = ReportOptions(options.wants_logprobs, options.include_usage, options.continuous_usage)
        lengths = [job.prompt_tokens for job in answers.jobs]
        reply = CompletionReply(reply_id, body.model, fingerprint, isinstance(body, ChatRequest), report, lengths)
    # 3) Stream the answers, or wait for all of them.
    if streamed:
        stream = _events(answers, reply, metrics, body.model, start)
        cancel = BackgroundTask(answers.cancel)  # if the client disconnects before the first event
        return StreamingResponse(
            stream, media_type="text/event-stream", headers={"Cache-Control": "no-store"}, background=cancel
        )
    chunks = await _unless_disconnected(request, _collect_chunks(answers))
    if chunks is None:
        return Response(status_code=499)  # the client has disconnected
    for completion in answers.completions():
        metrics.record_answer(completion, time.perf_counter() - start)
    return JSONResponse(reply.full_reply(chunks, answers.completions()))


async def _collect_chunks(answers: PendingAnswers) -> list[list[Chunk]]:
    chunks: list[list[Chunk]] = [[] for _ in answers.jobs]
    async with contextlib.aclosing(answers.events()) as events:
        async for index, event in events:
            if isinstance(event, Chunk):
                chunks[index].append(event)
    return chunks


async def _unless_disconnected(request: Request, work: Awaitable[list[list[Chunk]]]) -> list[list[Chunk]] | None:
    """Return the result of `work`; None as soon as the client disconnects."""

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
    answers: PendingAnswers, reply: Reply, metrics: ServerMetrics, model: str, start: float
) -> AsyncIterator[bytes]:
    try:
        async with contextlib.aclosing(answers.events()) as events:
            for data in reply.start():
                yield data
            async for index, event in events:
                if isinstance(event, Chunk):
                    new_data = reply.chunk(index, event)
                else:
                    metrics.record_answer(event, time.perf_counter() - start)
                    new_data = reply.finish(index, event)
                for data in new_data:
                    yield data
        last_data = reply.end(answers.completions())
    except ApiError as error:
        metrics.record_broken_stream(model)
        last_data = reply.fail(error)
    finally:
        answers.cancel()
    for data in last_data:
        yield data
