"""Two adapters and a later version of one, and what each of them says when asked alone."""

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
from support.checkout import ROOT
from support.lora import made_adapter

SMOKE = FolderBase.at(ROOT / "models" / "smoke")
TOKENS = 6
WORDS = """def return list sum of the a numbers string every in x y if not for sort text first last = ( ) :""".split()


def prompts(count: int) -> list[str]:
    """Prompts of 1 to 50 words."""
    chance = random.Random(6)
    return [" ".join(chance.choices(WORDS, k=chance.randint(1, 50))) for _ in range(count)]


def ask(text: str, tokens: int = TOKENS, **extra: Any) -> Request:
    """A question."""
    return Request(text, (Message(role="user", content=text),), SamplingParams(max_tokens=tokens, **extra))


def alone(model: Any, tokenizer: Any, request: Request) -> str:
    """The greedy answer by one whole forward pass a token: no batch, no cache."""
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


def follows(model: Any, tokenizer: Any, request: Request, new: list[int]) -> bool:
    """Whether `new` are the tokens that `alone` makes: each the likeliest after those before it, and no one missing."""
    ids, stops = encode_prompt(tokenizer, request.messages), stop_ids(tokenizer, model.generation_config)
    with torch.inference_mode():
        likeliest = model(input_ids=torch.tensor([ids + new])).logits[0, len(ids) - 1 : -1].argmax(-1).tolist()
    ended = new[-1] in stops or len(new) == request.sampling.max_tokens
    return likeliest == new and ended and not stops_inside(new, stops)


def stops_inside(new: list[int], stops: list[int]) -> bool:
    """Whether an answer went on after its end."""
    return any(token in stops for token in new[:-1])


@dataclass(frozen=True)
class Cast:
    """Where the adapters of the versions lie (`codegen`, `docstring`, `codegen2`; and `base`), and what each says.

    `says` gives a version's answer to a text, `would_say` tells whether these tokens are that answer.
    """

    folders: dict[str, Path]
    says: Callable[[str, str], str]
    would_say: Callable[[str, str, list[int]], bool]


def made_cast(folder: Path) -> Cast:
    """Make the adapters, and the reference: a model of each version with its adapter merged into its weights."""
    from peft import PeftModel

    attention, mlp = ["qkv_proj", "o_proj"], ["gate_up_proj", "down_proj"]
    targets = {"codegen": attention, "docstring": mlp, "codegen2": attention}
    folders = {
        name: made_adapter(folder / name, SMOKE, leaves, seed=seed, rank=4 + seed)
        for seed, (name, leaves) in enumerate(targets.items())
    }
    tokenizer = SMOKE.load(training=False).tokenizer
    models = {"base": SMOKE.load(training=False).model}
    for name, path in folders.items():
        models[name] = PeftModel.from_pretrained(SMOKE.load(training=False).model, str(path)).merge_and_unload().eval()
    known: dict[tuple[str, str], str] = {}

    def says(version: str, text: str) -> str:
        if (version, text) not in known:
            known[version, text] = alone(models[version], tokenizer, ask(text))
        return known[version, text]

    def would_say(version: str, text: str, new: list[int]) -> bool:
        return follows(models[version], tokenizer, ask(text), new)

    return Cast(folders, says, would_say)
