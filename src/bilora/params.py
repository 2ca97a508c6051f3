"""params.yaml as types. The entry point reads it once and passes each package its section.

Numbers are in params.yaml, behaviour is in code. Unknown keys are faults; all faults are reported together.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from bilora.external_services import AnyHub, Endpoint
from bilora.plugin_settings import AnyBase, AnyPhase, AnySource
from bilora.plugins import NO_GGUF, PHASE_KINDS, BaseSettings, load_kind
from bilora.requests import SamplingParams
from bilora.yaml_settings import Count, Flag, Fraction, Settings, inline_yaml, load_yaml, parse_settings


class Processing(Settings):
    """data-process: thresholds for duplicates, contamination and length."""

    near_duplicate: Fraction = Field(default=0.85, description="similarity from which two samples count as duplicates")
    contamination_ngram: Count = Field(default=13, description="words of a shared n-gram that is contamination")
    max_prompt_chars: Count = Field(default=4000, description="characters of the longest prompt")
    max_target_chars: Count = Field(default=2000, description="characters of the longest reference answer")


class Splitting(Settings):
    """data-split: the size of each split. Groups without an official split are assigned by hash, in its proportion."""

    train: Count = Field(description="training samples, at most")
    validation: Count = Field(description="samples that select the checkpoint, at most")
    test: Count = Field(description="held-out samples that the gate uses, at most")
    feedback: Literal["mix"] | None = Field(
        default=None, description="`mix` adds corrected answers to the training split"
    )
    preference: Literal["kto", "dpo"] | None = Field(
        default=None, description="rated pairs for a phase: thumbs (`kto`), or corrections and their answers (`dpo`)"
    )


class Adapter(Settings):
    """LoRA (Hu et al. 2021)."""

    rank: Count = Field(description="rank of the two matrices of each adapted module")
    alpha: Count = Field(description="the update is scaled by alpha / rank")
    dropout: float = Field(ge=0.0, lt=1.0, description="dropout of the adapter's input in training")
    target_modules: list[str] = Field(min_length=1, description="names of the base model's linear layers to adapt")


class Training(Settings):
    """The training of one adapter."""

    max_length: Count = Field(description="tokens of the longest row; longer ones are skipped")
    evaluate_samples: Count = Field(description="validation samples that checkpoints and phases are evaluated on")
    phases: list[AnyPhase] = Field(min_length=1, description="run in order, each on the adapter of the previous one")

    @property
    def steps(self) -> int:
        """The total number of optimizer steps of all phases."""
        return sum(phase.steps for phase in self.phases)

    @model_validator(mode="before")
    @classmethod
    def _require_phases(cls, section: object) -> object:
        """Refuse a phase's settings outside `phases`, the syntax of earlier versions, and show the new entry."""
        if not isinstance(section, dict):
            return section
        moved = load_kind(PHASE_KINDS, "sft", "PHASE").settings.model_fields.keys() & section.keys()
        faults = []
        if moved:
            entry = {name: value for name, value in section.items() if name in moved}
            phase = inline_yaml({"kind": "sft", **entry})
            faults.append(f"{', '.join(entry)} belong to a phase: write `phases: [{phase}]`")
        if "preference" in section:
            faults.append(
                "preference is a phase: move its settings to a new entry of `phases`, "
                "with the value of split.preference as its `kind`"
            )
        if faults:
            raise ValueError("; ".join(faults))
        return section

    @field_validator("phases")
    @classmethod
    def _check_first_phase(cls, phases: list[AnyPhase]) -> list[AnyPhase]:
        if not phases[0].starts_fresh:
            raise ValueError(f"the phase {phases[0].kind} needs a trained adapter; put a phase such as sft before it")
        return phases


class Generation(Settings):
    """How answers are generated."""

    max_new_tokens: Count = Field(description="tokens of the longest answer")
    batch_size: Count = Field(description="questions that are answered together")
    temperature: float = Field(default=0.0, ge=0.0, description="0 takes the most likely token")
    frequency_penalty: float = Field(default=0.0, ge=-2.0, le=2.0, description="above 0 reduces repetition")

    def sampling(self, *, seed: int = 0) -> SamplingParams:
        """Return the engine's sampling parameters."""
        return SamplingParams(
            max_tokens=self.max_new_tokens,
            temperature=self.temperature,
            seed=seed,
            frequency_penalty=self.frequency_penalty,
        )


class TaskParams(Settings):
    """The settings of one task."""

    source: AnySource = Field(description="where the task's rows come from")
    split: Splitting = Field(description="the size of each split")
    adapter: Adapter = Field(description="rank, scale, dropout and adapted modules")
    training: Training = Field(description="length, validation and phases")
    generation: Generation = Field(description="how answers are generated")
    margin: Fraction = Field(default=0.05, description="how far a metric in [0, 1] may be below the promoted adapter's")

    @model_validator(mode="after")
    def _check_preference(self) -> TaskParams:
        selected = self.split.preference
        trained = {phase.pairs: phase.kind for phase in self.training.phases if phase.pairs}
        if selected and selected not in trained:
            raise ValueError(
                f"split.preference selects {selected} pairs, and no entry of training.phases trains on them: add one"
            )
        for pairs, kind in trained.items():
            if pairs != selected:
                raise ValueError(f"the phase {kind} has no rows: set split.preference to {pairs}")
        return self


class PassAtK(Settings):
    """pass@k: the estimated probability that at least one of k sampled answers is right."""

    samples: Count = Field(description="test samples that are answered several times, the first of the split")
    answers: Count = Field(description="sampled answers per test sample")
    temperature: float = Field(gt=0.0, description="temperature of these answers")
    k: list[Count] = Field(min_length=1, description="values of k, each at most `answers`")

    @model_validator(mode="after")
    def _check_k(self) -> PassAtK:
        if max(self.k) > self.answers:
            raise ValueError(f"k = {max(self.k)} is above answers = {self.answers}")
        return self


