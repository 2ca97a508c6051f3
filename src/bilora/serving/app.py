"""The HTTP app: OpenAI's paths, /health and /metrics."""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse, StreamingResponse
from starlette.background import BackgroundTask
from starlette.exceptions import HTTPException

from bilora.protocols import BatchEngine
from bilora.requests import Chunk
from bilora.serving.answers import Answers, asked
from bilora.serving.door import Door
from bilora.serving.meters import Meters
from bilora.serving.replies import DONE, ApiError, Reply, event
from bilora.serving.wire import ChatRequest, CompletionRequest

if TYPE_CHECKING:
    from starlette.types import ASGIApp

PATHS = frozenset({"/v1/models", "/v1/chat/completions", "/v1/completions", "/health", "/metrics", "/openapi.json"})


@dataclass(frozen=True)
class Served:
    """What one server is.

    `system_prompts`: what each adapter was trained with; a chat without a system message gets it.
    `penalties`: the frequency penalty that each adapter was measured with; a request that names none gets it.
    `look` takes up new adapter versions and returns how many, called every `look_every_s` seconds.
    `key` is what clients have to send, None for nothing; `base_id` and `base_revision` are told, as is
    `created`, when the server began.
    """

    engine: BatchEngine
    base_id: str
    base_revision: str
    system_prompts: Mapping[str, str] = field(default_factory=dict)
    penalties: Mapping[str, float] = field(default_factory=dict)
    key: str | None = field(default=None, repr=False)
    max_body: int = 2**20
    max_tokens: int | None = None
    look: Callable[[], int] | None = None
    look_every_s: float = 1.0
    created: int = field(default_factory=lambda: int(time.time()))


def build(served: Served) -> ASGIApp:
    """Return the app, its door around it."""
    meters = Meters(served.engine)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        watcher = asyncio.create_task(_watch(served, meters))
        yield
        watcher.cancel()

    app = FastAPI(title="BiLoRA", version="1", lifespan=lifespan, docs_url=None, redoc_url=None)
    _add_errors(app)
    _add_completions(app, served, meters)
    _add_facts(app, served, meters)
    return Door(app, key=served.key, max_body=served.max_body, paths=PATHS, replied=meters.replied)


async def _watch(served: Served, meters: Meters) -> None:
    while served.look is not None:
        await asyncio.sleep(served.look_every_s)
        meters.reloaded(await asyncio.to_thread(served.look))


