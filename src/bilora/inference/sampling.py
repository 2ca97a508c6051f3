"""Choosing the next token of every row, and saying how likely it was."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from bilora.requests import SamplingParams

if TYPE_CHECKING:
    import torch

COLDEST = 1e-6
"""A lower temperature is no number any more in 32 bit; at this one the likeliest token always comes."""


def generator(params: SamplingParams, prompt: Sequence[int]) -> torch.Generator | None:
    """Return a row's own source of chance, so that its answer does not depend on the rows around it.

    The prompt's tokens count too: a benchmark asks all its questions with one seed, and their chances are
    not to be the same. None if the request is greedy.
    """
    import torch

    if params.temperature <= 0:
        return None
    digest = hashlib.sha256(repr((params.seed, list(prompt))).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))


def penalise(logits: torch.Tensor, rows: Sequence[tuple[SamplingParams, Sequence[int]]]) -> torch.Tensor:
    """Return logits without what the requests' penalties take off the tokens that their answers hold so far.

    Args:
        logits: shape (rows, vocabulary); left as they are.
        rows: each with its answer's tokens.
    """
    import torch

    penalised = [index for index, (asked, _) in enumerate(rows) if asked.frequency_penalty or asked.presence_penalty]
    if penalised:
        logits = logits.clone()
    for index in penalised:
        params, answer = rows[index]
        counts = torch.bincount(torch.tensor(answer, dtype=torch.long), minlength=logits.shape[-1]).to(logits)
        logits[index] -= params.frequency_penalty * counts + params.presence_penalty * (counts > 0)
    return logits


def choose(logits: torch.Tensor, rows: Sequence[tuple[SamplingParams, torch.Generator | None]]) -> list[int]:
    """Return one token a row: the likeliest at temperature 0, else one drawn from the nucleus.

    Args:
        logits: shape (rows, vocabulary), 32 bit.

    Source of top_p: Holtzman et al. 2020.
    """
    import torch

    tokens: list[int] = logits.argmax(-1).tolist()
    for index, (params, chance) in enumerate(rows):
        if chance is None:
            continue
        row = logits[index].cpu()
        scores = (row - row.max()) / max(params.temperature, COLDEST)
        if params.top_p < 1.0:
            ordered, places = scores.softmax(-1).sort(descending=True, stable=True)
            outside = ordered.cumsum(-1) - ordered >= params.top_p
            outside[0] = False
            scores[places[outside]] = -torch.inf
        tokens[index] = int(torch.multinomial(scores.softmax(-1), 1, generator=chance))
    return tokens


def likelihoods(logits: torch.Tensor, token: int, top: int) -> tuple[float, list[tuple[int, float]]]:
    """Return the log probability of `token` and the `top` likeliest tokens with theirs, before any temperature."""
    logs: Any = logits.log_softmax(-1)
    best = logs.topk(top) if top else None
    return float(logs[token]), list(zip(best.indices.tolist(), best.values.tolist(), strict=True)) if best else []
