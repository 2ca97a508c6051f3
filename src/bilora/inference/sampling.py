"""Penalties, masks, sampling and log probabilities of tokens."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from bilora.requests import SamplingParams

if TYPE_CHECKING:
    import torch

MIN_TEMPERATURE = 1e-6
"""Lower temperatures overflow in 32-bit; this one always samples the likeliest token."""


def make_rng(params: SamplingParams, prompt_ids: Sequence[int]) -> torch.Generator | None:
    """Return one sequence's random generator, so that its answer does not depend on the batch; None if greedy.

    The prompt is part of the seed: a benchmark sends all prompts with the same seed, and their random numbers must be
    independent.
    """
    import torch

    if params.temperature <= 0:
        return None
    digest = hashlib.sha256(repr((params.seed, list(prompt_ids))).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))


def apply_penalties(
    logits: torch.Tensor, rows: Sequence[tuple[SamplingParams, Sequence[int], Sequence[int]]]
) -> torch.Tensor:
    """Return logits with each row's bias and penalties, in vLLM's order.

    Args:
        logits: shape (rows, vocabulary); not modified.
        rows: per row the sampling parameters, the prompt's tokens and the output tokens.

    Source of repetition_penalty: Keskar et al. 2019.
    """
    import torch

    changed = [index for index, (params, *_) in enumerate(rows) if _changes_logits(params)]
    if changed:
        logits = logits.clone()
    for index in changed:
        params, prompt_ids, output_ids = rows[index]
        row = logits[index]
        for token, bias in params.logit_bias:
            row[token] += bias
        if params.repetition_penalty != 1.0:
            used = torch.tensor(sorted({token for token in (*prompt_ids, *output_ids) if token < len(row)}))
            row[used] = torch.where(
                row[used] > 0, row[used] / params.repetition_penalty, row[used] * params.repetition_penalty
            )
        counts = torch.bincount(torch.tensor(output_ids, dtype=torch.long), minlength=len(row)).to(row)
        row -= params.frequency_penalty * counts + params.presence_penalty * (counts > 0)
    return logits


def _changes_logits(params: SamplingParams) -> bool:
    penalties = params.frequency_penalty or params.presence_penalty or params.repetition_penalty != 1.0
    return bool(params.logit_bias or penalties)


def mask_tokens(logits: torch.Tensor, rows: Mapping[int, Iterable[int]]) -> torch.Tensor:
    """Return logits without the tokens of each row in `rows`; `logits` is not modified.

    Tokens for which the model has no logit are ignored.
    """
    import torch

    if rows:
        logits = logits.clone()
    for row, tokens in rows.items():
        columns = [token for token in tokens if 0 <= token < logits.shape[-1]]
        logits[row, torch.tensor(columns, dtype=torch.long)] = -torch.inf
    return logits


def mask_disallowed(logits: torch.Tensor, allowed: Mapping[int, torch.Tensor]) -> torch.Tensor:
    """Return logits in which some rows have their allowed tokens only; `logits` is not modified.

    Args:
        allowed: the allowed tokens by index of the row; shape (vocabulary,), bool.
    """
    import torch

    if allowed:
        logits = logits.clone()
    for index, tokens in allowed.items():
        logits[index] = logits[index].masked_fill(~tokens.to(logits.device), -torch.inf)
    return logits


def sample_tokens(logits: torch.Tensor, rows: Sequence[tuple[SamplingParams, torch.Generator | None]]) -> list[int]:
    """Return one token per row: the likeliest at temperature 0, else a sampled one.

    Args:
        logits: shape (rows, vocabulary), 32-bit.

    Source of top_p: Holtzman et al. 2020.
    """
    import torch

    tokens: list[int] = logits.argmax(-1).tolist()
    sampled = [index for index, (_, rng) in enumerate(rows) if rng is not None]
    if not sampled:
        return tokens
    # 1) Divide the logits of the sampled rows by their temperatures.
    scores = logits[sampled].cpu()
    temperatures = torch.tensor([max(rows[index][0].temperature, MIN_TEMPERATURE) for index in sampled])
    scores = (scores - scores.amax(-1, keepdim=True)) / temperatures[:, None]
    # 2) Apply min_p, top_k and top_p.
    for row, index in zip(scores, sampled, strict=True):
        _truncate(row, rows[index][0])
    # 3) Take the first token whose cumulative probability exceeds a random share of the total; rounding must not
    # make the share reach the total.
    cumulative = scores.softmax(-1).cumsum(-1)
    shares = torch.cat([torch.rand(1, generator=rows[index][1]) for index in sampled])[:, None]
    total = cumulative[:, -1:]
    thresholds = torch.minimum(shares * total, total.nextafter(torch.zeros(())))
    samples = torch.searchsorted(cumulative, thresholds, right=True)
    for index, token in zip(sampled, samples[:, 0].tolist(), strict=True):
        tokens[index] = token
    return tokens


def _truncate(scores: torch.Tensor, params: SamplingParams) -> None:
    """Set scores, whose maximum is 0, to minus infinity outside of min_p, then top_k, then top_p."""
    import torch

    if params.min_p > 0:
        scores[scores < math.log(params.min_p)] = -torch.inf
    if 0 < params.top_k < len(scores):
        scores[scores < scores.topk(params.top_k).values[-1]] = -torch.inf
    if params.top_p < 1.0:
        probabilities, tokens = scores.softmax(-1).sort(descending=True, stable=True)
        outside = probabilities.cumsum(-1) - probabilities >= params.top_p
        outside[0] = False
        scores[tokens[outside]] = -torch.inf


def token_logprobs(
    logits: torch.Tensor, tokens: Sequence[int], top: int
) -> list[tuple[float, list[tuple[int, float]]]]:
    """Return per row its token's log probability and the `top` likeliest tokens with theirs, at temperature 1.

    Args:
        logits: shape (tokens, vocabulary), 32-bit.
    """
    import torch

    logprobs: torch.Tensor = logits.log_softmax(-1)
    of_tokens = logprobs.gather(1, torch.tensor(tokens, device=logits.device)[:, None])[:, 0].tolist()
    best = logprobs.topk(top)
    likeliest = [
        list(zip(*pair, strict=True)) for pair in zip(best.indices.tolist(), best.values.tolist(), strict=True)
    ]
    return list(zip(of_tokens, likeliest, strict=True))
