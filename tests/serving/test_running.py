"""What a server does under load, at its end, when clients leave, and when other adapters arrive."""

from __future__ import annotations

import json
import shutil
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import urlopen

import pytest
from openai import APIStatusError, InternalServerError, OpenAI, RateLimitError
from support.running_server import RunningServer, make_engine, serving
from support.sample_adapters import TOKENS, SampleAdapters, chat_request, prompts

from bilora.inference.torch.batch import TorchBatch
from bilora.inference.torch.engine import TorchEngine
from bilora.serving.config import ServerConfig
from bilora.serving.reload import Reloader
from bilora.storage import adapter_sha256, read_json, write_json

LONG = 200


def plain(engine: TorchEngine, **options: object) -> ServerConfig:
    return ServerConfig(engine=engine, base_id="b", base_revision="r", **options)  # type: ignore[arg-type]


def say(client: OpenAI, model: str, text: str) -> str:
    made = client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": text}], max_tokens=TOKENS, seed=1
    )
    return made.choices[0].message.content or ""


def endless(engine: TorchEngine) -> str:
    """A text whose answer from the base fills all tokens."""
    longest = max(
        engine.generate("base", [chat_request(text, LONG) for text in prompts(16)]), key=lambda made: made.output_tokens
    )
    assert longest.output_tokens == LONG
    return longest.sample_id


def body_of(text: str, *, stream: bool) -> bytes:
    asked = {"model": "base", "messages": [{"role": "user", "content": text}], "max_tokens": LONG, "stream": stream}
    return json.dumps(asked).encode()


def posted(running: RunningServer, body: bytes) -> socket.socket:
    """Send a request and leave the reply unread."""
    place = urlsplit(running.url)
    connection = socket.create_connection((place.hostname, place.port))
    head = ["POST /v1/chat/completions HTTP/1.1", "Host: x", "Content-Type: application/json"]
    connection.sendall("\r\n".join([*head, f"Content-Length: {len(body)}", "", ""]).encode() + body)
    return connection


def until(condition: object, seconds: float = 20.0) -> None:
    assert callable(condition)
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.002)
    assert condition()


def test_many_clients_each_get_their_own_adapters_answer(sample_adapters: SampleAdapters) -> None:
    asked = [(system, text) for text in prompts(20) for system in ("base", "codegen", "docstring")]
    with (
        serving(plain(make_engine(sample_adapters))) as running,
        running.client() as client,
        ThreadPoolExecutor(12) as pool,
    ):
        answers = list(pool.map(lambda one: say(client, *one), asked))
    assert answers == [sample_adapters.answer(*one) for one in asked]


