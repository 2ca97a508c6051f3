"""Training one task's adapter from its split, with everything that is needed to do it again."""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from bilora.bases.base import Base
from bilora.bases.loading import LoadedBase
from bilora.errors import Infrastructure, PreflightFailed
from bilora.inference.torch.engine import TorchEngine
from bilora.params import Generation, TaskParams
from bilora.protocols import Referees
from bilora.records import Sample
from bilora.storage import read_json, write_json
from bilora.tasks.task import Task
from bilora.training.adapter import attach, restore, save
from bilora.training.arguments import supervised
from bilora.training.preference import Preferred, Rows, encode_rows, prefer
from bilora.training.preflight import Preflight, preflight
from bilora.training.trainer import AdapterTrainer, Step, Watch, Watcher, last_checkpoint
from bilora.training_pairs import DpoPair, KtoPair


@dataclass(frozen=True)
class Trained:
    """How a run went. `best_metric` is the chosen checkpoint's on the validation sample, before any second phase."""

    steps: int
    best_step: int
    best_metric: float
    base_metric: float
    validation_loss: float
    train_loss: float
    tokens: int
    duration_s: float
    tokens_per_s: float
    resumed_from: int
    rows: int
    too_long: int
    trainable_parameters: int
    second: Preferred | None = None

    @property
    def metric(self) -> float:
        """The finished adapter's on the validation sample."""
        return self.second.metric if self.second else self.best_metric

    def metrics(self) -> dict[str, float]:
        """Return every number under one name each; the second phase's begin with `preference_`."""
        own = {name: float(value) for name, value in vars(self).items() if name != "second"}
        second = vars(self.second) if self.second else {}
        return own | {f"preference_{name}": float(value) for name, value in second.items()}


def measure(
    engine: TorchEngine,
    system: str,
    task: Task,
    samples: Sequence[Sample],
    generation: Generation,
    referees: Referees,
    seed: int,
) -> float:
    """Mean headline score of `system` on `samples`, exactly as the benchmark asks and scores.

    Raises:
        Infrastructure: every score is missing, so that no checkpoint could be chosen.
    """
    completions = engine.generate(system, task.requests(samples, generation, seed))
    answered = zip(samples, completions, strict=True)
    pairs = [(sample, task.read_answer(made.text, sample.prompt)) for sample, made in answered]
    scores = task.metrics[0].score(pairs, referees, system=system)
    values = [row[0].value for row in scores if row[0].value is not None]
    if not values:
        raise Infrastructure(f"No validation answer of {task.name} could be scored: {scores[0][0].reason}.")
    return sum(values) / len(values)


def _pick(samples: Sequence[Sample], count: int, seed: int) -> list[Sample]:
    ordered = sorted(samples, key=lambda sample: sample.id)
    return random.Random(seed).sample(ordered, min(count, len(ordered)))


def partly_hidden(task: Task, samples: Sequence[Sample], share: float, seed: int) -> list[Sample]:
    """Ask a share of the samples without the test that the others show.

    Raises:
        PreflightFailed: the task's prompts show no tests.
    """
    if share and task.hide_tests is None:
        raise PreflightFailed(f"{task.name} shows no tests; take training.hidden_tests out of its part of params.yaml.")
    chosen = {sample.id for sample in _pick(samples, round(share * len(samples)), seed)}
    return [task.hide_tests(one) if task.hide_tests and one.id in chosen else one for one in samples]


