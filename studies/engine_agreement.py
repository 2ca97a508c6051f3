"""How closely llama.cpp answers as torch does, for the base of params.yaml and adapters on it.

    python studies/engine_agreement.py [--checkout .] [--adapters codegen=FOLDER docstring=FOLDER] [--prompts 200]
                                       [--tokens 64] [--samples 100] [--quantization q4_k_m]

Prompts are the first rows of the test splits, as many of each task; adapters default to those of the checkout.

1. In float32 (weights, KV cache, attention) both engines answer every prompt greedily as the base and as each adapter.
   Answers that differ are counted, and those of them whose first difference is no near-tie: there the two best logits
   of transformers are more than 0.001 apart.
2. The file that llama.cpp serves (the base's own GGUF file, or --quantization) against torch in float32: the mean KL
   divergence per token of the next-token distributions along torch's answers, and how often the best token is the same.
3. The same two on the test rows of each task, with the task's own decoding: the share of equal answers, each engine's
   mean of the headline metric, and the paired difference with its 95 % interval.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any, get_args

import torch

from bilora.bases.base import Base
from bilora.cli.progress import bar
from bilora.evaluation.run import EvalConfig, EvalSet, evaluate
from bilora.evaluation.statistics import paired_difference
from bilora.inference.engine import BASE_SYSTEM
from bilora.inference.engines import EngineOptions, LocalEngine, load_local_engine
from bilora.inference.llamacpp.amx_check import amx_works
from bilora.inference.llamacpp.bindings import LlamaContext, LlamaModel
from bilora.inference.llamacpp.gguf import adapter_gguf, base_gguf
from bilora.inference.llamacpp.weights import gguf_model, open_weights
from bilora.inference.peft_adapter import read_peft_adapter
from bilora.library_logs import silence_libraries
from bilora.params import Quantization
from bilora.protocols import Referees, no_bar
from bilora.records import Completion, Sample
from bilora.requests import Chunk, Request, SamplingParams, Submission
from bilora.storage import adapter_sha256
from bilora.workspace import Workspace

NEAR_TIE = 1e-3
"""Between two logits that rounding may put in another order."""
TORCH_ROWS, LLAMA_ROWS = 32, 8


@dataclass(frozen=True)
class Answer:
    """One greedy answer of one system, as token ids."""

    system: str
    prompt_ids: list[int]
    output_ids: list[int]


class Reference:
    """transformers' model in float32 with PEFT's adapters."""

    def __init__(self, base: Base, adapters: Mapping[str, Path]) -> None:
        """Load the base and its adapters."""
        from peft import PeftModel

        self._model: Any = base.load(training=False).model
        for name, folder in adapters.items():
            if isinstance(self._model, PeftModel):
                self._model.load_adapter(str(folder), adapter_name=name)
            else:
                self._model = PeftModel.from_pretrained(self._model, str(folder), adapter_name=name)
        self._model.eval()

    def logits(self, system: str, ids: Sequence[int], last: int) -> torch.Tensor:
        """Return the logits after the `last` of these tokens, shape (last, vocabulary)."""
        with torch.inference_mode():
            if system != BASE_SYSTEM:
                self._model.set_adapter(system)
                return self._forward(ids, last)
            if not hasattr(self._model, "disable_adapter"):
                return self._forward(ids, last)
            with self._model.disable_adapter():
                return self._forward(ids, last)

    def _forward(self, ids: Sequence[int], last: int) -> torch.Tensor:
        logits: torch.Tensor = self._model(input_ids=torch.tensor([list(ids)]), logits_to_keep=last).logits[0]
        return logits.float()


def greedy_answers(engine: LocalEngine, title: str, requests: Sequence[tuple[str, Request]]) -> list[Answer]:
    """Return each request's greedy answer, in the order given."""
    events: SimpleQueue[Chunk | Completion | Exception] = SimpleQueue()
    submissions = [Submission(system, request, events.put) for system, request in requests]
    jobs: Any = engine.prepare(submissions, streamed=False)
    with bar(title, len(jobs), "answers") as progress:
        engine.submit(sorted(jobs, key=lambda job: -job.prompt_tokens))
        for _ in jobs:
            if isinstance(event := events.get(), Exception):
                raise event
            progress(1)
    return [Answer(job.system, job.prompt_ids, job.output_ids) for job in jobs]


