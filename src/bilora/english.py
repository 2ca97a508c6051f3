"""Detect sentences that are not English."""

from __future__ import annotations

import re
import unicodedata

_WORD = re.compile(r"\w+")

_FOREIGN = """
der die und das ist ein eine einen einer für mit nicht wird werden gibt zurück los las para que una el por del está les
des est pour dans avec une du le et qui os uma não são della gli che nel het een van zijn och att som jest dla
"""
_SHORT = "de la à un en au aux sur par ou es se si da do em di il lo zu den dem von auf y e i"
_ENGLISH = """
the of to and or for from with by be are all this that which when it its into each every not no given returns return
"""
_FOREIGN_WORDS = frozenset(_FOREIGN.split())
"""Words of other languages; two of them indicate that a sentence is not English."""
_FOREIGN_SHORT_WORDS = _FOREIGN_WORDS | frozenset(_SHORT.split())
"""Also words that occur in names (de Bruijn); with accents, one of them indicates another language."""
_ENGLISH_WORDS = frozenset(_ENGLISH.split())
"""Words that hardly any other language has; one of them indicates English."""

_ALPHABETS = ("LATIN", "GREEK", "MATHEMATICAL", "MICRO", "FEMININE", "MASCULINE", "MODIFIER", "DOUBLE-STRUCK")
"""Prefixes of the Unicode names of letters in English sentences, including accented letters and symbols."""
_MIN_LETTERS, _MAX_OTHER_LETTERS = 0.55, 0.1


def is_english(text: str) -> bool:
    """Return whether a sentence may be English; accents in names, symbols and dashes are allowed."""
    words = set(_WORD.findall(text.lower()))
    letters = [character for character in text if character.isalpha()]
    others = [letter for letter in letters if not unicodedata.name(letter, "").startswith(_ALPHABETS)]
    accents = any(not letter.isascii() for letter in letters)
    foreign = len(words & _FOREIGN_WORDS) > 1 or (accents and bool(words & _FOREIGN_SHORT_WORDS))
    return (
        len(letters) + sum(map(str.isspace, text)) >= _MIN_LETTERS * len(text)
        and len(others) <= _MAX_OTHER_LETTERS * len(letters)
        and not (foreign and not words & _ENGLISH_WORDS)
    )
