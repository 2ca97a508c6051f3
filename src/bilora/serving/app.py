"""The HTTP app: OpenAI's paths, /health and /metrics."""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse, StreamingResponse
from starlette.background import BackgroundTask
from starlette.exceptions import HTTPException

from bilora.protocols import BatchEngine
from bilora.requests import Chunk
from bilora.serving.metrics import ServerMetrics
from bilora.serving.middleware import AuthMiddleware
from bilora.serving.replies import DONE, ApiError, ApiObject, Reply, event
from bilora.serving.submission import PendingAnswers, TokenLimits, submit
from bilora.serving.wire import ChatRequest, CompletionRequest

if TYPE_CHECKING:
    from starlette.types import ASGIApp

_PATHS = frozenset({"/v1/models", "/v1/chat/completions", "/v1/completions", "/health", "/metrics", "/openapi.json"})


@dataclass(frozen=True)
class ServerConfig:
    """What one server serves, and how.

    `system_prompts`: what each adapter was trained with; a chat without a system message gets it.
    `penalties`: the frequency penalty that each adapter was measured with; a request that names none gets it.
    `reload` loads new adapter versions and returns how many; it is called every `reload_interval_s` seconds.
    `key` is what clients have to send, None for nothing. `max_tokens` limits an answer, `max_body` a request's bytes.
    `base_id`, `base_revision` and `created`, the time of the start, are reported.
    """

    engine: BatchEngine
    base_id: str
    base_revision: str
    system_prompts: Mapping[str, str] = field(default_factory=dict)
    penalties: Mapping[str, float] = field(default_factory=dict)
    key: str | None = field(default=None, repr=False)
    max_body: int = 2**20
    max_tokens: int | None = None
    reload: Callable[[], int] | None = None
    reload_interval_s: float = 1.0
    created: int = field(default_factory=lambda: int(time.time()))


def create_app(config: ServerConfig) -> ASGIApp:
    """Return the app in its middleware."""
    metrics = ServerMetrics(config.engine)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        reloading = asyncio.create_task(_reload(config, metrics))
        yield
        reloading.cancel()

    app = FastAPI(title="BiLoRA", version="1", lifespan=lifespan, docs_url=None, redoc_url=None)
    _add_errors(app)
    _add_completions(app, config, metrics)
    _add_facts(app, config, metrics)
    return AuthMiddleware(app, key=config.key, max_body=config.max_body, paths=_PATHS, on_reply=metrics.replied)


async def _reload(config: ServerConfig, metrics: ServerMetrics) -> None:
    while config.reload is not None:
        await asyncio.sleep(config.reload_interval_s)
        metrics.reloaded(await asyncio.to_thread(config.reload))


