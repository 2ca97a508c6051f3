"""Messages for failed requests: why an endpoint gave no answer, and what to do."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from bilora.external_services import Endpoint
from bilora.inference.endpoint.parameters import error_message
from bilora.redaction import redacted_line

_MAX_MODELS = 8
_MODEL_IS_GONE = re.compile(
    r"(?:no such|unknown|invalid) model"
    r"|\bmodel\b.{0,120}(?:not (?:be )?found|not exist|unknown|decommission|deprecat|retired|not available)",
    re.I,
)


class RequestFailed(Exception):
    """A failed request to an endpoint, with the HTTP status and the server's error object if it sent them."""

    def __init__(self, reason: str, *, status: int | None = None, document: object = None) -> None:
        super().__init__(reason)
        self.status = status
        self.document = document


def status_reason(
    endpoint: Endpoint,
    key: str | None,
    status: int,
    document: object,
    *,
    model: str,
    listed: Callable[[], Sequence[str]],
    refused: Sequence[str],
) -> str:
    """Describe an error reply.

    Args:
        key: redacted if the server repeats it.
        document: the error reply's content.
        model: the requested model; empty if there is none.
        listed: returns the server's models; called only if the model is the cause.
        refused: names of the refused parameters.
    """
    message = redacted_line(error_message(document), key=key or "")
    quoted = f' (the server says: "{message}")' if message else ""
    if model and _model_is_gone(status, document):
        cause = f"the server has no model {model!r}; {describe_models(listed(), key)}"
    elif refused:
        cause = f"the server refuses {', '.join(refused)}"
    else:
        cause = _cause(endpoint, key, status)
    return f"HTTP {status}: {cause}{quoted}"


def describe_models(models: Sequence[str], key: str | None) -> str:
    """Return a sentence with a server's models, limited in number and length, without the key."""
    if not models:
        return "it lists no models"
    names = ", ".join(redacted_line(name, key=key or "", limit=80) for name in models[:_MAX_MODELS])
    more = len(models) - _MAX_MODELS
    return f"it has {names}" + (f" and {more} more" if more > 0 else "")


def _cause(endpoint: Endpoint, key: str | None, status: int) -> str:
    """Return the meaning of a status, and what to check."""
    if status in (401, 403) and key is None:
        return "the server requires a key; name its environment variable in key_env"
    if status == 401:
        return f"the key is refused; check {endpoint.key_env or 'it'}"
    if status == 403:
        return f"the key has no permission for this; check {endpoint.key_env or 'it'}"
    if status in (404, 405):
        return f"the server does not know {endpoint.address}/chat/completions; base_url usually ends in /v1"
    if status == 429:
        return "too many requests, or the quota is used up"
    if status in (408, 504):
        return "the server did not answer in time"
    return "the server failed" if status >= 500 else "the server refused the request"


def _model_is_gone(status: int, document: object) -> bool:
    if status not in (400, 404, 410, 422):
        return False
    error = document.get("error") if isinstance(document, dict) else None
    fields = {**document, **error} if isinstance(document, dict) and isinstance(error, dict) else document
    code, param = (fields.get("code"), fields.get("param")) if isinstance(fields, dict) else (None, None)
    message = error_message(document)
    named = (
        param == "model" or str(code).startswith("model_") or re.search(r"\b(?:models?|deployments?)\b", message, re.I)
    )
    return bool(named and (status in (404, 410) or str(code).startswith("model_") or _MODEL_IS_GONE.search(message)))
