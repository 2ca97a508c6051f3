"""A client for one chat completions server: accepted parameters, rate limit, errors."""

from __future__ import annotations

import contextlib
import re
import ssl
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar, cast

from bilora.api_keys import clean_key
from bilora.external_services import Endpoint
from bilora.inference.endpoint.errors import RequestFailed, describe_models, status_reason
from bilora.inference.endpoint.parameters import (
    AdaptedRequest,
    LearnedRefusals,
    adapt_request,
    applies_to_all,
    error_message,
    find_refusals,
)
from bilora.inference.endpoint.replies import ChatReply, Finish, UnusableReply, read_document, read_reply, read_stream
from bilora.network import connection_fault, http_library, uses_proxy
from bilora.redaction import redacted_line

if TYPE_CHECKING:
    from openai import OpenAI

_R = TypeVar("_R")

_NO_KEY = "none"
"""The OpenAI client requires a key, even for servers without one."""

_EXTRA_PARAMETERS = ("min_tokens", "ignore_eos", "top_k", "min_p", "repetition_penalty", "stop_token_ids")
"""vLLM's parameters, which are not arguments of the OpenAI client."""
_MAX_ATTEMPTS = 10
"""Maximum attempts per request, each without the parameters refused before."""
_LIST_TIMEOUT_S = 5.0


