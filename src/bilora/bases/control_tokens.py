"""The control tokens of a tokenizer, such as those of a chat template, and how to encode text that spells them."""

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

    Other added tokens, such as a run of spaces or a word, are ordinary text.
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
        self._placeholders = {text: f"\ue000{secrets.token_hex(16)}\ue001" for text in self._ids}
        """Random in every process, so that no message can contain them."""
        self.ids = frozenset(self._ids.values()) - {tokenizer.unk_token_id}
        """Without the unknown token, which encodes ordinary text too."""
        self.required_characters = frozenset(char for text in self._ids for char in _required_characters(text))
        """Every control token contains at least one of these characters."""
        whole_words = {token.content for token in tokens.values() if token.single_word}
        patterns = [
            rf"(?<!\w){re.escape(text)}(?!\w)" if text in whole_words else re.escape(text)
            for text in sorted(self._ids, key=len, reverse=True)  # tokenizers takes the longest, too
        ]
        self._pattern = "|".join(patterns) or "(?!)"

    def with_placeholders(self, text: str) -> str:
        """Return `text` with every control token replaced by its placeholder."""
        return re.sub(self._pattern, lambda match: self._placeholders[match[0]], text)

    def find(self, text: str) -> list[str]:
        """Return the control tokens that `text` spells, in order."""
        return re.findall(self._pattern, text)

    def are_spelled(self, ids: Iterable[int], text: str) -> bool:
        """Return whether `text` spells all control tokens among `ids`, in the same order."""
        spelled = iter([self._ids[token] for token in self.find(text)])
        return all(number in spelled for number in ids if number in self.ids)

    @cached_property
    def placeholder_tokenizer(self) -> tokenizers.Tokenizer:
        """The tokenizer with placeholders in place of its control tokens; it encodes all other text equally.

        Raises:
            BadData: the tokenizer's ids change when it is loaded again.
        """
        from tokenizers import Tokenizer

        document = json.loads(self._tokenizer.backend_tokenizer.to_str())
        document |= {"post_processor": None, "truncation": None, "padding": None}
        for token in document["added_tokens"]:
            if placeholder := self._placeholders.get(token["content"]):
                token |= {"content": placeholder, "normalized": False, "single_word": False}
        model = document["model"]
        if isinstance(model["vocab"], dict):
            model["vocab"] = {self._placeholders.get(text, text): number for text, number in model["vocab"].items()}
        else:  # unigram: pieces with their scores
            model["vocab"] = [[self._placeholders.get(text, text), *score] for text, *score in model["vocab"]]
        if model.get("unk_token"):
            model["unk_token"] = self._placeholders.get(model["unk_token"], model["unk_token"])
        tokenizer = Tokenizer.from_str(json.dumps(document))
        if any(tokenizer.token_to_id(self._placeholders[text]) != number for text, number in self._ids.items()):
            raise BadData(
                self._tokenizer.name_or_path,
                "the ids of its added tokens change when its tokenizer is saved; choose another base.",
            )
        return tokenizer


def _required_characters(text: str) -> set[str]:
    """Return the characters of a token that are not letters, digits or white space; all characters if it has none."""
    return {char for char in text if not char.isalnum() and not char.isspace()} or set(text)
