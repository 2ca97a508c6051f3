"""Agreement of the engines llama.cpp and torch, for the base of params.yaml and its adapters.

    python studies/engine_agreement.py [--checkout .] [--adapters codegen=FOLDER docstring=FOLDER] [--prompts 200]
                                       [--tokens 64] [--samples 100] [--quantization q4_k_m]

Prompts are the first samples of the test splits, equally many per task; adapters default to those of the workspace.

1. In float32 (weights, KV cache, attention) both engines answer every prompt greedily as the base and as each adapter.
   It counts the answers that differ, and among them those whose first difference is at a near-tie: the two best logits
   of transformers differ by at most 0.001.
2. The file that llama.cpp serves (the base's GGUF file, or --quantization) against torch in float32: the mean KL
   divergence per token of the next-token distributions along torch's answers, and how often the best token is the same.
3. The same file and torch on the test samples of each task, with the task's decoding: the share of equal answers, each
   engine's mean of the headline metric, and the paired difference with its 95 % interval.
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
"""Difference of two logits whose order may depend on rounding."""
TORCH_BATCH_SIZE, LLAMA_BATCH_SIZE = 32, 8


@dataclass(frozen=True)
class Answer:
    """The token ids of one greedy answer of one system."""

    system: str
    prompt_ids: list[int]
    output_ids: list[int]


class Reference:
    """The model of transformers in float32, with adapters of PEFT."""

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
        """Return the logits after each of the last `last` tokens, shape (last, vocabulary)."""
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
    """Return the greedy answers in the order of the requests."""
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


def first_difference(left: Sequence[int], right: Sequence[int]) -> int | None:
    """Return the first index at which two answers differ; None if they are equal."""
    if left == right:
        return None
    pairs = enumerate(zip(left, right, strict=False))
    return next((index for index, (a, b) in pairs if a != b), min(len(left), len(right)))


def exact_table(
    reference: Reference, torch_answers: Sequence[Answer], llama_answers: Sequence[Answer]
) -> Iterator[str]:
    """Yield the lines of part 1."""
    yield "| system | prompts | tokens | equal answers | first difference at a near-tie | other differences |"
    yield "|---|---:|---:|---:|---:|---:|"
    for system in dict.fromkeys(answer.system for answer in torch_answers):
        gaps = []
        pairs = [pair for pair in zip(torch_answers, llama_answers, strict=True) if pair[0].system == system]
        for answer, llama_answer in pairs:
            index = first_difference(answer.output_ids, llama_answer.output_ids)
            if index is not None:
                logits = reference.logits(system, answer.prompt_ids + answer.output_ids[:index], 1)
                best, second = logits[0].topk(2).values.tolist()
                gaps.append(best - second)
        ties = sum(gap <= NEAR_TIE for gap in gaps)
        tokens = sum(len(answer.output_ids) for answer, _ in pairs)
        yield f"| {system} | {len(pairs)} | {tokens} | {len(pairs) - len(gaps)} | {ties} | {len(gaps) - ties} |"


def served_contexts(
    base: Base, adapters: Mapping[str, Path], quantization: Quantization | None, cache: Path
) -> dict[str, LlamaContext]:
    """Return llama.cpp's context of each system, from the files that its engine serves."""
    model_info = gguf_model(base)
    file = base.gguf(
        quantization, lambda _, kind: base_gguf(open_weights(base.folder(), model_info), kind, cache, no_bar)
    )
    float32 = quantization == "f32"
    model = LlamaModel(
        file,
        max_sequences=1,
        kv_capacity=min(4096, model_info.config.max_position_embeddings),
        threads=torch.get_num_threads(),
        kv_float32=float32,
        repack=float32 or amx_works(file, cache, no_bar),
    )
    files = {
        name: adapter_gguf(read_peft_adapter(folder), folder, model_info, cache, float32=float32)
        for name, folder in adapters.items()
    }
    return {BASE_SYSTEM: model.context(), **{name: model.context(path) for name, path in files.items()}}


