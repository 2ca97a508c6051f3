"""An OpenAI-compatible server as an engine, and as the judge's model."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Self, cast

from bilora.errors import BadData, Unreachable
from bilora.external_services import Endpoint
from bilora.inference.endpoint.client import ChatClient
from bilora.inference.endpoint.errors import RequestFailed
from bilora.inference.endpoint.parameters import AdaptedRequest
from bilora.inference.endpoint.replies import ChatReply
from bilora.protocols import Progress, no_progress
from bilora.records import Completion, Message
from bilora.requests import Request
from bilora.storage import read_json, sha256_json, write_json

_JUDGE_TOKENS = 1024


class EndpointEngine:
    """One remote model, whose system name is the endpoint's name.

    Implements `protocols.Engine`. Parameters that the server refuses are omitted or replaced (`ChatClient`). A
    request that fails after `retries` retries (which respect Retry-After) is a completion with finish `error`, the
    reason and no text. The key is sent to the endpoint only and never printed.

    Answers are cached in `cache`, one file per prompt and sent parameters, so that none is paid for twice and an
    interrupted evaluation resumes; failures are not cached. Requests fail after `budget_tokens` are spent; an answer
    without token counts is charged the bytes of prompt and answer, which is an upper bound.
    """

    def __init__(self, endpoint: Endpoint, api_key: str | None, *, retries: int = 4, cache: Path | None = None) -> None:
        self._endpoint = endpoint
        self._client = ChatClient(endpoint, api_key, retries=retries)
        self._cache = cache
        self._budget = endpoint.budget_tokens
        self._spent = 0
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"EndpointEngine({self._endpoint.name!r}, {self._endpoint.base_url!r})"

    @property
    def remarks(self) -> tuple[str, ...]:
        """How the last answered request differed from the requested parameters."""
        return self._client.remarks

    def generate(
        self, system: str, requests: Sequence[Request], *, progress: Progress = no_progress
    ) -> list[Completion]:
        """Return one completion per request, in order; requests run concurrently.

        Raises:
            BadData: `system` is not this endpoint's name.
        """
        if system != self._endpoint.name:
            raise BadData(
                f"endpoint {self._endpoint.name!r}", f"it does not serve {system!r}; use that system's engine."
            )
        self._client.connect()  # once, before the threads
        with ThreadPoolExecutor(self._endpoint.concurrency, thread_name_prefix="endpoint") as pool:
            futures = [pool.submit(self._complete, request) for request in requests]
            try:
                for _ in as_completed(futures):
                    progress(1)
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
        return [future.result() for future in futures]

    def chat(self, messages: Sequence[Message], *, schema: Mapping[str, object], seed: int) -> str:
        """Return one reply at temperature 0 in a strict JSON schema; implements `metrics.judged.Chat`.

        Raises:
            Unreachable: there was no usable reply.
            BadData: the model gave no answer.
        """
        requested = {
            "model": self._endpoint.model,
            "messages": _message_dicts(messages),
            "temperature": 0.0,
            "seed": seed,
            "max_tokens": _JUDGE_TOKENS,
            "response_format": _response_format(schema),
        }
        try:
            reply, _ = self._client.send_adapted(requested, self._client.send)
        except RequestFailed as error:
            raise self._unreachable(error) from None
        finish, reason = self._client.outcome(reply)
        if not reason and finish == "length" and "}" not in reply.text:
            reason = f"the reply was cut off at {_JUDGE_TOKENS} tokens"
        if reason:
            raise BadData(f"endpoint {self._endpoint.name!r}", f"{reason}.")
        return reply.text

    def stream(self, system: str, request: Request) -> Generator[str, None, Completion]:
        """Yield an answer's text by the server's model `system`, then return the completion.

        Closing the generator closes the connection.

        Raises:
            Unreachable: the server did not answer, or the stream broke.
        """
        requested = {
            **_chat_parameters(system, request),
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        start = time.perf_counter()
        with contextlib.ExitStack() as connection:
            try:
                events, sent = self._client.send_adapted(
                    requested, lambda adapted: (self._client.open_stream(adapted, connection), adapted)
                )
                with self._client.failures(sent.parameters):
                    reply = yield from events
            except RequestFailed as error:
                raise self._unreachable(error) from None
        completion = self._completion(request, system, reply, sent, time.perf_counter() - start)
        return completion.model_copy(update={"text": reply.text})  # the yielded text, also after an error

    def models(self) -> tuple[str, ...]:
        """Return the sorted ids of the models that the endpoint lists now.

        Raises:
            Unreachable: the endpoint did not answer.
        """
        try:
            return self._client.models()
        except RequestFailed as error:
            raise self._unreachable(error) from None

    def missing_model(self) -> str | None:
        """Return a warning if the server lists models, but not this endpoint's; None otherwise."""
        return self._client.missing_model()

    def close(self) -> None:
        """Close open connections."""
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _complete(self, request: Request) -> Completion:
        """Return the completion from the cache or the server; a failure is a completion with an error."""

        def answer(adapted: AdaptedRequest) -> Completion:
            cached = self._cache_file(request, adapted.parameters)
            if cached is not None and cached.is_file():
                return Completion.model_validate(read_json(cached))
            with self._lock:
                if self._budget is not None and self._spent >= self._budget:
                    raise RequestFailed(f"the budget of {self._budget} tokens is spent")
            reply, latency_s = self._client.send(adapted)
            with self._lock:
                self._spent += _tokens_spent(adapted.parameters, reply)
            completion = self._completion(request, self._endpoint.name, reply, adapted, latency_s)
            if cached is not None and completion.finish != "error":
                write_json(cached, completion.model_dump(mode="json"))
            return completion

        try:
            return self._client.send_adapted(_chat_parameters(self._endpoint.model, request), answer)
        except RequestFailed as error:
            return Completion(
                sample_id=request.sample_id,
                system=self._endpoint.name,
                text="",
                prompt_tokens=None,
                output_tokens=None,
                latency_s=0.0,
                finish="error",
                reason=str(error),
            )

    def _completion(
        self, request: Request, system: str, reply: ChatReply, adapted: AdaptedRequest, latency_s: float
    ) -> Completion:
        finish, reason = self._client.outcome(reply)
        return Completion(
            sample_id=request.sample_id,
            system=system,
            text=reply.text if finish != "error" else "",
            prompt_tokens=reply.prompt_tokens,
            output_tokens=reply.output_tokens,
            latency_s=latency_s,
            finish=finish,
            reason=reason,
            remark="; ".join(adapted.remarks),
        )

    def _cache_file(self, request: Request, sent: Mapping[str, object]) -> Path | None:
        """Return the cache file of the answer to this prompt with these parameters; None without a cache."""
        if self._cache is None:
            return None
        decoding = {name: value for name, value in sent.items() if name not in ("model", "messages")}
        server = (self._endpoint.name, self._endpoint.base_url)
        key = [*server, sent["model"], request.sample_id, sent["messages"], decoding]
        return self._cache / f"{sha256_json(key)}.json"

    def _unreachable(self, error: RequestFailed) -> Unreachable:
        return Unreachable(f"Endpoint {self._endpoint.name!r} gave no usable answer: {error}.")


