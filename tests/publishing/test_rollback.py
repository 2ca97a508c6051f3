"""A rollback restores the exact bytes on every kind of hub, and only of versions that passed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.loopback_hub import TOKEN
from support.loopback_hub import Hub as Loopback

from bilora.errors import BadData, NotPromotable
from bilora.hub.client import connect
from bilora.hub.repository import Repository
from bilora.protocols import Hub
from bilora.publishing.hub_repositories import HubRepositories
from bilora.publishing.local_hub import LocalHub
from bilora.publishing.push import publish_unchecked, published_adapters, push
from bilora.publishing.rollback import rollback
from bilora.publishing.url_hub import UrlHub

MakeInputs = Callable[..., Any]


@pytest.fixture(params=["folder", "file://", "memory://", "hub"])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Hub:
    match request.param:
        case "folder":
            return LocalHub(tmp_path / "hub")
        case "hub":
            loopback: Loopback = request.getfixturevalue("hub")
            api = connect(TOKEN, endpoint=loopback.url)
            return HubRepositories(lambda name: Repository(api, name), "owner/name")
        case scheme:
            return UrlHub(f"{scheme}{tmp_path}/hub")


def now(target: Hub) -> dict[str, bytes]:
    return target.read(target.versions()[0])


def test_back_and_forth(target: Hub, make_inputs: MakeInputs) -> None:
    old, new = make_inputs(1), make_inputs(2)
    assert target.digest() is None and target.versions() == [] and published_adapters(target) == {}
    push(target, old.files, old.verdicts)
    first = target.versions()[0]
    assert push(target, new.files, new.verdicts).changed
    assert not push(target, new.files, new.verdicts).changed
    for expected in (old, new, old):
        assert rollback(target).changed
        assert now(target) == expected.files
    assert not rollback(target, first).changed
    assert published_adapters(target) == {task: verdict.adapter_sha256 for task, verdict in old.verdicts.items()}


def test_by_the_start_of_its_name(target: Hub, make_inputs: MakeInputs) -> None:
    for inputs in (old := make_inputs(1), make_inputs(2), make_inputs(3)):
        push(target, inputs.files, inputs.verdicts)
    first = target.versions()[2]
    rollback(target, first[:12])
    assert now(target) == old.files


def test_without_an_earlier_version_nothing_happens(target: Hub, inputs: Any) -> None:
    push(target, inputs.files, inputs.verdicts)
    with pytest.raises(BadData, match="no earlier version was published"):
        rollback(target)
    with pytest.raises(BadData, match="has no "):
        rollback(target, "0" * 40)
    assert now(target) == inputs.files


def test_changed_bytes_are_not_published_again(target: Hub, make_inputs: MakeInputs) -> None:
    old, new = make_inputs(1), make_inputs(2)
    publish_unchecked(target, {**old.files, "codegen/adapter_model.safetensors": b"other"}, message="by hand")
    push(target, new.files, new.verdicts)
    with pytest.raises(BadData, match="do not match its manifest"):
        rollback(target)
    assert now(target) == new.files


def test_a_version_without_passing_verdicts_is_not_published_again(
    target: Hub, make_inputs: MakeInputs, rebuild: Callable[..., dict[str, bytes]]
) -> None:
    old, new = make_inputs(1), make_inputs(2)
    publish_unchecked(target, rebuild(old.folders, {}, old.results), message="by hand")
    push(target, new.files, new.verdicts)
    with pytest.raises(NotPromotable, match="no passing verdict"):
        rollback(target)
    assert now(target) == new.files


def test_a_folder_hub_without_a_history_continues(tmp_path: Path, make_inputs: MakeInputs) -> None:
    old, new = make_inputs(1), make_inputs(2)
    hub = LocalHub(tmp_path / "hub")
    push(hub, old.files, old.verdicts)
    (tmp_path / "hub" / "current.json").write_text(f'{{"digest": "{hub.digest()}"}}')
    push(hub, new.files, new.verdicts)
    rollback(hub)
    assert now(hub) == old.files


def test_a_store_that_cannot_be_written_to_says_so() -> None:
    with pytest.raises(BadData, match="cannot be written to"):
        UrlHub("nosuchstore://bucket/x")
