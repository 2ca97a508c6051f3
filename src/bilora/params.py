"""params.yaml as types. It is read once, by the entry point; every package below is given just its section.

Numbers are here, behaviour in code. Unknown keys are faults, and all faults are reported at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator, model_validator

from bilora.external_services import AnyHub, Endpoint
from bilora.plugins import (
    BASE_KINDS,
    NO_GGUF,
    PHASE_KINDS,
    SOURCE_KINDS,
    BaseSettings,
    PhaseSettings,
    SourceSettings,
    load_kind,
    settings_of,
)
from bilora.requests import SamplingParams
from bilora.yaml_settings import Count, Flag, Fraction, Settings, load_yaml, parse_settings


def _no_old_base(entry: object) -> object:
    """Refuse a base without a kind, as it was written before there were kinds, and show the entry to write instead."""
    if not isinstance(entry, dict) or "kind" in entry or not isinstance(entry.get("id"), str):
        return entry
    others = {name: value for name, value in entry.items() if name not in ("id", "revision", "path")}
    revision = entry.get("revision")
    new = _flow({"kind": "hub", "id": entry["id"], "revision": revision or "COMMIT", **others})
    if revision is None:
        new = f"{_flow({'kind': 'folder', 'path': entry['id'], **others})}, or for a model of the hub {new}"
    raise ValueError(f"`id` without `kind` is no longer read; write base: {new}")


def _flow(entry: Mapping[str, object]) -> str:
    """Return an entry as YAML in one line."""
    pairs = (f"{name}: {'null' if value is None else value}" for name, value in entry.items())
    return f"{{{', '.join(pairs)}}}"


if TYPE_CHECKING:
    AnyBase = BaseSettings
    AnyPhase = PhaseSettings
    AnySource = SourceSettings
else:
    AnyPhase = settings_of(PHASE_KINDS, "PHASE", PhaseSettings)
    AnySource = settings_of(SOURCE_KINDS, "SOURCE", SourceSettings)
    AnyBase = Annotated[settings_of(BASE_KINDS, "BASE", BaseSettings), BeforeValidator(_no_old_base)]


class Processing(Settings):
    """data-process: what counts as a duplicate and as too long."""

    near_duplicate: Fraction = 0.85
    contamination_ngram: Count = 13
    max_prompt_chars: Count = 4000
    max_target_chars: Count = 2000


class Splitting(Settings):
    """data-split: the most samples per split; groups without an official split are assigned by hash.

    `feedback: mix` adds the answers that people edited to the training split. `preference` selects the
    rated pairs that a phase trains on: thumbs (`kto`), or edits above the answers they correct (`dpo`).
    """

    train: Count
    validation: Count
    test: Count
    feedback: Literal["mix"] | None = None
    preference: Literal["kto", "dpo"] | None = None


class Adapter(Settings):
    """LoRA's shape (Hu et al. 2021): rank, scale alpha / rank, dropout, and the layers it attaches to."""

    rank: Count
    alpha: Count
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)]
    target_modules: Annotated[list[str], Field(min_length=1)]


class Training(Settings):
    """How one adapter is trained: its phases run in this order, each on the adapter that the one before left.

    Rows of more than `max_length` tokens are left out. `evaluate_samples` of the validation split are what
    checkpoints and phases are measured on.
    """

    max_length: Count
    evaluate_samples: Count
    phases: Annotated[list[AnyPhase], Field(min_length=1)]

    @property
    def steps(self) -> int:
        """Optimiser steps of all phases together."""
        return sum(phase.steps for phase in self.phases)

    @model_validator(mode="before")
    @classmethod
    def _of_phases(cls, section: object) -> object:
        """Refuse the numbers of a phase outside of one, as they were written before there were phases."""
        if not isinstance(section, dict):
            return section
        moved = load_kind(PHASE_KINDS, "sft", "PHASE").settings.model_fields.keys() & section.keys()
        faults = []
        if moved:
            entry = {name: value for name, value in section.items() if name in moved}
            faults.append(f"{', '.join(entry)} belong to a phase: write `phases: [{_flow({'kind': 'sft', **entry})}]`")
        if "preference" in section:
            faults.append(
                "preference is a phase: write its numbers as a further entry of `phases`, "
                "with the value of split.preference as its `kind`"
            )
        if faults:
            raise ValueError("; ".join(faults))
        return section

    @field_validator("phases")
    @classmethod
    def _starts_fresh(cls, phases: list[AnyPhase]) -> list[AnyPhase]:
        if not phases[0].starts_fresh:
            raise ValueError(
                f"the phase {phases[0].kind} continues an adapter; put one before it that begins with none"
            )
        return phases


class Generation(Settings):
    """How systems answer. Greedy unless `temperature` is above 0; `frequency_penalty` keeps them from repeating."""

    max_new_tokens: Count
    batch_size: Count
    temperature: Annotated[float, Field(ge=0.0)] = 0.0
    frequency_penalty: Annotated[float, Field(ge=-2.0, le=2.0)] = 0.0

    def sampling(self, *, seed: int = 0) -> SamplingParams:
        """Return how an engine is to choose the tokens of an answer."""
        return SamplingParams(
            max_tokens=self.max_new_tokens,
            temperature=self.temperature,
            seed=seed,
            frequency_penalty=self.frequency_penalty,
        )


