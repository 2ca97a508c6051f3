"""What is printed of ratings that were deleted or withdrawn."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bilora.cli.destinations import display_name
from bilora.feedback.destination_names import UNRECORDED

if TYPE_CHECKING:
    from bilora.feedback.withdrawals import Withdrawals
    from bilora.tracking.runs import TrainedOnWithdrawn


def unread_sentence(withdrawals: Withdrawals, *, but: str = "") -> str:
    """Return a sentence that names the destinations whose deletions could not be read, `but` excluded, or nothing."""
    names = [display_name(name) for name in withdrawals.unread if name not in (but, UNRECORDED)]
    return f"  deletions that only {' or '.join(names)} knows were not applied" if names else ""


def print_unread(withdrawals: Withdrawals, *, but: str = "") -> None:
    """Print that sentence, if there is one."""
    if sentence := unread_sentence(withdrawals, but=but):
        print(sentence)


def withdrawn_sentence(found: TrainedOnWithdrawn) -> str:
    """Say of an adapter that it was trained on ratings since withdrawn."""
    name = f"{found.task} adapter {found.adapter_sha256[:12]} (run {found.run})"
    if not found.ratings:
        return f"{name} was trained on ratings before their ids were recorded; it may have read one since withdrawn."
    noun = "rating" if len(found.ratings) == 1 else "ratings"
    return f"{name} was trained on {len(found.ratings)} {noun} since withdrawn: {', '.join(found.ratings)}."
