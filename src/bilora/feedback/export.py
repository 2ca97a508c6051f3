"""Export ratings with consent, redacted, in shards that a repeated export does not duplicate.

An export can be interrupted anywhere: the outbox fixes a shard's ratings before the shard is written, and marks them as
exported once it is durable. A repeated export therefore writes the same bytes under the same name.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain, groupby

from bilora.errors import BadData
from bilora.feedback.compact import deleted_ids, deletions
from bilora.feedback.outbox import Outbox
from bilora.feedback.scrub import scrub_rating
from bilora.feedback.shards import SUBFOLDERS, Target, build_shard, read_shards
from bilora.records import Rating, Tombstone


@dataclass(frozen=True)
class ExportCounts:
    """The counts of one export: ratings and deletions written, shards written and shards rewritten."""

    ratings: int
    shards: int
    deletions: int
    rewritten: int


def export(outbox: Outbox, target: Target) -> ExportCounts:
    """Update one destination: erase deleted ratings, then write all ratings that are not there yet.

    One export runs at a time; ratings added meanwhile are exported too. The next export to the same destination
    finishes an interrupted one.

    Raises:
        OSError, Unreachable: the target did not accept a shard.
        OutboxFault: the outbox could not record a shard; the next export repeats it.
        BadData: the target's shards disappeared, or a damaged shard prevents a deletion.
    """
    ratings = shards = rewritten = 0
    with outbox.exporting():
        _check_present(outbox, target)

        # 1) write the deletions, one shard per day 2) erase their ratings 3) record it
        tombstones = outbox.unerased(target.name)
        by_time = sorted(tombstones, key=lambda tombstone: tombstone.created_utc)
        for _, day in groupby(by_time, key=lambda tombstone: tombstone.created_utc[:10]):
            target.put(*build_shard(list(day)))
        if tombstones:
            rewritten = _erase(target)
            outbox.mark_erased(target.name, [tombstone.event_id for tombstone in tombstones])

        # 4) write the ratings batch by batch, and record each
        while batch := outbox.claim(target.name):
            target.put(*build_shard([scrub_rating(rating) for rating in batch]))
            outbox.mark_exported(target.name, [rating.event_id for rating in batch])
            ratings, shards = ratings + len(batch), shards + 1
    return ExportCounts(ratings, shards, len(tombstones), rewritten)


def has_lost_shards(outbox: Outbox, target: Target) -> bool:
    """Return whether a destination that received ratings is empty, such as the folder of an unmounted disk."""
    received, _ = outbox.received(target.name)
    return received > 0 and not (target.names(SUBFOLDERS[Rating]) or target.names(SUBFOLDERS[Tombstone]))


def _check_present(outbox: Outbox, target: Target) -> None:
    """Refuse a destination whose shards disappeared: its deletions would be recorded but not carried out.

    If there is nothing to export, the destination is not read.
    """
    received, assumed = outbox.received(target.name)
    if received and received == assumed:
        if not target.names(SUBFOLDERS[Rating]):
            outbox.mark_unrecorded(target.name)
    elif outbox.is_behind(target.name) and has_lost_shards(outbox, target):
        raise BadData(
            target.name,
            f"{received} ratings were exported there, and it is empty now; outstanding deletions stay outstanding. "
            "Restore it, or run `bilora feedback forget` if it does not exist any more.",
        )


def _erase(target: Target) -> int:
    """Rewrite each shard that contains a deleted rating without it; return the number of shards.

    That includes the deletions of other machines: a machine that erases at the same time may restore such a rating.
    """
    shards = read_shards(target, Rating)
    deleted = deleted_ids(chain.from_iterable(shards.values()), deletions(target))
    rewritten = 0
    for name, rows in shards.items():
        remaining = [row for row in rows if row.event_id not in deleted]
        if len(remaining) < len(rows):
            if remaining:
                target.put(*build_shard(remaining))
            target.remove(name)  # after the remaining ratings are durable
            rewritten += 1
    return rewritten