def first_difference(one: Sequence[int], other: Sequence[int]) -> int | None:
    """Return the first place at which two answers differ; None if they are equal."""
    if one == other:
        return None
    pairs = enumerate(zip(one, other, strict=False))
    return next((place for place, (left, right) in pairs if left != right), min(len(one), len(other)))


def exact_table(reference: Reference, ours: Sequence[Answer], theirs: Sequence[Answer]) -> Iterator[str]:
    """Yield the lines of part 1."""
    yield "| system | prompts | tokens | equal answers | first difference at a near-tie | other differences |"
    yield "|---|---:|---:|---:|---:|---:|"
    for system in dict.fromkeys(answer.system for answer in ours):
        gaps = []
        pairs = [pair for pair in zip(ours, theirs, strict=True) if pair[0].system == system]
        for one, other in pairs:
            place = first_difference(one.output_ids, other.output_ids)
            if place is not None:
                logits = reference.logits(system, one.prompt_ids + one.output_ids[:place], 1)
                best, second = logits[0].topk(2).values.tolist()
                gaps.append(best - second)
        ties = sum(gap <= NEAR_TIE for gap in gaps)
        tokens = sum(len(one.output_ids) for one, _ in pairs)
        yield f"| {system} | {len(pairs)} | {tokens} | {len(pairs) - len(gaps)} | {ties} | {len(gaps) - ties} |"


def served_contexts(
    base: Base, adapters: Mapping[str, Path], quantization: Quantization | None, cache: Path
) -> dict[str, LlamaContext]:
    """Return llama.cpp's context of each system, from the files that its engine serves."""
    described = gguf_model(base)
    file = base.gguf(
        quantization, lambda _, kind: base_gguf(open_weights(base.folder(), described), kind, cache, no_bar)
    )
    float32 = quantization == "f32"
    model = LlamaModel(
        file,
        max_sequences=1,
        kv_capacity=min(4096, described.config.max_position_embeddings),
        threads=torch.get_num_threads(),
        kv_float32=float32,
        repack=float32 or amx_works(file, cache, no_bar),
    )
    files = {
        name: adapter_gguf(read_peft_adapter(folder), folder, described, cache, float32=float32)
        for name, folder in adapters.items()
    }
    return {BASE_SYSTEM: model.context(), **{name: model.context(path) for name, path in files.items()}}


def divergence_table(
    reference: Reference, contexts: Mapping[str, LlamaContext], answers: Sequence[Answer]
) -> Iterator[str]:
    """Yield the lines of part 2."""
    yield "| system | tokens | mean KL per token, nats | same best token |"
    yield "|---|---:|---:|---:|"
    found: dict[str, list[tuple[float, bool]]] = {}
    with bar("Divergence", len(answers), "answers") as progress:
        for answer in answers:
            count = len(answer.output_ids)
            ids = answer.prompt_ids + answer.output_ids[:-1]
            tokens = [(token, place, 0) for place, token in enumerate(ids)]
            context = contexts[answer.system]
            # In two calls: a call returns logits of its last pass only, which a long prompt would fill.
            first = context.logits(tokens[: len(answer.prompt_ids)], 1).clone()
            rest = [context.logits(tokens[len(answer.prompt_ids) :], count - 1).clone()] if count > 1 else []
            context.remove(0)
            served = torch.cat([first, *rest]).log_softmax(-1)
            expected = reference.logits(answer.system, ids, count).log_softmax(-1)
            divergences = (expected.exp() * (expected - served)).sum(-1)
            same = expected.argmax(-1) == served.argmax(-1)
            found.setdefault(answer.system, []).extend(zip(divergences.tolist(), same.tolist(), strict=True))
            progress(1)
    for system, values in found.items():
        mean, share = statistics.fmean(value for value, _ in values), statistics.fmean(same for _, same in values)
        yield f"| {system} | {len(values)} | {mean:.5f} | {share:.2%} |"


