"""Training rows that ratings give, in TRL's conversational formats (huggingface.co/docs/trl/dataset_formats)."""

from __future__ import annotations

from pydantic import Field

from bilora.records import EventId, Message, Record


class Pair(Record):
    """A training row in TRL's conversational form. `ratings` are the events it was made from."""

    task: str
    prompt: tuple[Message, ...]
    ratings: tuple[EventId, ...]


class SftPair(Pair):
    """For supervised fine-tuning: the answer a person wrote."""

    completion: tuple[Message, ...]


class DpoPair(Pair):
    """For direct preference optimisation (Rafailov et al. 2023): a person's answer above the model's."""

    chosen: tuple[Message, ...]
    rejected: tuple[Message, ...]


class KtoPair(Pair):
    """For Kahneman-Tversky optimisation (Ethayarajh et al. 2024): the model's answer and its thumb."""

    completion: tuple[Message, ...]
    label: bool


PAIR_TYPES: dict[str, type[KtoPair] | type[DpoPair]] = {"kto": KtoPair, "dpo": DpoPair}
"""The types of rated pairs, by the name that `split.preference` selects them with."""


class RatedPairs(Record):
    """What ratings gave: training rows by their kind, and by reason how many ratings gave none."""

    left_out: dict[str, dict[str, int]] = Field(default_factory=dict)
    sft: tuple[SftPair, ...] = ()
    dpo: tuple[DpoPair, ...] = ()
    kto: tuple[KtoPair, ...] = ()

    def selected(self, preference: str) -> tuple[KtoPair | DpoPair, ...]:
        """Return the pairs that `split.preference` selects."""
        pairs: dict[str, tuple[KtoPair | DpoPair, ...]] = {"kto": self.kto, "dpo": self.dpo}
        return pairs[preference]
