"""The base that comes in a package answers through llama.cpp as it does through torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest
import torch
from support.gguf_files import SMOLLM2, packaged_gguf
from support.random_adapters import write_random_adapter

from bilora.bases.base import Base, open_base
from bilora.bases.kinds.package import PackageBase
from bilora.bases.prompt import encode_prompt
from bilora.inference.llamacpp.engine import LlamaEngine
from bilora.inference.peft_adapter import read_peft_adapter
from bilora.inference.torch.engine import TorchEngine
from bilora.records import Message
from bilora.requests import Request, SamplingParams, Submission

pytestmark = pytest.mark.slow

LAYERS = {"codegen": ["q_proj", "k_proj", "v_proj", "o_proj"], "docstring": ["gate_proj", "up_proj", "down_proj"]}
SYSTEMS = ("base", *LAYERS)
NEAR_TIE = 1e-3
QUESTIONS = (
    "Write a function that returns the sum of the even numbers of a list.",
    "Write a function that reverses a string.",
    "What does this do?\n\ndef area(r):\n    return 3.14159 * r * r",
    "Explain what a hash table is in one sentence.",
    "x =    3\ny = 12\nprint(x + y)",
    "Schreibe eine Funktion, die prüft, ob eine Zahl gerade ist. 👍",
    "Text that spells <|im_end|> and <|im_start|>assistant ends nothing.",
    "Name three colours.",
)


@pytest.fixture(scope="module")
def packaged(tmp_path_factory: pytest.TempPathFactory) -> PackageBase:
    """The base of the installed package, with a separate cache."""
    pytest.importorskip("llama_cpp", reason='llama.cpp is not installed: pip install "bilora[llamacpp]"')
    packaged_gguf()
    base = open_base(SMOLLM2, tmp_path_factory.mktemp("checkout"))
    assert isinstance(base, PackageBase)
    return replace(base, dtype="float32")


@pytest.fixture(scope="module")
def adapters(packaged: Base, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """An adapter on attention and one on MLP layers, with weights about as large as trained ones."""
    folder = tmp_path_factory.mktemp("adapters")
    return {
        name: write_random_adapter(folder / name, packaged, targets, seed=seed, rank=16, std=0.004)
        for seed, (name, targets) in enumerate(LAYERS.items())
    }


def requests(tokens: int) -> list[tuple[str, Request]]:
    return [
        (system, Request(text, (Message(role="user", content=text),), SamplingParams(max_tokens=tokens)))
        for text in QUESTIONS
        for system in SYSTEMS
    ]


def greedy_ids(engine: LlamaEngine | TorchEngine, pairs: Sequence[tuple[str, Request]]) -> list[Any]:
    """Return the finished sequences, whose `prompt_ids` and `output_ids` are token ids."""
    events: SimpleQueue[Any] = SimpleQueue()
    jobs = engine.prepare([Submission(system, request, events.put) for system, request in pairs], streamed=False)
    engine.submit(jobs)
    for _ in jobs:
        assert not isinstance(event := events.get(timeout=300), Exception), event
    return jobs


def gap_between_best(packaged: Base, adapter: Path | None, ids: list[int]) -> float:
    """Return the difference of transformers' two best logits after these tokens."""
    from peft import PeftModel

    model: Any = packaged.load(training=False).model
    model = PeftModel.from_pretrained(model, str(adapter)) if adapter else model
    with torch.inference_mode():
        best, second = model(input_ids=torch.tensor([ids])).logits[0, -1].topk(2).values.tolist()
    return float(best - second)


def test_in_32_bit_both_engines_choose_the_same_tokens(
    packaged: PackageBase, adapters: dict[str, Path], tmp_path: Path
) -> None:
    requests_sent = requests(16)
    served = greedy_ids(LlamaEngine(packaged, "f32", adapters, batch_size=8, cache=tmp_path), requests_sent)
    local = greedy_ids(TorchEngine(packaged.load(training=False), adapters, batch_size=24), requests_sent)
    answers: dict[str, list[tuple[int, ...]]] = {system: [] for system in SYSTEMS}
    for torch_sequence, llama_sequence in zip(local, served, strict=True):
        assert torch_sequence.prompt_ids == llama_sequence.prompt_ids
        answers[torch_sequence.system].append(tuple(torch_sequence.output_ids))
        pairs = enumerate(zip(torch_sequence.output_ids, llama_sequence.output_ids, strict=False))
        index = next((index for index, (left, right) in pairs if left != right), None)
        if index is None:
            assert len(torch_sequence.output_ids) == len(llama_sequence.output_ids)
        else:
            ids = torch_sequence.prompt_ids + torch_sequence.output_ids[:index]
            assert gap_between_best(packaged, adapters.get(torch_sequence.system), ids) < NEAR_TIE
    assert all(answers["base"] != answers[name] for name in LAYERS)  # otherwise a skipped adapter would go unnoticed


def test_the_packaged_file_is_served_without_a_weight_being_dequantised(
    packaged: PackageBase, adapters: dict[str, Path], tmp_path: Path
) -> None:
    base = replace(packaged, cache=tmp_path / "bases")
    file = base.gguf_file()
    beside = {path: path.stat().st_mtime_ns for path in file.parent.iterdir() if path.suffix == ".gguf"}
    engine = LlamaEngine(base, None, adapters, batch_size=8, cache=tmp_path / "gguf")
    answers = greedy_ids(engine, requests(24))
    tokenizer = base.tokenizer()
    assert all(sequence.prompt_ids == encode_prompt(tokenizer, sequence.request.messages) for sequence in answers)
    assert any(sequence.output_ids[-1] == tokenizer.convert_tokens_to_ids("<|im_end|>") for sequence in answers)
    assert file.name in engine.mode
    assert not list(base.cache.rglob("*.safetensors")) and not list((tmp_path / "gguf").glob("base-*"))
    assert {path: path.stat().st_mtime_ns for path in beside} == beside


def test_in_a_mixed_batch_every_answer_is_the_one_that_its_adapter_gives_alone(
    packaged: PackageBase, adapters: dict[str, Path], tmp_path: Path
) -> None:
    engine = LlamaEngine(packaged, None, adapters, batch_size=3, cache=tmp_path)
    pairs = requests(16)[:9]
    mixed = [completion.text for completion in engine.generate_mixed(pairs)]
    assert mixed == [engine.generate(system, [request])[0].text for system, request in pairs]
    base, attention, mlp = (mixed[start::3] for start in range(3))
    assert base != attention != mlp != base
    codegen, other = pairs[1][1], adapters["docstring"]
    engine.load_adapter("codegen", other)  # the next version, on other layers
    assert engine.generate("codegen", [codegen])[0].text == engine.generate("docstring", [codegen])[0].text
    assert engine.models()["codegen"] == read_peft_adapter(other).sha256
