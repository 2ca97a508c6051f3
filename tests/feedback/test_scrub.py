"""Redaction of keys, addresses and numbers; code does not change."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from bilora.feedback.scrub import scrub, scrub_rating
from bilora.records import Rating

BODY = "Ab3" * 12
"""The random part of made-up keys; they are put together here so that no scanner takes them for real."""
WEB_TOKEN = ".".join(("ey" + "J" + BODY, BODY, BODY))
BLOCK = "-----BEGIN RSA " + "PRIVATE KEY-----\nabc\ndef\n-----END RSA " + "PRIVATE KEY-----"


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        (f"use hf_{BODY} here", "use [SECRET] here"),
        (f"key='sk-{BODY}'", "key='[SECRET]'"),
        (f"sk-proj-{BODY}_x-{BODY}", "[SECRET]"),
        (f"ghp_{BODY}, github_pat_{BODY}", "[SECRET], [SECRET]"),
        (f"gsk_{BODY} xoxb-{BODY} glpat-{BODY}", "[SECRET] [SECRET] [SECRET]"),
        ("id AKIA" + "ABCDEFGH12345678.", "id [SECRET]."),
        (f"Authorization: Bearer {BODY}", "Authorization: Bearer [SECRET]"),
        (f'headers = {{"Authorization": "Basic {BODY}=="}}', 'headers = {"Authorization": "Basic [SECRET]"}'),
        (f"-H 'bearer {BODY}'", "-H 'bearer [SECRET]'"),
        (f"cookie {WEB_TOKEN};", "cookie [SECRET];"),
        (f"before\n{BLOCK}\nafter", "before\n[SECRET]\nafter"),
        (BLOCK[:40], "[SECRET]"),
        ('password = "hunter2-and-more"', 'password = "[SECRET]"'),
        (f"{{'api_key': '{BODY}'}}", "{'api_key': '[SECRET]'}"),
        (f"export AWS_SECRET_ACCESS_KEY={BODY}/{BODY}", "export AWS_SECRET_ACCESS_KEY=[SECRET]"),
        ("postgres://me:letmein@db/x", "postgres://me:[SECRET]@db/x"),
        ("mail jane.doe+x@mail.example.co.uk.", "mail [EMAIL]."),
        ("host 203.0.113.7:8080", "host [IP]:8080"),
        ("call +49 (30) 1234-5678 now", "call [PHONE] now"),
        ("(555) 123-4567 or 555-123-4567", "[PHONE] or [PHONE]"),
        ("030 1234567", "[PHONE]"),
    ],
)
def test_personal_data_is_redacted_and_counted(text: str, clean: str) -> None:
    scrubbed, count = scrub(text)
    assert scrubbed == clean
    assert count == sum(clean.count(mark) for mark in ("[SECRET]", "[EMAIL]", "[IP]", "[PHONE]"))
    assert scrub(scrubbed) == (scrubbed, 0)


@pytest.mark.parametrize(
    "text",
    [
        "@dataclass\nclass A:\n    b: int = 1234567890",
        "c = a @ b.T\nassert mul(12345678901, 3) == 37037036703",
        "token = tokens[0]; secret = get_secret(name); password = password1",
        "f(token=next_token1, api_key=settings.api_key_2)",
        "version 1.2.3 of 10.5, x = +1.23456789012, date 2026-01-31, 1.2.3.4.5",
        "s = 'sk-learn-is-a-very-long-name'; bearer of good news and misunderstandings",
        'token = "placeholder"',
        "bind 127.0.0.1 or 0.0.0.0",
        "sha = 'da39a3ee5e6b4b0d3255bfef95601890afd80709'",
        "range(100, 200, 3000); -100-200-3000; x[1]-555-1234",
        "def hf_download(): pass",
    ],
)
def test_code_is_not_changed(text: str) -> None:
    assert scrub(text) == (text, 0)


def test_every_text_of_a_rating_is_scrubbed(make: Callable[..., Rating]) -> None:
    text = "ask me@example.org"
    rating = make(prompt=text, completion=text, edited=text, comment=text, tags=(text,))
    clean = scrub_rating(rating)
    assert "example.org" not in clean.model_dump_json()
    assert (clean.redactions, rating.redactions) == (5, 0)
    assert scrub_rating(clean) == clean


@pytest.mark.parametrize(
    "piece",
    ["a", "1", "a@", "a.", "1.", "+1", "0 ", "eyJ", "eyJa.", "-eyJ", "sk-", "://a:", "token=", "Bearer ", "-----BEGIN ",
     "-----BEGIN PRIVATE KEY-----", "PASSWORD=", "authorization: ", "((555) ", " ", "A_", "@a.", "a@a-", "\n"],
)  # fmt: skip
def test_a_hostile_text_is_not_slow(piece: str) -> None:
    start = time.process_time()
    scrub(piece * (100_000 // len(piece)))
    assert time.process_time() - start < 1.0
