"""From logits to tokens: penalties, masks, sampling, and log probabilities."""

from __future__ import annotations

import hashlib
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


def apply_penalties(logits: torch.Tensor, rows: Sequence[tuple[SamplingParams, Sequence[int]]]) -> torch.Tensor:
    """Return logits minus each row's frequency and presence penalties.

    Args:
        logits: shape (rows, vocabulary); not modified.
        rows: per row the sampling parameters and the output tokens so far.
    """
    import torch

    penalised = [index for index, (params, _) in enumerate(rows) if params.frequency_penalty or params.presence_penalty]
    if penalised:
        logits = logits.clone()
    for index in penalised:
        params, output_ids = rows[index]
        counts = torch.bincount(torch.tensor(output_ids, dtype=torch.long), minlength=logits.shape[-1]).to(logits)
        logits[index] -= params.frequency_penalty * counts + params.presence_penalty * (counts > 0)
    return logits


def mask_tokens(logits: torch.Tensor, rows: Sequence[int], tokens: Iterable[int]) -> torch.Tensor:
    """Return logits in which the `rows` with these indices can choose none of `tokens`; `logits` is not modified.

    A tokenizer may have tokens for which the model has no logit.
    """
    import torch

    if rows:
        logits = logits.clone()
        columns = [token for token in tokens if 0 <= token < logits.shape[-1]]
        logits[torch.tensor(rows)[:, None], torch.tensor(columns, dtype=torch.long)] = -torch.inf
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
    # 2) What is outside the nucleus gets none.
    for row, index in zip(scores, drawn, strict=True):
        if (top_p := rows[index][0].top_p) < 1.0:
            ordered, places = row.softmax(-1).sort(descending=True, stable=True)
            outside = ordered.cumsum(-1) - ordered >= top_p
            outside[0] = False
            row[places[outside]] = -torch.inf
    # 3) The first token at which the summed probabilities exceed a random share of their total, which is below it.
    summed = scores.softmax(-1).cumsum(-1)
    shares = torch.cat([torch.rand(1, generator=rows[index][1]) for index in drawn])[:, None]
    total = summed[:, -1:]
    places = torch.searchsorted(summed, torch.minimum(shares * total, total.nextafter(torch.zeros(()))), right=True)
    for index, place in zip(drawn, places[:, 0].tolist(), strict=True):
        tokens[index] = place
    return tokens


def token_logprobs(logits: torch.Tensor, token: int, top: int) -> tuple[float, list[tuple[int, float]]]:
    """Return the log probability of `token`, and the `top` likeliest tokens with theirs; temperature is not applied."""
    logprobs: torch.Tensor = logits.log_softmax(-1)
    best = logprobs.topk(top) if top else None
    return float(logprobs[token]), list(zip(best.indices.tolist(), best.values.tolist(), strict=True)) if best else []
