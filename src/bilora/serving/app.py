"""The HTTP app: OpenAI's paths, /health and /metrics."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware

from bilora.errors import BadData
from bilora.serving.answers import answer
from bilora.serving.chat import ChatRequest
from bilora.serving.completions import CompletionRequest
from bilora.serving.config import ServerConfig
from bilora.serving.loading import AdapterLoader, LoadRequest, UnloadRequest
from bilora.serving.metrics import ServerMetrics
from bilora.serving.middleware import AuthMiddleware, BodyLimits
from bilora.serving.replies import ApiError, ApiObject
from bilora.serving.responses import ResponsesRequest
from bilora.serving.tokenization import DetokenizeRequest, TokenizeRequest, detokenize, tokenize

if TYPE_CHECKING:
    from starlette.types import ASGIApp

_PATHS = frozenset(
    {
        *("/v1/models", "/v1/chat/completions", "/v1/completions", "/v1/responses"),
        *("/v1/load_lora_adapter", "/v1/unload_lora_adapter"),
        *("/tokenize", "/detokenize", "/tokenizer_info", "/health", "/metrics", "/openapi.json"),
    }
)
_LOCAL_ORIGIN = r"https?://(localhost|127\.0\.0\.1|\[::1\])(:\d+)?"


def create_app(config: ServerConfig, shutting_down: asyncio.Event | None = None) -> ASGIApp:
    """Return the app with its middleware.

    Args:
        shutting_down: set when the server stops; incomplete requests then get an error.
    """
    metrics = ServerMetrics(config.engine)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        reloading = asyncio.create_task(_reload(config, metrics))
        yield
        reloading.cancel()

    app = FastAPI(title="BiLoRA", version="1", lifespan=lifespan, docs_url=None, redoc_url=None)
    _add_errors(app)
    _add_completions(app, config, metrics)
    _add_tokenization(app, config)
    if config.adapter_root is not None:
        _add_loading(app, AdapterLoader(config.engine, config.adapter_root))
    _add_status(app, config, metrics)
    limits = BodyLimits(config.max_body, shutting_down or asyncio.Event())
    guarded = AuthMiddleware(app, key=config.key, limits=limits, paths=_PATHS, on_reply=metrics.record_reply)
    return CORSMiddleware(
        guarded,
        allow_origins=config.origins,
        allow_origin_regex=_LOCAL_ORIGIN,
        allow_methods=("GET", "HEAD", "POST"),
        allow_headers=("*",),
        expose_headers=("x-request-id",),
    )


async def _reload(config: ServerConfig, metrics: ServerMetrics) -> None:
    while config.reload is not None:
        await asyncio.sleep(config.reload_interval_s)
        metrics.record_reloads(await asyncio.to_thread(config.reload))


def _add_errors(app: FastAPI) -> None:
    @app.exception_handler(ApiError)
    async def api_error(_: Request, error: ApiError) -> Response:
        return JSONResponse(error.body, error.status, error.headers)

    @app.exception_handler(BadData)
    async def bad_data(_: Request, error: BadData) -> Response:
        return JSONResponse(ApiError(400, str(error), "invalid_value").body, 400)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"][1:] if isinstance(part, int | str))
        message = f"{field}: {first['msg']}" if field else str(first["msg"])
        return JSONResponse(ApiError(400, message, "invalid_value", param=field or None).body, 400)

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
        return await answer(config, metrics, body, request)

    @app.post("/v1/completions")
    async def completions(body: CompletionRequest, request: Request) -> Response:
        return await answer(config, metrics, body, request)

    @app.post("/v1/responses")
    async def responses(body: ResponsesRequest, request: Request) -> Response:
        return await answer(config, metrics, body, request)


def _add_tokenization(app: FastAPI, config: ServerConfig) -> None:
    @app.post("/tokenize")
    async def tokens(body: TokenizeRequest) -> ApiObject:
        return await asyncio.to_thread(tokenize, config.engine, body)

    @app.post("/detokenize")
    async def text(body: DetokenizeRequest) -> ApiObject:
        return await asyncio.to_thread(detokenize, config.engine, body)

    @app.get("/tokenizer_info")
    async def information() -> ApiObject:
        return dict(config.tokenizer_info)


def _add_loading(app: FastAPI, loader: AdapterLoader) -> None:
    @app.post("/v1/load_lora_adapter")
    async def load(body: LoadRequest) -> ApiObject:
        return await asyncio.to_thread(loader.load, body)

    @app.post("/v1/unload_lora_adapter")
    async def unload(body: UnloadRequest) -> ApiObject:
        return await asyncio.to_thread(loader.unload, body)


def _add_status(app: FastAPI, config: ServerConfig, metrics: ServerMetrics) -> None:
    def describe(name: str, sha256: str) -> ApiObject:
        fields = {"id": name, "object": "model", "created": config.created, "owned_by": "bilora"}
        fields["max_model_len"] = config.engine.context_length  # vLLM's name
        if not sha256:
            return {**fields, "root": config.base_id, "parent": None, "revision": config.base_revision}
        return {**fields, "root": name, "parent": "base", "sha256": sha256}

    @app.head("/v1/models", include_in_schema=False)
    @app.get("/v1/models")
    async def models() -> ApiObject:
        served = config.engine.models()
        return {"object": "list", "data": [describe(name, sha256) for name, sha256 in served.items()]}

    @app.head("/v1/models/{name}", include_in_schema=False)
    @app.get("/v1/models/{name}")
    async def model(name: str) -> ApiObject:
        served = config.engine.models()
        if name not in served:
            raise ApiError(404, f"The model {name[:80]!r} is not served here.", "model_not_found", param="model")
        return describe(name, served[name])

    @app.head("/health", include_in_schema=False)
    @app.get("/health")
    async def health() -> ApiObject:
        running, waiting = config.engine.queue_depth()
        adapters = {name: sha256 for name, sha256 in config.engine.models().items() if sha256}
        base = {"id": config.base_id, "revision": config.base_revision}
        return {"status": "ok", "base": base, "adapters": adapters, "running": running, "waiting": waiting}

    @app.head("/metrics", include_in_schema=False)
    @app.get("/metrics")
    async def prometheus() -> Response:
        return PlainTextResponse(metrics.render(), media_type="text/plain; version=0.0.4")
