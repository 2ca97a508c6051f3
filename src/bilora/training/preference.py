"""The second phase: an adapter is moved towards what people praised, by TRL's KTO or DPO trainer.

The adapter as the first phase left it is the reference that `beta` holds it near to.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from datasets import Dataset
from transformers import PrinterCallback, TrainerCallback
from trl import DPOTrainer, KTOTrainer

from bilora.bases.prompt import encode_answer
from bilora.errors import PreflightFailed
from bilora.params import Training
from bilora.training.arguments import preference as arguments
from bilora.training_pairs import DpoPair, KtoPair

REFERENCE = "ref"
"""Under this name TRL keeps a frozen copy of the adapter beside the one in training."""

Told = Callable[[int, float], None]
"""Called after each step with its number and loss."""


@dataclass(frozen=True)
class Rows:
    """Encoded rows with TRL's columns, and how many were too long to be among them.

    `balance` weighs praised and blamed answers (KTO), so that the rarer kind counts as much.
    """

    kind: Literal["kto", "dpo"]
    rows: list[dict[str, Any]]
    too_long: int
    balance: tuple[float, float] = (1.0, 1.0)


@dataclass(frozen=True)
class Preferred:
    """How the phase went: means over its steps. `margin` is by how much it tells the better answer."""

    rows: int
    too_long: int
    steps: int
    loss: float
    margin: float
    duration_s: float
    metric: float = 0.0


def encode_rows(
    tokenizer: Any,
    task: str,
    kind: Literal["kto", "dpo"],
    pairs: Sequence[KtoPair] | Sequence[DpoPair],
    stops: Sequence[int],
    training: Training,
    *,
    seed: int,
) -> Rows:
    """Encode every row as the first phase encodes samples, in an order of the seed's.

    Raises:
        PreflightFailed: too few rows are left, or thumbs of one kind only.
    """
    assert training.preference is not None
    rows: list[dict[str, Any]] = []
    for pair in pairs:
        texts = [pair.completion] if isinstance(pair, KtoPair) else [pair.chosen, pair.rejected]
        encoded = [encode_answer(tokenizer, pair.prompt, turns[0].content, stops) for turns in texts]
        prompt, answers = encoded[0][0], [answer for _, answer in encoded]
        if len(prompt) + max(map(len, answers)) <= training.max_length:
            own: dict[str, Any] = (
                {"completion_ids": answers[0], "label": pair.label}
                if isinstance(pair, KtoPair)
                else {"chosen_ids": answers[0], "rejected_ids": answers[1]}
            )
            rows.append({"prompt_ids": prompt, **own})
    random.Random(seed).shuffle(rows)
    praised = sum(row.get("label", True) for row in rows)
    blamed = len(rows) - praised
    if len(rows) < training.preference.min_rows or (kind == "kto" and not praised * blamed):
        counts = f"{praised} thumbs up and {blamed} down" if kind == "kto" else f"{len(rows)} edits above answers"
        raise PreflightFailed(
            f"The second phase of {task} wants {training.preference.min_rows} rows"
            f"{' with thumbs of both kinds' if kind == 'kto' else ''}, and there are {counts}; "
            f"collect more ratings, or take split.preference and training.preference out of params.yaml."
        )
    if kind == "dpo":
        return Rows(kind, rows, len(pairs) - len(rows))
    for row, before in zip(rows, [rows[-1], *rows[:-1]], strict=True):  # KTO's zero point: another row's answer
        row["KL_completion_ids"] = before["completion_ids"]
    balance = (max(1.0, blamed / praised), max(1.0, praised / blamed))
    return Rows(kind, rows, len(pairs) - len(rows), balance)


def prefer(
    model: Any,
    tokenizer: Any,
    rows: Rows,
    training: Training,
    *,
    seed: int,
    output: Path,
    sinks: Sequence[str] = (),
    told: Told,
) -> Preferred:
    """Train the model's adapter on; the model is left with that adapter alone."""
    assert training.preference is not None
    trainer_type = _Kto if rows.kind == "kto" else _Dpo
    trainer = trainer_type(
        model=model,
        args=arguments(
            rows.kind, training, training.preference, balance=rows.balance, seed=seed, output=output, sinks=sinks
        ),
        processing_class=tokenizer,
        train_dataset=Dataset.from_list(rows.rows),
        callbacks=[_Telling(told)],
    )
    trainer.remove_callback(PrinterCallback)
    for parameter in model.parameters():  # TRL casts adapters on quantised bases to 16 bit
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    result = trainer.train()
    model.delete_adapter(REFERENCE)
    margins = [row["rewards/margins"] for row in trainer.state.log_history if "rewards/margins" in row]
    return Preferred(
        rows=len(rows.rows),
        too_long=rows.too_long,
        steps=trainer.state.global_step,
        loss=float(result.training_loss),
        margin=sum(margins) / max(1, len(margins)),
        duration_s=result.metrics["train_runtime"],
    )


class _Kto(KTOTrainer):
    def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
        return dataset  # encoded already, as samples are


class _Dpo(DPOTrainer):
    def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
        return dataset


class _Telling(TrainerCallback):
    def __init__(self, told: Told) -> None:
        self._told = told

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
        if logs and "loss" in logs:
            self._told(state.global_step, logs["loss"])
