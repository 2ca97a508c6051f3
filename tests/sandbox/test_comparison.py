"""Forged replies that are slow or malformed."""

from __future__ import annotations

import json
import operator
from typing import Any

import pytest

from bilora.sandbox import comparison
from bilora.sandbox.comparison import check_reply


def reply(**fields: Any) -> bytes:
    return json.dumps({"id": "nonce", **fields}).encode()


def test_a_right_value_in_a_long_reply_is_right() -> None:
    text = "x" * 100_000
    assert check_reply(reply(value=text), "nonce", text, operator.eq)[0]


def test_a_wrong_value_in_a_long_reply_is_wrong() -> None:
    passed, detail = check_reply(reply(value="x" * 100_000), "nonce", "y", operator.eq)
    assert not passed
    assert detail.endswith("not 'y'")


def test_a_set_of_colliding_numbers_times_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparison, "_CPU_S", 1)
    numbers = [["int", hex(k * (2**61 - 1))] for k in range(100_000)]
    verdict = check_reply(reply(value=["set", numbers]), "nonce", {1}, operator.eq)
    assert verdict == (False, "gave a value that could not be compared in time")


@pytest.mark.parametrize(
    "forged",
    [
        b"",
        b"\xff\xfe",
        b"[" * 60_000,
        b"1",
        b'"nonce"',
        b'{"id": "nonce"}',
        b'{"value": true}',
        b'{"id": "another", "value": true}',
        b'{"id": ["nonce"], "value": true}',
        b'{"id": "nonce", "value": 1}',
        b'{"id": "nonce", "value": ' + b"1" * 5000 + b"}",
    ],
    ids=lambda forged: str(forged[:40]),
)
def test_a_forged_reply_is_wrong(forged: bytes) -> None:
    assert check_reply(forged, "nonce", True, operator.eq)[0] is False


def test_a_value_too_long_to_show_is_still_named() -> None:
    passed, detail = check_reply(reply(value=["int", hex(10**5000)]), "nonce", 1, operator.eq)
    assert not passed
    assert "type int too long to show" in detail
