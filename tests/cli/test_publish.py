"""A passing gate: from rows in a file to a published bundle and new incumbents."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
import yaml
from support.checkouts import Shell, environment_of, shell_in, smoke_checkout
from support.loopback_hub import TOKEN, Hub
from support.ports import free_port
from support.processes import restore_signals

from bilora.cli import run_command
from bilora.feedback.events import new_event_id
from bilora.feedback.outbox import Outbox
from bilora.storage import adapter_sha256

pytestmark = pytest.mark.slow

TASK = '''
"""Answer every question with one phrase: learned in seconds, and unknown to the base."""

from bilora.metrics.bleu import SmoothedBleu
from bilora.records import Row, Sample
from bilora.tasks.task import Task


def sample(row: Row) -> Sample:
    fields = {key: row[key] for key in ("source", "group", "licence")}
    return Sample.create(task="motto", prompt=row["text"], target="return the value of it", **fields)


TASK = Task(
    name="motto",
    title="One phrase",
    system="You answer.",
    sample=sample,
    answer=str,
    extract=str.strip,
    metrics=(SmoothedBleu(),),
    example="What?",
)
'''
ENTRY = """
source: {kind: files, paths: [rows.jsonl], licence: MIT}
split: {train: 400, validation: 8, test: 24}
adapter: {rank: 8, alpha: 16, dropout: 0.0, target_modules: [qkv_proj, o_proj, gate_up_proj, down_proj]}
training:
  max_length: 128
  evaluate_samples: 4
  phases: [{kind: sft, steps: 40, batch_size: 8, learning_rate: 1.0e-2, evaluate_every: 20}]
