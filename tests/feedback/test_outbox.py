"""The outbox: acknowledged ratings are stored once, despite other writers and disk faults."""

from __future__ import annotations

import contextlib
import os
import resource
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from bilora.errors import BadData
from bilora.feedback.database import OutboxFault
from bilora.feedback.events import is_event_id, new_event_id
from bilora.feedback.export import export
from bilora.feedback.outbox import Outbox
from bilora.feedback.shards import FolderTarget
from bilora.records import Rating

PLACE = "/somewhere"
NOW = "2026-02-01T09:00:00+00:00"
FORKING = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
"""The children below run nothing but Python and end at once."""

Make = Callable[..., Rating]


def in_child(work: Callable[[], None]) -> int:
    """Start `work` in a child; a fault in it is its exit code 1."""
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException as error:
            os.write(2, f"child: {error!r}\n".encode())
            os._exit(1)
        os._exit(0)
    return child


def succeeded(child: int) -> bool:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_event_ids_have_the_ulids_form_and_order() -> None:
    early, late = new_event_id(1_469_918_176_385), new_event_id(1_469_918_176_386)
    assert early.startswith("01ARYZ6S41")  # the specification's example
    assert early < late < new_event_id()
    assert is_event_id(early) and not is_event_id(early.lower()) and not is_event_id(early[1:])


def test_a_rating_is_stored_unchanged(outbox: Outbox, make: Make) -> None:
    rating = make(comment='quotes " and \x00 and ü and \ud800', tags=("a", "b"), edited="x")
    assert outbox.add(rating)
    assert outbox.valid_rating(rating.generation_id) == rating


def test_an_acknowledged_rating_is_visible_to_other_processes(tmp_path: Path, outbox: Outbox, make: Make) -> None:
    rating = make()
    outbox.add(rating)
    with Outbox(tmp_path / "outbox.sqlite3") as other:
        assert other.valid_rating(rating.generation_id) == rating


def test_acknowledged_means_synced(tmp_path: Path, outbox: Outbox) -> None:
    assert outbox._db.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL
    assert outbox._db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert (tmp_path / "outbox.sqlite3").stat().st_mode & 0o077 == 0


def test_a_rerun_stores_nothing(outbox: Outbox, make: Make) -> None:
    rating = make()
    assert [outbox.add(rating), outbox.add(rating)] == [True, False]
    assert outbox.counts()["valid"] == 1


def test_a_double_click_stores_nothing(outbox: Outbox, make: Make) -> None:
    first, second = make(generation_id="g"), make(generation_id="g", rating="down")
    assert [outbox.add(first), outbox.add(second)] == [True, False]
    assert outbox.valid_rating("g") == first


def test_a_changed_rating_replaces_the_valid_one(outbox: Outbox, make: Make) -> None:
    first = make(generation_id="g")
    second = make(generation_id="g", rating="down", supersedes=first.event_id)
    late = make(generation_id="g", supersedes=first.event_id)
    assert [outbox.add(rating) for rating in (first, second, second, first, late)] == [True, True, False, False, False]
    assert outbox.valid_rating("g") == second
    assert (outbox.counts()["valid"], outbox.counts()["superseded"]) == (1, 1)


def test_a_rating_can_supersede_one_that_a_wiped_disk_lost(outbox: Outbox, make: Make) -> None:
    assert outbox.add(make(supersedes=new_event_id()))


def test_another_answers_rating_cannot_be_superseded(outbox: Outbox, make: Make) -> None:
    rating = make()
    outbox.add(rating)
    with pytest.raises(BadData, match="another answer"):
        outbox.add(make(supersedes=rating.event_id, consent=False))
    assert outbox.valid_rating(rating.generation_id) == rating
    assert outbox.add(make())  # nothing is left open


