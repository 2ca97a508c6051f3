"""What the page's process serves, reported on /health to the command that deploys it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

RELEASE_VARIABLE = "BILORA_RELEASE"


def health(request: Request) -> Response:
    """Answer with the adapters that are loaded, by the SHA-256 of their bytes; 503 and the fault if they are not.

    The first question loads the model, so the first user need not wait for it.
    """
    from starlette.responses import JSONResponse

    status, content = health_report()
    return JSONResponse(content, status_code=status, headers={"Cache-Control": "no-store"})


def health_report() -> tuple[int, dict[str, object]]:
    """Return the HTTP status and what the health page says."""
    from bilora.cli.page import current_backend, served_bundle
    from bilora.errors import BiloraError
    from bilora.publishing.space_release import read_space_release
    from bilora.workspace import Workspace

    shared: dict[str, object] = {"release": "", "bundle": ""}
    workspace = Workspace(Path())
    try:
        shared["release"] = os.environ.get(RELEASE_VARIABLE) or read_space_release(workspace.root).release
        shared["bundle"] = served_bundle(workspace)
        offer = current_backend(workspace)
    except BiloraError as error:
        return 503, {**shared, "status": "fault", "fault": str(error)}
    return 200, {
        **shared,
        "status": "ready",
        "base": offer.base,
        "base_revision": offer.base_revision,
        "adapters": dict(offer.adapters),
    }
