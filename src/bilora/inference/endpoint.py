"""Any OpenAI-compatible server as an engine, and as what a judge speaks through."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from bilora.errors import BadData, Unreachable
from bilora.outside import Endpoint
from bilora.ports import Progress, Request, silent
from bilora.records import Completion, Message
from bilora.storage import read_json, sha256_json, write_json

if TYPE_CHECKING:
    from openai import OpenAI

_NO_KEY = "none"
"""The client refuses to work without a key, though local servers want none."""

_JUDGE_TOKENS = 1024


class EndpointEngine:
    """One remote model, known here by its endpoint's name.

    Implements `ports.Engine`. A request that still fails after `retries` repetitions (which wait as
    long as Retry-After asks) is a completion with finish `error` and no text. The key is sent to the
    endpoint and shown nowhere.

    Answers are kept in `cache`, one file a question, so that none is paid for twice and an
    interrupted evaluation goes on where it was; failures are not kept. Once `budget_tokens` are spent
    the rest is left unanswered.
    """

    def __init__(self, endpoint: Endpoint, api_key: str | None, *, retries: int = 4, cache: Path | None = None) -> None:
        self._endpoint = endpoint
        self._key = api_key or _NO_KEY
        self._retries = retries
        self._cache = cache
        self._budget = endpoint.budget_tokens
        self._spent = 0
        self._closed_until = 0.0
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"EndpointEngine({self._endpoint.name!r}, {self._endpoint.base_url!r})"

    def generate(self, system: str, requests: Sequence[Request], *, progress: Progress = silent) -> list[Completion]:
        """Answer every request, several at a time, in the order given.

        Raises:
            BadData: `system` is not this endpoint's name.
        """
        if system != self._endpoint.name:
            raise BadData(
                f"endpoint {self._endpoint.name!r}", f"it cannot answer as {system!r}; ask that system's engine."
            )
        client = self._client  # made once, before the threads
        with ThreadPoolExecutor(self._endpoint.concurrency, thread_name_prefix="endpoint") as pool:
            futures = [pool.submit(self._complete, client, request) for request in requests]
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
        """
        from openai import OpenAIError

        try:
            self._wait_for_turn()
            raw = self._client.chat.completions.with_raw_response.create(
                model=self._endpoint.model,
                messages=_wire(messages),
                temperature=0.0,
                seed=seed,
                max_tokens=_JUDGE_TOKENS,
                response_format={
                    "type": "json_schema",
                    "json_schema": {"name": "reply", "strict": True, "schema": dict(schema)},
                },
            )
            self._heed(raw.headers)
            return raw.parse().choices[0].message.content or ""
        except (OpenAIError, LookupError, TypeError, AttributeError, ValueError) as error:
            raise self._unreachable(error) from None

    def stream(self, system: str, request: Request) -> Generator[str, None, Completion]:
        """Answer one request piece by piece as the server's model `system`; the generator's value is the answer.

        Closing the generator closes the connection.

        Raises:
            Unreachable: the server did not answer, or broke off.
        """
        from openai import OpenAIError

        began, pieces, finish, counts = time.perf_counter(), [], "stop", (0, 0)
        try:
            with self._client.chat.completions.create(
                model=system,
                messages=_wire(request.messages),
                **_decoding(request),
                stream=True,
                stream_options={"include_usage": True},
            ) as events:
                for event in events:
                    if event.usage:
                        counts = (event.usage.prompt_tokens, event.usage.completion_tokens)
                    for choice in event.choices:
                        finish = choice.finish_reason or finish
                        if choice.delta.content:
                            pieces.append(choice.delta.content)
                            yield choice.delta.content
        except (OpenAIError, LookupError, TypeError, AttributeError, ValueError) as error:
            raise self._unreachable(error) from None
        return Completion(
            sample_id=request.sample_id,
            system=system,
            text="".join(pieces),
            prompt_tokens=counts[0],
            output_tokens=counts[1],
            latency_s=time.perf_counter() - began,
            finish=_finish(finish),
        )

    def models(self) -> tuple[str, ...]:
        """Ids of the models that the endpoint offers now, sorted.

        Raises:
            Unreachable: it did not say.
        """
        from openai import OpenAIError

        try:
            return tuple(sorted(model.id for model in self._client.models.list()))
        except (OpenAIError, LookupError, TypeError, AttributeError, ValueError) as error:
            raise self._unreachable(error) from None

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
        from openai import Omit, OpenAI

        foreign: Any = {
            "OpenAI-Organization": Omit(),
            "OpenAI-Project": Omit(),
        }  # else taken from the environment
        return OpenAI(
            api_key=self._key,
            base_url=self._endpoint.base_url,
            timeout=self._endpoint.timeout_s,
            max_retries=self._retries,
            default_headers=foreign,
        )

    def _complete(self, client: OpenAI, request: Request) -> Completion:
        kept = self._kept(request)
        if kept is not None and kept.is_file():
            return Completion.model_validate(read_json(kept))
        with self._lock:
            if self._budget is not None and self._spent >= self._budget:
                return self._failed(request, f"the budget of {self._budget} tokens is spent")
        made = self._ask(client, request)
        with self._lock:
            self._spent += made.prompt_tokens + made.output_tokens
        if kept is not None and made.finish != "error":
            write_json(kept, made.model_dump(mode="json"))
        return made

    def _kept(self, request: Request) -> Path | None:
        """Where the answer to exactly this question lies once it has been paid for."""
        if self._cache is None:
            return None
        question = [
            self._endpoint.name, self._endpoint.base_url, self._endpoint.model, request.sample_id,
            _wire(request.messages), _decoding(request),
        ]  # fmt: skip
        return self._cache / f"{sha256_json(question)}.json"

    def _ask(self, client: OpenAI, request: Request) -> Completion:
        from openai import OpenAIError

        try:
            self._wait_for_turn()
            raw = client.chat.completions.with_raw_response.create(
                model=self._endpoint.model,
                messages=_wire(request.messages),
                **_decoding(request),
            )
            self._heed(raw.headers)
            answer = raw.parse()
            choice, usage = answer.choices[0], answer.usage
            finish = _finish(choice.finish_reason)
            return Completion(
                sample_id=request.sample_id,
                system=self._endpoint.name,
                text=(choice.message.content or "") if finish != "error" else "",
                prompt_tokens=usage.prompt_tokens if usage else 0,
                output_tokens=usage.completion_tokens if usage else 0,
                latency_s=raw.elapsed.total_seconds(),  # of the try that succeeded, without the waits before
                finish=finish,
                reason="" if finish != "error" else f"it ended by {choice.finish_reason}",
            )
        except (OpenAIError, LookupError, TypeError, AttributeError, ValueError) as error:
            return self._failed(request, _kind(error))

    def _failed(self, request: Request, reason: str) -> Completion:
        return Completion(
            sample_id=request.sample_id,
            system=self._endpoint.name,
            text="",
            prompt_tokens=0,
            output_tokens=0,
            latency_s=0.0,
            finish="error",
            reason=reason,
        )

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

    def _unreachable(self, error: Exception) -> Unreachable:
        """Name the kind of failure only: a server's own words may repeat the key."""
        return Unreachable(
            f"Endpoint {self._endpoint.name!r} gave no usable answer ({_kind(error)}). "
            f"Check its base_url, model and key, then try again."
        )


def seconds(duration: str) -> float:
    """Read a duration as rate-limit headers give it ("7.66s", "2m59.5s", "250ms", "3"); 0 if it is none."""
    if re.fullmatch(r"\d+(\.\d+)?", duration):
        return float(duration)
    units = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
    return sum(float(number) * units[unit] for number, unit in re.findall(r"(\d+(?:\.\d+)?)(ms|h|m|s)", duration))


def _kind(error: Exception) -> str:
    """Name a failure without the server's own words, which may repeat the key."""
    status = getattr(error, "status_code", None)
    return type(error).__name__ + (f", HTTP {status}" if status else "")


def _wire(messages: Sequence[Message]) -> Any:
    return [message.model_dump() for message in messages]


def _decoding(request: Request) -> dict[str, Any]:
    penalty = {"frequency_penalty": request.frequency_penalty} if request.frequency_penalty else {}  # not all know it
    return {
        "temperature": request.temperature,
        "seed": request.seed,
        "max_tokens": request.max_new_tokens,
        **penalty,
    }


def _finish(reason: str | None) -> Literal["stop", "length", "error"]:
    """Anything else than an end (a content filter, a tool call) left no answer to score."""
    return "stop" if reason == "stop" else "length" if reason == "length" else "error"
