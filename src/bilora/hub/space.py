"""The state of a running Space: the response of its /health, and the stage that the hub reports."""

from __future__ import annotations

from collections.abc import Mapping

from huggingface_hub import HfApi, get_session

from bilora.hub.client import HUB_ERRORS

_FAILED_STAGES = ("BUILD_ERROR", "RUNTIME_ERROR", "CONFIG_ERROR", "NO_APP_FILE", "PAUSED", "STOPPED", "DELETING")
_TIMEOUT_S = 30.0


class RunningSpace:
    """A public Space `owner/name`."""

    def __init__(self, api: HfApi, space_id: str) -> None:
        self._api, self._id = api, space_id

    def health(self) -> Mapping[str, object] | None:
        """Return the JSON object of the page's /health, or None if it sends none.

        No token is sent, because the code in the Space could read it. So the Space has to be public.
        """
        try:
            host = self._api.space_info(self._id, timeout=_TIMEOUT_S).host
            response = get_session().get(f"{host}/health", timeout=_TIMEOUT_S)
            body = response.json() if response.status_code == 200 else None
        except HUB_ERRORS:
            return None
        return body if isinstance(body, dict) else None

    def failure(self) -> str | None:
        """Return why the Space will not start, or None if the hub reports no failure."""
        try:
            stage = str(self._api.get_space_runtime(self._id).stage)
        except HUB_ERRORS:
            return None
        return f"the hub reports {stage}" if stage in _FAILED_STAGES else None
