"""The tokens that mark turns and ends, and how text is encoded that may spell them but must not be them."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterable
from functools import cached_property
from typing import TYPE_CHECKING

from bilora.bases.tokenizer import Tokenizer
from bilora.errors import BadData

if TYPE_CHECKING:
    import tokenizers

BRACKETED = re.compile(r"[<\[].*[>\]]", re.DOTALL)


class ControlTokens:
    """The control tokens of one tokenizer: added tokens that are special, or written in brackets as `</s>` is.

    An added token that is neither, such as a run of spaces or a word of some field, is a token of ordinary text.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        special = set(tokenizer.all_special_tokens)
        tokens = {
            number: token
            for number, token in tokenizer.added_tokens_decoder.items()
            if token.content and (token.special or token.content in special or BRACKETED.fullmatch(token.content))
        }
        self._ids = {token.content: number for number, token in tokens.items()}
        self._names = {text: f"\ue000{secrets.token_hex(16)}\ue001" for text in self._ids}
        """No text can contain these: they are drawn at random in every process."""
        self.ids = frozenset(self._ids.values()) - {tokenizer.unk_token_id}
        """Without the unknown token, which may stand for any text."""
        self.marks = frozenset(mark for text in self._ids for mark in _marks(text))
        """The characters that a control token cannot be written without."""
        whole_words = {token.content for token in tokens.values() if token.single_word}
        patterns = [
            rf"(?<!\w){re.escape(text)}(?!\w)" if text in whole_words else re.escape(text)
            for text in sorted(self._ids, key=len, reverse=True)  # tokenizers takes the longest, too
        ]
        self._pattern = "|".join(patterns) or "(?!)"

    def named(self, text: str) -> str:
        """Return a text with every control token in it by its name."""
        return re.sub(self._pattern, lambda found: self._names[found[0]], text)

    def found(self, text: str) -> list[str]:
        """Return the control tokens in a text, as they are written."""
        return re.findall(self._pattern, text)

    def explain(self, ids: Iterable[int], text: str) -> bool:
        """Whether every control token among `ids` is one that is written in `text`, in that order."""
        written = iter([self._ids[token] for token in self.found(text)])
        return all(number in written for number in ids if number in self.ids)

    @cached_property
    def renamed(self) -> tokenizers.Tokenizer:
        """The tokenizer with its control tokens known by their names only; it encodes all else as it always did.

        Raises:
            BadData: the tokenizer gives its tokens other ids when it is read again.
        """
        from tokenizers import Tokenizer

        document = json.loads(self._tokenizer.backend_tokenizer.to_str())
        document |= {"post_processor": None, "truncation": None, "padding": None}
        for token in document["added_tokens"]:
            if name := self._names.get(token["content"]):
                token |= {"content": name, "normalized": False, "single_word": False}
        model = document["model"]
        if isinstance(model["vocab"], dict):
            model["vocab"] = {self._names.get(text, text): number for text, number in model["vocab"].items()}
        else:  # unigram: pieces with their scores
            model["vocab"] = [[self._names.get(text, text), *score] for text, *score in model["vocab"]]
        if model.get("unk_token"):
            model["unk_token"] = self._names.get(model["unk_token"], model["unk_token"])
        renamed = Tokenizer.from_str(json.dumps(document))
        if any(renamed.token_to_id(self._names[text]) != number for text, number in self._ids.items()):
            raise BadData(
                self._tokenizer.name_or_path, "its tokenizer numbers added tokens by no order; choose another."
            )
        return renamed


def _marks(text: str) -> set[str]:
    """Return the characters of a token that are neither letters, digits nor white space; all if there is none."""
    return {char for char in text if not char.isalnum() and not char.isspace()} or set(text)