def _message_dicts(messages: Sequence[Message]) -> list[dict[str, str]]:
    return [message.model_dump() for message in messages]


def _chat_parameters(model: str, request: Request) -> dict[str, object]:
    """Return a request's parameters; those that some servers do not know are sent only if they are set."""
    sampling = request.sampling
    optional = {
        "top_p": sampling.top_p if sampling.top_p < 1.0 else None,
        "frequency_penalty": sampling.frequency_penalty,
        "presence_penalty": sampling.presence_penalty,
        "stop": list(sampling.stop),
        "min_tokens": sampling.min_tokens,
        "ignore_eos": sampling.ignore_eos,
        "top_k": sampling.top_k,
        "min_p": sampling.min_p,
        "repetition_penalty": sampling.repetition_penalty if sampling.repetition_penalty != 1.0 else None,
        "stop_token_ids": list(sampling.stop_token_ids),
        "logit_bias": {str(token): bias for token, bias in sampling.logit_bias},
        "response_format": sampling.json_schema and _response_format(json.loads(sampling.json_schema)),
    }
    return {
        "model": model,
        "messages": _message_dicts(request.messages),
        "temperature": sampling.temperature,
        "seed": sampling.seed,
        "max_tokens": sampling.max_tokens,
        **{name: value for name, value in optional.items() if value},
    }


def _response_format(schema: Mapping[str, object]) -> dict[str, object]:
    return {"type": "json_schema", "json_schema": {"name": "reply", "strict": True, "schema": dict(schema)}}


def _tokens_spent(sent: Mapping[str, object], reply: ChatReply) -> int:
    """Return the tokens of a call, or an upper bound: a token has at least one byte."""
    messages = cast("list[dict[str, str]]", sent["messages"])
    prompt = sum(len(message["content"].encode("utf-8", "replace")) for message in messages)
    read = prompt if reply.prompt_tokens is None else reply.prompt_tokens
    written = len(reply.text.encode()) if reply.output_tokens is None else reply.output_tokens
    return read + written