class ChatClient:
    """Sends requests to an endpoint; thread-safe.

    If the server refuses parameters, the request is sent again without them or with replacements (`parameters`). After
    the first success all later requests are adapted in the same way. Every failure is a RequestFailed with its reason
    and without the key.
    """

    def __init__(self, endpoint: Endpoint, api_key: str | None, *, retries: int) -> None:
        self._endpoint = endpoint
        self._key = clean_key(api_key, f"The key of endpoint {endpoint.name!r}")
        self._retries = retries
        self._refused = LearnedRefusals()
        self._remarks: tuple[str, ...] = ()
        self._listed_models: tuple[str, ...] | None = None
        self._limited_until = 0.0
        self._lock = threading.Lock()
        self._list_lock = threading.Lock()

    @property
    def remarks(self) -> tuple[str, ...]:
        """How the last answered request differed from the requested parameters."""
        return self._remarks

    def connect(self) -> None:
        """Create the connection pool before threads use it; an error is raised by the first request."""
        with contextlib.suppress(RequestFailed):
            _ = self._client

    def close(self) -> None:
        """Close open connections."""
        if "_client" in self.__dict__:
            self._client.close()
            del self.__dict__["_client"]

    def models(self) -> tuple[str, ...]:
        """Return the sorted ids of the models that the server lists now; one attempt with a short timeout.

        Raises:
            RequestFailed: the server did not answer.
        """
        timeout = min(_LIST_TIMEOUT_S, self._endpoint.timeout_s)
        client = self._client.with_options(max_retries=0, timeout=timeout)
        with self.failures({"messages": [{"role": "user"}]}):
            raw = client.models.with_raw_response.list()
            document = read_document(raw.content, raw.headers.get("content-type", ""))
            rows = document.get("data", document.get("models")) if isinstance(document, dict) else document
            if not isinstance(rows, list):
                raise UnusableReply("its list of models cannot be read")
            ids = [row.get("id", row.get("name")) if isinstance(row, dict) else row for row in rows]
            return tuple(sorted(name for name in ids if isinstance(name, str)))

    def missing_model(self) -> str | None:
        """Return a warning if the server lists models, but not this endpoint's; None otherwise."""
        listed, model = self.listed_models, self._endpoint.model
        if not listed or any(model in (name, name.rpartition("/")[2], name.partition(":")[0]) for name in listed):
            return None
        return f"the server does not list the model {model!r}; {describe_models(listed, self._key)}"

    def send_adapted(self, requested: Mapping[str, object], send: Callable[[AdaptedRequest], _R]) -> _R:
        """Send a request, again without the parameters that the server refuses, until it is answered or fails.

        Refusals are stored only after a success without them: an error message may name a parameter by accident.

        Raises:
            RequestFailed: there was no answer.
        """
        refused_here, refused_always = frozenset[tuple[str, str]](), frozenset[tuple[str, str]]()
        for attempt in range(1, _MAX_ATTEMPTS + 1):
            adapted = adapt_request(requested, self._refused.known | refused_here)
            try:
                result = send(adapted)
            except RequestFailed as fault:
                refusals = find_refusals(fault.status, fault.document, adapted.parameters)
                refused_here |= refusals
                if applies_to_all(refusals, fault.document):
                    refused_always |= refusals
                retry = adapt_request(requested, self._refused.known | refused_here)
                if attempt == _MAX_ATTEMPTS or retry.parameters == adapted.parameters:
                    raise
                continue
            self._refused.learn(refused_always)
            self._remarks = adapted.remarks
            return result
        raise AssertionError("the last attempt must return or raise")

    def send(self, adapted: AdaptedRequest) -> tuple[ChatReply, float]:
        """Return the reply, and the seconds of the successful attempt."""
        with self.failures(adapted.parameters):
            self._wait_for_rate_limit()
            raw = self._client.chat.completions.with_raw_response.create(**_arguments(adapted.parameters))
            self._note_rate_limit(raw.headers)
            return read_reply(raw.content, raw.headers.get("content-type", "")), raw.elapsed.total_seconds()

    def open_stream(self, adapted: AdaptedRequest, connection: contextlib.ExitStack) -> Generator[str, None, ChatReply]:
        """Start a stream and wait for its first event: before it the server may refuse the request."""
        with self.failures(adapted.parameters):
            raw = connection.enter_context(
                self._client.chat.completions.with_streaming_response.create(**_arguments(adapted.parameters))
            )
            events = read_stream(raw.iter_bytes(), raw.headers.get("content-type", ""))
            next(events)
            return events

    @contextlib.contextmanager
    def failures(self, sent: Mapping[str, object]) -> Iterator[None]:
        """Translate any failure of a request into a RequestFailed with its reason."""
        from openai import APIConnectionError, APIStatusError, OpenAIError

        http = http_library("openai")
        try:
            yield
        except UnusableReply as fault:
            message = redacted_line(error_message(fault.document), key=self._key or "")
            quoted = f' (the server says: "{message}")' if message else ""
            status = None if fault.document is None else 200
            raise RequestFailed(f"{fault}{quoted}", status=status, document=fault.document) from None
        except APIStatusError as error:
            content = error.response.content if error.response.is_closed else b""
            document = read_document(content, error.response.headers.get("content-type", ""))
            refused = [name for name, _ in find_refusals(error.status_code, document, sent)]
            reason = status_reason(
                self._endpoint,
                self._key,
                error.status_code,
                document,
                model=str(sent.get("model", "")),
                listed=lambda: self.listed_models,
                refused=refused,
            )
            raise RequestFailed(reason, status=error.status_code, document=document) from None
        except (APIConnectionError, http.HTTPError, http.StreamError, http.InvalidURL, ssl.SSLError) as error:
            proxy = " (through the environment's proxy)" if uses_proxy(self._endpoint.base_url) else ""
            raise RequestFailed(f"{connection_fault(error) or 'the connection failed'}{proxy}") from None
        except UnicodeEncodeError:
            raise RequestFailed("the prompt contains half of a surrogate pair; remove it") from None
        except (OpenAIError, ValueError, TypeError):
            raise RequestFailed("the request could not be sent, or its reply could not be read") from None

    @property
    def listed_models(self) -> tuple[str, ...]:
        """The models that the server lists, requested once; empty if it lists none."""
        with self._list_lock:
            if self._listed_models is None:
                try:
                    self._listed_models = self.models()
                except RequestFailed:
                    self._listed_models = ()
            return self._listed_models

    def _note_rate_limit(self, headers: Mapping[str, str]) -> None:
        """Store the time when the server's rate limit allows requests again."""
        for unit in ("requests", "tokens"):
            if headers.get(f"x-ratelimit-remaining-{unit}") == "0":
                pause = min(duration_seconds(headers.get(f"x-ratelimit-reset-{unit}", "")), self._endpoint.timeout_s)
                with self._lock:
                    self._limited_until = max(self._limited_until, time.monotonic() + pause)

    def _wait_for_rate_limit(self) -> None:
        while (pause := self._limited_until - time.monotonic()) > 0:
            time.sleep(pause)

    def outcome(self, reply: ChatReply) -> tuple[Finish, str]:
        """Return the finish reason, and why there is no answer, with the key redacted."""
        finish, reason = reply.outcome()
        return finish, redacted_line(reason, key=self._key or "")

    @cached_property
    def _client(self) -> OpenAI:
        from openai import Omit, OpenAI, OpenAIError

        # The client would read these headers from environment variables that are for another service.
        no_account = cast("Mapping[str, str]", {"OpenAI-Organization": Omit(), "OpenAI-Project": Omit()})
        try:
            return OpenAI(
                api_key=self._key or _NO_KEY,
                base_url=self._endpoint.base_url,
                timeout=self._endpoint.timeout_s,
                max_retries=self._retries,
                default_headers=no_account,
            )
        except (OpenAIError, http_library("openai").InvalidURL, ImportError, OSError, ValueError) as error:
            message = redacted_line((isinstance(error, OSError) and error.strerror) or str(error), key=self._key or "")
            raise RequestFailed(
                "no connection is possible; check base_url and the environment's proxy and certificate "
                f"variables ({message})"
            ) from None


def _arguments(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the OpenAI client's arguments; parameters that are not OpenAI's are in `extra_body`."""
    extra = {name: parameters[name] for name in _EXTRA_PARAMETERS if name in parameters}
    arguments = {name: value for name, value in parameters.items() if name not in extra}
    return {**arguments, "extra_body": extra} if extra else arguments


def duration_seconds(duration: str) -> float:
    """Parse a duration of rate-limit headers ("7.66s", "2m59.5s", "250ms", "3"); 0 if it is invalid."""
    if re.fullmatch(r"\d+(\.\d+)?", duration):
        return float(duration)
    units = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
    return sum(float(number) * units[unit] for number, unit in re.findall(r"(\d+(?:\.\d+)?)(ms|h|m|s)", duration))