def test_no_byte_of_a_deleted_rating_remains(tmp_path: Path, outbox: Outbox, make: Make) -> None:
    outbox.add(make(comment="filler"))
    first = make(generation_id="g", comment="unwanted-1")
    second = make(generation_id="g", comment="unwanted-2", supersedes=first.event_id)
    outbox.add(first)
    outbox.add(second)
    assert outbox.delete(second.event_id, created_utc=NOW)
    assert outbox.valid_rating("g") is None
    files = b"".join(path.read_bytes() for path in tmp_path.iterdir() if path.is_file())
    assert b"filler" in files and b"unwanted" not in files
    assert [stone.event_id for stone in outbox.tombstones()] == sorted([first.event_id, second.event_id])


def test_a_rerun_does_not_bring_a_deleted_rating_back(outbox: Outbox, make: Make) -> None:
    rating = make()
    outbox.add(rating)
    outbox.delete(rating.event_id, created_utc=NOW)
    assert not outbox.add(rating)
    assert outbox.add(make(generation_id=rating.generation_id))  # but its author may rate again


def test_an_unknown_event_leaves_a_tombstone_too(outbox: Outbox) -> None:
    event = new_event_id()
    assert not outbox.delete(event, created_utc=NOW)
    assert not outbox.delete(event, created_utc=NOW)  # a second time changes nothing
    assert [stone.event_id for stone in outbox.tombstones()] == [event]


def test_only_an_event_id_can_be_deleted(outbox: Outbox) -> None:
    with pytest.raises(BadData, match="not an event id"):
        outbox.delete("all", created_utc=NOW)


def test_withdrawing_consent_deletes_the_earlier_rating(outbox: Outbox, make: Make) -> None:
    first = make(generation_id="g")
    outbox.add(first)
    outbox.add(make(generation_id="g", consent=False, supersedes=first.event_id))
    assert [stone.event_id for stone in outbox.tombstones()] == [first.event_id]
    assert outbox.claim(PLACE) == []


def test_only_valid_ratings_with_consent_are_claimed(outbox: Outbox, make: Make) -> None:
    first, private = make(generation_id="g"), make(consent=False)
    second = make(generation_id="g", supersedes=first.event_id)
    for rating in (first, private, second):
        outbox.add(rating)
    assert outbox.claim(PLACE) == [second]
    assert outbox.counts() | {"superseded": 1} == {
        "valid": 2, "exported": 0, "waiting": 1, "private": 1, "superseded": 1, "deleted": 0, "deletions_waiting": 0,
    }  # fmt: skip


def test_a_claim_is_the_same_until_it_is_exported(outbox: Outbox, make: Make) -> None:
    first, second, third = make(), make(), make()
    outbox.add(first)
    outbox.add(second)
    assert outbox.claim(PLACE) == [first, second]
    outbox.add(third)
    assert outbox.claim(PLACE) == [first, second]
    outbox.mark_exported(PLACE, [first.event_id, second.event_id])
    assert outbox.claim(PLACE) == [third]
    outbox.mark_exported(PLACE, [third.event_id])
    assert outbox.claim(PLACE) == []


def test_a_claim_is_of_one_day_and_bounded(outbox: Outbox, make: Make) -> None:
    days = [make(created_utc=f"2026-01-{day}T00:00:00Z") for day in (30, 31, 31, 31)]
    for rating in days:
        outbox.add(rating)
    sizes = []
    while batch := outbox.claim(PLACE, limit=2):
        outbox.mark_exported(PLACE, [rating.event_id for rating in batch])
        sizes.append([rating.created_utc[8:10] for rating in batch])
    assert sizes == [["30"], ["31", "31"], ["31"]]


@FORKING
def test_four_writers_at_once_neither_lose_nor_duplicate(tmp_path: Path, make: Make) -> None:
    """All four open a file that is not there yet; two of each generation compete."""
    path = tmp_path / "new" / "outbox.sqlite3"
    ratings = [[make(generation_id=f"g{number}-{writer // 2}") for number in range(40)] for writer in range(4)]

    def write(mine: list[Rating]) -> None:
        with Outbox(path) as outbox:
            for rating in mine:
                outbox.add(rating)

    children = [in_child(lambda mine=mine: write(mine)) for mine in ratings]
    assert all([succeeded(child) for child in children])
    with Outbox(path) as outbox:
        assert (outbox.counts()["valid"], outbox.counts()["superseded"]) == (80, 0)


