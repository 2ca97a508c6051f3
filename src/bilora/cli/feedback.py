"""The verbs of feedback, and the documented entry point scripts/fetch_feedback.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bilora.cli.destinations import display_name, export_command, forget_command, target
from bilora.feedback.destination_names import HUB_DATASETS, UNRECORDED

if TYPE_CHECKING:
    from bilora.feedback.deliveries import Destination
    from bilora.feedback.outbox import Outbox
    from bilora.tasks.task import Task
    from bilora.workspace import Workspace

app = typer.Typer(help="What users said of the answers: ratings, on their way to training.", no_args_is_help=True)

MAX_NAMED_EVENTS = 3
"""How many event ids a line names."""
WHERE = f"Folder of shards, or {HUB_DATASETS}OWNER/NAME on the hub. [default: data/feedback/shards]"
ToOption = Annotated[str | None, typer.Option("--to", help=WHERE)]
FromOption = Annotated[str | None, typer.Option("--from", help=WHERE)]
DestinationName = Annotated[
    str, typer.Argument(help="A destination, as `bilora feedback status` names it.", show_default=False)
]
EventName = Annotated[str, typer.Argument(help="The event id of a rating.", show_default=False)]


@app.command("status")
def feedback_status() -> None:
    """Count the ratings of this machine, per destination too, and name the adapters trained on withdrawn ones."""
    from bilora.cli.withdrawals import withdrawn_sentence
    from bilora.feedback.outbox import Outbox
    from bilora.feedback.withdrawals import read_withdrawals
    from bilora.tracking.runs import trained_on_withdrawn
    from bilora.workspace import Workspace

    workspace = Workspace(Path())
    if not workspace.outbox.exists():
        print("feedback status: nothing was rated here yet")
        return
    with Outbox(workspace.outbox) as outbox:
        counts, unknown = outbox.counts(), outbox.unknown_deletions()
        print(
            f"feedback status: {counts['standing']} ratings: {counts['exported']} exported, "
            f"{counts['waiting']} waiting, {counts['private']} kept here for want of consent"
        )
        print(
            f"  {counts['superseded']} earlier versions, {counts['deleted']} deleted or withdrawn, "
            f"{counts['deletions_waiting']} of them not erased everywhere"
        )
        for one in outbox.destinations():
            _print_destination(outbox, one)
    if unknown:
        print(
            f"  {unknown} deletions are of ratings that this outbox does not know (its disk was wiped, or they are "
            "older than its record of destinations): export once to every place that may hold them."
        )
    found = read_withdrawals(workspace.outbox)
    for name in found.unread:
        if not name.startswith(HUB_DATASETS) and name != UNRECORDED:
            print(
                f"  the deletions in {display_name(name)} could not be read: it is gone, or this user may not read it."
            )
    for adapter in trained_on_withdrawn(workspace.runs, found.ratings):
        print(f"  {withdrawn_sentence(adapter)}")


def _print_destination(outbox: Outbox, one: Destination) -> None:
    from bilora.feedback.export import lost
    from bilora.feedback.shards import FolderTarget
    from bilora.system_errors import describe_os_error

    outstanding = f"{len(one.outstanding)} erasures outstanding"
    if one.name == UNRECORDED:
        print(f"  a place that was not recorded: {one.delivered} delivered by an earlier version, {outstanding}")
        print(
            f"    `{export_command('PLACE')}` updates it where you know it; `{forget_command(UNRECORDED)}` ends this."
        )
        return
    print(f"  {display_name(one.name)}: {one.delivered} delivered, {one.waiting} waiting, {outstanding}")
    if one.assumed:
        print(
            f"    {one.assumed} were exported before destinations were recorded; that they went here is assumed. "
            f"If another place may hold them, export to it once: `{export_command('PLACE')}`."
        )
    try:
        is_lost = not one.name.startswith(HUB_DATASETS) and lost(outbox, FolderTarget(Path(one.name)))
    except OSError as error:
        print(f"    it {describe_os_error(error)}")
        return
    if is_lost:
        print(f"    it is not there now: bring it back, or `{forget_command(one.name)}` if it is gone for good.")
    elif one.outstanding:
        events = f"{', '.join(one.outstanding[:MAX_NAMED_EVENTS])}{_more(one.outstanding)}"
        print(f"    `{export_command(one.name)}` erases {events}")


def _more(events: Sequence[str]) -> str:
    return f" and {len(events) - MAX_NAMED_EVENTS} more" if len(events) > MAX_NAMED_EVENTS else ""


@app.command("export")
def export_ratings(to: ToOption = None) -> None:
    """Bring one destination up to date: erase what was deleted, and write what it did not get, scrubbed."""
    from bilora.feedback.export import export as run
    from bilora.feedback.outbox import Outbox
    from bilora.workspace import Workspace

    workspace = Workspace(Path())
    place = to or str(workspace.shards)
    chosen = target(place)
    with Outbox(workspace.outbox) as outbox:
        done = run(outbox, chosen)
        elsewhere = [one for one in outbox.destinations() if one.outstanding]
    print(f"feedback export: {done.ratings} ratings in {done.shards} new shards of {place}")
    if done.deletions:
        print(f"  {done.deletions} deletions; {done.rewritten} shards rewritten without them")
    for one in elsewhere:
        print(f"  {len(one.outstanding)} erasures are still outstanding in {_with_command(one.name)}")


@app.command("delete")
def delete_rating(event: EventName) -> None:
    """Delete a rating with its earlier versions here, and say where it still has to be erased."""
    from bilora.feedback.outbox import Outbox
    from bilora.workspace import Workspace

    with Outbox(Workspace(Path()).outbox) as outbox:
        here = outbox.delete(event, created_utc=_now())
        holders, known = outbox.holders(event), [one.name for one in outbox.destinations()]
    print(f"feedback delete: {'done' if here else 'not in this outbox, but noted'}.")
    for name in holders:
        print(f"  {'it is' if here else 'it may be'} still in {_with_command(name)}")
    if not here and not known:
        print(f"  export to every place that may hold it: `{export_command('PLACE')}`")
    if not holders and (here or known):
        print("  no destination holds it")
    print("  `bilora feedback pairs` writes the training pairs without it")


def _with_command(name: str) -> str:
    if name == UNRECORDED:
        return f"a place that was not recorded: `{export_command('PLACE')}`, or `{forget_command(name)}`"
    return f"{display_name(name)}: `{export_command(name)}`"


@app.command("forget")
def forget_destination(place: DestinationName) -> None:
    """Give up a destination that is gone for good with all it held: nothing is outstanding there any more."""
    from bilora.errors import BadData
    from bilora.feedback.outbox import Outbox
    from bilora.workspace import Workspace

    name = place if place == UNRECORDED else target(place).name
    with Outbox(Workspace(Path()).outbox) as outbox:
        if not outbox.forget(name):
            raise BadData(place, "nothing was exported there; `bilora feedback status` names the destinations.")
    print(f"feedback forget: {place} is no destination any more; an export to it would start from nothing")


@app.command("pairs")
def write_pairs(source: FromOption = None) -> None:
    """Read shards and write data/feedback/all_feedback.json and training_pairs.json."""
    from bilora.cli.withdrawals import print_unread
    from bilora.errors import BadData
    from bilora.feedback.compact import compact
    from bilora.feedback.pairs import training_pairs
    from bilora.feedback.withdrawals import read_withdrawals
    from bilora.storage import write_json
    from bilora.training_pairs import RatedPairs
    from bilora.workspace import Workspace

    workspace = Workspace(Path())
    place = source or str(workspace.shards)
    chosen = target(place)
    if not place.startswith(HUB_DATASETS) and not Path(place).is_dir():
        raise BadData(place, f"there are no shards; `{export_command(place)}` writes them.")
    found = read_withdrawals(workspace.outbox)
    read = compact(chosen, deleted=found.ratings)
    tasks = workspace.tasks
    rated = {name: task for name, task in tasks.items() if any(rating.task == name for rating in read.ratings)}
    made = training_pairs(
        read.ratings, tasks, adapters=_known_adapters(workspace), held_out=_held_out(workspace, rated)
    )
    reasons = {"refused": made.refused, "thumbs": made.thumbs, "edits": made.edits}
    written = RatedPairs(left_out=reasons, sft=made.sft, dpo=made.dpo, kto=made.kto)
    write_json(
        workspace.all_feedback,
        {"counts": read.counts, "ratings": [rating.model_dump(mode="json") for rating in read.ratings]},
    )
    write_json(workspace.rated_pairs, written.model_dump(mode="json"))
    _report(read.counts, {"sft": len(made.sft), "dpo": len(made.dpo), "kto": len(made.kto)}, reasons)
    print(f"  in {workspace.all_feedback} and {workspace.rated_pairs.name}")
    print_unread(found, but=chosen.name)


def _report(counts: Mapping[str, int], rows: Mapping[str, int], reasons: Mapping[str, Mapping[str, int]]) -> None:
    resolved = ", ".join(f"{counts[name]} {name}" for name in ("deleted", "repeated", "superseded"))
    print(f"feedback pairs: {counts['ratings']} ratings ({resolved} of {counts['rows']} rows)")
    print("  " + ", ".join(f"{count} {kind.upper()}" for kind, count in rows.items()))
    for kind, label in (("refused", "ratings left out"), ("thumbs", "thumbs left out"), ("edits", "edits left out")):
        for reason, count in reasons[kind].items():
            print(f"  {count:6} {label}: {reason}")


def _known_adapters(workspace: Workspace) -> set[str]:
    """Return every adapter that was trained here, and those that are here now."""
    from bilora.storage import ADAPTER_FILES, adapter_sha256, read_json

    trained = {read_json(path)["adapter_sha256"] for path in workspace.runs.glob("*/run.json")}
    folders = [workspace.adapter(name) for name in workspace.params.tasks]
    whole = [folder for folder in folders if all((folder / name).is_file() for name in ADAPTER_FILES)]
    return trained.union(map(adapter_sha256, whole))


def _held_out(workspace: Workspace, tasks: Mapping[str, Task]) -> set[str]:
    """Return the hashes of the questions that measure: validation, test, curated and guards."""
    from bilora.feedback.pairs import prompt_hash

    found: set[str] = set()
    for name, task in tasks.items():
        samples = [
            *workspace.split_samples(name, "validation"),
            *workspace.split_samples(name, "test"),
            *workspace.curated_samples(task),
            *(sample for questions in workspace.guard_samples(task).values() for sample in questions),
        ]
        found.update(prompt_hash(sample.prompt) for sample in samples)
    return found


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def main() -> int:
    """Entry point of `python scripts/fetch_feedback.py`."""
    from bilora.cli import guarded

    entry = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    entry.command()(write_pairs)
    return guarded(entry)