def train(
    task: Task,
    *,
    params: TaskParams,
    base: Base,
    base_revision: str,
    loaded: LoadedBase,
    train_samples: Sequence[Sample],
    validation_samples: Sequence[Sample],
    preferences: Sequence[KtoPair] | Sequence[DpoPair] = (),
    referees: Referees,
    seed: int,
    identity: str,
    checkpoints: Path,
    destination: Path,
    sinks: Sequence[str] = (),
    watch: Watch,
    announce: Callable[[Preflight], None],
) -> Trained:
    """Train, keep the best checkpoint by the task's own metric, save it to `destination`.

    Where params ask for it, a second phase on `preferences` goes on from that checkpoint; its adapter
    is then the one that is saved, whatever the validation sample says of it.

    An interrupted run of the same `identity` (hash of everything that decides the outcome) goes on
    from its last whole checkpoint, or with the second phase if the first was done; checkpoints of any
    other identity are never used.

    Raises:
        PreflightFailed: before the first step, when training would not teach what it should.
    """
    tokenizer, generation = loaded.tokenizer, params.generation
    stops = loaded.stop_ids
    asked = partly_hidden(task, train_samples, params.training.hidden_tests, seed)
    checked = preflight(tokenizer, task, asked, stops, max_length=params.training.max_length)
    held_out = _pick(validation_samples, params.training.evaluate_samples, seed)
    watched = preflight(tokenizer, task, held_out, stops, max_length=params.training.max_length)
    kind, rows = params.split.preference, None
    if kind:
        rows = encode_rows(tokenizer, task.name, kind, preferences, stops, params.training, seed=seed)
    announce(checked)
    base_metric = measure(
        TorchEngine(loaded, {}, batch_size=generation.batch_size),
        "base",
        task,
        held_out,
        generation,
        referees,
        seed,
    )
    model = attach(loaded.model, params.adapter, seed=seed)

    def score(current: Any) -> float:
        carried = LoadedBase(current, tokenizer, loaded.mode)
        engine = TorchEngine(carried, {}, batch_size=generation.batch_size, active_adapter=task.name)
        return measure(engine, task.name, task, held_out, generation, referees, seed)

    folder = checkpoints / identity[:16]
    for other in checkpoints.glob("*"):
        if other != folder:
            shutil.rmtree(other)
    first, account = folder / "first", folder / "first.json"
    if first.exists():  # it is renamed into place after the account of it
        restore(model, first)
        outcome = Trained(**read_json(account))
    else:
        outcome = _supervised(
            model, tokenizer, params, checked, watched, score, base_metric, seed, folder, sinks, watch
        )
        if rows:
            write_json(account, asdict(outcome))
            save(model, first, base, base_revision)
    if rows:
        outcome = replace(outcome, second=_second(model, tokenizer, rows, params, score, seed, folder, sinks, watch))
    save(model, destination, base, base_revision)
    shutil.rmtree(checkpoints)
    return outcome


def _supervised(
    model: Any,
    tokenizer: Any,
    params: TaskParams,
    checked: Preflight,
    watched: Preflight,
    score: Callable[[Any], float],
    base_metric: float,
    seed: int,
    folder: Path,
    sinks: Sequence[str],
    watch: Watch,
) -> Trained:
    """Run the first phase; leave the model with the best checkpoint's adapter."""
    from datasets import Dataset
    from transformers import EarlyStoppingCallback, PrinterCallback
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    trainer = AdapterTrainer(
        measure=score,
        model=model,
        args=supervised(params.training, seed=seed, output=folder, sinks=sinks),
        processing_class=tokenizer,
        train_dataset=_dataset(checked, Dataset),
        eval_dataset=_dataset(watched, Dataset),
        data_collator=DataCollatorForLanguageModeling(pad_token_id=tokenizer.pad_token_id),
        callbacks=[Watcher(watch), EarlyStoppingCallback(params.training.patience)],
    )
    trainer.remove_callback(PrinterCallback)
    resume = last_checkpoint(folder)
    began = time.monotonic()
    result = trainer.train(resume_from_checkpoint=str(resume) if resume else None)
    duration = time.monotonic() - began
    best = Path(trainer.state.best_model_checkpoint or "")
    tokens = int(getattr(trainer, "_total_train_tokens", 0))
    looks = [row for row in trainer.state.log_history if "eval_metric" in row]
    chosen = max(looks, key=lambda row: row["eval_choice"])
    return Trained(
        steps=trainer.state.global_step,
        best_step=int(best.name.partition("-")[2] or trainer.state.global_step),
        best_metric=chosen["eval_metric"],
        base_metric=base_metric,
        validation_loss=chosen["eval_loss"],
        train_loss=float(result.training_loss),
        tokens=tokens,
        duration_s=duration,
        tokens_per_s=tokens / duration,
        resumed_from=int(resume.name.partition("-")[2]) if resume else 0,
        rows=len(checked.rows),
        too_long=checked.too_long,
        trainable_parameters=sum(p.numel() for p in model.parameters() if p.requires_grad),
    )


def _second(
    model: Any,
    tokenizer: Any,
    rows: Rows,
    params: TaskParams,
    score: Callable[[Any], float],
    seed: int,
    folder: Path,
    sinks: Sequence[str],
    watch: Watch,
) -> Preferred:
    """Run the second phase and look at the validation sample once."""
    done = prefer(
        model,
        tokenizer,
        rows,
        params.training,
        seed=seed,
        output=folder,
        sinks=sinks,
        told=lambda step, loss: watch(Step(step, None, None, preference_loss=loss)),
    )
    model.eval()
    return replace(done, metric=score(model))


def _dataset(checked: Preflight, kind: Any) -> Any:
    return kind.from_list(
        [{"input_ids": row.input_ids, "labels": row.labels, "length": len(row.input_ids)} for row in checked.rows]
    )
