"""The /health endpoint of the page, which `bilora deploy` polls."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

RELEASE_VARIABLE = "BILORA_RELEASE"


def health(request: Request) -> Response:
    """Return the sha256 of each loaded adapter; 503 with the error if the model cannot be loaded.

    The first request loads the model, before the first user arrives.
    """
    from starlette.responses import JSONResponse

    status, content = health_report()
    return JSONResponse(content, status_code=status, headers={"Cache-Control": "no-store"})


def health_report() -> tuple[int, dict[str, object]]:
    """Return the HTTP status and the content of the response."""
    from bilora.cli.page import current_backend, served_bundle
    from bilora.errors import BiloraError
    from bilora.publishing.space_release import read_space_release
    from bilora.workspace import Workspace

    shared: dict[str, object] = {"release": "", "bundle": ""}
    workspace = Workspace(Path())
    try:
        shared["release"] = os.environ.get(RELEASE_VARIABLE) or read_space_release(workspace.root).release
        shared["bundle"] = served_bundle(workspace)
        backend = current_backend(workspace)
    except BiloraError as error:
        return 503, {**shared, "status": "fault", "fault": str(error)}
    return 200, {
        **shared,
        "status": "ready",
        "base": backend.base,
        "base_revision": backend.base_revision,
        "adapters": dict(backend.adapters),
    }
