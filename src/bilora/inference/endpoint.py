"""Any OpenAI-compatible server as an engine, and as what a judge speaks through."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, Self

from bilora.errors import BiloraError, Unreachable
from bilora.params import Endpoint
from bilora.ports import Progress, Request, silent
from bilora.records import Completion, Message

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
    """

    def __init__(self, endpoint: Endpoint, api_key: str | None, *, retries: int = 4) -> None:
        self._endpoint = endpoint
        self._key = api_key or _NO_KEY
        self._retries = retries

    def __repr__(self) -> str:
        return f"EndpointEngine({self._endpoint.name!r}, {self._endpoint.base_url!r})"

    def generate(self, system: str, requests: Sequence[Request], *, progress: Progress = silent) -> list[Completion]:
        """Answer every request, several at a time, in the order given.

        Raises:
            BiloraError: `system` is not this endpoint's name.
        """
        if system != self._endpoint.name:
            raise BiloraError(
                f"Endpoint {self._endpoint.name!r} cannot answer as {system!r}. Ask that system's engine."
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
            answer = self._client.chat.completions.create(
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
            return answer.choices[0].message.content or ""
        except (OpenAIError, LookupError, TypeError, AttributeError, ValueError) as error:
            raise self._unreachable(error) from None

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
        from openai import OpenAIError

        try:
            raw = client.chat.completions.with_raw_response.create(
                model=self._endpoint.model,
                messages=_wire(request.messages),
                temperature=request.temperature,
                seed=request.seed,
                max_tokens=request.max_new_tokens,
            )
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
            )
        except (OpenAIError, LookupError, TypeError, AttributeError, ValueError):
            return Completion(
                sample_id=request.sample_id,
                system=self._endpoint.name,
                text="",
                prompt_tokens=0,
                output_tokens=0,
                latency_s=0.0,
                finish="error",
            )

    def _unreachable(self, error: Exception) -> Unreachable:
        """Name the kind of failure only: a server's own words may repeat the key."""
        status = getattr(error, "status_code", None)
        kind = type(error).__name__ + (f", HTTP {status}" if status else "")
        return Unreachable(
            f"Endpoint {self._endpoint.name!r} gave no usable answer ({kind}). "
            f"Check its base_url, model and key, then try again."
        )


def _wire(messages: Sequence[Message]) -> Any:
    return [message.model_dump() for message in messages]


def _finish(reason: str | None) -> Literal["stop", "length", "error"]:
    """Anything else than an end (a content filter, a tool call) left no answer to score."""
    return "stop" if reason == "stop" else "length" if reason == "length" else "error"
