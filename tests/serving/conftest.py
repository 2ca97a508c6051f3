"""Fixtures: a server for the tests of a module."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from openai import OpenAI
from support.running_server import KEY, RunningServer, make_engine, serving
from support.sample_adapters import SMOKE, SampleAdapters

from bilora.serving.config import ServerConfig
from bilora.serving.tokenization import tokenizer_info


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture(scope="module")
def running(sample_adapters: SampleAdapters) -> Iterator[RunningServer]:
    """A server with a key and without system prompts, so that the reference has the same prompts."""
    served = ServerConfig(
        engine=make_engine(sample_adapters),
        base_id="models/smoke",
        base_revision=SMOKE.identity,
        key=KEY,
        max_body=100_000,
        tokenizer_info=tokenizer_info(SMOKE.tokenizer()),
    )
    with serving(served) as server:
        yield server


@pytest.fixture(scope="module")
def client(running: RunningServer) -> OpenAI:
    return running.client()