@pytest.mark.parametrize("stream", [True, False])
def test_who_leaves_frees_the_row_within_a_token(
    sample_adapters: SampleAdapters, stream: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = make_engine(sample_adapters)
    text = endless(engine)
    cancelled: list[int] = []
    step = TorchBatch.step

    def watched(self: TorchBatch) -> None:
        cancelled.append(sum(sequence.cancelled for sequence in self.sequences))
        step(self)

    monkeypatch.setattr(TorchBatch, "step", watched)
    with serving(plain(engine)) as running:
        connection = posted(running, body_of(text, stream=stream))
        until(lambda: len(cancelled) > 3)
        connection.close()
        until(lambda: engine.queue_depth() == (0, 0))
    assert len(cancelled) < LONG - 30
    assert sum(cancelled) <= 1


def test_a_full_queue_says_when_to_come_back(sample_adapters: SampleAdapters) -> None:
    engine = make_engine(sample_adapters, batch_size=1, max_waiting=1)
    body = body_of(endless(make_engine(sample_adapters)), stream=True)
    with serving(plain(engine)) as running:
        held = [posted(running, body)]
        until(lambda: engine.queue_depth() == (1, 0))
        held.append(posted(running, body))
        until(lambda: engine.queue_depth() == (1, 1))
        with pytest.raises(RateLimitError) as refusal:
            say(running.client(), "codegen", "sum")
        assert int(refusal.value.response.headers["Retry-After"]) >= 1
        for connection in held:
            connection.close()
        assert running.idle()
        assert say(running.client(), "codegen", "sum") == sample_adapters.answer("codegen", "sum")


def test_the_end_waits_for_running_answers(sample_adapters: SampleAdapters) -> None:
    engine = make_engine(sample_adapters)
    text = endless(engine)
    (whole,) = engine.generate("base", [chat_request(text, LONG)])
    with serving(plain(engine)) as running:
        client = running.client()
        chunks = client.chat.completions.create(
            model="base", messages=[{"role": "user", "content": text}], max_tokens=LONG, stream=True
        )
        said = [next(iter(chunks)).choices[0].delta.content or ""]
        running.server.should_exit = True
        said += [choice.delta.content or "" for chunk in chunks for choice in chunk.choices]
    assert "".join(said) == whole.text


def test_a_new_version_is_taken_up_and_no_request_is_dropped_or_mixed(
    sample_adapters: SampleAdapters, tmp_path: Path
) -> None:
    place = tmp_path / "codegen"
    shutil.copytree(sample_adapters.folders["codegen"], place)
    engine = make_engine(sample_adapters)

    def mark() -> str:
        return str((place / "manifest.json").stat().st_mtime_ns)

    reloader = Reloader(
        engine,
        version=mark(),
        read_version=mark,
        find_adapters=lambda: {"codegen": place, "docstring": sample_adapters.folders["docstring"]},
        unload=False,
    )
    versions = {adapter_sha256(sample_adapters.folders[name])[:12]: name for name in ("codegen", "codegen2")}
    found: list[tuple[str, str, str]] = []
    text, other = prompts(2)

    def keep_asking(ended: threading.Event) -> None:
        client = running.client()
        while not ended.is_set():
            made = client.chat.completions.create(
                model="codegen", messages=[{"role": "user", "content": text}], max_tokens=TOKENS
            )
            version = versions[(made.system_fingerprint or "").rpartition("-")[2]]
            found.append((version, text, made.choices[0].message.content or ""))

    config = plain(engine, reload=reloader.reload, reload_interval_s=0.02)
    with serving(config) as running, ThreadPoolExecutor(4) as pool:
        ended = threading.Event()
        asking = [pool.submit(keep_asking, ended) for _ in range(4)]
        try:
            until(lambda: len(found) > 10)
            for name in ("adapter_config.json", "adapter_model.safetensors", "manifest.json"):
                shutil.copy(sample_adapters.folders["codegen2"] / name, place / name)
            until(lambda: sum(version == "codegen2" for version, *_ in found) > 10)
        finally:
            ended.set()
        for one in asking:
            one.result()
        assert say(running.client(), "docstring", other) == sample_adapters.answer("docstring", other)
    assert all(sample_adapters.answer(version, text) == answer for version, text, answer in found)
    assert {version for version, *_ in found} == {"codegen", "codegen2"}


def test_a_version_that_does_not_fit_changes_nothing(
    sample_adapters: SampleAdapters, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    engine = make_engine(sample_adapters)
    before = engine.models()
    broken = tmp_path / "codegen"
    shutil.copytree(sample_adapters.folders["codegen"], broken)
    write_json(broken / "adapter_config.json", read_json(broken / "adapter_config.json") | {"use_dora": True})
    reloader = Reloader(
        engine, version="", read_version=lambda: "new", find_adapters=lambda: {"codegen": broken}, unload=True
    )
    assert (reloader.reload(), reloader.reload()) == (0, 0)
    assert engine.models() == before
    assert [record.message for record in caplog.records if "use_dora" in record.message] != []
    assert len(caplog.records) == 1


@pytest.mark.parametrize("place", ["mark", "find"])
def test_a_fault_that_nobody_foresaw_does_not_end_the_watch(
    sample_adapters: SampleAdapters, place: str, caplog: pytest.LogCaptureFixture
) -> None:
    engine, told = make_engine(sample_adapters), iter([KeyError("r")])

    def found() -> dict[str, Path]:
        return {"codegen": sample_adapters.folders["codegen2"], "docstring": sample_adapters.folders["docstring"]}

    def failing_once(then: Any) -> Any:
        for fault in told:
            raise fault
        return then()

    marks = iter(["first", "second", "third"])
    reloader = Reloader(
        engine,
        version="",
        read_version=lambda: failing_once(lambda: next(marks)) if place == "mark" else next(marks),
        find_adapters=lambda: failing_once(found) if place == "find" else found(),
        unload=False,
    )
    assert (reloader.reload(), reloader.reload()) == (0, 1)
    assert "still are" in caplog.text and "KeyError" in caplog.text
    assert engine.models()["codegen"] == adapter_sha256(sample_adapters.folders["codegen2"])


@pytest.mark.parametrize("retire", [True, False], ids=["bundle", "trained here"])
def test_an_adapter_that_a_bundle_no_longer_names_is_not_found(sample_adapters: SampleAdapters, retire: bool) -> None:
    engine = make_engine(sample_adapters)
    found = {"docstring": sample_adapters.folders["docstring"]}
    reloader = Reloader(engine, version="", read_version=lambda: "new", find_adapters=lambda: found, unload=retire)
    with serving(plain(engine)) as running:
        assert reloader.reload() == retire
        if not retire:  # its folder is away while it is trained anew
            assert say(running.client(), "codegen", "sum") == sample_adapters.answer("codegen", "sum")
            return
        with pytest.raises(APIStatusError) as refusal:
            say(running.client(), "codegen", "sum")
        assert refusal.value.status_code == 404


@pytest.mark.parametrize("stream", [True, False])
def test_a_fault_of_the_model_is_an_error_object_and_the_server_goes_on(
    sample_adapters: SampleAdapters, stream: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("out of memory at sk-secret")

    with serving(plain(make_engine(sample_adapters))) as running:
        client = running.client()
        with monkeypatch.context() as during, pytest.raises(Exception) as fault:
            during.setattr(TorchBatch, "step", broken)
            list(
                client.chat.completions.create(
                    model="base", messages=[{"role": "user", "content": "sum"}], max_tokens=9, stream=stream
                )
            )
        assert isinstance(fault.value, InternalServerError) or stream
        assert "sk-secret" not in str(fault.value) and "model failed" in str(fault.value)
        assert "1 answers are lost" in caplog.text and "RuntimeError" in caplog.text
        with urlopen(f"{running.url}/metrics") as reply:
            told = reply.read().decode()
        assert ('bilora_streams_broken_total{model="base"} 1.0' in told) == stream
        assert say(client, "base", "sum") == sample_adapters.answer("base", "sum")


def test_a_legacy_request_without_a_number_of_tokens_gets_sixteen_or_what_there_is(
    sample_adapters: SampleAdapters,
) -> None:
    for most, made in ((None, 16), (8, 8), (64, 16)):
        with serving(plain(make_engine(sample_adapters), max_tokens=most)) as running:
            usage = (
                running.client().completions.create(model="base", prompt=endless(make_engine(sample_adapters))).usage
            )
            assert usage is not None and usage.completion_tokens == made


def test_an_adapters_own_system_prompt_goes_before_a_chat_without_one(sample_adapters: SampleAdapters) -> None:
    engine = make_engine(sample_adapters)
    with serving(plain(engine, system_prompts={"codegen": "You sort."})) as running:
        client = running.client()

        def said(model: str, *messages: dict[str, str]) -> str | None:
            made = client.chat.completions.create(model=model, messages=list(messages), max_tokens=9)  # type: ignore[arg-type]
            return made.choices[0].message.content

        own, user = {"role": "system", "content": "You sort."}, {"role": "user", "content": "sum of the list"}
        assert said("codegen", user) == said("codegen", own, user) != said("codegen", {**own, "content": "x"}, user)
        assert said("base", user) != said("base", own, user)


def test_an_adapter_is_asked_with_the_penalty_it_was_measured_with(sample_adapters: SampleAdapters) -> None:
    with serving(plain(make_engine(sample_adapters), frequency_penalties={"codegen": 2.0})) as running:
        client = running.client()

        def said(model: str, **extra: Any) -> str | None:
            user = [{"role": "user", "content": "sum of the list"}]
            made = client.chat.completions.create(model=model, messages=user, max_tokens=40, **extra)
            return made.choices[0].message.content

        assert said("codegen") == said("codegen", frequency_penalty=2) != said("codegen", frequency_penalty=0)
        assert said("base") == said("base", frequency_penalty=0)


def test_an_adapter_that_a_client_loaded_stays_when_the_bundle_changes(sample_adapters: SampleAdapters) -> None:
    engine, folder = make_engine(sample_adapters), sample_adapters.folders["codegen"]
    reloader = Reloader(
        engine, version="", read_version=lambda: "new", find_adapters=lambda: {"codegen": folder}, unload=True
    )
    engine.load_adapter("mine", folder)
    assert reloader.reload() == 1
    assert list(engine.models()) == ["base", "codegen", "mine"]
