"""Reading shards: one valid rating per generation, and a count for every row."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from bilora.errors import BadData
from bilora.feedback.compact import compact
from bilora.feedback.shards import FolderTarget, build_shard
from bilora.records import Rating, Tombstone
from bilora.storage import sha256_bytes

NOW = "2026-02-01T09:00:00+00:00"

Make = Callable[..., Rating]


def test_an_empty_folder_holds_no_ratings(target: FolderTarget) -> None:
    assert compact(target).ratings == ()


def test_ratings_are_read_as_they_were_written(target: FolderTarget, make: Make) -> None:
    ratings = [make(comment="\u2028 ü \ud800 \x00", edited="e") for _ in range(3)]
    target.put(*build_shard(ratings))
    assert compact(target).ratings == tuple(ratings)


def test_every_row_is_accounted_for(target: FolderTarget, make: Make) -> None:
    first = make(generation_id="g")
    second = make(generation_id="g", supersedes=first.event_id)
    gone, twice = make(), make()
    target.put(*build_shard([first, gone, twice]))
    target.put(*build_shard([second, twice]))
    target.put(*build_shard([Tombstone(event_id=gone.event_id, created_utc=NOW)]))
    compacted = compact(target)
    assert compacted.ratings == tuple(sorted((second, twice), key=lambda rating: rating.event_id))
    assert compacted.counts == {"rows": 5, "deleted": 1, "repeated": 1, "superseded": 1, "ratings": 2}


def test_the_order_of_arrival_does_not_matter(tmp_path: Path, make: Make) -> None:
    """The clock went back, so that the later rating has the smaller id."""
    old = make(generation_id="g", rating="down")
    new = make(generation_id="g").model_copy(update={"event_id": "0" * 26, "supersedes": old.event_id})
    target = FolderTarget(tmp_path)
    target.put(*build_shard([new, old]))
    assert compact(target).ratings == (new,)


def test_the_newest_of_two_machines_ratings_is_valid(target: FolderTarget, make: Make) -> None:
    older, newer = make(generation_id="g"), make(generation_id="g")
    target.put(*build_shard([older]))
    target.put(*build_shard([newer]))
    assert compact(target).ratings == (newer,)


def test_a_deletion_does_not_bring_the_earlier_version_back(target: FolderTarget, make: Make) -> None:
    first = make(generation_id="g")
    second = make(generation_id="g", supersedes=first.event_id)
    again = make(generation_id="g")
    target.put(*build_shard([first, second, again]))
    target.put(*build_shard([Tombstone(event_id=second.event_id, created_utc=NOW)]))
    assert compact(target).ratings == (again,)


@pytest.mark.parametrize("line", ["{", "[]", '{"event_id": 1}'])
def test_a_malformed_line_is_reported_with_its_file(tmp_path: Path, make: Make, line: str) -> None:
    data = (json.dumps(make().model_dump(mode="json")) + "\n" + line + "\n").encode()
    target = FolderTarget(tmp_path)
    target.put(f"feedback/dt=2026-01-31/{sha256_bytes(data)}.jsonl", data)
    with pytest.raises(BadData, match=r"jsonl:2: not a Rating"):
        compact(target)


@pytest.mark.parametrize("day", ["../../x", "2026-01-31", "31.01.2026T00:00:00Z"])
def test_an_invalid_time_never_becomes_a_path(make: Make, day: str) -> None:
    with pytest.raises(ValueError, match="created_utc"):
        make(created_utc=day)
