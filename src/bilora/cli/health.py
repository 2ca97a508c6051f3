"""What the page's process serves, told on /health to whoever deploys it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

RELEASE = "BILORA_RELEASE"


def health(request: Request) -> Response:
    """Answer with the adapters that are loaded, by the SHA-256 of their bytes; 503 and the fault if they are not.

    The first question loads the model, so the first user need not wait for it.
    """
    from starlette.responses import JSONResponse

    status, told = report()
    return JSONResponse(told, status_code=status, headers={"Cache-Control": "no-store"})


def report() -> tuple[int, dict[str, Any]]:
    """Return the HTTP status and what the health page says."""
    from bilora.cli.page import BUNDLE, current_offer
    from bilora.errors import BiloraError
    from bilora.workspace import Workspace

    told: dict[str, Any] = {"release": os.environ.get(RELEASE, ""), "bundle": os.environ.get(BUNDLE, "")}
    try:
        offer = current_offer(Workspace(Path()))
    except BiloraError as error:
        return 503, {**told, "status": "fault", "fault": str(error)}
    return 200, {
        **told,
        "status": "ready",
        "base": offer.base,
        "base_revision": offer.base_revision,
        "adapters": dict(offer.adapters),
    }
