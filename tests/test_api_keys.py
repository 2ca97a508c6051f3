"""Cleaning of pasted API keys."""

from __future__ import annotations

import pytest

from bilora.api_keys import clean_key
from bilora.errors import BadData


@pytest.mark.parametrize("given", ["abc-1", " abc-1", "abc-1\r\n", "\t\nabc-1\xa0", "\ufeffabc-1 ", "\u200babc-1"])
def test_white_space_around_a_key_is_stripped(given: str) -> None:
    assert clean_key(given, "A_KEY") == "abc-1"


@pytest.mark.parametrize("given", [None, "", " ", "\n", "\ufeff\n"])
def test_a_blank_key_is_none(given: str | None) -> None:
    assert clean_key(given, "A_KEY") is None


@pytest.mark.parametrize("inside", [" ", "\n", "\t", "\x00", "\x7f", "\x1b", "é", "…", "\u200b", "\xa0", "\uff21"])
def test_a_key_that_no_header_can_contain_is_refused_without_printing_it(inside: str) -> None:
    with pytest.raises(BadData, match=r"^A_KEY: .*Copy it again\.$") as caught:
        clean_key(f"abc{inside}def", "A_KEY")
    assert "abc" not in str(caught.value) and "def" not in str(caught.value)
