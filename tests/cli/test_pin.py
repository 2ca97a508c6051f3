"""`bilora pin` writes commits into params.yaml and changes nothing else."""

from __future__ import annotations

from pathlib import Path

import huggingface_hub
import pytest
from support.checkouts import ROOT, shell_in
from support.command_line import bilora
from support.faulty_server import Fault
from support.loopback_hub import TOKEN, Hub

from bilora.errors import ExitCode
from bilora.hub.client import connect
from bilora.hub.repository import Repository

MODEL, DATASET = "owner/model", "owner/data"
COMMENTED = f"""\
# A profile of one's own.
base:
  id: {MODEL}  # the model
  kind: hub
tasks:
  docstring: {{source: {{kind: hub, id: {DATASET}, revision: main}} }}   # the branch
  codegen:
    source:
      kind: hub
      id: '{DATASET}'
      revision:   # none yet
  other:
    source: {{ kind: hub, id: "{DATASET}" }}
  done:
    source: {{kind: installed, train: [numpy]}}
  pinned:
    source: {{kind: hub, id: {DATASET}, revision: {"e" * 40}}}
hub: {{kind: hub, id: owner/bundle}}
"""


@pytest.fixture
def commits(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The newest commits on the loopback hub."""
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", hub.url)
    api = connect(TOKEN, endpoint=hub.url)
    return {
        name: Repository(api, name, kind=kind).replace({"a": b"a"}, message="m").revision
        for name, kind in ((MODEL, "model"), (DATASET, "dataset"))
    }


def written(folder: Path, text: str) -> Path:
    path = folder / "params.yaml"
    path.write_bytes(text.encode())
    return path


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_every_open_revision_becomes_a_commit_and_nothing_else_changes(
    tmp_path: Path, commits: dict[str, str], newline: str, mark: str
) -> None:
    path = written(tmp_path, mark + COMMENTED.replace("\n", newline))
    done = bilora(tmp_path, "pin")
    assert done.returncode == 0, done.stderr
    model, data = commits[MODEL], commits[DATASET]
    expected = (
        COMMENTED.replace(f"id: {MODEL}  # the model\n", f'id: {MODEL}  # the model\n  revision: "{model}"\n')
        .replace("revision: main", f'revision: "{data}"')
        .replace("revision:   # none", f'revision: "{data}"   # none')
        .replace(f'id: "{DATASET}" }}', f'id: "{DATASET}", revision: "{data}" }}')
    )
    assert path.read_bytes().decode() == mark + expected.replace("\n", newline)
    assert f"base.revision: {model}, the newest of {MODEL}\n" in done.stdout
    assert f"tasks.docstring.source.revision: {data}, the newest of {DATASET} on main\n" in done.stdout


def test_pinned_params_stay_and_no_request_is_sent(tmp_path: Path, hub: Hub) -> None:
    before = (ROOT / "profiles" / "smoke.yaml").read_text(encoding="utf-8")
    path = written(tmp_path, before)
    done = bilora(tmp_path, "pin")
    assert done.returncode == 0 and "nothing to do" in done.stdout
    assert path.read_text(encoding="utf-8") == before and not hub.requests


def test_phi3_mini_is_complete_after_two_commands(tmp_path: Path, hub: Hub) -> None:
    name = "google/code_x_glue_ct_code_to_text"
    newest = Repository(connect(TOKEN, endpoint=hub.url), name, kind="dataset").replace({"a": b"a"}, message="m")
    (tmp_path / "profiles").mkdir()
    profile = ROOT / "profiles" / "phi3-mini.yaml"
    (tmp_path / "profiles" / profile.name).write_bytes(profile.read_bytes())
    used = bilora(tmp_path, "profile", "use", "phi3-mini")
    assert used.returncode == 0 and "run `bilora pin`, then `dvc repro`" in used.stdout
    environment = {"HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0", "PYTHONPATH": str(ROOT / "src")}
    shell_in(tmp_path)("bilora", "pin", **environment)
    before, after = (text.read_text(encoding="utf-8") for text in (profile, tmp_path / "params.yaml"))
    assert after == before.replace("revision: null", f'revision: "{newest.revision}"')
    assert "nothing to do" in bilora(tmp_path, "pin").stdout


def test_one_missing_revision_leaves_the_file_unchanged(tmp_path: Path, commits: dict[str, str]) -> None:
    path = written(tmp_path, COMMENTED.replace("revision: main", "revision: other"))
    done = bilora(tmp_path, "pin")
    assert done.returncode == ExitCode.BAD_INPUT and "has no revision other" in done.stderr
    assert "revision: other" in path.read_text(encoding="utf-8") and commits[MODEL] not in path.read_text()
    written(tmp_path, COMMENTED.replace(MODEL, "owner/nothing"))
    assert "no such model, or it is private" in bilora(tmp_path, "pin").stderr


def test_a_hub_that_does_not_answer_is_one_sentence_and_the_file_is_unchanged(
    tmp_path: Path, hub: Hub, commits: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path, COMMENTED)
    hub.fault = lambda number, request: Fault("status", 500) if "/datasets/" in request else None
    done = bilora(tmp_path, "pin")
    assert done.returncode == ExitCode.UNREACHABLE and done.stderr.count("\n") == 1
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    done = bilora(tmp_path, "pin")
    assert done.returncode == ExitCode.UNREACHABLE and "no server listens" in done.stderr
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    done = bilora(tmp_path, "pin")
    assert done.returncode == ExitCode.UNREACHABLE and "HF_HUB_OFFLINE" in done.stderr
    assert path.read_text(encoding="utf-8") == COMMENTED


def test_an_anchored_revision_is_left_to_the_user(tmp_path: Path, commits: dict[str, str]) -> None:
    before = f"base: {{kind: hub, id: {MODEL}, revision: &r main}}\nother: *r\n"
    path = written(tmp_path, before)
    done = bilora(tmp_path, "pin")
    assert done.returncode == ExitCode.BAD_INPUT and f"base.revision: {commits[MODEL]}" in done.stderr
    assert path.read_text(encoding="utf-8") == before and [entry.name for entry in tmp_path.iterdir()] == [
        "params.yaml"
    ]


def test_an_entry_used_twice_is_pinned_once_and_a_profile_can_be_named(tmp_path: Path, commits: dict[str, str]) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        f"tasks:\n  a: {{source: &s {{kind: hub, id: {DATASET}}}}}\n  b: {{source: *s}}\n", encoding="utf-8"
    )
    assert bilora(tmp_path, "pin", "mine.yaml").returncode == 0
    assert path.read_text(encoding="utf-8").count(commits[DATASET]) == 1
    assert "does not exist" in bilora(tmp_path, "pin").stderr
