"""From logits to tokens: penalties, masks, sampling, and log probabilities."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from bilora.requests import SamplingParams

if TYPE_CHECKING:
    import torch

MIN_TEMPERATURE = 1e-6
"""Lower temperatures overflow in 32-bit; at this one the likeliest token is always sampled."""


def make_rng(params: SamplingParams, prompt_ids: Sequence[int]) -> torch.Generator | None:
    """Return a sequence's own random generator, so that its answer does not depend on the batch; None if greedy.

    The prompt is part of the seed: a benchmark sends all its questions with one seed, and their random numbers must
    be independent.
    """
    import torch

    if params.temperature <= 0:
        return None
    digest = hashlib.sha256(repr((params.seed, list(prompt_ids))).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))


def apply_penalties(
    logits: torch.Tensor, rows: Sequence[tuple[SamplingParams, Sequence[int], Sequence[int]]]
) -> torch.Tensor:
    """Return logits plus each row's bias, minus its penalties, in vLLM's order.

    Args:
        logits: shape (rows, vocabulary); not modified.
        rows: per row the sampling parameters, the prompt's tokens, and the output tokens so far.

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
            seen = torch.tensor(sorted({token for token in (*prompt_ids, *output_ids) if token < len(row)}))
            row[seen] = torch.where(
                row[seen] > 0, row[seen] / params.repetition_penalty, row[seen] * params.repetition_penalty
            )
        counts = torch.bincount(torch.tensor(output_ids, dtype=torch.long), minlength=len(row)).to(row)
        row -= params.frequency_penalty * counts + params.presence_penalty * (counts > 0)
    return logits


def _changes_logits(params: SamplingParams) -> bool:
    penalties = params.frequency_penalty or params.presence_penalty or params.repetition_penalty != 1.0
    return bool(params.logit_bias or penalties)


def mask_tokens(logits: torch.Tensor, rows: Mapping[int, Iterable[int]]) -> torch.Tensor:
    """Return logits in which each of the rows with these indices can choose none of its tokens.

    A tokenizer may have tokens for which the model has no logit. `logits` is not modified.
    """
    import torch

    if rows:
        logits = logits.clone()
    for row, tokens in rows.items():
        columns = [token for token in tokens if 0 <= token < logits.shape[-1]]
        logits[row, torch.tensor(columns, dtype=torch.long)] = -torch.inf
    return logits


def keep_tokens(logits: torch.Tensor, allowed: Mapping[int, torch.Tensor]) -> torch.Tensor:
    """Return logits in which some rows can choose allowed tokens only; `logits` is not modified.

    Args:
        allowed: per index of such a row, which tokens it may choose; shape (vocabulary,), bool.
    """
    import torch

    if allowed:
        logits = logits.clone()
    for index, tokens in allowed.items():
        logits[index] = logits[index].masked_fill(~tokens.to(logits.device), -torch.inf)
    return logits


def sample_tokens(logits: torch.Tensor, rows: Sequence[tuple[SamplingParams, torch.Generator | None]]) -> list[int]:
    """Return one token per row: the likeliest at temperature 0, else one sampled from the nucleus.

    Args:
        logits: shape (rows, vocabulary), 32 bit.

    Source of top_p: Holtzman et al. 2020.
    """
    import torch

    tokens: list[int] = logits.argmax(-1).tolist()
    drawn = [index for index, (_, rng) in enumerate(rows) if rng is not None]
    if not drawn:
        return tokens
    # 1) The scores of all sampled rows.
    scores = logits[drawn].cpu()
    temperatures = torch.tensor([max(rows[index][0].temperature, MIN_TEMPERATURE) for index in drawn])
    scores = (scores - scores.amax(-1, keepdim=True)) / temperatures[:, None]
    # 2) What may not be chosen gets none.
    for row, index in zip(scores, drawn, strict=True):
        _restrict(row, rows[index][0])
    # 3) The first token at which the summed probabilities exceed a random share of their total, which is below it.
    summed = scores.softmax(-1).cumsum(-1)
    shares = torch.cat([torch.rand(1, generator=rows[index][1]) for index in drawn])[:, None]
    total = summed[:, -1:]
    places = torch.searchsorted(summed, torch.minimum(shares * total, total.nextafter(torch.zeros(()))), right=True)
    for index, place in zip(drawn, places[:, 0].tolist(), strict=True):
        tokens[index] = place
    return tokens


def _restrict(scores: torch.Tensor, params: SamplingParams) -> None:
    """Make the scores, whose highest is 0, minus infinity outside of min_p, then of top_k, then of the nucleus."""
    import torch

    if params.min_p > 0:
        scores[scores < math.log(params.min_p)] = -torch.inf
    if 0 < params.top_k < len(scores):
        scores[scores < scores.topk(params.top_k).values[-1]] = -torch.inf
    if params.top_p < 1.0:
        ordered, places = scores.softmax(-1).sort(descending=True, stable=True)
        outside = ordered.cumsum(-1) - ordered >= params.top_p
        outside[0] = False
        scores[places[outside]] = -torch.inf


def token_logprobs(
    logits: torch.Tensor, tokens: Sequence[int], top: int
) -> list[tuple[float, list[tuple[int, float]]]]:
    """Return per row the log probability of its token, and the `top` likeliest with theirs, without temperature.

    Args:
        logits: shape (tokens, vocabulary), 32 bit.
    """
    import torch

    logprobs: torch.Tensor = logits.log_softmax(-1)
    chosen = logprobs.gather(1, torch.tensor(tokens, device=logits.device)[:, None])[:, 0].tolist()
    best = logprobs.topk(top)
    likeliest = [
        list(zip(*pair, strict=True)) for pair in zip(best.indices.tolist(), best.values.tolist(), strict=True)
    ]
    return list(zip(chosen, likeliest, strict=True))
