"""The hub's own client, made to give up in time, and its faults in a few words."""

from __future__ import annotations

from collections.abc import Callable

import httpx2
from huggingface_hub import HfApi, set_client_factory
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils._http import default_client_factory
from huggingface_hub.utils.tqdm import disable_progress_bars

from bilora.errors import Unreachable
from bilora.network import connection_fault

TIMEOUT_S = 60.0
"""How long the hub may be silent. Its client waits for ever by default."""
TIMEOUTS = ("connect", "read", "write", "pool")
FAULTS = (OSError, httpx2.HTTPError, ValueError, KeyError, RuntimeError)
"""What the client raises: its errors and the network's, a broken answer, an upload that failed."""


def connect(token: str | None, *, endpoint: str | None = None, timeout_s: float = TIMEOUT_S) -> HfApi:
    """Return the hub's client.

    Args:
        token: None speaks as nobody, whatever a login left on this machine.
        endpoint: where the hub is; by default where the environment's HF_ENDPOINT says.
        timeout_s: a request is given up when the hub is silent so long. Holds for the whole process.
    """

    def bound(request: httpx2.Request) -> None:
        given: dict[str, float | None] = request.extensions.get("timeout", {})
        request.extensions["timeout"] = {kind: given.get(kind) or timeout_s for kind in TIMEOUTS}

    def client() -> httpx2.Client:
        made = default_client_factory()
        hooks: dict[str, list[Callable[..., object]]] = made.event_hooks
        made.event_hooks = {**hooks, "request": [*hooks["request"], bound]}
        return made

    set_client_factory(client)
    disable_progress_bars()
    return HfApi(endpoint=endpoint, token=token or False, library_name="bilora")


def http_status(error: BaseException) -> int | None:
    """Return the HTTP status that a fault came with, if it came with one."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, HfHubHTTPError):
            return int(cause.response.status_code)
        cause = cause.__cause__
    return None


def why(error: BaseException) -> str:
    """Say what went wrong in a few words; never with an address, which may hold more than its host."""
    code = http_status(error)
    if code in (401, 403):
        return f"HTTP {code}: the token may not do this, or there is none; look at HF_TOKEN"
    if code is not None:
        return f"HTTP {code}"
    if fault := connection_fault(error):
        return fault
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return "a part of it failed" if isinstance(error, RuntimeError) else "its answer cannot be read"


def unreachable(place: str, error: BaseException) -> Unreachable:
    """Say that the hub could not be read."""
    return Unreachable(f"{place} could not be read ({why(error)}). Try again.")