class TaskParams(Settings):
    """One task's numbers."""

    source: AnySource
    split: Splitting
    adapter: Adapter
    training: Training
    generation: Generation
    margin: Fraction = 0.05

    @model_validator(mode="after")
    def _pairs_have_a_phase(self) -> TaskParams:
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
    """Of `answers` drawn at `temperature` to each of the first `samples` test samples: is one of any k right?"""

    samples: Count
    answers: Count
    temperature: Annotated[float, Field(gt=0.0)]
    k: Annotated[list[Count], Field(min_length=1)]

    @model_validator(mode="after")
    def _enough_answers(self) -> PassAtK:
        if max(self.k) > self.answers:
            raise ValueError(f"k = {max(self.k)} is above answers = {self.answers}")
        return self


class Benchmark(Settings):
    """The gate: how many samples it wants, how the intervals are drawn.

    Reported and never gated: `hidden_tests`, how many test samples are also answered without the test that
    their prompt shows, and `pass_at_k`; both for tasks whose answers are run. `guards` are public sets, by name, on
    which an adapter must not be worse than the base beyond doubt.
    """

    eval_dataset: str = "benchmarking/eval_dataset.json"
    samples: Count
    min_samples: Count
    draws: Annotated[int, Field(ge=1000)] = 10_000
    hidden_tests: Annotated[int, Field(ge=0)] = 0
    pass_at_k: PassAtK | None = None
    guards: list[str] = Field(default_factory=list)

    @field_validator("guards")
    @classmethod
    def _named_once(cls, guards: list[str]) -> list[str]:
        if repeated := sorted({name for name in guards if guards.count(name) > 1}):
            raise ValueError(f"named more than once: {', '.join(repeated)}")
        return guards


Quantization = Literal["f32", "f16", "q8_0", "q4_k_m"]


class Inference(Settings):
    """Who answers in chat, generate, serve and on the page; training and measuring always use torch.

    `quantization` is what the base is converted to for llama.cpp; null serves the GGUF file that it comes with.
    """

    engine: Literal["torch", "llamacpp"] = "torch"
    quantization: Quantization | None = None

    @model_validator(mode="after")
    def _of_one_engine(self) -> Inference:
        if self.engine == "torch" and self.quantization is not None:
            raise ValueError("quantization is for engine llamacpp; torch answers in base.dtype")
        return self


class Tracking(Settings):
    """Where runs are reported besides the files: names of trainer integrations."""

    sinks: list[Literal["mlflow", "trackio", "wandb", "dvclive"]] = Field(default_factory=list)


class SandboxParams(Settings):
    """Where model-written code runs. `allow_weak`: also where system calls cannot be filtered; never promotes."""

    allow_weak: Flag = False


class Params(Settings):
    """The whole of params.yaml."""

    profile: str
    seed: Annotated[int, Field(ge=0, lt=2**32)]
    base: AnyBase
    tasks: Annotated[dict[str, TaskParams], Field(min_length=1)]
    processing: Processing = Processing()
    sandbox: SandboxParams = SandboxParams()
    benchmark: Benchmark
    endpoints: list[Endpoint] = Field(default_factory=list)
    judge: Endpoint | None = None
    hub: AnyHub
    inference: Inference = Inference()
    tracking: Tracking = Tracking()

    @field_validator("inference")
    @classmethod
    def _has_a_gguf_file(cls, inference: Inference, others: ValidationInfo) -> Inference:
        """Refuse llama.cpp without a file to serve."""
        base: BaseSettings | None = others.data.get("base")  # absent if it has faults of its own
        if inference.engine == "llamacpp" and inference.quantization is None and base and not base.has_gguf:
            raise ValueError(NO_GGUF)
        return inference

    @model_validator(mode="after")
    def _enough_samples(self) -> Params:
        if self.benchmark.min_samples > self.benchmark.samples:
            raise ValueError("benchmark.min_samples is above benchmark.samples: no verdict could ever pass")
        names = [endpoint.name for endpoint in self.endpoints]
        taken = {"base", *self.tasks, *(name for name in names if names.count(name) > 1)}
        for clash in sorted(taken.intersection(names)):
            raise ValueError(f"endpoint name {clash!r} is taken")
        return self


def read_params(
    path: Path, *, known_tasks: list[str] | None = None, known_guards: Mapping[str, str] | None = None
) -> Params:
    """Read a params file.

    Args:
        known_tasks: when given, the only names allowed under `tasks`.
        known_guards: when given, the only names allowed in `benchmark.guards`, each with the task that it needs.

    Raises:
        ParamsError: with every fault and its place.
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
    """Return what is wrong with the names in `benchmark.guards`, as far as the document has the form of params."""
    match document:
        case {"tasks": dict(tasks), "benchmark": {"guards": list(names)}}:
            unknown = f"no such guard; known: {', '.join(sorted(known))}"
            return [
                f"benchmark.guards: {name}: "
                + (f"it is for the task {known[name]}, which `tasks` does not have" if name in known else unknown)
                for name in dict.fromkeys(name for name in names if isinstance(name, str))
                if known.get(name) not in tasks
            ]
    return []
