"""Blacken secrets and personal data before anything leaves the machine.

Patterns find what has a form: keys of known makers, e-mail and IPv4 addresses, telephone numbers. A name
or a street in running text has none and stays; hence consent. Every pattern is bounded or anchored, so
that a hostile text of 100,000 characters costs no more than another.
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
OWN_MACHINE = ("127.", "0.0.0.0", "255.255.")
"""Addresses that are the same for everybody."""


def scrub(text: str) -> tuple[str, int]:
    """Return the text with placeholders, and how many; a second time changes nothing."""
    text, count = redact_keys(text)

    def put(placeholder: str, keep: Callable[[str], bool] = lambda _: False) -> Callable[[re.Match[str]], str]:
        def replace(found: re.Match[str]) -> str:
            nonlocal count
            if keep(found[0]):
                return found[0]
            count += 1
            return placeholder

        return replace

    text = MAIL.sub(put(EMAIL), text)
    text = IPV4.sub(put(ADDRESS, keep=lambda address: address.startswith(OWN_MACHINE)), text)
    return NUMBER.sub(put(PHONE), text), count


def scrubbed(rating: Rating) -> Rating:
    """Return the rating as it may leave the machine; `redactions` counts what was blackened in it."""
    count = 0

    def clean(text: str) -> str:
        nonlocal count
        text, found = scrub(text)
        count += found
        return text

    update = {name: clean(getattr(rating, name)) for name in ("prompt", "completion", "comment")}
    edited = None if rating.edited is None else clean(rating.edited)
    tags = tuple(map(clean, rating.tags))
    return rating.model_copy(update={**update, "edited": edited, "tags": tags, "redactions": rating.redactions + count})
