"""Redact secrets and personal data before a rating leaves the machine.

The patterns match keys of known formats, e-mail and IPv4 addresses, and telephone numbers. They cannot match a name or
a street in prose; consent is required for that. Every pattern is bounded or anchored, so that no hostile text makes the
search slow.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from bilora.records import Rating
from bilora.redaction import redact_keys

EMAIL, ADDRESS, PHONE = "[EMAIL]", "[IP]", "[PHONE]"

MAIL = re.compile(r"(?<![\w.+-])[\w.+-]{1,64}@(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.){1,5}[A-Za-z]{2,24}\b")
BYTE = r"(?:25[0-5]|2[0-4]\d|1?\d?\d)"
IPV4 = re.compile(rf"(?<![\w.])(?:{BYTE}\.){{3}}{BYTE}(?!\w|\.\d)")
NUMBER = re.compile(
    r"(?<![\w.+-])(?:"
    r"\+[1-9](?:[ ()-]{0,2}\d){8,14}"  # international: +49 30 1234567
    r"|\(\d{3}\) ?\d{3}[.-]\d{4}|\d{3}[.-]\d{3}[.-]\d{4}"  # North America: (555) 123-4567
    r"|0\d{2,4}[ /-]\d{5,9}"  # national, with its trunk prefix: 030 1234567
    r")(?![\w-]|\.\d)"
)
NOT_PERSONAL = ("127.", "0.0.0.0", "255.255.")
"""Prefixes of addresses that identify nobody: loopback, unspecified and netmasks."""


def scrub(text: str) -> tuple[str, int]:
    """Return the text with placeholders for secrets and personal data, and their number. Idempotent."""
    text, count = redact_keys(text)

    def replacer(placeholder: str, keep: Callable[[str], bool] = lambda _: False) -> Callable[[re.Match[str]], str]:
        def replace(match: re.Match[str]) -> str:
            nonlocal count
            if keep(match[0]):
                return match[0]
            count += 1
            return placeholder

        return replace

    text = MAIL.sub(replacer(EMAIL), text)
    text = IPV4.sub(replacer(ADDRESS, keep=lambda address: address.startswith(NOT_PERSONAL)), text)
    return NUMBER.sub(replacer(PHONE), text), count


def scrub_rating(rating: Rating) -> Rating:
    """Return the rating with redacted texts; `redactions` counts the placeholders."""
    count = 0

    def clean(text: str) -> str:
        nonlocal count
        text, redactions = scrub(text)
        count += redactions
        return text

    update = {name: clean(getattr(rating, name)) for name in ("prompt", "completion", "comment")}
    edited = None if rating.edited is None else clean(rating.edited)
    tags = tuple(map(clean, rating.tags))
    return rating.model_copy(update={**update, "edited": edited, "tags": tags, "redactions": rating.redactions + count})
