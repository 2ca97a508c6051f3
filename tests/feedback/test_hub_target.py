"""Export to a dataset repository: every rating is there once, whatever the hub does."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable

import pytest
from support.faulty_server import Fault
from support.loopback_hub import TOKEN, Hub

from bilora.errors import BadData, Unreachable
from bilora.feedback.compact import compact
from bilora.feedback.export import ExportCounts, export
from bilora.feedback.hub_target import HubTarget
from bilora.feedback.outbox import Outbox
from bilora.feedback.shards import FolderTarget
from bilora.hub.client import connect
from bilora.hub.repository import Repository
from bilora.records import Rating

Make = Callable[..., Rating]
KEY = "datasets/owner/ratings"
HOURS = 7 * 24


@pytest.fixture
def ratings(hub: Hub) -> HubTarget:
    api = connect(TOKEN, endpoint=hub.url, timeout_s=0.2)
    return HubTarget(Repository(api, "owner/ratings", "dataset", private=True))


def exported(hub: Hub, target: HubTarget) -> list[str]:
    hub.fault = lambda number, request: None
    return sorted(rating.event_id for rating in compact(target).ratings)


def test_ratings_are_in_a_private_dataset(hub: Hub, outbox: Outbox, ratings: HubTarget, make: Make) -> None:
    first, second = make(), make(created_utc="2026-02-01T12:00:00Z")
    outbox.add(first)
    outbox.add(second)
    assert export(outbox, ratings) == ExportCounts(ratings=2, shards=2, deletions=0, rewritten=0)
    assert export(outbox, ratings) == ExportCounts(0, 0, 0, 0)
    assert exported(hub, ratings) == [first.event_id, second.event_id]
    assert hub.repo(KEY).private


def test_a_deletion_reaches_the_dataset(hub: Hub, outbox: Outbox, ratings: HubTarget, make: Make) -> None:
    first, second = make(comment="first"), make()
    outbox.add(first)
    outbox.add(second)
    export(outbox, ratings)
    outbox.delete(first.event_id, created_utc="2026-02-01T09:00:00+00:00")
    export(outbox, ratings)
    assert exported(hub, ratings) == [second.event_id]
    assert not any(b"first" in data for data in hub.files(KEY).values())


def test_a_withdrawal_is_outstanding_on_the_hub_and_in_a_folder_until_each_has_erased_it(
    hub: Hub, outbox: Outbox, ratings: HubTarget, target: FolderTarget, make: Make
) -> None:
    first = make(generation_id="g", comment="first")
    outbox.add(first)
    assert export(outbox, ratings).ratings == export(outbox, target).ratings == 1
    outbox.add(make(generation_id="g", consent=False, supersedes=first.event_id))
    assert outbox.holders(first.event_id) == sorted([target.name, "hf://datasets/owner/ratings"])
    hub.fault = lambda number, request: Fault("status", 503)
    with pytest.raises(Unreachable):
        export(outbox, ratings)
    export(outbox, target)
    assert outbox.holders(first.event_id) == ["hf://datasets/owner/ratings"]
    hub.fault = lambda number, request: None
    export(outbox, ratings)
    assert outbox.holders(first.event_id) == [] and exported(hub, ratings) == []
    assert not any(b"first" in data for data in hub.files(KEY).values())


def test_a_dataset_that_vanished_is_refused_and_its_deletion_stays_outstanding(
    hub: Hub, outbox: Outbox, ratings: HubTarget, make: Make
) -> None:
    rating = make()
    outbox.add(rating)
    export(outbox, ratings)
    outbox.delete(rating.event_id, created_utc="2026-02-01T09:00:00+00:00")
    gone = hub.repos.pop(KEY)
    with pytest.raises(BadData, match="it is empty now"):
        export(outbox, ratings)
    assert KEY not in hub.repos and outbox.holders(rating.event_id) == ["hf://datasets/owner/ratings"]
    hub.repos[KEY] = gone
    export(outbox, ratings)
    assert outbox.holders(rating.event_id) == []


def test_without_work_no_request_is_sent_to_the_hub(hub: Hub, outbox: Outbox, ratings: HubTarget, make: Make) -> None:
    outbox.add(make())
    export(outbox, ratings)
    before = len(hub.requests)
    export(outbox, ratings)
    assert len(hub.requests) == before


@pytest.mark.parametrize("only_once", [True, False], ids=["once", "from then on"])
@pytest.mark.parametrize(
    "fault",
    [*(Fault("status", code) for code in (409, 412, 429, 500, 503)), Fault("drop-after"), Fault("hang")],
    ids=["409", "412", "429", "500", "503", "answer lost", "silence"],
)
def test_a_fault_at_any_request_neither_loses_nor_duplicates(
    hub: Hub, outbox: Outbox, ratings: HubTarget, make: Make, fault: Fault, only_once: bool
) -> None:
    """A new rating comes before every try, so that a batch that is claimed again would have other bytes."""
    added = []
    for number in itertools.count(1):
        added.append(make())
        outbox.add(added[-1])
        start = len(hub.requests)
        hub.fault = lambda at, _, last=start + number: fault if (at == last if only_once else at >= last) else None
        with contextlib.suppress(Unreachable):
            export(outbox, ratings)
        if len(hub.requests) - start < number:
            break
    export(outbox, ratings)
    assert exported(hub, ratings) == [rating.event_id for rating in added]
    rows = [line for name, data in hub.files(KEY).items() if name.startswith("feedback/") for line in data.splitlines()]
    assert len(rows) == len(added) > 4


def test_seven_days_without_a_hub_lose_nothing(hub: Hub, outbox: Outbox, ratings: HubTarget, make: Make) -> None:
    """A rating and an export an hour; what the hub says instead of yes changes with the hour."""
    kinds = itertools.cycle([*(Fault("status", code) for code in (409, 412, 429, 500, 503)), Fault("drop")])
    added, refused = [], 0
    for hour in range(HOURS):
        fault = Fault("hang") if hour == HOURS // 2 else next(kinds)
        hub.fault = lambda number, request, fault=fault: fault
        added.append(make(created_utc=f"2026-01-{1 + hour // 24:02}T{hour % 24:02}:00:00+00:00"))
        outbox.add(added[-1])
        with pytest.raises(Unreachable):
            export(outbox, ratings)
        refused += 1
    hub.fault = lambda number, request: None
    done = export(outbox, ratings)
    assert refused == HOURS and done.ratings == HOURS and done.shards >= 7
    assert exported(hub, ratings) == [rating.event_id for rating in added]
