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
    chance = random.Random(6)
    return [" ".join(chance.choices(WORDS, k=chance.randint(1, 50))) for _ in range(count)]


def chat_request(text: str, tokens: int = TOKENS, **extra: Any) -> Request:
    """Return a request whose chat is one user message."""
    return Request(text, (Message(role="user", content=text),), SamplingParams(max_tokens=tokens, **extra))


def greedy_answer(model: Any, tokenizer: Any, request: Request) -> str:
    """Return the greedy answer by one full forward pass per token: no batch, no KV cache."""
    ids, stops = encode_prompt(tokenizer, request.messages), stop_ids(tokenizer, model.generation_config)
    new: list[int] = []
    with torch.inference_mode():
        while len(new) < request.sampling.max_tokens:
            token = int(model(input_ids=torch.tensor([ids + new])).logits[0, -1].argmax())
            if token in stops:
                break
            new.append(token)
    text: str = tokenizer.decode(new, skip_special_tokens=True)
    return text


def is_greedy_answer(model: Any, tokenizer: Any, request: Request, new: list[int]) -> bool:
    """Return whether `new` is the greedy answer: each token the likeliest one, and the answer complete."""
    ids, stops = encode_prompt(tokenizer, request.messages), stop_ids(tokenizer, model.generation_config)
    with torch.inference_mode():
        likeliest = model(input_ids=torch.tensor([ids + new])).logits[0, len(ids) - 1 : -1].argmax(-1).tolist()
    ended = new[-1] in stops or len(new) == request.sampling.max_tokens
    return likeliest == new and ended and not stops_inside(new, stops)


def stops_inside(new: list[int], stops: list[int]) -> bool:
    """Return whether an answer continued after a stop token."""
    return any(token in stops for token in new[:-1])


@dataclass(frozen=True)
class SampleAdapters:
    """The adapters' folders by version (`codegen`, `docstring`, `codegen2`), and the reference answers of each.

    `answer` returns a version's greedy answer to a text, `is_answer` whether token ids are that answer. `base` is a
    version too.
    """

    folders: dict[str, Path]
    answer: Callable[[str, str], str]
    is_answer: Callable[[str, str, list[int]], bool]


def make_sample_adapters(folder: Path) -> SampleAdapters:
    """Write the adapters; the reference is a model per version with the adapter merged into its weights."""
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
    known: dict[tuple[str, str], str] = {}

    def answer(version: str, text: str) -> str:
        if (version, text) not in known:
            known[version, text] = greedy_answer(models[version], tokenizer, chat_request(text))
        return known[version, text]

    def is_answer(version: str, text: str, new: list[int]) -> bool:
        return is_greedy_answer(models[version], tokenizer, chat_request(text), new)

    return SampleAdapters(folders, answer, is_answer)
