"""A server's text becomes one short line without keys."""

from __future__ import annotations

import base64
import time

import pytest

from bilora.redaction import redacted_line

KEY = "my-own.Key_" + "4711" + "abcdefg"


@pytest.mark.parametrize(
    "words",
    [
        f"Incorrect API key provided: {KEY}",
        f"got <{KEY.upper()}>",
        f"unknown user {KEY[:12]}…",
        f"...{KEY[-9:]}",
        "Basic " + base64.b64encode(KEY.encode()).decode(),
        "\u200b".join(KEY),
    ],
)
def test_the_key_is_redacted_in_every_form(words: str) -> None:
    line = redacted_line(words, key=KEY).lower()
    assert "[secret]" in line
    assert not any(KEY.lower()[start : start + 8] in line for start in range(len(KEY) - 7))


@pytest.mark.parametrize("key", ["k", "abc", "hunter2"])
def test_a_short_key_is_redacted_completely(key: str) -> None:
    assert redacted_line(f"the key <{key}> is wrong", key=key).count(key) == 0


@pytest.mark.parametrize(
    "words",
    [
        "key gsk_" + "A1b2" * 8,
        "wrong key: other-Key-99-of-somebody",
        "sk-" + "shorter9",
        "session " + "a1B2" * 7,
        "request 0f8fad5b-d9cb-469f-a165-70867728950e",
        "https://me:letmein@proxy.example/v1",
    ],
)
def test_other_keys_are_redacted_too(words: str) -> None:
    assert "[SECRET]" in redacted_line(words, key=KEY)
    assert words.split()[-1] not in redacted_line(words, key=KEY)


@pytest.mark.parametrize(
    "words",
    [
        "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.",
        "The model `meta-llama/Llama-3.3-70B-Instruct` does not exist",
        "gpt-4o-mini-2024-07-18 is deprecated; rate limit of 3000 tokens per min",
    ],
)
def test_ordinary_words_stay(words: str) -> None:
    assert redacted_line(words, key=KEY) == words


def test_the_result_is_one_short_line_without_control_characters() -> None:
    line = redacted_line("a\r\n\tb\x1b[31m\x00\u202ec\u2028" + "long " * 100, limit=40)
    assert line.startswith("a b [31m c long") and len(line) <= 40 and line.endswith("…")
    assert line.isprintable()


def test_a_hostile_text_is_not_slow() -> None:
    began = time.perf_counter()
    for words in ("a" * 200_000, "1a" * 100_000, "key: " * 50_000, "sk-" * 60_000, " " * 200_000):
        assert len(redacted_line(words, key="ab" * 100)) <= 200
    assert time.perf_counter() - began < 2