def _add_errors(app: FastAPI) -> None:
    @app.exception_handler(ApiError)
    async def api_error(_: Request, error: ApiError) -> Response:
        return JSONResponse(error.body, error.status, error.headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"][1:] if isinstance(part, int | str))
        message = f"{place}: {first['msg']}" if place else str(first["msg"])
        return JSONResponse(ApiError(400, message, "invalid_value", param=place or None).body, 400)

    @app.exception_handler(HTTPException)
    async def http_error(_: Request, error: HTTPException) -> Response:
        return JSONResponse(ApiError(error.status_code, str(error.detail)).body, error.status_code, error.headers)

    @app.exception_handler(Exception)
    async def unexpected(_: Request, error: Exception) -> Response:
        fault = ApiError(500, f"The server failed ({type(error).__name__}).", kind="server_error")
        return JSONResponse(fault.body, 500)


def _add_completions(app: FastAPI, config: ServerConfig, metrics: ServerMetrics) -> None:
    @app.post("/v1/chat/completions")
    async def chat(body: ChatRequest, request: Request) -> Response:
        return await _answer(config, metrics, body, request, "chatcmpl-")

    @app.post("/v1/completions")
    async def completions(body: CompletionRequest, request: Request) -> Response:
        return await _answer(config, metrics, body, request, "cmpl-")


def _add_facts(app: FastAPI, config: ServerConfig, metrics: ServerMetrics) -> None:
    def describe(name: str, sha256: str) -> ApiObject:
        facts = {"id": name, "object": "model", "created": config.created, "owned_by": "bilora"}
        facts["max_model_len"] = config.engine.context  # vLLM's name for the tokens of prompt and answer together
        if not sha256:
            return {**facts, "root": config.base_id, "parent": None, "revision": config.base_revision}
        return {**facts, "root": name, "parent": "base", "sha256": sha256}

    @app.get("/v1/models")
    async def models() -> ApiObject:
        known = config.engine.models()
        return {"object": "list", "data": [describe(name, sha256) for name, sha256 in known.items()]}

    @app.get("/v1/models/{name}")
    async def model(name: str) -> ApiObject:
        known = config.engine.models()
        if name not in known:
            raise ApiError(404, f"The model {name[:80]!r} is not served here.", "model_not_found", param="model")
        return describe(name, known[name])

    @app.get("/health")
    async def health() -> ApiObject:
        running, waiting = config.engine.queue_depth()
        adapters = {name: sha256 for name, sha256 in config.engine.models().items() if sha256}
        base = {"id": config.base_id, "revision": config.base_revision}
        return {"status": "ok", "base": base, "adapters": adapters, "running": running, "waiting": waiting}

    @app.get("/metrics")
    async def prometheus() -> Response:
        return PlainTextResponse(metrics.page(), media_type="text/plain; version=0.0.4")


async def _answer(
    config: ServerConfig, metrics: ServerMetrics, body: ChatRequest | CompletionRequest, request: Request, prefix: str
) -> Response:
    began = time.perf_counter()
    identity = prefix + uuid.uuid4().hex
    requests = body.requests(identity, config.system_prompts.get(body.model), config.penalties.get(body.model, 0.0))
    streamed = bool(body.stream)
    limits = TokenLimits(most=config.max_tokens, default=body.default_tokens)
    answers = await submit(config.engine, body.model, requests, limits, streamed=streamed or body.wants_logprobs)
    fingerprint = "-".join(filter(None, (config.base_revision[:12], answers.jobs[0].sha256[:12])))
    reply = Reply(identity, body.model, fingerprint, chat=isinstance(body, ChatRequest))
    if streamed:
        stream = _events(answers, reply, body, metrics, began)
        unread = BackgroundTask(answers.cancel)  # if the client disconnected before the first event
        return StreamingResponse(
            stream, media_type="text/event-stream", headers={"Cache-Control": "no-store"}, background=unread
        )
    chunks = await _unless_disconnected(request, _collect_chunks(answers))
    if chunks is None:
        return Response(status_code=499)  # nobody reads it
    for completion in answers.completions():
        metrics.answered(completion, time.perf_counter() - began)
    return JSONResponse(reply.whole(chunks, answers.completions(), logprobs=body.wants_logprobs))


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
    answers: PendingAnswers, reply: Reply, body: ChatRequest | CompletionRequest, metrics: ServerMetrics, began: float
) -> AsyncIterator[bytes]:
    extra: ApiObject = {"usage": None} if body.include_usage else {}
    offsets = [0] * len(answers.jobs)
    try:
        async with contextlib.aclosing(answers.events()) as events:
            if reply.chat:
                for index in range(len(answers.jobs)):
                    yield event({**reply.opening(index), **extra})
            async for index, outcome in events:
                if isinstance(outcome, Chunk):
                    chunk = reply.chunk(index, outcome, logprobs=body.wants_logprobs, offset=offsets[index])
                    yield event({**chunk, **extra})
                    offsets[index] += sum(len(token.text) for token in outcome.tokens)
                else:
                    metrics.answered(outcome, time.perf_counter() - began)
                    yield event({**reply.closing(index, outcome), **extra})
        if body.include_usage:
            yield event(reply.usage(answers.completions()))
    except ApiError as error:
        metrics.stream_broke(reply.model)
        yield event(error.body)
    finally:
        answers.cancel()
    yield DONE
