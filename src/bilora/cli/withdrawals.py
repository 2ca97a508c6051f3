"""Which ratings were deleted or withdrawn, by all that is known here, and which adapters were trained on them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bilora.cli.destinations import shown
from bilora.feedback.places import UNRECORDED

if TYPE_CHECKING:
    from bilora.tracking.runs import TrainedOnWithdrawn


@dataclass(frozen=True)
class Withdrawals:
    """The ids of deleted and withdrawn ratings, and the destinations whose deletions could not be read here."""

    ratings: frozenset[str] = frozenset()
    unread: tuple[str, ...] = ()

    def print_unread(self, *, but: str = "") -> None:
        """Say of which destinations the deletions were not applied; those of `but` were."""
        if names := [shown(name) for name in self.unread if name not in (but, UNRECORDED)]:
            print(f"  deletions that only {' or '.join(names)} knows were not applied")


def withdrawals() -> Withdrawals:
    """Read the deletions of the outbox, and those in every folder that it was exported to.

    Raises:
        BadData: the outbox or a shard of deletions is damaged.
    """
    from pathlib import Path

    from bilora.cli import wiring
    from bilora.feedback.compact import deletions
    from bilora.feedback.outbox import Outbox
    from bilora.feedback.shards import FolderTarget

    if not wiring.OUTBOX.exists():
        return Withdrawals()
    with Outbox(wiring.OUTBOX) as outbox:
        ratings = {stone.event_id for stone in outbox.tombstones()}
        names = [one.name for one in outbox.destinations()]
    unread = []
    for name in names:
        try:
            if Path(name).is_dir():
                ratings |= deletions(FolderTarget(Path(name)))
                continue
        except OSError:  # it may not be read
            pass
        unread.append(name)
    return Withdrawals(frozenset(ratings), tuple(unread))


def trained_on(ratings: frozenset[str]) -> list[TrainedOnWithdrawn]:
    """Return the adapters whose training read a rating that was withdrawn since, as the run records say."""
    from bilora.cli import wiring
    from bilora.tracking.runs import trained_on_withdrawn

    return trained_on_withdrawn(wiring.RUNS, ratings)


def sentence(found: TrainedOnWithdrawn) -> str:
    """Say of an adapter that it was trained on ratings since withdrawn."""
    name = f"{found.task} adapter {found.adapter_sha256[:12]} (run {found.run})"
    if not found.ratings:
        return f"{name} was trained on ratings before their ids were recorded; it may have read one since withdrawn."
    noun = "rating" if len(found.ratings) == 1 else "ratings"
    return f"{name} was trained on {len(found.ratings)} {noun} since withdrawn: {', '.join(found.ratings)}."
