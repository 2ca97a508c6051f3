"""The page as a Docker Space: one commit, then its own word that it serves these adapters, else the old one again."""

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
AT_THE_ROOT = {f"hf_space/{DOCKERFILE}": DOCKERFILE, f"hf_space/{_CARD}": _CARD}
"""Where the hub looks for them."""
TAKEN = ("hf_space", ".streamlit", "models", "src", "pyproject.toml", "params.yaml")
_LEFT_OUT = ("__pycache__", ".egg-info")
SURE = 3
"""How often the hub must say that a Space is broken: at first it may still speak of the release before."""

Ask = Callable[[], Mapping[str, object] | None]
"""Asks the Space's health page once; None while it gives no answer."""


@dataclass(frozen=True)
class Release:
    """What is deployed: all files of the Space, and by what its health page shows that it runs just them."""

    files: dict[str, bytes]
    sha256: str
    adapters: Mapping[str, str]

    def runs(self, health: Mapping[str, object] | None) -> bool:
        """Whether a health page speaks of this release and serves its adapters."""
        return (
            health is not None
            and health.get("status") == "ready"
            and health.get("release") == self.sha256
            and health.get("adapters") == dict(self.adapters)
        )


def release(root: Path, bundle: str, adapters: Mapping[str, str], card: bytes) -> Release:
    """Gather the Space from a checkout, pinned to a bundle.

    Args:
        root: of the checkout.
        bundle: `owner/name@commit`.
        adapters: SHA-256 of each adapter in it.
        card: its model card, which names its base and its datasets.

    Raises:
        BadData: a part of the checkout is absent, or the Dockerfile does not copy release.json.
    """
    files: dict[str, bytes] = {}
    for name in TAKEN:
        if not (root / name).exists():
            raise BadData(root / name, "is absent; deploy from a whole checkout.")
        paths = [root / name] if (root / name).is_file() else sorted((root / name).rglob("*"))
        for path in paths:
            place = path.relative_to(root).as_posix()
            if path.is_file() and not any(part.endswith(_LEFT_OUT) for part in path.relative_to(root).parts):
                files[AT_THE_ROOT.get(place, place)] = path.read_bytes()
    files[_CARD] = _linked(files[_CARD], bundle, card)
    if RELEASE_FILE.encode() not in files[DOCKERFILE]:
        raise BadData(root / "hf_space" / DOCKERFILE, f"must copy {RELEASE_FILE} into the image.")
    served = SpaceRelease(bundle=bundle, adapters=dict(adapters))
    files[RELEASE_FILE] = _json_bytes(served)
    sha256 = sha256_json({name: sha256_bytes(data) for name, data in files.items()})
    files[RELEASE_FILE] = _json_bytes(served.model_copy(update={"release": sha256}))
    return Release(files, sha256, adapters)


def deploy(
    space: Repository,
    new: Release,
    ask: Ask,
    broken: Callable[[], str | None],
    *,
    patience: int,
    wait: Callable[[], None],
) -> bool:
    """Put a release into a Space and return once it runs; whether anything had to change.

    Args:
        space: its repository.
        ask: see `Ask`.
        broken: says why the Space will never start, if that is known already.
        patience: how often the health page is requested.
        wait: pauses between two questions.

    Raises:
        Unreachable: the hub did not take it; or the Space did not come up with these adapters, and
            its files are again what they were before.
    """
    before = space.head()
    old = space.read(before, space.names(before)) if before else {}
    change = space.replace(new.files, message=f"Deploy {new.sha256[:12]}")
    reason = f"its health page did not report release {new.sha256[:12]} in time"
    given_up = 0
    for _ in range(patience):
        if new.runs(ask()):
            return change.changed
        fault = broken()
        given_up = given_up + 1 if fault else 0
        if fault and given_up == SURE:
            reason = fault
            break
        wait()
    if not change.changed:
        raise Unreachable(f"{space.id} holds this release already but does not run it: {reason}. Look at its logs.")
    if DOCKERFILE not in old:
        raise Unreachable(f"{space.id} did not start: {reason}. There was no release before it to go back to.")
    space.replace(old, message=f"Roll back from {new.sha256[:12]}")
    raise Unreachable(f"{space.id} did not start: {reason}. It was rolled back to what it was before.")


def _linked(space: bytes, bundle: str, card: bytes) -> bytes:
    """Name in the Space's front matter what it shows, so that the hub's pages lead to each other."""
    _, front, text = space.decode().split("---\n", 2)
    front_matter = yaml.safe_load(card.decode().split("---\n", 2)[1])
    models = [bundle.partition("@")[0], *([front_matter["base_model"]] if "base_model" in front_matter else [])]
    links = {"models": models, **({"datasets": front_matter["datasets"]} if "datasets" in front_matter else {})}
    return f"---\n{front}{yaml.safe_dump(links, sort_keys=False)}---\n{text}".encode()


def _json_bytes(release: SpaceRelease) -> bytes:
    return (dump_json(release.model_dump(), indent=2) + "\n").encode()
