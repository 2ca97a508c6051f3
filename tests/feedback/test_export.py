"""Export: with consent, redacted, once; deletions reach earlier exports."""

from __future__ import annotations

import errno
import json
import os
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bilora.errors import BadData
from bilora.feedback import export as module
from bilora.feedback.compact import compact
from bilora.feedback.export import ExportCounts, export
from bilora.feedback.outbox import Outbox
from bilora.feedback.shards import FolderTarget, build_shard, read_shards
from bilora.locks import exclusive_lock
from bilora.records import Rating, Tombstone
from bilora.storage import sha256_bytes

NOW = "2026-02-01T09:00:00+00:00"

Make = Callable[..., Rating]


class Broken(Exception):
    """The fault that the tests let happen."""


class Failing(FolderTarget):
    """A folder that fails before or after its change number `step`."""

    def __init__(self, path: Path, step: int, *, after: bool) -> None:
        super().__init__(path)
        self._left, self._after = step, after

    def _change(self, change: Callable[[], None]) -> None:
        self._left -= 1
        if self._left == 0 and not self._after:
            raise Broken
        change()
        if self._left == 0:
            raise Broken

    def put(self, name: str, data: bytes) -> None:
        self._change(lambda: FolderTarget.put(self, name, data))

    def remove(self, name: str) -> None:
        self._change(lambda: FolderTarget.remove(self, name))


def lines(folder: Path) -> list[dict[str, Any]]:
    paths = sorted(folder.glob("feedback/dt=*/*.jsonl"))
    return [json.loads(line) for path in paths for line in path.read_text().splitlines()]


def events(folder: Path) -> list[str]:
    return sorted(row["event_id"] for row in lines(folder))


def test_shards_are_named_by_day_and_content(tmp_path: Path, outbox: Outbox, target: FolderTarget, make: Make) -> None:
    for day in ("2026-01-30", "2026-01-31"):
        outbox.add(make(created_utc=f"{day}T12:00:00Z"))
    assert export(outbox, target) == ExportCounts(ratings=2, shards=2, deletions=0, rewritten=0)
    names = target.names("feedback")
    assert [name.split("/")[1] for name in names] == ["dt=2026-01-30", "dt=2026-01-31"]
    for name in names:
        assert Path(name).stem == sha256_bytes((tmp_path / "shards" / name).read_bytes())


def test_a_second_export_has_nothing_to_do(outbox: Outbox, target: FolderTarget, make: Make) -> None:
    outbox.add(make())
    export(outbox, target)
    names = target.names("feedback")
    assert export(outbox, target) == ExportCounts(0, 0, 0, 0)
    assert target.names("feedback") == names


def test_nothing_leaves_without_consent(tmp_path: Path, outbox: Outbox, target: FolderTarget, make: Make) -> None:
    outbox.add(make(consent=False))
    export(outbox, target)
    assert target.names("feedback") == []


def test_exported_ratings_are_redacted_and_stored_ones_are_not(
    outbox: Outbox, target: FolderTarget, make: Make
) -> None:
    rating = make(comment="ask me@example.org")
    outbox.add(rating)
    export(outbox, target)
    (exported,) = compact(target).ratings
    assert (exported.comment, exported.redactions) == ("ask [EMAIL]", 1)
    assert outbox.valid_rating(rating.generation_id) == rating


@pytest.mark.parametrize("step", [1, 2])
@pytest.mark.parametrize("after", [False, True])
def test_a_repeated_export_neither_loses_nor_duplicates(
    tmp_path: Path, outbox: Outbox, target: FolderTarget, make: Make, step: int, after: bool
) -> None:
    """More ratings come in between, so that a batch that is claimed again would have other bytes."""
    ratings = [make(created_utc=f"2026-01-{day}T12:00:00Z") for day in (30, 31, 31)]
    for rating in ratings:
        outbox.add(rating)
    with pytest.raises(Broken):
        export(outbox, Failing(tmp_path / "shards", step, after=after))
    ratings += [make(created_utc=f"2026-01-{day}T13:00:00Z") for day in (30, 31)]
    for rating in ratings[3:]:
        outbox.add(rating)
    export(outbox, target)
    assert events(tmp_path / "shards") == [rating.event_id for rating in ratings]


