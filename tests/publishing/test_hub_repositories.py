"""Publishing on the hub: complete versions, whichever request of a push fails."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
from support.faulty_server import Fault
from support.loopback_hub import TOKEN, Hub, Repo

from bilora.errors import Unreachable
from bilora.hub.client import connect
from bilora.hub.repository import Repository
from bilora.publishing.bundle import bundled_tasks, extract_adapter
from bilora.publishing.hub_repositories import HubRepositories
from bilora.publishing.push import published_adapters, push
from bilora.publishing.rollback import rollback

MakeInputs = Callable[..., Any]


@pytest.fixture
def target(hub: Hub) -> HubRepositories:
    api = connect(TOKEN, endpoint=hub.url, timeout_s=2.0)
    return HubRepositories(lambda name: Repository(api, name), "owner/name")


def expected(files: dict[str, bytes]) -> dict[str, dict[str, bytes]]:
    """Return each repository's files after a bundle was published."""
    repositories = {f"models/owner/name-{task}": extract_adapter(files, task) for task in bundled_tasks(files)}
    return {**repositories, "models/owner/name": files}


def serves(hub: Hub, inputs: Any) -> bool:
    return all(hub.files(key) == files for key, files in expected(inputs.files).items())


def commits(hub: Hub) -> int:
    return sum(len(repo.commits) for repo in hub.repos.values())


def test_the_bundle_and_each_adapters_repository_are_published(hub: Hub, target: HubRepositories, inputs: Any) -> None:
    done = push(target, inputs.files, inputs.verdicts)
    assert serves(hub, inputs) and set(hub.repos) == set(expected(inputs.files))
    assert done.location == f"owner/name@{hub.repo('models/owner/name').commits[-1].oid}"
    assert published_adapters(target) == {task: verdict.adapter_sha256 for task, verdict in inputs.verdicts.items()}


def test_a_second_push_makes_no_commit(hub: Hub, target: HubRepositories, inputs: Any) -> None:
    push(target, inputs.files, inputs.verdicts)
    before = commits(hub)
    assert not push(target, inputs.files, inputs.verdicts).changed
    assert commits(hub) == before


def test_publishing_the_old_bundle_again_restores_it(
    hub: Hub, target: HubRepositories, make_inputs: MakeInputs
) -> None:
    old, new = make_inputs(1), make_inputs(2)
    for inputs in (old, new, old):
        assert push(target, inputs.files, inputs.verdicts).changed
        assert serves(hub, inputs)


def test_a_rollback_includes_the_adapters_repositories(
    hub: Hub, target: HubRepositories, make_inputs: MakeInputs
) -> None:
    old, new = make_inputs(1), make_inputs(2)
    first = push(target, old.files, old.verdicts)
    push(target, new.files, new.verdicts)
    rollback(target)
    assert serves(hub, old) and hub.titles("models/owner/name")[-1].startswith("Roll back to ")
    rollback(target)
    assert serves(hub, new)
    rollback(target, first.location.partition("@")[2][:10])
    assert serves(hub, old)


def test_a_repository_that_was_tampered_with_is_repaired(hub: Hub, target: HubRepositories, inputs: Any) -> None:
    push(target, inputs.files, inputs.verdicts)
    alone = hub.repo("models/owner/name-codegen")
    hub.commit(alone, {**alone.commits[-1].files, "stray": b"?", "adapter_config.json": b"{}"}, "somebody")
    assert push(target, inputs.files, inputs.verdicts).changed
    assert serves(hub, inputs)


@pytest.mark.parametrize("start", ["nothing there", "another version there"])
@pytest.mark.parametrize(
    ("fault", "only_once"),
    [
        (Fault("status", 500), False),
        (Fault("drop-after"), False),
        (Fault("drop-after"), True),
        (Fault("status", 409), True),
    ],
    ids=["the hub is down from then on", "its answers are lost from then on", "one answer is lost", "one 409"],
)
def test_a_fault_at_any_request_leaves_each_repository_old_or_new_and_the_next_push_repairs(
    hub: Hub, target: HubRepositories, make_inputs: MakeInputs, start: str, fault: Fault, only_once: bool
) -> None:
    old, new = make_inputs(1), make_inputs(2)
    if start == "another version there":
        push(target, old.files, old.verdicts)
    before = {key: list(repo.commits) for key, repo in hub.repos.items()}
    uploaded = dict(hub.lfs)
    outcomes = set()
    for number in itertools.count(1):
        hub.repos = {
            key: Repo("model", key.removeprefix("models/"), False, list(commits_before))
            for key, commits_before in before.items()
        }
        hub.lfs = dict(uploaded)
        hub.requests.clear()
        hub.fault = lambda at, _, number=number: fault if (at == number if only_once else at >= number) else None
        try:
            push(target, new.files, new.verdicts)
            outcomes.add("published")
        except Unreachable:
            outcomes.add("refused")
        if len(hub.requests) < number:
            break  # the push is over before its request of this number
        hub.fault = lambda at, request: None
        for key, files in expected(new.files).items():
            assert hub.files(key) in (files, expected(old.files)[key] if before else {}), (number, key)
        assert serves(hub, new) or hub.files("models/owner/name") != new.files, number  # the bundle comes last
        push(target, new.files, new.verdicts)
        assert serves(hub, new), number
        assert [len(repo.commits) for repo in hub.repos.values()] == [3 if before else 2] * 3, number
        total = commits(hub)
        assert not push(target, new.files, new.verdicts).changed and commits(hub) == total, number
    assert number > 20 and "published" in outcomes
    assert "refused" in outcomes or only_once
