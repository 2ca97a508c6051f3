"""Whether a sentence may be English."""

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
"""Words of other languages; two in one sentence speak against English."""
_FOREIGN_SHORT_WORDS = _FOREIGN_WORDS | frozenset(_SHORT.split())
"""Words that names have too (de Bruijn); one speaks against English in a sentence with accents."""
_ENGLISH_WORDS = frozenset(_ENGLISH.split())
"""Words that hardly another language has; one of them decides."""

_ALPHABETS = ("LATIN", "GREEK", "MATHEMATICAL", "MICRO", "FEMININE", "MASCULINE", "MODIFIER", "DOUBLE-STRUCK")
"""How the Unicode names of letters begin that English sentences have: accents, and letters that are symbols."""
_MIN_LETTERS, _MAX_OTHER_LETTERS = 0.55, 0.1


def is_english(text: str) -> bool:
    """Whether a sentence may be English: accents in names, symbols and dashes do not speak against it."""
    words = set(_WORD.findall(text.lower()))
    letters = [sign for sign in text if sign.isalpha()]
    others = [letter for letter in letters if not unicodedata.name(letter, "").startswith(_ALPHABETS)]
    accents = any(not letter.isascii() for letter in letters)
    foreign = len(words & _FOREIGN_WORDS) > 1 or (accents and bool(words & _FOREIGN_SHORT_WORDS))
    return (
        len(letters) + sum(map(str.isspace, text)) >= _MIN_LETTERS * len(text)
        and len(others) <= _MAX_OTHER_LETTERS * len(letters)
        and not (foreign and not words & _ENGLISH_WORDS)
    )
