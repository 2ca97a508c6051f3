"""bilora feedback and scripts/fetch_feedback.py, from ratings to training rows."""

from __future__ import annotations

import errno
import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.checkouts import ROOT, environment_of
from support.old_outbox import outbox_of_version_1

from bilora.cli import app, run_command
from bilora.feedback.events import new_event_id
from bilora.feedback.outbox import Outbox
from bilora.feedback.shards import FolderTarget, build_shard
from bilora.layout import Layout
from bilora.records import Rating, Sample, Tombstone
from bilora.storage import write_json, write_records

HERE = Layout(Path())
FEEDBACK = HERE.feedback
OUTBOX = HERE.outbox
SHARDS = HERE.shards

ADAPTER = "a" * 64
HELD_OUT = "Write a function that measures."


def rating(number: int, **changes: Any) -> Rating:
    fields: dict[str, Any] = {
        "event_id": new_event_id(1_770_000_000_000 + number), "generation_id": f"g{number}", "session": "s",
        "task": "codegen", "prompt": f"Write function {number}.", "completion": "return 1",
        "adapter_sha256": ADAPTER, "base_revision": "b" * 40, "rating": "up", "consent": True,
        "app_version": "0.1.0", "created_utc": "2026-01-31T12:00:00+00:00",
    }  # fmt: skip
    return Rating(**(fields | changes))


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a workspace with params, held-out questions and the run record of an adapter."""
    monkeypatch.chdir(tmp_path)
    shutil.copyfile(ROOT / "profiles" / "smoke.yaml", "params.yaml")
    Path("benchmarking").mkdir()
    shutil.copyfile(ROOT / "benchmarking" / "eval_dataset.json", "benchmarking/eval_dataset.json")
    sample = Sample.create(task="codegen", prompt=HELD_OUT, target="x", source="s", group="g", licence="MIT")
    for split in ("validation", "test"):
        write_records(Path("data/splits/codegen") / f"{split}.jsonl", [sample])
    write_json(Path("runs/one/run.json"), {"adapter_sha256": ADAPTER})
    return tmp_path


@pytest.fixture
def run(checkout: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    def verb(*arguments: str, code: int = 0) -> str:
        assert run_command(app, ["feedback", *arguments]) == code
        output = capsys.readouterr()
        return output.err if code else output.out

    return verb


def store(*ratings: Rating) -> None:
    with Outbox(OUTBOX) as outbox:
        for item in ratings:
            assert outbox.add(item)


def test_status_counts_ratings_by_state(run: Callable[..., str]) -> None:
    assert "there are no ratings yet" in run("status")
    assert not OUTBOX.exists()
    store(rating(1), rating(2, consent=False))
    assert "2 ratings: 0 exported, 1 waiting, 1 without consent" in run("status")
    run("export")
    assert "1 exported, 0 waiting" in run("status")


def test_a_deletion_removes_the_text_from_every_file(run: Callable[..., str]) -> None:
    first, second = rating(1), rating(2)
    store(first, second)
    run("export")
    run("pairs")
    assert "done" in run("delete", first.event_id)
    assert "1 deletions; 1 shards rewritten" in run("export")
    run("pairs")
    everything = b"".join(path.read_bytes() for path in FEEDBACK.rglob("*") if path.is_file())
    assert b"function 1" not in everything and b"function 2" in everything


def test_a_deletion_names_every_destination_and_its_command(run: Callable[..., str], checkout: Path) -> None:
    first, second = rating(1), rating(2)
    store(first, second)
    run("export", "--to", "to the team")
    run("export")
    output = run("delete", first.event_id)
    assert "still in data/feedback/shards: `bilora feedback export --to data/feedback/shards`" in output
    assert "still in to the team: `bilora feedback export --to 'to the team'`" in output
    output = run("export")
    assert "1 erasures are still outstanding in to the team: `bilora feedback export --to 'to the team'`" in output
    output = run("status")
    assert "data/feedback/shards: 1 delivered, 0 waiting, 0 erasures outstanding" in output
    assert "to the team: 1 delivered, 0 waiting, 1 erasures outstanding" in output and first.event_id in output
    assert "1 deleted or withdrawn, 1 of them not erased everywhere" in output
    assert "outstanding" not in run("export", "--to", str(checkout / "to the team") + "/")
    assert "0 of them not erased everywhere" in run("status")


def test_a_third_destination_gets_what_is_valid(run: Callable[..., str]) -> None:
    first, second = rating(1), rating(2)
    store(first, second)
    for place in ("a", "b"):
        assert "2 ratings in 1 new shards" in run("export", "--to", place)
    run("delete", second.event_id)
    assert "1 ratings in 1 new shards of c" in run("export", "--to", "c")
    output = run("status")
    assert "  c: 1 delivered, 0 waiting, 0 erasures outstanding" in output
    assert output.count("1 erasures outstanding") == 2


@pytest.mark.parametrize("source", ["a", "b", "copy"])
def test_a_withdrawn_rating_gives_no_pair_from_any_destination(run: Callable[..., str], source: str) -> None:
    """Nothing was erased yet; `copy` is a folder that this outbox does not know."""
    first, second = rating(1), rating(2)
    store(first, second)
    run("export", "--to", "a")
    run("export", "--to", "b")
    shutil.copytree("a", "copy")
    store(rating(3, generation_id="g1", consent=False, supersedes=first.event_id))
    assert "1 ratings (1 deleted, 0 repeated, 0 superseded of 2 rows)" in run("pairs", "--from", source)
    assert first.event_id not in (FEEDBACK / "training_pairs.json").read_text()


def test_a_deletion_of_another_machine_in_one_destination_applies_to_the_others(run: Callable[..., str]) -> None:
    first, second = rating(1), rating(2)
    store(first, second)
    run("export", "--to", "a")
    run("export", "--to", "b")
    FolderTarget(Path("a")).put(*build_shard([Tombstone(event_id=first.event_id, created_utc="2026-02-01T09:00:00Z")]))
    assert "1 ratings (1 deleted" in run("pairs", "--from", "b")


def test_a_destination_that_vanished_is_reported_and_forgotten_only_on_request(run: Callable[..., str]) -> None:
    first = rating(1)
    store(first, rating(2))
    run("export", "--to", "team")
    run("export")
    shutil.rmtree("team")
    run("delete", first.event_id)
    assert "`bilora feedback forget`" in run("export", "--to", "team", code=2)
    assert not Path("team").exists()
    output = run("status")
    assert "1 erasures outstanding" in output and "it is empty now" in output
    assert "`bilora feedback forget team`" in output
    assert "deletions recorded only in team were not applied" in run("pairs")
    assert "is not a destination any more" in run("forget", "team")
    assert "team" not in run("status")
    assert "nothing was exported there" in run("forget", "team", code=2)


def test_status_of_an_outbox_of_version_1_says_what_is_assumed(run: Callable[..., str]) -> None:
    first, gone = rating(1), rating(2)
    outbox_of_version_1(OUTBOX, exported=[first], erased=[gone.event_id])
    FolderTarget(SHARDS).put(*build_shard([first]))
    output = run("status")
    assert "data/feedback/shards: 1 delivered, 0 waiting, 0 erasures outstanding" in output
    assert "1 were exported before destinations were recorded, and are assumed to be here" in output
    assert "1 deletions are of ratings that this outbox does not know" in output
    assert "1 ratings in 1 new shards of team" in run("export", "--to", "team")


def test_an_outbox_of_version_1_that_exported_elsewhere_has_an_unknown_destination(run: Callable[..., str]) -> None:
    first = rating(1)
    outbox_of_version_1(OUTBOX, exported=[first])
    FolderTarget(Path("team")).put(*build_shard([first]))
    assert "1 ratings in 1 new shards" in run("export")
    assert "an unknown destination: 1 delivered" in run("status")
    assert "an unknown destination: `bilora feedback export --to DESTINATION`" in run("delete", first.event_id)
    run("export", "--to", "team")
    assert "an unknown destination" in run("export")
    run("forget", "?")
    assert "0 of them not erased everywhere" in run("status")


@pytest.mark.parametrize("place", ["params.yaml", "params.yaml/team", "s3://bucket", "hf://datasets/owner", "hf://a/b"])
def test_an_invalid_destination_is_refused_in_one_sentence(run: Callable[..., str], place: str) -> None:
    store(rating(1))
    assert len(run("export", "--to", place, code=2).splitlines()) == 1


def test_a_word_that_is_not_an_event_id_deletes_nothing(run: Callable[..., str]) -> None:
    assert "not an event id" in run("delete", "everything", code=2)


def test_pairs_counts_what_it_skips(run: Callable[..., str]) -> None:
    store(
        rating(1, edited="return 2"),
        rating(2, prompt=HELD_OUT),
        rating(3, adapter_sha256="c" * 64),
        rating(4, rating="down"),
    )
    run("export", "--to", "elsewhere")
    output = run("pairs", "--from", "elsewhere")
    assert "4 ratings" in output and "1 SFT, 1 DPO, 2 KTO" in output
    assert "1 ratings skipped: held-out prompt" in output and "1 ratings skipped: unknown adapter" in output
    pairs = json.loads((FEEDBACK / "training_pairs.json").read_text())
    assert [row["label"] for row in pairs["kto"]] == [True, False]
    assert pairs["left_out"]["refused"] == {"held-out prompt": 1, "unknown adapter": 1}
    assert len(json.loads((FEEDBACK / "all_feedback.json").read_text())["ratings"]) == 4


def test_without_the_held_out_questions_there_are_no_pairs(run: Callable[..., str]) -> None:
    store(rating(1))
    run("export")
    Path("data/splits/codegen/test.jsonl").unlink()
    assert "dvc repro data-split@codegen" in run("pairs", code=3)
    assert not (FEEDBACK / "training_pairs.json").exists()


def test_without_shards_the_message_names_the_export_command(run: Callable[..., str]) -> None:
    assert "bilora feedback export" in run("pairs", code=2)


def test_the_documented_entry_point(checkout: Path, run: Callable[..., str]) -> None:
    store(rating(1))
    run("export")
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "fetch_feedback.py", "--from", SHARDS],
        env=environment_of(ROOT),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "1 ratings" in done.stdout
    assert (FEEDBACK / "all_feedback.json").is_file() and (FEEDBACK / "training_pairs.json").is_file()


def test_an_unreadable_destination_is_not_reported_as_empty(
    run: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    store(rating(1))
    run("export", "--to", "team")
    real = os.listdir

    def refuse(path: Any = ".") -> list[str]:
        if "team" in str(path):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "listdir", refuse)
    output = run("status")
    assert "it is not accessible to this user; change its permissions or its owner." in output
    assert "it is empty now" not in output and "the deletions in team cannot be read" in output


@pytest.mark.parametrize(("name", "typed"), [("-x", "./-x"), ("?", "'./?'")])
def test_a_destination_is_named_as_it_can_be_typed(run: Callable[..., str], name: str, typed: str) -> None:
    store(rating(1))
    run("export", f"--to={name}")
    output = run("delete", rating(1).event_id)
    assert f"`bilora feedback export --to {typed}`" in output
    run("export", "--to", shlex.split(typed)[0])
    assert "0 erasures outstanding" in run("status")
