"""A fault is one sentence on the page, and earlier answers stay."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest
from support.checkouts import ROOT
from support.fake_openai_server import Reply, Server

from bilora.storage import sha256_tree

pytestmark = pytest.mark.slow
WAIT_S = 120
CHUNK = {"id": "1", "object": "chat.completion.chunk", "created": 0, "model": "m"}


@pytest.fixture
def place(adapted: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder with what the page reads, to be damaged."""
    for name in ("BILORA_ENDPOINT", "BILORA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("adapters", "models/smoke"):
        shutil.copytree(adapted / name, tmp_path / name)
    shutil.copyfile(adapted / "params.yaml", tmp_path / "params.yaml")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def endpoint(server: Server, place: Path, monkeypatch: pytest.MonkeyPatch) -> Server:
    """A server that answers the page, until a test changes its mind."""
    server.respond = lambda body, number: streamed("hello")
    monkeypatch.setenv("BILORA_ENDPOINT", server.url)
    return server


def streamed(text: str) -> Reply:
    expected_message = CHUNK | {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": "stop"}]}
    return (
        200,
        {"Content-Type": "text/event-stream"},
        f"data: {json.dumps(expected_message)}\n\ndata: [DONE]\n\n".encode(),
    )


def broken(text: str) -> Reply:
    """The beginning of an answer, then the connection ends inside a chunk."""
    _, headers, body = streamed(text)
    first = body.split(b"data: [DONE]")[0]
    headers |= {"Transfer-Encoding": "chunked", "Connection": "close"}
    return 200, headers, f"{len(first):x}\r\n".encode() + first + b"\r\nff\r\ndata"


def opened() -> AppTest:
    return AppTest.from_file(str(ROOT / "hf_space" / "app.py"), default_timeout=WAIT_S).run()


def button(page: AppTest, label: str) -> Any:
    return next(element for element in page.button if element.label == label)


def ask(page: AppTest, text: str) -> AppTest:
    page.text_area[0].set_value(text)
    return button(page, "Ask").click().run()


def titles(page: AppTest) -> list[str]:
    """Of the questions that are not in the form, where the newest is."""
    return [element.label for element in page.expander if element.label.startswith("`")]


@pytest.mark.parametrize(
    "reply",
    [(500, {}, {"error": {"message": "![x](http://elsewhere/x.png)"}}), broken("half")],
    ids=["refuses", "breaks off"],
)
def test_an_endpoint_that_dies_is_one_sentence_and_the_history_stays(endpoint: Server, reply: Reply) -> None:
    page = ask(opened(), "first")
    assert [element.value for element in page.code] == ["hello"]
    endpoint.respond = lambda body, number: reply
    ask(page, "second")
    assert not page.exception and titles(page) == ["`first`"]
    assert "gave no usable answer" in page.error[0].value and "![" not in page.error[0].value
    endpoint.respond = lambda body, number: streamed("again")
    ask(page, "third")
    assert (
        not page.exception
        and "again" in [element.value for element in page.code]
        and titles(page) == ["`second`", "`first`"]
    )


def test_an_adapter_damaged_meanwhile_is_one_sentence_and_old_answers_can_be_rated(place: Path) -> None:
    page = ask(opened(), "add two numbers")
    weights, manifest = (
        place / "adapters" / "codegen" / name for name in ("adapter_model.safetensors", "manifest.json")
    )
    weights.write_bytes(b"nothing")
    os.utime(manifest, (1, 1))
    page.run()
    assert not page.exception and "does not match its manifest" in page.error[0].value.replace("\\", "")
    assert titles(page) == ["`add two numbers`"]
    page.feedback[0].set_value(1)
    button(page, "Rate").click().run()
    assert "your rating is stored" in page.success[0].value


def test_without_an_adapter_the_base_answers_and_the_page_says_so(place: Path) -> None:
    shutil.rmtree(place / "adapters" / "codegen")
    page = opened()
    assert "no adapter here" in page.info[0].value and page.radio[0].options == ["base"]
    ask(page, "add two numbers")
    assert not page.exception and [element.value for element in page.subheader] == ["base"]


@pytest.mark.parametrize(
    ("manifest", "expected_message"),
    [
        ("[]", "is not a bundle"),
        ('{"adapters": {}, "base": {"id": "models/smoke"}}', "is not a bundle"),
        ('{"adapters": {}, "base": "models/smoke", "files": {}}', "is not a bundle"),
        ('{"adapters": {}, "base": {}, "files": {}}', "trained on None, not on models/smoke"),
        (
            '{"adapters": {}, "base": {"id": "models/smoke", "revision": "0a"}, "files": {}}',
            "trained on models/smoke at 0a, not on models/smoke.",
        ),
        (
            '{"adapters": {}, "base": {"id": "models/smoke", "path": "base"}, "files": {"base/config.json": "0"}}',
            "another version of models/smoke than the one here",
        ),
        ("{", "not JSON"),
    ],
    ids=["a list", "no files", "half a base", "no base", "another revision", "other bytes", "no JSON"],
)
def test_a_bundle_that_cannot_be_served_is_a_sentence(
    place: Path, monkeypatch: pytest.MonkeyPatch, manifest: str, expected_message: str
) -> None:
    (place / "bundle").mkdir()
    (place / "bundle" / "manifest.json").write_text(manifest)
    monkeypatch.setenv("BILORA_BUNDLE", "bundle")
    page = opened()
    assert not page.exception and expected_message in page.error[0].value.replace("\\", "")


def test_a_bundle_that_lost_a_file_is_a_sentence(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its base is the right one, by the digests that its manifest holds."""
    base = {f"base/{name}": digest for name, digest in sha256_tree(place / "models" / "smoke").items()}
    output = {"adapters": {}, "base": {"id": "models/smoke", "revision": None, "path": "base"}, "files": base}
    (place / "bundle").mkdir()
    (place / "bundle" / "manifest.json").write_text(json.dumps(output))
    monkeypatch.setenv("BILORA_BUNDLE", "bundle")
    page = opened()
    assert not page.exception and "fetch it again" in page.error[0].value.replace("\\", "")
