"""Any OpenAI-compatible server as an engine, and as what a judge speaks through."""

from __future__ import annotations

import contextlib
import re
import ssl
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

from bilora.api_keys import clean_key
from bilora.errors import BiloraError, Unreachable
from bilora.inference.chat_replies import Finish, Reply, UnusableReply, read_document, read_reply, read_stream
from bilora.inference.endpoint_errors import RequestFailed, offered_models, status_reason
from bilora.inference.request_parameters import (
    Adapted,
    LearnedRefusals,
    adapt,
    error_message,
    find_refusals,
    holds_for_others,
)
from bilora.network import connection_fault, uses_proxy
from bilora.outside import Endpoint
from bilora.ports import Progress, Request, silent
from bilora.records import Completion, Message
from bilora.redaction import one_line
from bilora.storage import read_json, sha256_json, write_json

if TYPE_CHECKING:
    from openai import OpenAI

R = TypeVar("R")

_NO_KEY = "none"
"""The client refuses to work without a key, though local servers want none."""

_JUDGE_TOKENS = 1024
_MAX_ATTEMPTS = 10
"""How often one request is sent, each time without what the server refused before."""
_LIST_TIMEOUT_S = 5.0


class EndpointEngine:
    """One remote model, known here by its endpoint's name.

    Implements `ports.Engine`. What the server refuses of a request (`request_parameters`) is left out or
    replaced, and the request sent again; once that has led to an answer, all further requests are sent so.
    A request that still fails after `retries` repetitions (which wait as long as Retry-After asks) is a
    completion with finish `error`, no text and the reason. The key is sent to the endpoint and shown nowhere.

    Answers are kept in `cache`, one file per question and parameters sent, so that none is paid for twice
    and an interrupted evaluation goes on where it was; failures are not kept. Once `budget_tokens` are
    spent the rest is left unanswered; an answer that comes without token counts is charged its bytes and
    its prompt's, which are more.
    """

    def __init__(self, endpoint: Endpoint, api_key: str | None, *, retries: int = 4, cache: Path | None = None) -> None:
        self._endpoint = endpoint
        self._key = clean_key(api_key, f"The key of endpoint {endpoint.name!r}")
        self._retries = retries
        self._cache = cache
        self._refused = LearnedRefusals()
        self._remarks: tuple[str, ...] = ()
        self._budget = endpoint.budget_tokens
        self._spent = 0
        self._closed_until = 0.0
        self._lock = threading.Lock()
        self._list_lock = threading.Lock()

    def __repr__(self) -> str:
        return f"EndpointEngine({self._endpoint.name!r}, {self._endpoint.base_url!r})"

    @property
    def remarks(self) -> tuple[str, ...]:
        """In which respects the last answered question was asked otherwise than wanted."""
        return self._remarks

    def generate(self, system: str, requests: Sequence[Request], *, progress: Progress = silent) -> list[Completion]:
        """Answer every request, several at a time, in the order given.

        Raises:
            BiloraError: `system` is not this endpoint's name.
        """
        if system != self._endpoint.name:
            raise BiloraError(
                f"Endpoint {self._endpoint.name!r} cannot answer as {system!r}. Ask that system's engine."
            )
        with contextlib.suppress(RequestFailed):
            _ = self._client  # made once, before the threads
        with ThreadPoolExecutor(self._endpoint.concurrency, thread_name_prefix="endpoint") as pool:
            futures = [pool.submit(self._complete, request) for request in requests]
            try:
                for _ in as_completed(futures):
                    progress(1)
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
        return [future.result() for future in futures]

    def chat(self, messages: Sequence[Message], *, schema: Mapping[str, Any], seed: int) -> str:
        """Ask once at temperature 0 for a reply in a strict JSON schema (what `metrics.judged.Chat` wants).

        Raises:
            Unreachable: no usable reply came.
            BiloraError: the model gave no answer.
        """
        asked = {
            "model": self._endpoint.model,
            "messages": _wire(messages),
            "temperature": 0.0,
            "seed": seed,
            "max_tokens": _JUDGE_TOKENS,
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "reply", "strict": True, "schema": dict(schema)},
            },
        }
        try:
            reply, _ = self._adapted(asked, self._send)
        except RequestFailed as fault:
            raise self._unreachable(fault) from None
        finish, reason = self._outcome(reply)
        if not reason and finish == "length" and "}" not in reply.text:
            reason = f"the reply was cut off at {_JUDGE_TOKENS} tokens"
        if reason:
            raise BiloraError(f"Endpoint {self._endpoint.name!r}: {reason}.")
        return reply.text

    def stream(self, system: str, request: Request) -> Generator[str, None, Completion]:
        """Answer one request piece by piece as the server's model `system`; the generator's value is the answer.

        Closing the generator closes the connection.

        Raises:
            Unreachable: the server did not answer, or broke off.
        """
        asked = {
            **_asked(system, request),
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        began = time.perf_counter()
        with contextlib.ExitStack() as connection:
            try:
                events, sent = self._adapted(asked, lambda adapted: (self._open(adapted, connection), adapted))
                with self._failures(sent.parameters):
                    reply = yield from events
            except RequestFailed as fault:
                raise self._unreachable(fault) from None
        made = self._completion(request, system, reply, sent, time.perf_counter() - began)
        return made.model_copy(update={"text": reply.text})  # what was yielded stays, however it ended

    def models(self) -> tuple[str, ...]:
        """Ids of the models that the endpoint offers now, sorted.

        Raises:
            Unreachable: it did not say.
        """
        try:
            return self._listed(self._client)
        except RequestFailed as fault:
            raise self._unreachable(fault) from None

    def missing_model(self) -> str | None:
        """Say that the server lists models, but not this one; None if it does, or lists nothing."""
        known = self._offered
        wanted = self._endpoint.model
        if not known or any(wanted in (name, name.rpartition("/")[2], name.partition(":")[0]) for name in known):
            return None
        return f"the server does not list the model {wanted!r}; {offered_models(known, self._key)}"

    def close(self) -> None:
        """Close open connections."""
        if "_client" in self.__dict__:
            self._client.close()
            del self.__dict__["_client"]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @cached_property
    def _client(self) -> OpenAI:
        import httpx2
        from openai import Omit, OpenAI, OpenAIError

        foreign: Any = {
            "OpenAI-Organization": Omit(),
            "OpenAI-Project": Omit(),
        }  # else taken from the environment
        try:
            return OpenAI(
                api_key=self._key or _NO_KEY,
                base_url=self._endpoint.base_url,
                timeout=self._endpoint.timeout_s,
                max_retries=self._retries,
                default_headers=foreign,
            )
        except (OpenAIError, httpx2.InvalidURL, ImportError, OSError, ValueError) as error:
            raise RequestFailed(
                "no connection can be set up; look at base_url and at the environment's proxy and certificate "
                f"variables ({one_line(str(error), key=self._key or '')})"
            ) from None

    def _complete(self, request: Request) -> Completion:
        """Answer one request from the cache or the server; a failure is a completion too."""

        def answer(adapted: Adapted) -> Completion:
            kept = self._kept(request, adapted.parameters)
            if kept is not None and kept.is_file():
                return Completion.model_validate(read_json(kept))
            with self._lock:
                if self._budget is not None and self._spent >= self._budget:
                    raise RequestFailed(f"the budget of {self._budget} tokens is spent")
            reply, latency_s = self._send(adapted)
            with self._lock:
                self._spent += _cost(adapted.parameters, reply)
            made = self._completion(request, self._endpoint.name, reply, adapted, latency_s)
            if kept is not None and made.finish != "error":
                write_json(kept, made.model_dump(mode="json"))
            return made

        try:
            return self._adapted(_asked(self._endpoint.model, request), answer)
        except RequestFailed as fault:
            return Completion(
                sample_id=request.sample_id,
                system=self._endpoint.name,
                text="",
                prompt_tokens=None,
                output_tokens=None,
                latency_s=0.0,
                finish="error",
                reason=str(fault),
            )

    def _completion(
        self, request: Request, system: str, reply: Reply, adapted: Adapted, latency_s: float
    ) -> Completion:
        finish, reason = self._outcome(reply)
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

    def _outcome(self, reply: Reply) -> tuple[Finish, str]:
        finish, reason = reply.outcome()
        return finish, one_line(reason, key=self._key or "")

    def _kept(self, request: Request, sent: Mapping[str, Any]) -> Path | None:
        """Where the answer to exactly this question, asked exactly so, lies once it has been paid for."""
        if self._cache is None:
            return None
        decoding = {name: value for name, value in sent.items() if name not in ("model", "messages")}
        question = [
            self._endpoint.name, self._endpoint.base_url, sent["model"], request.sample_id, sent["messages"], decoding,
        ]  # fmt: skip
        return self._cache / f"{sha256_json(question)}.json"

    def _adapted(self, asked: Mapping[str, Any], send: Callable[[Adapted], R]) -> R:
        """Send a request, and again without what the server refuses, until it is answered or refused for good.

        What was refused is remembered only once the request is answered without it: an error message may
        name a parameter by accident.

        Raises:
            RequestFailed: no answer came.
        """
        refused_here, refused_alike = frozenset[tuple[str, str]](), frozenset[tuple[str, str]]()
        for attempt in range(1, _MAX_ATTEMPTS + 1):
            adapted = adapt(asked, self._refused.known | refused_here)
            try:
                result = send(adapted)
            except RequestFailed as fault:
                found = find_refusals(fault.status, fault.document, adapted.parameters)
                refused_here |= found
                if holds_for_others(found, fault.document):
                    refused_alike |= found
                again = adapt(asked, self._refused.known | refused_here)
                if attempt == _MAX_ATTEMPTS or again.parameters == adapted.parameters:
                    raise
                continue
            self._refused.learn(refused_alike)
            self._remarks = adapted.remarks
            return result
        raise AssertionError("the last attempt returns or raises")

    def _send(self, adapted: Adapted) -> tuple[Reply, float]:
        """Return the reply, and the seconds of the try that succeeded, without the waits before."""
        with self._failures(adapted.parameters):
            self._wait_for_turn()
            raw = self._client.chat.completions.with_raw_response.create(**adapted.parameters)
            self._heed(raw.headers)
            return read_reply(raw.content, raw.headers.get("content-type", "")), raw.elapsed.total_seconds()

    def _open(self, adapted: Adapted, connection: contextlib.ExitStack) -> Generator[str, None, Reply]:
        """Start a stream and wait for its first event, until which the server may refuse."""
        with self._failures(adapted.parameters):
            raw = connection.enter_context(
                self._client.chat.completions.with_streaming_response.create(**adapted.parameters)
            )
            events = read_stream(raw.iter_bytes(), raw.headers.get("content-type", ""))
            next(events)
            return events

    @contextlib.contextmanager
    def _failures(self, sent: Mapping[str, Any]) -> Iterator[None]:
        """Turn whatever goes wrong with a request into a RequestFailed that says why."""
        import httpx2
        from openai import APIConnectionError, APIStatusError, OpenAIError

        try:
            yield
        except UnusableReply as fault:
            words = one_line(error_message(fault.document), key=self._key or "")
            said = f' (the server says: "{words}")' if words else ""
            status = None if fault.document is None else 200
            raise RequestFailed(f"{fault}{said}", status=status, document=fault.document) from None
        except APIStatusError as error:
            content = error.response.content if error.response.is_closed else b""
            document = read_document(content, error.response.headers.get("content-type", ""))
            refused = [name for name, _ in find_refusals(error.status_code, document, sent)]
            reason = status_reason(
                self._endpoint,
                self._key,
                error.status_code,
                document,
                model=sent.get("model", ""),
                offered=lambda: self._offered,
                refused=refused,
            )
            raise RequestFailed(reason, status=error.status_code, document=document) from None
        except (APIConnectionError, httpx2.HTTPError, httpx2.StreamError, httpx2.InvalidURL, ssl.SSLError) as error:
            way = " (by way of the environment's proxy)" if uses_proxy(self._endpoint.base_url) else ""
            raise RequestFailed(f"{connection_fault(error) or 'the connection failed'}{way}") from None
        except UnicodeEncodeError:
            raise RequestFailed("the question holds half of a surrogate pair, which cannot be sent") from None
        except (OpenAIError, ValueError, TypeError):
            raise RequestFailed("the request could not be sent, or its reply not be read") from None

    @property
    def _offered(self) -> tuple[str, ...]:
        """The server's models as it lists them, asked once and without patience; empty if it does not."""
        with self._list_lock:
            if "_offered_once" not in self.__dict__:
                patience = min(_LIST_TIMEOUT_S, self._endpoint.timeout_s)
                try:
                    self._offered_once = self._listed(self._client.with_options(max_retries=0, timeout=patience))
                except RequestFailed:
                    self._offered_once = ()
            return self._offered_once

    def _listed(self, client: OpenAI) -> tuple[str, ...]:
        with self._failures({"messages": [{"role": "user"}]}):
            raw = client.models.with_raw_response.list()
            document = read_document(raw.content, raw.headers.get("content-type", ""))
            rows = document.get("data", document.get("models")) if isinstance(document, dict) else document
            if not isinstance(rows, list):
                raise UnusableReply("its list of models cannot be read")
            ids = [row.get("id", row.get("name")) if isinstance(row, dict) else row for row in rows]
            return tuple(sorted(name for name in ids if isinstance(name, str)))

    def _heed(self, headers: Mapping[str, str]) -> None:
        """Remember until when a server that counts asks for no more requests."""
        for unit in ("requests", "tokens"):
            if headers.get(f"x-ratelimit-remaining-{unit}") == "0":
                pause = min(seconds(headers.get(f"x-ratelimit-reset-{unit}", "")), self._endpoint.timeout_s)
                with self._lock:
                    self._closed_until = max(self._closed_until, time.monotonic() + pause)

    def _wait_for_turn(self) -> None:
        while (pause := self._closed_until - time.monotonic()) > 0:
            time.sleep(pause)

    def _unreachable(self, fault: RequestFailed) -> Unreachable:
        return Unreachable(f"Endpoint {self._endpoint.name!r} gave no usable answer: {fault}.")


def seconds(duration: str) -> float:
    """Read a duration as rate-limit headers give it ("7.66s", "2m59.5s", "250ms", "3"); 0 if it is none."""
    if re.fullmatch(r"\d+(\.\d+)?", duration):
        return float(duration)
    units = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
    return sum(float(number) * units[unit] for number, unit in re.findall(r"(\d+(?:\.\d+)?)(ms|h|m|s)", duration))


def _wire(messages: Sequence[Message]) -> list[dict[str, str]]:
    return [message.model_dump() for message in messages]


def _asked(model: str, request: Request) -> dict[str, Any]:
    penalty = {"frequency_penalty": request.frequency_penalty} if request.frequency_penalty else {}  # not all know it
    return {
        "model": model,
        "messages": _wire(request.messages),
        "temperature": request.temperature,
        "seed": request.seed,
        "max_tokens": request.max_new_tokens,
        **penalty,
    }


def _cost(sent: Mapping[str, Any], reply: Reply) -> int:
    """Return the tokens of a call, or what they cannot exceed: no token is shorter than a byte."""
    prompt = sum(len(message["content"].encode("utf-8", "replace")) for message in sent["messages"])
    read = prompt if reply.prompt_tokens is None else reply.prompt_tokens
    written = len(reply.text.encode()) if reply.output_tokens is None else reply.output_tokens
    return read + written
