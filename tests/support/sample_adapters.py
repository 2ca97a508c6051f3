"""Three small adapters of the smoke base, and the reference answers of each."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from bilora.bases.kinds.folder import FolderBase
from bilora.bases.prompt import encode_prompt
from bilora.bases.special_tokens import stop_ids
from bilora.records import Message
from bilora.requests import Request, SamplingParams
from support.checkouts import ROOT
from support.random_adapters import write_random_adapter

SMOKE = FolderBase.at(ROOT / "models" / "smoke")
TOKENS = 6
WORDS = """def return list sum of the a numbers string every in x y if not for sort text first last = ( ) :""".split()


def prompts(count: int) -> list[str]:
    """Return prompts of 1 to 50 words."""
    rng = random.Random(6)
    return [" ".join(rng.choices(WORDS, k=rng.randint(1, 50))) for _ in range(count)]


def chat_request(text: str, tokens: int = TOKENS, **extra: Any) -> Request:
    """Return a request with one user message."""
    return Request(text, (Message(role="user", content=text),), SamplingParams(max_tokens=tokens, **extra))


def greedy_answer(model: Any, tokenizer: Any, request: Request) -> str:
    """Return the greedy answer, computed by one full forward pass per token without batch and KV cache."""
    prompt_ids, stops = encode_prompt(tokenizer, request.messages), stop_ids(tokenizer, model.generation_config)
    output_ids: list[int] = []
    with torch.inference_mode():
        while len(output_ids) < request.sampling.max_tokens:
            token = int(model(input_ids=torch.tensor([prompt_ids + output_ids])).logits[0, -1].argmax())
            if token in stops:
                break
            output_ids.append(token)
    text: str = tokenizer.decode(output_ids, skip_special_tokens=True)
    return text


def is_greedy_answer(model: Any, tokenizer: Any, request: Request, output_ids: list[int]) -> bool:
    """Return whether `output_ids` are the complete greedy answer."""
    prompt_ids, stops = encode_prompt(tokenizer, request.messages), stop_ids(tokenizer, model.generation_config)
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor([prompt_ids + output_ids])).logits[0, len(prompt_ids) - 1 : -1]
    complete = output_ids[-1] in stops or len(output_ids) == request.sampling.max_tokens
    return logits.argmax(-1).tolist() == output_ids and complete and not continues_after_stop(output_ids, stops)


def continues_after_stop(output_ids: list[int], stops: list[int]) -> bool:
    """Return whether an answer continues after a stop token."""
    return any(token in stops for token in output_ids[:-1])


@dataclass(frozen=True)
class SampleAdapters:
    """The folders of the adapter versions `codegen`, `docstring` and `codegen2`, and their reference answers.

    `answer` returns a version's greedy answer to a text; `is_answer` returns whether token ids are that answer. The
    version `base` is the model without an adapter.
    """

    folders: dict[str, Path]
    answer: Callable[[str, str], str]
    is_answer: Callable[[str, str, list[int]], bool]


def make_sample_adapters(folder: Path) -> SampleAdapters:
    """Write the adapters; the reference of each is a model with the adapter merged into its weights."""
    from peft import PeftModel

    attention, mlp = ["qkv_proj", "o_proj"], ["gate_up_proj", "down_proj"]
    targets = {"codegen": attention, "docstring": mlp, "codegen2": attention}
    folders = {
        name: write_random_adapter(folder / name, SMOKE, leaves, seed=seed, rank=4 + seed)
        for seed, (name, leaves) in enumerate(targets.items())
    }
    tokenizer = SMOKE.load(training=False).tokenizer
    models = {"base": SMOKE.load(training=False).model}
    for name, path in folders.items():
        models[name] = PeftModel.from_pretrained(SMOKE.load(training=False).model, str(path)).merge_and_unload().eval()
    answers: dict[tuple[str, str], str] = {}

    def answer(version: str, text: str) -> str:
        if (version, text) not in answers:
            answers[version, text] = greedy_answer(models[version], tokenizer, chat_request(text))
        return answers[version, text]

    def is_answer(version: str, text: str, output_ids: list[int]) -> bool:
        return is_greedy_answer(models[version], tokenizer, chat_request(text), output_ids)

    return SampleAdapters(folders, answer, is_answer)