generation: {max_new_tokens: 12, batch_size: 24}
"""
STAGES = ["data-download", "data-process", "data-split", "train", "evaluate"]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = smoke_checkout(tmp_path_factory.mktemp("publish") / "checkout")
    (folder / "src" / "bilora" / "tasks" / "motto.py").write_text(TASK, encoding="utf-8")
    document = yaml.safe_load((folder / "params.yaml").read_text(encoding="utf-8"))
    document["tasks"] = {"motto": yaml.safe_load(ENTRY)}
    (folder / "params.yaml").write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
    words = ("river", "stone", "cloud", "garden", "silver", "window", "paper", "winter", "engine", "bread")
    rows = [
        {"text": f"{a} {b} {c} {a}?", "source": f"{a}{b}{c}", "group": f"{a}{b}{c}"}
        for a in words
        for b in words
        for c in words[:6]
    ]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    yield folder


@pytest.fixture(scope="module")
def published(checkout: Path) -> Path:
    shell_in(checkout)("dvc", "repro")
    return checkout


def ran(output: str) -> list[str]:
    return [line.split("'")[1] for line in output.splitlines() if line.startswith("Running stage")]


def test_the_adapters_that_passed_are_published_and_promoted(published: Path) -> None:
    digest = adapter_sha256(published / "adapters" / "motto")
    results = json.loads((published / "benchmarking" / "results.json").read_text(encoding="utf-8"))
    verdict = results["tasks"]["motto"]["verdict"]
    assert verdict["outcome"] == "pass" and verdict["low"] > 0 and verdict["adapter_sha256"] == digest
    baseline = json.loads((published / "benchmarking" / "baseline.json").read_text(encoding="utf-8"))
    assert baseline["tasks"]["motto"]["current"]["adapter_sha256"] == digest
    assert adapter_sha256(published / "hub" / "current" / "motto") == digest


def test_after_a_push_no_stage_is_stale(published: Path) -> None:
    run = shell_in(published)
    assert ran(run("dvc", "repro").stdout) == ["benchmark", "push-adapters"]
    assert "up to date" in run("dvc", "repro").stdout


def test_the_published_bundle_is_served_to_clients_that_have_the_key(published: Path, no_proxy: None) -> None:
    url = f"http://127.0.0.1:{(port := free_port())}"
    process = subprocess.Popen(
        ["bilora", "serve", "--bundle", "hub", "--api-key-env", "KEY", "--port", str(port)],
        cwd=published,
        env={**environment_of(published), "KEY": "sk-client"},
        stdout=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 120
        while True:
            try:
                with urllib.request.urlopen(f"{url}/health") as reply:
                    adapters = json.loads(reply.read())["adapters"]
                break
            except OSError:
                assert process.poll() is None and time.monotonic() < deadline
                time.sleep(0.1)
        assert adapters == {"motto": adapter_sha256(published / "adapters" / "motto")}
        request = urllib.request.Request(f"{url}/v1/models", headers={"Authorization": "Bearer sk-client"})
        with urllib.request.urlopen(request) as reply:
            assert [model["id"] for model in json.loads(reply.read())["data"]] == ["base", "motto"]
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(f"{url}/v1/models")
    finally:
        process.terminate()
        assert process.wait(timeout=60) == 0


@pytest.fixture
def on_the_hub(published: Path, hub: Hub) -> Iterator[Shell]:
    """A shell in the checkout with the loopback hub in params.yaml; params and baseline are put back."""
    paths = [published / name for name in ("params.yaml", "benchmarking/baseline.json", "benchmarking/history.jsonl")]
    before = [path.read_bytes() for path in paths]
    document = yaml.safe_load(paths[0].read_text(encoding="utf-8"))
    document["hub"] = {"kind": "hub", "id": "owner/name"}
    paths[0].write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
    around = {"HF_ENDPOINT": hub.url, "HF_HUB_DISABLE_XET": "1", "HF_HUB_OFFLINE": "0", "HF_TOKEN": TOKEN}
    shell = shell_in(published)
    yield lambda *command, **variables: shell(*command, **{**around, **variables})
    for path, data in zip(paths, before, strict=True):
        path.write_bytes(data)


def test_publish_on_the_hub_roll_back_and_deploy(published: Path, hub: Hub, on_the_hub: Shell) -> None:
    digest = adapter_sha256(published / "adapters" / "motto")
    assert "published in owner/name@" in on_the_hub("bilora", "push-adapters").stdout
    assert "already published in owner/name@" in on_the_hub("bilora", "push").stdout
    assert hub.files("models/owner/name")["motto/README.md"] == hub.files("models/owner/name-motto")["README.md"]
    assert "they are the incumbents already" in on_the_hub("bilora", "promote").stdout
    refused = on_the_hub("bilora", "rollback", check=False)
    assert refused.returncode == 2 and "no earlier version was published" in refused.stderr
    commit = hub.repo("models/owner/name").commits[-1].oid
    restored = on_the_hub("bilora", "rollback", "--to", commit[:6])
    assert f"already published in owner/name@{commit[:6]}" in restored.stdout
    assert "runs release" in on_the_hub("bilora", "deploy", "owner/page").stdout
    release = json.loads(hub.files("spaces/owner/page")["hf_space/release.json"])
    assert release["bundle"] == f"owner/name@{hub.repo('models/owner/name').commits[-1].oid}"
    assert release["adapters"] == {"motto": digest}
    manifest = json.loads(hub.files("models/owner/name")["manifest.json"])
    assert manifest["adapters"]["motto"]["sha256"] == digest
    assert hub.bearers == {TOKEN}
    written = [path for path in published.rglob("*") if path.is_file() and published / "tests" not in path.parents]
    assert not any(TOKEN.encode() in path.read_bytes() for path in written)


def test_without_a_token_the_folder_is_used_and_reported(published: Path, hub: Hub, on_the_hub: Shell) -> None:
    message = on_the_hub("bilora", "push-adapters", HF_TOKEN="").stdout
    assert "HF_TOKEN is not set: hub/ is used instead of owner/name" in message
    assert not hub.requests
    refused = on_the_hub("bilora", "deploy", "owner/page", HF_TOKEN="", check=False)
    assert refused.returncode == 6 and "HF_TOKEN is not set" in refused.stderr


def test_a_push_warns_of_an_adapter_trained_on_a_withdrawn_rating_and_publishes(published: Path) -> None:
    event = new_event_id()
    (path,) = (published / "runs").glob("*/run.json")
    before, outbox = path.read_bytes(), published / "data" / "feedback" / "outbox.sqlite3"
    record = json.loads(before)
    assert record["ratings"] == []
    path.write_text(json.dumps(record | {"ratings": [event]}), encoding="utf-8")
    with Outbox(outbox) as opened:
        opened.delete(event, created_utc="2026-02-01T09:00:00+00:00")
    done = shell_in(published)("bilora", "push-adapters")
    assert "published in" in done.stdout
    (warned,) = [line for line in done.stderr.splitlines() if "withdrawn" in line]
    assert f"motto adapter {record['adapter_sha256'][:12]}" in warned and event in warned
    path.write_bytes(before)
    for file in outbox.parent.glob("outbox.sqlite3*"):
        file.unlink()


def test_the_health_page_reports_the_served_adapters(published: Path) -> None:
    """Streamlit's own server as the Space runs it, on a published bundle."""
    port = free_port()
    command = [sys.executable, "-m", "streamlit", "run", "hf_space/serve.py", "--server.port", str(port)]
    release = published / "hf_space" / "release.json"
    before = release.read_bytes()
    release.write_text(json.dumps({"bundle": "hub/current", "release": "abc"}), encoding="utf-8")
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, cwd=published, env=environment_of(published), **quiet) as process:  # type: ignore[call-overload]
        printed = None
        for _ in range(240):
            with contextlib.suppress(OSError), urllib.request.urlopen(f"http://localhost:{port}/health") as answer:
                printed = json.load(answer)
                break
            time.sleep(0.25)
        with urllib.request.urlopen(f"http://localhost:{port}/") as page:
            assert page.status == 200 and b"<title>" in page.read()
        process.terminate()
    release.write_bytes(before)
    assert printed is not None and printed["status"] == "ready" and printed["release"] == "abc"
    assert printed["adapters"] == {"motto": adapter_sha256(published / "adapters" / "motto")}


