"""Direct preference optimization (Rafailov et al. 2023) on people's edits of answers."""

from __future__ import annotations

from typing import ClassVar, Literal

from bilora.errors import PreflightFailed
from bilora.training.context import TrainingContext
from bilora.training.pairs import PairRows, PairSettings, encode_pairs
from bilora.training.phase import Phase, PhaseResult
from bilora.training_pairs import DpoPair


class DpoSettings(PairSettings):
    """Training on edits: the edited answer is chosen, the original one rejected."""

    kind: Literal["dpo"]
    pairs: ClassVar[Literal["kto", "dpo"] | None] = "dpo"


class Dpo:
    """Trains on edits with TRL's DPOTrainer; a killed phase starts again."""

    settings = DpoSettings

    def prepare(self, context: TrainingContext, settings: DpoSettings) -> PairRows:
        """Encode the pairs.

        Raises:
            PreflightFailed: there are fewer than `min_rows` rows.
        """
        pairs = [pair for pair in context.pairs if isinstance(pair, DpoPair)]
        encoded = encode_pairs(context, pairs, lambda pair: {"chosen_ids": pair.chosen, "rejected_ids": pair.rejected})
        if len(encoded) < settings.min_rows:
            raise PreflightFailed(
                f"dpo on {context.task.name} needs {settings.min_rows} edited answers, and there are {len(encoded)}; "
                "collect more ratings, or remove split.preference and the phase dpo from params.yaml."
            )
        rows = [row for _, row in encoded]
        return PairRows(rows, len(pairs) - len(rows), f"{len(rows)} edited answers")

    def run(self, context: TrainingContext, settings: DpoSettings, prepared: PairRows) -> PhaseResult:
        """Train the adapter; the result is that of the last step."""
        from trl import DPOConfig, DPOTrainer

        from bilora.training.arguments import common_arguments
        from bilora.training.pair_trainer import train_pairs

        arguments = DPOConfig(
            **common_arguments(context, settings), beta=settings.beta, save_strategy="no", eval_strategy="no"
        )
        return train_pairs(context, DPOTrainer, arguments, prepared)


PHASE: Phase[DpoSettings, PairRows] = Dpo()
