"""Delivery and erasure per destination: a deletion is outstanding until every holder has erased the rating."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bilora.errors import BadData
from bilora.feedback.compact import compact, deletions
from bilora.feedback.deliveries import Destination
from bilora.feedback.export import export
from bilora.feedback.outbox import Outbox
from bilora.feedback.shards import FolderTarget
from bilora.records import Rating

NOW = "2026-02-01T09:00:00+00:00"
Make = Callable[..., Rating]


@pytest.fixture
def places(tmp_path: Path) -> list[FolderTarget]:
    return [FolderTarget(tmp_path / name) for name in ("a", "b", "c")]


def held(target: FolderTarget) -> set[str]:
    return {rating.event_id for rating in compact(target).ratings}


def text(target: FolderTarget) -> bytes:
    return b"".join(path.read_bytes() for path in Path(target.name).rglob("*") if path.is_file())


def state(outbox: Outbox, target: FolderTarget) -> Destination:
    (match,) = [destination for destination in outbox.destinations() if destination.name == target.name]
    return match


def test_every_destination_gets_everything(outbox: Outbox, places: list[FolderTarget], make: Make) -> None:
    first, second = make(), make(consent=False)
    outbox.add(first)
    outbox.add(second)
    export(outbox, places[0])
    third = make()
    outbox.add(third)
    for place in places:
        export(outbox, place)
        assert held(place) == {first.event_id, third.event_id}
        assert (state(outbox, place).delivered, state(outbox, place).waiting) == (2, 0)
        assert export(outbox, place).ratings == 0
    assert (outbox.counts()["exported"], outbox.counts()["waiting"]) == (2, 0)


def test_a_deletion_is_outstanding_until_every_holder_has_erased_it(
    outbox: Outbox, places: list[FolderTarget], make: Make
) -> None:
    gone, stays = make(comment="unwanted"), make()
    outbox.add(gone)
    outbox.add(stays)
    for place in places:
        export(outbox, place)
    outbox.delete(gone.event_id, created_utc=NOW)
    for number, place in enumerate(places):
        assert outbox.holders(gone.event_id) == [place.name for place in places[number:]]
        assert outbox.counts()["deletions_waiting"] == 1
        done = export(outbox, place)
        assert (done.deletions, done.rewritten) == (1, 1)
        assert held(place) == {stays.event_id} and b"unwanted" not in text(place)
        assert [b"unwanted" in text(place) for place in places] == [at > number for at in range(3)]
    assert outbox.holders(gone.event_id) == [] and outbox.counts()["deletions_waiting"] == 0


@pytest.mark.parametrize("change", ["a withdrawal", "a deletion of the latest version"])
def test_every_version_is_erased_at_its_destination(
    outbox: Outbox, places: list[FolderTarget], make: Make, change: str
) -> None:
    """The first version went to a and b, the second only to b."""
    first = make(generation_id="g")
    second = make(generation_id="g", supersedes=first.event_id)
    outbox.add(first)
    export(outbox, places[0])
    export(outbox, places[1])
    outbox.add(second)
    export(outbox, places[1])
    if change == "a withdrawal":
        outbox.add(make(generation_id="g", consent=False, supersedes=second.event_id))
    else:
        outbox.delete(second.event_id, created_utc=NOW)
    assert outbox.holders(second.event_id) == [places[0].name, places[1].name]
    assert state(outbox, places[0]).outstanding == (first.event_id,)
    assert state(outbox, places[1]).outstanding == (first.event_id, second.event_id)
    for place in places:
        export(outbox, place)
        assert held(place) == set() and b"Write function" not in text(place)
    assert outbox.holders(second.event_id) == []


def test_consent_given_again_reaches_every_destination(outbox: Outbox, places: list[FolderTarget], make: Make) -> None:
    ratings = [make(generation_id="g")]
    ratings.append(make(generation_id="g", consent=False, supersedes=ratings[-1].event_id))
    ratings.append(make(generation_id="g", supersedes=ratings[-1].event_id))
    for rating in ratings:
        assert outbox.add(rating)
        export(outbox, places[0])
    export(outbox, places[1])
    assert held(places[0]) == held(places[1]) == {ratings[-1].event_id}


def test_an_undelivered_rating_needs_no_erasure_but_its_deletion_is_exported(
    outbox: Outbox, places: list[FolderTarget], make: Make
) -> None:
    first, second = make(), make()
    outbox.add(first)
    export(outbox, places[0])
    outbox.delete(first.event_id, created_utc=NOW)
    outbox.add(second)
    export(outbox, places[1])
    assert state(outbox, places[1]).outstanding == ()
    assert held(places[1]) == {second.event_id} and deletions(places[1]) == {first.event_id}
    places[1].put(*_shard(first))  # a late repetition, from another machine
    assert held(places[1]) == {second.event_id}


def _shard(*ratings: Rating) -> tuple[str, bytes]:
    from bilora.feedback.shards import build_shard

    return build_shard(list(ratings))


def test_a_claim_of_one_destination_is_not_anothers(outbox: Outbox, make: Make) -> None:
    first, second, third = make(), make(), make()
    outbox.add(first)
    assert outbox.claim("/a") == [first]
    outbox.add(second)
    assert outbox.claim("/b") == [first, second]
    outbox.mark_exported("/b", [first.event_id, second.event_id])
    assert outbox.claim("/a") == [first]
    outbox.mark_exported("/a", [first.event_id])
    outbox.add(third)
    assert (outbox.claim("/a"), outbox.claim("/b")) == ([second, third], [third])


def test_one_folder_is_one_destination_by_any_path(
    tmp_path: Path, outbox: Outbox, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "team").mkdir()
    (tmp_path / "link").symlink_to("team")
    (tmp_path / "deep" / "er").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "deep")
    outbox.add(make())
    names = ["../team", "../team/", str(tmp_path / "team"), "er/../../team", "../link", str(tmp_path / "link") + "/."]
    assert [export(outbox, FolderTarget(Path(name))).ratings for name in names] == [1, 0, 0, 0, 0, 0]
    assert [destination.name for destination in outbox.destinations()] == [str(tmp_path / "team")]


def test_a_folder_beside_the_outbox_may_be_moved_with_it(tmp_path: Path, make: Make) -> None:
    rating = make()
    with Outbox(tmp_path / "old" / "outbox.sqlite3") as outbox:
        outbox.add(rating)
        export(outbox, FolderTarget(tmp_path / "old" / "shards"))
    (tmp_path / "old").rename(tmp_path / "new")
    with Outbox(tmp_path / "new" / "outbox.sqlite3") as outbox:
        target = FolderTarget(tmp_path / "new" / "shards")
        assert export(outbox, target).ratings == 0
        outbox.delete(rating.event_id, created_utc=NOW)
        assert outbox.holders(rating.event_id) == [target.name]


@pytest.mark.parametrize("how", ["removed", "not mounted"])
def test_a_destination_that_vanished_is_refused_and_its_deletions_stay_outstanding(
    tmp_path: Path, outbox: Outbox, places: list[FolderTarget], make: Make, how: str
) -> None:
    rating = make()
    outbox.add(rating)
    for place in places[:2]:
        export(outbox, place)
    (tmp_path / "a").rename(tmp_path / "elsewhere")
    if how == "not mounted":
        (tmp_path / "a").mkdir()
    outbox.delete(rating.event_id, created_utc=NOW)
    with pytest.raises(BadData, match="stay outstanding"):
        export(outbox, places[0])
    assert not list((tmp_path / "a").rglob("*.jsonl"))
    export(outbox, places[1])
    assert outbox.holders(rating.event_id) == [places[0].name]
    if how == "not mounted":
        (tmp_path / "a").rmdir()
    (tmp_path / "elsewhere").rename(tmp_path / "a")
    export(outbox, places[0])
    assert outbox.holders(rating.event_id) == [] and held(places[0]) == set()


def test_a_destination_that_is_forgotten_starts_empty(
    tmp_path: Path, outbox: Outbox, places: list[FolderTarget], make: Make
) -> None:
    first, second = make(), make()
    outbox.add(first)
    outbox.add(second)
    export(outbox, places[0])
    outbox.delete(first.event_id, created_utc=NOW)
    shutil.rmtree(tmp_path / "a")
    assert outbox.forget(places[0].name) and not outbox.forget(places[0].name)
    assert outbox.holders(first.event_id) == [] and outbox.destinations() == []
    export(outbox, places[0])
    assert held(places[0]) == {second.event_id} and deletions(places[0]) == {first.event_id}


def test_a_rating_unknown_to_this_outbox_may_be_at_any_destination(
    tmp_path: Path, outbox: Outbox, places: list[FolderTarget], make: Make
) -> None:
    """Its disk was wiped after the rating went to a and b; since then only a and c were exported to."""
    rating = make()
    outbox.add(rating)
    export(outbox, places[0])
    export(outbox, places[1])
    with Outbox(tmp_path / "fresh.sqlite3") as fresh:
        for place in (places[0], places[2]):
            fresh.add(make())
            export(fresh, place)
        assert not fresh.delete(rating.event_id, created_utc=NOW)
        assert fresh.holders(rating.event_id) == [places[0].name, places[2].name] and fresh.unknown_deletions() == 1
        for place in places:
            export(fresh, place)
            assert rating.event_id not in held(place)
        assert fresh.holders(rating.event_id) == [] and fresh.counts()["deletions_waiting"] == 0


def test_a_withdrawn_rating_older_than_a_wiped_disk_may_be_at_any_destination(
    outbox: Outbox, places: list[FolderTarget], make: Make
) -> None:
    outbox.add(make())
    export(outbox, places[0])
    lost = make()
    outbox.add(make(consent=False, supersedes=lost.event_id))
    assert outbox.holders(lost.event_id) == [places[0].name]


class Died(Exception):
    """The process ends here."""


@pytest.mark.parametrize("moment", ["before the erasure", "before the mark"])
def test_an_interrupted_erasure_stays_outstanding(
    outbox: Outbox, places: list[FolderTarget], make: Make, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    def die(*_: Any, **__: Any) -> None:
        raise Died

    first, second = make(), make()
    outbox.add(first)
    outbox.add(second)
    export(outbox, places[0])
    export(outbox, places[1])
    outbox.delete(first.event_id, created_utc=NOW)
    with monkeypatch.context() as patch, pytest.raises(Died):
        if moment == "before the mark":
            patch.setattr(outbox, "mark_erased", die)
        else:
            patch.setattr("bilora.feedback.export._erase", die)
        export(outbox, places[0])
    assert outbox.holders(first.event_id) == [places[0].name, places[1].name]
    done = export(outbox, places[0])
    assert (done.deletions, done.rewritten) == (1, 0 if moment == "before the mark" else 1)
    assert outbox.holders(first.event_id) == [places[1].name] and held(places[0]) == {second.event_id}


def test_a_rating_deleted_between_its_shard_and_the_mark_is_outstanding_there_only(
    outbox: Outbox, places: list[FolderTarget], make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The export died after it had written, so nobody can say that the destination never got it."""

    def die(*_: Any) -> None:
        raise Died

    rating = make()
    outbox.add(rating)
    with monkeypatch.context() as patch, pytest.raises(Died):
        patch.setattr(outbox, "mark_exported", die)
        export(outbox, places[0])
    outbox.delete(rating.event_id, created_utc=NOW)
    export(outbox, places[1])
    assert outbox.holders(rating.event_id) == [places[0].name] and rating.event_id in held(places[0])
    export(outbox, places[0])
    assert outbox.holders(rating.event_id) == [] and held(places[0]) == set()


def test_a_deletion_of_another_destination_is_applied_on_reading(
    outbox: Outbox, places: list[FolderTarget], make: Make
) -> None:
    first = make(generation_id="g")
    second = make(generation_id="g", supersedes=first.event_id)
    outbox.add(first)
    export(outbox, places[0])
    outbox.add(second)
    export(outbox, places[0])
    read = compact(places[0], deleted={second.event_id})
    assert read.ratings == () and read.counts["deleted"] == 2
