"""Messages about deleted and withdrawn ratings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bilora.cli.destinations import display_name
from bilora.feedback.destination_names import UNRECORDED

if TYPE_CHECKING:
    from bilora.feedback.withdrawals import Withdrawals
    from bilora.tracking.runs import TrainedOnWithdrawn


def unread_sentence(withdrawals: Withdrawals, *, but: str = "") -> str:
    """Return which destinations' deletions could not be read, except for `but`; empty if there are none."""
    names = [display_name(name) for name in withdrawals.unread if name not in (but, UNRECORDED)]
    return f"  deletions recorded only in {' or '.join(names)} were not applied" if names else ""


def print_unread(withdrawals: Withdrawals, *, but: str = "") -> None:
    """Print `unread_sentence`, if there is one."""
    if sentence := unread_sentence(withdrawals, but=but):
        print(sentence)


def withdrawn_sentence(adapter: TrainedOnWithdrawn) -> str:
    """Return the warning that an adapter was trained on ratings withdrawn since."""
    name = f"{adapter.task} adapter {adapter.adapter_sha256[:12]} (run {adapter.run})"
    if not adapter.ratings:
        return f"{name} was trained on ratings before their ids were recorded; it may have read one since withdrawn."
    noun = "rating" if len(adapter.ratings) == 1 else "ratings"
    return f"{name} was trained on {len(adapter.ratings)} {noun} since withdrawn: {', '.join(adapter.ratings)}."
