"""Training rows made from ratings, in TRL's conversational formats (huggingface.co/docs/trl/dataset_formats)."""

from __future__ import annotations

from pydantic import Field

from bilora.records import EventId, Message, Record


class Pair(Record):
    """A training row in TRL's conversational format. `ratings` are the ids of its ratings."""

    task: str
    prompt: tuple[Message, ...]
    ratings: tuple[EventId, ...]


class SftPair(Pair):
    """A row for supervised fine-tuning: the answer as a user corrected it."""

    completion: tuple[Message, ...]


class DpoPair(Pair):
    """A row for direct preference optimization (Rafailov et al. 2023): a correction preferred to the model's answer."""

    chosen: tuple[Message, ...]
    rejected: tuple[Message, ...]


class KtoPair(Pair):
    """A row for Kahneman-Tversky optimization (Ethayarajh et al. 2024): the model's answer and its thumb."""

    completion: tuple[Message, ...]
    label: bool


PAIR_TYPES: dict[str, type[KtoPair] | type[DpoPair]] = {"kto": KtoPair, "dpo": DpoPair}
"""The types of rated pairs, by their name in `split.preference`."""


class RatedPairs(Record):
    """The training rows made from ratings, and the number of skipped ratings by reason."""

    left_out: dict[str, dict[str, int]] = Field(default_factory=dict)
    sft: tuple[SftPair, ...] = ()
    dpo: tuple[DpoPair, ...] = ()
    kto: tuple[KtoPair, ...] = ()

    def selected(self, preference: str) -> tuple[KtoPair | DpoPair, ...]:
        """Return the pairs that `split.preference` selects."""
        pairs: dict[str, tuple[KtoPair | DpoPair, ...]] = {"kto": self.kto, "dpo": self.dpo}
        return pairs[preference]
