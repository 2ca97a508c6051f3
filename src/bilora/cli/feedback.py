"""The verbs of feedback, and the documented door scripts/fetch_feedback.py."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from bilora.feedback.shards import Target
    from bilora.params import Params
    from bilora.tasks.task import Task

app = typer.Typer(help="What users said of the answers: ratings, on their way to training.", no_args_is_help=True)

DATASET = "hf://datasets/"
WHERE = f"Folder of shards, or {DATASET}OWNER/NAME on the hub. [default: data/feedback/shards]"
To = Annotated[str | None, typer.Option("--to", help=WHERE)]
From = Annotated[str | None, typer.Option("--from", help=WHERE)]
EventName = Annotated[str, typer.Argument(help="The event id of a rating.", show_default=False)]


@app.command("status")
def status() -> None:
    """Count the ratings of this machine."""
    from bilora.cli import wiring
    from bilora.feedback.outbox import Outbox

    if not wiring.OUTBOX.exists():
        print("feedback status: nothing was rated here yet")
        return
    with Outbox(wiring.OUTBOX) as outbox:
        counts = outbox.counts()
    print(
        f"feedback status: {counts['standing']} ratings: {counts['exported']} exported, {counts['waiting']} waiting, "
        f"{counts['private']} kept here for want of consent"
    )
    print(
        f"  {counts['superseded']} earlier versions, {counts['deleted']} deleted, "
        f"{counts['deletions_waiting']} deletions waiting for export"
    )


@app.command("export")
def export(to: To = None) -> None:
    """Write the ratings that wait, scrubbed and only with consent, to shards; and erase what was deleted."""
    from bilora.cli import wiring
    from bilora.feedback.export import export as run
    from bilora.feedback.outbox import Outbox

    place = to or str(wiring.SHARDS)
    with Outbox(wiring.OUTBOX) as outbox:
        done = run(outbox, _target(place))
    print(f"feedback export: {done.ratings} ratings in {done.shards} new shards of {place}")
    if done.deletions:
        print(f"  {done.deletions} deletions; {done.rewritten} shards rewritten without them")


@app.command("delete")
def delete(event: EventName) -> None:
    """Delete a rating, with its earlier versions, here and at the next export in the shards."""
    from bilora.cli import wiring
    from bilora.feedback.outbox import Outbox

    with Outbox(wiring.OUTBOX) as outbox:
        here = outbox.delete(event, created_utc=_now())
    print(f"feedback delete: {'done' if here else 'not in this outbox, but noted'}.")
    print("  `bilora feedback export` erases it from the shards, `bilora feedback pairs` from the training pairs.")


@app.command("pairs")
def pairs(source: From = None) -> None:
    """Read shards and write data/feedback/all_feedback.json and training_pairs.json."""
    from bilora.cli import wiring
    from bilora.errors import BadData
    from bilora.feedback.compact import compact
    from bilora.feedback.pairs import training_pairs
    from bilora.records import RatedPairs
    from bilora.storage import write_json
    from bilora.tasks import load_task

    place = source or str(wiring.SHARDS)
    if not place.startswith(DATASET) and not Path(place).is_dir():
        raise BadData(place, "there are no shards; `bilora feedback export` writes them.")
    params = wiring.load_params()
    read = compact(_target(place))
    tasks = {name: load_task(name) for name in params.tasks}
    asked = {name: task for name, task in tasks.items() if any(rating.task == name for rating in read.ratings)}
    made = training_pairs(read.ratings, tasks, adapters=_known_adapters(params), held_out=_held_out(params, asked))
    reasons = {"refused": made.refused, "thumbs": made.thumbs, "edits": made.edits}
    written = RatedPairs(left_out=reasons, sft=made.sft, dpo=made.dpo, kto=made.kto)
    write_json(
        wiring.FEEDBACK / "all_feedback.json",
        {"counts": read.counts, "ratings": [rating.model_dump(mode="json") for rating in read.ratings]},
    )
    write_json(wiring.RATED_PAIRS, written.model_dump(mode="json"))
    _tell(read.counts, {"sft": len(made.sft), "dpo": len(made.dpo), "kto": len(made.kto)}, reasons)
    print(f"  in {wiring.FEEDBACK}/all_feedback.json and training_pairs.json")


def _target(place: str) -> Target:
    from bilora.cli import wiring
    from bilora.errors import BadData
    from bilora.feedback.hub_target import HubTarget
    from bilora.feedback.shards import FolderTarget

    if not place.startswith(DATASET):
        return FolderTarget(Path(place))
    from bilora.hub.client import connect
    from bilora.hub.repository import Repository

    name = place.removeprefix(DATASET)
    if name.count("/") != 1:
        raise BadData(place, f"a data set is named {DATASET}OWNER/NAME.")
    return HubTarget(Repository(connect(wiring.hub_token()), name, "dataset", private=True))


def _tell(counts: Mapping[str, int], rows: Mapping[str, int], reasons: Mapping[str, Mapping[str, int]]) -> None:
    resolved = ", ".join(f"{counts[name]} {name}" for name in ("deleted", "repeated", "superseded"))
    print(f"feedback pairs: {counts['ratings']} ratings ({resolved} of {counts['rows']} rows)")
    print("  " + ", ".join(f"{count} {kind.upper()}" for kind, count in rows.items()))
    for kind, label in (("refused", "ratings left out"), ("thumbs", "thumbs left out"), ("edits", "edits left out")):
        for reason, count in reasons[kind].items():
            print(f"  {count:6} {label}: {reason}")


def _known_adapters(params: Params) -> set[str]:
    """Every adapter that was trained here, and those that lie here now."""
    from bilora.cli import wiring
    from bilora.storage import ADAPTER_FILES, adapter_sha256, read_json

    trained = {read_json(path)["adapter_sha256"] for path in wiring.RUNS.glob("*/run.json")}
    folders = [wiring.ADAPTERS / name for name in params.tasks]
    whole = [folder for folder in folders if all((folder / name).is_file() for name in ADAPTER_FILES)]
    return trained.union(map(adapter_sha256, whole))


def _held_out(params: Params, tasks: Mapping[str, Task]) -> set[str]:
    """Hashes of the questions that measure: validation, test and curated."""
    from bilora.cli import wiring
    from bilora.feedback.pairs import prompt_hash

    found: set[str] = set()
    for name, task in tasks.items():
        samples = [*wiring.split(name, "validation"), *wiring.split(name, "test"), *wiring.curated(params, task)]
        found.update(prompt_hash(sample.prompt) for sample in samples)
    return found


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def main() -> int:
    """Door of `python scripts/fetch_feedback.py`."""
    from bilora.cli import guarded

    door = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    door.command()(pairs)
    return guarded(door)
