"""Derive a base's stop tokens and pad token from its tokenizer, generation config and chat template.

No token names are hard-coded: they follow from encoding a chat.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import takewhile
from typing import TYPE_CHECKING

from bilora.bases.control_tokens import ControlTokens
from bilora.bases.prompt import encode_chat
from bilora.bases.tokenizer import Tokenizer
from bilora.errors import BadData

if TYPE_CHECKING:
    from transformers import GenerationConfig


def stop_ids(tokenizer: Tokenizer, generation_config: GenerationConfig) -> list[int]:
    """Return the sorted ids that end a completion: EOS of generation config and tokenizer, and `end_of_turn`."""
    configured: list[int] | int | None = generation_config.eos_token_id
    ids = configured if isinstance(configured, list) else [configured]
    return sorted({token for token in (*ids, tokenizer.eos_token_id, end_of_turn(tokenizer)) if token is not None})


def end_of_turn(tokenizer: Tokenizer) -> int | None:
    """Return the control token that the chat template writes after an assistant's answer; None if it writes none.

    1) Encode two chats that differ only in their last answer. 2) Their common ending comes from the template.
    3) Its first control token ends the answer; text before that token belongs to the answer.
    """
    chats = (reversed(_encode_test_chat(tokenizer, answer)) for answer in ("Yes.", "No!"))
    ending = [pair[0] for pair in takewhile(lambda pair: pair[0] == pair[1], zip(*chats, strict=False))]
    control = ControlTokens(tokenizer).ids
    return next((token for token in reversed(ending) if token in control), None)


def pad_token(tokenizer: Tokenizer) -> str:
    """Return a pad token that no training row contains, so that masking it masks no trained token.

    It is the first token that no chat contains up to the end of an answer, of the unknown token, the tokenizer's pad
    token, and its other control tokens by id.

    Raises:
        BadData: every candidate is in a chat.
    """
    row = _encode_test_chat(tokenizer, "Yes.")
    if (end := end_of_turn(tokenizer)) is not None:
        row = row[: len(row) - row[::-1].index(end)]
    for token in _pad_candidates(tokenizer):
        if token not in row:
            return tokenizer.convert_ids_to_tokens(token)
    raise BadData(
        tokenizer.name_or_path,
        "its chat template writes every special token, so none is left for padding; add one to the tokenizer.",
    )


def _pad_candidates(tokenizer: Tokenizer) -> Iterator[int]:
    for token in (tokenizer.unk_token_id, tokenizer.pad_token_id):
        if token is not None:
            yield token
    yield from sorted(ControlTokens(tokenizer).ids)


def _encode_test_chat(tokenizer: Tokenizer, answer: str) -> list[int]:
    """Return the ids of a chat with two questions, or one if the template rejects two; empty if it rejects both."""
    first = [{"role": "user", "content": "Is it?"}, {"role": "assistant", "content": "It is."}]
    last = [{"role": "user", "content": "And now?"}, {"role": "assistant", "content": answer}]
    system = [{"role": "system", "content": "Be brief."}]
    for chat in ([*system, *first, *last], [*system, *last]):
        try:
            return encode_chat(tokenizer, chat)
        except BadData:  # the template rejects this chat
            continue
    return []
