"""The hub that params name."""

from __future__ import annotations

from pathlib import Path

from bilora.external_services import AnyHub, HubRepositorySettings, UrlHubSettings
from bilora.protocols import Hub
from bilora.publishing.local_hub import LocalHub


def open_hub(settings: AnyHub, *, root: Path, without_token: Path) -> tuple[Hub, str | None]:
    """Return the hub, and its repository's id if it is one that others can reach.

    Args:
        root: what a local hub's path is relative to.
        without_token: the folder that is used in place of the Hugging Face hub while there is no token.

    Raises:
        BadData, Unreachable: the token cannot be sent, or was asked for and not given.
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
        return LocalHub(without_token), None
    api = connect(token)
    return HubRepositories(lambda name: Repository(api, name, private=settings.private), settings.id), settings.id
