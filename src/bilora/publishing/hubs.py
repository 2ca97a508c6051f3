"""Open the hub of params.yaml."""

from __future__ import annotations

from pathlib import Path

from bilora.external_services import AnyHub, HubRepositorySettings, UrlHubSettings
from bilora.protocols import Hub
from bilora.publishing.local_hub import LocalHub


def open_hub(settings: AnyHub, *, root: Path, fallback: Path) -> tuple[Hub, str | None]:
    """Return the hub, and the bundle's hub id if it is the Hugging Face hub.

    Args:
        root: the folder from which a local hub's path starts.
        fallback: the folder that replaces the Hugging Face hub if there is no token.

    Raises:
        BadData, Unreachable: the token is malformed, or was requested and not provided.
    """
    if isinstance(settings, UrlHubSettings):
        from bilora.publishing.url_hub import UrlHub

        return UrlHub(settings.url), None
    if not isinstance(settings, HubRepositorySettings):
        return LocalHub(root / settings.path), None
    from bilora.hub.client import connect
    from bilora.hub.repository import Repository
    from bilora.hub.token import hub_token
    from bilora.publishing.hub_repositories import HubRepositories

    if (token := hub_token()) is None:
        return LocalHub(fallback), None
    api = connect(token)
    return HubRepositories(lambda name: Repository(api, name, private=settings.private), settings.id), settings.id
