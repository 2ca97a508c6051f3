"""The deleted and withdrawn ratings that this machine knows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bilora.feedback.compact import deletions
from bilora.feedback.outbox import Outbox
from bilora.feedback.shards import FolderTarget


@dataclass(frozen=True)
class Withdrawals:
    """The ids of deleted and withdrawn ratings, and the destinations whose deletions could not be read."""

    ratings: frozenset[str] = frozenset()
    unread: tuple[str, ...] = ()


def read_withdrawals(path: Path) -> Withdrawals:
    """Read the deletions of the outbox at `path` and of every folder that it was exported to.

    Raises:
        BadData: the outbox or a shard is damaged.
    """
    if not path.exists():
        return Withdrawals()
    with Outbox(path) as outbox:
        ratings = {tombstone.event_id for tombstone in outbox.tombstones()}
        names = [destination.name for destination in outbox.destinations()]
    unread = []
    for name in names:
        try:
            if Path(name).is_dir():
                ratings |= deletions(FolderTarget(Path(name)))
                continue
        except OSError:
            pass
        unread.append(name)
    return Withdrawals(frozenset(ratings), tuple(unread))