def test_threads_that_share_an_outbox_take_turns(outbox: Outbox, make: Make) -> None:
    thread = threading.Thread(target=outbox.add, args=(make(),))
    with outbox._transaction():
        thread.start()
        thread.join(0.05)
        assert thread.is_alive()
    thread.join()
    assert outbox.counts()["valid"] == 1


def test_a_lock_of_another_writer_is_reported(tmp_path: Path, outbox: Outbox, make: Make) -> None:
    rating = make()
    with Outbox(tmp_path / "outbox.sqlite3", timeout_s=0.05) as other:
        outbox._db.execute("BEGIN IMMEDIATE")
        with pytest.raises(OutboxFault, match=r"locked; nothing was changed\. Wait until other programs") as caught:
            other.add(rating)
        assert caught.value.exit_code == 6
        outbox._db.execute("ROLLBACK")
        assert other.add(rating)


@FORKING
def test_a_full_disk_is_reported_and_leaves_nothing_half_stored(tmp_path: Path, make: Make) -> None:
    path = tmp_path / "outbox.sqlite3"
    ratings = [make(prompt="x" * 3000) for _ in range(100)]

    def fill() -> None:
        with Outbox(path) as outbox:
            soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, hard))
            stored = []
            with pytest.raises(OutboxFault, match="Free some space"):
                for rating in ratings:
                    outbox.add(rating)
                    stored.append(rating.event_id)
            assert 5 < len(stored) < 95
            assert outbox.counts()["valid"] == len(stored)
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            assert outbox.add(ratings[len(stored)])
            (tmp_path / "stored").write_text(str(len(stored) + 1))

    assert succeeded(in_child(fill))
    with Outbox(path) as outbox:
        event_ids = [rating.event_id for rating in outbox.claim(PLACE)]
    assert event_ids == [rating.event_id for rating in ratings[: int((tmp_path / "stored").read_text())]]


def test_a_file_that_is_not_an_outbox_is_not_changed(tmp_path: Path) -> None:
    path = tmp_path / "outbox.sqlite3"
    path.write_bytes(b"somebody's letter " * 100)
    with pytest.raises(BadData, match="not a valid outbox"):
        Outbox(path)
    assert path.read_bytes() == b"somebody's letter " * 100


def test_an_outbox_of_the_future_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "outbox.sqlite3"
    Outbox(path).close()
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 9")
    db.close()
    with pytest.raises(BadData, match="version 9"):
        Outbox(path)


def test_a_repeated_deletion_is_still_known(outbox: Outbox, make: Make) -> None:
    rating = make()
    outbox.add(rating)
    assert outbox.delete(rating.event_id, created_utc=NOW) and outbox.delete(rating.event_id, created_utc=NOW)


def test_a_later_event_sorts_after_an_earlier_one_even_if_the_clock_was_set_back() -> None:
    first = new_event_id(1_770_000_000_000)
    assert first < new_event_id(1_600_000_000_000, after=first) < new_event_id(1_770_000_000_002)
    assert first < new_event_id(1_770_000_000_000, after=first)
    assert new_event_id(1_780_000_000_000, after=first) > new_event_id(1_770_000_000_001, after=first)


def test_a_folder_named_like_the_unknown_destination_is_a_folder(tmp_path: Path, outbox: Outbox, make: Make) -> None:
    outbox.add(make())
    export(outbox, FolderTarget(tmp_path / "?"))
    assert [destination.name for destination in outbox.destinations()] == [str(tmp_path / "?")]


def test_a_database_of_another_program_is_not_changed(tmp_path: Path) -> None:
    path = tmp_path / "other.sqlite3"
    with contextlib.closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE ratings (name)")
    with pytest.raises(BadData, match="is a database of another program; move it away"):
        Outbox(path)
    with pytest.raises(BadData, match="is a folder, not a file"):
        Outbox(tmp_path)
    with contextlib.closing(sqlite3.connect(path)) as other:
        assert other.execute("SELECT name FROM sqlite_master").fetchall() == [("ratings",)]
