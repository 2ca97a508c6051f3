"""The tokens that end an answer and the one that pads a batch, derived from tokenizer, generation config and template.

No name of a token is known here: a new base's own are found by encoding a chat.
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
    """Return the ids that end an answer: those of the generation config, the tokenizer's EOS and the end of a turn."""
    configured: list[int] | int | None = generation_config.eos_token_id
    ids = configured if isinstance(configured, list) else [configured]
    return sorted({one for one in (*ids, tokenizer.eos_token_id, end_of_turn(tokenizer)) if one is not None})


def end_of_turn(tokenizer: Tokenizer) -> int | None:
    """Return the control token that the chat template writes after an assistant's answer; None if there is none.

    1) Encode two chats that differ in their last answer only. 2) What they end with alike is not of the answers.
    3) The first control token in it ends the answer; plain text before it would be part of the answer.
    """
    chats = (reversed(_encoded_chat(tokenizer, answer)) for answer in ("Yes.", "No!"))
    after = [pair[0] for pair in takewhile(lambda pair: pair[0] == pair[1], zip(*chats, strict=False))]
    control = ControlTokens(tokenizer).ids
    return next((token for token in reversed(after) if token in control), None)


def pad_token(tokenizer: Tokenizer) -> str:
    """Return a token to pad with that no training row contains: masking it masks nothing that is to be learned.

    It is the first of these that the chat template does not write, up to the end of an answer: the unknown token,
    the tokenizer's own pad token, and its other control tokens by their ids.

    Raises:
        BadData: there is none.
    """
    row = _encoded_chat(tokenizer, "Yes.")
    if (end := end_of_turn(tokenizer)) is not None:
        row = row[: len(row) - row[::-1].index(end)]
    for token in _pad_candidates(tokenizer):
        if token not in row:
            return tokenizer.convert_ids_to_tokens(token)
    raise BadData(
        tokenizer.name_or_path, "its chat template writes every special token, so none is left for padding; add one."
    )


def _pad_candidates(tokenizer: Tokenizer) -> Iterator[int]:
    for token in (tokenizer.unk_token_id, tokenizer.pad_token_id):
        if token is not None:
            yield token
    yield from sorted(ControlTokens(tokenizer).ids)


def _encoded_chat(tokenizer: Tokenizer, answer: str) -> list[int]:
    """Return the ids of a chat of two questions, or of one where the template takes no more; empty if it takes none."""
    first = [{"role": "user", "content": "Is it?"}, {"role": "assistant", "content": "It is."}]
    last = [{"role": "user", "content": "And now?"}, {"role": "assistant", "content": answer}]
    system = [{"role": "system", "content": "Be brief."}]
    for chat in ([*system, *first, *last], [*system, *last]):
        try:
            return encode_chat(tokenizer, chat)
        except BadData:  # this template refuses such a chat
            continue
    return []
