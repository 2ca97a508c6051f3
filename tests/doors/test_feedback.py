"""bilora feedback and scripts/fetch_feedback.py, from a rating to rows for training."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from checkout import ROOT, environment_of

from bilora.cli import app, guarded
from bilora.cli.wiring import FEEDBACK, OUTBOX, SHARDS
from bilora.feedback.events import new_event_id
from bilora.feedback.outbox import Outbox
from bilora.records import Rating, Sample
from bilora.storage import write_json, write_records

ADAPTER = "a" * 64
HELD_OUT = "Write a function that measures."


def rating(number: int, **rest: Any) -> Rating:
    fields: dict[str, Any] = {
        "event_id": new_event_id(1_770_000_000_000 + number), "generation_id": f"g{number}", "session": "s",
        "task": "codegen", "prompt": f"Write function {number}.", "completion": "return 1",
        "adapter_sha256": ADAPTER, "base_revision": "b" * 40, "rating": "up", "consent": True,
        "app_version": "0.1.0", "created_utc": "2026-01-31T12:00:00+00:00",
    }  # fmt: skip
    return Rating(**(fields | rest))


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the verbs read: params, held-out questions, and the record of the run that made the adapter."""
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
        assert guarded(app, ["feedback", *arguments]) == code
        said = capsys.readouterr()
        return said.err if code else said.out

    return verb


def store(*ratings: Rating) -> None:
    with Outbox(OUTBOX) as outbox:
        for one in ratings:
            assert outbox.add(one)


def test_status_says_where_ratings_are(run: Callable[..., str]) -> None:
    assert "nothing was rated" in run("status")
    assert not OUTBOX.exists()
    store(rating(1), rating(2, consent=False))
    assert "2 ratings: 0 exported, 1 waiting, 1 kept here" in run("status")
    run("export")
    assert "1 exported, 0 waiting" in run("status")


def test_a_deletion_goes_all_the_way(run: Callable[..., str]) -> None:
    one, two = rating(1), rating(2)
    store(one, two)
    run("export")
    run("pairs")
    assert "done" in run("delete", one.event_id)
    assert "1 deletions; 1 shards rewritten" in run("export")
    run("pairs")
    everything = b"".join(path.read_bytes() for path in FEEDBACK.rglob("*") if path.is_file())
    assert b"function 1" not in everything and b"function 2" in everything


def test_a_word_that_is_no_event_id_deletes_nothing(run: Callable[..., str]) -> None:
    assert "no event id" in run("delete", "everything", code=2)


def test_pairs_counts_what_it_leaves_out(run: Callable[..., str]) -> None:
    store(
        rating(1, edited="return 2"),
        rating(2, prompt=HELD_OUT),
        rating(3, adapter_sha256="c" * 64),
        rating(4, rating="down"),
    )
    run("export", "--to", "elsewhere")
    said = run("pairs", "--from", "elsewhere")
    assert "4 ratings" in said and "1 SFT, 1 DPO, 2 KTO" in said
    assert "1 ratings left out: held-out prompt" in said and "1 ratings left out: unknown adapter" in said
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


def test_without_shards_the_verb_is_named(run: Callable[..., str]) -> None:
    assert "bilora feedback export" in run("pairs", code=2)


def test_the_documented_door(checkout: Path, run: Callable[..., str]) -> None:
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
