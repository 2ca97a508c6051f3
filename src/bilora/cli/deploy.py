"""The command deploy."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from bilora.cli.generate import require_finite

POLL_S = 5.0

SpaceId = Annotated[str, typer.Argument(metavar="OWNER/SPACE", help="The Space; created if it does not exist.")]
BundleToServe = Annotated[
    str | None,
    typer.Option(help="owner/name or owner/name@commit. [default: the latest version in `hub` of params.yaml]"),
]
Minutes = Annotated[
    float,
    typer.Option(
        min=0.01, max=1440, callback=require_finite, help="Timeout of the Space's build and start, in minutes."
    ),
]


def deploy(space: SpaceId, bundle: BundleToServe = None, minutes: Minutes = 20.0) -> None:
    """Deploy the page with a published bundle to a Space; roll back unless the Space reports its adapters."""
    from bilora.bases.compatibility import check_bundle
    from bilora.errors import BadData, Unreachable
    from bilora.external_services import HubRepositorySettings
    from bilora.hub.client import connect
    from bilora.hub.repository import Repository
    from bilora.hub.space import RunningSpace
    from bilora.hub.token import hub_token
    from bilora.publishing.card import CARD
    from bilora.publishing.deploy import deploy as run
    from bilora.publishing.deploy import release
    from bilora.publishing.manifest import MANIFEST, parse_manifest
    from bilora.publishing.rollback import verify_version
    from bilora.workspace import Workspace

    workspace = Workspace(Path())
    params = workspace.params
    if bundle is None:
        if not isinstance(params.hub, HubRepositorySettings):
            raise BadData("--bundle", "name the bundle to serve: owner/name or owner/name@commit.")
        bundle = params.hub.id
    if (token := hub_token()) is None:
        raise Unreachable("HF_TOKEN is not set, so nothing can be deployed.")
    api = connect(token)
    name, _, commit = bundle.partition("@")
    published = Repository(api, name)
    if not (revision := commit or published.head()):
        raise BadData(name, "there is no such bundle; `bilora push-adapters` publishes one.")
    files = published.read(revision, published.names(revision))
    verify_version(f"{name}@{revision}", files)
    manifest = parse_manifest(name, files[MANIFEST])
    check_bundle(name, manifest.model_dump(exclude_unset=True), workspace.base())
    adapters = {task: adapter.sha256 for task, adapter in manifest.adapters.items() if task in params.tasks}
    new = release(workspace.root, f"{name}@{revision}", adapters, files[CARD])
    running = RunningSpace(api, space)
    print(
        f"deploy: release {new.sha256[:12]} with {', '.join(adapters)} of {name}@{revision[:12]}; waiting for {space}"
    )
    changed = run(
        Repository(api, space, "space"),
        new,
        running.health,
        running.failure,
        max_requests=max(1, round(minutes * 60 / POLL_S)),
        wait=lambda: time.sleep(POLL_S),
    )
    print(f"deploy: {space} {'runs' if changed else 'already ran'} release {new.sha256[:12]}")
