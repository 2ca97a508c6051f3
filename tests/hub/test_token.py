"""The token comes from the environment, or from a CI job's identity."""

from __future__ import annotations

import pytest
from huggingface_hub import constants
from huggingface_hub.utils import _auth
from support.faulty_server import Fault
from support.loopback_hub import IDENTITY, TOKEN, Hub

from bilora.errors import BadData, Unreachable
from bilora.hub.token import hub_token


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch, hub: Hub) -> None:
    for name in ("HF_TOKEN", "HF_OIDC_RESOURCE", "HF_OIDC_ID_TOKEN", "GITHUB_ACTIONS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    monkeypatch.setattr(_auth, "_OIDC_TOKEN_CACHE", None)


def test_it_is_the_environment_s(monkeypatch: pytest.MonkeyPatch) -> None:
    assert hub_token() is None
    monkeypatch.setenv("HF_TOKEN", "hf_x")
    assert hub_token() == "hf_x"


def test_it_is_stripped_and_a_blank_one_is_none(monkeypatch: pytest.MonkeyPatch, hub: Hub) -> None:
    monkeypatch.setenv("HF_TOKEN", " hf_x\r\n")
    assert hub_token() == "hf_x"
    monkeypatch.setenv("HF_TOKEN", "\n")
    assert hub_token() is None
    monkeypatch.setenv("HF_OIDC_RESOURCE", "spaces/owner/page")
    monkeypatch.setenv("HF_OIDC_ID_TOKEN", IDENTITY)
    assert hub_token() == TOKEN


def test_one_that_cannot_be_sent_is_refused_unseen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_one\nhf_two")
    with pytest.raises(BadData, match=r"^HF_TOKEN: .*Copy it again") as caught:
        hub_token()
    assert "hf_" not in str(caught.value)


def test_one_that_is_set_is_taken_before_any_exchange(monkeypatch: pytest.MonkeyPatch, hub: Hub) -> None:
    """A workflow passes both, where the hub may not trust it yet."""
    monkeypatch.setenv("HF_TOKEN", "hf_x")
    monkeypatch.setenv("HF_OIDC_RESOURCE", "spaces/owner/page")
    assert hub_token() == "hf_x" and not hub.requests


def test_a_ci_s_identity_is_exchanged_for_one(monkeypatch: pytest.MonkeyPatch, hub: Hub) -> None:
    monkeypatch.setenv("HF_OIDC_RESOURCE", "spaces/owner/page")
    monkeypatch.setenv("HF_OIDC_ID_TOKEN", IDENTITY)
    assert hub_token() == TOKEN


def test_an_exchange_that_fails_is_said(monkeypatch: pytest.MonkeyPatch, hub: Hub) -> None:
    monkeypatch.setenv("HF_OIDC_RESOURCE", "spaces/owner/page")
    with pytest.raises(Unreachable, match="set HF_TOKEN instead"):
        hub_token()
    monkeypatch.setenv("HF_OIDC_ID_TOKEN", IDENTITY)
    hub.fault = lambda number, request: Fault("status", 403)
    with pytest.raises(Unreachable, match="HTTP 403") as caught:
        hub_token()
    assert IDENTITY not in str(caught.value)