@pytest.mark.parametrize(("stage", "limit"), [*((stage, 200) for stage in STAGES), ("train", 20_000)])
def test_a_full_disk_at_any_stage_is_one_sentence_and_changes_no_file(published: Path, stage: str, limit: int) -> None:
    before = files_of(published)
    limited = ["python", "-c", FULL_DISK, str(limit), "bilora", stage, "motto"]
    refused = shell_in(published)(*limited, check=False)
    assert refused.returncode == 13 and "o file is half-written" in refused.stderr, refused.stderr[-2000:]
    assert "Traceback" not in refused.stderr
    assert files_of(published) == before


FULL_DISK = """
import os, resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2)
os.execvp(sys.argv[2], sys.argv[2:])
"""
"""No file may grow beyond so many bytes: writing fails as it does on a full disk."""


def test_ctrl_c_during_a_class_definition_is_an_interruption(capsys: pytest.CaptureFixture[str]) -> None:
    class Pressed:
        def __set_name__(self, owner: type, name: str) -> None:
            raise KeyboardInterrupt

    app = typer.Typer()
    app.command()(lambda: type("Made", (), {"field": Pressed()}))
    assert run_command(app, []) == 130
    assert "interrupted" in capsys.readouterr().err


@pytest.mark.parametrize("stage", ["train", "evaluate"])
def test_ctrl_c_is_one_sentence_and_changes_no_file(published: Path, stage: str) -> None:
    before = files_of(published)
    with subprocess.Popen(
        ["bilora", stage, "motto"],
        cwd=published,
        env=environment_of(published),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=restore_signals,
    ) as process:
        assert process.stderr is not None
        while f"{stage} motto:" not in process.stderr.read(20):
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        message = process.stderr.read()
    assert process.returncode == 130 and "interrupted" in message and "Traceback" not in message, message[-2000:]
    assert files_of(published) == before


def files_of(folder: Path) -> dict[str, bytes]:
    kept = ("data", "adapters", "evaluation", "benchmarking", "hub", "metrics")
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for name in kept
        for path in sorted((folder / name).rglob("*"))
        if path.is_file()
    }