def metrics_table(
    workspace: Workspace, engines: Mapping[str, LocalEngine], adapters: Mapping[str, Path], samples: int
) -> Iterator[str]:
    """Yield the lines of part 3."""
    yield f"| task | system | rows | equal answers | metric | {' | '.join(engines)} | difference [95 %] |"
    yield "|---|---|---:|---:|---|---:|---:|---:|"
    with workspace.sandbox() as sandbox:
        for name, folder in adapters.items():
            chosen, task = workspace.task(name)
            rows = workspace.split_samples(name, "test")[:samples]
            measurement = EvalConfig(
                task, adapter_sha256(folder), chosen.generation, workspace.params.seed, Referees(sandbox=sandbox)
            )
            answered = {}
            for title, engine in engines.items():
                with bar(f"{name} through {title}", 2 * len(rows), "answers") as progress:
                    answered[title] = evaluate(
                        measurement, {"test": EvalSet(rows)}, {BASE_SYSTEM: engine, name: engine}, progress=progress
                    )
            for system in (BASE_SYSTEM, name):
                texts, scores = [], []
                for found in answered.values():
                    own = [row for row in found if row.completion.system == system]
                    texts.append([row.completion.text for row in own])
                    scores.append([score.value for row in own for score in row.scores if score.metric == task.headline])
                if any(value is None for values in scores for value in values):
                    raise SystemExit(f"{name}: some answers are unscored; see `bilora doctor`.")
                one, other = ([float(value or 0.0) for value in values] for values in scores)
                equal = sum(left == right for left, right in zip(*texts, strict=True))
                interval = paired_difference(other, one, seed=workspace.params.seed)
                yield (
                    f"| {name} | {system} | {len(one)} | {equal / len(one):.0%} | {task.headline} "
                    f"| {100 * statistics.fmean(one):.1f} | {100 * statistics.fmean(other):.1f} "
                    f"| {100 * interval.mean:+.1f} [{100 * interval.low:+.1f}, {100 * interval.high:+.1f}] |"
                )


def prompts(workspace: Workspace, count: int, tokens: int) -> list[Request]:
    """Return greedy requests for the first test samples of each task, `count` in all."""
    found: list[Request] = []
    for name, task in workspace.tasks.items():
        samples: list[Sample] = workspace.split_samples(name, "test")[: count // len(workspace.tasks)]
        sampling = SamplingParams(max_tokens=tokens)
        found += [Request(f"{name}/{one.id}", task.messages(one.prompt), sampling) for one in samples]
    return found


def main() -> None:
    """Run the parts and print their tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkout", type=Path, default=Path())
    parser.add_argument("--adapters", nargs="+", default=[], metavar="TASK=FOLDER")
    parser.add_argument("--prompts", type=int, default=200)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--samples", type=int, default=100)
    parser.add_argument("--quantization", choices=get_args(Quantization), help="default: the base's own GGUF file")
    options = parser.parse_args()
    silence_libraries()
    workspace = Workspace(options.checkout)
    base = replace(workspace.base(), dtype="float32")
    adapters = {name: Path(folder) for name, _, folder in (one.partition("=") for one in options.adapters)}
    adapters = adapters or {name: workspace.checked_adapter(name) for name in workspace.tasks}
    load = partial(load_local_engine, base=base, adapters=adapters)
    engine_options = EngineOptions(batch_size=TORCH_ROWS, cache=workspace.cache("gguf"))
    few_rows = replace(engine_options, batch_size=LLAMA_ROWS)
    requests = prompts(workspace, options.prompts, options.tokens)
    questions = [(system, request) for system in (BASE_SYSTEM, *adapters) for request in requests]
    reference, local = Reference(base, adapters), load("torch", options=engine_options)

    torch_answers = greedy_answers(local, "torch, float32", questions)
    if options.prompts:
        exact = load("llamacpp", options=replace(few_rows, quantization="f32"))
        exact_answers = greedy_answers(exact, "llama.cpp, f32", questions)
        print(*exact_table(reference, torch_answers, exact_answers), sep="\n", end="\n\n", flush=True)
        contexts = served_contexts(base, adapters, options.quantization, workspace.cache("gguf"))
        print(*divergence_table(reference, contexts, torch_answers), sep="\n", end="\n\n", flush=True)
        del exact, contexts
    if options.samples:
        served = load("llamacpp", options=replace(few_rows, quantization=options.quantization))
        print(*metrics_table(workspace, {"torch": local, "llama.cpp": served}, adapters, options.samples), sep="\n")


if __name__ == "__main__":
    main()
