"""Deploy the page to a Docker Space in one commit, and restore the old release if the new one does not start."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from bilora.errors import BadData, Unreachable
from bilora.hub.repository import Repository
from bilora.publishing.space_release import RELEASE_FILE, SpaceRelease
from bilora.storage import dump_json, sha256_bytes, sha256_json

DOCKERFILE, _CARD = "Dockerfile", "README.md"
ROOT_FILES = {f"hf_space/{DOCKERFILE}": DOCKERFILE, f"hf_space/{_CARD}": _CARD}
"""Files that the hub expects at the Space's root: path in the workspace → path in the Space."""
DEPLOYED_PATHS = ("hf_space", ".streamlit", "models", "src", "pyproject.toml", "params.yaml")
_EXCLUDED_SUFFIXES = ("__pycache__", ".egg-info")
MAX_FAILURE_REPORTS = 3
"""Failure reports in succession after which a deployment fails; the first may concern the previous release."""

RequestHealth = Callable[[], Mapping[str, object] | None]
"""Requests the Space's /health once; None without an answer."""


@dataclass(frozen=True)
class Release:
    """All files of the Space, with the release id and the adapters' SHA-256 that its /health must report."""

    files: dict[str, bytes]
    sha256: str
    adapters: Mapping[str, str]

    def runs(self, health: Mapping[str, object] | None) -> bool:
        """Return whether /health reports this release and its adapters."""
        return (
            health is not None
            and health.get("status") == "ready"
            and health.get("release") == self.sha256
            and health.get("adapters") == dict(self.adapters)
        )


def release(root: Path, bundle: str, adapters: Mapping[str, str], card: bytes) -> Release:
    """Return the Space's files from a workspace, pinned to a bundle.

    Args:
        root: the workspace.
        bundle: `owner/name@commit`.
        adapters: SHA-256 of each of its adapters.
        card: its model card, which names its base and its datasets.

    Raises:
        BadData: a part of the workspace is absent, or the Dockerfile does not copy release.json.
    """
    files: dict[str, bytes] = {}
    for name in DEPLOYED_PATHS:
        if not (root / name).exists():
            raise BadData(root / name, "does not exist; deploy from a complete workspace.")
        paths = [root / name] if (root / name).is_file() else sorted((root / name).rglob("*"))
        for path in paths:
            relative = path.relative_to(root)
            if path.is_file() and not any(part.endswith(_EXCLUDED_SUFFIXES) for part in relative.parts):
                files[ROOT_FILES.get(relative.as_posix(), relative.as_posix())] = path.read_bytes()
    files[_CARD] = _with_links(files[_CARD], bundle, card)
    if RELEASE_FILE.encode() not in files[DOCKERFILE]:
        raise BadData(root / "hf_space" / DOCKERFILE, f"must copy {RELEASE_FILE} into the image.")
    space_release = SpaceRelease(bundle=bundle, adapters=dict(adapters))
    files[RELEASE_FILE] = _json_bytes(space_release)
    sha256 = sha256_json({name: sha256_bytes(data) for name, data in files.items()})
    files[RELEASE_FILE] = _json_bytes(space_release.model_copy(update={"release": sha256}))
    return Release(files, sha256, adapters)


def deploy(
    space: Repository,
    new: Release,
    request_health: RequestHealth,
    failure: Callable[[], str | None],
    *,
    max_requests: int,
    wait: Callable[[], None],
) -> bool:
    """Deploy a release to a Space, wait until it runs, and return whether the Space's files changed.

    Args:
        space: the Space's repository.
        request_health: see `RequestHealth`.
        failure: returns why the Space failed to build or start; None if it did not.
        max_requests: the maximum number of requests to /health.
        wait: pauses between two requests.

    Raises:
        Unreachable: the commit failed; or the Space did not start with these adapters, and its old files
            were restored.
    """
    before = space.head()
    old = space.read(before, space.names(before)) if before else {}
    change = space.replace(new.files, message=f"Deploy {new.sha256[:12]}")
    reason = f"its /health did not report release {new.sha256[:12]} in time"
    failure_reports = 0
    for _ in range(max_requests):
        if new.runs(request_health()):
            return change.changed
        fault = failure()
        failure_reports = failure_reports + 1 if fault else 0
        if fault and failure_reports == MAX_FAILURE_REPORTS:
            reason = fault
            break
        wait()
    if not change.changed:
        raise Unreachable(f"{space.id} contains this release already but does not run it: {reason}. Read its logs.")
    if DOCKERFILE not in old:
        raise Unreachable(f"{space.id} did not start: {reason}. There is no earlier release to roll back to.")
    space.replace(old, message=f"Roll back from {new.sha256[:12]}")
    raise Unreachable(f"{space.id} did not start: {reason}. It was rolled back to the previous release.")


def _with_links(space: bytes, bundle: str, card: bytes) -> bytes:
    """Return the Space's card with bundle, base and datasets in its front matter, which the hub's pages link."""
    _, front, text = space.decode().split("---\n", 2)
    front_matter = yaml.safe_load(card.decode().split("---\n", 2)[1])
    models = [bundle.partition("@")[0], *([front_matter["base_model"]] if "base_model" in front_matter else [])]
    links = {"models": models, **({"datasets": front_matter["datasets"]} if "datasets" in front_matter else {})}
    return f"---\n{front}{yaml.safe_dump(links, sort_keys=False)}---\n{text}".encode()


def _json_bytes(release: SpaceRelease) -> bytes:
    return (dump_json(release.model_dump(), indent=2) + "\n").encode()
