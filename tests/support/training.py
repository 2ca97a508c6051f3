"""A small training of the smoke base: docstrings of functions that add."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from bilora.bases.kinds.folder import FolderBase, FolderSettings
from bilora.bases.loading import LoadedBase
from bilora.evaluation.validation import ValidationScorer
from bilora.params import TaskParams
from bilora.protocols import Referees
from bilora.records import Message, Sample
from bilora.tasks import load_task
from bilora.training.context import TrainingContext
from bilora.training_pairs import DpoPair, KtoPair
from support.checkouts import ROOT

BASE = FolderBase.at(ROOT / "models" / "smoke")
BASE_SETTINGS = FolderSettings(kind="folder", path=BASE.id)
TASK = load_task("docstring")
EVENT = "01KGE3H900SVCYXAW440G165C0"
GOOD, BAD = "Return the sum of both.", "Return nothing at all."
SFT = {"kind": "sft", "steps": 2, "batch_size": 2, "learning_rate": 1e-3, "evaluate_every": 1}
PAIRED = {"steps": 6, "batch_size": 4, "learning_rate": 1e-2, "min_rows": 4}

PairKind = Literal["kto", "dpo"]
PAIR_KINDS: tuple[PairKind, ...] = ("kto", "dpo")


def prompt(number: int) -> str:
    """Return a function to document."""
    return f"def f{number}(a, b):\n    return a + b" + " + 1" * number


def sample(number: int, target: str = GOOD) -> Sample:
    """Return a sample with the docstring as its target."""
    return Sample.create(task=TASK.name, prompt=prompt(number), target=target, source="s", group="g", licence="MIT")


def rated_pairs(kind: PairKind, count: int) -> list[Any]:
    """Return pairs that prefer GOOD to BAD."""

    def turn(text: str) -> tuple[Message, ...]:
        return (Message(role="assistant", content=text),)

    def common_fields(number: int) -> dict[str, Any]:
        return {"task": TASK.name, "prompt": TASK.messages(prompt(number)), "ratings": (EVENT,)}

    if kind == "dpo":
        return [DpoPair(**common_fields(number), chosen=turn(GOOD), rejected=turn(BAD)) for number in range(count)]
    return [
        KtoPair(**common_fields(number), completion=turn(GOOD if number % 2 else BAD), label=bool(number % 2))
        for number in range(count)
    ]


def task_params(phases: Sequence[Mapping[str, object]]) -> TaskParams:
    """Return params of the task with these phases."""
    preference = next((phase["kind"] for phase in phases if phase["kind"] in PAIR_KINDS), None)
    return TaskParams.model_validate(
        {
            "source": {"kind": "installed", "train": ["a"], "validation": ["b"], "test": ["c"]},
            "split": {"train": 6, "validation": 2, "test": 2, "preference": preference},
            "adapter": {"rank": 4, "alpha": 8, "dropout": 0.1, "target_modules": ["gate_up_proj", "down_proj"]},
            "training": {"max_length": 256, "evaluate_samples": 2, "phases": list(phases)},
            "generation": {"max_new_tokens": 8, "batch_size": 4},
        }
    )


def training_context(
    loaded: LoadedBase, folder: Path, phases: Sequence[Mapping[str, object]] = (SFT,), **changes: Any
) -> TrainingContext:
    """Return the context of a training with these phases; `changes` replace fields."""
    return TrainingContext(
        **{
            "task": TASK,
            "params": task_params(phases),
            "base": BASE,
            "base_settings": BASE_SETTINGS,
            "base_revision": BASE.identity,
            "loaded": loaded,
            "scorer": ValidationScorer(TASK, loaded, Referees(sandbox=None)),  # type: ignore[arg-type]
            "seed": 1,
            "folder": folder,
            "train_samples": [sample(number) for number in range(6)],
            "validation_samples": [sample(number) for number in range(2)],
        }
        | changes
    )
