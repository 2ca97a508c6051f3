"""Redact API keys in text, and shorten untrusted messages to one safe line.

Every pattern is bounded or anchored, so that no hostile text makes the search slow.
"""

from __future__ import annotations

import base64
import re
import unicodedata
from urllib.parse import quote

SECRET = "[SECRET]"

_KEY_BLOCK = re.compile(r"-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----.*?(?:-----END [A-Z ]{0,30}PRIVATE KEY-----|\Z)", re.S)
_TOKEN = re.compile(
    r"(?<![\w-])(?:"
    r"hf_[A-Za-z0-9]{20,}|gsk_[A-Za-z0-9]{20,}|npm_[A-Za-z0-9]{30,}|pypi-[\w-]{30,}|AIza[\w-]{30,}"
    r"|sk-(?=[\w-]{0,200}\d)[\w-]{20,}|[spr]k_(?:live|test)_[A-Za-z0-9]{16,}"
    r"|gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|glpat-[\w-]{20,}|xox[abeprs]-[A-Za-z0-9-]{10,}"
    r"|(?:AKIA|ASIA)[A-Z0-9]{16}(?!\w)"
    r"|eyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]{10,}"  # JSON web token
    r")"
)
_HEADER = re.compile(
    r"(?i)(\bauthorization[\"']?\s{0,3}[:=]\s{0,3}[\"']?(?:(?:bearer|basic|token)\s{1,3})?"
    r"|\bbearer\s{1,3}(?=[^\s\"']{0,200}\d))([A-Za-z0-9._~+/=-]{12,})"
)
_NAMES = r"(?:password|passwd|secret|api_?key|secret_access_key|access_?token|auth_?token|token)"
_QUOTED = re.compile(
    rf"(?i)({_NAMES}[\"']?\s{{0,3}}[:=]\s{{0,3}}[\"'])(?=[^\s\"']{{0,200}}\d)([^\s\"']{{8,200}})(?=[\"'])"
)
_VARIABLE = re.compile(rf"(?m)^((?:export )?[A-Z_]{{0,40}}(?:{_NAMES.upper()})[A-Z_]{{0,40}}=)([^\s\"']{{8,}})")
_IN_URL = re.compile(r"(://[^\s:/@]{1,100}:)([^\s:/@]{1,200})(?=@)")

_POSSIBLE_KEY = re.compile(
    r"(?<![\w-])(?:"
    r"sk-[\w-]{8,}"
    r"|(?=[A-Za-z]{0,200}\d)(?=\d{0,200}[A-Za-z])[A-Za-z0-9]{24,}"
    r"|[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}"
    r")"
)
"""What looks like a key: for a server's error message, not for program text."""
_NAMED_KEY = re.compile(
    r"(?i)(\b(?:key|token|bearer|secret)\b[\"'`]?(?: (?:provided|given|used|sent))?\s?[:=]?\s?[\"'`]?)"
    r"(?=[^\s\"'`]{0,200}\d)([^\s\"'`]{8,})"
)
_MAX_READ = 4_000
_FRAGMENT = 8
"""The shortest part of a key that is redacted, in characters: a server may repeat only a part."""


def redact_keys(text: str) -> tuple[str, int]:
    """Return the text with `[SECRET]` for every key of a known format, and the number of keys. Idempotent."""
    return _replace(text, _KEY_BLOCK, _TOKEN, _HEADER, _QUOTED, _VARIABLE, _IN_URL)


def redacted_line(text: str, *, key: str = "", limit: int = 200) -> str:
    """Return an untrusted text as one line of at most `limit` characters, without keys and control characters.

    Args:
        text: such as a server's error message, which may repeat the client's key.
        key: redacted in every encoding, whole or in parts of at least 8 characters.
    """
    text = "".join(_printable(character) for character in text[:_MAX_READ])
    text = " ".join(text.split())
    for form in (key, quote(key, safe=""), base64.b64encode(key.encode()).decode()) if key else ():
        text = _redact_parts(form, text)
    text, _ = redact_keys(text)
    text, _ = _replace(text, _POSSIBLE_KEY, _NAMED_KEY)
    return text if len(text) <= limit else text[: limit - 1].rstrip() + "…"


def _printable(character: str) -> str:
    category = unicodedata.category(character)
    return "" if category == "Cf" else " " if category[0] in "CZ" else character


def _replace(text: str, *patterns: re.Pattern[str]) -> tuple[str, int]:
    count = 0

    def replace(match: re.Match[str]) -> str:
        nonlocal count
        before, secret = match.groups() if match.re.groups else ("", match[0])
        if secret.startswith(SECRET):
            return match[0]
        count += 1
        return f"{before}{SECRET}"

    for pattern in patterns:
        text = pattern.sub(replace, text)
    return text, count


def _redact_parts(secret: str, text: str) -> str:
    """Replace every part of the text that repeats `_FRAGMENT` or more characters of the secret; case is ignored."""
    size = min(_FRAGMENT, len(secret))
    parts = {secret[start : start + size].lower() for start in range(len(secret) - size + 1)}
    redacted = [False] * len(text)
    for start in range(len(text) - size + 1):
        if text[start : start + size].lower() in parts:
            redacted[start : start + size] = [True] * size
    result = []
    for position, character in enumerate(text):
        if not redacted[position]:
            result.append(character)
        elif position == 0 or not redacted[position - 1]:
            result.append(SECRET)
    return "".join(result)
