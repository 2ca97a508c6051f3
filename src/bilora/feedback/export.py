"""Ratings leave the machine: consented, scrubbed, in shards that a repetition cannot double.

The order is what makes it safe to die anywhere: a shard's members are fixed in the outbox before it is
written, and marked as exported only when it is durably there. A repetition has the same members, so the
same bytes, so the same name.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain, groupby

from bilora.errors import BadData
from bilora.feedback.compact import deletions, fallen
from bilora.feedback.outbox import Outbox
from bilora.feedback.scrub import scrubbed
from bilora.feedback.shards import SUBFOLDERS, Target, read_shards, shard
from bilora.records import Rating, Tombstone


@dataclass(frozen=True)
class Exported:
    """Counts of one export: ratings and deletions that the target was given, shards written and shards rewritten."""

    ratings: int
    shards: int
    deletions: int
    rewritten: int


def export(outbox: Outbox, target: Target) -> Exported:
    """Bring one destination up to date: erase what was deleted, then write everything that it did not get yet.

    One export at a time; adding goes on meanwhile. Ratings that were added meanwhile are taken along.
    Interrupted anywhere, the next export to the same destination finishes the work.

    Raises:
        OSError, Unreachable: the target did not take it; it still waits.
        OutboxFault: the outbox did not take a mark; the next export repeats the shard.
        BadData: the target lost what it was given, or a damaged shard keeps a deletion from being carried out.
    """
    ratings = shards = 0
    with outbox.exporting():
        _check_present(outbox, target)
        stones = outbox.unerased(target.name)
        for _, day in groupby(sorted(stones, key=lambda one: one.created_utc), key=lambda one: one.created_utc[:10]):
            target.put(*shard(list(day)))
        if stones:
            rewritten = _erase(target)
            outbox.mark_erased(target.name, [stone.event_id for stone in stones])
        else:
            rewritten = 0
        while batch := outbox.claim(target.name):
            target.put(*shard([scrubbed(rating) for rating in batch]))
            outbox.mark_exported(target.name, [rating.event_id for rating in batch])
            ratings, shards = ratings + len(batch), shards + 1
    return Exported(ratings, shards, len(stones), rewritten)


def lost(outbox: Outbox, target: Target) -> bool:
    """Whether a destination holds nothing of what it was given, as a disk that is not mounted."""
    received, _ = outbox.received(target.name)
    return received > 0 and not (target.names(SUBFOLDERS[Rating]) or target.names(SUBFOLDERS[Tombstone]))


def _check_present(outbox: Outbox, target: Target) -> None:
    """Refuse a destination that lost what it was given: its deletions would be marked, and nothing be erased.

    Where there is nothing to do, no request is sent.
    """
    received, assumed = outbox.received(target.name)
    if received and received == assumed:
        if not target.names(SUBFOLDERS[Rating]):
            outbox.disprove(target.name)
    elif outbox.is_behind(target.name) and lost(outbox, target):
        raise BadData(
            target.name,
            f"{received} ratings were exported there, and there is nothing now; what is outstanding there stays so. "
            "Bring it back, or say with `bilora feedback forget` that it is gone for good.",
        )


def _erase(target: Target) -> int:
    """Replace each shard that holds a rating whose deletion the target knows by one without it; return how many.

    That is also what other machines deleted: one that erases at the same time may have put such a rating back.
    """
    shards = read_shards(target, Rating)
    gone = fallen(chain.from_iterable(shards.values()), deletions(target))
    rewritten = 0
    for name, rows in shards.items():
        kept = [row for row in rows if row.event_id not in gone]
        if len(kept) < len(rows):
            if kept:
                target.put(*shard(kept))
            target.remove(name)  # after the rest is safe
            rewritten += 1
    return rewritten
