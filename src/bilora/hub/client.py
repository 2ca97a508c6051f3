"""huggingface_hub's client with a timeout, and short descriptions of its errors."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from huggingface_hub import HfApi, set_client_factory
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils._http import default_client_factory
from huggingface_hub.utils.tqdm import disable_progress_bars

from bilora.errors import Unreachable
from bilora.network import connection_fault, http_library

if TYPE_CHECKING:
    import httpx2

TIMEOUT_S = 60.0
"""Default timeout of a request. huggingface_hub sets none for some requests."""
_TIMEOUT_KINDS = ("connect", "read", "write", "pool")
HUB_ERRORS = (OSError, http_library("huggingface_hub").HTTPError, ValueError, KeyError, RuntimeError)
"""What the client raises: its own and network errors, an unreadable response, a failed upload."""


def connect(token: str | None, *, endpoint: str | None = None, timeout_s: float = TIMEOUT_S) -> HfApi:
    """Return the hub's client.

    Args:
        token: None sends no token, even if a login is stored on this machine.
        endpoint: URL of the hub; default: HF_ENDPOINT.
        timeout_s: timeout of every request of this process that sets none.
    """

    def set_timeouts(request: httpx2.Request) -> None:
        timeouts: dict[str, float | None] = request.extensions.get("timeout", {})
        request.extensions["timeout"] = {kind: timeouts.get(kind) or timeout_s for kind in _TIMEOUT_KINDS}

    def create_client() -> httpx2.Client:
        client = default_client_factory()
        hooks: dict[str, list[Callable[..., object]]] = client.event_hooks
        client.event_hooks = {**hooks, "request": [*hooks["request"], set_timeouts]}
        return client

    set_client_factory(create_client)
    disable_progress_bars()
    return HfApi(endpoint=endpoint, token=token or False, library_name="bilora")


def http_status(error: BaseException) -> int | None:
    """Return the HTTP status of an error, or None if it has none."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, HfHubHTTPError):
            return int(cause.response.status_code)
        cause = cause.__cause__
    return None


def describe_error(error: BaseException) -> str:
    """Return a short description of an error, without its URL, which may contain secrets."""
    code = http_status(error)
    if code in (401, 403):
        return f"HTTP {code}: the token is missing or lacks this permission; check HF_TOKEN"
    if code is not None:
        return f"HTTP {code}"
    if fault := connection_fault(error):
        return fault
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return "part of the upload failed" if isinstance(error, RuntimeError) else "its response cannot be read"


def unreachable(name: str, error: BaseException) -> Unreachable:
    """Return the error that says that `name` could not be read from the hub."""
    return Unreachable(f"{name} could not be read ({describe_error(error)}). Try again.")
