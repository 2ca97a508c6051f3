"""Reading what was exported: each generation's last word, without what was deleted."""

from __future__ import annotations

from collections.abc import Iterable, Set
from dataclasses import dataclass
from itertools import chain

from bilora.feedback.shards import Target, read_shards
from bilora.records import Rating, Tombstone


@dataclass(frozen=True)
class Compacted:
    """The ratings that stand, by event; `counts` adds up: `rows` are those and what the other counts left out."""

    ratings: tuple[Rating, ...]
    counts: dict[str, int]


def compact(target: Target, *, deleted: Set[str] = frozenset()) -> Compacted:
    """Read all shards and resolve deletions, repetitions and supersessions.

    Args:
        target: the destination to read; its own deletions are applied.
        deleted: deletions that it may not know yet, as those of the outbox and of other destinations.

    Raises:
        BadData: a shard is damaged; it is named.
    """
    rows = list(chain.from_iterable(read_shards(target, Rating).values()))
    gone = fallen(rows, deletions(target) | deleted)
    left = [row for row in rows if row.event_id not in gone]
    known = {row.event_id: row for row in left}
    standing = _last_words(known.values())
    counts = {
        "rows": len(rows),
        "deleted": len(rows) - len(left),
        "repeated": len(left) - len(known),
        "superseded": len(known) - len(standing),
        "ratings": len(standing),
    }
    return Compacted(tuple(standing), counts)


def deletions(target: Target) -> set[str]:
    """Return the ids of the ratings whose deletion a destination knows.

    Raises:
        BadData: a shard is damaged; it is named.
    """
    return {stone.event_id for stones in read_shards(target, Tombstone).values() for stone in stones}


def fallen(ratings: Iterable[Rating], deleted: Iterable[str]) -> set[str]:
    """Return the ids of deleted events, and of the earlier ratings of their generations.

    A deletion means the rating of an answer, not its latest wording; else the one before would stand again.
    """
    rows, gone = list(ratings), set(deleted)
    last: dict[str, str] = {}
    for row in rows:
        if row.event_id in gone:
            last[row.generation_id] = max(row.event_id, last.get(row.generation_id, ""))
    return gone.union(row.event_id for row in rows if row.event_id <= last.get(row.generation_id, ""))


def _last_words(ratings: Iterable[Rating]) -> list[Rating]:
    """Of each generation keep what nothing supersedes; of several, as two machines may write, the newest."""
    by_generation: dict[str, dict[str, Rating]] = {}
    for rating in sorted(ratings, key=lambda rating: rating.event_id):
        by_generation.setdefault(rating.generation_id, {})[rating.event_id] = rating
    kept = []
    for versions in by_generation.values():
        superseded = {rating.supersedes for rating in versions.values()}
        heads = [rating for event, rating in versions.items() if event not in superseded]
        kept += heads[-1:] or [list(versions.values())[-1]]
    return sorted(kept, key=lambda rating: rating.event_id)