def _add_errors(app: FastAPI) -> None:
    @app.exception_handler(ApiError)
    async def known(_: Request, error: ApiError) -> Response:
        return JSONResponse(error.body, error.status, error.headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"][1:] if isinstance(part, int | str))
        message = f"{place}: {first['msg']}" if place else str(first["msg"])
        return JSONResponse(ApiError(400, message, "invalid_value", param=place or None).body, 400)

    @app.exception_handler(HTTPException)
    async def other(_: Request, error: HTTPException) -> Response:
        return JSONResponse(ApiError(error.status_code, str(error.detail)).body, error.status_code, error.headers)

    @app.exception_handler(Exception)
    async def unforeseen(_: Request, error: Exception) -> Response:
        fault = ApiError(500, f"The server failed ({type(error).__name__}).", kind="server_error")
        return JSONResponse(fault.body, 500)


def _add_completions(app: FastAPI, served: Served, meters: Meters) -> None:
    @app.post("/v1/chat/completions")
    async def chat(body: ChatRequest, request: Request) -> Response:
        return await _answer(served, meters, body, request, "chatcmpl-")

    @app.post("/v1/completions")
    async def completions(body: CompletionRequest, request: Request) -> Response:
        return await _answer(served, meters, body, request, "cmpl-")


def _add_facts(app: FastAPI, served: Served, meters: Meters) -> None:
    def described(name: str, sha256: str) -> dict[str, Any]:
        facts = {"id": name, "object": "model", "created": served.created, "owned_by": "bilora"}
        if not sha256:
            return {**facts, "root": served.base_id, "parent": None, "revision": served.base_revision}
        return {**facts, "root": name, "parent": "base", "sha256": sha256}

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        known = served.engine.models()
        return {"object": "list", "data": [described(name, sha256) for name, sha256 in known.items()]}

    @app.get("/v1/models/{name}")
    async def model(name: str) -> dict[str, Any]:
        known = served.engine.models()
        if name not in known:
            raise ApiError(404, f"The model {name[:80]!r} is not served here.", "model_not_found", param="model")
        return described(name, known[name])

    @app.get("/health")
    async def health() -> dict[str, Any]:
        running, waiting = served.engine.queue_depth()
        adapters = {name: sha256 for name, sha256 in served.engine.models().items() if sha256}
        base = {"id": served.base_id, "revision": served.base_revision}
        return {"status": "ok", "base": base, "adapters": adapters, "running": running, "waiting": waiting}

    @app.get("/metrics")
    async def metrics() -> Response:
        return PlainTextResponse(meters.page(), media_type="text/plain; version=0.0.4")


async def _answer(
    served: Served, meters: Meters, body: ChatRequest | CompletionRequest, request: Request, prefix: str
) -> Response:
    began = time.perf_counter()
    identity = prefix + uuid.uuid4().hex
    requests = body.requests(identity, served.system_prompts.get(body.model), served.penalties.get(body.model, 0.0))
    streamed = bool(body.stream)
    answers = await asked(
        served.engine,
        body.model,
        requests,
        most_tokens=served.max_tokens,
        default_tokens=body.default_tokens,
        streamed=streamed or body.told,
    )
    fingerprint = "-".join(filter(None, (served.base_revision[:12], answers.jobs[0].sha256[:12])))
    reply = Reply(identity, body.model, fingerprint, chat=isinstance(body, ChatRequest))
    if streamed:
        events = _events(answers, reply, body, meters, began)
        unread = BackgroundTask(answers.cancel)  # of a client that left before the first event
        return StreamingResponse(
            events, media_type="text/event-stream", headers={"Cache-Control": "no-store"}, background=unread
        )
    pieces = await _unless_gone(request, _gathered(answers))
    if pieces is None:
        return Response(status_code=499)  # nobody reads it
    for made in answers.completions():
        meters.answered(made, time.perf_counter() - began)
    return JSONResponse(reply.whole(pieces, answers.completions(), told=body.told))


async def _gathered(answers: Answers) -> list[list[Chunk]]:
    pieces: list[list[Chunk]] = [[] for _ in answers.jobs]
    async with contextlib.aclosing(answers.outcomes()) as outcomes:
        async for index, outcome in outcomes:
            if isinstance(outcome, Chunk):
                pieces[index].append(outcome)
    return pieces


async def _unless_gone(request: Request, work: Awaitable[list[list[Chunk]]]) -> list[list[Chunk]] | None:
    """Do it, but stop as soon as the client has left."""

    async def gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    doing, leaving = asyncio.ensure_future(work), asyncio.ensure_future(gone())
    try:
        await asyncio.wait((doing, leaving), return_when=asyncio.FIRST_COMPLETED)
        return doing.result() if doing.done() else None
    finally:
        leaving.cancel()
        doing.cancel()


async def _events(
    answers: Answers, reply: Reply, body: ChatRequest | CompletionRequest, meters: Meters, began: float
) -> AsyncIterator[bytes]:
    extra: dict[str, Any] = {"usage": None} if body.include_usage else {}
    offsets = [0] * len(answers.jobs)
    try:
        async with contextlib.aclosing(answers.outcomes()) as outcomes:
            if reply.chat:
                for index in range(len(answers.jobs)):
                    yield event({**reply.opening(index), **extra})
            async for index, outcome in outcomes:
                if isinstance(outcome, Chunk):
                    yield event({**reply.chunk(index, outcome, told=body.told, offset=offsets[index]), **extra})
                    offsets[index] += sum(len(token.text) for token in outcome.tokens)
                else:
                    meters.answered(outcome, time.perf_counter() - began)
                    yield event({**reply.closing(index, outcome), **extra})
        if body.include_usage:
            yield event(reply.usage(answers.completions()))
    except ApiError as error:
        meters.broke_off(reply.model)
        yield event(error.body)
    finally:
        answers.cancel()
    yield DONE