def test_an_unrecorded_shard_is_written_again(
    tmp_path: Path, outbox: Outbox, target: FolderTarget, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise Broken

    first, second = make(), make()
    outbox.add(first)
    with monkeypatch.context() as patch, pytest.raises(Broken):
        patch.setattr(outbox, "mark_exported", refuse)
        export(outbox, target)
    outbox.add(second)
    export(outbox, target)
    assert events(tmp_path / "shards") == [first.event_id, second.event_id]


def test_a_deletion_reaches_the_shards(tmp_path: Path, outbox: Outbox, target: FolderTarget, make: Make) -> None:
    ratings = [make(comment=f"comment {number}") for number in range(3)]
    for rating in ratings:
        outbox.add(rating)
    export(outbox, target)
    outbox.delete(ratings[1].event_id, created_utc=NOW)
    assert export(outbox, target) == ExportCounts(ratings=0, shards=0, deletions=1, rewritten=1)
    assert events(tmp_path / "shards") == [ratings[0].event_id, ratings[2].event_id]
    stones = read_shards(target, Tombstone)
    assert [stone.event_id for members in stones.values() for stone in members] == [ratings[1].event_id]
    everything = b"".join(path.read_bytes() for path in (tmp_path / "shards").rglob("*") if path.is_file())
    assert b"comment 1" not in everything
    assert export(outbox, target) == ExportCounts(0, 0, 0, 0)


def test_deleting_the_last_rating_of_a_shard_removes_the_shard(
    outbox: Outbox, target: FolderTarget, make: Make
) -> None:
    rating = make()
    outbox.add(rating)
    export(outbox, target)
    outbox.delete(rating.event_id, created_utc=NOW)
    export(outbox, target)
    assert target.names("feedback") == []


def test_a_deletion_erases_earlier_versions_that_are_only_in_shards(
    tmp_path: Path, outbox: Outbox, target: FolderTarget, make: Make
) -> None:
    first = make(generation_id="g")
    outbox.add(first)
    export(outbox, target)
    second = make(generation_id="g", supersedes=first.event_id)
    third = make(generation_id="g", supersedes=second.event_id)
    outbox.add(second)
    outbox.add(third)
    export(outbox, target)
    with Outbox(tmp_path / "after-a-wipe.sqlite3") as fresh:
        fresh.delete(third.event_id, created_utc=NOW)
        export(fresh, target)
    assert events(tmp_path / "shards") == []


@pytest.mark.parametrize("step", [1, 2, 3])
@pytest.mark.parametrize("after", [False, True])
def test_an_interrupted_deletion_is_finished(
    tmp_path: Path, outbox: Outbox, target: FolderTarget, make: Make, step: int, after: bool
) -> None:
    ratings = [make() for _ in range(3)]
    for rating in ratings:
        outbox.add(rating)
    export(outbox, target)
    outbox.delete(ratings[0].event_id, created_utc=NOW)
    with pytest.raises(Broken):
        export(outbox, Failing(tmp_path / "shards", step, after=after))
    export(outbox, target)
    assert events(tmp_path / "shards") == [rating.event_id for rating in ratings[1:]]


def test_a_rating_deleted_after_its_shard_was_written_but_not_marked(
    tmp_path: Path, outbox: Outbox, target: FolderTarget, make: Make
) -> None:
    first, second = make(), make()
    outbox.add(first)
    outbox.add(second)
    with pytest.raises(Broken):
        export(outbox, Failing(tmp_path / "shards", 1, after=True))
    outbox.delete(first.event_id, created_utc=NOW)
    export(outbox, target)
    assert events(tmp_path / "shards") == [second.event_id]


def test_a_rating_deleted_while_its_shard_is_written(
    tmp_path: Path, outbox: Outbox, target: FolderTarget, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    deleted = make()

    def delete_first(rating: Rating) -> Rating:
        outbox.delete(deleted.event_id, created_utc=NOW)
        return rating

    outbox.add(deleted)
    monkeypatch.setattr(module, "scrub_rating", delete_first)
    export(outbox, target)
    export(outbox, target)
    assert events(tmp_path / "shards") == []
    assert outbox.unerased(target.name) == []


def test_exporters_take_turns(tmp_path: Path, outbox: Outbox, target: FolderTarget, make: Make) -> None:
    outbox.add(make())
    thread = threading.Thread(target=export, args=(outbox, target))
    with outbox.exporting():
        thread.start()
        thread.join(0.05)
        assert thread.is_alive()
        assert outbox.add(make())  # rating goes on
    thread.join()
    assert len(events(tmp_path / "shards")) == 2


def test_writers_of_a_folder_take_turns(tmp_path: Path) -> None:
    """One sweeps what the other is writing, if both are let in."""
    (tmp_path / "shards").mkdir()
    thread = threading.Thread(target=FolderTarget(tmp_path / "shards").put, args=("feedback/dt=x/x.jsonl", b"x"))
    with exclusive_lock(tmp_path / "shards"):
        thread.start()
        thread.join(0.05)
        assert thread.is_alive()
    thread.join()


def test_temporary_files_of_a_killed_export_are_removed(
    tmp_path: Path, outbox: Outbox, target: FolderTarget, make: Make
) -> None:
    litter = tmp_path / "shards" / "feedback" / "dt=2026-01-01" / ".x.jsonl.abc.tmp"
    litter.parent.mkdir(parents=True)
    litter.write_text("half a rating")
    outbox.add(make())
    export(outbox, target)
    assert not litter.exists()


def test_a_damaged_shard_is_named_and_not_rewritten(
    tmp_path: Path, outbox: Outbox, target: FolderTarget, make: Make
) -> None:
    rating = make()
    outbox.add(rating)
    export(outbox, target)
    (name,) = target.names("feedback")
    path = tmp_path / "shards" / name
    path.write_text(path.read_text().replace('"up"', '"down"'))
    outbox.delete(rating.event_id, created_utc=NOW)
    with pytest.raises(BadData, match=Path(name).stem):
        export(outbox, target)
    assert len(outbox.unerased(target.name)) == 1


def test_a_copy_that_another_machine_restored_is_erased(
    tmp_path: Path, outbox: Outbox, target: FolderTarget, make: Make
) -> None:
    first, second, third = make(), make(), make()
    for rating in (first, second, third):
        outbox.add(rating)
    export(outbox, target)
    outbox.delete(first.event_id, created_utc="2026-02-01T09:00:00+00:00")
    export(outbox, target)
    target.put(*build_shard([first, third]))  # as an erasure of another machine that began before this one
    with Outbox(tmp_path / "other.sqlite3") as other:
        other.delete(make().event_id, created_utc="2026-02-01T09:00:00+00:00")
        export(other, target)
    assert events(tmp_path / "shards") and first.event_id not in events(tmp_path / "shards")


def test_shards_that_are_replaced_while_they_are_read_are_read_again(target: FolderTarget, make: Make) -> None:
    first, second = make(), make()
    target.put(*build_shard([first, second]))

    class Replaced(FolderTarget):
        def read(self, name: str) -> bytes:
            if name == build_shard([first, second])[0]:
                target.put(*build_shard([second]))
                target.remove(name)
            return super().read(name)

    shards = read_shards(Replaced(Path(target.name)), Rating)
    assert [row for rows in shards.values() for row in rows] == [second]


def test_an_unreadable_folder_is_not_an_empty_one(
    target: FolderTarget, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    target.put(*build_shard([make()]))

    def refuse(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "listdir", refuse)
    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(PermissionError):
        target.names("feedback")


def test_a_shard_that_is_nested_too_deeply_is_named(target: FolderTarget) -> None:
    data = b'{"a": ' + b"[" * 100_000 + b"\n"
    name = f"feedback/dt=2026-01-31/{sha256_bytes(data)}.jsonl"
    target.put(name, data)
    with pytest.raises(BadData, match=re.escape(f"{target.name}/{name}:1: not a Rating")):
        read_shards(target, Rating)
