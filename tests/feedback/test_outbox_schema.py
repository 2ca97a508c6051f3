"""Migration of an outbox from version 1."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from support.old_outbox import outbox_of_version_1

from bilora.feedback import schema
from bilora.feedback.compact import compact, deletions
from bilora.feedback.destination_names import UNRECORDED
from bilora.feedback.events import new_event_id
from bilora.feedback.export import export
from bilora.feedback.outbox import Outbox
from bilora.feedback.shards import FolderTarget, build_shard
from bilora.records import Rating, Tombstone

NOW = "2026-02-01T09:00:00+00:00"
Make = Callable[..., Rating]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "feedback" / "outbox.sqlite3"


@pytest.fixture
def default(path: Path) -> FolderTarget:
    return FolderTarget(path.parent / "shards")


def test_an_outbox_of_version_1_loses_nothing_and_accepts_new_ratings(
    path: Path, default: FolderTarget, make: Make
) -> None:
    done, half, new = make(), make(), make()
    gone, going = new_event_id(), new_event_id()
    outbox_of_version_1(
        path,
        exported=[done],
        claimed=[half],
        waiting=[new, private := make(consent=False)],
        erased=[gone],
        unerased=[going],
    )
    default.put(*build_shard([done]))
    default.put(*build_shard([Tombstone(event_id=gone, created_utc=NOW)]))
    with Outbox(path) as outbox:
        ratings = [done, half, new, private]
        assert [outbox.valid_rating(rating.generation_id) for rating in ratings] == ratings
        (place,) = outbox.destinations()
        assert (place.name, place.delivered, place.waiting, place.assumed) == (default.name, 1, 2, 1)
        assert place.outstanding == (going,) and outbox.unknown_deletions() == 2
        assert not outbox.add(done) and outbox.add(make())
        assert outbox.claim(default.name) == [half]  # the shard that version 1 had fixed
        result = export(outbox, default)
        assert (result.ratings, result.deletions) == (3, 1)
        assert deletions(default) == {gone, going}
    with Outbox(path) as again:
        assert again.destinations()[0].outstanding == () and again.destinations()[0].waiting == 0


def test_a_second_destination_gets_everything_and_no_deletion_is_forgotten(
    tmp_path: Path, path: Path, default: FolderTarget, make: Make
) -> None:
    done, gone = make(), make()
    outbox_of_version_1(path, exported=[done], erased=[gone.event_id])
    default.put(*build_shard([done]))
    team = FolderTarget(tmp_path / "team")
    team.put(*build_shard([gone, done]))  # version 1 had exported there too, and did not record it
    with Outbox(path) as outbox:
        export(outbox, team)
        assert {rating.event_id for rating in compact(team).ratings} == {done.event_id}
        outbox.delete(done.event_id, created_utc=NOW)
        assert outbox.holders(done.event_id) == [default.name, team.name]


def test_without_ratings_in_the_default_folder_the_destination_is_unknown(
    path: Path, default: FolderTarget, make: Make
) -> None:
    done, gone = make(), new_event_id()
    outbox_of_version_1(path, exported=[done], erased=[gone])
    default.put(*build_shard([Tombstone(event_id=gone, created_utc=NOW)]))
    with Outbox(path) as outbox:
        assert export(outbox, default).ratings == 1
        assert {destination.name for destination in outbox.destinations()} == {UNRECORDED, default.name}
        outbox.delete(done.event_id, created_utc=NOW)
        assert outbox.holders(done.event_id) == [default.name, UNRECORDED]
        export(outbox, default)
        assert outbox.holders(done.event_id) == [UNRECORDED] and outbox.counts()["deletions_waiting"] == 2
        assert outbox.forget(UNRECORDED)
        assert outbox.counts()["deletions_waiting"] == 0


def test_an_outbox_that_exported_nothing_has_no_destination(path: Path, make: Make) -> None:
    outbox_of_version_1(path, waiting=[make()])
    with Outbox(path) as outbox:
        assert outbox.destinations() == [] and outbox.counts()["waiting"] == 1


def test_a_migration_that_fails_changes_nothing(path: Path, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    done = make()
    outbox_of_version_1(path, exported=[done])
    with monkeypatch.context() as patch, pytest.raises(Exception, match="syntax"):
        patch.setattr(schema, "MOVE_TO_DESTINATIONS", schema.MOVE_TO_DESTINATIONS + "NONSENSE;\n")
        Outbox(path)
    with sqlite3.connect(path) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (1,)
        assert db.execute("SELECT event_id, exported FROM ratings").fetchall() == [(done.event_id, 1)]
    db.close()
    with Outbox(path) as outbox:
        assert outbox.destinations()[0].delivered == 1


def test_a_migrated_outbox_has_the_tables_of_a_new_one(tmp_path: Path, path: Path) -> None:
    def tables(file: Path) -> dict[str, list[tuple[str, str]]]:
        with sqlite3.connect(file) as db:
            names = [name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE name NOT LIKE 'sqlite_%'")]
            columns = {
                name: sorted((row[1], row[2]) for row in db.execute(f"PRAGMA table_info({name})")) for name in names
            }
        db.close()
        return columns

    outbox_of_version_1(path)
    Outbox(path).close()
    Outbox(tmp_path / "new.sqlite3").close()
    assert tables(path) == tables(tmp_path / "new.sqlite3")
