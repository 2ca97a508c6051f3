"""One server for a module's tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from openai import OpenAI
from support.cast import SMOKE, Cast
from support.serving_running import KEY, Running, made_engine, serving

from bilora.bases.loading import base_revision
from bilora.serving.app import ServerConfig


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture(scope="module")
def running(cast: Cast) -> Iterator[Running]:
    """A server with a key; chats get no system prompt, so that the reference knows what was asked."""
    served = ServerConfig(
        engine=made_engine(cast), base_id="models/smoke", base_revision=base_revision(SMOKE), key=KEY, max_body=100_000
    )
    with serving(served) as found:
        yield found


@pytest.fixture(scope="module")
def client(running: Running) -> OpenAI:
    return running.client()
