"""The server under load, at shutdown, when clients disconnect, and when adapters change."""

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


def server_config(engine: TorchEngine, **options: object) -> ServerConfig:
    return ServerConfig(engine=engine, base_id="b", base_revision="r", **options)  # type: ignore[arg-type]


def ask(client: OpenAI, model: str, text: str) -> str:
    reply = client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": text}], max_tokens=TOKENS, seed=1
    )
    return reply.choices[0].message.content or ""


def long_prompt(engine: TorchEngine) -> str:
    """Return a prompt whose answer by the base has the maximum length."""
    longest = max(
        engine.generate("base", [chat_request(text, LONG) for text in prompts(16)]),
        key=lambda completion: completion.output_tokens,
    )
    assert longest.output_tokens == LONG
    return longest.sample_id


def body_of(text: str, *, stream: bool) -> bytes:
    body = {"model": "base", "messages": [{"role": "user", "content": text}], "max_tokens": LONG, "stream": stream}
    return json.dumps(body).encode()


def post(running: RunningServer, body: bytes) -> socket.socket:
    """Send a request without reading the reply."""
    url = urlsplit(running.url)
    connection = socket.create_connection((url.hostname, url.port))
    head = ["POST /v1/chat/completions HTTP/1.1", "Host: x", "Content-Type: application/json"]
    connection.sendall("\r\n".join([*head, f"Content-Length: {len(body)}", "", ""]).encode() + body)
    return connection


def wait_until(condition: object, seconds: float = 20.0) -> None:
    assert callable(condition)
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.002)
    assert condition()


def test_many_clients_each_get_their_own_adapters_answer(sample_adapters: SampleAdapters) -> None:
    pairs = [(system, text) for text in prompts(20) for system in ("base", "codegen", "docstring")]
    with (
        serving(server_config(make_engine(sample_adapters))) as running,
        running.client() as client,
        ThreadPoolExecutor(12) as pool,
    ):
        answers = list(pool.map(lambda pair: ask(client, *pair), pairs))
    assert answers == [sample_adapters.answer(*pair) for pair in pairs]