def divergence_table(
    reference: Reference, contexts: Mapping[str, LlamaContext], answers: Sequence[Answer]
) -> Iterator[str]:
    """Yield the lines of part 2."""
    yield "| system | tokens | mean KL per token, nats | same best token |"
    yield "|---|---:|---:|---:|"
    per_token: dict[str, list[tuple[float, bool]]] = {}
    with bar("Divergence", len(answers), "answers") as progress:
        for answer in answers:
            count = len(answer.output_ids)
            ids = answer.prompt_ids + answer.output_ids[:-1]
            tokens = [(token, position, 0) for position, token in enumerate(ids)]
            context = contexts[answer.system]
            # Two calls, because a call returns only the logits of its last pass, which a long prompt would fill.
            logits = [context.logits(tokens[: len(answer.prompt_ids)], 1).clone()]
            if count > 1:
                logits.append(context.logits(tokens[len(answer.prompt_ids) :], count - 1).clone())
            context.remove(0)
            llama_logprobs = torch.cat(logits).log_softmax(-1)
            logprobs = reference.logits(answer.system, ids, count).log_softmax(-1)
            divergences = (logprobs.exp() * (logprobs - llama_logprobs)).sum(-1)
            same = logprobs.argmax(-1) == llama_logprobs.argmax(-1)
            per_token.setdefault(answer.system, []).extend(zip(divergences.tolist(), same.tolist(), strict=True))
            progress(1)
    for system, values in per_token.items():
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
            settings, task = workspace.task(name)
            rows = workspace.split_samples(name, "test")[:samples]
            config = EvalConfig(
                task, adapter_sha256(folder), settings.generation, workspace.params.seed, Referees(sandbox=sandbox)
            )
            results = {}
            for title, engine in engines.items():
                with bar(f"{name} through {title}", 2 * len(rows), "answers") as progress:
                    results[title] = evaluate(
                        config, {"test": EvalSet(rows)}, {BASE_SYSTEM: engine, name: engine}, progress=progress
                    )
            for system in (BASE_SYSTEM, name):
                texts, scores = [], []
                for eval_rows in results.values():
                    system_rows = [row for row in eval_rows if row.completion.system == system]
                    texts.append([row.completion.text for row in system_rows])
                    scores.append(
                        [score.value for row in system_rows for score in row.scores if score.metric == task.headline]
                    )
                if any(value is None for values in scores for value in values):
                    raise SystemExit(f"{name}: some answers are unscored; see `bilora doctor`.")
                left, right = ([float(value or 0.0) for value in values] for values in scores)
                equal = sum(a == b for a, b in zip(*texts, strict=True))
                interval = paired_difference(right, left, seed=workspace.params.seed)
                yield (
                    f"| {name} | {system} | {len(left)} | {equal / len(left):.0%} | {task.headline} "
                    f"| {100 * statistics.fmean(left):.1f} | {100 * statistics.fmean(right):.1f} "
                    f"| {100 * interval.mean:+.1f} [{100 * interval.low:+.1f}, {100 * interval.high:+.1f}] |"
                )


def greedy_requests(workspace: Workspace, count: int, tokens: int) -> list[Request]:
    """Return greedy requests for the first test samples of each task, `count` in all."""
    requests: list[Request] = []
    for name, task in workspace.tasks.items():
        samples: list[Sample] = workspace.split_samples(name, "test")[: count // len(workspace.tasks)]
        sampling = SamplingParams(max_tokens=tokens)
        requests += [Request(f"{name}/{sample.id}", task.messages(sample.prompt), sampling) for sample in samples]
    return requests


def main() -> None:
    """Run the parts and print their tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkout", type=Path, default=Path())
    parser.add_argument("--adapters", nargs="+", default=[], metavar="TASK=FOLDER")
    parser.add_argument("--prompts", type=int, default=200)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--samples", type=int, default=100)
    parser.add_argument("--quantization", choices=get_args(Quantization), help="default: the base's GGUF file")
    options = parser.parse_args()
    silence_libraries()
    workspace = Workspace(options.checkout)
    base = replace(workspace.base(), dtype="float32")
    adapters = {name: Path(folder) for name, _, folder in (option.partition("=") for option in options.adapters)}
    adapters = adapters or {name: workspace.checked_adapter(name) for name in workspace.tasks}
    load = partial(load_local_engine, base=base, adapters=adapters)
    torch_options = EngineOptions(batch_size=TORCH_BATCH_SIZE, cache=workspace.cache("gguf"))
    llama_options = replace(torch_options, batch_size=LLAMA_BATCH_SIZE)
    prompts = greedy_requests(workspace, options.prompts, options.tokens)
    requests = [(system, request) for system in (BASE_SYSTEM, *adapters) for request in prompts]
    reference, torch_engine = Reference(base, adapters), load("torch", options=torch_options)

    torch_answers = greedy_answers(torch_engine, "torch, float32", requests)
    if options.prompts:
        float32_engine = load("llamacpp", options=replace(llama_options, quantization="f32"))
        llama_answers = greedy_answers(float32_engine, "llama.cpp, f32", requests)
        print(*exact_table(reference, torch_answers, llama_answers), sep="\n", end="\n\n", flush=True)
        contexts = served_contexts(base, adapters, options.quantization, workspace.cache("gguf"))
        print(*divergence_table(reference, contexts, torch_answers), sep="\n", end="\n\n", flush=True)
        del float32_engine, contexts
    if options.samples:
        llama_engine = load("llamacpp", options=replace(llama_options, quantization=options.quantization))
        engines = {"torch": torch_engine, "llama.cpp": llama_engine}
        print(*metrics_table(workspace, engines, adapters, options.samples), sep="\n")


if __name__ == "__main__":
    main()
