"""The commands feedback …, and the entry point scripts/fetch_feedback.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bilora.cli.destinations import display_name, export_command, forget_command, open_target
from bilora.feedback.destination_names import HUB_DATASETS, UNRECORDED

if TYPE_CHECKING:
    from bilora.feedback.deliveries import Destination
    from bilora.feedback.outbox import Outbox
    from bilora.tasks.task import Task
    from bilora.workspace import Workspace

app = typer.Typer(help="Export users' ratings and turn them into training rows.", no_args_is_help=True)

MAX_LISTED_EVENTS = 3
"""The maximum of event ids on a line."""
WHERE = f"Folder of shards, or {HUB_DATASETS}OWNER/NAME on the hub. [default: data/feedback/shards]"
ToOption = Annotated[str | None, typer.Option("--to", help=WHERE)]
FromOption = Annotated[str | None, typer.Option("--from", help=WHERE)]
DestinationName = Annotated[
    str, typer.Argument(help="A destination as `bilora feedback status` prints it.", show_default=False)
]
EventName = Annotated[str, typer.Argument(help="The event id of a rating.", show_default=False)]


@app.command("status")
def feedback_status() -> None:
    """Count the ratings on this machine, per destination too, and list the adapters trained on withdrawn ones."""
    from bilora.cli.withdrawals import withdrawn_sentence
    from bilora.feedback.outbox import Outbox
    from bilora.feedback.withdrawals import read_withdrawals
    from bilora.tracking.runs import trained_on_withdrawn
    from bilora.workspace import Workspace

    workspace = Workspace(Path())
    if not workspace.outbox.exists():
        print("feedback status: there are no ratings yet")
        return
    with Outbox(workspace.outbox) as outbox:
        counts, unknown = outbox.counts(), outbox.unknown_deletions()
        print(
            f"feedback status: {counts['valid']} ratings: {counts['exported']} exported, "
            f"{counts['waiting']} waiting, {counts['private']} without consent to export"
        )
        print(
            f"  {counts['superseded']} earlier versions, {counts['deleted']} deleted or withdrawn, "
            f"{counts['deletions_waiting']} of them not erased everywhere"
        )
        for destination in outbox.destinations():
            _print_destination(outbox, destination)
    if unknown:
        print(
            f"  {unknown} deletions are of ratings that this outbox does not know (its disk was wiped, or they are "
            "older than its record of destinations): export once to every destination that may have them."
        )
    withdrawals = read_withdrawals(workspace.outbox)
    for name in withdrawals.unread:
        if not name.startswith(HUB_DATASETS) and name != UNRECORDED:
            print(
                f"  the deletions in {display_name(name)} cannot be read: "
                "it does not exist, or this user cannot access it."
            )
    for adapter in trained_on_withdrawn(workspace.runs, withdrawals.ratings):
        print(f"  {withdrawn_sentence(adapter)}")


def _print_destination(outbox: Outbox, destination: Destination) -> None:
    from bilora.feedback.export import has_lost_shards
    from bilora.feedback.shards import FolderTarget
    from bilora.system_errors import describe_os_error

    name, outstanding = destination.name, f"{len(destination.outstanding)} erasures outstanding"
    if name == UNRECORDED:
        print(f"  an unknown destination: {destination.delivered} delivered by an earlier version, {outstanding}")
        print(
            f"    If you know it, `{export_command('DESTINATION')}` updates it; "
            f"`{forget_command(UNRECORDED)}` removes this entry."
        )
        return
    print(f"  {display_name(name)}: {destination.delivered} delivered, {destination.waiting} waiting, {outstanding}")
    if destination.assumed:
        print(
            f"    {destination.assumed} were exported before destinations were recorded, and are assumed to be here. "
            f"If they may be at another destination, export to it once: `{export_command('DESTINATION')}`."
        )
    try:
        is_lost = not name.startswith(HUB_DATASETS) and has_lost_shards(outbox, FolderTarget(Path(name)))
    except OSError as error:
        print(f"    it {describe_os_error(error)}")
        return
    if is_lost:
        print(f"    it is empty now: restore it, or run `{forget_command(name)}` if it does not exist any more.")
    elif destination.outstanding:
        print(f"    `{export_command(name)}` erases {_event_list(destination.outstanding)}")


def _event_list(events: Sequence[str]) -> str:
    hidden = len(events) - MAX_LISTED_EVENTS
    return ", ".join(events[:MAX_LISTED_EVENTS]) + (f" and {hidden} more" if hidden > 0 else "")


@app.command("export")
def export_ratings(to: ToOption = None) -> None:
    """Update one destination: erase deleted ratings there, and write new ones, redacted."""
    from bilora.feedback.export import export as run
    from bilora.feedback.outbox import Outbox
    from bilora.workspace import Workspace

    workspace = Workspace(Path())
    destination = to or str(workspace.shards)
    target = open_target(destination)
    with Outbox(workspace.outbox) as outbox:
        counts = run(outbox, target)
        incomplete = [other for other in outbox.destinations() if other.outstanding]
    print(f"feedback export: {counts.ratings} ratings in {counts.shards} new shards of {destination}")
    if counts.deletions:
        print(f"  {counts.deletions} deletions; {counts.rewritten} shards rewritten without them")
    for other in incomplete:
        print(f"  {len(other.outstanding)} erasures are still outstanding in {_with_command(other.name)}")


@app.command("delete")
def delete_rating(event: EventName) -> None:
    """Delete a rating with its earlier versions here, and list the destinations where it must still be erased."""
    from bilora.feedback.outbox import Outbox
    from bilora.workspace import Workspace

    with Outbox(Workspace(Path()).outbox) as outbox:
        is_known = outbox.delete(event, created_utc=_now())
        holders, has_destinations = outbox.holders(event), bool(outbox.destinations())
    print(f"feedback delete: {'done' if is_known else 'not in this outbox; the deletion is recorded'}.")
    for name in holders:
        print(f"  {'it is' if is_known else 'it may be'} still in {_with_command(name)}")
    if not is_known and not has_destinations:
        print(f"  export to every destination that may have it: `{export_command('DESTINATION')}`")
    if not holders and (is_known or has_destinations):
        print("  no destination has it")
    print("  `bilora feedback pairs` writes the training pairs without it")


def _with_command(name: str) -> str:
    if name == UNRECORDED:
        return f"an unknown destination: `{export_command('DESTINATION')}`, or `{forget_command(name)}`"
    return f"{display_name(name)}: `{export_command(name)}`"


@app.command("forget")
def forget_destination(destination: DestinationName) -> None:
    """Remove the record of a destination that does not exist any more, with its outstanding erasures."""
    from bilora.errors import BadData
    from bilora.feedback.outbox import Outbox
    from bilora.workspace import Workspace

    name = destination if destination == UNRECORDED else open_target(destination).name
    with Outbox(Workspace(Path()).outbox) as outbox:
        if not outbox.forget(name):
            raise BadData(destination, "nothing was exported there; `bilora feedback status` lists the destinations.")
    print(f"feedback forget: {destination} is not a destination any more; the next export to it writes all ratings")


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
    location = source or str(workspace.shards)
    target = open_target(location)
    if not location.startswith(HUB_DATASETS) and not Path(location).is_dir():
        raise BadData(location, f"there are no shards; `{export_command(location)}` writes them.")

    # 1) read the valid ratings
    withdrawals = read_withdrawals(workspace.outbox)
    compacted = compact(target, deleted=withdrawals.ratings)

    # 2) turn them into training rows, without held-out questions
    ratings, tasks = compacted.ratings, workspace.tasks
    rated = {name: task for name, task in tasks.items() if any(rating.task == name for rating in ratings)}
    pairs = training_pairs(ratings, tasks, adapters=_known_adapters(workspace), held_out=_held_out(workspace, rated))

    # 3) write both and print the counts
    reasons = {"refused": pairs.refused, "thumbs": pairs.thumbs, "edits": pairs.edits}
    rated_pairs = RatedPairs(left_out=reasons, sft=pairs.sft, dpo=pairs.dpo, kto=pairs.kto)
    write_json(
        workspace.all_feedback,
        {"counts": compacted.counts, "ratings": [rating.model_dump(mode="json") for rating in ratings]},
    )
    write_json(workspace.rated_pairs, rated_pairs.model_dump(mode="json"))
    _print_counts(compacted.counts, {"sft": len(pairs.sft), "dpo": len(pairs.dpo), "kto": len(pairs.kto)}, reasons)
    print(f"  in {workspace.all_feedback} and {workspace.rated_pairs.name}")
    print_unread(withdrawals, but=target.name)


def _print_counts(counts: Mapping[str, int], rows: Mapping[str, int], reasons: Mapping[str, Mapping[str, int]]) -> None:
    dropped = ", ".join(f"{counts[name]} {name}" for name in ("deleted", "repeated", "superseded"))
    print(f"feedback pairs: {counts['ratings']} ratings ({dropped} of {counts['rows']} rows)")
    print("  " + ", ".join(f"{count} {kind.upper()}" for kind, count in rows.items()))
    for kind, label in (("refused", "ratings skipped"), ("thumbs", "thumbs skipped"), ("edits", "edits skipped")):
        for reason, count in reasons[kind].items():
            print(f"  {count:6} {label}: {reason}")


def _known_adapters(workspace: Workspace) -> set[str]:
    """Return the digests of all adapters that were trained here, and of those in adapters/."""
    from bilora.storage import ADAPTER_FILES, adapter_sha256, read_json

    trained = {read_json(path)["adapter_sha256"] for path in workspace.runs.glob("*/run.json")}
    folders = [workspace.adapter(name) for name in workspace.params.tasks]
    complete = [folder for folder in folders if all((folder / name).is_file() for name in ADAPTER_FILES)]
    return trained.union(map(adapter_sha256, complete))


def _held_out(workspace: Workspace, tasks: Mapping[str, Task]) -> set[str]:
    """Return the prompt hashes of all held-out questions: validation, test, curated and guards."""
    from bilora.feedback.pairs import prompt_hash

    hashes: set[str] = set()
    for name, task in tasks.items():
        samples = [
            *workspace.split_samples(name, "validation"),
            *workspace.split_samples(name, "test"),
            *workspace.curated_samples(task),
            *(sample for questions in workspace.guard_samples(task).values() for sample in questions),
        ]
        hashes.update(prompt_hash(sample.prompt) for sample in samples)
    return hashes


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def main() -> int:
    """Entry point of `python scripts/fetch_feedback.py`."""
    from bilora.cli import run_command

    entry = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    entry.command()(write_pairs)
    return run_command(entry)
