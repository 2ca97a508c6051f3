"""Ratings leave the machine: consented, scrubbed, in shards that a repetition cannot double.

The order is what makes it safe to die anywhere: a shard's members are fixed in the outbox before it is
written, and marked as exported only when it is durably there. A repetition has the same members, so the
same bytes, so the same name.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain, groupby

from bilora.feedback.compact import fallen
from bilora.feedback.outbox import Outbox
from bilora.feedback.scrub import scrubbed
from bilora.feedback.shards import Target, read_shards, shard
from bilora.records import Rating


@dataclass(frozen=True)
class Exported:
    """What one export did: ratings and deletions told, shards written, shards rewritten without the deleted."""

    ratings: int
    shards: int
    deletions: int
    rewritten: int


def export(outbox: Outbox, target: Target) -> Exported:
    """Write everything that waits to the target; one export at a time, adding goes on meanwhile.

    Deletions come first, and ratings that were added meanwhile are taken along. Interrupted anywhere,
    the next export finishes the work.

    Raises:
        OSError, Unreachable: the target did not take it; it still waits.
        OutboxFault: the outbox did not take a mark; the next export repeats the shard.
        BadData: a deletion could not be carried out, because a shard is damaged.
    """
    ratings = shards = 0
    with outbox.exporting():
        stones = outbox.tombstones()
        for _, day in groupby(sorted(stones, key=lambda one: one.created_utc), key=lambda one: one.created_utc[:10]):
            target.put(*shard(list(day)))
        rewritten = _erase(target, {stone.event_id for stone in stones}) if stones else 0
        outbox.mark_erased([stone.event_id for stone in stones])
        while batch := outbox.claim():
            target.put(*shard([scrubbed(rating) for rating in batch]))
            outbox.mark_exported([rating.event_id for rating in batch])
            ratings, shards = ratings + len(batch), shards + 1
    return Exported(ratings, shards, len(stones), rewritten)


def _erase(target: Target, deleted: Iterable[str]) -> int:
    """Replace each shard that holds a deleted rating by one without it; return how many."""
    shards = read_shards(target, Rating)
    gone = fallen(chain.from_iterable(shards.values()), deleted)
    rewritten = 0
    for name, rows in shards.items():
        kept = [row for row in rows if row.event_id not in gone]
        if len(kept) < len(rows):
            if kept:
                target.put(*shard(kept))
            target.remove(name)  # after the rest is safe
            rewritten += 1
    return rewritten
