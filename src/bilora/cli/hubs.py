"""Where adapters are published, built from params and the environment's token."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from bilora.cli import wiring
from bilora.errors import BadData

if TYPE_CHECKING:
    from bilora.params import Params
    from bilora.protocols import Hub

HUB = Path("hub")
CARRIED_BASE_MIB = 100


def hub(params: Params) -> tuple[Hub, str | None]:
    """Build the hub that params name, and return its repository's id if it is one that others can reach.

    Without a token, what was meant for the Hugging Face hub goes into the folder hub/ instead.
    """
    from bilora import outside as kinds
    from bilora.publishing.local_hub import LocalHub

    match params.hub:
        case kinds.HubRepository(id=repo_id, private=private):
            if (token := wiring.hub_token()) is None:
                return LocalHub(HUB), None
            from bilora.hub.client import connect
            from bilora.hub.repository import Repository
            from bilora.publishing.hub_repositories import HubRepositories

            api = connect(token)
            return HubRepositories(lambda name: Repository(api, name, private=private), repo_id), repo_id
        case kinds.LocalHub() as chosen:
            return LocalHub(Path(chosen.path)), None
        case kinds.UrlHub() as chosen:
            from bilora.publishing.url_hub import UrlHub

            return UrlHub(chosen.url), None


def carried_base(params: Params) -> dict[str, bytes]:
    """Return the files of a base that no hub id names, for its adapters are worth nothing without it.

    Raises:
        BadData: it is too large to be carried along.
    """
    if not params.base.local:
        return {}
    folder = Path(params.base.id)
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    if sum(path.stat().st_size for path in paths) > CARRIED_BASE_MIB * 2**20:
        raise BadData(
            folder, f"is above {CARRIED_BASE_MIB} MiB, too large to be published with its adapters; name its hub id."
        )
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def say_where(params: Params, repository: str | None) -> None:
    """Say so if what params mean for the hub goes elsewhere."""
    from bilora.outside import HubRepository

    if repository is None and isinstance(params.hub, HubRepository):
        print(f"HF_TOKEN is not set: {HUB}/ is used in place of {params.hub.id}.")
