"""A rating withdrawn after the split or training is skipped, and its adapters are reported."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from support.checkouts import change_task, shell_in

from bilora.cli import app, run_command
from bilora.cli.push_adapters import warn_of_withdrawn
from bilora.feedback.events import new_event_id
from bilora.feedback.outbox import Outbox
from bilora.feedback.shards import FolderTarget, build_shard
from bilora.layout import Layout
from bilora.records import Rating, RunRecord, Tombstone
from bilora.storage import ADAPTER_FILES, adapter_sha256, read_json, write_json
from bilora.workspace import Workspace

HERE = Layout(Path())
OUTBOX = HERE.outbox
RUNS = HERE.runs

NOW = "2026-02-01T09:00:00+00:00"


def rating(number: int, **rest: Any) -> Rating:
    fields: dict[str, Any] = {
        "event_id": new_event_id(1_770_000_000_000 + number), "generation_id": f"g{number}", "session": f"s{number}",
        "task": "codegen", "prompt": f"Add {number}, please.", "completion": f"return {number}",
        "adapter_sha256": "a" * 64, "base_revision": "b" * 40, "rating": "up", "consent": True,
        "app_version": "0.1.0", "created_utc": "2026-01-31T12:00:00+00:00",
    }  # fmt: skip
    return Rating(**(fields | rest))


def adapter(folder: Path, content: bytes) -> str:
    folder.mkdir(parents=True)
    for name in ADAPTER_FILES:
        (folder / name).write_bytes(content)
    return adapter_sha256(folder)


@pytest.fixture
def adapters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Three adapters by their sha256: one was trained on ratings, one was not, of one it is not known."""
    monkeypatch.chdir(tmp_path)
    adapters = {name: adapter(Path("adapters") / name, name.encode()) for name in ("rated", "plain", "old")}
    return adapters


def record(name: str, sha256: str, **rest: Any) -> None:
    write_json(RUNS / f"run-{name}" / "run.json", {"task": name, "adapter_sha256": sha256, "metrics": {}} | rest)


@pytest.mark.parametrize("where", ["the outbox", "a place that another machine deleted in"])
def test_status_and_push_name_the_adapters_trained_on_a_rating_since_withdrawn(
    adapters: dict[str, str], capsys: pytest.CaptureFixture[str], where: str
) -> None:
    first, second = rating(1), rating(2)
    record("rated", adapters["rated"], ratings=[first.event_id, second.event_id], metrics={"feedback_rows": 2.0})
    record("plain", adapters["plain"], ratings=[])
    record("old", adapters["old"], metrics={"preference_rows": 3.0})
    record("older", "f" * 64, metrics={"loss": 1.0})
    with Outbox(OUTBOX) as outbox:
        outbox.add(first)
        outbox.add(second)
    folders = {name: Path("adapters") / name for name in adapters}

    def message() -> tuple[str, str]:
        assert run_command(app, ["feedback", "export", "--to", "team"]) == 0
        capsys.readouterr()
        assert run_command(app, ["feedback", "status"]) == 0
        status = capsys.readouterr().out
        warn_of_withdrawn(Workspace(Path()), folders)
        return status, capsys.readouterr().err

    status, warned = message()
    assert "trained on" not in status and warned == ""
    if where == "the outbox":
        with Outbox(OUTBOX) as outbox:
            outbox.delete(second.event_id, created_utc=NOW)
    else:
        FolderTarget(Path("team")).put(*build_shard([Tombstone(event_id=second.event_id, created_utc=NOW)]))
    status, warned = message()
    for text in (status, warned):
        assert f"rated adapter {adapters['rated'][:12]} (run run-rated)" in text
        assert f"was trained on 1 rating since withdrawn: {second.event_id}." in text
        assert f"old adapter {adapters['old'][:12]}" in text and "before their ids were recorded" in text
        assert "plain" not in text and "older" not in text and first.event_id not in text
    assert len(warned.splitlines()) == 2
    warn_of_withdrawn(Workspace(Path()), {"plain": folders["plain"]})
    assert capsys.readouterr().err == ""


def test_a_run_record_without_the_field_is_read(adapted: Path) -> None:
    fields: dict[str, Any] = {
        "id": "r", "task": "codegen", "created_utc": NOW, "commit": "c", "dirty_diff_sha256": "", "params": {},
        "params_sha256": "", "data_sha256": "", "lock_sha256": "", "base_id": "b", "base_revision": "",
        "adapter_sha256": "a" * 64, "seed": 1, "hardware": {}, "versions": {}, "duration_s": 1.0, "tokens": 1,
        "tokens_per_s": 1.0, "peak_memory_bytes": 1, "metrics": {},
    }  # fmt: skip
    assert RunRecord.model_validate(fields).ratings is None


@pytest.mark.slow
def test_a_rating_withdrawn_after_the_split_is_not_trained_on(measured: Path, tmp_path: Path) -> None:
    folder = tmp_path / "checkout"
    shutil.copytree(measured, folder, symlinks=True)
    run = shell_in(folder)

    def on(task: Any) -> None:
        task["split"] |= {"feedback": "mix", "preference": "kto"}
        kto = {"kind": "kto", "learning_rate": 1e-3, "steps": 2, "batch_size": 2, "min_rows": 2}
        task["training"]["phases"].append(kto)

    change_task(folder, "codegen", on)
    sha256 = adapter_sha256(folder / "adapters" / "codegen")
    ratings = [
        rating(1, rating="down", edited="def one():\n    return 1"),
        rating(2),
        rating(3, rating="down", edited="def three():\n    return 3"),
        rating(4),
    ]
    ratings = [each.model_copy(update={"adapter_sha256": sha256}) for each in ratings]
    with Outbox(folder / OUTBOX) as outbox:
        for each in ratings:
            outbox.add(each)
    for place in ("team", "data/feedback/shards"):
        run("bilora", "feedback", "export", "--to", place)
    run("bilora", "feedback", "pairs")

    def trained() -> tuple[str, list[str]]:
        for old in (folder / "runs").glob("*"):
            shutil.rmtree(old)
        message = run("bilora", "train", "codegen").stdout
        (path,) = (folder / "runs").glob("*/run.json")
        return message, read_json(path)["ratings"]

    run("bilora", "data-split", "codegen")
    message, read = trained()
    assert "rows excluded, whose" not in message and read == [each.event_id for each in ratings]
    assert "trained on" not in run("bilora", "feedback", "status").stdout

    withdrawn = ratings[2].event_id
    run("bilora", "feedback", "delete", withdrawn)
    assert f"since withdrawn: {withdrawn}." in run("bilora", "feedback", "status").stdout
    message, read = trained()  # the split still holds its rows
    assert "2 rows excluded, whose ratings were deleted or withdrawn" in message
    assert read == [each.event_id for each in ratings if each.event_id != withdrawn]
    assert "trained on" not in run("bilora", "feedback", "status").stdout
    assert "2 skipped: rating deleted or withdrawn" in run("bilora", "data-split", "codegen").stdout
    rows = [path.read_text() for path in (folder / "data" / "splits" / "codegen").glob("*.jsonl")]
    assert withdrawn not in "".join(rows) and "def three" not in "".join(rows)
    message, again = trained()
    assert "rows excluded, whose" not in message and again == read
