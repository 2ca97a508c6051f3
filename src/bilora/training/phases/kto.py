"""Kahneman-Tversky optimization (Ethayarajh et al. 2024) on thumbs up and down."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from bilora.errors import PreflightFailed
from bilora.training.context import TrainingContext
from bilora.training.pairs import PairRows, PairSettings, encode_pairs
from bilora.training.phase import Phase, PhaseResult
from bilora.training_pairs import KtoPair


class KtoSettings(PairSettings):
    """Training on thumbs, with equal total weights of thumbs up and down."""

    kind: Literal["kto"]
    pairs: ClassVar[Literal["kto", "dpo"] | None] = "kto"


@dataclass(frozen=True)
class KtoRows(PairRows):
    """Rows with thumbs, and the loss weights of desirable and undesirable ones."""

    weights: tuple[float, float] = (1.0, 1.0)


class Kto:
    """Trains on thumbs with TRL's KTOTrainer; a killed phase starts again."""

    settings = KtoSettings

    def prepare(self, context: TrainingContext, settings: KtoSettings) -> KtoRows:
        """Encode the pairs, and add another row's completion to each row for KTO's estimate of the KL divergence.

        Raises:
            PreflightFailed: there are fewer than `min_rows` rows, or only thumbs up or only thumbs down.
        """
        pairs = [pair for pair in context.pairs if isinstance(pair, KtoPair)]
        encoded = encode_pairs(context, pairs, lambda pair: {"completion_ids": pair.completion})
        up = sum(pair.label for pair, _ in encoded)
        down = len(encoded) - up
        description = f"{up} thumbs up and {down} down"
        if len(encoded) < settings.min_rows or not up * down:
            raise PreflightFailed(
                f"kto on {context.task.name} needs {settings.min_rows} rows with thumbs of both kinds, and there are "
                f"{description}; collect more ratings, or remove split.preference and the phase kto from params.yaml."
            )
        rows = [row | {"label": pair.label} for pair, row in encoded]
        for row, other in zip(rows, [rows[-1], *rows[:-1]], strict=True):
            row["KL_completion_ids"] = other["completion_ids"]
        return KtoRows(rows, len(pairs) - len(rows), description, (max(1.0, down / up), max(1.0, up / down)))

    def run(self, context: TrainingContext, settings: KtoSettings, prepared: KtoRows) -> PhaseResult:
        """Train the adapter; the result is that of the last step."""
        from trl import KTOConfig, KTOTrainer

        from bilora.training.arguments import common_arguments
        from bilora.training.pair_trainer import train_pairs

        arguments = KTOConfig(
            **common_arguments(context, settings),
            beta=settings.beta,
            desirable_weight=prepared.weights[0],
            undesirable_weight=prepared.weights[1],
            save_strategy="no",
            eval_strategy="no",
        )
        return train_pairs(context, KTOTrainer, arguments, prepared)


PHASE: Phase[KtoSettings, KtoRows] = Kto()
