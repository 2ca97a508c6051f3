"""From a sample to token ids and the mask of what is learnt: the answer and its end token, nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bilora.errors import PreflightFailed
from bilora.inference.engine import encode_prompt
from bilora.records import Message, Sample
from bilora.tasks.task import Task

IGNORED = -100
"""Label of a token that the loss does not see."""


@dataclass(frozen=True)
class Encoded:
    """One training row; `labels` equals `input_ids` on the answer and IGNORED on the prompt."""

    input_ids: list[int]
    labels: list[int]

    @property
    def trained(self) -> list[int]:
        """The token ids that the loss sees."""
        return [label for label in self.labels if label != IGNORED]


def encode_sample(tokenizer: Any, task: Task, sample: Sample, stops: Sequence[int]) -> Encoded:
    """Encode one sample as `encode_answer` does."""
    return encode_answer(tokenizer, task.messages(sample.prompt), task.answer(sample.target), stops)


def encode_answer(tokenizer: Any, messages: Sequence[Message], answer: str, stops: Sequence[int]) -> Encoded:
    """Encode an answer to a chat; its last trained token is the one that ends the assistant's turn.

    Raises:
        PreflightFailed: the chat template does not extend the prompt, or closes a turn without a stop token.
    """
    prompt = encode_prompt(tokenizer, messages)
    turns = [{"role": message.role, "content": message.content} for message in messages]
    turns.append({"role": "assistant", "content": answer})
    whole: list[int] = tokenizer(tokenizer.apply_chat_template(turns, tokenize=False), add_special_tokens=False)[
        "input_ids"
    ]
    if whole[: len(prompt)] != prompt:
        raise PreflightFailed(
            "The chat template renders the prompt differently once an answer follows; choose another base."
        )
    learnt = whole[len(prompt) :]
    end = next((place for place, token in enumerate(learnt) if token in stops), None)
    if end is None:
        raise PreflightFailed("The chat template ends no answer with a stop token; the adapter would never stop.")
    learnt = learnt[: end + 1]
    return Encoded(prompt + learnt, [IGNORED] * len(prompt) + learnt)
