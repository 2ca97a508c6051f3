"""Read exported ratings: the latest version of each, without deleted ones."""

from __future__ import annotations

from collections.abc import Iterable, Set
from dataclasses import dataclass
from itertools import chain

from bilora.feedback.shards import Target, read_shards
from bilora.records import Rating, Tombstone


@dataclass(frozen=True)
class Compacted:
    """The valid ratings, sorted by event id. In `counts`, `rows` is the sum of the other counts."""

    ratings: tuple[Rating, ...]
    counts: dict[str, int]


def compact(target: Target, *, deleted: Set[str] = frozenset()) -> Compacted:
    """Read all shards; drop deleted, repeated and superseded ratings.

    Args:
        target: the destination to read; its own deletions are applied.
        deleted: more deletions to apply, such as those of the outbox and of other destinations.

    Raises:
        BadData: a shard is damaged.
    """
    rows = list(chain.from_iterable(read_shards(target, Rating).values()))
    deleted = deleted_ids(rows, deletions(target) | deleted)
    remaining = [row for row in rows if row.event_id not in deleted]
    unique = {row.event_id: row for row in remaining}
    valid = _latest(unique.values())
    counts = {
        "rows": len(rows),
        "deleted": len(rows) - len(remaining),
        "repeated": len(remaining) - len(unique),
        "superseded": len(unique) - len(valid),
        "ratings": len(valid),
    }
    return Compacted(tuple(valid), counts)


def deletions(target: Target) -> set[str]:
    """Return the event ids of a destination's tombstones.

    Raises:
        BadData: a shard is damaged.
    """
    return {tombstone.event_id for shard in read_shards(target, Tombstone).values() for tombstone in shard}


def deleted_ids(ratings: Iterable[Rating], deleted: Iterable[str]) -> set[str]:
    """Return the deleted event ids and those of earlier ratings of the same generations.

    A deletion removes all versions of a rating; otherwise the previous version would become valid again.
    """
    rows, ids = list(ratings), set(deleted)
    last: dict[str, str] = {}
    for row in rows:
        if row.event_id in ids:
            last[row.generation_id] = max(row.event_id, last.get(row.generation_id, ""))
    return ids.union(row.event_id for row in rows if row.event_id <= last.get(row.generation_id, ""))


def _latest(ratings: Iterable[Rating]) -> list[Rating]:
    """Return each generation's rating that no other supersedes; the newest if two machines wrote one each."""
    by_generation: dict[str, dict[str, Rating]] = {}
    for rating in sorted(ratings, key=lambda rating: rating.event_id):
        by_generation.setdefault(rating.generation_id, {})[rating.event_id] = rating
    latest = []
    for versions in by_generation.values():
        superseded = {rating.supersedes for rating in versions.values()}
        heads = [rating for event, rating in versions.items() if event not in superseded]
        latest += heads[-1:] or [list(versions.values())[-1]]
    return sorted(latest, key=lambda rating: rating.event_id)
