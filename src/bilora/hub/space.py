"""A Space as it runs: what its page says of itself, and whether the hub has given it up."""

from __future__ import annotations

from collections.abc import Mapping

from huggingface_hub import HfApi, get_session

from bilora.hub.client import FAULTS

GIVEN_UP = ("BUILD_ERROR", "RUNTIME_ERROR", "CONFIG_ERROR", "NO_APP_FILE", "PAUSED", "STOPPED", "DELETING")
PATIENCE_S = 30.0


class RunningSpace:
    """A Space, by `owner/name`."""

    def __init__(self, api: HfApi, space_id: str) -> None:
        self._api, self._id = api, space_id

    def health(self) -> Mapping[str, object] | None:
        """Return what the page's /health says, or None if it says nothing.

        No token is sent: it would be handed to whatever code runs there. So the Space has to be public.
        """
        try:
            host = self._api.space_info(self._id, timeout=PATIENCE_S).host
            response = get_session().get(f"{host}/health", timeout=PATIENCE_S)
            found = response.json() if response.status_code == 200 else None
        except FAULTS:
            return None
        return found if isinstance(found, dict) else None

    def broken(self) -> str | None:
        """Say why the Space will not start, if the hub says so."""
        try:
            stage = str(self._api.get_space_runtime(self._id).stage)
        except FAULTS:
            return None
        return f"the hub says {stage}" if stage in GIVEN_UP else None