@pytest.mark.parametrize("stream", [True, False])
def test_a_disconnect_frees_the_row_within_a_token(
    sample_adapters: SampleAdapters, stream: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = make_engine(sample_adapters)
    text = long_prompt(engine)
    cancelled: list[int] = []
    step = TorchBatch.step

    def watched(self: TorchBatch) -> None:
        cancelled.append(sum(sequence.cancelled for sequence in self.sequences))
        step(self)

    monkeypatch.setattr(TorchBatch, "step", watched)
    with serving(server_config(engine)) as running:
        connection = post(running, body_of(text, stream=stream))
        wait_until(lambda: len(cancelled) > 3)
        connection.close()
        wait_until(lambda: engine.queue_depth() == (0, 0))
    assert len(cancelled) < LONG - 30
    assert sum(cancelled) <= 1


def test_a_full_queue_says_when_to_come_back(sample_adapters: SampleAdapters) -> None:
    engine = make_engine(sample_adapters, batch_size=1, max_waiting=1)
    body = body_of(long_prompt(make_engine(sample_adapters)), stream=True)
    with serving(server_config(engine)) as running:
        connections = [post(running, body)]
        wait_until(lambda: engine.queue_depth() == (1, 0))
        connections.append(post(running, body))
        wait_until(lambda: engine.queue_depth() == (1, 1))
        with pytest.raises(RateLimitError) as refusal:
            ask(running.client(), "codegen", "sum")
        assert int(refusal.value.response.headers["Retry-After"]) >= 1
        for connection in connections:
            connection.close()
        assert running.idle()
        assert ask(running.client(), "codegen", "sum") == sample_adapters.answer("codegen", "sum")


def test_the_shutdown_waits_for_running_answers(sample_adapters: SampleAdapters) -> None:
    engine = make_engine(sample_adapters)
    text = long_prompt(engine)
    (whole,) = engine.generate("base", [chat_request(text, LONG)])
    with serving(server_config(engine)) as running:
        client = running.client()
        chunks = client.chat.completions.create(
            model="base", messages=[{"role": "user", "content": text}], max_tokens=LONG, stream=True
        )
        texts = [next(iter(chunks)).choices[0].delta.content or ""]
        running.server.should_exit = True
        texts += [choice.delta.content or "" for chunk in chunks for choice in chunk.choices]
    assert "".join(texts) == whole.text


def test_a_new_version_is_loaded_and_no_request_is_dropped_or_mixed(
    sample_adapters: SampleAdapters, tmp_path: Path
) -> None:
    folder = tmp_path / "codegen"
    shutil.copytree(sample_adapters.folders["codegen"], folder)
    engine = make_engine(sample_adapters)

    def mark() -> str:
        return str((folder / "manifest.json").stat().st_mtime_ns)

    reloader = Reloader(
        engine,
        version=mark(),
        read_version=mark,
        find_adapters=lambda: {"codegen": folder, "docstring": sample_adapters.folders["docstring"]},
        unload=False,
    )
    versions = {adapter_sha256(sample_adapters.folders[name])[:12]: name for name in ("codegen", "codegen2")}
    answers: list[tuple[str, str, str]] = []
    text, other = prompts(2)

    def keep_asking(ended: threading.Event) -> None:
        client = running.client()
        while not ended.is_set():
            reply = client.chat.completions.create(
                model="codegen", messages=[{"role": "user", "content": text}], max_tokens=TOKENS
            )
            version = versions[(reply.system_fingerprint or "").rpartition("-")[2]]
            answers.append((version, text, reply.choices[0].message.content or ""))

    config = server_config(engine, reload=reloader.reload, reload_interval_s=0.02)
    with serving(config) as running, ThreadPoolExecutor(4) as pool:
        ended = threading.Event()
        futures = [pool.submit(keep_asking, ended) for _ in range(4)]
        try:
            wait_until(lambda: len(answers) > 10)
            for name in ("adapter_config.json", "adapter_model.safetensors", "manifest.json"):
                shutil.copy(sample_adapters.folders["codegen2"] / name, folder / name)
            wait_until(lambda: sum(version == "codegen2" for version, *_ in answers) > 10)
        finally:
            ended.set()
        for future in futures:
            future.result()
        assert ask(running.client(), "docstring", other) == sample_adapters.answer("docstring", other)
    assert all(sample_adapters.answer(version, text) == answer for version, text, answer in answers)
    assert {version for version, *_ in answers} == {"codegen", "codegen2"}


def test_an_incompatible_version_changes_nothing(
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


@pytest.mark.parametrize("failing", ["mark", "find"])
def test_an_unexpected_error_does_not_end_the_reloading(
    sample_adapters: SampleAdapters, failing: str, caplog: pytest.LogCaptureFixture
) -> None:
    engine, faults = make_engine(sample_adapters), iter([KeyError("r")])

    def folders() -> dict[str, Path]:
        return {"codegen": sample_adapters.folders["codegen2"], "docstring": sample_adapters.folders["docstring"]}

    def failing_once(then: Any) -> Any:
        for fault in faults:
            raise fault
        return then()

    marks = iter(["first", "second", "third"])
    reloader = Reloader(
        engine,
        version="",
        read_version=lambda: failing_once(lambda: next(marks)) if failing == "mark" else next(marks),
        find_adapters=lambda: failing_once(folders) if failing == "find" else folders(),
        unload=False,
    )
    assert (reloader.reload(), reloader.reload()) == (0, 1)
    assert "the old ones stay" in caplog.text and "KeyError" in caplog.text
    assert engine.models()["codegen"] == adapter_sha256(sample_adapters.folders["codegen2"])


@pytest.mark.parametrize("unload", [True, False], ids=["bundle", "trained here"])
def test_an_adapter_that_a_bundle_no_longer_names_is_not_found(sample_adapters: SampleAdapters, unload: bool) -> None:
    engine = make_engine(sample_adapters)
    folders = {"docstring": sample_adapters.folders["docstring"]}
    reloader = Reloader(engine, version="", read_version=lambda: "new", find_adapters=lambda: folders, unload=unload)
    with serving(server_config(engine)) as running:
        assert reloader.reload() == unload
        if not unload:  # its folder is absent while it is trained again
            assert ask(running.client(), "codegen", "sum") == sample_adapters.answer("codegen", "sum")
            return
        with pytest.raises(APIStatusError) as refusal:
            ask(running.client(), "codegen", "sum")
        assert refusal.value.status_code == 404


@pytest.mark.parametrize("stream", [True, False])
def test_a_fault_of_the_model_is_an_error_object_and_the_server_goes_on(
    sample_adapters: SampleAdapters, stream: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("out of memory at sk-secret")

    with serving(server_config(make_engine(sample_adapters))) as running:
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
            metrics_text = reply.read().decode()
        assert ('bilora_streams_broken_total{model="base"} 1.0' in metrics_text) == stream
        assert ask(client, "base", "sum") == sample_adapters.answer("base", "sum")


def test_a_legacy_request_without_a_number_of_tokens_gets_sixteen_or_what_there_is(
    sample_adapters: SampleAdapters,
) -> None:
    for max_tokens, expected in ((None, 16), (8, 8), (64, 16)):
        with serving(server_config(make_engine(sample_adapters), max_tokens=max_tokens)) as running:
            usage = (
                running.client()
                .completions.create(model="base", prompt=long_prompt(make_engine(sample_adapters)))
                .usage
            )
            assert usage is not None and usage.completion_tokens == expected


def test_an_adapters_own_system_prompt_goes_before_a_chat_without_one(sample_adapters: SampleAdapters) -> None:
    engine = make_engine(sample_adapters)
    with serving(server_config(engine, system_prompts={"codegen": "You sort."})) as running:
        client = running.client()

        def ask(model: str, *messages: dict[str, str]) -> str | None:
            reply = client.chat.completions.create(model=model, messages=list(messages), max_tokens=9)  # type: ignore[arg-type]
            return reply.choices[0].message.content

        system, user = {"role": "system", "content": "You sort."}, {"role": "user", "content": "sum of the list"}
        assert ask("codegen", user) == ask("codegen", system, user) != ask("codegen", {**system, "content": "x"}, user)
        assert ask("base", user) != ask("base", system, user)


def test_an_adapter_answers_with_the_penalty_it_was_measured_with(sample_adapters: SampleAdapters) -> None:
    with serving(server_config(make_engine(sample_adapters), frequency_penalties={"codegen": 2.0})) as running:
        client = running.client()

        def ask(model: str, **extra: Any) -> str | None:
            user = [{"role": "user", "content": "sum of the list"}]
            reply = client.chat.completions.create(model=model, messages=user, max_tokens=40, **extra)
            return reply.choices[0].message.content

        assert ask("codegen") == ask("codegen", frequency_penalty=2) != ask("codegen", frequency_penalty=0)
        assert ask("base") == ask("base", frequency_penalty=0)


def test_an_adapter_that_a_client_loaded_stays_when_the_bundle_changes(sample_adapters: SampleAdapters) -> None:
    engine, folder = make_engine(sample_adapters), sample_adapters.folders["codegen"]
    reloader = Reloader(
        engine, version="", read_version=lambda: "new", find_adapters=lambda: {"codegen": folder}, unload=True
    )
    engine.load_adapter("mine", folder)
    assert reloader.reload() == 1
    assert list(engine.models()) == ["base", "codegen", "mine"]
