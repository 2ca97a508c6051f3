"""Deployment: it succeeds only if the Space reports the release; otherwise the old files are restored."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import SpaceCard
from support.checkouts import ROOT
from support.faulty_server import Fault
from support.loopback_hub import TOKEN, Hub

from bilora.errors import BadData, Unreachable
from bilora.hub.client import connect
from bilora.hub.repository import Repository
from bilora.hub.space import RunningSpace
from bilora.publishing.deploy import Release, deploy, release
from bilora.publishing.hub_repositories import HubRepositories
from bilora.publishing.push import push
from bilora.publishing.space_release import SpaceRelease, read_space_release

SPACE = "spaces/owner/page"
Deploy = Callable[..., bool]
Bundle = tuple[str, dict[str, str], bytes]
"""Location, SHA-256 of the adapters, card."""
CARD = b"---\nbase_model: owner/base\ndatasets:\n- owner/rows\n---\n# B\n"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Return a workspace with the real hf_space and stubs of the other files."""
    root = tmp_path / "checkout"
    shutil.copytree(ROOT / "hf_space", root / "hf_space", ignore=shutil.ignore_patterns("__pycache__"))
    for name in (".streamlit/config.toml", "models/base.safetensors", "src/page.py", "pyproject.toml", "params.yaml"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    (root / "src" / "__pycache__").mkdir()
    (root / "src" / "__pycache__" / "page.pyc").write_bytes(b"?")
    return root


@pytest.fixture
def run(hub: Hub) -> Deploy:
    api = connect(TOKEN, endpoint=hub.url)

    def deployed(new: Release, max_requests: int = 6) -> bool:
        space, running = Repository(api, "owner/page", "space"), RunningSpace(api, "owner/page")
        return deploy(space, new, running.health, running.failure, max_requests=max_requests, wait=lambda: None)

    return deployed


@pytest.fixture
def bundle(hub: Hub, inputs: Any) -> Bundle:
    api = connect(TOKEN, endpoint=hub.url)
    done = push(HubRepositories(lambda name: Repository(api, name), "owner/name"), inputs.files, inputs.verdicts)
    adapters = {task: verdict.adapter_sha256 for task, verdict in inputs.verdicts.items()}
    return done.location, adapters, inputs.files["README.md"]


def test_a_space_that_reports_the_release_is_deployed(hub: Hub, run: Deploy, checkout: Path, bundle: Bundle) -> None:
    new = release(checkout, *bundle)
    assert run(new)
    files = hub.files(SPACE)
    assert files == new.files and "src/__pycache__/page.pyc" not in files
    assert {"Dockerfile", "README.md", "hf_space/serve.py", "models/base.safetensors"} <= set(files)
    served = {"bundle": bundle[0], "release": new.sha256, "adapters": bundle[1]}
    assert json.loads(files["hf_space/release.json"]) == served
    assert files["Dockerfile"] == (ROOT / "hf_space" / "Dockerfile").read_bytes()
    assert not run(new) and len(hub.titles(SPACE)) == 2


def changed(checkout: Path, words: str) -> None:
    (checkout / "src" / "page.py").write_text(words)


def test_a_release_that_does_not_start_is_rolled_back(hub: Hub, run: Deploy, checkout: Path, bundle: Bundle) -> None:
    first = release(checkout, *bundle)
    run(first)
    hub.healthy = lambda files: files["src/page.py"] != b"broken"
    changed(checkout, "broken")
    with pytest.raises(Unreachable, match=r"BUILD_ERROR.*rolled back"):
        run(release(checkout, *bundle))
    assert hub.files(SPACE) == first.files and hub.titles(SPACE)[-1].startswith("Roll back from")
    changed(checkout, "mended")
    assert run(release(checkout, *bundle))


def test_the_old_container_s_word_is_not_taken_for_the_new_one_s(
    hub: Hub, run: Deploy, checkout: Path, bundle: Bundle
) -> None:
    """The old release has the same adapters, and answers while the new one is built."""
    first = release(checkout, *bundle)
    run(first)
    hub.healthy = lambda files: files["src/page.py"] != b"broken"
    hub.lag = 3
    changed(checkout, "broken")
    with pytest.raises(Unreachable, match="rolled back"):
        run(release(checkout, *bundle))
    assert hub.files(SPACE) == first.files


def test_a_space_with_other_adapters_is_rolled_back(hub: Hub, run: Deploy, checkout: Path, bundle: Bundle) -> None:
    first = release(checkout, *bundle)
    run(first)
    changed(checkout, "another")
    with pytest.raises(Unreachable, match=r"did not report release .* rolled back"):
        run(release(checkout, bundle[0], {**bundle[1], "codegen": "f" * 64}, bundle[2]))
    assert hub.files(SPACE) == first.files


def test_a_stage_from_before_the_commit_is_not_believed(hub: Hub, run: Deploy, checkout: Path, bundle: Bundle) -> None:
    """The hub may still report the previous release's failure while the next one is built."""
    stages = iter(["BUILD_ERROR", "BUILD_ERROR", "BUILDING"])
    hub.stage = lambda: next(stages, None)
    hub.lag = 3
    assert run(release(checkout, *bundle))


def test_a_first_release_that_fails_has_nothing_to_go_back_to(
    hub: Hub, run: Deploy, checkout: Path, bundle: Bundle
) -> None:
    hub.healthy = lambda files: False
    with pytest.raises(Unreachable, match="no earlier release to roll back to"):
        run(release(checkout, *bundle))
    with pytest.raises(Unreachable, match="contains this release already"):
        run(release(checkout, *bundle))


@pytest.mark.parametrize("kind", ["status", "drop-after"])
def test_a_hub_that_fails_meanwhile_leaves_the_space_old_or_new(
    hub: Hub, run: Deploy, checkout: Path, bundle: Bundle, kind: Any
) -> None:
    first = release(checkout, *bundle)
    run(first)
    for step in range(1, 40, 5):
        changed(checkout, f"version {step}")
        new, before, start = release(checkout, *bundle), hub.files(SPACE), len(hub.requests)
        hub.fault = lambda at, _, last=start + step: Fault(kind) if at >= last else None
        try:
            run(new, max_requests=2)
        except Unreachable:
            assert hub.files(SPACE) in (before, new.files)
        hub.fault = lambda at, request: None
        run(new)
        assert hub.files(SPACE) == new.files


def test_the_space_names_what_it_shows(checkout: Path) -> None:
    card = SpaceCard(release(checkout, "owner/name@0", {}, CARD).files["README.md"].decode())
    assert (card.data.models, card.data.datasets) == (["owner/name", "owner/base"], ["owner/rows"])
    assert (card.data.sdk, card.text) == ("docker", SpaceCard((ROOT / "hf_space" / "README.md").read_text()).text)
    alone = SpaceCard(release(checkout, "owner/name@0", {}, b"---\ntags: []\n---\n").files["README.md"].decode())
    assert (alone.data.models, alone.data.datasets) == (["owner/name"], None)


def test_a_dockerfile_that_does_not_copy_the_release_is_named(checkout: Path) -> None:
    path = checkout / "hf_space" / "Dockerfile"
    path.write_text(path.read_text().replace("hf_space/release.json", ""))
    with pytest.raises(BadData, match=r"Dockerfile: must copy hf_space/release\.json"):
        release(checkout, "owner/name@0", {}, CARD)


def test_the_release_id_depends_on_the_bundle_and_its_adapters(checkout: Path) -> None:
    def sha256(bundle: str, adapters: dict[str, str]) -> str:
        return release(checkout, bundle, adapters, CARD).sha256

    ids = {sha256("owner/name@0", {}), sha256("owner/name@1", {}), sha256("owner/name@0", {"codegen": "f" * 64})}
    assert len(ids) == 3 and sha256("owner/name@0", {}) in ids


def test_a_checkout_s_release_names_no_bundle(tmp_path: Path) -> None:
    assert read_space_release(ROOT) == read_space_release(tmp_path) == SpaceRelease()


def test_a_malformed_release_is_named(tmp_path: Path) -> None:
    path = tmp_path / "hf_space" / "release.json"
    path.parent.mkdir()
    path.write_text('{"bundle": 1}')
    with pytest.raises(BadData, match=r"release\.json: not a SpaceRelease"):
        read_space_release(tmp_path)


def test_the_image_gets_the_base_as_the_user_before_what_a_release_changes() -> None:
    lines = (ROOT / "hf_space" / "Dockerfile").read_text(encoding="utf-8").splitlines()
    order = ["USER user", "RUN bilora base fetch", "COPY --chown=user hf_space/release.json hf_space/release.json"]
    assert [line for line in lines if line in order] == order
    before = lines[: lines.index(order[1])]
    assert not any(line.startswith("COPY") and line.endswith(" hf_space") for line in before)


def test_the_image_installs_what_the_project_is_tested_with() -> None:
    def pins(name: str) -> set[str]:
        lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
        return {line.partition(" ")[0].lower() for line in lines if "==" in line}

    installed = pins("hf_space/requirements.txt")
    assert any(pin.startswith("gguf==") for pin in installed)  # for `bilora base fetch`
    assert installed <= pins("requirements.txt")
