"""A repository changes by whole commits, whatever happens to the requests in between."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from support.faulty_server import Fault
from support.loopback_hub import TOKEN, Hub

from bilora.errors import BadData, Unreachable
from bilora.hub.client import connect
from bilora.hub.repository import CommitResult, Repository

A = {"README.md": b"---\nlicense: mit\n---\n# A\n", "one/w.safetensors": b"aaa", "old.txt": b"old", "empty": b""}
B = {"README.md": b"---\nlicense: mit\n---\n# B\n", "one/w.safetensors": b"bbb", "two/w.safetensors": b"bb"}
KEY = "models/owner/name"


@pytest.fixture
def repository(hub: Hub) -> Repository:
    return Repository(connect(TOKEN, endpoint=hub.url), "owner/name")


def test_what_is_replaced_is_served_byte_by_byte(hub: Hub, repository: Repository) -> None:
    assert repository.head() is None and repository.revisions() == []
    for files in (A, B, A):
        change = repository.replace(files, message="m")
        assert change == CommitResult(repository.head() or "", True)
        assert hub.files(KEY) == files
        assert repository.read(change.revision, repository.names(change.revision)) == files
    assert len(hub.titles(KEY)) == 4 and len(repository.revisions()) == 4


def test_equal_bytes_make_no_commit(hub: Hub, repository: Repository) -> None:
    first = repository.replace(A, message="m")
    assert repository.replace(A, message="m") == CommitResult(first.revision, False)
    assert hub.titles(KEY) == ["initial commit", "m"]


def test_an_update_leaves_other_files_alone(hub: Hub, repository: Repository) -> None:
    repository.replace(A, message="m")
    repository.update({"new": b"n"}, ["old.txt", "never there"], message="u")
    assert hub.files(KEY) == {**{name: data for name, data in A.items() if name != "old.txt"}, "new": b"n"}


def test_a_file_or_commit_that_is_not_there(repository: Repository) -> None:
    change = repository.replace(A, message="m")
    assert repository.read(change.revision, ["nowhere"]) == {}
    with pytest.raises(BadData, match="has no commit 000"):
        repository.read("0" * 40, ["README.md"])


def somebody_else(files: dict[str, bytes], times: int = 1) -> Callable[[Hub, object], None]:
    left = [times]

    def commit(hub: Hub, repo: object) -> None:
        if left[0]:
            left[0] -= 1
            there = hub.repo(KEY)
            hub.commit(there, {**there.commits[-1].files, **files, "times": bytes([left[0]])}, "somebody else")

    return commit


def test_a_commit_that_comes_second_overwrites_nothing(hub: Hub, repository: Repository) -> None:
    repository.replace(A, message="m")
    hub.before_commit = somebody_else({"theirs": b"t"})
    with pytest.raises(Unreachable, match="changed by somebody else"):
        repository.replace(B, message="m")
    assert hub.files(KEY) == {**A, "theirs": b"t", "times": b"\0"}
    repository.replace(B, message="m")
    assert hub.files(KEY) == B


def test_a_commit_whose_response_was_lost_counts(hub: Hub, repository: Repository) -> None:
    hub.fault = lambda number, request: Fault("drop-after") if "/commit/" in request else None
    assert repository.replace(A, message="m").changed
    assert hub.files(KEY) == A and hub.titles(KEY) == ["initial commit", "m"]


def test_a_race_with_an_equal_push_is_won_by_both(hub: Hub, repository: Repository) -> None:
    repository.replace(A, message="m")

    def twin(hub: Hub, repo: object) -> None:
        hub.commit(hub.repo(KEY), {".gitattributes": b"", **B}, "twin")

    hub.before_commit = twin
    assert repository.replace(B, message="m").changed
    assert hub.files(KEY) == B and hub.titles(KEY)[-1] == "twin"


def test_an_update_that_lost_a_race_is_run_again(hub: Hub, repository: Repository) -> None:
    repository.replace(A, message="m")
    hub.before_commit = somebody_else({"theirs": b"t"}, times=2)
    repository.update({"mine": b"m"}, [], message="u")
    assert hub.files(KEY) == {**A, "theirs": b"t", "times": b"\0", "mine": b"m"}


def test_without_a_token_the_error_says_so(hub: Hub) -> None:
    with pytest.raises(Unreachable, match="HF_TOKEN"):
        Repository(connect(None, endpoint=hub.url), "owner/name").replace(A, message="m")


def test_a_hub_that_does_not_respond_times_out(hub: Hub) -> None:
    """The client alone would wait forever: on listings it even overrides the session's timeout."""
    repository = Repository(connect(TOKEN, endpoint=hub.url, timeout_s=0.1), "owner/name")
    repository.replace(A, message="m")
    hub.fault = lambda number, request: Fault("hang") if "/tree/" in request else None
    started = time.monotonic()
    with pytest.raises(Unreachable, match="the server did not answer in time"):
        repository.replace(B, message="m")
    assert time.monotonic() - started < 3


def test_the_token_is_in_no_error(hub: Hub, repository: Repository) -> None:
    hub.fault = lambda number, request: Fault("status", 403)
    with pytest.raises(Unreachable) as caught:
        repository.replace(A, message="m")
    assert TOKEN not in f"{caught.value!r}" and hub.bearers == {TOKEN}