class Benchmark(Settings):
    """The benchmark and its gate. `hidden_tests` and `pass_at_k` apply to tasks whose answers are executed."""

    eval_dataset: str = Field(default="benchmarking/eval_dataset.json", description="file of the curated samples")
    samples: Count = Field(description="test samples per task, at most")
    min_samples: Count = Field(description="scored test samples that a verdict needs")
    draws: int = Field(default=10_000, ge=1000, description="bootstrap draws of each confidence interval")
    hidden_tests: int = Field(
        default=0, ge=0, description="test samples that are also answered without the test in their prompt; never gates"
    )
    pass_at_k: PassAtK | None = Field(default=None, description="several sampled answers per test sample; never gates")
    guards: list[str] = Field(
        default_factory=list, description="public datasets on which an adapter must not be significantly worse"
    )

    @field_validator("guards")
    @classmethod
    def _check_unique(cls, guards: list[str]) -> list[str]:
        if repeated := sorted({name for name in guards if guards.count(name) > 1}):
            raise ValueError(f"named more than once: {', '.join(repeated)}")
        return guards


Quantization = Literal["f32", "f16", "q8_0", "q4_k_m"]


class Inference(Settings):
    """The engine of chat, generate, serve and the page; training and evaluation always use torch."""

    engine: Literal["torch", "llamacpp"] = Field(default="torch", description="the library that generates")
    quantization: Quantization | None = Field(
        default=None, description="what the base is converted to for llama.cpp; null serves the base's own GGUF file"
    )

    @model_validator(mode="after")
    def _check_quantization(self) -> Inference:
        if self.engine == "torch" and self.quantization is not None:
            raise ValueError("quantization needs engine llamacpp; torch uses base.dtype")
        return self


class Tracking(Settings):
    """Experiment trackers."""

    sinks: list[Literal["mlflow", "trackio", "wandb", "dvclive"]] = Field(
        default_factory=list, description="trackers that training also logs to"
    )


class SandboxParams(Settings):
    """The sandbox, which runs model-written code."""

    allow_weak: Flag = Field(
        default=False, description="run code even if system calls cannot be filtered; such a run is never promoted"
    )


class Params(Settings):
    """All settings of params.yaml."""

    profile: str = Field(description="name of these settings")
    seed: int = Field(ge=0, lt=2**32, description="seed of data, training and evaluation")
    base: AnyBase = Field(description="the frozen base model")
    tasks: dict[str, TaskParams] = Field(min_length=1, description="one entry per adapter, by the task's name")
    processing: Processing = Field(default=Processing(), description="thresholds of data-process")
    sandbox: SandboxParams = Field(default=SandboxParams(), description="where model-written code runs")
    benchmark: Benchmark = Field(description="the benchmark and its gate")
    endpoints: list[Endpoint] = Field(default_factory=list, description="other models to compare with")
    judge: Endpoint | None = Field(default=None, description="the model that rates answers")
    hub: AnyHub = Field(description="where `push-adapters` publishes")
    inference: Inference = Field(default=Inference(), description="the engine outside training and evaluation")
    tracking: Tracking = Field(default=Tracking(), description="experiment trackers")

    @field_validator("inference")
    @classmethod
    def _check_gguf(cls, inference: Inference, others: ValidationInfo) -> Inference:
        """Refuse llama.cpp if there is neither a GGUF file nor a quantization."""
        base: BaseSettings | None = others.data.get("base")  # absent if the base is invalid
        if inference.engine == "llamacpp" and inference.quantization is None and base and not base.has_gguf:
            raise ValueError(NO_GGUF)
        return inference

    @model_validator(mode="after")
    def _check_samples_and_names(self) -> Params:
        if self.benchmark.min_samples > self.benchmark.samples:
            raise ValueError("benchmark.min_samples is above benchmark.samples, so no verdict could pass")
        names = [endpoint.name for endpoint in self.endpoints]
        reserved = {"base", *self.tasks, *(name for name in names if names.count(name) > 1)}
        for clash in sorted(reserved.intersection(names)):
            raise ValueError(f"endpoint name {clash!r} is taken")
        return self


def read_params(
    path: Path, *, known_tasks: list[str] | None = None, known_guards: Mapping[str, str] | None = None
) -> Params:
    """Load a params file.

    Args:
        known_tasks: the names allowed under `tasks`; any if None.
        known_guards: the names allowed in `benchmark.guards`, each with its task; any if None.

    Raises:
        ParamsError: with all faults and their keys.
    """
    document, faults = load_yaml(path, absent="`bilora profile use smollm2` writes one")
    if known_tasks is not None and isinstance(document, dict) and isinstance(document.get("tasks"), dict):
        faults += [
            f"tasks.{name}: no such task; known: {', '.join(known_tasks)}"
            for name in document["tasks"]
            if name not in known_tasks
        ]
    if known_guards is not None:
        faults += _guard_faults(document, known_guards)
    return parse_settings(path, Params, document, faults)


def _guard_faults(document: object, known: Mapping[str, str]) -> list[str]:
    """Return the faults of `benchmark.guards`; [] if the document does not have the sections to check it."""
    match document:
        case {"tasks": dict(tasks), "benchmark": {"guards": list(names)}}:
            unknown = f"no such guard; known: {', '.join(sorted(known))}"
            return [
                f"benchmark.guards: {name}: "
                + (f"it needs the task {known[name]}, which `tasks` does not have" if name in known else unknown)
                for name in dict.fromkeys(name for name in names if isinstance(name, str))
                if known.get(name) not in tasks
            ]
    return []
