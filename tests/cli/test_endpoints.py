"""Endpoints and judges of params.yaml, from the commands that use them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from support.checkouts import ROOT
from support.fake_openai_server import Reply, Server, answer

from bilora.api_keys import endpoint_key
from bilora.cli.judge import check
from bilora.errors import BadData
from bilora.external_services import Endpoint
from bilora.records import Sample
from bilora.storage import write_records
from bilora.workspace import Workspace


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with params and a test split, and nothing else."""
    monkeypatch.chdir(tmp_path)
    samples = [
        Sample.create(
            task="docstring", prompt=f"def f{number}(): ...", target=f"Return {number}.", source="s", group="g",
            licence="MIT",
        )
        for number in range(6)
    ]  # fmt: skip
    write_records(tmp_path / "data/splits/docstring/test.jsonl", samples)
    return tmp_path


def judged_by(place: Path, **judge: Any) -> None:
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    params["judge"] = {"name": "j", "model": "judge-70b", "timeout_s": 2, **judge}
    (place / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")


def exit_code(samples: int = 6) -> int:
    with pytest.raises(typer.Exit) as left:
        check(samples=samples)
    return left.value.exit_code


def graded(body: dict[str, Any], number: int) -> Reply:
    """Grade the right answer 5 and the others 1."""
    material = json.loads(body["messages"][-1]["content"])
    grades = {letter: 5 if text == material["reference"] else 1 for letter, text in material["candidates"].items()}
    return answer("My grades:\n```json\n" + json.dumps(grades) + "\n```")


def test_a_reliable_judge_exits_with_0(place: Path, server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    judged_by(place, base_url=server.url)
    server.respond = graded
    assert exit_code() == 0
    printed = capsys.readouterr()
    assert "judge check: judge-70b, 6 samples scored, 0 not: gap 4.00 points" in printed.out
    assert "the server does not list the model 'judge-70b'; it has a, b." in printed.err


@pytest.mark.parametrize(
    ("reply", "code", "reason"),
    [
        (answer("All of them are fine."), 11, "its reply is not JSON"),
        (answer('{"X": 3, "Y": 3, "Z": 3}'), 11, "its reply rates none of the answers A, B, C"),
        (answer(None, "length"), 11, "cut off at 1024 tokens"),
        (answer('{"A": 3, "B": 3, "C": 3}'), 11, "a right answer is only 0.00 points above a wrong one"),
        ((401, {}, {"message": "who are you?"}), 6, "HTTP 401: the server requires a key"),
        ((404, {}, {"error": {"message": "no such model", "param": "model"}}), 6, "it has a, b"),
        ((404, {"Content-Type": "text/html"}, b"<html>"), 6, "base_url usually ends in /v1"),
        ((413, {}, {"error": {"message": "slow down"}}), 6, "HTTP 413: the server refused the request"),
        ((400, {}, {"error": {"message": "no chat template", "param": "messages"}}), 6, "no chat template"),
    ],
)
def test_an_unreliable_judge_says_why(
    place: Path, server: Server, capsys: pytest.CaptureFixture[str], reply: Reply, code: int, reason: str
) -> None:
    judged_by(place, base_url=server.url)
    server.respond = lambda body, number: reply
    assert exit_code() == code
    assert reason in capsys.readouterr().out
    assert len(server.bodies) == (12 if code == 11 else 6)


def test_a_judge_that_the_server_does_not_have_is_unreachable(
    place: Path, no_proxy: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from openai import OpenAI

    monkeypatch.setattr(OpenAI, "_sleep_for_retry", lambda *_, **__: None)
    judged_by(place, base_url="http://127.0.0.1:1/v1")
    assert exit_code(samples=2) == 6
    assert "the connection was refused: no server listens there" in capsys.readouterr().out


def test_keys_are_stripped_by_every_command(monkeypatch: pytest.MonkeyPatch) -> None:
    endpoint = Endpoint(name="e", base_url="http://box/v1", model="m", key_env="A_KEY")
    monkeypatch.setenv("A_KEY", "from-the-environment\n")
    assert endpoint_key(endpoint.key_env, {}) == "from-the-environment"
    assert endpoint_key(endpoint.key_env, {"A_KEY": "\tgiven "}) == "given"
    assert endpoint_key(endpoint.key_env, {"A_KEY": " \n"}) == "from-the-environment"
    monkeypatch.setenv("A_KEY", "\n")
    assert endpoint_key(endpoint.key_env, {}) is None
    monkeypatch.setenv("A_KEY", "one two")
    with pytest.raises(BadData, match=r"^A_KEY: .*Copy it again\.$"):
        endpoint_key(endpoint.key_env, {})


def test_an_address_of_the_page_s_server_is_checked() -> None:
    from bilora.cli.page import remote_backend

    with pytest.raises(BadData, match="BILORA_ENDPOINT: is not a URL"):
        remote_backend("localhost:8000", Workspace(ROOT).params)
